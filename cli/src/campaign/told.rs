//! A campaign in words: its plan, its waves, where it is, and how it ended.

use jiff::Timestamp;
use keywheel::campaign::{Campaign, Phase, Request, Wave};
use serde_json::json;

use super::read::Seen;
use crate::output::table;
use crate::time;

/// A line for a list of other things.
pub(super) fn line(seen: &Seen, now: Timestamp) -> String {
    let (promoted, failed) = seen.document.as_ref().map(Campaign::done).unwrap_or_default();
    let keys = seen.document.as_ref().map_or(0, Campaign::keys);
    let counted = format!("{promoted} of {keys} keys promoted, {failed} failed");
    if seen.is_under_way() {
        return format!(
            "fleet: a campaign runs since {}: {counted}. `keywheel fleet status` shows it.",
            time::at_and_away(seen.started, now)
        );
    }
    format!("fleet: the last campaign, {}: {}, {counted}", time::at_and_away(seen.started, now), seen.word())
}

/// What is planned.
pub(super) fn plan(doc: &Campaign) -> String {
    let counts = &doc.counts;
    if !doc.request.secrets.is_empty() {
        return format!("{} keys of the secrets that were named", counts.rotate);
    }
    let warned = match counts.warned {
        0 => String::new(),
        warned => format!("; of {warned} that are due soon the owners are told"),
    };
    format!(
        "{} keys of {} users to rotate, {} left alone, {} to look at, {} could not be read{warned}",
        counts.rotate, counts.users, counts.skip, counts.find, counts.unread
    )
}

/// The waves as a table; nothing where there are none.
pub(super) fn waves(seen: &Seen) -> Vec<String> {
    let Some(doc) = seen.document.as_ref().filter(|doc| !doc.waves.is_empty()) else { return Vec::new() };
    let mut rows =
        vec![["WAVE", "KEYS", "BATCHES", "PROMOTED", "FAILED", "STATE"].map(str::to_owned).to_vec()];
    rows.extend(doc.waves.iter().map(|wave| {
        vec![
            wave.wave.to_string(),
            wave.keys.to_string(),
            format!("{} of {}", wave.begun, wave.batches),
            match wave.retiring {
                0 => wave.promoted.to_string(),
                old => format!("{} and {old} old ones retiring", wave.promoted),
            },
            wave.failed.to_string(),
            state(seen, wave).to_owned(),
        ]
    }));
    table(&rows)
}

fn state(seen: &Seen, wave: &Wave) -> &'static str {
    if wave.counted() == wave.keys {
        return "through";
    }
    match (wave.begun, seen.is_under_way()) {
        (0, true) => "waits",
        (0, false) => "not begun",
        (_, true) => "under way",
        (_, false) => "broken off",
    }
}

/// Where it is now, or how it ended, in a sentence or two.
pub(super) fn now(seen: &Seen) -> String {
    let Some(doc) = &seen.document else {
        return if seen.is_under_way() {
            "The account is read and the plan is made.".to_owned()
        } else {
            format!("No plan was made, and nothing was started ({}){}", seen.word(), failure(seen))
        };
    };
    if let Some(outcome) = doc.outcome {
        let why = doc.why.as_ref().map(|why| format!("{} {}", why.text, why.remedy));
        return format!("{}: {}", outcome.name(), why.unwrap_or_default()).trim_end().to_owned();
    }
    if !seen.is_under_way() {
        let place = seen.state.as_ref().map_or_else(String::new, |(state, _)| format!(" in {state}"));
        return format!(
            "It ended without an outcome ({}{place}){} What was started goes on; the next campaign takes up what is still due.",
            seen.word(),
            failure(seen)
        );
    }
    let batches: usize = doc.waves.iter().map(|wave| wave.batches).sum();
    match (&doc.batch, doc.phase) {
        (Some(batch), Phase::Settle) => {
            let again = doc
                .wait_until
                .map_or_else(String::new, |at| format!(" and is looked at again at {}", time::at(at)));
            format!(
                "Batch {} of {batches} (wave {}) is not through: a rotation is still on its way{again}.",
                batch.number, batch.wave
            )
        }
        (Some(batch), _) => format!(
            "Batch {} of {batches} (wave {}) was begun at {}; each of its rotations is waited for until it has promoted its key.",
            batch.number,
            batch.wave,
            time::at(batch.began)
        ),
        (None, _) => "The plan is made.".to_owned(),
    }
}

/// What is known of a failure, as the end of a sentence.
fn failure(seen: &Seen) -> String {
    let doc = seen.document.as_ref();
    let Some(caught) = seen.failure.as_ref().or(doc.and_then(|doc| doc.error.as_ref())) else {
        return ".".to_owned();
    };
    let message = caught.message();
    let message = message.trim_end_matches('.');
    if message.is_empty() {
        format!(": {}.", caught.error)
    } else {
        format!(": {}: {message}.", caught.error)
    }
}

/// What changes while it is followed.
pub(super) fn progress(seen: Option<&Seen>) -> Vec<String> {
    let Some(seen) = seen else { return vec!["The campaign was started, and is not seen yet.".to_owned()] };
    let planned = seen.document.as_ref().map(|doc| format!("Plan: {}.", plan(doc)));
    planned.into_iter().chain(waves(seen)).chain([now(seen)]).map(|line| plain(&line)).collect()
}

/// All of it.
pub(super) fn lines(seen: &Seen, at: Timestamp) -> Vec<String> {
    let mut lines = vec![
        format!("Campaign   {}  {}", seen.id, seen.word()),
        format!("Began      {}", time::at_and_away(seen.started, at)),
    ];
    if let Some(stopped) = seen.stopped {
        let took = time::short(time::between(seen.started, stopped));
        lines.push(format!("Ended      {}, after {took}", time::at_and_away(stopped, at)));
    }
    lines.extend(seen.request.as_ref().map(|request| format!("Asked      {}", asked(request))));
    if let Some(doc) = &seen.document {
        if doc.campaign.to_string() != seen.id {
            lines.push(format!("Told as    {}", doc.campaign));
        }
        lines.push(match &doc.policy_version {
            Some(version) => format!("Policy     version {version}; {} % of a wave may fail", doc.tolerance),
            None => format!(
                "Policy     without a version, or the careful defaults; {} % of a wave may fail",
                doc.tolerance
            ),
        });
        lines.push(format!("Plan       {}", plan(doc)));
        if !doc.waves.is_empty() {
            lines.push(format!("           s3://{}/{}", doc.bucket, doc.plan()));
        }
    }
    lines.push(format!("Now        {}", now(seen)));
    lines.extend(waves(seen).iter().map(|line| format!("  {line}")));
    lines.extend(failures(seen));
    lines.iter().map(|line| plain(line)).collect()
}

/// The rotations that did not promote their key.
pub(super) fn failures(seen: &Seen) -> Vec<String> {
    let Some(doc) = &seen.document else { return Vec::new() };
    let line = |failed: &keywheel::campaign::Failed| {
        format!(
            "Failed     {} (wave {}): {}: {} Run {}.",
            failed.whom, failed.wave, failed.code, failed.text, failed.run
        )
    };
    let (_, failed) = doc.done();
    let more = failed.saturating_sub(doc.failed.len());
    let more =
        (more > 0).then(|| format!("Failed     and {more} more: s3://{}/{}", doc.bucket, doc.place("")));
    doc.failed.iter().map(line).chain(more).map(|line| plain(&line)).collect()
}

fn asked(request: &Request) -> String {
    // The word of the document itself.
    let reason = json!(request.reason);
    let mut parts = vec![reason.as_str().unwrap_or_default().to_owned()];
    if request.dry_run {
        parts.push("a plan only".to_owned());
    }
    parts.extend(request.policy_version.as_ref().map(|version| format!("policy version {version}")));
    if !request.secrets.is_empty() {
        parts.push(format!("secrets {}", request.secrets.join(", ")));
    }
    parts.join("; ")
}

/// Some of it others wrote: a terminal must not obey it.
fn plain(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{ID, document, seen, t};
    use super::*;
    use aws_sdk_sfn::types::ExecutionStatus;
    use keywheel::campaign::Outcome;
    use keywheel::rotation::Caught;

    fn running() -> Seen {
        seen(ExecutionStatus::Running, None)
    }

    #[test]
    fn a_campaign_under_way_shows_its_plan_its_waves_and_its_batch() {
        let lines = progress(Some(&running()));
        assert_eq!(
            lines,
            [
                "Plan: 30 keys of 250 users to rotate, 218 left alone, 2 to look at, 1 could not be read.",
                "WAVE  KEYS  BATCHES  PROMOTED  FAILED  STATE",
                "0     11    2 of 2   10        1       through",
                "3     19    1 of 2   0         0       under way",
                "Batch 3 of 4 (wave 3) was begun at 1970-01-01 00:03:20 UTC; each of its rotations is waited for until it has promoted its key.",
            ]
        );
        let mut late = running();
        let doc = late.document.as_mut().unwrap();
        doc.settle(t(300));
        assert!(now(&late).ends_with("and is looked at again at 1970-01-01 00:05:00 UTC."), "{}", now(&late));
        let mut warned = document();
        warned.counts.warned = 3;
        assert!(plan(&warned).ends_with("could not be read; of 3 that are due soon the owners are told"));
        let mut named = document();
        named.request.secrets = vec!["app/mail".into()];
        assert_eq!(plan(&named), "30 keys of the secrets that were named");
    }

    #[test]
    fn before_the_plan_is_made_there_is_little_to_tell() {
        assert_eq!(progress(None).len(), 1);
        let mut early = running();
        early.document = None;
        assert_eq!(progress(Some(&early)), ["The account is read and the plan is made."]);
        let mut refused = seen(ExecutionStatus::Failed, None);
        refused.document = None;
        refused.failure = Some(Caught { error: "Keywheel.Refused".into(), cause: "denied.".into() });
        assert_eq!(
            progress(Some(&refused)),
            ["No plan was made, and nothing was started (Failed): Keywheel.Refused: denied."]
        );
    }

    #[test]
    fn waves_that_never_had_their_turn_are_told_from_those_that_wait() {
        let mut running = running();
        running.document.as_mut().unwrap().waves[1].begun = 0;
        running.document.as_mut().unwrap().batch = None;
        assert!(waves(&running)[2].ends_with("waits"), "{:?}", waves(&running));
        for outcome in [Outcome::Stopped, Outcome::Planned] {
            let mut ended = seen(ExecutionStatus::Succeeded, Some(outcome));
            assert!(waves(&ended)[2].ends_with("broken off"), "{:?}", waves(&ended));
            ended.document.as_mut().unwrap().waves[1].begun = 0;
            assert!(waves(&ended)[2].ends_with("not begun"), "{:?}", waves(&ended));
        }
    }

    #[test]
    fn every_outcome_and_every_end_without_one_has_its_words() {
        for outcome in Outcome::ALL {
            let text = now(&seen(ExecutionStatus::Succeeded, Some(outcome)));
            assert_eq!(text, format!("{}: This is why. Do that.", outcome.name()));
        }
        let mut stopped = seen(ExecutionStatus::Aborted, None);
        stopped.failure = Some(Caught { error: "Keywheel.Stopped".into(), cause: "A person.".into() });
        let text = now(&stopped);
        assert!(
            text.starts_with("It ended without an outcome (Aborted in Batch): Keywheel.Stopped: A person."),
            "{text}"
        );
        assert!(text.contains("What was started goes on"), "{text}");
        let text = now(&seen(ExecutionStatus::TimedOut, None));
        assert!(text.starts_with("It ended without an outcome (TimedOut in Batch). What"), "{text}");
    }

    #[test]
    fn the_details_name_what_was_asked_the_failures_and_the_plan() {
        let mut seen = seen(ExecutionStatus::Succeeded, Some(Outcome::Done));
        let request = seen.request.as_mut().unwrap();
        request.secrets = vec!["app/mail".into(), "app/\u{1b}[2Jsearch".into()];
        request.dry_run = true;
        let doc = seen.document.as_mut().unwrap();
        doc.waves[1].failed = 5;
        let lines = lines(&seen, t(4_600));
        let run = document().campaign.child("svc-mail");
        for line in [
            "Ended      1970-01-01 00:16:40 UTC (1h ago), after 15m",
            &format!("Campaign   {ID}  Done"),
            "Asked      manual; a plan only; secrets app/mail, app/[2Jsearch",
            "Policy     version v7; 10 % of a wave may fail",
            &format!("           s3://bucket/campaigns/{ID}/plan.jsonl"),
            "Now        Done: This is why. Do that.",
            &format!("Failed     svc-mail (wave 0): SlotsFull: Both slots are taken. Run {run}."),
            &format!("Failed     and 5 more: s3://bucket/campaigns/{ID}/"),
        ] {
            assert!(lines.iter().any(|other| other == line), "{line}\n{lines:#?}");
        }
        // The schedule names its executions as it likes.
        assert!(!lines.iter().any(|line| line.starts_with("Told as")));
        seen.id = "by-schedule".into();
        assert!(super::lines(&seen, t(4_600)).contains(&format!("Told as    {ID}")));
    }

    #[test]
    fn a_glance_is_one_line() {
        assert_eq!(
            line(&running(), t(3_700)),
            "fleet: a campaign runs since 1970-01-01 00:01:40 UTC (1h ago): 10 of 30 keys promoted, 1 failed. `keywheel fleet status` shows it."
        );
        let ended = seen(ExecutionStatus::Succeeded, Some(Outcome::Stopped));
        assert_eq!(
            line(&ended, t(3_700)),
            "fleet: the last campaign, 1970-01-01 00:01:40 UTC (1h ago): Stopped, 10 of 30 keys promoted, 1 failed"
        );
    }
}

//! One incident, and what a person can do about it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use keywheel::incident::{Findings, Record, RecordState, Way, page};
use keywheel::key::{self, KeyFacts};
use keywheel::{AccessKeyId, Incident, Outcome, UserName};
use serde_json::json;

use super::list::word;
use super::read::{Seen, Subject};
use crate::error::{Exit, Result, Trouble};
use crate::output::Out;
use crate::place::Place;
use crate::time;

/// Shows it. What could not be read is said, and makes the exit code 1.
pub(super) async fn run(place: &Place, out: &Out, subject: &Subject) -> Result<Exit> {
    let now = Timestamp::now();
    let listed = match owner(subject) {
        Some(user) if place.has_iam() => facts::iam::keys(&place.iam(), user).await.map(Some),
        _ => Ok(None),
    };
    let (listed, remark) = match listed {
        Ok(listed) => (listed, None),
        Err(error) => (None, Some(format!("The user's keys could not be read: {}", Trouble::from(error)))),
    };
    let states: Vec<(AccessKeyId, String)> =
        subject.keys.iter().map(|key| (key.clone(), state(key, listed.as_deref()))).collect();
    let todo = todo(subject, listed.as_deref(), now);
    let records: Vec<&Record> = subject.records.iter().collect();
    let document = subject.document();
    out.json(&json!({
        "incident": subject.id(),
        "state": word(document, &records, now),
        "status": subject.seen.as_ref().map(|seen| seen.status.as_str()),
        "keys": states.iter().map(|(key, state)| json!({ "id": key, "state": state })).collect::<Vec<_>>(),
        "document": document,
        "records": subject.records,
        "todo": todo,
        "remark": remark,
    }));
    // Some of it others wrote: a terminal must not obey it.
    out.lines(&lines(subject, &states, now).iter().map(|line| plain(line)).collect::<Vec<_>>());
    out.lines(&todo.iter().map(|todo| format!("To do      {todo}")).collect::<Vec<_>>());
    Ok(match remark {
        Some(remark) => {
            out.note(&remark);
            Exit::Refused
        }
        None => Exit::Done,
    })
}

/// Writes the incident as a page. It holds names and ids, and no secret.
pub(super) fn write_page(out: &Out, subject: &Subject, file: &Path) -> Result<()> {
    let Some(document) = subject.document() else {
        return Err(Trouble::new(
            "The incident's execution is no longer known, so there is no page of it to write.",
            "The report that was kept with it may still be there.",
        ));
    };
    std::fs::write(file, page(document)).map_err(|error| {
        Trouble::new(format!("{} cannot be written: {error}.", file.display()), "Name another file.")
    })?;
    out.note(&format!("Wrote {}.", file.display()));
    Ok(())
}

fn owner(subject: &Subject) -> Option<&UserName> {
    let doc = subject.document();
    let known = doc.and_then(|doc| doc.user.as_ref()).or(subject.records.first().map(|record| &record.user));
    known.or(doc.and_then(|doc| doc.target.user.as_ref()))
}

fn plain(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

/// What a key is now.
fn state(key: &AccessKeyId, listed: Option<&[KeyFacts]>) -> String {
    if key.is_temporary() {
        return "temporary".to_owned();
    }
    let Some(listed) = listed else { return "unknown".to_owned() };
    key::find(listed, key).map_or_else(|| "gone".to_owned(), |key| format!("{:?}", key.status))
}

fn lines(subject: &Subject, states: &[(AccessKeyId, String)], now: Timestamp) -> Vec<String> {
    let records: Vec<&Record> = subject.records.iter().collect();
    let running = if subject.seen.as_ref().is_some_and(Seen::is_running) { ", its machine runs" } else { "" };
    let mut lines = vec![format!(
        "Incident   {}  {}{running}",
        subject.id().unwrap_or_default(),
        word(subject.document(), &records, now)
    )];
    lines.extend(owner(subject).map(|user| format!("User       {user}")));
    lines.extend(states.iter().map(|(key, state)| format!("Key        {key}  {state} now")));
    if let Some(doc) = subject.document() {
        lines.extend(told(doc, now));
    } else {
        let first = records.first();
        lines.extend(first.map(|record| format!("Contained  {}", time::at_and_away(record.at, now))));
        lines.push("           Its execution is no longer known; this is what is kept of it.".to_owned());
    }
    if let Some(failure) = subject.seen.as_ref().and_then(|seen| seen.failure.as_ref()) {
        lines.push(format!("Machine    ended with {}: {}", failure.error, failure.message()));
    }
    for record in records {
        if let Some(note) = &record.note {
            let until = record.until.map_or_else(String::new, |until| format!(" until {}", time::at(until)));
            let what = match record.state {
                RecordState::Cleared => format!("false alarm{until}, by "),
                RecordState::Closed | RecordState::Contained => String::new(),
            };
            lines.push(format!("On record  {}: {what}{note}", record.key));
        }
    }
    lines
}

fn told(doc: &Incident, now: Timestamp) -> Vec<String> {
    let target = &doc.target;
    let class = json!(target.class);
    let source = json!(target.source);
    let severity = json!(target.severity);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![
        format!(
            "Class      {}, from {}, severity {}: {}",
            text(&class),
            text(&source),
            text(&severity),
            doc.reason
        ),
        format!("Began      {}", time::at_and_away(doc.started, now)),
    ];
    lines.push(match (doc.contained_at, doc.bound) {
        (Some(at), _) => {
            format!("Contained  {}, {} after the event arrived", time::at(at), took(doc.started, at))
        }
        (None, Some(bound)) if doc.outcome.is_none() => {
            format!("Contained  not yet; by the policy at {}", time::at_and_away(bound, now))
        }
        (None, _) => "Contained  not by this incident".to_owned(),
    });
    for deny in &doc.roles {
        let names = deny.sessions.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        lines.push(match &deny.refused {
            None => format!("Role       {} denies the sessions {names}", deny.role),
            Some(why) => format!("Role       {} does NOT deny the sessions {names}: {why}", deny.role),
        });
    }
    if doc.denied {
        lines.push("Stop-gap   the user is denied everything until the key is Inactive".to_owned());
    }
    if let Some(deny) = &doc.deny {
        let over = if deny.until <= now { ", which has passed" } else { "" };
        lines.push(format!(
            "Sessions   issued before {} are denied until {}{over}",
            time::at(deny.cut_off),
            time::at(deny.until)
        ));
    } else if doc.contained_at.is_some() {
        lines.push("Sessions   are NOT denied".to_owned());
    }
    if let Some(replacement) = &doc.replacement {
        let run = replacement.run.map_or_else(String::new, |run| format!(" (run {run})"));
        let what = match (replacement.way, replacement.working) {
            (Way::NotNeeded, _) => "not needed",
            (_, true) => "the application has a working key",
            (_, false) => "the application has NO working key",
        };
        lines.push(format!("Replaced   {what}{run}. {}", replacement.help));
    }
    lines.extend(doc.findings.iter().flat_map(findings));
    lines.extend(doc.failed.iter().map(|failed| format!("Failed     {failed}")));
    if let (Some(outcome), Some(why)) = (doc.outcome, &doc.why) {
        lines.push(format!("Outcome    {}: {}", outcome.name(), why.text));
    }
    lines
}

fn findings(findings: &Findings) -> Vec<String> {
    let partial = if findings.is_partial() { "PARTIAL: " } else { "" };
    let span = findings
        .span
        .map_or_else(String::new, |(first, last)| format!(" from {} to {}", time::at(first), time::at(last)));
    let named = |what: &str, regions: &[String]| match regions {
        [] => String::new(),
        regions => format!("; {what}: {}", regions.join(", ")),
    };
    let missing = named("not read", &findings.missing) + &named("only the latest of", &findings.cut);
    let mut lines = vec![format!("Findings   {partial}{} calls{span}{missing}", findings.events)];
    lines.extend(findings.notable.iter().map(|line| format!("           - {line}")));
    lines.extend(findings.report.iter().map(|at| format!("Report     {at}")));
    lines
}

/// How long containment took: in its first minute to the tenth of a second.
pub(crate) fn took(from: Timestamp, to: Timestamp) -> String {
    let took = time::between(from, to);
    if took < Duration::from_mins(1) { format!("{:.1} s", took.as_secs_f64()) } else { time::short(took) }
}

/// What a person can do, the most urgent first.
fn todo(subject: &Subject, listed: Option<&[KeyFacts]>, now: Timestamp) -> Vec<String> {
    let doc = subject.document();
    let mut todo = Vec::new();
    let person = doc.and_then(|doc| doc.replacement.as_ref());
    if let Some(person) = person.filter(|replacement| replacement.way == Way::Person && !replacement.working)
    {
        todo.push(person.help.clone());
    }
    for key in &subject.keys {
        let record = subject.record(key);
        let facts = listed.and_then(|listed| key::find(listed, key));
        let (is_there, active) = (facts.is_some(), facts.is_some_and(KeyFacts::is_active));
        match record {
            Some(record) if record.is_cleared(now) => {
                todo.push(format!("If {key} has leaked after all: `keywheel revoke {key}`."));
            }
            Some(record) if record.state != RecordState::Cleared && active => {
                todo.push(format!("{key} leaked and is Active: `keywheel revoke {key}`."));
            }
            Some(record) if record.state == RecordState::Contained => {
                todo.push(format!("When everything is dealt with: `keywheel incident {key} --close`."));
                todo.push(format!(
                    "If it was a false alarm: `keywheel incident {key} --false-alarm --reason …`."
                ));
            }
            Some(record) if record.state == RecordState::Closed && is_there => {
                todo.push(format!(
                    "If the slot of {key} is wanted: `keywheel enroll --user {} --secret <secret> --retire {key}`.",
                    record.user
                ));
            }
            _ => {}
        }
    }
    let why = doc.filter(|doc| doc.outcome == Some(Outcome::Blocked)).and_then(|doc| doc.why.as_ref());
    if let Some(why) = why.filter(|why| !why.remedy.is_empty()) {
        todo.push(why.remedy.clone());
    }
    if let Some(doc) = doc.filter(|doc| doc.outcome.is_none() && doc.contained_at.is_none()) {
        todo.push(format!("To stop it: `keywheel incident {} --false-alarm --reason …`.", doc.id));
    }
    let mut seen = Vec::new();
    todo.retain(|line| {
        !seen.contains(line) && {
            seen.push(line.clone());
            true
        }
    });
    todo
}

#[cfg(test)]
mod tests {
    use super::super::samples::{KEY, at, document, record, seen};
    use super::*;
    use keywheel::incident::{Deny, Replacement};
    use keywheel::key::KeyStatus;
    use keywheel::rotation::Why;

    fn subject(document: Incident, records: Vec<Record>) -> Subject {
        let keys = vec![KEY.parse().unwrap()];
        Subject { keys, seen: Some(seen(document)), running: Vec::new(), records, odd: Vec::new() }
    }

    fn contained() -> Incident {
        let mut doc = document();
        doc.user = Some("svc-mail".parse().unwrap());
        doc.contained_at = Some(at("2026-03-02T09:00:02.500Z"));
        doc.deny = Some(Deny {
            policy: "p".into(),
            arn: None,
            cut_off: at("2026-03-02T09:01:03Z"),
            until: at("2026-03-03T21:01:03Z"),
        });
        doc
    }

    #[test]
    fn it_says_what_was_done_and_how_long_it_took() {
        let mut doc = contained();
        let findings = json!({
            "at": "2026-03-02T09:05:00Z",
            "events": 12,
            "missing": ["eu-north-1"],
            "notable": ["It made user x."],
            "report": "s3://bucket/report",
        });
        doc.findings = Some(serde_json::from_value(findings).unwrap());
        doc.failed = vec!["notify: no".into()];
        let subject = subject(doc, vec![record(RecordState::Contained)]);
        let states = [(KEY.parse().unwrap(), "Inactive".to_owned())];
        let text = lines(&subject, &states, at("2026-03-02T10:00:00Z")).join("\n");
        for says in [
            "Contained, its machine runs",
            "1.5 s after the event arrived",
            "denied until 2026-03-03 21:01:03 UTC",
            "PARTIAL: 12 calls; not read: eu-north-1",
            "- It made user x.",
            "Failed     notify: no",
            "Inactive now",
        ] {
            assert!(text.contains(says), "{says}:\n{text}");
        }
    }

    #[test]
    fn the_next_command_is_named() {
        let now = at("2026-03-02T10:00:00Z");
        let facts = |status| [KeyFacts { id: KEY.parse().unwrap(), status, created: None }];
        let says = |subject: &Subject, status, says: &str| {
            let todo = todo(subject, Some(&facts(status)), now).join("\n");
            assert!(todo.contains(says), "{todo}");
        };
        let kept = |state| subject(contained(), vec![record(state)]);
        says(&kept(RecordState::Contained), KeyStatus::Inactive, "--close");
        says(&kept(RecordState::Contained), KeyStatus::Inactive, "--false-alarm");
        says(&kept(RecordState::Contained), KeyStatus::Active, "is Active: `keywheel revoke");
        says(&kept(RecordState::Closed), KeyStatus::Inactive, "--retire");
        let mut cleared = record(RecordState::Cleared);
        cleared.until = Some(at("2026-03-09T00:00:00Z"));
        says(&subject(contained(), vec![cleared]), KeyStatus::Active, "leaked after all");
        says(&subject(document(), Vec::new()), KeyStatus::Active, "To stop it");
        let mut doc = document();
        doc.end(now, Outcome::Blocked, Why::new("NotSwitchedOn", "No.", "Switch it on."));
        says(&subject(doc, Vec::new()), KeyStatus::Active, "Switch it on.");
        let mut doc = contained();
        doc.replacement = Some(Replacement {
            way: Way::Person,
            run: None,
            secret: None,
            working: false,
            help: "Do this.".into(),
        });
        let todo = todo(&subject(doc, vec![record(RecordState::Contained)]), None, now);
        assert_eq!(todo[0], "Do this.");
    }

    #[test]
    fn an_incident_whose_execution_is_forgotten_is_told_from_its_record() {
        let mut subject = subject(document(), vec![record(RecordState::Contained)]);
        subject.seen = None;
        let text = lines(&subject, &[], at("2026-08-02T10:00:00Z")).join("\n");
        assert!(text.contains("no longer known") && text.contains("User       svc-mail"), "{text}");
    }
}

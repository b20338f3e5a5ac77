//! Where a run is, in words: what happens, since when, what comes next, and what a person can do.

use jiff::Timestamp;
use keywheel::clock::after;
use keywheel::rotation::{Caller, Phase, Why};
use keywheel::{Outcome, Rotation};
use serde_json::{Value, json};

use crate::run::{End, Run};
use crate::time;

/// One run's story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Story {
    /// A word or two for a column.
    pub(crate) place: String,
    /// A sentence.
    pub(crate) what: String,
    /// Since when that is so.
    pub(crate) since: Timestamp,
    /// What comes next, and when.
    pub(crate) next: Option<(Timestamp, String)>,
    /// What a person can do; empty where nothing is to be done.
    pub(crate) todo: String,
}

/// Tells where a run of `user` is.
pub(crate) fn tell(run: &Run, user: &str) -> Story {
    match (run.end(), run.document.as_ref()) {
        (Some(End::Outcome(outcome)), Some(document)) => ended(run, document, outcome, user),
        (Some(_), document) => broken(run, document, user),
        (None, Some(document)) => under_way(run, document, user),
        (None, None) => Story {
            place: "starting".into(),
            what: "The run has started and looks at the facts.".into(),
            since: run.started,
            next: None,
            todo: String::new(),
        },
    }
}

fn under_way(run: &Run, document: &Rotation, user: &str) -> Story {
    let new = document.new.as_ref().map_or("(not yet made)", |new| new.key.as_str());
    let old = document.old.as_ref().map_or("(none)", |old| old.key.as_str());
    let entered = run.state.as_ref().map_or(run.started, |(_, at)| *at);
    let look = |what: &str| document.wait_until.map(|at| (at, what.to_owned()));
    let shut = document.gate.as_ref().and_then(|gate| gate.shut.as_deref());
    let find = if used_late(document) {
        format!("Find who still uses {old} and let them read the secret anew.")
    } else {
        String::new()
    };
    let (place, what, since, next, todo) = match document.phase {
        Phase::Create => (
            "creating",
            "A new key is being made and stored; nothing uses it yet.".to_owned(),
            entered,
            None,
            String::new(),
        ),
        Phase::Validate => (
            "validating",
            format!("The new key {new} is called until it answers everywhere."),
            entered,
            None,
            String::new(),
        ),
        Phase::Promote => {
            ("promoting", format!("AWSCURRENT moves to key {new}."), entered, None, String::new())
        }
        Phase::TakeOver => (
            "taking over",
            format!(
                "The run takes over key {new} and the superseded key {old} where an ended run left them."
            ),
            entered,
            None,
            String::new(),
        ),
        Phase::Overlap => match shut {
            Some(shut) => (
                "gate",
                format!("Key {new} is current; the old key {old} stays Active: {shut}."),
                document.promoted_at.unwrap_or(entered),
                look("the gate is looked at again"),
                find,
            ),
            None => (
                "overlap",
                format!("Key {new} is current; the old key {old} is still Active."),
                document.promoted_at.unwrap_or(entered),
                look("the gate is looked at"),
                String::new(),
            ),
        },
        Phase::Grace => (
            "grace",
            format!("Key {new} is current; the old key {old} is Inactive."),
            document.disabled_at.unwrap_or(entered),
            deletion(document).map(|at| (at, format!("{old} is deleted"))),
            format!("If something broke: `keywheel rollback --user {user}` brings {old} back."),
        ),
        Phase::Clear => (
            "clearing",
            "It is being found out whether a key that no version names is an orphan of an ended run."
                .to_owned(),
            entered,
            look("CloudTrail is asked again"),
            String::new(),
        ),
        Phase::Backwards => {
            ("turning back", format!("Key {old} is being brought back."), entered, None, String::new())
        }
        Phase::Ended => ("ending", "The run ends.".to_owned(), entered, None, String::new()),
    };
    Story { place: place.to_owned(), what, since, next, todo }
}

/// Whether somebody uses the old key who should have changed over, or nobody knows. A freeze, say, keeps it as well.
fn used_late(document: &Rotation) -> bool {
    let settled = document.promoted_at.map(|promoted| after(promoted, document.policy.settling()));
    document.gate.as_ref().is_some_and(|gate| gate.last_use.at.is_none_or(|at| Some(at) > settled))
}

/// When the old key is deleted, at the earliest.
fn deletion(document: &Rotation) -> Option<Timestamp> {
    document
        .wait_until
        .or_else(|| document.disabled_at.map(|disabled| after(disabled, document.policy.grace.get())))
}

fn ended(run: &Run, document: &Rotation, outcome: Outcome, user: &str) -> Story {
    let nothing = Why::new("", "", "");
    let why = document.why.as_ref().unwrap_or(&nothing);
    let mut todo = why.remedy.clone();
    if outcome == Outcome::Held && !todo.contains("keywheel resume") {
        let choices = format!(
            "Decide: `keywheel resume --user {user} --wait 3d`, `--deactivate-anyway` or `--keep-old`."
        );
        todo = if todo.is_empty() { choices } else { format!("{todo} {choices}") };
    }
    Story {
        place: outcome.name().to_owned(),
        what: if why.text.is_empty() {
            format!("The run ended {}.", outcome.name())
        } else {
            why.text.clone()
        },
        since: run.stopped.unwrap_or_else(|| run.state.as_ref().map_or(run.started, |(_, at)| *at)),
        next: None,
        todo,
    }
}

fn broken(run: &Run, document: Option<&Rotation>, user: &str) -> Story {
    let failure = run.failure.as_ref().or(document.and_then(|document| document.error.as_ref()));
    let cause = failure.map_or_else(String::new, |caught| {
        let message = caught.message();
        if message.is_empty() {
            format!(": {}", caught.error)
        } else {
            format!(": {}: {message}", caught.error)
        }
    });
    let stage = run.state.as_ref().map_or_else(String::new, |(name, _)| format!(" in {name}"));
    let promoted = document.is_some_and(|document| document.promoted_at.is_some() && document.old.is_some());
    let todo = if promoted {
        format!(
            "`keywheel resume --user {user} --wait 3d` takes it over; `keywheel rollback --user {user}` turns it back."
        )
    } else {
        format!("`keywheel rotate --user {user}` takes over where it stopped.")
    };
    Story {
        place: run.word().to_owned(),
        what: format!("The run ended without an outcome ({}{stage}){cause}.", run.word()),
        since: run.stopped.unwrap_or(run.started),
        next: None,
        todo,
    }
}

/// The story for programs.
pub(crate) fn json(run: &Run, story: &Story) -> Value {
    let document = run.document.as_ref();
    json!({
        "run": run.id,
        "status": run.status.as_str(),
        "outcome": document.and_then(|document| document.outcome),
        "why": document.and_then(|document| document.why.as_ref()),
        "place": story.place,
        "what": story.what,
        "state": run.state.as_ref().map(|(name, _)| name),
        "phase": document.map(|document| document.phase),
        "started": run.started,
        "since": story.since,
        "next": story.next.as_ref().map(|(at, what)| json!({ "at": at, "what": what })),
        "todo": story.todo,
        "exit_code": run.end().map(|_| run.exit().code()),
        "new_key": document.and_then(|document| document.new.as_ref()).map(|new| &new.key),
        "old_key": document.and_then(|document| document.old.as_ref()).map(|old| &old.key),
        "promoted_at": document.and_then(|document| document.promoted_at),
        "disabled_at": document.and_then(|document| document.disabled_at),
        "policy": document.map(|document| &document.policy),
        "gate": document.and_then(|document| document.gate.as_ref()),
        "failure": run.failure.as_ref().map(|caught| json!({ "error": caught.error, "cause": caught.message() })),
    })
}

/// Rows for a table of late callers; empty where there are none.
pub(crate) fn callers(callers: &[Caller]) -> Vec<Vec<String>> {
    if callers.is_empty() {
        return Vec::new();
    }
    let head =
        ["LAST CALL", "ADDRESS", "SERVICE", "REGION", "CALLS", "USER AGENT"].map(str::to_owned).to_vec();
    let row = |caller: &Caller| {
        vec![
            time::at(caller.last),
            caller.address.clone(),
            caller.service.clone(),
            caller.region.clone(),
            caller.calls.to_string(),
            caller.agent.chars().take(60).collect(),
        ]
    };
    std::iter::once(head).chain(callers.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{document, run};
    use aws_sdk_sfn::types::ExecutionStatus;
    use keywheel::key::LastUse;
    use keywheel::rotation::{GateReport, NewKey, OldKey};

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn superseding(phase: Phase) -> Rotation {
        let mut document = document();
        document.phase = phase;
        document.new = Some(NewKey { key: "AKIANNNNNNNNNNNNNNNN".parse().unwrap(), version: None });
        document.old = Some(OldKey { key: "AKIAOOOOOOOOOOOOOOOO".parse().unwrap(), was_current: true });
        document.promoted_at = Some(t(100));
        document
    }

    #[test]
    fn every_phase_has_its_words() {
        for phase in [
            Phase::Create,
            Phase::Validate,
            Phase::Promote,
            Phase::TakeOver,
            Phase::Overlap,
            Phase::Grace,
            Phase::Clear,
            Phase::Backwards,
            Phase::Ended,
        ] {
            let story = tell(&run(ExecutionStatus::Running, Some(superseding(phase))), "u");
            assert!(story.what.ends_with('.') && !story.place.is_empty(), "{phase:?}");
        }
    }

    #[test]
    fn a_shut_gate_names_the_reason_and_the_next_look() {
        let mut document = superseding(Phase::Overlap);
        document.wait_until = Some(t(500));
        let calm = tell(&run(ExecutionStatus::Running, Some(document.clone())), "u");
        assert_eq!((calm.place.as_str(), calm.since), ("overlap", t(100)));
        let last_use = LastUse { at: None, service: None, region: None };
        document.gate =
            Some(GateReport { at: t(200), last_use, shut: Some("it was used".into()), callers: vec![] });
        let story = tell(&run(ExecutionStatus::Running, Some(document)), "u");
        assert_eq!(story.place, "gate");
        assert!(story.what.contains("AKIAOOOOOOOOOOOOOOOO stays Active: it was used"));
        assert_eq!(story.next, Some((t(500), "the gate is looked at again".into())));
    }

    #[test]
    fn whoever_still_uses_a_key_is_to_be_found_and_nobody_where_a_freeze_keeps_it() {
        // An hour and a quarter after the promotion its users should have changed over.
        for (used, find) in [(Some(90), false), (Some(4600), false), (Some(4601), true), (None, true)] {
            let last_use = LastUse { at: used.map(t), service: None, region: None };
            let mut document = superseding(Phase::Overlap);
            document.gate =
                Some(GateReport { at: t(5000), last_use, shut: Some("it stays".into()), callers: vec![] });
            let story = tell(&run(ExecutionStatus::Running, Some(document)), "u");
            assert_eq!(story.todo.starts_with("Find who still uses"), find, "{used:?}");
        }
    }

    #[test]
    fn held_says_how_to_decide() {
        let mut document = superseding(Phase::Overlap);
        document.end(t(900), Outcome::Held, Why::new("StillInUse", "It is used.", ""));
        let story = tell(&run(ExecutionStatus::Succeeded, Some(document)), "svc");
        assert!(story.todo.contains("keywheel resume --user svc --wait"), "{story:?}");
    }

    #[test]
    fn an_aborted_run_says_who_takes_over() {
        let after_promotion = tell(&run(ExecutionStatus::Aborted, Some(superseding(Phase::Grace))), "u");
        assert!(after_promotion.todo.contains("keywheel resume"), "{after_promotion:?}");
        let before = tell(&run(ExecutionStatus::Aborted, Some(document())), "u");
        assert!(before.todo.contains("keywheel rotate"), "{before:?}");
        assert!(before.what.contains("Aborted"));
    }
}

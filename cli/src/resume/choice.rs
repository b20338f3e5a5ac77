//! What `keywheel resume` may do with an ended run, and the policy of the run that goes on.

use keywheel::policy::{Policy, PolicyOverride, Span, WhenStillInUse};
use keywheel::rotation::{Reason, Request};
use keywheel::{AccessKeyId, Outcome, Rotation};

use crate::error::{Result, Trouble};
use crate::keys::{KeyRow, Label};
use crate::run::{End, Run};

/// A person's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Wait this long at most for the old key to fall quiet.
    Wait(Span),
    /// Make it Inactive now.
    DeactivateAnyway,
    /// Leave it for good.
    KeepOld,
}

/// The ended run that a decision is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopped<'a> {
    pub(crate) run: &'a Run,
    pub(crate) document: &'a Rotation,
    pub(crate) old: &'a AccessKeyId,
}

/// The run to resume, or why there is none.
pub(crate) fn stopped<'a>(run: Option<&'a Run>, user: &str) -> Result<Stopped<'a>> {
    let Some(run) = run else {
        return Err(Trouble::new(
            format!("No run is known for {user}: there is nothing to resume."),
            format!("`keywheel rotate --user {user}` starts one."),
        ));
    };
    match run.end() {
        None => {
            return Err(Trouble::new(
                format!("Run {} for {user} is under way; a second one would be Blocked.", run.id),
                format!("`keywheel status --user {user}` shows where it is and when it looks next."),
            ));
        }
        Some(End::Broken | End::Outcome(Outcome::Held)) => {}
        Some(End::Outcome(outcome)) => {
            return Err(Trouble::new(
                format!(
                    "The last run of {user}, {}, ended {}: there is nothing to resume.",
                    run.id,
                    outcome.name()
                ),
                format!("`keywheel rotate --user {user}` starts a new one."),
            ));
        }
    }
    let promoted = run.document.as_ref().filter(|document| document.promoted_at.is_some());
    match promoted.and_then(|document| Some((document, &document.old.as_ref()?.key))) {
        Some((document, old)) => Ok(Stopped { run, document, old }),
        None => Err(Trouble::new(
            format!(
                "Run {} of {user} stopped before it superseded a key: there is no old key to decide about.",
                run.id
            ),
            format!("`keywheel rotate --user {user}` takes over where it stopped."),
        )),
    }
}

/// Whether the decision still makes sense with the keys as they are now.
pub(crate) fn still_open(
    stopped: &Stopped<'_>,
    keys: &[KeyRow],
    keep: Option<&AccessKeyId>,
    decision: Decision,
    user: &str,
) -> Result<()> {
    let old = stopped.old;
    let Some(row) = keys.iter().find(|row| row.key.id == *old) else {
        return Err(Trouble::new(
            format!("The old key {old} of {user} is gone: there is nothing left to decide."),
            "",
        ));
    };
    if row.label == Label::Current {
        return Err(Trouble::new(
            format!("Key {old}, which run {} had superseded, is current again.", stopped.run.id),
            format!(
                "`keywheel status --user {user}` shows both keys; `keywheel rotate --user {user}` starts anew."
            ),
        ));
    }
    if keep == Some(old) && decision != Decision::KeepOld {
        return Err(Trouble::new(
            format!("The old key {old} of {user} is marked as one to be kept."),
            format!(
                "To let go of it: `keywheel enroll --user {user} --secret <secret> --retire {old}`, then resume."
            ),
        ));
    }
    Ok(())
}

/// The shortest grace for a key that was superseded because it leaked: it is evidence.
const EVIDENCE: Span = Span::days(30);

/// The policy of the run that goes on; `None` where none is started.
pub(crate) fn policy(document: &Rotation, decision: Decision) -> Option<PolicyOverride> {
    let was = &document.policy;
    let leaked = document.request.reason == Reason::Leaked;
    let grace = Some(if leaked { was.grace.max(EVIDENCE) } else { was.grace });
    match decision {
        Decision::KeepOld => None,
        Decision::DeactivateAnyway => Some(PolicyOverride {
            overlap: Some(Span::seconds(0)),
            max_overlap: Some(Span::seconds(0)),
            // The gate's first look is never before settling and quiet window have passed.
            quiet_window: Some(Span::seconds(0)),
            cache: Some(Span::seconds(0)),
            grace,
            when_still_in_use: Some(WhenStillInUse::Deactivate),
        }),
        // A run that was told not to wait has no durations worth keeping: the installation's hold again.
        Decision::Wait(longest) if told_not_to_wait(was) => Some(PolicyOverride {
            max_overlap: Some(longest),
            grace,
            when_still_in_use: Some(WhenStillInUse::Hold),
            ..PolicyOverride::default()
        }),
        Decision::Wait(longest) => Some(PolicyOverride {
            overlap: Some(was.overlap.min(longest)),
            max_overlap: Some(longest),
            quiet_window: Some(was.quiet_window),
            grace,
            cache: Some(was.cache),
            when_still_in_use: Some(was.when_still_in_use),
        }),
    }
}

fn told_not_to_wait(policy: &Policy) -> bool {
    let nothing = Span::seconds(0);
    policy.max_overlap == nothing
        && policy.quiet_window == nothing
        && policy.when_still_in_use == WhenStillInUse::Deactivate
}

/// The request of the run that goes on. Its reason is a person's: with `leaked` the machine would look for a
/// free slot for a replacement, which exists already.
pub(crate) fn request(secret: &str, policy: PolicyOverride) -> Request {
    Request {
        secret: secret.to_owned(),
        reason: Reason::Manual,
        policy,
        dry_run: false,
        roll_back: false,
        on_promoted: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{document, run};
    use aws_sdk_sfn::types::ExecutionStatus;
    use jiff::Timestamp;
    use keywheel::decide::gate;
    use keywheel::key::{KeyFacts, KeyStatus};
    use keywheel::rotation::{OldKey, Why};

    const OLD: &str = "AKIAOOOOOOOOOOOOOOOO";

    fn superseded() -> Rotation {
        let mut document = document();
        document.promoted_at = Some(Timestamp::UNIX_EPOCH);
        document.old = Some(OldKey { key: OLD.parse().unwrap(), was_current: true });
        document
    }

    fn with(outcome: Option<Outcome>, status: ExecutionStatus) -> Run {
        let mut document = superseded();
        if let Some(outcome) = outcome {
            document.end(Timestamp::UNIX_EPOCH, outcome, Why::new("", "", ""));
        }
        run(status, Some(document))
    }

    #[test]
    fn only_a_held_or_broken_run_is_resumed() {
        assert!(stopped(Some(&with(Some(Outcome::Held), ExecutionStatus::Succeeded)), "u").is_ok());
        assert!(stopped(Some(&with(None, ExecutionStatus::Aborted)), "u").is_ok());
        let running = with(None, ExecutionStatus::Running);
        assert!(stopped(Some(&running), "u").unwrap_err().text.contains(&running.id));
        for outcome in [Outcome::Completed, Outcome::RolledBack, Outcome::Blocked, Outcome::Contained] {
            assert!(
                stopped(Some(&with(Some(outcome), ExecutionStatus::Succeeded)), "u").is_err(),
                "{outcome:?}"
            );
        }
        assert!(stopped(None, "u").is_err());
        let before = run(ExecutionStatus::Aborted, Some(document()));
        assert!(stopped(Some(&before), "u").unwrap_err().remedy.contains("keywheel rotate"));
    }

    #[test]
    fn a_decision_needs_the_old_key_and_no_mark_against_it() {
        let run = with(Some(Outcome::Held), ExecutionStatus::Succeeded);
        let stopped = stopped(Some(&run), "u").unwrap();
        let row = |label| KeyRow {
            key: KeyFacts { id: OLD.parse().unwrap(), status: KeyStatus::Active, created: None },
            label,
            last_use: None,
        };
        let open = |keys: &[KeyRow], keep, decision| still_open(&stopped, keys, keep, decision, "u");
        let old: AccessKeyId = OLD.parse().unwrap();
        assert!(open(&[row(Label::Previous)], None, Decision::DeactivateAnyway).is_ok());
        assert!(open(&[], None, Decision::KeepOld).unwrap_err().text.contains("gone"));
        assert!(open(&[row(Label::Current)], None, Decision::DeactivateAnyway).is_err());
        assert!(open(&[row(Label::Previous)], Some(&old), Decision::DeactivateAnyway).is_err());
        assert!(open(&[row(Label::Previous)], Some(&old), Decision::KeepOld).is_ok());
    }

    #[test]
    fn waiting_keeps_the_original_run_and_bounds_its_overlap() {
        let document = superseded();
        let wish = policy(&document, Decision::Wait(Span::hours(3))).unwrap();
        let policy = Policy::default().with(&wish).unwrap();
        assert_eq!((policy.overlap, policy.max_overlap), (Span::hours(3), Span::hours(3)));
        assert_eq!(
            (policy.quiet_window, policy.grace),
            (document.policy.quiet_window, document.policy.grace)
        );
        let wish = super::policy(&document, Decision::Wait(Span::days(30))).unwrap();
        assert_eq!(wish.overlap, Some(document.policy.overlap));
    }

    #[test]
    fn deactivating_anyway_opens_the_gate_at_once_and_waiting_afterwards_is_careful_again() {
        let mut document = superseded();
        let wish = policy(&document, Decision::DeactivateAnyway).unwrap();
        document.policy = Policy::default().with(&wish).unwrap();
        let (earliest, last) = gate::window(Timestamp::UNIX_EPOCH, &document.policy);
        assert_eq!((earliest, last), (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH));
        assert_eq!(document.policy.grace, Policy::default().grace);
        let wish = policy(&document, Decision::Wait(Span::days(2))).unwrap();
        assert_eq!(
            (wish.quiet_window, wish.cache, wish.when_still_in_use),
            (None, None, Some(WhenStillInUse::Hold))
        );
        assert_eq!(policy(&document, Decision::KeepOld), None);
    }

    #[test]
    fn a_leaked_key_keeps_its_time_as_evidence() {
        let mut document = superseded();
        document.request.reason = Reason::Leaked;
        assert_eq!(policy(&document, Decision::DeactivateAnyway).unwrap().grace, Some(EVIDENCE));
    }
}

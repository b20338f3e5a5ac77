//! `keywheel revoke`: a person says that a key has leaked.
//!
//! The word takes the way that every finding takes, through the emergency machine, so that nothing is done here
//! which the machine would not look after. Nothing is ever deleted.

use std::time::Duration;

use facts::switch::{self, Standing};
use jiff::Timestamp;
use keywheel::decide::contain::Kept;
use keywheel::incident::Record;
use keywheel::switch::Containment;
use keywheel::triage::{self, Class};
use keywheel::{AccessKeyId, Alert, Incident, RunId, StepError};
use serde_json::{Value, json};

use crate::args::Revoke;
use crate::error::{Exit, Result, Trouble};
use crate::incident::read::{self, Seen};
use crate::incident::took;
use crate::output::{Out, Screen};
use crate::place::{Place, execution_of};
use crate::{names, run, time};

/// The longest reason that is sent.
const REASON: usize = 500;
/// How long an incident may stay unknown to Step Functions after its emergency was started.
const UNSEEN: Duration = Duration::from_mins(1);
/// How many looks in a row may fail before waiting is given up; the machine goes on either way.
const PATIENCE: u32 = 10;

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &Revoke) -> Result<Exit> {
    let key = names::key(&args.key)?;
    let event = event(&key, args.reason.as_deref(), &place.caller)?;
    let emergency = RunId::random();
    let incident = incident_of(&event, &execution_of(&place.emergency, &emergency.to_string()))?;
    out.note(&place.line());
    let standing = switch::standing(&place.ssm(), &place.stage, Some(&key)).await;
    if let Some(caution) = caution(&standing.switch) {
        out.note(&caution);
        if !matches!(standing.switch, Kept::Unread(_)) {
            out.confirm("Report the key all the same?", args.yes)?;
        }
    }
    if let Some(record) = cleared(&standing, Timestamp::now()) {
        take_back(place, record).await?;
        let note = record.note.as_deref().unwrap_or("no reason was given");
        out.line(&format!("Took back that key {key} was a false alarm ({note})."));
    }
    run::begin(place, &place.emergency, emergency, event.to_string(), "keywheel incident").await?;
    if args.wait {
        out.note(&format!("Incident {incident} was started. Ctrl-C ends this display, not the machine."));
        return wait(place, out, &key, emergency, incident).await;
    }
    out.line(&format!("Reported key {key} as leaked: incident {incident}."));
    out.line(&format!("  `keywheel incident {incident}` shows what is done."));
    out.json(&json!({ "incident": incident, "key": key, "started": emergency }));
    Ok(Exit::Done)
}

/// Our own leak event, as a person's word: it has no id, which EventBridge would give it.
fn event(key: &AccessKeyId, reason: Option<&str>, who: &str) -> Result<Value> {
    let mut detail = json!({
        "schema": 1,
        "keys": [{ "key_id": key }],
        "certainty": "exposed",
        "severity": "critical",
        "reporter": who,
    });
    if let Some(reason) = reason.map(str::trim).filter(|reason| !reason.is_empty()) {
        if reason.chars().count() > REASON {
            return Err(Trouble::new(
                format!("The reason has more than {REASON} characters."),
                "Nothing was started. Shorten it.",
            ));
        }
        detail["reason"] = reason.into();
    }
    Ok(json!({ "source": "keywheel.leak", "detail-type": "Leaked Access Key", "detail": detail }))
}

/// The incident that comes of the event, by the judgement that the machine will make.
fn incident_of(event: &Value, execution: &str) -> Result<RunId> {
    let verdict = triage::judge(event);
    match verdict.targets.into_iter().next() {
        Some(target) if verdict.class == Class::RevokeUserKey => {
            let alert =
                Alert::new(execution.to_owned(), Timestamp::now(), verdict.class, verdict.reason.clone());
            Ok(Incident::open(&alert, target, verdict.reason).id)
        }
        // Not repeated: it may be the other half of the pair, pasted by mistake.
        _ => Err(Trouble::new(
            "What was given is no key id that AWS could have made: one looks like AKIA and 16 letters and digits.",
            "Nothing was started. `aws iam list-access-keys --user-name <name>` shows a user's keys.",
        )),
    }
}

/// What to say where the switch is not on; the machine respects it, whoever asks.
fn caution(switch: &Kept<Containment>) -> Option<String> {
    let how = match switch {
        Kept::Is(Containment::On) => return None,
        Kept::Is(other) => format!("Containment is {other}"),
        Kept::None => "Containment was never switched on".to_owned(),
        Kept::Unread(why) => {
            return Some(format!(
                "The switch of containment could not be read ({why}); the machine reads it."
            ));
        }
    };
    Some(format!(
        "{how}: the key will NOT be made Inactive until `keywheel containment on`, and this command is given again then."
    ))
}

/// The clearance that holds, and would keep the key Active.
fn cleared(standing: &Standing, now: Timestamp) -> Option<&Record> {
    standing.record.known().filter(|record| record.is_cleared(now))
}

/// Removes a clearance. Should the command die after this, the next report of the key is acted on.
async fn take_back(place: &Place, record: &Record) -> Result<()> {
    let name = Record::parameter(&place.stage, &record.key);
    let Err(error) = place.ssm().delete_parameter().name(name).send().await else { return Ok(()) };
    let error = StepError::from_sdk("ssm:DeleteParameter", &error);
    if error.is_refused(&["ParameterNotFound"]) {
        return Ok(());
    }
    let trouble = Trouble::from(error);
    Err(Trouble::new(
        format!(
            "Key {} was called a false alarm, and that could not be taken back: {}",
            record.key, trouble.text
        ),
        format!("Nothing was started. {}", trouble.remedy),
    ))
}

/// What a look shows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    /// Not there yet: a line for people.
    Waiting(String),
    /// The key is Inactive since then.
    Inactive(Timestamp, Timestamp),
    /// It ended without containing: how, and why.
    Ended(Exit, String),
}

fn sight(seen: Option<&Seen>, key: &AccessKeyId) -> Sight {
    let Some(seen) = seen else { return Sight::Waiting(format!("{key}  the report is being judged")) };
    let Some(doc) = &seen.document else {
        return Sight::Waiting(format!("{key}  the incident has started"));
    };
    if let Some(at) = doc.contained_at {
        return Sight::Inactive(doc.started, at);
    }
    if let Some(outcome) = doc.outcome {
        let why = doc.why.as_ref().map(|why| format!("{} {}", why.text, why.remedy).trim_end().to_owned());
        return Sight::Ended(Exit::of(outcome), why.unwrap_or_else(|| outcome.name().to_owned()));
    }
    if !seen.is_running() {
        let failure =
            seen.failure.as_ref().map(|caught| format!(" ({}: {})", caught.error, caught.message()));
        let text = format!("The incident's machine ended without an outcome{}.", failure.unwrap_or_default());
        return Sight::Ended(Exit::Failed, text);
    }
    Sight::Waiting(match (doc.bound, doc.failed.last()) {
        (Some(bound), _) => format!("{key}  by the policy it is made Inactive at {}", time::at(bound)),
        (None, Some(failed)) => format!("{key}  NOT INACTIVE YET, Keywheel keeps trying: {failed}"),
        (None, None) => format!("{key}  is being made Inactive"),
    })
}

async fn wait(
    place: &Place,
    out: &Out,
    key: &AccessKeyId,
    emergency: RunId,
    incident: RunId,
) -> Result<Exit> {
    let begin = Timestamp::now();
    let mut screen = Screen::new(out);
    let (mut failures, id) = (0, incident.to_string());
    loop {
        match read::incident(place, &id).await {
            Ok(seen) => {
                failures = 0;
                match sight(seen.as_ref(), key) {
                    Sight::Waiting(line) => screen.show(vec![line]),
                    Sight::Inactive(started, at) => {
                        let took = took(started, at);
                        out.line(&format!(
                            "Key {key} is Inactive since {}: {took} after the report.",
                            time::at(at)
                        ));
                        out.line(&format!("  `keywheel incident {incident}` shows the rest."));
                        let millis = at.as_millisecond() - started.as_millisecond();
                        out.json(&json!({
                            "incident": incident, "key": key, "started": emergency,
                            "contained_at": at, "took_ms": millis, "exit_code": Exit::Done.code(),
                        }));
                        return Ok(Exit::Done);
                    }
                    Sight::Ended(exit, text) => {
                        out.line(&text);
                        out.json(&json!({
                            "incident": incident, "key": key, "started": emergency,
                            "contained_at": null, "why": text, "exit_code": exit.code(),
                        }));
                        return Ok(exit);
                    }
                }
                if seen.is_none() && time::between(begin, Timestamp::now()) > UNSEEN {
                    return Err(Trouble::new(
                        format!("Incident {incident} has not started within a minute."),
                        format!(
                            "Look at execution {}, and at the key itself.",
                            execution_of(&place.emergency, &emergency.to_string())
                        ),
                    ));
                }
            }
            Err(_) if failures < PATIENCE => failures += 1,
            Err(trouble) => return Err(trouble),
        }
        tokio::time::sleep(pause(time::between(begin, Timestamp::now()))).await;
    }
}

/// How long to pause before the next look: containment takes a second, and a policy may delay it by an hour.
fn pause(waiting: Duration) -> Duration {
    (waiting / 10).clamp(Duration::from_millis(300), Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::samples::{KEY, at, document, record, seen};
    use aws_sdk_sfn::types::ExecutionStatus;
    use keywheel::Outcome;
    use keywheel::incident::RecordState;
    use keywheel::rotation::Why;

    const EXECUTION: &str = "arn:aws:states:eu-west-1:111122223333:execution:keywheel-prod-emergency:e";

    fn key() -> AccessKeyId {
        KEY.parse().unwrap()
    }

    #[test]
    fn the_report_is_an_event_of_our_own_that_revokes() {
        let event = event(&key(), Some(" found in a paste "), "arn:me").unwrap();
        assert_eq!(event["detail"]["reason"], "found in a paste");
        let verdict = triage::judge(&event);
        assert_eq!((verdict.class, verdict.targets.len()), (Class::RevokeUserKey, 1));
        // Only what came over the bus has an id, and only that is braked.
        assert!(event.get("id").is_none());
        let one = incident_of(&event, EXECUTION).unwrap();
        assert_eq!(incident_of(&event, EXECUTION), Ok(one));
        assert_ne!(incident_of(&event, &format!("{EXECUTION}2")), Ok(one));
    }

    #[test]
    fn what_is_no_key_starts_nothing_and_is_not_repeated() {
        let pasted: AccessKeyId = "x".repeat(40).to_uppercase().parse().unwrap();
        let trouble = incident_of(&event(&pasted, None, "me").unwrap(), EXECUTION).unwrap_err();
        assert!(!trouble.to_string().contains("XXX"), "{trouble}");
        assert!(trouble.remedy.contains("Nothing was started"), "{trouble}");
        assert!(event(&key(), Some(&"x".repeat(501)), "me").is_err());
    }

    #[test]
    fn a_switch_that_is_not_on_is_told() {
        assert_eq!(caution(&Kept::Is(Containment::On)), None);
        for switch in [Kept::Is(Containment::Off), Kept::Is(Containment::Page), Kept::None] {
            assert!(
                caution(&switch).unwrap().contains("NOT be made Inactive until `keywheel containment on`")
            );
        }
        assert!(caution(&Kept::Unread("no".into())).unwrap().contains("could not be read"));
    }

    #[test]
    fn only_a_clearance_that_holds_is_taken_back() {
        let now = at("2026-03-03T09:00:00Z");
        let standing = |record| Standing { switch: Kept::None, emergency: Kept::None, record };
        let mut kept = record(RecordState::Cleared);
        kept.until = Some(at("2026-03-09T09:00:00Z"));
        assert!(cleared(&standing(Kept::Is(kept.clone())), now).is_some());
        kept.until = Some(now);
        assert!(cleared(&standing(Kept::Is(kept)), now).is_none());
        assert!(cleared(&standing(Kept::Is(record(RecordState::Contained))), now).is_none());
        assert!(cleared(&standing(Kept::Unread("no".into())), now).is_none());
    }

    #[test]
    fn waiting_ends_with_the_key_or_with_a_reason() {
        assert!(matches!(sight(None, &key()), Sight::Waiting(_)));
        let mut doc = document();
        let look = |doc: &Incident| sight(Some(&seen(doc.clone())), &key());
        assert!(matches!(look(&doc), Sight::Waiting(line) if line.contains("is being made Inactive")));
        doc.failed = vec!["contain: throttled".into()];
        assert!(matches!(look(&doc), Sight::Waiting(line) if line.contains("NOT INACTIVE YET")));
        doc.bound = Some(at("2026-03-02T09:10:00Z"));
        assert!(matches!(look(&doc), Sight::Waiting(line) if line.contains("09:10:00")));
        let mut blocked = doc.clone();
        blocked.end(doc.started, Outcome::Blocked, Why::new("KeyGone", "It is gone.", "Look."));
        assert_eq!(look(&blocked), Sight::Ended(Exit::Blocked, "It is gone. Look.".into()));
        let mut broken = seen(doc.clone());
        broken.status = ExecutionStatus::Aborted;
        assert!(matches!(sight(Some(&broken), &key()), Sight::Ended(Exit::Failed, _)));
        doc.contained_at = Some(at("2026-03-02T09:00:02Z"));
        assert_eq!(look(&doc), Sight::Inactive(doc.started, at("2026-03-02T09:00:02Z")));
    }
}

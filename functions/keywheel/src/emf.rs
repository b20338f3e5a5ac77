//! One CloudWatch metric record per invocation, in the embedded metric format: a log line, so that no call
//! is made for it. Dimensions are few and fixed; user and keys are properties of the record.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::StepError;

/// The namespace of our metrics.
pub const NAMESPACE: &str = "Keywheel";

/// The outcome that a document has.
pub fn outcome(document: &Value) -> Option<&str> {
    document.get("outcome").and_then(Value::as_str)
}

/// Writes the record of one step's end, however it ended. `undecided` says that its input had no outcome.
pub fn step_ended(
    step: &str,
    stage: &str,
    took: Duration,
    undecided: bool,
    result: &Result<Value, StepError>,
) {
    let record = record(step, stage, took, undecided, result, jiff::Timestamp::now().as_millisecond());
    // A log line that cannot be written is no reason to fail a rotation.
    let _ = writeln!(std::io::stdout(), "{record}");
}

/// The record as JSON. A run's outcome is counted by the step that decides it: its alarm must not wait for
/// notices that cannot be sent.
fn record(
    step: &str,
    stage: &str,
    took: Duration,
    undecided: bool,
    result: &Result<Value, StepError>,
    at: i64,
) -> Value {
    let document = result.as_ref().ok();
    let text = |pointer: &str| document.and_then(|doc| doc.pointer(pointer)).and_then(Value::as_str);
    let mut directives = vec![json!({
        "Namespace": NAMESPACE,
        "Dimensions": [["Stage", "State"]],
        "Metrics": [{"Name": "StepDuration", "Unit": "Milliseconds"}, {"Name": "StepFailure", "Unit": "Count"}],
    })];
    let ended = document.and_then(outcome).filter(|_| undecided);
    if ended.is_some() {
        directives.push(json!({
            "Namespace": NAMESPACE,
            "Dimensions": [["Stage", "Outcome"]],
            "Metrics": [{"Name": "RunEnded", "Unit": "Count"}],
        }));
    }
    let contained = (step == "contain").then(|| document.and_then(time_to_contain)).flatten();
    if contained.is_some() {
        directives.push(json!({
            "Namespace": NAMESPACE,
            "Dimensions": [["Stage"]],
            "Metrics": [{"Name": "TimeToContain", "Unit": "Milliseconds"}],
        }));
    }
    let at_large = at_large(step, document);
    if at_large.is_some() {
        directives.push(json!({
            "Namespace": NAMESPACE,
            "Dimensions": [["Stage"]],
            "Metrics": [{"Name": "NotContained", "Unit": "Count"}],
        }));
    }
    if step == "notify" {
        // A stuck run has no outcome, and can have given up all the same.
        directives.push(json!({
            "Namespace": NAMESPACE,
            "Dimensions": [["Stage"]],
            "Metrics": [{"Name": "NoticesGivenUp", "Unit": "Count"}],
        }));
    }
    let mut line = json!({
        "_aws": {"Timestamp": at, "CloudWatchMetrics": directives},
        "Stage": stage,
        "State": step,
        "StepDuration": took.as_secs_f64() * 1000.0,
        "StepFailure": u8::from(result.is_err()),
        "step.error": result.as_ref().err().map(StepError::name),
        "step.error_code": result.as_ref().err().and_then(StepError::code),
        "Outcome": ended,
        "RunEnded": u8::from(ended.is_some()),
        "NoticesGivenUp": u8::from(step == "notify" && text("/delivery") == Some("gave_up")),
        "rotation.id": text("/run"),
        "rotation.phase": text("/phase"),
        "iam.user": text("/baseline/user/name").or_else(|| text("/removed/user")),
    });
    if let Some(took) = contained {
        line["TimeToContain"] = took.into();
    }
    if let Some(at_large) = at_large {
        line["NotContained"] = u8::from(at_large).into();
    }
    if let Some(incident) = text("/id") {
        line["incident.id"] = incident.into();
        line["key.id"] = text("/target/key_id").into();
        line["iam.user"] = text("/user").into();
    }
    line
}

/// Whether what leaked is at large after this step; `None` where the step is not asked.
fn at_large(step: &str, document: Option<&Value>) -> Option<bool> {
    let has = |doc: &Value, name: &str| doc.get(name).is_some();
    match step {
        // It follows where a key cannot be made Inactive, and denies its sessions where it is.
        "deny-sessions" => Some(document.is_none_or(|doc| !has(doc, "contained_at") || !has(doc, "deny"))),
        // Where the emergency machine contains by itself, because an incident could not be started, nothing follows
        // but a notice: of a key that is not Inactive, or of sessions that nobody denies. In an incident the step above
        // has counted the try; where it has failed as well, this counts again: the alarm asks whether, not how often.
        "notify" => document.is_some_and(is_undone).then_some(true),
        _ => None,
    }
}

/// Whether it is an incident's document that no step but the first has had.
fn is_undone(document: &Value) -> bool {
    let due = document.get("phase").is_some_and(|phase| phase == "contain" || phase == "deny");
    due && document.get("target").is_some()
        && document.get("outcome").is_none()
        && document.get("tries").is_none()
}

/// The milliseconds from an event to its key's being Inactive, where this step has just made it so and no policy let
/// anybody come first. From what the event says of its own time, where it says that: what it waited for before its
/// execution started is part of it. Else from the execution's start.
fn time_to_contain(document: &Value) -> Option<i64> {
    let at = |name: &str| document.get(name)?.as_str()?.parse::<jiff::Timestamp>().ok();
    let first = document.get("phase")? == "deny" && document.get("bound").is_none();
    let began = at("said").or_else(|| at("started"))?;
    let took = at("contained_at")?.as_millisecond() - began.as_millisecond();
    first.then_some(took.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_the_shape_that_cloudwatch_reads() {
        let doc = json!({"run": "r", "phase": "overlap", "baseline": {"user": {"name": "svc"}}});
        let line =
            record("promote-key", "prod", Duration::from_millis(12), true, &Ok(doc), 1_700_000_000_000);
        assert_eq!(
            line.to_string(),
            r#"{"_aws":{"Timestamp":1700000000000,"CloudWatchMetrics":[{"Namespace":"Keywheel","Dimensions":[["Stage","State"]],"Metrics":[{"Name":"StepDuration","Unit":"Milliseconds"},{"Name":"StepFailure","Unit":"Count"}]}]},"Stage":"prod","State":"promote-key","StepDuration":12.0,"StepFailure":0,"step.error":null,"step.error_code":null,"Outcome":null,"RunEnded":0,"NoticesGivenUp":0,"rotation.id":"r","rotation.phase":"overlap","iam.user":"svc"}"#
        );
    }

    #[test]
    fn an_outcome_is_counted_where_it_is_decided_and_only_there() {
        let doc = Ok(json!({"outcome": "Held", "delivery": "pending"}));
        let count =
            |step, undecided| record(step, "s", Duration::ZERO, undecided, &doc, 0)["RunEnded"].clone();
        assert_eq!(count("deactivate-key", true), 1);
        assert_eq!(count("notify", true), 1);
        assert_eq!(count("notify", false), 0);
        assert_eq!(outcome(&json!({"outcome": null})), None);
        assert_eq!(outcome(&json!({"outcome": "Held"})), Some("Held"));
    }

    #[test]
    fn notices_given_up_are_counted_with_an_outcome_and_without() {
        for outcome in [json!("Held"), Value::Null] {
            let doc = Ok(json!({"outcome": outcome, "delivery": "gave_up"}));
            let line = record("notify", "s", Duration::ZERO, false, &doc, 0);
            assert_eq!(line["NoticesGivenUp"], 1);
            let directive = &line["_aws"]["CloudWatchMetrics"][1];
            assert_eq!(directive["Dimensions"], json!([["Stage"]]));
            assert_eq!(directive["Metrics"][0]["Name"], "NoticesGivenUp");
        }
    }

    #[test]
    fn the_time_to_contain_is_counted_where_a_key_was_contained_at_once() {
        let doc = json!({
            "id": "i", "phase": "deny", "started": "2026-03-02T09:00:01Z", "contained_at": "2026-03-02T09:00:02.5Z",
            "user": "svc", "target": {"key_id": "AKIA"},
        });
        let line = |step, doc: Value| record(step, "s", Duration::ZERO, false, &Ok(doc), 0);
        let contained = line("contain", doc.clone());
        assert_eq!((&contained["TimeToContain"], &contained["key.id"]), (&json!(1500), &json!("AKIA")));
        assert_eq!(contained["_aws"]["CloudWatchMetrics"][1]["Metrics"][0]["Name"], "TimeToContain");
        for (said, took) in
            [(json!("2026-03-02T08:59:40Z"), 22_500), (json!("2026-03-02T09:00:03Z"), 0), (Value::Null, 1500)]
        {
            let mut told = doc.clone();
            told["said"] = said;
            assert_eq!(line("contain", told)["TimeToContain"], took);
        }
        let mut late = doc.clone();
        late["bound"] = json!("2026-03-02T09:00:02Z");
        for other in [line("contain", late), line("notify", doc.clone())] {
            assert!(other.get("TimeToContain").is_none(), "{other}");
        }
        // Contained and not denied, or not even contained: somebody must look.
        assert_eq!(line("deny-sessions", doc.clone())["NotContained"], 1);
        let mut denied = doc;
        denied["deny"] = json!({});
        assert_eq!(line("deny-sessions", denied)["NotContained"], 0);
        assert_eq!(line("deny-sessions", json!({"id": "i"}))["NotContained"], 1);
    }

    #[test]
    fn what_the_emergency_machine_could_not_contain_by_itself_is_counted_where_it_is_told() {
        let line = |step, doc: Value| record(step, "s", Duration::ZERO, true, &Ok(doc), 0);
        let doc = |phase: &str, more: Value| {
            let mut doc =
                json!({"id": "i", "phase": phase, "target": {"key_id": "AKIA"}, "delivery": "done"});
            for (name, value) in more.as_object().unwrap() {
                doc[name] = value.clone();
            }
            doc
        };
        let contained = json!({"contained_at": "2026-03-02T09:00:02Z"});
        for at_large in [doc("contain", json!({})), doc("deny", contained.clone())] {
            let told = line("notify", at_large.clone());
            assert_eq!(told["NotContained"], 1, "{told}");
            let directive = &told["_aws"]["CloudWatchMetrics"][1];
            assert_eq!(directive["Dimensions"], json!([["Stage"]]));
            assert_eq!(directive["Metrics"][0]["Name"], "NotContained");
            // It may succeed at the next attempt.
            assert!(line("contain", at_large).get("NotContained").is_none());
        }
        for other in [
            // An incident's own step has counted it.
            doc("contain", json!({"tries": 1})),
            doc("look", contained),
            // The policy lets people, or the replacement, come first.
            doc("delayed", json!({"bound": "2026-03-02T09:10:00Z"})),
            doc("replace_first", json!({"bound": "2026-03-02T09:10:00Z"})),
            // Left alone for a reason; a rotation's.
            doc("ended", json!({"outcome": "Blocked"})),
            doc("deny", json!({"outcome": "Blocked"})),
            json!({"run": "r", "phase": "overlap"}),
        ] {
            let told = line("notify", other);
            assert!(told.get("NotContained").is_none(), "{told}");
        }
    }

    #[test]
    fn a_failure_is_recorded_by_its_name() {
        let line = record("look", "s", Duration::ZERO, true, &Err(StepError::Conflict("x".into())), 0);
        assert_eq!(line["StepFailure"], 1);
        assert_eq!(line["step.error"], "Keywheel.Conflict");
    }
}

//! One CloudWatch metric record per invocation, in the embedded metric format: a log line, so that no call
//! is made for it. Dimensions are few and fixed; user and keys are properties of the record.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::StepError;

/// The namespace of our metrics.
pub const NAMESPACE: &str = "Keywheel";

/// Writes the record of one step's end, however it ended.
pub fn step_ended(step: &str, stage: &str, took: Duration, result: &Result<Value, StepError>) {
    let record = record(step, stage, took, result, jiff::Timestamp::now().as_millisecond());
    // A log line that cannot be written is no reason to fail a rotation.
    let _ = writeln!(std::io::stdout(), "{record}");
}

/// The record as JSON. A run's outcome is counted once, where the last notice is handed over.
fn record(step: &str, stage: &str, took: Duration, result: &Result<Value, StepError>, at: i64) -> Value {
    let document = result.as_ref().ok();
    let text = |pointer: &str| document.and_then(|doc| doc.pointer(pointer)).and_then(Value::as_str);
    let mut directives = vec![json!({
        "Namespace": NAMESPACE,
        "Dimensions": [["Stage", "State"]],
        "Metrics": [{"Name": "StepDuration", "Unit": "Milliseconds"}, {"Name": "StepFailure", "Unit": "Count"}],
    })];
    let ended = text("/outcome").filter(|_| step == "notify" && text("/delivery") != Some("pending"));
    if ended.is_some() {
        directives.push(json!({
            "Namespace": NAMESPACE,
            "Dimensions": [["Stage", "Outcome"]],
            "Metrics": [{"Name": "RunEnded", "Unit": "Count"}, {"Name": "NoticesGivenUp", "Unit": "Count"}],
        }));
    }
    json!({
        "_aws": {"Timestamp": at, "CloudWatchMetrics": directives},
        "Stage": stage,
        "State": step,
        "StepDuration": took.as_secs_f64() * 1000.0,
        "StepFailure": u8::from(result.is_err()),
        "step.error": result.as_ref().err().map(StepError::name),
        "step.error_code": result.as_ref().err().and_then(StepError::code),
        "Outcome": ended,
        "RunEnded": u8::from(ended.is_some()),
        "NoticesGivenUp": u8::from(text("/delivery") == Some("gave_up")),
        "rotation.id": text("/run"),
        "rotation.phase": text("/phase"),
        "iam.user": text("/baseline/user/name"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_the_shape_that_cloudwatch_reads() {
        let doc = json!({"run": "r", "phase": "overlap", "baseline": {"user": {"name": "svc"}}});
        let line = record("promote-key", "prod", Duration::from_millis(12), &Ok(doc), 1_700_000_000_000);
        assert_eq!(
            line.to_string(),
            r#"{"_aws":{"Timestamp":1700000000000,"CloudWatchMetrics":[{"Namespace":"Keywheel","Dimensions":[["Stage","State"]],"Metrics":[{"Name":"StepDuration","Unit":"Milliseconds"},{"Name":"StepFailure","Unit":"Count"}]}]},"Stage":"prod","State":"promote-key","StepDuration":12.0,"StepFailure":0,"step.error":null,"step.error_code":null,"Outcome":null,"RunEnded":0,"NoticesGivenUp":0,"rotation.id":"r","rotation.phase":"overlap","iam.user":"svc"}"#
        );
    }

    #[test]
    fn an_outcome_is_counted_when_its_notice_is_out_and_only_then() {
        let doc = |delivery: &str| Ok(json!({"outcome": "Held", "delivery": delivery}));
        let count = |delivery| record("notify", "s", Duration::ZERO, &doc(delivery), 0)["RunEnded"].clone();
        assert_eq!(count("pending"), 0);
        assert_eq!(count("done"), 1);
        assert_eq!(count("gave_up"), 1);
        assert_eq!(record("look", "s", Duration::ZERO, &doc("done"), 0)["RunEnded"], 0);
    }

    #[test]
    fn a_failure_is_recorded_by_its_name() {
        let line = record("look", "s", Duration::ZERO, &Err(StepError::Conflict("x".into())), 0);
        assert_eq!(line["StepFailure"], 1);
        assert_eq!(line["step.error"], "Keywheel.Conflict");
    }
}

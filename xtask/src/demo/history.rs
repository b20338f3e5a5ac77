//! An execution as Step Functions tells it: which state was visited when.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::error::{Explain, Result};
use crate::requests::timestamp;

/// One visit of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visit {
    /// The state.
    pub(crate) state: String,
    /// Whether it calls a Lambda.
    pub(crate) task: bool,
    /// Whether it only waits.
    pub(crate) wait: bool,
    /// When it was entered.
    pub(crate) from: Timestamp,
    /// When it was left; `None` while it lasts.
    pub(crate) until: Option<Timestamp>,
}

impl Visit {
    /// Whether `at` lies within it.
    pub(crate) fn covers(&self, at: Timestamp) -> bool {
        self.from <= at && self.until.is_none_or(|until| at <= until)
    }

    /// How long it lasted.
    pub(crate) fn seconds(&self) -> f64 {
        self.until.map_or(0.0, |until| between(self.from, until))
    }
}

/// Seconds from one time to another.
pub(crate) fn between(from: Timestamp, until: Timestamp) -> f64 {
    until.duration_since(from).as_secs_f64()
}

/// An execution, read in full.
pub(crate) struct Execution {
    /// `RUNNING`, `SUCCEEDED`, `FAILED`, …
    pub(crate) status: String,
    /// When it started and when it stopped.
    pub(crate) times: (Timestamp, Option<Timestamp>),
    /// The document at its end.
    pub(crate) output: Option<Value>,
    /// The states visited, in their order.
    pub(crate) visits: Vec<Visit>,
    /// Everything that Step Functions said about it, word for word.
    pub(crate) raw: String,
}

impl Execution {
    /// Reads it.
    pub(crate) async fn read(cloud: &Cloud, arn: &str) -> Result<Self> {
        let input = json!({ "executionArn": arn });
        let mut raw = cloud.http.call("states", "AWSStepFunctions.DescribeExecution", &input).await?;
        let told: Value = serde_json::from_str(&raw).explain("DescribeExecution")?;
        let mut events = Vec::new();
        let mut token = Value::Null;
        loop {
            let mut input = json!({ "executionArn": arn, "maxResults": 1000, "includeExecutionData": true });
            if token.is_string() {
                input["nextToken"] = token;
            }
            let page = cloud.http.call("states", "AWSStepFunctions.GetExecutionHistory", &input).await?;
            let mut told: Value = serde_json::from_str(&page).explain("GetExecutionHistory")?;
            raw.push_str(&page);
            if let Some(Value::Array(page)) = told.get_mut("events").map(Value::take) {
                events.extend(page);
            }
            token = told.get_mut("nextToken").map(Value::take).unwrap_or_default();
            if !token.is_string() {
                break;
            }
        }
        let at = |name: &str| told.get(name).and_then(timestamp);
        let text = |name: &str| told.get(name).and_then(Value::as_str);
        Ok(Self {
            status: text("status").unwrap_or("UNKNOWN").to_owned(),
            times: (at("startDate").unwrap_or_else(Timestamp::now), at("stopDate")),
            output: text("output").and_then(|output| serde_json::from_str(output).ok()),
            visits: visits(&events),
            raw,
        })
    }

    /// A text field of the document at its end.
    pub(crate) fn told(&self, pointer: &str) -> Option<String> {
        self.output.as_ref()?.pointer(pointer)?.as_str().map(str::to_owned)
    }
}

/// The visits that a history tells of.
fn visits(events: &[Value]) -> Vec<Visit> {
    let mut visits: Vec<Visit> = Vec::new();
    for event in events {
        let Some(kind) = event.get("type").and_then(Value::as_str) else { continue };
        let Some(at) = event.get("timestamp").and_then(timestamp) else { continue };
        let name = |details: &str| event.pointer(&format!("/{details}/name")).and_then(Value::as_str);
        if let Some(state) = kind.strip_suffix("StateEntered").and(name("stateEnteredEventDetails")) {
            let (task, wait) = (kind.starts_with("Task"), kind.starts_with("Wait"));
            visits.push(Visit { state: state.to_owned(), task, wait, from: at, until: None });
        } else if let Some(state) = kind.strip_suffix("StateExited").and(name("stateExitedEventDetails"))
            && let Some(visit) = visits.iter_mut().rev().find(|v| v.state == state && v.until.is_none())
        {
            visit.until = Some(at);
        }
    }
    visits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_becomes_visits() {
        let event = |kind: &str, at: &str, state: &str| {
            let side = if kind.ends_with("Entered") { "Entered" } else { "Exited" };
            json!({"type": kind, "timestamp": format!("2026-01-01T00:00:{at}Z"),
                format!("state{side}EventDetails"): {"name": state}})
        };
        let events = [
            json!({"type": "ExecutionStarted", "timestamp": "2026-01-01T00:00:00Z"}),
            event("TaskStateEntered", "01.000", "Look"),
            json!({"type": "TaskScheduled", "timestamp": "2026-01-01T00:00:01Z"}),
            event("TaskStateExited", "02.500", "Look"),
            event("WaitStateEntered", "02.500", "Overlap"),
        ];
        let visits = visits(&events);
        assert_eq!(visits.len(), 2);
        assert!(visits[0].task && !visits[0].wait && visits[1].wait);
        assert!((visits[0].seconds() - 1.5).abs() < 1e-9);
        assert_eq!(visits[1].until, None);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(visits[0].covers(at("2026-01-01T00:00:02Z")));
        assert!(!visits[0].covers(at("2026-01-01T00:00:03Z")));
    }
}

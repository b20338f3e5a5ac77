//! Retry and Catch: what a failed task leads to.

use std::time::Duration;

use serde_json::{Value, json};

use super::{allow, data};
use crate::functions::Failure;

/// A task's retriers, each with its own count.
pub(super) struct Retries<'a>(Vec<(&'a Value, u32)>);

impl<'a> Retries<'a> {
    pub(super) fn new(state: &'a Value) -> Self {
        let retriers: Vec<_> = state
            .get("Retry")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|retrier| (retrier, 0))
            .collect();
        for (retrier, _) in &retriers {
            let fields = [
                "ErrorEquals",
                "IntervalSeconds",
                "MaxAttempts",
                "BackoffRate",
                "MaxDelaySeconds",
                "JitterStrategy",
            ];
            allow(retrier, "a retrier", &fields);
        }
        Self(retriers)
    }

    /// The pause before the next attempt; `None` where there is none.
    pub(super) fn after(&mut self, error: &str) -> Option<Duration> {
        let (retrier, count) = self.0.iter_mut().find(|(retrier, _)| matches(retrier, error))?;
        let number = |name: &str, default: f64| retrier.get(name).and_then(Value::as_f64).unwrap_or(default);
        if f64::from(*count) >= number("MaxAttempts", 3.0) {
            return None;
        }
        let exponent = i32::try_from(*count).unwrap();
        *count += 1;
        let pause = number("IntervalSeconds", 1.0) * number("BackoffRate", 2.0).powi(exponent);
        // Full jitter is anything up to this; the longest is as good as any, and the same in every run.
        Some(Duration::from_secs_f64(pause.min(number("MaxDelaySeconds", f64::MAX)).min(1e9)))
    }
}

/// Where a catcher sends the document, with the error in its place.
pub(super) fn caught(state: &Value, raw: &Value, failure: &Failure) -> Option<(Option<String>, Value)> {
    let catchers = state.get("Catch").and_then(Value::as_array)?;
    let catcher = catchers.iter().find(|catcher| matches(catcher, &failure.error))?;
    allow(catcher, "a catcher", &["ErrorEquals", "ResultPath"]);
    let error = json!({"Error": failure.error, "Cause": failure.cause});
    let next = catcher["Next"].as_str().unwrap().to_owned();
    Some((Some(next), data::place(catcher.get("ResultPath"), raw.clone(), error)))
}

fn matches(rule: &Value, error: &str) -> bool {
    let wanted: Vec<&str> =
        rule["ErrorEquals"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(!wanted.contains(&"States.ALL") || wanted.len() == 1, "States.ALL must stand alone: {wanted:?}");
    wanted.iter().any(|wanted| match *wanted {
        "States.ALL" => true,
        "States.TaskFailed" => error != "States.Timeout",
        wanted => wanted == error,
    })
}

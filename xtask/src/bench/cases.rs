//! What is measured: for each function the event it gets, the account it finds, and what counts as success.
//!
//! The events are the samples of `events/`, moved to the present: a gate whose time has come opens for a
//! sample of last spring as well, but the longest overlap would be over by then.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::world::{Moment, World};
use crate::error::{Error, Explain, Result};
use crate::paths;

/// One function's measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// The crate's name.
    pub(crate) name: &'static str,
    /// Where in a key's life it comes.
    moment: Moment,
    /// The field of the sample that names the instant just before the step.
    present: &'static str,
    /// The field of the answer that tells success, and what it says then.
    success: (&'static str, &'static str),
    /// The pauses that the step makes by its own rule, the same in both languages. They are taken off the
    /// time to the answer, of which they would be nearly all.
    pub(crate) pauses: Duration,
}

const NONE: Duration = Duration::ZERO;

/// Every function, in the order of a key's life.
pub(crate) const CASES: [Case; 18] = [
    case("look", Moment::Before, "/started", ("/phase", "create"), NONE),
    case("create-key", Moment::Before, "/started", ("/phase", "validate"), NONE),
    // Three answers in a row, a second apart.
    case("validate-key", Moment::Stored, "/started", ("/phase", "promote"), Duration::from_secs(2)),
    // A validation of a moment ago still stands; an older one costs a look at the keys.
    case("promote-key", Moment::Stored, "/notices/1/at", ("/phase", "overlap"), NONE),
    case("deactivate-key", Moment::Promoted, "/wait_until", ("/phase", "grace"), NONE),
    case("delete-key", Moment::Disabled, "/wait_until", ("/outcome", "Completed"), NONE),
    case("roll-back", Moment::Stored, "/started", ("/outcome", "RolledBack"), NONE),
    case("notify", Moment::Promoted, "/started", ("/delivery", "done"), NONE),
    // And of an emergency's.
    case("triage", Moment::Before, "/started", ("/course", "incidents"), NONE),
    case("watch", Moment::Before, "/started", ("/course", "incidents"), NONE),
    case("contain", Moment::Before, "/started", ("/phase", "deny"), NONE),
    case("deny-sessions", Moment::Before, "/contained_at", ("/deny/policy", DENY), NONE),
    case("replace", Moment::Before, "/contained_at", ("/replacement/way", "new"), NONE),
    case("investigate", Moment::Before, "/contained_at", ("/notices/1/kind", "Investigated"), NONE),
    // And of a campaign's.
    case("scan", Moment::Before, "/started", ("/phase", "batch"), NONE),
    case("review", Moment::Promoted, "/batch/began", ("/batch/key", NEXT_BATCH), NONE),
    // And of a key that nobody uses.
    case("disable-unused", Moment::Before, "/started", ("/phase", "grace"), NONE),
    case("delete-unused", Moment::Before, "/wait_until", ("/outcome", "Removed"), NONE),
];

/// What the samples' leaked key is denied by.
const DENY: &str = "keywheel-deny-sessions-AKIA2OGYBAH6QKEYWHEL";

/// What is begun when the batch of the sample is counted.
const NEXT_BATCH: &str = "campaigns/7c9e6679-7425-40de-944b-e07fc1f90ae7/batch-0003.json";

const fn case(
    name: &'static str,
    moment: Moment,
    present: &'static str,
    success: (&'static str, &'static str),
    pauses: Duration,
) -> Case {
    Case { name, moment, present, success, pauses }
}

impl Case {
    /// The event, as of now.
    pub(crate) fn event(&self) -> Result<Value> {
        let sample = sample(self.name)?;
        let present = sample.pointer(self.present).and_then(Value::as_str).and_then(|at| at.parse().ok());
        let present: Timestamp = present
            .ok_or_else(|| Error::from(format!("events/{}.json has no {}", self.name, self.present)))?;
        Ok(moved(sample, Timestamp::now().duration_since(present) - SignedDuration::from_secs(1)))
    }

    /// The account that the step finds.
    pub(crate) fn world(&self, event: &Value) -> Result<World> {
        // Where the event is no rotation's document, that of a later step tells what this one finds.
        let mut told = if event.get("baseline").is_some() { event.clone() } else { sample("validate-key")? };
        // In an emergency it is the leaked key that is current.
        if let Some(leaked) = event.pointer("/target/key_id") {
            told["baseline"]["current"]["key"] = leaked.clone();
        }
        // Of the step's own machine this very execution runs.
        if let Some(execution) = event.get("execution") {
            told["execution"] = execution.clone();
        }
        let mut world = World::of(&told, self.moment)
            .ok_or_else(|| Error::from(format!("the sample of {} does not tell enough", self.name)))?;
        if let Some(unused) = event.pointer("/removed/key").and_then(Value::as_str) {
            let inactive = event.get("phase").is_some_and(|phase| phase == "grace");
            world.add_unused(unused, if inactive { "Inactive" } else { "Active" });
        }
        Ok(world)
    }

    /// Why an answer is no success.
    pub(crate) fn refuse(&self, answer: &Value) -> Option<String> {
        let (field, wanted) = self.success;
        let found = answer.pointer(field).and_then(Value::as_str);
        (found != Some(wanted)).then(|| format!("{field} is {found:?} and not {wanted:?}: {answer}"))
    }
}

fn sample(name: &str) -> Result<Value> {
    let path = paths::root().join("events").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).explain(format_args!("reading {}", path.display()))?;
    serde_json::from_str(&text).explain(path.display())
}

/// The same with every time in it moved.
fn moved(value: Value, by: SignedDuration) -> Value {
    match value {
        Value::String(text) => {
            let at = text.parse::<Timestamp>().ok().and_then(|at| at.checked_add(by).ok());
            Value::String(at.map_or(text, |at| at.to_string()))
        }
        Value::Array(items) => items.into_iter().map(|item| moved(item, by)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, moved(value, by))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_lambda_is_measured() {
        let mut names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        names.sort_unstable();
        assert_eq!(names, crate::lambdas::packages().unwrap());
    }

    #[test]
    fn every_event_and_its_world_can_be_made() {
        for case in CASES {
            let event = case.event().unwrap();
            case.world(&event).unwrap();
            assert!(case.refuse(&event).is_some(), "{}: the input must not pass for a success", case.name);
        }
    }

    #[test]
    fn times_are_moved_and_nothing_else() {
        let before = json!({"at": "2026-03-02T09:00:00Z", "rows": [{"id": "AKIA", "n": 1}]});
        let after = json!({"at": "2026-03-02T10:00:00Z", "rows": [{"id": "AKIA", "n": 1}]});
        assert_eq!(moved(before, SignedDuration::from_hours(1)), after);
    }
}

//! Who was told that a key will be due: an object in the installation's bucket, beside the policy.
//!
//! A warning is remembered by the date for which it was given, not by the day on which it was to be given: a day on
//! which nobody looked is made up for, and the next key of the user is warned of anew. The bucket keeps versions, and
//! with them what was known on any day.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::RunId;

/// Where it lies in the bucket.
pub const WARNINGS: &str = "warnings.json";

/// The version of the object that this release writes.
pub const SCHEMA: u32 = 1;

/// One user's warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    /// When its key is due.
    pub due: Timestamp,
    /// When its owner was first to be told of it.
    pub warned: Timestamp,
    /// The campaign that first told, or was to: its notices carry this id.
    pub by: RunId,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warnings {
    /// The version of this object.
    pub schema: u32,
    /// By campaign, the execution whose document carries its warnings, where that is not known to have told them.
    #[serde(default)]
    pub carried: BTreeMap<RunId, String>,
    /// By user, the last warning; those of other accounts as [`crate::decide::due::Calendar`] calls them.
    #[serde(default)]
    pub users: BTreeMap<String, Warned>,
}

impl Default for Warnings {
    fn default() -> Self {
        Self { schema: SCHEMA, carried: BTreeMap::new(), users: BTreeMap::new() }
    }
}

/// How far apart two dates may be that are taken for the same: IAM's report and its lists may differ by a moment, and a
/// key that was rotated is due days later.
const SAME: SignedDuration = SignedDuration::from_hours(24);

impl Warned {
    /// Whether it was given for a key that is due then.
    pub fn is_for(&self, due: Timestamp) -> bool {
        self.due.duration_since(due).abs() < SAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(due: &str) -> Warned {
        Warned { due: due.parse().unwrap(), warned: Timestamp::UNIX_EPOCH, by: RunId::standing_for("a") }
    }

    #[test]
    fn a_date_is_the_same_within_less_than_a_day() {
        let warned = warned("2026-06-30T12:00:00Z");
        for (due, same) in [
            ("2026-06-29T12:00:00Z", false),
            ("2026-06-29T12:00:01Z", true),
            ("2026-06-30T12:00:00.25Z", true),
            ("2026-07-01T11:59:59Z", true),
            ("2026-07-01T12:00:00Z", false),
            ("2026-09-28T12:00:00Z", false),
        ] {
            assert_eq!(warned.is_for(due.parse().unwrap()), same, "{due}");
        }
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let text = r#"{"schema":1,"carried":{"7c9e6679-7425-40de-944b-e07fc1f90ae7":"arn"},"users":{"svc-a":{"due":"2026-07-01T00:00:00Z","warned":"2026-06-24T06:00:00Z","by":"7c9e6679-7425-40de-944b-e07fc1f90ae7"}}}"#;
        let read: Warnings = serde_json::from_str(text).unwrap();
        assert_eq!(read.carried.len(), 1);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(serde_json::from_str::<Warnings>("{\"schema\": 1}").unwrap(), Warnings::default());
    }
}

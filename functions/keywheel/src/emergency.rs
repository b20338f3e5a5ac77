//! The emergency policy: what is done about a finding, by source, severity and user.
//!
//! It is a JSON document in a parameter of the account (`/keywheel/<stage>/emergency`):
//!
//! ```json
//! {"max_contain": 25, "key_making": {"more_than": 5, "minutes": 10}, "role_sessions": "page", "rules": [
//!   {"user": "prod-*", "then": {"replace_first": 10}},
//!   {"source": "securityhub", "below": "high", "then": "page"},
//!   {"class": "POLICY_DECIDES", "then": "now"}
//! ]}
//! ```
//!
//! The first rule that fits decides; a rule without a condition fits everything. `then` is `now`, `page`,
//! `{"after": MINUTES}` (contain unless a person stops it) or `{"replace_first": MINUTES}`. A bound is at most an
//! hour: it is a delay, not a decision. Of the reports that senders of ours put on the bus, no more than
//! `max_contain` in ten minutes are acted on: else whoever may send one could switch off a company. Of one principal
//! that makes more keys than `key_making` takes for usual, and of a key of a managed user that none of our runs has
//! made (class `ODD_KEY_MAKING`), people are told, unless a rule that names the class says more. Sessions of roles that
//! were assumed with a leaked key are told of, or, with `role_sessions` at `deny`, denied by their roles. A policy that
//! is missing, or cannot be read or understood, delays nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decide::making::Usual;
use crate::pattern;
use crate::triage::{Class, Severity, Source, Target};

/// The longest that containment may be delayed.
pub const LONGEST_DELAY: Duration = Duration::from_hours(1);

/// What is done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The key is made Inactive at once.
    Now,
    /// People are told, nothing is changed.
    Page,
    /// The key is made Inactive after so many minutes, unless a person stops it.
    After(Minutes),
    /// The application gets another key first; after so many minutes the key is made Inactive, replaced or not.
    ReplaceFirst(Minutes),
}

/// From one minute to an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Minutes(u64);

impl Minutes {
    /// As a duration.
    pub const fn get(self) -> Duration {
        Duration::from_secs(self.0 * 60)
    }
}

impl TryFrom<u64> for Minutes {
    type Error = String;
    fn try_from(minutes: u64) -> Result<Self, String> {
        let longest = LONGEST_DELAY.as_secs() / 60;
        if (1..=longest).contains(&minutes) {
            Ok(Self(minutes))
        } else {
            Err(format!("containment may be delayed by 1 to {longest} minutes, not by {minutes}"))
        }
    }
}

impl From<Minutes> for u64 {
    fn from(minutes: Minutes) -> Self {
        minutes.0
    }
}

/// What becomes of the sessions of roles that were assumed with a leaked key: they outlive it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleSessions {
    /// People are told which they are.
    #[default]
    Page,
    /// The role denies these sessions, and no others, for as long as the user's own are denied.
    Deny,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What the event was taken for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Fits findings less grave than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Severity>,
    /// The user's name; `*` stands for any number of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What is done.
    pub then: Response,
}

/// In what time reports are counted.
pub const BRAKE_SPAN: Duration = Duration::from_mins(10);

const fn max_contain() -> u32 {
    25
}

/// The policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emergency {
    /// The most reports over the bus in [`BRAKE_SPAN`] with which one is still acted on.
    #[serde(default = "max_contain")]
    pub max_contain: u32,
    /// How many keys one principal makes that nobody needs to look at.
    #[serde(default)]
    pub key_making: Usual,
    /// What becomes of sessions of roles that were assumed with a leaked key.
    #[serde(default)]
    pub role_sessions: RoleSessions,
    /// The rules, in their order.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

impl Default for Emergency {
    fn default() -> Self {
        Self {
            max_contain: max_contain(),
            key_making: Usual::default(),
            role_sessions: RoleSessions::default(),
            rules: Vec::new(),
        }
    }
}

impl Emergency {
    /// Where the policy is kept, for the given stage.
    pub fn parameter(stage: &str) -> String {
        format!("/keywheel/{stage}/emergency")
    }

    /// Reads the policy. An error names the line, the column and what is wrong there.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// What is done about a target whose owner is `user`, as far as that is known.
    pub fn response(&self, target: &Target, user: Option<&str>) -> Response {
        // A rule that names no class is about leaks, and who makes a key in an odd way has leaked none.
        let leak = target.class != Class::OddKeyMaking;
        let fits = |rule: &&Rule| {
            rule.source.is_none_or(|source| source == target.source)
                && rule.class.map_or(leak, |class| class == target.class)
                // A severity that nobody gave is not low.
                && rule.below.is_none_or(|below| {
                    target.severity != Severity::Unknown && target.severity < below
                })
                && rule.user.as_deref().is_none_or(|wanted| user.is_some_and(|user| pattern::fits(wanted, user)))
        };
        self.rules.iter().find(fits).map_or_else(|| by_default(target.class), |rule| rule.then)
    }
}

/// What is done where no rule fits: a key that was seen in the open is made Inactive at once; where the event only
/// suspects, or names the user and not the key, a person decides.
const fn by_default(class: Class) -> Response {
    match class {
        Class::PolicyDecides | Class::ResolveUserKeys | Class::OddKeyMaking => Response::Page,
        _ => Response::Now,
    }
}

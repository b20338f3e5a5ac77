//! The fleet's policy document: how old keys may become, for whom, in which order, and what holds a run up.
//!
//! ```yaml
//! defaults: {frequency: 90d, warn: 7d}
//! rules:
//!   - name: mail
//!     match: {user: "svc-mail-*"}
//!     set: {frequency: monthly, wave: 2, owner: mail@example.com}
//! exemptions:
//!   - {user: svc-sap, owner: sap@example.com, reason: the vendor is on leave, until: 2027-03-31}
//! limits:
//!   keys_per_run: 50
//!   failure_tolerance_percent: 10
//!   freeze:
//!     - {from: 2026-12-20T00:00:00Z, until: 2027-01-04T00:00:00Z, reason: year end}
//! regions: [eu-west-1]
//! accounts: ["444455556666"]
//! ```
//!
//! Everything may be left out. The first rule that fits a user decides for it, unless its secret's tag
//! `keywheel:policy` names one. A `frequency` sets all durations of its layer at once; single fields override it.
//! Names of users and patterns for them are compared as IAM compares them, whatever their case. A policy with a mistake
//! in it is refused as a whole ([`super::check`]): what is not understood rotates nothing.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::policy::{Policy, PolicyOverride, SHORTEST_QUIET_WINDOW, Span, WhenStillInUse};

/// How often a key is rotated: all durations that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frequency {
    /// Every day.
    #[serde(rename = "daily")]
    Daily,
    /// Every 7 days.
    #[serde(rename = "weekly")]
    Weekly,
    /// Every 30 days.
    #[serde(rename = "monthly")]
    Monthly,
    /// Every 90 days: the careful default.
    #[serde(rename = "90d")]
    Quarterly,
}

impl Frequency {
    /// Every frequency, for tables and tests.
    pub const ALL: [Self; 4] = [Self::Daily, Self::Weekly, Self::Monthly, Self::Quarterly];

    /// The age at which a key is due.
    const fn max_age(self) -> Span {
        Span::days(match self {
            Self::Daily => 1,
            Self::Weekly => 7,
            Self::Monthly => 30,
            Self::Quarterly => 90,
        })
    }

    /// Durations that fit into that age, the longest overlap and the grace together.
    fn durations(self) -> Policy {
        let usual = Policy::default();
        match self {
            Self::Daily => Policy {
                overlap: Span::hours(4),
                max_overlap: Span::hours(12),
                quiet_window: SHORTEST_QUIET_WINDOW,
                grace: Span::hours(8),
                ..usual
            },
            Self::Weekly => Policy {
                max_overlap: Span::days(3),
                quiet_window: Span::hours(12),
                grace: Span::days(2),
                ..usual
            },
            Self::Monthly => Policy { max_overlap: Span::days(10), ..usual },
            Self::Quarterly => usual,
        }
    }
}

/// What becomes of a key that nobody uses: it is made Inactive, and deleted after a grace. Only keys of users whose own
/// tag asks for it ([`crate::unused::TAG`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// After how long without use a key is made Inactive.
    pub disable_after: Span,
    /// How long it stays Inactive, recoverable, before it is deleted; absent: it is never deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_after: Option<Span>,
}

/// The shortest time without use after which a key is made Inactive: jobs that run once a month are still in use.
pub const SHORTEST_UNUSED: Span = Span::days(30);
/// The shortest time, and the longest, that such a key stays Inactive before it is deleted: people must notice, and an
/// execution lives for a year.
pub const UNUSED_GRACE: (Span, Span) = (Span::days(7), Span::days(180));

impl Removal {
    /// What is wrong with it, each mistake with its field.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if self.disable_after < SHORTEST_UNUSED {
            found.push(("disable_after", format!("it is shorter than {SHORTEST_UNUSED}")));
        }
        let (shortest, longest) = UNUSED_GRACE;
        if self.delete_after.is_some_and(|grace| grace < shortest) {
            found.push(("delete_after", format!("it is shorter than {shortest}")));
        }
        if self.delete_after.is_some_and(|grace| grace > longest) {
            found.push(("delete_after", format!("it is longer than {longest}")));
        }
        found
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inactive after {} without use", self.disable_after)?;
        match self.delete_after {
            Some(grace) => write!(f, ", deleted {grace} later"),
            None => f.write_str(", never deleted"),
        }
    }
}

/// What a rule, or the defaults, set. What is absent comes from the layer below.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// All durations at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency: Option<Frequency>,
    /// The age at which a key is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Span>,
    /// How long before a key is due its owner is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<Span>,
    /// See [`Policy::overlap`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Span>,
    /// See [`Policy::max_overlap`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_overlap: Option<Span>,
    /// See [`Policy::quiet_window`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_window: Option<Span>,
    /// See [`Policy::grace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// See [`Policy::cache`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Span>,
    /// See [`Policy::when_still_in_use`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_still_in_use: Option<WhenStillInUse>,
    /// Which users are rotated together; the lowest number goes first, and is the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<u32>,
    /// Who answers for these keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What becomes of keys that nobody uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<Removal>,
}

/// The wave of users for whom none is set.
pub const USUAL_WAVE: u32 = 1;

/// The shortest time before a key is due in which anybody is told: campaigns come once a day.
pub const SHORTEST_WARNING: Span = Span::days(1);

/// What holds for one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// The age at which a key is due.
    pub max_age: Span,
    /// How long before that its owner is told; `None`: nobody is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn: Option<Span>,
    /// The durations of its rotation.
    #[serde(flatten)]
    pub policy: Policy,
    /// Its wave.
    pub wave: u32,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What becomes of its keys that nobody uses; `None`: they are reported, and left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused: Option<Removal>,
}

impl Default for Terms {
    fn default() -> Self {
        let usual = Frequency::Quarterly;
        Self {
            max_age: usual.max_age(),
            warn: None,
            policy: usual.durations(),
            wave: USUAL_WAVE,
            owner: None,
            unused: None,
        }
    }
}

impl Terms {
    /// These terms with a layer put on top.
    #[must_use]
    pub fn with(&self, set: &Settings) -> Self {
        let base = set.frequency.map_or_else(
            || self.clone(),
            |frequency| {
                // How long consumers cache, and what is done about late ones, has no frequency.
                let Policy { overlap, max_overlap, quiet_window, grace, .. } = frequency.durations();
                let policy = Policy { overlap, max_overlap, quiet_window, grace, ..self.policy.clone() };
                Self { max_age: frequency.max_age(), policy, ..self.clone() }
            },
        );
        let max_age = set.max_age.unwrap_or(base.max_age);
        Self {
            max_age,
            // Of keys that live for a day nobody can be told in time: a layer that makes them so asks for no warnings.
            warn: set.warn.or(base.warn.filter(|_| max_age > SHORTEST_WARNING)),
            policy: Policy {
                overlap: set.overlap.unwrap_or(base.policy.overlap),
                max_overlap: set.max_overlap.unwrap_or(base.policy.max_overlap),
                quiet_window: set.quiet_window.unwrap_or(base.policy.quiet_window),
                grace: set.grace.unwrap_or(base.policy.grace),
                cache: set.cache.unwrap_or(base.policy.cache),
                when_still_in_use: set.when_still_in_use.unwrap_or(base.policy.when_still_in_use),
            },
            wave: set.wave.unwrap_or(base.wave),
            owner: set.owner.clone().or(base.owner),
            unused: set.unused.or(base.unused),
        }
    }
}

impl Terms {
    /// What a run's input says so that these terms hold for it.
    pub fn wish(&self) -> PolicyOverride {
        PolicyOverride {
            overlap: Some(self.policy.overlap),
            max_overlap: Some(self.policy.max_overlap),
            quiet_window: Some(self.policy.quiet_window),
            grace: Some(self.policy.grace),
            cache: Some(self.policy.cache),
            when_still_in_use: Some(self.policy.when_still_in_use),
        }
    }
}

/// An account's number: 12 digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AccountId(String);

impl AccountId {
    /// The number as AWS writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = AccountId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an account's number: 12 digits, in quotes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<AccountId, E> {
                if text.len() == 12 && text.bytes().all(|digit| digit.is_ascii_digit()) {
                    Ok(AccountId(text.to_owned()))
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }
            // YAML takes digits without quotes for a number, and loses the zeros that begin it.
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<AccountId, E> {
                let text = number.to_string();
                if text.len() == 12 {
                    Ok(AccountId(text))
                } else {
                    Err(E::invalid_value(de::Unexpected::Unsigned(number), &self))
                }
            }
        }
        deserializer.deserialize_any(Digits)
    }
}

/// Whom a rule is for: all that it names must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The user's name; `*` stands for any number of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's path, such as `/vendors/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The user's account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// Tags of the user's secret, each with its value; `*` as in names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl Match {
    /// Whether it names nothing, and so fits everybody.
    pub fn is_everybody(&self) -> bool {
        *self == Self::default()
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What it is called, here and in every plan.
    pub name: String,
    /// Whom it is for.
    #[serde(default, rename = "match", skip_serializing_if = "Match::is_everybody")]
    pub matches: Match,
    /// What holds for them.
    #[serde(default)]
    pub set: Settings,
}

fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::custom(format!("{text:?} is not a day: write it like 2027-03-31")))
}

fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || format!("{text:?} is not a time with its zone: write it like 2026-12-20T00:00:00Z");
    text.parse().map_err(|_| de::Error::custom(wrong()))
}

/// A user that is not rotated, until a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exemption {
    /// The user's name; `*` stands for any number of characters.
    pub user: String,
    /// Its account; absent: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    /// Who asked for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// The last day on which it holds, in UTC.
    #[serde(deserialize_with = "day")]
    pub until: Date,
}

/// A time in which nothing is rotated, and no superseded key is made Inactive or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Its first instant.
    #[serde(deserialize_with = "instant")]
    pub from: Timestamp,
    /// The instant that it ends.
    #[serde(deserialize_with = "instant")]
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

impl Freeze {
    /// Whether it holds at `now`.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }
}

const fn keys_per_run() -> u32 {
    50
}

const fn failure_tolerance_percent() -> u8 {
    10
}

/// What keeps a mistake small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The most keys that one run rotates.
    #[serde(default = "keys_per_run")]
    pub keys_per_run: u32,
    /// How many of a wave may fail before a run over all of them stops, in percent. A plan alone has no use for it.
    #[serde(default = "failure_tolerance_percent")]
    pub failure_tolerance_percent: u8,
    /// When nothing is rotated, and no superseded key is made Inactive or deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<Freeze>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keys_per_run: keys_per_run(),
            failure_tolerance_percent: failure_tolerance_percent(),
            freeze: Vec::new(),
        }
    }
}

impl Limits {
    /// The freeze that holds at `now`.
    pub fn frozen(&self, now: Timestamp) -> Option<&Freeze> {
        self.freeze.iter().find(|freeze| freeze.holds(now))
    }

    /// The freezes that are not over at `now`.
    pub fn freezes_left(&self, now: Timestamp) -> Vec<Freeze> {
        self.freeze.iter().filter(|freeze| now < freeze.until).cloned().collect()
    }
}

const fn unused_after() -> Span {
    Span::days(90)
}

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetPolicy {
    /// What holds where no rule says otherwise.
    #[serde(default)]
    pub defaults: Settings,
    /// The rules, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Who is not rotated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exemptions: Vec<Exemption>,
    /// What keeps a mistake small.
    #[serde(default)]
    pub limits: Limits,
    /// Where managed secrets are; empty: in the installation's region.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// The accounts whose users are rotated beside those of the installation's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<AccountId>,
    /// After how long without use a key is reported as unused. What becomes of it is for [`Settings::unused`] to say.
    #[serde(default = "unused_after")]
    pub unused_after: Span,
}

impl Default for FleetPolicy {
    fn default() -> Self {
        Self {
            defaults: Settings::default(),
            rules: Vec::new(),
            exemptions: Vec::new(),
            limits: Limits::default(),
            regions: Vec::new(),
            accounts: Vec::new(),
            unused_after: unused_after(),
        }
    }
}

impl FleetPolicy {
    /// What holds where no rule fits.
    pub fn usual(&self) -> Terms {
        Terms::default().with(&self.defaults)
    }

    /// The accounts beside the installation's own, which may be named among them.
    pub fn other_accounts(&self, own: &str) -> Vec<&str> {
        self.accounts.iter().map(AccountId::as_str).filter(|account| *account != own).collect()
    }

    /// Whether anybody is told of a key before it is due.
    pub fn warns(&self) -> bool {
        self.defaults.warn.is_some() || self.rules.iter().any(|rule| rule.set.warn.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frequency_leaves_room_for_the_overlap_and_the_grace() {
        for frequency in Frequency::ALL {
            let terms =
                Terms::default().with(&Settings { frequency: Some(frequency), ..Settings::default() });
            let taken = terms.policy.max_overlap.get() + terms.policy.grace.get();
            assert!(taken < terms.max_age.get(), "{frequency:?}");
            assert!(terms.policy.overlap <= terms.policy.max_overlap, "{frequency:?}");
            assert!(terms.policy.quiet_window >= SHORTEST_QUIET_WINDOW, "{frequency:?}");
            // The gate opens at the earliest when the settling time and the quiet window have passed.
            assert!(
                terms.policy.settling() + terms.policy.quiet_window.get() <= terms.policy.max_overlap.get()
            );
        }
    }

    #[test]
    fn a_layer_overrides_the_one_below_and_single_fields_override_its_frequency() {
        let below = Settings { grace: Some(Span::days(3)), wave: Some(4), ..Settings::default() };
        let above = Settings {
            frequency: Some(Frequency::Daily),
            max_overlap: Some(Span::hours(10)),
            ..Settings::default()
        };
        let below = Settings { cache: Some(Span::minutes(30)), ..below };
        let terms = Terms::default().with(&below).with(&above);
        assert_eq!(terms.policy.cache, Span::minutes(30));
        assert_eq!((terms.max_age, terms.policy.grace), (Span::days(1), Span::hours(8)));
        assert_eq!((terms.policy.max_overlap, terms.wave), (Span::hours(10), 4));
        let owned = terms.with(&Settings { owner: Some("a".into()), ..Settings::default() });
        assert_eq!(owned.with(&Settings::default()).owner.as_deref(), Some("a"));
    }

    #[test]
    fn a_warning_comes_from_the_layer_below_unless_the_keys_live_too_short_for_one() {
        let set = |json: &str| serde_json::from_str::<Settings>(json).unwrap();
        let below = Terms::default().with(&set(r#"{"warn": "7d"}"#));
        let warn = |json: &str| below.with(&set(json)).warn;
        assert_eq!(warn("{}"), Some(Span::days(7)));
        assert_eq!(warn(r#"{"frequency": "monthly"}"#), Some(Span::days(7)));
        // What does not fit and could be shorter is told by the check.
        assert_eq!(warn(r#"{"frequency": "weekly"}"#), Some(Span::days(7)));
        assert_eq!(warn(r#"{"frequency": "weekly", "warn": "1d"}"#), Some(Span::days(1)));
        for short in [r#"{"frequency": "daily"}"#, r#"{"max_age": "24h"}"#] {
            assert_eq!(warn(short), None, "{short}");
        }
        assert_eq!(warn(r#"{"frequency": "daily", "max_age": "25h"}"#), Some(Span::days(7)));
        assert_eq!(Terms::default().warn, None);
        let policy = |json: &str| serde_json::from_str::<FleetPolicy>(json).unwrap();
        assert!(!policy(r#"{"rules": [{"name": "a"}]}"#).warns());
        assert!(policy(r#"{"defaults": {"warn": "7d"}}"#).warns());
        assert!(policy(r#"{"rules": [{"name": "a"}, {"name": "b", "set": {"warn": "7d"}}]}"#).warns());
    }

    #[test]
    fn what_becomes_of_unused_keys_comes_whole_from_one_layer() {
        let set = |json: &str| serde_json::from_str::<Settings>(json).unwrap();
        let below =
            Terms::default().with(&set(r#"{"unused": {"disable_after": "120d", "delete_after": "30d"}}"#));
        assert_eq!(
            below.unused.unwrap().to_string(),
            "Inactive after 120days without use, deleted 30days later"
        );
        assert_eq!(below.with(&set("{}")).unused, below.unused);
        let above = below.with(&set(r#"{"unused": {"disable_after": "60d"}}"#)).unused.unwrap();
        assert_eq!(above.to_string(), "Inactive after 60days without use, never deleted");
    }

    #[test]
    fn a_freeze_holds_from_its_first_instant_to_before_its_last() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let freeze = Freeze {
            from: at("2026-12-20T00:00:00Z"),
            until: at("2027-01-04T00:00:00Z"),
            reason: "x".into(),
        };
        let limits = Limits { freeze: vec![freeze], ..Limits::default() };
        for (now, frozen, left) in [
            ("2026-12-19T23:59:59Z", false, 1),
            ("2026-12-20T00:00:00Z", true, 1),
            ("2027-01-03T23:59:59Z", true, 1),
            ("2027-01-04T00:00:00Z", false, 0),
        ] {
            assert_eq!(limits.frozen(at(now)).is_some(), frozen, "{now}");
            assert_eq!(limits.freezes_left(at(now)).len(), left, "{now}");
        }
    }

    #[test]
    fn the_installations_own_account_is_no_other_one() {
        let json = r#"{"accounts": ["444455556666", 111122223333, "012345678901"]}"#;
        let policy: FleetPolicy = serde_json::from_str(json).unwrap();
        assert_eq!(policy.other_accounts("111122223333"), ["444455556666", "012345678901"]);
        assert_eq!(FleetPolicy::default().other_accounts("111122223333"), [""; 0]);
    }

    #[test]
    fn an_account_keeps_its_zeros_or_is_refused() {
        let read = |text: &str| serde_json::from_str::<AccountId>(text);
        assert_eq!(read("\"012345678901\"").unwrap().as_str(), "012345678901");
        assert_eq!(read("111122223333").unwrap().as_str(), "111122223333");
        for wrong in ["12345678901", "\"1234\"", "\"11112222333x\"", "true"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("12 digits, in quotes"), "{error}");
        }
    }
}

//! What is wrong with a policy, each mistake at its place.
//!
//! A place is written as people name fields: `rules[2].set.max_age`. Whoever has the text finds its line from there.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::policy::{FleetPolicy, Match, Removal, SHORTEST_WARNING, Settings, Terms};
use crate::policy::{SHORTEST_QUIET_WINDOW, Span};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The field; empty for the document as a whole.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl Mistake {
    /// A mistake from its two parts.
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "{}: {}", self.place, self.what)
        }
    }
}

/// The highest number of a wave.
const LAST_WAVE: u32 = 99;
/// The most keys that a run may be allowed.
const MOST_KEYS: u32 = 10_000;

impl FleetPolicy {
    /// Reads a policy. What it is not is said with the field's place; contradictions are all said at once.
    pub fn read(document: Value) -> Result<Self, Vec<Mistake>> {
        if !document.is_object() {
            return Err(vec![Mistake::new("", "a policy has fields, such as defaults and rules")]);
        }
        if let Some(mistake) = odd_shape(&document, "") {
            return Err(vec![mistake]);
        }
        let policy: Self = serde_path_to_error::deserialize(document).map_err(|error| {
            let place = error.path().to_string();
            let what = error.into_inner().to_string();
            // Of a field that is not known the path names the struct; the message names the field.
            let place = place.trim_end_matches(".?").trim_start_matches(['.', '?']).to_owned();
            vec![Mistake { place, what }]
        })?;
        let mistakes = policy.mistakes();
        if mistakes.is_empty() { Ok(policy) } else { Err(mistakes) }
    }

    /// Everything that contradicts itself, in the document's order.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Vec::new();
        let usual = self.usual();
        terms(&usual, &self.defaults, "defaults", &mut found);
        let mut names = BTreeMap::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let place = format!("rules[{index}]");
            name(&rule.name, &format!("{place}.name"), &mut found);
            if let Some(first) = names.insert(rule.name.as_str(), index) {
                let what =
                    format!("rules[{first}] is called {:?} as well; a name tells rules apart", rule.name);
                found.push(Mistake::new(format!("{place}.name"), what));
            }
            matches(&rule.matches, &format!("{place}.match"), &mut found);
            terms(&usual.with(&rule.set), &rule.set, &format!("{place}.set"), &mut found);
        }
        self.exempt(&mut found);
        self.limited(&mut found);
        for (index, region) in self.regions.iter().enumerate() {
            let place = format!("regions[{index}]");
            let valid = region.split('-').count() >= 3
                && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !valid {
                found.push(Mistake::new(place, format!("{region:?} is not a region such as eu-west-1")));
            } else if self.regions[..index].contains(region) {
                found.push(Mistake::new(place, format!("{region} is named twice")));
            }
        }
        for (index, account) in self.accounts.iter().enumerate() {
            if self.accounts[..index].contains(account) {
                let what = format!("{} is named twice", account.as_str());
                found.push(Mistake::new(format!("accounts[{index}]"), what));
            }
        }
        if self.unused_after < SHORTEST_QUIET_WINDOW {
            let what = format!("IAM's records cannot answer for less than {SHORTEST_QUIET_WINDOW}");
            found.push(Mistake::new("unused_after", what));
        }
        found
    }

    fn exempt(&self, found: &mut Vec<Mistake>) {
        for (index, exemption) in self.exemptions.iter().enumerate() {
            let place = |field: &str| format!("exemptions[{index}].{field}");
            pattern(&exemption.user, &place("user"), found);
            for (field, text) in [("owner", &exemption.owner), ("reason", &exemption.reason)] {
                if text.trim().is_empty() {
                    found.push(Mistake::new(place(field), format!("an exemption says its {field}")));
                }
            }
        }
    }

    fn limited(&self, found: &mut Vec<Mistake>) {
        let limits = &self.limits;
        if !(1..=MOST_KEYS).contains(&limits.keys_per_run) {
            let what = format!("a run rotates 1 to {MOST_KEYS} keys, not {}", limits.keys_per_run);
            found.push(Mistake::new("limits.keys_per_run", what));
        }
        if limits.failure_tolerance_percent > 100 {
            let what = format!("{} is more than 100 percent", limits.failure_tolerance_percent);
            found.push(Mistake::new("limits.failure_tolerance_percent", what));
        }
        for (index, freeze) in limits.freeze.iter().enumerate() {
            let place = format!("limits.freeze[{index}]");
            if freeze.until <= freeze.from {
                let what = format!("it ends at {}, and begins at {}", freeze.until, freeze.from);
                found.push(Mistake::new(format!("{place}.until"), what));
            }
            if freeze.reason.trim().is_empty() {
                found.push(Mistake::new(format!("{place}.reason"), "a freeze says its reason"));
            }
        }
    }
}

/// The fields that hold lists.
const LISTS: [&str; 5] = ["rules", "exemptions", "freeze", "regions", "accounts"];

/// A list where none belongs: serde would take its items for a struct's fields, in their order. And a field without a
/// value, which YAML has for `user:` with nothing behind it: taken for a field that is left out, it would widen a rule
/// or an exemption to everybody.
fn odd_shape(value: &Value, place: &str) -> Option<Mistake> {
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let inner = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
            match value {
                Value::Array(items) if LISTS.contains(&name.as_str()) => {
                    let mut items = items.iter().enumerate();
                    items.find_map(|(index, item)| odd_shape(item, &format!("{inner}[{index}]")))
                }
                value => odd_shape(value, &inner),
            }
        }),
        Value::Array(_) => Some(Mistake::new(place, "a list stands where none is expected")),
        Value::Null => {
            Some(Mistake::new(place, "nothing stands behind it: leave the field out, or give its value"))
        }
        _ => None,
    }
}

/// The shortest overlap and grace: in less nobody notices anything, and minutes are easily written for months.
const SHORTEST: Span = Span::hours(1);

/// What of the durations that hold together does not go together. `set` is the layer that is to blame.
fn terms(terms: &Terms, set: &Settings, place: &str, found: &mut Vec<Mistake>) {
    let policy = &terms.policy;
    for (field, span, shortest) in [
        ("overlap", set.overlap, SHORTEST),
        ("grace", set.grace, SHORTEST),
        ("warn", set.warn, SHORTEST_WARNING),
    ] {
        if span.is_some_and(|span| span < shortest) {
            found.push(Mistake::new(format!("{place}.{field}"), format!("it is shorter than {shortest}")));
        }
    }
    for (field, what) in set.unused.iter().flat_map(Removal::mistakes) {
        found.push(Mistake::new(format!("{place}.unused.{field}"), what));
    }
    // At the first field of the layer that takes part; where it sets none of them, a layer below is to blame.
    let mut blame = |fields: &[(&str, bool)], what: String| {
        if let Some((field, _)) = fields.iter().find(|(_, set)| *set) {
            found.push(Mistake::new(format!("{place}.{field}"), what));
        }
    };
    let frequency = ("frequency", set.frequency.is_some());
    let (overlap, max_overlap) =
        (("overlap", set.overlap.is_some()), ("max_overlap", set.max_overlap.is_some()));
    let (grace, max_age) = (("grace", set.grace.is_some()), ("max_age", set.max_age.is_some()));
    let quiet = ("quiet_window", set.quiet_window.is_some());
    if policy.overlap > policy.max_overlap {
        let what = format!(
            "the overlap ({}) is longer than the longest overlap ({})",
            policy.overlap, policy.max_overlap
        );
        blame(&[overlap, max_overlap, frequency], what);
    }
    if terms.max_age.get() <= policy.max_overlap.get() + policy.grace.get() {
        let what = format!(
            "a key is due at {}, before the longest overlap ({}) and the grace ({}) of the one before it have passed",
            terms.max_age, policy.max_overlap, policy.grace
        );
        blame(&[max_age, max_overlap, grace, frequency], what);
    }
    if policy.quiet_window < SHORTEST_QUIET_WINDOW {
        let what = format!(
            "{} is shorter than IAM's records can answer for: a use shows up to 4 hours late, and stands for 15 minutes ({SHORTEST_QUIET_WINDOW})",
            policy.quiet_window
        );
        blame(&[quiet], what);
    }
    if policy.settling() + policy.quiet_window.get() > policy.max_overlap.get() {
        let what = format!(
            "the consumers' cache time ({}), 15 minutes and the quiet window ({}) do not fit into the longest overlap ({}): no old key could ever fall quiet",
            policy.cache, policy.quiet_window, policy.max_overlap
        );
        blame(&[max_overlap, quiet, ("cache", set.cache.is_some()), frequency], what);
    }
    if let Some(warn) = terms.warn
        && warn >= terms.max_age
    {
        let what = format!("a key is due at {}, and its owner cannot be told {warn} before", terms.max_age);
        blame(&[("warn", set.warn.is_some()), max_age, frequency], what);
    }
    if set.wave.is_some_and(|wave| wave > LAST_WAVE) {
        found.push(Mistake::new(format!("{place}.wave"), format!("waves are numbered 0 to {LAST_WAVE}")));
    }
    if set.owner.as_deref().is_some_and(|owner| owner.trim().is_empty()) {
        found.push(Mistake::new(format!("{place}.owner"), "an owner has a name"));
    }
}

/// A rule's name is a word: it stands in a tag and in every plan.
fn name(name: &str, place: &str, found: &mut Vec<Mistake>) {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(word) {
        let what = format!("{name:?} is not a name: 1 to 64 letters, digits or any of -_.");
        found.push(Mistake::new(place, what));
    } else if name == super::rules::DEFAULTS {
        found.push(Mistake::new(place, format!("{name:?} means the defaults; call the rule something else")));
    }
}

fn pattern(text: &str, place: &str, found: &mut Vec<Mistake>) {
    let valid = (1..=64).contains(&text.chars().count())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-*".contains(&b));
    if !valid {
        let what = format!(
            "{text:?} fits no user: a name has 1 to 64 letters, digits or any of _+=,.@-, and * here"
        );
        found.push(Mistake::new(place, what));
    }
}

fn matches(matches: &Match, place: &str, found: &mut Vec<Mistake>) {
    if let Some(user) = &matches.user {
        pattern(user, &format!("{place}.user"), found);
    }
    if let Some(path) = &matches.path
        && !(path.starts_with('/') && path.ends_with(['/', '*']))
    {
        let what =
            format!("{path:?} fits no user: a path begins and ends with /, as in /vendors/ or /vendors/*");
        found.push(Mistake::new(format!("{place}.path"), what));
    }
}

#[cfg(test)]
mod tests;

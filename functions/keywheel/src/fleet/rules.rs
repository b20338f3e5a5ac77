//! Which rule decides for a user, and whether it is exempt.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::policy::{AccountId, Exemption, FleetPolicy, Rule, Terms};
use crate::pattern;

/// What rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The user's account.
    pub account: &'a str,
    /// The user's name.
    pub user: &'a str,
    /// The user's path, such as `/vendors/`.
    pub path: &'a str,
    /// The tags of its secret; `None` where it has none.
    pub tags: Option<&'a BTreeMap<String, String>>,
}

/// The secret's tag that names a rule.
pub const TAG_POLICY: &str = "keywheel:policy";
/// The secret's tag that names the owner.
pub const TAG_OWNER: &str = "keywheel:owner";

/// What the defaults are called where a rule's name stands.
pub const DEFAULTS: &str = "defaults";

/// Why one rule did not decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The rule.
    pub rule: String,
    /// What did not fit.
    pub why: String,
}

/// The rule that decides, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Its name, or [`DEFAULTS`].
    pub rule: String,
    /// What holds.
    pub terms: Terms,
    /// Whether the secret's tag names it.
    pub by_tag: bool,
    /// The rules before it.
    pub passed: Vec<Passed>,
}

/// How an exemption stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It holds.
    Holds,
    /// Its last day has passed.
    Expired,
}

impl FleetPolicy {
    /// The rule that decides for a user. An error names a rule that its secret asks for and that is not there.
    pub fn decide(&self, subject: &Subject<'_>) -> Result<Decided, String> {
        let tag = |name: &str| subject.tags.and_then(|tags| tags.get(name));
        let mut passed = Vec::new();
        let rule = match tag(TAG_POLICY) {
            Some(name) => Some(self.rules.iter().find(|rule| rule.name == *name).ok_or_else(|| {
                format!("its secret's tag {TAG_POLICY} names rule {name:?}, which the policy does not have")
            })?),
            None => self.rules.iter().find(|rule| match misfit(rule, subject) {
                None => true,
                Some(why) => {
                    passed.push(Passed { rule: rule.name.clone(), why });
                    false
                }
            }),
        };
        let usual = self.usual();
        let mut terms = rule.map_or_else(|| usual.clone(), |rule| usual.with(&rule.set));
        if let Some(owner) = tag(TAG_OWNER) {
            terms.owner = Some(owner.clone());
        }
        let rule = rule.map_or(DEFAULTS, |rule| &rule.name).to_owned();
        Ok(Decided { rule, terms, by_tag: tag(TAG_POLICY).is_some(), passed })
    }

    /// The exemption of a user: one that holds, else one that has expired.
    pub fn exemption(&self, subject: &Subject<'_>, now: Timestamp) -> Option<(&Exemption, Standing)> {
        let is_for = |exemption: &&Exemption| {
            let here = |account: &AccountId| account.as_str() == subject.account;
            names(&exemption.user, subject.user) && exemption.account.as_ref().is_none_or(here)
        };
        let today = now.to_zoned(TimeZone::UTC).date();
        // Of several the one that holds longest.
        let last = self.exemptions.iter().filter(is_for).max_by_key(|exemption| exemption.until)?;
        Some((last, if last.until < today { Standing::Expired } else { Standing::Holds }))
    }
}

/// Whether a pattern means a user. IAM has no two users whose names differ in case only.
pub(crate) fn names(pattern: &str, user: &str) -> bool {
    pattern::fits(&pattern.to_ascii_lowercase(), &user.to_ascii_lowercase())
}

/// What of a rule does not fit; `None` where all of it does.
fn misfit(rule: &Rule, subject: &Subject<'_>) -> Option<String> {
    let wanted = &rule.matches;
    if let Some(user) = wanted.user.as_deref().filter(|user| !names(user, subject.user)) {
        return Some(format!("its user is {user}"));
    }
    if let Some(path) = wanted.path.as_deref().filter(|path| !pattern::fits(path, subject.path)) {
        return Some(format!("its path is {path}, and the user's is {}", subject.path));
    }
    if let Some(account) = wanted.account.as_ref().filter(|account| account.as_str() != subject.account) {
        return Some(format!("its account is {}", account.as_str()));
    }
    for (name, value) in &wanted.tags {
        match subject.tags.and_then(|tags| tags.get(name)) {
            Some(has) if pattern::fits(value, has) => {}
            Some(has) => return Some(format!("the secret's tag {name} is {has:?}, not {value:?}")),
            None => return Some(format!("the secret has no tag {name}")),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> FleetPolicy {
        serde_json::from_str(
            r#"{"rules": [
                {"name": "vendors", "match": {"path": "/vendors/*"}, "set": {"wave": 3}},
                {"name": "mail", "match": {"user": "svc-*", "tags": {"team": "mail*"}}, "set": {"owner": "mail"}},
                {"name": "other", "match": {"account": "444455556666"}, "set": {"max_age": "60d"}}],
              "exemptions": [
                {"user": "svc-sap", "owner": "a", "reason": "b", "until": "2026-03-31"},
                {"user": "svc-*", "account": "444455556666", "owner": "a", "reason": "b", "until": "2026-12-31"}]}"#,
        )
        .unwrap()
    }

    fn subject<'a>(user: &'a str, path: &'a str, tags: Option<&'a BTreeMap<String, String>>) -> Subject<'a> {
        Subject { account: "111122223333", user, path, tags }
    }

    fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_the_others_say_why_not() {
        let policy = policy();
        let mail = tags(&[("team", "mail-eu")]);
        let decided = policy.decide(&subject("svc-a", "/vendors/x/", Some(&mail))).unwrap();
        assert_eq!((decided.rule.as_str(), decided.terms.wave), ("vendors", 3));
        let decided = policy.decide(&subject("svc-a", "/", Some(&mail))).unwrap();
        assert_eq!((decided.rule.as_str(), decided.terms.owner.as_deref()), ("mail", Some("mail")));
        assert_eq!(decided.passed[0].why, "its path is /vendors/*, and the user's is /");
        let decided = policy.decide(&subject("svc-a", "/", None)).unwrap();
        assert_eq!(decided.rule, DEFAULTS);
        let whys: Vec<&str> = decided.passed.iter().map(|passed| passed.why.as_str()).collect();
        assert_eq!(whys[1..], ["the secret has no tag team", "its account is 444455556666"]);
        let sales = tags(&[("team", "sales")]);
        let decided = policy.decide(&subject("svc-a", "/", Some(&sales))).unwrap();
        assert_eq!(decided.passed[1].why, "the secret's tag team is \"sales\", not \"mail*\"");
        let decided = policy.decide(&subject("bob", "/", Some(&mail))).unwrap();
        assert_eq!(decided.passed[1].why, "its user is svc-*");
    }

    #[test]
    fn a_secret_names_its_rule_and_its_owner() {
        let policy = policy();
        let named = tags(&[(TAG_POLICY, "other"), (TAG_OWNER, "eve")]);
        let decided = policy.decide(&subject("svc-a", "/vendors/", Some(&named))).unwrap();
        assert_eq!((decided.rule.as_str(), decided.terms.owner.as_deref()), ("other", Some("eve")));
        assert!(decided.by_tag);
        assert_eq!(decided.terms.max_age.to_string(), "60days");
        let wrong = tags(&[(TAG_POLICY, "otter")]);
        let error = policy.decide(&subject("svc-a", "/", Some(&wrong))).unwrap_err();
        assert!(error.contains("\"otter\""), "{error}");
    }

    #[test]
    fn an_exemption_holds_to_the_end_of_its_last_day_and_in_its_account() {
        let policy = policy();
        let standing = |now: &str, subject: &Subject<'_>| {
            policy.exemption(subject, now.parse().unwrap()).map(|(_, standing)| standing)
        };
        let sap = subject("svc-sap", "/", None);
        assert_eq!(standing("2026-03-31T23:59:59Z", &sap), Some(Standing::Holds));
        assert_eq!(standing("2026-04-01T00:00:00Z", &sap), Some(Standing::Expired));
        assert_eq!(standing("2026-03-31T23:59:59Z", &subject("SVC-sap", "/", None)), Some(Standing::Holds));
        assert_eq!(standing("2026-03-01T00:00:00Z", &subject("svc-b", "/", None)), None);
        let there = Subject { account: "444455556666", ..sap };
        assert_eq!(standing("2026-04-01T00:00:00Z", &there), Some(Standing::Holds));
    }
}

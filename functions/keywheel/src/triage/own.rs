//! Our own leak event: what secret scanners and webhooks put on the bus.
//!
//! ```json
//! {
//!   "source": "keywheel.leak",
//!   "detail-type": "Leaked Access Key",
//!   "detail": {
//!     "schema": 1,
//!     "keys": [{"key_id": "AKIA…", "account": "111122223333", "user": "svc-mail"}],
//!     "certainty": "exposed",
//!     "severity": "critical",
//!     "where": "https://…",
//!     "reporter": "the scanner's name",
//!     "reason": "why, in a person's words"
//!   }
//! }
//! ```
//!
//! `keys` holds at least one object with `key_id`; `account` and `user` are hints, which are never trusted.
//! `certainty` is `exposed` (the secret was seen: the default) or `suspected` (the policy decides). `severity` is
//! `low`, `medium`, `high` or `critical`. `where`, `reporter` and `reason` are for people, and nothing interprets
//! them. The secret itself has no place in it.

use super::fields::{Fields, severity_word};
use super::subject::{self, Subject};
use super::{Class, MOST_TARGETS, Source, Verdict};

pub(super) const SOURCE: &str = "keywheel.leak";

pub(super) fn leak(_: Fields<'_>, kind: &str, detail: Fields<'_>) -> Verdict {
    if kind != "Leaked Access Key" {
        return Verdict::reject("The detail-type of a leak must be \"Leaked Access Key\".");
    }
    if detail.get("schema").and_then(|schema| schema.0.as_u64()) != Some(1) {
        return Verdict::reject("The leak's schema must be the number 1.");
    }
    let suspected = match detail.get("certainty").map(|value| value.0.as_str()) {
        None | Some(Some("exposed")) => false,
        Some(Some("suspected")) => true,
        Some(_) => return Verdict::reject("The leak's certainty must be exposed or suspected."),
    };
    let keys = detail.list("keys").unwrap_or_default();
    if keys.is_empty() {
        return Verdict::reject("The leak's keys must be a list with at least one key.");
    }
    if keys.len() > MOST_TARGETS {
        return Verdict::reject(format!(
            "The leak names {} keys; more than {MOST_TARGETS} are for a person to look at.",
            keys.len()
        ));
    }
    let severity = severity_word(detail.text("severity"));
    let mut odd = 0;
    let mut parts: Vec<Verdict> = Vec::new();
    for key in keys {
        let subject = Subject { key: key.text("key_id"), user: key.text("user"), principal: None };
        let verdict = match subject.key {
            Some(_) => {
                subject::judge(&subject, key.account("account").as_deref(), Source::Keywheel, severity)
            }
            None => Verdict::reject(""),
        };
        if verdict.class == Class::Reject {
            odd += 1;
        } else if suspected && verdict.class == Class::RevokeUserKey {
            parts.push(verdict.classed(Class::PolicyDecides));
        } else {
            parts.push(verdict);
        }
    }
    let Some(mut verdict) = Verdict::all(parts) else {
        return Verdict::reject("No key_id in the leak is one that AWS could have made.");
    };
    if odd > 0 {
        verdict.odd += odd;
        verdict.add(&format!(" {odd} of its keys could not be understood: look at the event."));
    }
    verdict
}

//! AWS Health's events about credentials found in public or used by somebody else.
//!
//! The keys are the affected entities. One event may name hundreds, in pages that arrive as events of their own, and
//! in a delegated administrator's account the envelope's account is not the affected one.

use super::fields::{Fields, key_id, name};
use super::subject::{self, Subject};
use super::{Class, Kind, Severity, Source, Target, Verdict};

pub(super) const EVENT: &str = "AWS Health Event";
const QUARANTINE: &str = "AWS_RISK_IAM_QUARANTINE";
const CODES: [(&str, Severity); 5] = [
    ("AWS_RISK_CREDENTIALS_EXPOSED", Severity::Critical),
    ("AWS_RISK_CREDENTIALS_COMPROMISED", Severity::Critical),
    ("AWS_RISK_CREDENTIALS_EXPOSURE_SUSPECTED", Severity::High),
    ("AWS_RISK_CREDENTIALS_COMPROMISE_SUSPECTED", Severity::High),
    (QUARANTINE, Severity::High),
];

pub(super) fn event(envelope: Fields<'_>, kind: &str, detail: Fields<'_>) -> Verdict {
    if kind != EVENT {
        return Verdict::ignore("An event of AWS Health that is no health event of an account's resources.");
    }
    let Some(code) = detail.text("eventTypeCode") else {
        return Verdict::reject("The event's eventTypeCode is missing or no text.");
    };
    let Some((code, severity)) = CODES.iter().find(|(known, _)| *known == code) else {
        return if code.starts_with("AWS_RISK_") {
            Verdict::of(
                Class::NotifyOnly,
                "A risk that AWS Health reports under a code which is not known here.",
            )
        } else {
            Verdict::ignore("AWS Health reports something else than a leaked credential.")
        };
    };
    if detail.text("statusCode") == Some("closed") {
        return Verdict::of(Class::NotifyOnly, format!("AWS Health has closed its {code}."));
    }
    let metadata = detail.get("eventMetadata");
    let account = detail
        .account("affectedAccount")
        .or_else(|| metadata.and_then(|metadata| metadata.account("accountId")))
        .or_else(|| envelope.account("account"));
    let user = metadata.and_then(|metadata| metadata.text("userName"));
    let mut parts = Vec::new();
    let (mut named, mut odd) = (false, 0);
    let entities = detail.list("affectedEntities").unwrap_or_default();
    let one = entities.len() <= 1;
    // The metadata and the envelope's resources repeat an entity, or stand in for a list that is empty.
    let resources = envelope.list("resources").unwrap_or_default();
    let repeated = resources.iter().filter_map(|value| value.0.as_str());
    let repeated = repeated.chain(metadata.into_iter().filter_map(|data| data.text("publicKey")));
    let values = entities.iter().map(|entity| entity.text("entityValue"));
    let values = values.chain(repeated.filter(|value| key_id(value).is_some()).map(Some));
    for value in values {
        named = true;
        match value.filter(|value| key_id(value).is_some()) {
            Some(key) => {
                // Whose key it is the metadata says of a single one only.
                let subject = Subject { key: Some(key), user: user.filter(|_| one), principal: None };
                let mut verdict = subject::judge(&subject, account.as_deref(), Source::Health, *severity);
                verdict.reason = format!("AWS Health reports {code}.");
                parts.push(verdict);
            }
            None => match value.filter(|_| *code == QUARANTINE).and_then(user_of) {
                Some(user) => parts.push(Verdict::about(
                    Target {
                        class: Class::ResolveUserKeys,
                        account: account.clone(),
                        key_id: None,
                        user: Some(user),
                        kind: Kind::User,
                        source: Source::Health,
                        severity: *severity,
                    },
                    format!("AWS Health reports {code}."),
                )),
                None => odd += 1,
            },
        }
    }
    let pages = page(detail);
    let Some(mut verdict) = Verdict::all(parts) else {
        if named {
            return Verdict::reject(format!(
                "AWS Health reports {code}, and none of its {odd} entities is an access key id."
            ));
        }
        let subject = Subject { key: None, user, principal: None };
        let verdict = subject::judge(&subject, account.as_deref(), Source::Health, *severity);
        return match verdict.class {
            Class::Reject => {
                Verdict::of(Class::NotifyResolve, format!("AWS Health reports {code} and names no entity."))
            }
            _ => verdict,
        };
    };
    if odd > 0 {
        verdict.odd += odd;
        verdict.add(&format!(" {odd} of its entities could not be understood: look at the event."));
    }
    verdict.add(&pages);
    verdict
}

/// A user's name, or the ARN of a user.
fn user_of(text: &str) -> Option<crate::ids::UserName> {
    if text.starts_with("arn:") { super::fields::name_in_arn(text, "user") } else { name(text) }
}

fn page(detail: Fields<'_>) -> String {
    let number = |field: &str| -> Option<u32> { detail.text(field)?.parse().ok() };
    match (number("page"), number("totalPages")) {
        (Some(page), Some(total)) if total > 1 => {
            format!(" This is page {page} of {total}; the others arrive as events of their own.")
        }
        _ => String::new(),
    }
}

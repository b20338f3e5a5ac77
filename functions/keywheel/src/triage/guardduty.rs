//! GuardDuty's findings.
//!
//! Those about an access key name it in `resource.accessKeyDetails`. In findings about something else, a bucket say,
//! the same field names who did it; and an attack sequence names its actors in `service.detection.sequence`.

use serde_json::Value;

use super::fields::{Fields, severity};
use super::subject::{self, Subject};
use super::{Class, Source, Verdict};

pub(super) const FINDING: &str = "GuardDuty Finding";

pub(super) fn finding(envelope: Fields<'_>, kind: &str, detail: Fields<'_>) -> Verdict {
    if kind != FINDING {
        return Verdict::ignore("An event of GuardDuty that is no finding.");
    }
    let Some(what) = detail.any_text("type") else {
        return Verdict::reject("The finding's type is missing or no text.");
    };
    let (service, resource) = (detail.any("service"), detail.any("resource"));
    let account = detail.account("accountId").or_else(|| envelope.account("account"));
    let severity = severity(detail.any("severity"), 10.0);
    let about = resource.and_then(|resource| resource.any("accessKeyDetails"));
    let subject = about.map(|key| Subject {
        key: key.any_text("accessKeyId"),
        user: key.any_text("userName"),
        principal: key.any_text("userType"),
    });
    if service.and_then(|service| service.any("archived")).is_some_and(|flag| flag.0 == &Value::Bool(true)) {
        return Verdict::ignore("The finding is archived: a rule of the account suppresses it.");
    }
    let resource_type = resource.and_then(|resource| resource.any_text("resourceType"));
    let on_key = match resource_type {
        Some(kind) => kind.eq_ignore_ascii_case("AccessKey") && !is_about_data(what),
        None => what.contains(":IAMUser/"),
    };
    let sequence_of = what.starts_with("AttackSequence:");
    if subject.is_none() && !on_key && !sequence_of {
        return Verdict::ignore("The finding is not about a credential.");
    }
    if service.is_some_and(is_sample) || subject.as_ref().is_some_and(subject::is_generated) {
        return Verdict::of(Class::Sample, "A sample that GuardDuty made on request.");
    }
    if sequence_of {
        return sequence(what, account.as_deref(), service, severity, subject.as_ref());
    }
    match subject {
        Some(subject) if on_key => subject::judge(&subject, account.as_deref(), Source::GuardDuty, severity),
        Some(subject) => {
            // Who did it, not what leaked. Where it cannot even be said who, the finding still is for a person.
            let mut verdict = subject::judge(&subject, account.as_deref(), Source::GuardDuty, severity);
            "The finding is about another resource; the key in it is the actor's."
                .clone_into(&mut verdict.reason);
            verdict.classed(Class::NotCredentialLeakNotify)
        }
        None => Verdict::reject("The finding is about an access key and has no accessKeyDetails."),
    }
}

/// Whether a type's own words say that it is about something that was done to data, which has an actor and no leak.
fn is_about_data(what: &str) -> bool {
    let affected =
        what.split_once(':').and_then(|(_, rest)| rest.split_once('/')).map(|(affected, _)| affected);
    affected.is_some_and(|affected| affected != "IAMUser")
}

/// `additionalInfo` says it as a field, or as a piece of JSON in its `value`.
fn is_sample(service: Fields<'_>) -> bool {
    let Some(info) = service.any("additionalInfo") else { return false };
    let says = |value: &Value| Fields(value).any("sample").is_some_and(|flag| flag.0 == &Value::Bool(true));
    let inner = info.any_text("value").and_then(|text| serde_json::from_str::<Value>(text).ok());
    says(info.0) || inner.as_ref().is_some_and(says)
}

fn sequence(
    what: &str,
    account: Option<&str>,
    service: Option<Fields<'_>>,
    severity: super::Severity,
    subject: Option<&Subject<'_>>,
) -> Verdict {
    let found = service.and_then(|service| service.any("detection")?.any("sequence"));
    let actors = found.and_then(|sequence| sequence.list("actors").or_else(|| sequence.list("Actors")));
    let judged: Vec<Verdict> = actors
        .unwrap_or_default()
        .into_iter()
        .filter_map(|actor| actor.any("user"))
        .map(|user| {
            let owner = user.any("account").and_then(|account| account.account("uid"));
            let subject = Subject {
                key: user.any_text("credentialUid"),
                user: user.any_text("name"),
                principal: user.any_text("type"),
            };
            subject::judge(&subject, owner.as_deref().or(account), Source::GuardDuty, severity)
        })
        .collect();
    // An actor that cannot be understood does not hide the others.
    let (odd, mut parts): (Vec<Verdict>, Vec<Verdict>) =
        judged.into_iter().partition(|verdict| verdict.class == Class::Reject);
    parts.extend(subject.map(|subject| subject::judge(subject, account, Source::GuardDuty, severity)));
    if what.contains(":IAM/") || parts.iter().any(|part| part.class >= Class::SessionOnly) {
        let mut verdict =
            Verdict::all(parts).filter(|verdict| verdict.class != Class::Reject).unwrap_or_else(|| {
                Verdict::of(
                    Class::NotifyResolve,
                    "An attack sequence with a compromised credential, whose fields do not name it.",
                )
            });
        if !odd.is_empty() {
            verdict.odd += odd.len();
            let actors = odd.len();
            verdict.add(&format!(" {actors} of its actors could not be understood: look at the event."));
        }
        return verdict;
    }
    Verdict::of(Class::NotifyOnly, "An attack sequence that names no credential.")
}

//! Trusted Advisor's check for exposed access keys.

use super::fields::Fields;
use super::subject::{self, Subject};
use super::{Class, Severity, Source, Verdict};

pub(super) fn item(envelope: Fields<'_>, kind: &str, detail: Fields<'_>) -> Verdict {
    if kind != "Trusted Advisor Check Item Refresh Notification" {
        return Verdict::ignore("An event of Trusted Advisor that is no item of a check.");
    }
    let Some(check) = detail.text("check-name") else {
        return Verdict::reject("The item's check-name is missing or no text.");
    };
    if check != "Exposed Access Keys" {
        return Verdict::ignore("An item of another check.");
    }
    if detail.text("status") == Some("OK") {
        return Verdict::ignore("The check has found nothing.");
    }
    let Some(item) = detail.get("check-item-detail").filter(|item| item.is_object()) else {
        return Verdict::reject("The item has no check-item-detail.");
    };
    let fraud = item.text("Fraud Type").unwrap_or_default();
    let exposed = fraud.eq_ignore_ascii_case("Exposed");
    let subject = Subject {
        key: item.text("Access Key ID"),
        user: item.text("User Name (IAM or Root)"),
        principal: None,
    };
    let severity = if exposed { Severity::Critical } else { Severity::High };
    let account = envelope.account("account");
    let verdict = subject::judge(&subject, account.as_deref(), Source::TrustedAdvisor, severity);
    if exposed || verdict.class != Class::RevokeUserKey {
        return verdict;
    }
    let mut verdict = verdict.classed(Class::PolicyDecides);
    "Trusted Advisor suspects a leak, and has not found the key itself.".clone_into(&mut verdict.reason);
    verdict
}

//! AWS Config's rule for the age of access keys. It names the user by unique id, so that no name can be given here.

use super::fields::Fields;
use super::{Class, Verdict};

pub(super) fn change(_: Fields<'_>, kind: &str, detail: Fields<'_>) -> Verdict {
    if kind != "Config Rules Compliance Change" {
        return Verdict::ignore("An event of AWS Config that is no change of compliance.");
    }
    let result = detail.get("newEvaluationResult");
    let qualifier = || result?.get("evaluationResultIdentifier")?.get("evaluationResultQualifier");
    let of = |name| detail.text(name).or_else(|| qualifier()?.text(name));
    let Some(rule) = of("configRuleName") else {
        return Verdict::reject("The change has no configRuleName.");
    };
    // Security Hub and conformance packs put words of their own around the managed rule's name.
    if !rule.to_ascii_lowercase().contains("access-keys-rotated") {
        return Verdict::ignore("Another rule than that for the age of access keys.");
    }
    if of("resourceType").is_some_and(|kind| kind != "AWS::IAM::User") {
        return Verdict::ignore("The rule speaks of something else than a user.");
    }
    match result.and_then(|result| result.text("complianceType")) {
        Some("NON_COMPLIANT") => {
            Verdict::of(Class::Rotate, "A user's key is older than the account's rule allows.")
        }
        Some("COMPLIANT" | "NOT_APPLICABLE" | "INSUFFICIENT_DATA") => Verdict::ignore("No key is too old."),
        _ => Verdict::reject("The change has no complianceType that is known."),
    }
}

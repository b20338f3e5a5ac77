//! Security Hub's findings: its own controls, and what GuardDuty and other products hand to it, in ASFF or OCSF.

use serde_json::Value;

use super::fields::{Fields, name, name_in_arn, severity, severity_word};
use super::subject::{self, Subject, is_generated};
use super::{Class, Kind, Severity, Source, Target, Verdict};

pub(super) fn event(envelope: Fields<'_>, kind: &str, detail: Fields<'_>) -> Verdict {
    let each = match kind {
        "Security Hub Findings - Imported" | "Security Hub Findings - Custom Action" => asff,
        "Findings Imported V2" => ocsf,
        "Security Hub Insight Results" => {
            return Verdict::of(
                Class::NotifyOnly,
                "Somebody sent an insight, which groups findings and names none.",
            );
        }
        _ => return Verdict::ignore("An event of Security Hub that holds no findings."),
    };
    let Some(findings) = detail.list("findings").filter(|findings| !findings.is_empty()) else {
        return Verdict::reject("The event's findings are missing, empty or no list.");
    };
    let parts = findings.into_iter().map(|finding| {
        if finding.is_object() { each(envelope, finding) } else { Verdict::reject("A finding is no object.") }
    });
    Verdict::all(parts.collect()).unwrap_or_else(|| Verdict::reject("The event has no findings."))
}

const SAMPLE: &str = "A sample that a detector made on request.";
const SETTLED: &str = "The finding is suppressed, resolved or archived.";

/// A finding in Security Hub's own format.
pub(super) fn asff(envelope: Fields<'_>, finding: Fields<'_>) -> Verdict {
    let workflow = finding.get("Workflow").and_then(|workflow| workflow.text("Status"));
    let settled = matches!(workflow, Some("SUPPRESSED" | "RESOLVED"));
    if settled || finding.text("RecordState") == Some("ARCHIVED") {
        return Verdict::ignore(SETTLED);
    }
    let Some(resources) = finding.list("Resources") else {
        return Verdict::reject("The finding's Resources are missing or no list.");
    };
    let kind = |resource: &Fields<'_>| resource.text("Type").unwrap_or_default().to_owned();
    let keys: Vec<_> = resources.iter().filter(|resource| kind(resource) == "AwsIamAccessKey").collect();
    if keys.is_empty() {
        return control(envelope, finding, &resources);
    }
    if is_sample(finding) {
        return Verdict::of(Class::Sample, SAMPLE);
    }
    let product = finding.text("ProductArn").unwrap_or_default();
    let types: Vec<&str> =
        finding.list("Types").unwrap_or_default().iter().filter_map(|what| what.0.as_str()).collect();
    let rated = finding.get("Severity").or_else(|| finding.get("FindingProviderFields")?.get("Severity"));
    let severity = rated.map_or(Severity::Unknown, |rated| match severity_word(rated.text("Label")) {
        Severity::Unknown => severity(rated.get("Normalized"), 100.0),
        known => known,
    });
    let alone = keys.len() == resources.len();
    let account = finding.account("AwsAccountId").or_else(|| envelope.account("account"));
    let parts = keys.into_iter().map(|resource| {
        let details = resource.get("Details").and_then(|details| details.get("AwsIamAccessKey"));
        let of = |name: &str| details.and_then(|details| details.text(name));
        let id = resource.text("Id").unwrap_or_default();
        let subject = Subject {
            key: of("AccessKeyId").or_else(|| Some(id.rsplit(':').next().unwrap_or(id))),
            user: of("UserName").or_else(|| of("PrincipalName")),
            principal: of("PrincipalType"),
        };
        let actor = resource.text("ResourceRole").is_some_and(|role| role.eq_ignore_ascii_case("Actor"));
        let account = details.and_then(|details| details.account("AccountId")).or_else(|| account.clone());
        let what = Finding {
            guardduty: product.ends_with("product/aws/guardduty"),
            // Security Hub writes a dash where GuardDuty's type has a slash.
            on_user: types.iter().any(|what| what.contains(":IAMUser")),
            alone: alone && !actor,
        };
        what.judge(&subject, account.as_deref(), severity)
    });
    Verdict::all(parts.collect()).unwrap_or_else(|| Verdict::ignore("The finding is not about a credential."))
}

/// What is known of a finding with an access key in it.
struct Finding {
    guardduty: bool,
    on_user: bool,
    alone: bool,
}

impl Finding {
    fn judge(&self, subject: &Subject<'_>, account: Option<&str>, severity: Severity) -> Verdict {
        if is_generated(subject) {
            return Verdict::of(Class::Sample, SAMPLE);
        }
        let verdict = subject::judge(subject, account, Source::SecurityHub, severity);
        if self.guardduty && (self.on_user || self.alone) {
            return verdict;
        }
        if !self.alone {
            let mut verdict = match verdict.class {
                Class::Reject => Verdict::of(Class::NotifyOnly, ""),
                _ => verdict.classed(Class::NotCredentialLeakNotify),
            };
            "The finding is about another resource; the key in it is the actor's."
                .clone_into(&mut verdict.reason);
            return verdict;
        }
        // Another product's finding on a key may be anything from a leak to a missing tag.
        match verdict.class {
            Class::RevokeUserKey | Class::ResolveUserKeys => verdict.classed(Class::PolicyDecides),
            _ => verdict,
        }
    }
}

fn is_sample(finding: Fields<'_>) -> bool {
    let fields = finding.get("ProductFields");
    let flag = |name: &str| fields.and_then(|fields| fields.text(name)) == Some("true");
    let info = fields.and_then(|fields| fields.text("additionalInfo"));
    let inner = info.and_then(|info| serde_json::from_str::<Value>(info).ok());
    flag("sample")
        || flag("aws/guardduty/service/additionalInfo/sample")
        || finding.get("Sample").is_some_and(|flag| flag.0 == &Value::Bool(true))
        || inner.is_some_and(|info| info.get("sample") == Some(&Value::Bool(true)))
        || finding.text("Title").is_some_and(|title| title.starts_with("[SAMPLE]"))
}

/// A control of Security Hub. Only those for the age of a user's keys are ours.
fn control(envelope: Fields<'_>, finding: Fields<'_>, resources: &[Fields<'_>]) -> Verdict {
    let fields = finding.get("ProductFields");
    let field = |name: &str| fields.and_then(|fields| fields.text(name));
    let compliance = finding.get("Compliance");
    let control = compliance.and_then(|compliance| compliance.text("SecurityControlId"));
    let title = finding.text("Title").unwrap_or_default().to_ascii_lowercase();
    let by_name = title.contains("access keys") && title.contains("rotated");
    let by_id = control == Some("IAM.3") || field("ControlId") == Some("IAM.3");
    if !(by_id || by_name) {
        return Verdict::ignore("The finding is not about a credential.");
    }
    if compliance.and_then(|compliance| compliance.text("Status")).is_some_and(|status| status != "FAILED") {
        return Verdict::ignore("The control has not failed.");
    }
    let users = resources.iter().filter(|resource| resource.text("Type") == Some("AwsIamUser"));
    let account = finding.account("AwsAccountId").or_else(|| envelope.account("account"));
    let parts = users.map(|user| {
        let details = user.get("Details").and_then(|details| details.get("AwsIamUser"));
        let named = details.and_then(|details| details.text("UserName")).and_then(name);
        let Some(user) = named.or_else(|| name_in_arn(user.text("Id")?, "user")) else {
            return Verdict::reject("The control names no user that IAM could have.");
        };
        let target = Target {
            class: Class::Rotate,
            account: account.clone(),
            key_id: None,
            user: Some(user),
            kind: Kind::User,
            source: Source::SecurityHub,
            severity: Severity::Unknown,
        };
        Verdict::about(target, "A user's key is older than a control of Security Hub allows.")
    });
    Verdict::all(parts.collect()).unwrap_or_else(|| Verdict::ignore("The control names no user."))
}

/// A finding in the Open Cybersecurity Schema Framework.
fn ocsf(envelope: Fields<'_>, finding: Fields<'_>) -> Verdict {
    let status = finding.get("status_id").and_then(|status| status.0.as_u64());
    let word = finding.text("status").unwrap_or_default().to_ascii_lowercase();
    if matches!(status, Some(3..=6)) || ["suppressed", "resolved", "archived", "deleted"].contains(&&*word) {
        return Verdict::ignore(SETTLED);
    }
    let Some(resources) = finding.list("resources") else {
        return Verdict::reject("The finding's resources are missing or no list.");
    };
    let is_key = |resource: &&Fields<'_>| {
        matches!(resource.text("type"), Some("AWS::IAM::AccessKey" | "AwsIamAccessKey"))
    };
    let keys: Vec<_> = resources.iter().filter(is_key).collect();
    let info = finding.get("finding_info");
    if info.and_then(|info| info.text("title")).is_some_and(|title| title.starts_with("[SAMPLE]")) {
        return Verdict::of(Class::Sample, SAMPLE);
    }
    let types: Vec<&str> = info
        .and_then(|info| info.list("types"))
        .unwrap_or_default()
        .iter()
        .filter_map(|what| what.0.as_str())
        .collect();
    let product = finding.get("metadata").and_then(|metadata| metadata.get("product"));
    let says = |field: &str, word: &str| {
        product.and_then(|product| product.text(field)).is_some_and(|text| text.ends_with(word))
    };
    let account = finding
        .get("cloud")
        .and_then(|cloud| cloud.get("account")?.account("uid"))
        .or_else(|| envelope.account("account"));
    let rated = match severity_word(finding.text("severity")) {
        // Critical is 5 of OCSF's ids, and fatal 6.
        Severity::Unknown => severity(finding.get("severity_id"), 5.0),
        known => known,
    };
    let alone = keys.len() == resources.len();
    let parts = keys.into_iter().map(|resource| {
        let data = resource.get("data");
        let of = |name: &str| data.and_then(|data| data.text(name));
        let owner = resource.get("owner").and_then(|owner| owner.get("account")?.account("uid"));
        let actor = resource.text("role").is_some_and(|role| role.eq_ignore_ascii_case("Actor"));
        let subject = Subject {
            // The resource's uid is not the key's id.
            key: of("access_key_id"),
            user: of("user_name").or_else(|| resource.text("name")),
            principal: of("user_type"),
        };
        let what = Finding {
            guardduty: says("uid", "/aws/guardduty") || says("name", "GuardDuty"),
            on_user: types.iter().any(|what| what.contains(":IAMUser")),
            alone: alone && !actor,
        };
        what.judge(&subject, owner.or_else(|| account.clone()).as_deref(), rated)
    });
    Verdict::all(parts.collect()).unwrap_or_else(|| Verdict::ignore("The finding is not about a credential."))
}

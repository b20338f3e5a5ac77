//! Which calls leave somebody a way in, and what they made: read from fields that are named one by one.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};
use serde_json::Value;

use super::{Session, clean};

/// A call, and the words that name what it made: each a word and the field that follows it.
type Naming = (&'static str, &'static [(&'static str, &'static str)]);

const USER: (&str, &str) = ("user", "/requestParameters/userName");
const OF_USER: (&str, &str) = ("of user", "/requestParameters/userName");
const TO_USER: (&str, &str) = ("to user", "/requestParameters/userName");
const ROLE: (&str, &str) = ("role", "/requestParameters/roleName");
const TO_ROLE: (&str, &str) = ("to role", "/requestParameters/roleName");
const GROUP: (&str, &str) = ("group", "/requestParameters/groupName");
const TO_GROUP: (&str, &str) = ("to group", "/requestParameters/groupName");
const ARN: (&str, &str) = ("policy", "/requestParameters/policyArn");
const INLINE: (&str, &str) = ("policy", "/requestParameters/policyName");
const NAMED: (&str, &str) = ("", "/requestParameters/name");
const PAIR: (&str, &str) = ("key pair", "/requestParameters/keyName");

/// New principals, credentials and permissions, and those that stood in the way and were taken off.
const MAKES: [Naming; 35] = [
    ("iam:CreateUser", &[USER]),
    (
        "iam:CreateAccessKey",
        &[
            ("key", "/responseElements/accessKey/accessKeyId"),
            ("of user", "/responseElements/accessKey/userName"),
        ],
    ),
    (
        "iam:UpdateAccessKey",
        &[("key", "/requestParameters/accessKeyId"), OF_USER, ("to", "/requestParameters/status")],
    ),
    ("iam:CreateLoginProfile", &[("password", "/requestParameters/userName")]),
    ("iam:UpdateLoginProfile", &[("password", "/requestParameters/userName")]),
    ("iam:CreateServiceSpecificCredential", &[("credential for", "/requestParameters/serviceName"), OF_USER]),
    (
        "iam:ResetServiceSpecificCredential",
        &[("credential", "/requestParameters/serviceSpecificCredentialId")],
    ),
    ("iam:UploadSSHPublicKey", &[OF_USER]),
    ("iam:UploadSigningCertificate", &[OF_USER]),
    ("iam:CreateVirtualMFADevice", &[("device", "/requestParameters/virtualMFADeviceName")]),
    ("iam:EnableMFADevice", &[OF_USER]),
    ("iam:DeactivateMFADevice", &[OF_USER]),
    ("iam:CreateGroup", &[GROUP]),
    ("iam:AddUserToGroup", &[USER, TO_GROUP]),
    ("iam:AttachUserPolicy", &[ARN, TO_USER]),
    ("iam:AttachGroupPolicy", &[ARN, TO_GROUP]),
    ("iam:AttachRolePolicy", &[ARN, TO_ROLE]),
    ("iam:PutUserPolicy", &[INLINE, TO_USER]),
    ("iam:PutGroupPolicy", &[INLINE, TO_GROUP]),
    ("iam:PutRolePolicy", &[INLINE, TO_ROLE]),
    ("iam:DetachUserPolicy", &[ARN, OF_USER]),
    ("iam:DeleteUserPolicy", &[INLINE, OF_USER]),
    ("iam:DeleteUserPermissionsBoundary", &[OF_USER]),
    ("iam:DeleteRolePermissionsBoundary", &[ROLE]),
    ("iam:CreatePolicy", &[INLINE]),
    ("iam:CreatePolicyVersion", &[ARN]),
    ("iam:SetDefaultPolicyVersion", &[ARN, ("version", "/requestParameters/versionId")]),
    ("iam:CreateRole", &[ROLE]),
    ("iam:UpdateAssumeRolePolicy", &[ROLE]),
    ("iam:CreateSAMLProvider", &[NAMED]),
    ("iam:CreateOpenIDConnectProvider", &[("", "/requestParameters/url")]),
    ("rolesanywhere:CreateTrustAnchor", &[NAMED]),
    ("rolesanywhere:CreateProfile", &[NAMED]),
    ("ec2:CreateKeyPair", &[PAIR]),
    ("ec2:ImportKeyPair", &[PAIR]),
];

fn text<'a>(record: &'a Value, pointer: &str) -> Option<&'a str> {
    record.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// What a call made, where it is one that lets somebody in.
pub(super) fn made(call: &str, record: &Value) -> Option<String> {
    let (_, words) = MAKES.iter().find(|(name, _)| *name == call)?;
    let words = words.iter().filter_map(|(word, field)| Some(format!("{word} {}", text(record, field)?)));
    let words = words.collect::<Vec<String>>().join(" ");
    Some(clean(if words.is_empty() { "(unnamed)" } else { words.trim() }))
}

/// How long a session lives whose record does not say so: what STS gives where nothing else is asked for.
const LIVES: [(&str, i64); 5] = [
    ("sts:AssumeRole", 3_600),
    ("sts:AssumeRoot", 900),
    ("sts:GetSessionToken", 43_200),
    ("sts:GetFederationToken", 43_200),
    ("sts:GetWebIdentityToken", 300),
];

/// The session that a call gave, and whether it is a role's.
pub(super) fn session(call: &str, record: &Value, at: Option<Timestamp>) -> Option<(bool, Session)> {
    let (_, lives) = LIVES.iter().find(|(name, _)| *name == call)?;
    let (who, name) = match call {
        "sts:AssumeRole" => ("/requestParameters/roleArn", "/requestParameters/roleSessionName"),
        "sts:AssumeRoot" => ("/requestParameters/targetPrincipal", ""),
        _ => ("", "/requestParameters/name"),
    };
    let is_role = call.starts_with("sts:AssumeRo");
    let told = ["/responseElements/credentials/expiration", "/responseElements/expiration"];
    let until = told.iter().find_map(|field| time(text(record, field)?));
    let lives =
        record.pointer("/requestParameters/durationSeconds").and_then(Value::as_i64).unwrap_or(*lives);
    let until = until.or_else(|| at?.checked_add(SignedDuration::from_secs(lives)).ok());
    let session = Session {
        who: clean(text(record, who).unwrap_or(call)),
        name: clean(text(record, name).unwrap_or_default()),
        key: clean(text(record, "/responseElements/credentials/accessKeyId").unwrap_or_default()),
        calls: 1,
        span: None,
        until,
    };
    Some((is_role, session))
}

/// A time as CloudTrail writes it in answers: `Mar 2, 2026, 9:00:00 AM`, with or without the second comma, and of
/// late with a narrow blank; or as everywhere else.
fn time(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    let text: Vec<&str> =
        text.split([' ', ',', '\u{202f}', '\u{a0}']).filter(|word| !word.is_empty()).collect();
    let at = civil::DateTime::strptime("%b %d %Y %I:%M:%S %p", text.join(" ")).ok()?;
    at.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_way_that_answers_write_them() {
        let at: Timestamp = "2026-03-02T21:01:05Z".parse().unwrap();
        for text in [
            "2026-03-02T21:01:05Z",
            "Mar 2, 2026 9:01:05 PM",
            "Mar 2, 2026, 9:01:05 PM",
            "Mar 2, 2026, 9:01:05\u{202f}PM",
        ] {
            assert_eq!(time(text), Some(at), "{text}");
        }
        assert_eq!(time("soon"), None);
    }
}

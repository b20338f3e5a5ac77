//! CloudTrail's records of changes to users and their keys.
//!
//! A record's `userIdentity` is who called, never who leaked.

use super::fields::{Fields, key_id, name, name_in_arn};
use super::{Class, Kind, Severity, Source, Target, Verdict};
use crate::ids::{AccessKeyId, UserName};
use crate::making::Made;

pub(super) const API_CALL: &str = "AWS API Call via CloudTrail";
const SERVICE_EVENT: &str = "AWS Service Event via CloudTrail";

/// AWS attaches this policy, or one of its later versions, to a user whose key it has found in public.
const QUARANTINE: &str = "AWSCompromisedKeyQuarantine";

/// A key that was made Active by a call that bears our names, in a session of none of these roles: the names are
/// anybody's to choose, a role is not.
pub(super) fn pretended(envelope: Fields<'_>, detail: Fields<'_>, roles: &[String]) -> Option<Verdict> {
    let record = Record { envelope, detail };
    let made_active = detail.text("eventSource").and_then(|host| host.split('.').next()) == Some("iam")
        && detail.get("errorCode").is_none()
        && detail.text("eventName") == Some("UpdateAccessKey")
        && detail.get("requestParameters")?.text("status") == Some("Active");
    if !made_active || !record.is_ours() {
        return None;
    }
    let issuer = detail.get("userIdentity").and_then(principal);
    if issuer.is_some_and(|issuer| roles.contains(&issuer)) {
        return None;
    }
    let asked = detail.get("requestParameters")?;
    let (key, user) = (asked.text("accessKeyId").and_then(key_id)?, asked.text("userName").and_then(name));
    Some(record.made_active(
        key,
        user,
        "A key was made Active by somebody who goes by our names, in no role of ours.",
    ))
}

/// Whether a `detail-type` is that of a record.
pub(super) fn is_record(kind: &str) -> bool {
    kind == API_CALL || kind == SERVICE_EVENT
}

pub(super) fn record(envelope: Fields<'_>, _: &str, detail: Fields<'_>) -> Verdict {
    let (Some(service), Some(call)) = (detail.text("eventSource"), detail.text("eventName")) else {
        return Verdict::reject("The record's eventSource or eventName is missing or no text.");
    };
    let record = Record { envelope, detail };
    // The rest is a host's name, which a partition might write differently.
    match service.split('.').next() {
        Some("iam") => record.of_iam(call),
        Some("secretsmanager") => record.of_secrets(call),
        _ => Verdict::ignore("A record of a service that holds no keys of users."),
    }
}

/// The key that a record tells somebody has made.
pub(super) fn made(detail: Fields<'_>) -> Option<Made> {
    let service = detail.text("eventSource")?.split('.').next()?;
    let made = (service, detail.text("eventName")?) == ("iam", "CreateAccessKey");
    if !made || detail.get("errorCode").is_some() {
        return None;
    }
    let answer = detail.get("responseElements")?.get("accessKey")?;
    let asked = detail.get("requestParameters").and_then(|asked| asked.text("userName"));
    Some(Made {
        key: answer.text("accessKeyId").and_then(key_id)?,
        user: answer.text("userName").or(asked).and_then(name),
        account: detail.account("recipientAccountId"),
        at: detail.text("eventTime")?.parse().ok()?,
        by: detail.get("userIdentity").and_then(principal),
    })
}

/// The ARN of who called; of a role's session the role's, whatever the session is called. It is repeated to people, so
/// it must be nothing but an ARN: a path may hold anything, and whoever has such a one goes by its unique id.
fn principal(caller: Fields<'_>) -> Option<String> {
    let issuer = caller.get("sessionContext").and_then(|session| session.get("sessionIssuer"));
    let text = |name| issuer.and_then(|issuer| issuer.text(name)).or_else(|| caller.text(name));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@:/_-".contains(&byte);
    let arn = text("arn").filter(|arn| arn.starts_with("arn:") && arn.len() <= 700 && arn.bytes().all(plain));
    // Of a role's session it is followed by the session's name, which anybody chooses.
    let id = || text("principalId").and_then(|id| id.split(':').next()).filter(|id| is_unique_id(id));
    arn.or_else(id).map(str::to_owned)
}

fn is_unique_id(id: &str) -> bool {
    (16..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

struct Record<'a> {
    envelope: Fields<'a>,
    detail: Fields<'a>,
}

impl Record<'_> {
    fn of_iam(&self, call: &str) -> Verdict {
        let watched = [
            "AttachUserPolicy",
            "AttachRolePolicy",
            "DetachUserPolicy",
            "PutUserPolicy",
            "CreateAccessKey",
            "UpdateAccessKey",
            "DeleteAccessKey",
        ];
        if !watched.contains(&call) {
            return Verdict::ignore("A record that changes no key and quarantines nobody.");
        }
        if self.detail.get("errorCode").is_some() {
            return Verdict::ignore("The call was refused, so nothing has changed.");
        }
        let Some(asked) = self.detail.get("requestParameters").filter(|asked| asked.is_object()) else {
            // CreateAccessKey for oneself has no parameters, and its answer says it all.
            return if call == "CreateAccessKey" {
                self.key_made(None)
            } else {
                Verdict::reject("The record has no requestParameters.")
            };
        };
        match call {
            "CreateAccessKey" => self.key_made(Some(asked)),
            "UpdateAccessKey" | "DeleteAccessKey" => self.key_changed(call, asked),
            _ => self.policy_changed(call, asked),
        }
    }

    fn policy_changed(&self, call: &str, asked: Fields<'_>) -> Verdict {
        let policy = match asked.text("policyArn") {
            Some(arn) => managed_policy(arn),
            None => asked.text("policyName"),
        };
        if !policy.is_some_and(is_quarantine) {
            return Verdict::ignore("The policy is none that quarantines a leaked key.");
        }
        let role = call == "AttachRolePolicy";
        let Some(user) = asked.text(if role { "roleName" } else { "userName" }).and_then(name) else {
            return Verdict::reject("The record quarantines nobody that IAM could have.");
        };
        let (class, kind, reason) = match call {
            "AttachRolePolicy" => (Class::SessionResolve, Kind::Role, "AWS has quarantined a role."),
            "DetachUserPolicy" => (Class::Observe, Kind::User, "The quarantine of a user was lifted."),
            _ => (
                Class::ResolveUserKeys,
                Kind::User,
                "A user is quarantined: one of the user's keys has leaked.",
            ),
        };
        Verdict::about(self.target(class, kind, None, Some(user), Severity::High), reason)
    }

    fn key_made(&self, asked: Option<Fields<'_>>) -> Verdict {
        let made = self.detail.get("responseElements").and_then(|answer| answer.get("accessKey"));
        let user = asked.and_then(|asked| asked.text("userName")).and_then(name);
        let user = user.or_else(|| made.and_then(|made| made.text("userName")).and_then(name));
        let Some(key) = made.and_then(|made| made.text("accessKeyId")).and_then(key_id) else {
            return Verdict::reject("The record of a new key does not name it.");
        };
        self.observed(Some(key), user, "A key was made.")
    }

    fn key_changed(&self, call: &str, asked: Fields<'_>) -> Verdict {
        let Some(key) = asked.text("accessKeyId").and_then(key_id) else {
            return Verdict::reject("The record of a changed key does not name it.");
        };
        // Without a name the caller's own key is meant.
        let caller =
            || self.detail.get("userIdentity").and_then(|caller| name_in_arn(caller.text("arn")?, "user"));
        let user = asked.text("userName").map_or_else(caller, name);
        match (call, asked.text("status")) {
            ("DeleteAccessKey", _) => self.observed(Some(key), user, "A key was deleted."),
            (_, Some("Active")) if !self.is_ours() => self.made_active(key, user, "A key was made Active."),
            (_, Some("Active" | "Inactive" | "Expired")) => {
                self.observed(Some(key), user, "A key was changed.")
            }
            _ => Verdict::reject("The record of a changed key has no status that IAM knows."),
        }
    }

    fn made_active(&self, key: AccessKeyId, user: Option<UserName>, reason: &str) -> Verdict {
        let kind = kind_of(&key);
        let target = self.target(Class::RevokeAgainIfLeaked, kind, Some(key), user, Severity::Unknown);
        Verdict::about(target, reason)
    }

    fn of_secrets(&self, call: &str) -> Verdict {
        let watched = [
            "RotationStarted",
            "RotationSucceeded",
            "RotationFailed",
            "RotationAbandoned",
            "RotateSecret",
            "CancelRotateSecret",
            "PutSecretValue",
            "UpdateSecret",
            "UpdateSecretVersionStage",
            "DeleteSecret",
            "RestoreSecret",
        ];
        if !watched.contains(&call) {
            return Verdict::ignore("A record that changes no secret.");
        }
        if self.detail.get("errorCode").is_some() {
            return Verdict::ignore("The call was refused, so nothing has changed.");
        }
        Verdict::of(Class::Observe, "A secret was changed or rotated.")
    }

    fn observed(
        &self,
        key: Option<crate::ids::AccessKeyId>,
        user: Option<UserName>,
        reason: &str,
    ) -> Verdict {
        let kind = key.as_ref().map_or(Kind::User, kind_of);
        Verdict::about(self.target(Class::Observe, kind, key, user, Severity::Unknown), reason)
    }

    fn target(
        &self,
        class: Class,
        kind: Kind,
        key_id: Option<AccessKeyId>,
        user: Option<UserName>,
        severity: Severity,
    ) -> Target {
        let account = self.detail.account("recipientAccountId").or_else(|| self.envelope.account("account"));
        Target { class, account, key_id, user, kind, source: Source::CloudTrail, severity }
    }

    /// Whether one of our Lambdas made the call: our User-Agent, in a session of a role. The User-Agent alone is
    /// anybody's to choose, and would let a leaked key be switched on again unseen.
    fn is_ours(&self) -> bool {
        let agent = self.detail.text("userAgent").unwrap_or_default();
        let run = agent
            .split_once("app/keywheel-")
            .map(|(_, rest)| rest.split([' ', ']']).next().unwrap_or_default());
        let caller = self.detail.get("userIdentity");
        let session = caller
            .filter(|caller| caller.text("type") == Some("AssumedRole"))
            .and_then(|caller| caller.text("arn"))
            .and_then(|arn| arn.rsplit('/').next());
        // A Lambda's session bears its function's name, one in a member account the run's id.
        session.is_some_and(|session| session.starts_with("keywheel-") || Some(session) == run)
            && run.is_some()
    }
}

fn kind_of(key: &AccessKeyId) -> Kind {
    if key.is_temporary() { Kind::Session } else { Kind::LongTerm }
}

/// The name of a policy that AWS itself manages.
fn managed_policy(arn: &str) -> Option<&str> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _, "iam", "", "aws", resource] = parts.as_slice() else { return None };
    resource.strip_prefix("policy/")?.rsplit('/').next()
}

fn is_quarantine(policy: &str) -> bool {
    policy.strip_prefix(QUARANTINE).is_some_and(|version| {
        version.is_empty()
            || version
                .strip_prefix('V')
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

//! Whose credential a finding is about: the same few fields under each family's names.

use super::fields::{is_root, key_id, name};
use super::{Class, Kind, Severity, Source, Target, Verdict};

/// What a finding says of a credential.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The key's id, as it stands there.
    pub(super) key: Option<&'a str>,
    /// The name of the user or the role.
    pub(super) user: Option<&'a str>,
    /// What the family calls the kind of principal.
    pub(super) principal: Option<&'a str>,
}

/// Words that stand for no key: a console login has none.
const NO_KEY: [&str; 4] = ["", "null", "none", "n/a"];
/// What GuardDuty's samples carry in the place of ids and names.
const GENERATED: &str = "GeneratedFinding";

/// Whether a detector made this up.
pub(super) fn is_generated(subject: &Subject<'_>) -> bool {
    subject.key.is_some_and(|key| key.starts_with(GENERATED))
}

/// What should come of a credential that somebody misuses.
pub(super) fn judge(
    subject: &Subject<'_>,
    account: Option<&str>,
    source: Source,
    severity: Severity,
) -> Verdict {
    let user = subject.user.and_then(name);
    let id = subject.key.and_then(key_id);
    let named = subject.key.is_some_and(|key| !NO_KEY.contains(&key.trim().to_ascii_lowercase().as_str()));
    let principal = subject.principal.unwrap_or_default().to_ascii_lowercase();
    let root = principal == "root" || principal.is_empty() && subject.user.is_some_and(is_root);
    let of = |class, kind, reason: &str| {
        let (account, key_id, user) = (account.map(str::to_owned), id.clone(), user.clone());
        let user = if root { None } else { user };
        Verdict::about(Target { class, account, key_id, user, kind, source, severity }, reason)
    };
    if root {
        return of(Class::Root, Kind::Root, "The credential is the root's.");
    }
    if named && id.is_none() {
        return Verdict::reject("The access key id in the finding is none that AWS could have made.");
    }
    let is_role =
        ["assumedrole", "role", "instanceprofile", "samluser", "webidentityuser", "identitycenteruser"]
            .contains(&principal.as_str());
    if ["awsaccount", "awsservice"].contains(&principal.as_str()) {
        return of(
            Class::NotOursNotify,
            if id.is_some() { Kind::Session } else { Kind::User },
            "The caller is another account or a service of AWS.",
        );
    }
    match &id {
        Some(id) if !id.is_temporary() => {
            of(Class::RevokeUserKey, Kind::LongTerm, "A long-term key of an IAM user.")
        }
        Some(_) if is_role => of(Class::SessionOnly, Kind::RoleSession, "Temporary credentials of a role."),
        Some(_) if ["iamuser", "user", "federateduser"].contains(&principal.as_str()) => {
            of(Class::UserSession, Kind::UserSession, "Temporary credentials that a user's key has minted.")
        }
        Some(_) => {
            of(Class::SessionResolve, Kind::Session, "Temporary credentials, and it is not said whose.")
        }
        None if is_role && user.is_some() => {
            of(Class::SessionResolve, Kind::Role, "A role's session, and it is not said which.")
        }
        None if user.is_some() && !is_role => {
            of(Class::ResolveUserKeys, Kind::User, "The user is known and the key is not.")
        }
        None => Verdict::reject("The finding names neither a key nor a user that IAM could have."),
    }
}

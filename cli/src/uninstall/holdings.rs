//! What IAM holds of an installation: managed users, denies of sessions, roles. Read in one sweep over the account,
//! to its last page: what is overlooked here would stay for good.

use aws_sdk_iam::types::{
    AttachedPolicy, EntityType, ManagedPolicyDetail, PolicyDetail, PolicyVersion, RoleDetail, Tag, UserDetail,
};
use jiff::Timestamp;
use keywheel::incident::LONGEST_SESSION;
use keywheel::{StepError, sessions};

use crate::error::Result;
use crate::place::Place;

/// Every tag of ours begins so.
pub(super) const TAGS: &str = "keywheel:";

/// A user that carries our tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tagged {
    pub(super) user: String,
    /// The secret that the tag names.
    pub(super) secret: String,
    /// The names of all tags of ours.
    pub(super) tags: Vec<String>,
}

/// Whom a policy denies something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum On {
    User(String),
    Role(String),
    /// A managed policy that is attached to nobody.
    Nobody,
}

/// A policy that is called like one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deny {
    pub(super) on: On,
    pub(super) name: String,
    /// Its ARN, where it is a managed one.
    pub(super) arn: Option<String>,
    /// When the last session that it denies has ended; `None` where it does not say.
    pub(super) until: Option<Timestamp>,
}

impl Deny {
    /// Whether nothing is left that it could deny.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until < now)
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match &self.on {
            On::User(user) => format!("policy {} on user {user}", self.name),
            On::Role(role) => format!("policy {} on role {role}", self.name),
            On::Nobody => format!("policy {}, attached to nobody", self.name),
        }
    }
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) users: Vec<Tagged>,
    pub(super) denies: Vec<Deny>,
    /// The names of all roles.
    pub(super) roles: Vec<String>,
}

impl Holdings {
    /// Reads the account.
    pub(super) async fn read(place: &Place) -> Result<Self> {
        let call = place.iam().get_account_authorization_details();
        let call =
            call.filter(EntityType::User).filter(EntityType::Role).filter(EntityType::LocalManagedPolicy);
        let mut pages = call.into_paginator().send();
        let (mut users, mut roles, mut policies) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(page) = pages.next().await {
            let page =
                page.map_err(|error| StepError::from_sdk("iam:GetAccountAuthorizationDetails", &error))?;
            users.extend_from_slice(page.user_detail_list());
            roles.extend_from_slice(page.role_detail_list());
            policies.extend_from_slice(page.policies());
        }
        Ok(Self::of(&users, &roles, &policies))
    }

    fn of(users: &[UserDetail], roles: &[RoleDetail], policies: &[ManagedPolicyDetail]) -> Self {
        let managed: Vec<Deny> = policies.iter().filter_map(managed).collect();
        let mut all = Self::default();
        for user in users {
            let name = user.user_name().unwrap_or_default();
            all.users.extend(tagged(name, user));
            let inline = user.user_policy_list().iter();
            all.denies.extend(inline.filter_map(|policy| inline_of(On::User(name.to_owned()), policy)));
            let attached = user.attached_managed_policies().iter().filter_map(AttachedPolicy::policy_arn);
            let denies =
                attached.filter_map(|arn| managed.iter().find(|deny| deny.arn.as_deref() == Some(arn)));
            all.denies.extend(denies.map(|deny| Deny { on: On::User(name.to_owned()), ..deny.clone() }));
        }
        for role in roles {
            let name = role.role_name().unwrap_or_default();
            let inline = role.role_policy_list().iter();
            all.denies.extend(inline.filter_map(|policy| inline_of(On::Role(name.to_owned()), policy)));
            all.roles.push(name.to_owned());
        }
        let attached: Vec<Option<String>> = all.denies.iter().map(|deny| deny.arn.clone()).collect();
        all.denies.extend(managed.into_iter().filter(|deny| !attached.contains(&deny.arn)));
        all
    }
}

fn tagged(name: &str, user: &UserDetail) -> Option<Tagged> {
    let secret = user.tags().iter().find(|tag| tag.key() == facts::iam::TAG_SECRET)?.value().to_owned();
    let own = user.tags().iter().map(Tag::key).filter(|key| key.starts_with(TAGS));
    Some(Tagged { user: name.to_owned(), secret, tags: own.map(str::to_owned).collect() })
}

fn inline_of(on: On, policy: &PolicyDetail) -> Option<Deny> {
    let name = policy.policy_name().filter(|name| sessions::is_called_like_ours(name))?;
    let document = policy.policy_document().unwrap_or_default();
    let cut_off = match &on {
        On::Role(_) => sessions::role_cut_off_of(document),
        On::User(_) | On::Nobody => sessions::cut_off_of(document),
    };
    Some(Deny { on, name: name.to_owned(), arn: None, until: cut_off.and_then(end) })
}

fn managed(policy: &ManagedPolicyDetail) -> Option<Deny> {
    let name = policy.policy_name().filter(|name| sessions::is_called_like_ours(name))?;
    let version = policy.policy_version_list().iter().find(|version| version.is_default_version());
    let cut_off = version.and_then(PolicyVersion::document).and_then(sessions::cut_off_of);
    let arn = policy.arn().map(str::to_owned);
    Some(Deny { on: On::Nobody, name: name.to_owned(), arn, until: cut_off.and_then(end) })
}

/// When the last session has ended that was issued before a cut-off.
fn end(cut_off: Timestamp) -> Option<Timestamp> {
    cut_off.checked_add(LONGEST_SESSION).ok()
}

/// Whether a role is one of this stack's: CloudFormation calls it after the stack and the resource. The stack of
/// another stage may begin with the same words.
pub(super) fn is_role_of(stack: &str, role: &str) -> bool {
    resource(stack, role).is_some_and(|resource| resource.ends_with("Role"))
}

/// Whether it is one of those that outlive the stack.
pub(super) fn is_machine_role_of(stack: &str, role: &str) -> bool {
    resource(stack, role).is_some_and(|resource| resource.ends_with("MachineRole"))
}

fn resource<'a>(stack: &str, role: &'a str) -> Option<&'a str> {
    let (resource, rest) = role.strip_prefix(stack)?.strip_prefix('-')?.split_once('-')?;
    let made = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    (made && resource.starts_with(|c: char| c.is_ascii_uppercase())).then_some(resource)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use keywheel::AccessKeyId;
    use std::collections::BTreeSet;

    pub(crate) const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

    pub(crate) fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn policy(name: &str, document: &str) -> PolicyDetail {
        PolicyDetail::builder().policy_name(name).policy_document(document).build()
    }

    fn deny_name() -> String {
        sessions::policy_name(&KEY.parse::<AccessKeyId>().unwrap())
    }

    #[test]
    fn denies_of_ours_are_found_wherever_they_are_with_their_end() {
        let (cut_off, ends) = (at("2026-03-02T09:00:00Z"), Some(at("2026-03-03T21:00:00Z")));
        let arn = format!("arn:aws:iam::111122223333:policy/{}-1", deny_name());
        let version =
            PolicyVersion::builder().is_default_version(true).document(sessions::deny_before(cut_off));
        let managed = ManagedPolicyDetail::builder()
            .policy_name(format!("{}-1", deny_name()))
            .arn(&arn)
            .policy_version_list(version.build())
            .build();
        let user = UserDetail::builder()
            .user_name("svc-mail")
            .user_policy_list(policy(&deny_name(), &sessions::deny_before(cut_off)))
            .user_policy_list(policy("somebody-elses", "{}"))
            .user_policy_list(policy(&format!("keywheel-stop-gap-{KEY}-x"), &sessions::deny_all()))
            .attached_managed_policies(AttachedPolicy::builder().policy_arn(&arn).build())
            .build();
        let names = BTreeSet::from(["thief".to_owned()]);
        let role = RoleDetail::builder()
            .role_name("deploy")
            .role_policy_list(policy(&deny_name(), &sessions::deny_role_sessions(cut_off, &names)))
            .build();
        let all = Holdings::of(&[user], std::slice::from_ref(&role), std::slice::from_ref(&managed));
        let told: Vec<(String, Option<Timestamp>)> =
            all.denies.iter().map(|deny| (deny.words(), deny.until)).collect();
        let expected = [
            (format!("policy {} on user svc-mail", deny_name()), ends),
            (format!("policy keywheel-stop-gap-{KEY}-x on user svc-mail"), None),
            (format!("policy {}-1 on user svc-mail", deny_name()), ends),
            (format!("policy {} on role deploy", deny_name()), ends),
        ];
        assert_eq!(told, expected);
        assert_eq!(all.roles, ["deploy"]);
        // Detached, and not yet deleted.
        let all = Holdings::of(&[], &[role], &[managed]);
        assert_eq!(all.denies[1].words(), format!("policy {}-1, attached to nobody", deny_name()));
    }

    #[test]
    fn a_deny_is_over_when_its_last_session_is_and_never_when_it_does_not_say() {
        let deny = |until| Deny { on: On::Nobody, name: String::new(), arn: None, until };
        let now = at("2026-03-03T21:00:00Z");
        assert!(deny(Some(at("2026-03-03T20:59:59Z"))).is_over(now));
        assert!(!deny(Some(now)).is_over(now));
        assert!(!deny(None).is_over(now));
        // One that somebody has rewritten under our name.
        let theirs = r#"{"Statement": [{"Sid": "Mine", "Effect": "Deny", "Action": "*", "Resource": "*"}]}"#;
        let on = On::User("svc-mail".into());
        assert_eq!(inline_of(on, &policy(&deny_name(), theirs)).unwrap().until, None);
    }

    #[test]
    fn a_user_is_ours_by_its_tag() {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().unwrap();
        let user = UserDetail::builder().user_name("svc-mail").tags(tag("team", "mail"));
        assert_eq!(Holdings::of(&[user.clone().build()], &[], &[]).users, []);
        let user = user.tags(tag("keywheel:secret", "arn")).tags(tag("keywheel:keep", KEY)).build();
        let expected = Tagged {
            user: "svc-mail".into(),
            secret: "arn".into(),
            tags: vec!["keywheel:secret".into(), "keywheel:keep".into()],
        };
        assert_eq!(Holdings::of(&[user], &[], &[]).users, [expected]);
    }

    #[test]
    fn roles_of_another_stage_are_not_ours() {
        let machine = "keywheel-prod-RotationMachineRole-1A2B3C4D5E6F";
        assert!(is_role_of("keywheel-prod", machine) && is_machine_role_of("keywheel-prod", machine));
        let look = "keywheel-prod-LookRole-1A2B3C4D5E6F";
        assert!(is_role_of("keywheel-prod", look) && !is_machine_role_of("keywheel-prod", look));
        for other in [
            "keywheel-prod-eu-RotationMachineRole-1A2B3C4D5E6F",
            "keywheel-production-RotationMachineRole-1A2B3C4D5E6F",
            "keywheel-prod-member",
            "keywheel-prod-RotationMachineRole-",
            "keywheel-prod",
            "AdministratorRole",
        ] {
            assert!(!is_role_of("keywheel-prod", other), "{other}");
        }
    }
}

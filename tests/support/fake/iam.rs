//! IAM and STS: users, at most two keys each unless calls race, and consistency that comes late.

use std::time::Duration;

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use serde_json::Value;

use super::account::{Key, Maker, User};
use super::state::State;
use super::wire::{Answer, Body, Request, refuse_with, tag};
use crate::functions;

/// IAM notes one use per span of this length, the first one.
const SPAN: i64 = 15 * 60;

fn gone<T>(what: &str, name: &str) -> Result<T, super::Refusal> {
    refuse_with(404, "NoSuchEntity", format!("The {what} with name {name} cannot be found."))
}

fn members(items: impl Iterator<Item = String>) -> String {
    items.fold(String::new(), |list, item| list + "<member>" + &item + "</member>")
}

/// A time as IAM writes it: to the second.
pub(super) fn second(at: Timestamp) -> Timestamp {
    at.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc)).unwrap()
}

impl State {
    /// Users of other accounts are kept under their account's name.
    pub(super) fn iam_of_the_callers_account(&mut self, request: &Request) -> Answer {
        if self.account_of_signer(&request.signer).is_none() {
            return self.iam(request);
        }
        let mut theirs = request.clone();
        if let Some(user) = theirs.params.get_mut("UserName") {
            *user = self.kept_as(request).into();
        }
        self.iam(&theirs)
    }

    fn iam(&mut self, request: &Request) -> Answer {
        let user = request.text("UserName");
        if !user.is_empty() && !self.users.contains_key(user) {
            return gone("user", user);
        }
        if matches!(request.action.as_str(), "CreateAccessKey" | "UpdateAccessKey" | "DeleteAccessKey")
            && self.role_of(&request.signer).is_some()
            && !self.may_write(request, user)
        {
            // The roles' policies allow writes on managed users only; whoever leaks a key need not be one.
            return super::denied(request);
        }
        if Self::is_about_policies(&request.action) {
            if self.role_of(&request.signer).is_some() && !self.is_role(request, "deny-sessions") {
                return super::denied(request);
            }
            return self.policies(request);
        }
        match request.action.as_str() {
            "GetUser" => Ok(Body::Xml(self.user_xml(&self.users[user]))),
            "ListAccessKeys" => Ok(self.list(request)),
            "CreateAccessKey" => self.create(request),
            "UpdateAccessKey" => self.update(request),
            "DeleteAccessKey" => self.delete(request),
            "GetAccessKeyLastUsed" => self.last_used(request),
            "TagUser" => Ok(self.tag_user(request)),
            "ListUsers" => Ok(self.list_users(request)),
            "GenerateCredentialReport" => self.generate_report(request),
            "GetAccountSummary" => Ok(Self::account_summary()),
            "GetCredentialReport" => self.get_report(request),
            _ => self.unknown(request),
        }
    }

    /// Whether the role's policy lets it change a key of the user.
    fn may_write(&self, request: &Request, user: &str) -> bool {
        let tags = &self.users[user].tags;
        let unused = [("disable-unused", "UpdateAccessKey"), ("delete-unused", "DeleteAccessKey")];
        if let Some((_, action)) = unused.into_iter().find(|(function, _)| self.is_role(request, function)) {
            return request.action == action
                && tags.get("keywheel:unused").is_some_and(|tag| tag == "remove");
        }
        tags.contains_key("keywheel:secret")
            || self.is_role(request, "contain") && request.action == "UpdateAccessKey"
    }

    pub(super) fn sts(&mut self, request: &Request) -> Answer {
        match request.action.as_str() {
            "GetCallerIdentity" => {}
            "GetAccessKeyInfo" => return self.key_info(request),
            "AssumeRole" => return self.assume_role(request),
            _ => return self.unknown(request),
        }
        let signer = request.signer.clone();
        let (arn, id) = if let Some(role) = self.role_of(&signer) {
            let session = role.arn.replacen(":iam:", ":sts:", 1).replacen(":role/", ":assumed-role/", 1);
            (format!("{session}/session"), "AROAFAKE:session".to_owned())
        } else {
            let Some((user, _)) = self.key(&signer) else { return gone("key", &signer) };
            (self.user_arn(user), user.id.clone())
        };
        if self.role_of(&signer).is_none() {
            self.key_mut(&signer).validated = true;
        }
        let account = arn.split(':').nth(4).unwrap_or_default().to_owned();
        Ok(Body::Xml([tag("Arn", arn), tag("UserId", id), tag("Account", account)].concat()))
    }

    /// A session in another account, for the functions that it lets in.
    fn assume_role(&mut self, request: &Request) -> Answer {
        let arn = request.text("RoleArn").to_owned();
        let refused = || {
            refuse_with(403, "AccessDenied", format!("not authorized to perform: sts:AssumeRole on {arn}"))
        };
        let account = arn.split(':').nth(4).unwrap_or_default();
        let name = arn.rsplit_once('/').map_or("", |(_, name)| name);
        let callers: &[&str] = match name {
            _ if name == functions::role(functions::MEMBER) => &["contain", "deny-sessions"],
            _ if name == functions::role(functions::MEMBER_READS) => {
                &["investigate", "scan", "review", "watch"]
            }
            _ if name == functions::role(functions::MEMBER_ROTATES) => &functions::ROTATING,
            _ => &[],
        };
        let lets_in = self.open.contains(account)
            && callers.iter().any(|function| self.is_role(request, function))
            && self.external_id.as_deref() == Some(request.text("ExternalId"));
        if !lets_in {
            return refused();
        }
        let role = self.member_role(account, name);
        let fields = [
            tag("AccessKeyId", role.key),
            tag("SecretAccessKey", role.secret),
            tag("SessionToken", role.token),
            tag("Expiration", second(self.now() + SignedDuration::from_mins(15))),
        ];
        Ok(Body::Xml(format!("<Credentials>{}</Credentials>", fields.concat())))
    }

    /// Whether the caller is the role of that function, or the one that stands for it in another account.
    pub(super) fn is_role(&self, request: &Request, function: &str) -> bool {
        let is = |name: &str| {
            let end = format!("/{}", functions::role(name));
            self.role_of(&request.signer).is_some_and(|role| role.arn.ends_with(&end))
        };
        is(function) || is(functions::MEMBER) && ["contain", "deny-sessions"].contains(&function)
    }

    /// The account of any key, also one that was deleted or is somebody else's.
    fn key_info(&self, request: &Request) -> Answer {
        let id = request.text("AccessKeyId");
        let of_user = || self.key(id).map(|(user, _)| user.account.as_ref().unwrap_or(&self.account));
        let account = self.foreign.get(id).or_else(of_user);
        match account {
            Some(account) => Ok(Body::Xml(tag("Account", account))),
            None => super::refuse("ValidationError", format!("Invalid access key id: {id}")),
        }
    }

    /// A user's ARN, its path included.
    pub fn user_arn(&self, user: &User) -> String {
        let account = user.account.as_ref().unwrap_or(&self.account);
        format!("arn:{}:iam::{account}:user{}{}", self.partition, user.path, user.name)
    }

    fn user_xml(&self, user: &User) -> String {
        let tags =
            members(user.tags.iter().map(|(name, value)| [tag("Key", name), tag("Value", value)].concat()));
        format!(
            "<User>{}{}{}{}{}<Tags>{tags}</Tags></User>",
            tag("Path", &user.path),
            tag("UserName", &user.name),
            tag("UserId", &user.id),
            tag("Arn", self.user_arn(user)),
            tag("CreateDate", "2024-02-03T04:05:06Z"),
        )
    }

    fn list(&self, request: &Request) -> Body {
        let user = &self.users[request.text("UserName")];
        let seen_at = self.ago(self.options.list_lag);
        let keys: Vec<&Key> = user.keys.iter().filter(|key| key.exists_at(seen_at)).collect();
        let from: usize = request.text("Marker").parse().unwrap_or(0);
        let to = (from + self.options.page).min(keys.len());
        let rows = members(keys[from.min(to)..to].iter().map(|key| {
            let status = if key.active_at(seen_at) { "Active" } else { "Inactive" };
            let (user, id) = (tag("UserName", &user.name), tag("AccessKeyId", &key.id));
            [user, id, tag("Status", status), tag("CreateDate", key.created)].concat()
        }));
        let more = to < keys.len();
        let marker = if more { tag("Marker", to) } else { String::new() };
        Body::Xml(format!(
            "<AccessKeyMetadata>{rows}</AccessKeyMetadata>{}{marker}",
            tag("IsTruncated", more)
        ))
    }

    fn create(&mut self, request: &Request) -> Answer {
        let user = request.text("UserName").to_owned();
        let count = self.users[&user].keys.iter().filter(|key| key.exists()).count();
        if count >= 2 && !self.options.limit_races {
            return refuse_with(409, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2");
        }
        let maker = request.run.map_or(Maker::Stranger, Maker::Run);
        let id = self.add_key(&user, maker);
        let key = self.key_mut(&id);
        let name = request.text("UserName").rsplit('/').next().unwrap_or_default();
        let row = [
            tag("UserName", name),
            tag("AccessKeyId", &key.id),
            tag("Status", "Active"),
            tag("SecretAccessKey", &key.secret),
            tag("CreateDate", key.created),
        ];
        Ok(Body::Xml(format!("<AccessKey>{}</AccessKey>", row.concat())))
    }

    /// Gives a user a new, Active key and tells its id.
    pub fn add_key(&mut self, user: &str, maker: Maker) -> String {
        let (id, secret, now) = (self.next_key_id("AKIA"), self.new_secret(), self.now());
        self.users.get_mut(user).unwrap().keys.push(Key {
            id: id.clone(),
            secret,
            maker,
            created: second(now),
            changes: vec![(now, true)],
            deleted: None,
            uses: Vec::new(),
            validated: false,
            was_current: false,
        });
        id
    }

    fn owns(&self, request: &Request) -> bool {
        let (user, id) = (request.text("UserName"), request.text("AccessKeyId"));
        self.users[user].keys.iter().any(|key| key.id == id && key.exists())
    }

    fn update(&mut self, request: &Request) -> Answer {
        let id = request.text("AccessKeyId");
        if !self.owns(request) {
            return gone("Access Key", id);
        }
        let now = self.now();
        self.key_mut(id).changes.push((now, request.text("Status") == "Active"));
        Ok(Body::Xml(String::new()))
    }

    fn delete(&mut self, request: &Request) -> Answer {
        let id = request.text("AccessKeyId");
        if !self.owns(request) {
            return gone("Access Key", id);
        }
        let now = self.now();
        self.key_mut(id).deleted = Some(now);
        Ok(Body::Xml(String::new()))
    }

    fn last_used(&self, request: &Request) -> Answer {
        let id = request.text("AccessKeyId");
        let here = self.account_of_signer(&request.signer);
        let seen = self.key(id).filter(|(user, key)| key.exists() && user.account.as_deref() == here);
        let Some((user, key)) = seen else {
            return gone("Access Key", id);
        };
        let seen_until = self.ago(self.options.last_used_lag);
        let seen = recorded(key).filter(|(at, _)| *at <= seen_until).max_by_key(|(at, _)| *at);
        let (date, service, region) = match seen {
            Some((at, service)) => (tag("LastUsedDate", second(at)), service, self.region.clone()),
            None => (String::new(), "N/A", "N/A".to_owned()),
        };
        Ok(Body::Xml(format!(
            "{}<AccessKeyLastUsed>{date}{}{}</AccessKeyLastUsed>",
            tag("UserName", &user.name),
            tag("ServiceName", service),
            tag("Region", region)
        )))
    }

    fn tag_user(&mut self, request: &Request) -> Body {
        let user = self.users.get_mut(request.text("UserName")).unwrap();
        for number in 1.. {
            let field = |name: &str| {
                request.params.get(format!("Tags.member.{number}.{name}")).and_then(Value::as_str)
            };
            let (Some(name), Some(value)) = (field("Key"), field("Value")) else { break };
            user.tags.insert(name.to_owned(), value.to_owned());
        }
        Body::Xml(String::new())
    }

    /// Uses a key, now or at a time to come.
    pub fn use_key(&mut self, id: &str, service: &'static str, at: Timestamp) {
        self.key_mut(id).uses.push(super::Use { at, service });
    }

    /// Uses a key again and again, from now on for `long`.
    pub fn keep_using(&mut self, id: &str, service: &'static str, every: Duration, long: Duration) {
        let (mut at, end) = (self.now(), self.now() + SignedDuration::try_from(long).unwrap());
        while at < end {
            self.use_key(id, service, at);
            at += SignedDuration::try_from(every).unwrap();
        }
    }
}

/// The uses that IAM notes: of each span the first. A key that is Inactive is refused, and that is no use.
pub(super) fn recorded(key: &Key) -> impl Iterator<Item = (Timestamp, &'static str)> {
    let mut uses: Vec<_> = key.uses.iter().filter(|once| key.active_at(once.at)).collect();
    uses.sort_by_key(|once| once.at);
    let mut span = None;
    uses.into_iter().filter_map(move |once| {
        let this = once.at.as_second() / SPAN;
        let first = span.replace(this) != Some(this);
        first.then_some((once.at, once.service))
    })
}

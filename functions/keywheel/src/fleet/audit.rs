//! Every key of an account, one by one: what is known of it, and what Keywheel makes of it.
//!
//! The plan ([`crate::decide::due`]) speaks of users and is silent where nothing is to be said. An audit names each key,
//! also those that nobody manages, and takes the plan's word for what would be done.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::estate::{Blind, Estate, Row, Slot, Tagged, Used};
use super::plan::{Action, Line, Plan};
use super::terraform;
use crate::ids::{AccessKeyId, SecretArn};
use crate::key::LastUse;

/// What a user's own tags say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// All of them.
    pub all: BTreeMap<String, String>,
    /// The secret that one of them names.
    pub secret: Option<String>,
}

/// Whether Keywheel manages a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Managed {
    /// User and secret name each other.
    Yes,
    /// One of them names the other, or several do: no run touches the user.
    Half,
    /// Neither does.
    No,
    /// What would tell could not be read.
    Unknown,
}

/// What Keywheel would do about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// Rotate it, or take it out of service where its owner wants it retired.
    Rotate,
    /// Leave it alone.
    Leave,
}

/// Something about a key that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What, in one word for programs.
    pub code: &'static str,
    /// What, in a sentence.
    pub why: String,
}

/// How much a key wants somebody's eye, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// Active and past its age, and no run will touch it.
    Abandoned,
    /// Of a managed user: due, or something stands in a run's way.
    AtHand,
    /// Something was found about it.
    Odd,
    /// Nothing is to be said.
    Well,
    /// IAM refuses it.
    Inactive,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its account.
    pub account: String,
    /// Its user.
    pub user: String,
    /// The user's path.
    pub path: String,
    /// Its id; `None` where the user's keys could not be listed.
    pub key_id: Option<AccessKeyId>,
    /// Whether IAM accepts it.
    pub active: bool,
    /// When it was made; of a key without an id, when it was switched last.
    pub created: Option<Timestamp>,
    /// Its age in whole days.
    pub age_days: Option<i64>,
    /// What IAM has recorded of its use; `None` where that is not known.
    pub last_use: Option<LastUse>,
    /// How many of the user's key slots are taken.
    pub slots: usize,
    /// Whether Keywheel manages the user.
    pub managed: Managed,
    /// The secret that names the user, or that the user names.
    pub secret: Option<String>,
    /// Who answers for it, where a policy or a tag says so.
    pub owner: Option<String>,
    /// Signs that Terraform made the user; none of them is proof.
    pub terraform: Vec<String>,
    /// What Keywheel would do.
    pub would: Would,
    /// Why, in one word for programs.
    pub code: &'static str,
    /// Why, in a sentence.
    pub why: String,
    /// What else there is to say.
    pub findings: Vec<Finding>,
}

impl Entry {
    /// Whether it has reached the age that its rule allows.
    pub fn is_over_age(&self) -> bool {
        let due = ["Due", "Retire", "Limit", "Frozen"].contains(&self.code);
        due || self.found(&["OverAge", "PerhapsUnmanaged"])
    }

    /// Whether it is Active and nobody has used it for as long as the policy says.
    pub fn is_unused(&self) -> bool {
        self.found(&["Unused"])
    }

    fn found(&self, codes: &[&str]) -> bool {
        self.findings.iter().any(|finding| codes.contains(&finding.code))
    }

    /// How much it wants somebody's eye.
    pub fn concern(&self) -> Concern {
        let quiet = ["NotDue", "Exempt", "NotManaged"].contains(&self.code) && self.findings.is_empty();
        if !self.active {
            Concern::Inactive
        } else if self.is_over_age() && self.managed != Managed::Yes {
            Concern::Abandoned
        } else if self.managed != Managed::No && !quiet {
            Concern::AtHand
        } else if quiet {
            Concern::Well
        } else {
            Concern::Odd
        }
    }
}

/// An account's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// The keys, those first that want somebody's eye most.
    pub entries: Vec<Entry>,
    /// What the plan says of no key that is here.
    pub others: Vec<Line>,
    /// What could not be read, in a sentence each.
    pub unread: Vec<String>,
}

/// Puts an account's keys together. `tags` holds the users whose tags could be read, `plan` is made of the same estate,
/// and `silent` says of which keys IAM did not tell the last use.
pub fn book(
    estate: &Estate,
    tags: &BTreeMap<String, Tags>,
    plan: &Plan,
    silent: &[String],
    now: Timestamp,
) -> Book {
    let mut lines: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
    for line in &plan.lines {
        lines.entry(&line.user).or_default().push(line);
    }
    let mut secrets: BTreeMap<&str, Vec<&Tagged>> = BTreeMap::new();
    for secret in estate.secrets.iter().filter(|secret| secret.replica_of.is_none()) {
        secrets.entry(&secret.user).or_default().push(secret);
    }
    let mut entries = Vec::new();
    for row in &estate.users {
        let (own, of_user) = (tags.get(&row.user), secrets.get(row.user.as_str()));
        let secrets = of_user.map(Vec::as_slice).unwrap_or_default();
        let subject = Subject { estate, row, tags: own, secrets, now };
        let lines = lines.get(row.user.as_str()).map(Vec::as_slice).unwrap_or_default();
        entries.extend(row.keys.iter().map(|slot| subject.entry(slot, lines)));
    }
    entries.sort_by(|a: &Entry, b: &Entry| {
        let age = |entry: &Entry| std::cmp::Reverse(entry.age_days.unwrap_or(i64::MAX));
        (a.concern(), age(a), &a.user, &a.key_id).cmp(&(b.concern(), age(b), &b.user, &b.key_id))
    });
    let named: BTreeSet<&str> = entries.iter().map(|entry| entry.user.as_str()).collect();
    let of_nobody = |line: &&Line| !named.contains(line.user.as_str()) && !line.is_ordinary();
    let others: Vec<Line> = plan.lines.iter().filter(of_nobody).cloned().collect();
    let unread = plan.lines.iter().filter(|line| line.is_unread()).map(|line| match line.user.as_str() {
        "" => line.why.clone(),
        user => format!("{user}: {}", line.why),
    });
    let unread = unread.chain(silent.iter().cloned()).collect();
    Book { entries, others, unread }
}

/// A user, with what is known of it.
struct Subject<'a> {
    estate: &'a Estate,
    row: &'a Row,
    tags: Option<&'a Tags>,
    secrets: &'a [&'a Tagged],
    now: Timestamp,
}

impl Subject<'_> {
    fn managed(&self) -> Managed {
        let own = self.tags.map(|tags| tags.secret.as_deref());
        match (self.secrets, own) {
            ([secret], Some(Some(own))) if secret.arn.as_str() == own => Managed::Yes,
            // Both must name the other: without a tag of its own no secret makes a user managed.
            ([], Some(None)) => Managed::No,
            ([], Some(Some(own))) if !self.was_asked(own) => Managed::Unknown,
            (_, None) => Managed::Unknown,
            (_, Some(_)) => Managed::Half,
        }
    }

    /// Whether the secrets of the region that an ARN is of were read.
    fn was_asked(&self, arn: &str) -> bool {
        let Ok(arn) = arn.parse::<SecretArn>() else { return true };
        let dark = |blind: &Blind| matches!(blind, Blind::Region { region, .. } if region == arn.region());
        self.estate.regions.iter().any(|region| region == arn.region()) && !self.estate.blind.iter().any(dark)
    }

    fn entry(&self, slot: &Slot, lines: &[&Line]) -> Entry {
        let managed = self.managed();
        let secret = self.secrets.first();
        let verdict = lines.iter().find(|line| line.action != Action::Find);
        let (would, code, why) = match verdict {
            // Where the tags disagree a run would be Blocked, whenever the key is due.
            Some(line) if managed != Managed::Half || !line.is_ordinary() => {
                let is_meant = line.key_id.is_none() || line.key_id == slot.id;
                let rotate = line.action == Action::Rotate && is_meant;
                (if rotate { Would::Rotate } else { Would::Leave }, line.code, line.why.clone())
            }
            _ => self.leave(managed),
        };
        let is_of_it =
            |line: &&&Line| line.action == Action::Find && (line.key_id.is_none() || line.key_id == slot.id);
        let finding = |line: &&Line| Finding { code: line.code, why: line.why.clone() };
        let own_secret = self.tags.and_then(|tags| tags.secret.clone());
        Entry {
            account: self.estate.account.clone(),
            user: self.row.user.clone(),
            path: self.row.path.clone(),
            key_id: slot.id.clone(),
            active: slot.active,
            created: slot.since,
            age_days: slot.since.map(|since| days(since, self.now)),
            last_use: last_use(slot),
            slots: self.row.keys.len(),
            managed,
            secret: secret.map(|secret| secret.arn.as_str().to_owned()).or(own_secret),
            owner: verdict.and_then(|line| line.owner.clone()).or_else(|| self.owner()),
            terraform: terraform::signs(
                &self.row.path,
                self.tags.map(|tags| &tags.all),
                secret.map(|secret| &secret.tags),
            ),
            would,
            code,
            why,
            findings: lines.iter().filter(is_of_it).map(finding).collect(),
        }
    }

    /// Why Keywheel does nothing about a user for whom the plan has no word.
    fn leave(&self, managed: Managed) -> (Would, &'static str, String) {
        let regions = self.estate.regions.join(", ");
        let own = self.tags.and_then(|tags| tags.secret.as_deref());
        let (code, why) = match (managed, own) {
            (Managed::Unknown, Some(own)) => (
                "PerhapsUnmanaged",
                format!(
                    "Whether it is managed is not known: its tag names {own}, in a region that was not read ({regions} was)."
                ),
            ),
            (Managed::Unknown, None) => (
                "PerhapsUnmanaged",
                "Whether it is managed is not known: its tags could not be read.".to_owned(),
            ),
            (Managed::Half, own) => {
                let own = own.unwrap_or("no secret");
                let there: Vec<&str> = self.secrets.iter().map(|secret| secret.arn.as_str()).collect();
                let there = if there.is_empty() { "none".to_owned() } else { there.join(" and ") };
                let why = format!(
                    "No run touches it: its tag names {own}, and of the secrets in {regions} {there} names it."
                );
                ("TagsDisagree", why)
            }
            (Managed::Yes | Managed::No, _) => (
                "NotManaged",
                format!(
                    "No run touches it: it is not managed. `keywheel enroll --user {} --secret <secret>` puts it under management.",
                    self.row.user
                ),
            ),
        };
        (Would::Leave, code, why)
    }

    /// Who answers for the user, by the tags that people use for it.
    fn owner(&self) -> Option<String> {
        let secret = self.secrets.first().map(|secret| &secret.tags);
        let all = self.tags.map(|tags| &tags.all).into_iter().chain(secret);
        let tags: Vec<(&String, &String)> = all.flatten().collect();
        ["keywheel:owner", "owner", "contact", "team"].iter().find_map(|wanted| {
            let (_, value) = tags.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
            Some((*value).clone()).filter(|value| !value.trim().is_empty())
        })
    }
}

fn days(since: Timestamp, now: Timestamp) -> i64 {
    // A time to come is one of a clock that is ahead.
    now.duration_since(since).max(SignedDuration::ZERO).as_hours() / 24
}

fn last_use(slot: &Slot) -> Option<LastUse> {
    let at = match slot.used {
        Used::At(at) => Some(at),
        Used::Never => None,
        Used::Unknown => return None,
    };
    Some(LastUse { at, service: slot.service.clone(), region: slot.region.clone() })
}

#[cfg(test)]
mod tests;

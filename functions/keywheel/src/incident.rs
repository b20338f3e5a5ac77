//! The documents of an emergency: what an event was taken for ([`Alert`]), one credential that is known to others,
//! from the finding to its end ([`Incident`]), and what is kept of its key ([`Record`]).
//!
//! Like the rotation's document they name things and never hold what P4 forbids, and a document of an earlier
//! release is still read. What is empty is not written: an event may name a thousand credentials, and all of them
//! must fit into one state.

mod alert;
pub mod findings;
mod notices;
mod page;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use alert::{Alarm, Alert, Course};
pub use findings::Findings;
pub use page::page;
pub use record::{Record, RecordState};

use crate::clock::{after, wait_time};
use crate::error::StepError;
use crate::ids::{AccessKeyId, RunId, UserName};
use crate::notice::{Notice, NoticeKind};
use crate::rotation::{Caught, Delivery, Outcome, Why};
use crate::switch::Containment;
use crate::triage::{Source, Target};

/// The version of the documents that this release writes.
pub const SCHEMA: u32 = 1;

/// From the moment in which a key is read back Inactive, how long it may still have minted sessions: IAM forgets a
/// key 3 to 4 s late, and clocks differ.
pub const SETTLES: Duration = Duration::from_mins(1);
/// The longest that a session of a user's key can live: `GetSessionToken` and `GetFederationToken` allow 36 hours.
pub const LONGEST_SESSION: Duration = Duration::from_hours(36);
/// How long a leaked key is kept as evidence, from the moment in which it was contained.
pub const EVIDENCE: Duration = Duration::from_hours(30 * 24);
/// How long after containment the key and its siblings are looked at again. The machine waits so long; the
/// document says it so that a step can tell how late it is.
pub const LOOKS_AGAIN: [Duration; 2] = [Duration::from_secs(15), Duration::from_mins(5)];

/// The steps that run beside each other, in the machine's order: after containment, and after the first look.
const BESIDE: [[&str; 2]; 2] = [["notify", "replace"], ["investigate", "wait"]];

/// What an incident does next. The machine's choices read it by these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Find the owner and make the key Inactive.
    Contain,
    /// The policy gives people some minutes; then contain.
    Delayed,
    /// The policy gives the replacement some minutes; then contain, replaced or not.
    ReplaceFirst,
    /// Deny the sessions that the key has minted.
    Deny,
    /// Look again at the key and at those that appeared meanwhile.
    Look,
    /// A key appeared that a run of ours may be storing just now: look again in half a minute.
    LookSoon,
    /// The longest session has ended: take the deny off.
    Lift,
    /// Nothing more is done.
    Ended,
}

/// How the sessions are denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deny {
    /// The policy's name.
    pub policy: String,
    /// The managed policy's ARN, where the user's inline policies are full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Sessions issued before are denied.
    pub cut_off: Timestamp,
    /// When it is taken off.
    pub until: Timestamp,
}

/// How an application gets a working key again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The user is not managed, or the leaked key is not the one that its secret names: nothing to replace.
    NotNeeded,
    /// The superseded key is brought back.
    Back,
    /// A new key is made.
    New,
    /// A rotation that is at work already brings a new key.
    UnderWay,
    /// Only a person can: `help` says how.
    Person,
}

/// What was done for the application, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// How.
    pub way: Way,
    /// The rotation that does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The secret, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whether AWSCURRENT names a key that works.
    pub working: bool,
    /// What was found, and the exact command where a person is needed.
    pub help: String,
}

/// How a role denies the sessions that were assumed with the leaked key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleDeny {
    /// The role's name.
    pub role: String,
    /// The name of the inline policy.
    pub policy: String,
    /// The names of the sessions.
    pub sessions: BTreeSet<String>,
    /// Sessions issued before this are denied.
    pub cut_off: Timestamp,
    /// Why it is not so, where IAM refused, or why nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Whether it is worth another try.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// The keys that are Keywheel's own business: those that the versions of the user's secret name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ours {
    /// Whether the user is managed at all.
    pub managed: bool,
    /// The keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<AccessKeyId>,
}

/// One credential that is known to others.
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// The version of this document.
    pub schema: u32,
    /// The execution's name, which is in every call's User-Agent.
    pub id: RunId,
    /// The execution's ARN.
    pub execution: String,
    /// When the event arrived.
    pub started: Timestamp,
    /// When its source has said it, where the event tells: what the time to contain is counted from, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Timestamp>,
    /// What the event says.
    pub target: Target,
    /// Why, in triage's words.
    pub reason: String,
    /// Whether a sender of ours reported it over the bus: such reports are braked, AWS's findings and what a person
    /// types never are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reported: bool,
    /// How many credentials that report names, this one among them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beside: u32,
    /// What comes next.
    pub phase: Phase,
    /// When the next Wait ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until: Option<Timestamp>,
    /// The switch, as it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containment: Option<Containment>,
    /// Until when the policy lets people or the replacement come first. Set once; then it ends in containment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Timestamp>,
    /// The account that was entered for it, where it is not the installation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The key's owner, as IAM tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// The keys that are known to others: the one of the event, and those found to be part of the leak.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<AccessKeyId>,
    /// The keys that were there when the event arrived, and those that people were told of; another one appeared
    /// meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<AccessKeyId>,
    /// When every key so far was read back Inactive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_at: Option<Timestamp>,
    /// How often containment has failed for good and was begun anew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// Whether the user may be denied everything until the key is Inactive: it was asked for, whatever the answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop_gap: bool,
    /// Whether IAM has said that it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub denied: bool,
    /// How the sessions are denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<Deny>,
    /// Whether the policy has roles deny the sessions that were assumed with the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deny_roles: bool,
    /// Whether there are such sessions that no role denies yet. The machine asks for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub roles_open: bool,
    /// How roles deny them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleDeny>,
    /// How often the key was looked at again. Always written: the machine counts by it.
    #[serde(default)]
    pub looks: u32,
    /// The keys that the user's secret names, where that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours: Option<Ours>,
    /// Keys that appeared meanwhile and were seen once, when a run of ours might have been storing them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<AccessKeyId>,
    /// How the application gets a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
    /// What the key did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Findings>,
    /// What failed on the way, by step. Containment never waits for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// How the incident ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    /// The outbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// How far the outbox is.
    #[serde(default)]
    pub delivery: Delivery,
    /// The error that the machine caught last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Caught>,
    /// What the branches that ran beside each other returned, until the next step takes it in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<Incident>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl Incident {
    /// The incident of one credential of an event. Its execution's name follows from the event's execution and the
    /// credential, so that a start that is repeated starts it once.
    pub fn open(alert: &Alert, target: Target, reason: String) -> Self {
        let who = target.key_id.as_ref().map(AccessKeyId::as_str);
        let who = who.or(target.user.as_ref().map(UserName::as_str)).unwrap_or_default();
        // EventBridge gives every event an id; what is started by hand has none.
        let reported = target.source == Source::Keywheel && alert.event.is_some();
        let name = format!("{}/{:?}/{who}", alert.execution, target.kind);
        let id = if reported { RunId::of_report(&name) } else { RunId::standing_for(&name) };
        Self {
            schema: SCHEMA,
            id,
            execution: sibling(&alert.execution, id),
            started: alert.started,
            said: alert.said,
            reported,
            beside: 0,
            keys: Vec::new(),
            target,
            reason,
            phase: Phase::Contain,
            wait_until: None,
            containment: None,
            bound: None,
            account: None,
            user: None,
            known: Vec::new(),
            contained_at: None,
            tries: 0,
            stop_gap: false,
            denied: false,
            deny: None,
            deny_roles: false,
            roles_open: false,
            roles: Vec::new(),
            looks: 0,
            ours: None,
            suspects: Vec::new(),
            replacement: None,
            findings: None,
            failed: Vec::new(),
            outcome: None,
            why: None,
            notices: Vec::new(),
            delivery: Delivery::Pending,
            error: None,
            branches: Vec::new(),
        }
    }

    /// The account of the installation, which is where the execution runs.
    pub fn own_account(&self) -> &str {
        account(&self.execution)
    }

    /// The partition of the installation, and so of every account that it reaches.
    pub fn partition(&self) -> &str {
        self.execution.split(':').nth(1).unwrap_or_default()
    }

    /// The account that the credential belongs to, as far as it is known.
    pub fn its_account(&self) -> &str {
        self.account.as_deref().unwrap_or_else(|| self.own_account())
    }

    /// The credential, for people: the key's id, else the user's name.
    pub fn credential(&self) -> &str {
        let user = self.user.as_ref().or(self.target.user.as_ref()).map(UserName::as_str);
        self.target.key_id.as_ref().map(AccessKeyId::as_str).or(user).unwrap_or("(unnamed)")
    }

    /// The user's name for messages.
    pub fn user_name(&self) -> &str {
        self.user.as_ref().or(self.target.user.as_ref()).map_or("(unknown)", UserName::as_str)
    }

    /// The owner that IAM named.
    pub fn owner(&self) -> Result<&UserName, StepError> {
        self.user.as_ref().ok_or_else(|| StepError::BadInput("the incident has no user".into()))
    }

    /// The instant before which every session of the user is taken for leaked.
    pub fn cut_off(&self) -> Option<Timestamp> {
        self.contained_at.map(|at| wait_time(after(at, SETTLES)))
    }

    /// Whether the key is a user's own and long-lived, so that Inactive is what ends it.
    pub fn has_key(&self) -> bool {
        self.target.key_id.as_ref().is_some_and(|key| !key.is_temporary())
    }

    /// The sessions of this account's roles that the key has assumed, that may live, and that no role denies yet: by
    /// the role's name. What was cut for people, or belongs to another account, cannot be denied here.
    pub fn undenied_roles(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut roles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let Some(findings) = self.findings.as_ref().filter(|_| self.deny_roles) else { return roles };
        let here = format!("arn:{}:iam::{}:role/", self.partition(), self.its_account());
        let is_name = |text: &str| {
            !text.is_empty()
                && text.len() <= 64
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte))
        };
        for session in &findings.roles.list {
            let Some(path) = session.who.strip_prefix(&here) else { continue };
            let role = path.rsplit('/').next().unwrap_or_default();
            let denied = self
                .roles
                .iter()
                .any(|deny| deny.role == role && !deny.again && deny.sessions.contains(&session.name));
            let ended = session.until.is_some_and(|until| until < findings.at);
            if is_name(role) && is_name(&session.name) && !denied && !ended {
                roles.entry(role.to_owned()).or_default().insert(session.name.clone());
            }
        }
        roles
    }

    /// Whether the brake has its say: once, before anything is begun. Whoever holds the key could pull it later.
    pub fn is_braked_yet(&self) -> bool {
        self.reported && self.bound.is_none() && !self.stop_gap
    }

    /// Whether a stop-gap may lie on the user. Where a step died on the way to it, nothing but the failure tells.
    pub fn may_be_stopped(&self) -> bool {
        self.stop_gap
            || self.tries > 0
            || self
                .failed
                .iter()
                .any(|note| ["contain:", "stop-gap:"].iter().any(|step| note.starts_with(step)))
    }

    /// Ends the incident with its outcome, and puts the last notice into the outbox.
    pub fn end(&mut self, at: Timestamp, outcome: Outcome, why: Why) {
        self.phase = Phase::Ended;
        self.wait_until = None;
        self.outcome = Some(outcome);
        self.why = Some(why);
        self.announce(at, NoticeKind::Ended);
    }

    /// Notes a step that failed, once.
    pub fn note_failure(&mut self, step: &str, what: &str) {
        let note = format!("{step}: {}", what.chars().take(300).collect::<String>());
        if self.failed.len() < 20 && !self.failed.contains(&note) {
            self.failed.push(note);
        }
    }

    /// Takes in what the branches returned: each has filled in its own part of the same document.
    pub fn merge(&mut self) {
        let steps = BESIDE[usize::from(self.looks > 0)];
        for (branch, step) in std::mem::take(&mut self.branches).into_iter().zip(steps) {
            if let Some(error) = branch.error.filter(|error| Some(error) != self.error.as_ref()) {
                self.note_failure(step, &format!("{}: {}", error.error, error.message()));
            }
            if branch.replacement.is_some() && branch.replacement != self.replacement {
                self.replacement = branch.replacement;
            }
            if branch.ours.is_some() {
                self.ours = branch.ours;
            }
            if branch.findings.is_some() && branch.findings != self.findings {
                self.findings = branch.findings;
            }
            for note in branch.failed {
                if !self.failed.contains(&note) {
                    self.failed.push(note);
                }
            }
            for notice in branch.notices {
                match self.notices.iter_mut().find(|known| known.id == notice.id) {
                    Some(known) => {
                        known.on_bus |= notice.on_bus;
                        known.on_topic |= notice.on_topic;
                    }
                    None => self.notices.push(notice),
                }
            }
        }
        if !self.notices.iter().all(Notice::is_sent) {
            self.delivery = Delivery::Pending;
        }
        self.roles_open = !self.undenied_roles().is_empty();
    }

    /// Notes the error that the machine has caught, so that the incident says what failed.
    pub fn take_error(&mut self, step: &str) {
        if let Some(error) = self.error.take() {
            self.note_failure(step, &format!("{}: {}", error.error, error.message()));
        }
    }
}

/// The account in an ARN.
fn account(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}

/// The ARN of an execution of the incident machine, beside one of the emergency machine.
fn sibling(emergency: &str, id: RunId) -> String {
    let machine = emergency.rsplit_once(':').map_or(emergency, |(machine, _)| machine);
    let machine = machine.strip_suffix("-emergency").unwrap_or(machine);
    format!("{machine}-incident:{id}")
}

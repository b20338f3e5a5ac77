//! What an account is made of: users, keys, secrets, executions, records, and the calls that were made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use keywheel::RunId;
use serde_json::Value;

use crate::faults::Kind;

/// Who made a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// The user's owner: it was in the secret before Keywheel came.
    Owner,
    /// Somebody else; Keywheel may not touch it.
    Stranger,
    /// A run of Keywheel.
    Run(RunId),
}

/// One use of a key, past or to come.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// When.
    pub at: Timestamp,
    /// The service called.
    pub service: &'static str,
}

/// An access key. A deleted one stays here, as a memory.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// Who made it.
    pub maker: Maker,
    /// When, to the second as IAM keeps it.
    pub created: Timestamp,
    /// Every change of its status: whether it became Active.
    pub changes: Vec<(Timestamp, bool)>,
    /// When it was deleted.
    pub deleted: Option<Timestamp>,
    /// Its uses, past and to come.
    pub uses: Vec<Use>,
    /// Whether STS has answered to it.
    pub validated: bool,
    /// Whether AWSCURRENT has ever named it.
    pub was_current: bool,
}

impl Key {
    /// Whether it exists, now or as of an earlier time.
    pub fn exists_at(&self, at: Timestamp) -> bool {
        self.changes[0].0 <= at && self.deleted.is_none_or(|deleted| deleted > at)
    }
    /// Whether it is or was Active at that time.
    pub fn active_at(&self, at: Timestamp) -> bool {
        self.exists_at(at)
            && self.changes.iter().rev().find(|(when, _)| *when <= at).is_some_and(|(_, active)| *active)
    }
    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.deleted.is_none()
    }
    /// Whether it exists and IAM calls it Active.
    pub fn is_active(&self) -> bool {
        self.exists() && self.changes.last().is_some_and(|(_, active)| *active)
    }
    /// Since when it is as it is.
    pub fn changed(&self) -> Timestamp {
        self.changes.last().unwrap().0
    }
    /// Since when it is Inactive, however often somebody made it so.
    pub fn off_since(&self) -> Option<Timestamp> {
        self.changes.iter().rev().take_while(|(_, active)| !active).last().map(|(at, _)| *at)
    }
}

/// An IAM user.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its account, where it is another one than the hub's.
    pub account: Option<String>,
    /// Its path, such as `/apps/`.
    pub path: String,
    /// Its unique id.
    pub id: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its keys, the deleted ones included.
    pub keys: Vec<Key>,
    /// Its inline policies by name.
    pub inline: BTreeMap<String, String>,
    /// The ARNs of the managed policies that are attached to it.
    pub attached: BTreeSet<String>,
}

/// A version of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: String,
    /// Its text; `None` where it is binary.
    pub text: Option<String>,
    /// Its labels.
    pub stages: BTreeSet<String>,
    /// When it was written.
    pub created: Timestamp,
}

/// A secret.
#[derive(Debug, Clone)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its versions, the oldest first.
    pub versions: Vec<Version>,
    /// When its deletion was scheduled.
    pub deleted: Option<Timestamp>,
    /// The primary's region, where this is a replica.
    pub primary_region: Option<String>,
}

impl Secret {
    /// The version that carries `label`.
    pub fn labelled(&self, label: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.stages.contains(label))
    }
    /// The value that consumers read.
    pub fn current(&self) -> Option<Value> {
        serde_json::from_str(self.labelled("AWSCURRENT")?.text.as_deref()?).ok()
    }
    /// The id of the key that consumers use.
    pub fn current_key(&self) -> Option<String> {
        Some(self.current()?.get("AccessKeyId")?.as_str()?.to_owned())
    }
}

/// An execution of a machine.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Its ARN.
    pub arn: String,
    /// `RUNNING`, `SUCCEEDED`, `FAILED`, `ABORTED`.
    pub status: String,
    /// Its input.
    pub input: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub stopped: Option<Timestamp>,
    /// What it returned.
    pub output: Option<String>,
    /// The state that it has entered last, and what it was given.
    pub entered: Option<(String, Value)>,
}

/// A version of an object in the bucket.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its text.
    pub text: String,
    /// Its version.
    pub version: String,
}

/// How a task token was answered.
#[derive(Debug, Clone)]
pub struct TaskAnswer {
    /// `SendTaskSuccess` or `SendTaskFailure`.
    pub action: String,
    /// What came with it.
    pub body: Value,
}

/// A record of `CloudTrail`.
#[derive(Debug, Clone)]
pub struct TrailRecord {
    /// When the call was made.
    pub at: Timestamp,
    /// The event's name.
    pub name: String,
    /// The id of the key that signed.
    pub key: String,
    /// The account that has the record, where it is another one than the hub's.
    pub account: Option<String>,
    /// The record itself.
    pub record: Value,
}

/// A role that a Lambda runs with.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// The id of its session's key.
    pub key: String,
    /// The secret of its session's key.
    pub secret: String,
    /// Its session's token.
    pub token: String,
}

/// A call that was made.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its number.
    pub index: usize,
    /// `service:Action`.
    pub name: String,
    /// The run that its User-Agent names.
    pub run: Option<RunId>,
    /// The id of the key that signed it.
    pub signer: String,
    /// The host that it was sent to; empty where a machine itself made it.
    pub host: String,
    /// When it was made.
    pub at: Timestamp,
    /// Its parameters, without secrets.
    pub params: Value,
    /// The function that made it.
    pub function: Option<String>,
    /// The state that ran the function.
    pub state: Option<String>,
    /// The invocation that made it.
    pub invocation: Option<u64>,
    /// The fault that hit it.
    pub fault: Option<Kind>,
    /// The answer's status; 0 where there was none.
    pub status: u16,
    /// The answer's error code.
    pub code: Option<String>,
    /// Whether the answer is one page of more.
    pub truncated: bool,
}

/// How the fake behaves where AWS's behaviour varies.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a new key is not yet accepted.
    pub valid_after: Duration,
    /// How long a key that was made Inactive or deleted is still accepted.
    pub dies_after: Duration,
    /// How far `ListAccessKeys` lags behind.
    pub list_lag: Duration,
    /// How late a use shows in `GetAccessKeyLastUsed`.
    pub last_used_lag: Duration,
    /// How late CloudTrail shows a call.
    pub trail_delay: Duration,
    /// Whether the two-key limit is not enforced, as when calls race.
    pub limit_races: bool,
    /// Items a page, for every list.
    pub page: usize,
    /// Whether IAM makes no credential report, as it was asked too often.
    pub report_refused: bool,
    /// Whether the bus answers 200 with failed entries.
    pub bus_fails_entries: bool,
}

//! What the fake account holds: users, keys, secrets, executions, records, and what was ever called.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keywheel::{Clock, RunId};
use serde_json::Value;
use uuid::Uuid;

use super::wire::Request;
use super::{INVOCATION, Invocation};
use crate::faults::{Kind, Plan};
use crate::invariants::Watch;

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
#[derive(Debug, Clone)]
pub struct Use {
    /// When.
    pub at: Timestamp,
    /// The service called.
    pub service: String,
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
}

/// An IAM user.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its path, such as `/apps/`.
    pub path: String,
    /// Its unique id.
    pub id: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its keys, the deleted ones included.
    pub keys: Vec<Key>,
}

/// A version of a secret.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its id.
    pub id: String,
    /// Its text; `None` where it is binary.
    pub text: Option<String>,
    /// Its labels.
    pub stages: BTreeSet<String>,
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
    /// What it returned.
    pub output: Option<String>,
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
    /// When it was made.
    pub at: Timestamp,
    /// Its parameters, without secrets.
    pub params: Value,
    /// The function that made it.
    pub function: Option<String>,
    /// The invocation that made it.
    pub invocation: Option<u64>,
    /// The fault that hit it.
    pub fault: Option<Kind>,
    /// The answer's status; 0 where there was none.
    pub status: u16,
    /// The answer's error code.
    pub code: Option<String>,
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
    /// Whether the bus answers 200 with failed entries.
    pub bus_fails_entries: bool,
}

/// Everything the fake knows.
#[derive(Debug)]
pub struct State {
    /// The time.
    pub clock: Clock,
    /// The account's number.
    pub account: String,
    /// The partition.
    pub partition: String,
    /// The region.
    pub region: String,
    /// How it behaves.
    pub options: Options,
    /// Calls that are denied, as `service:Action`.
    pub denied: BTreeSet<String>,
    /// Users by name.
    pub users: BTreeMap<String, User>,
    /// Secrets.
    pub secrets: Vec<Secret>,
    /// Executions by ARN.
    pub executions: BTreeMap<String, Execution>,
    /// Open task tokens.
    pub tokens: BTreeSet<String>,
    /// Answered task tokens.
    pub answers: BTreeMap<String, Vec<TaskAnswer>>,
    /// Parameters of the parameter store.
    pub parameters: BTreeMap<String, String>,
    /// `CloudTrail`'s records.
    pub trail: Vec<TrailRecord>,
    /// What reached the event bus.
    pub bus: Vec<Value>,
    /// What reached the topic.
    pub topic: Vec<Value>,
    /// Every call.
    pub calls: Vec<Call>,
    /// Every secret there ever was, for the search.
    pub known_secrets: Vec<String>,
    /// Faults to come.
    pub plan: Plan,
    /// What the promises are held to.
    pub watch: Watch,
    /// Broken promises.
    pub violations: Vec<String>,
    roles: BTreeMap<String, Role>,
    made: u32,
}

/// Worlds get a region each: the SDK keeps one budget of retries per service and region for the whole process.
static WORLDS: AtomicU32 = AtomicU32::new(100);

impl State {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            account: "111122223333".into(),
            partition: "aws".into(),
            region: format!("eu-west-{}", WORLDS.fetch_add(1, Ordering::Relaxed)),
            options: Options {
                valid_after: Duration::ZERO,
                dies_after: Duration::ZERO,
                list_lag: Duration::ZERO,
                last_used_lag: Duration::ZERO,
                trail_delay: Duration::from_mins(2),
                limit_races: false,
                page: 100,
                bus_fails_entries: false,
            },
            denied: BTreeSet::new(),
            users: BTreeMap::new(),
            secrets: Vec::new(),
            executions: BTreeMap::new(),
            tokens: BTreeSet::new(),
            answers: BTreeMap::new(),
            parameters: BTreeMap::new(),
            trail: Vec::new(),
            bus: Vec::new(),
            topic: Vec::new(),
            calls: Vec::new(),
            known_secrets: Vec::new(),
            plan: Plan::default(),
            watch: Watch::default(),
            violations: Vec::new(),
            roles: BTreeMap::new(),
            made: 0,
        }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Some time ago.
    pub fn ago(&self, duration: Duration) -> Timestamp {
        self.now().checked_sub(SignedDuration::try_from(duration).unwrap()).unwrap()
    }

    /// A number never used before.
    pub(crate) fn next(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    /// A key's id that no other key has.
    pub(crate) fn next_key_id(&mut self, prefix: &str) -> String {
        let number = format!("{:016}", self.next());
        prefix.chars().chain(number.bytes().map(|digit| char::from(digit - b'0' + b'A'))).collect()
    }

    /// A secret that the search for leaks will look for from now on.
    pub fn new_secret(&mut self) -> String {
        let secret = random_secret();
        self.known_secrets.push(secret.clone());
        secret
    }

    pub(super) fn role(&mut self, name: &str) -> Role {
        if let Some(role) = self.roles.get(name) {
            return role.clone();
        }
        let role = Role {
            arn: format!("arn:{}:iam::{}:role/{name}", self.partition, self.account),
            key: self.next_key_id("ASIA"),
            secret: self.new_secret(),
            token: random_secret(),
        };
        self.roles.insert(name.to_owned(), role.clone());
        role
    }

    /// The role whose session a key id belongs to.
    pub fn role_of(&self, key: &str) -> Option<&Role> {
        self.roles.values().find(|role| role.key == key)
    }

    /// A key and its user, deleted or not.
    pub fn key(&self, id: &str) -> Option<(&User, &Key)> {
        self.users.values().find_map(|user| Some((user, user.keys.iter().find(|key| key.id == id)?)))
    }

    /// A key to change.
    pub fn key_mut(&mut self, id: &str) -> &mut Key {
        self.users.values_mut().flat_map(|user| &mut user.keys).find(|key| key.id == id).unwrap()
    }

    /// Whether AWS accepts a key's signature now: it learns of new keys late, and forgets dead ones late.
    pub fn key_works(&self, key: &Key) -> bool {
        let settled = self.ago(self.options.valid_after);
        (key.is_active() && key.changed() <= settled)
            || key.active_at(self.ago(self.options.dies_after)) && !key.is_active()
    }

    pub(super) fn record(
        &mut self,
        request: &Request,
        invocation: Option<&Invocation>,
        fault: Option<Kind>,
    ) -> Call {
        let mut params = request.params.clone();
        if let Some(value) = params.get_mut("SecretString") {
            *value = "(kept out of the record)".into();
        }
        let call = Call {
            index: self.calls.len(),
            name: request.name(),
            run: request.run,
            signer: request.signer.clone(),
            at: self.now(),
            params,
            function: invocation.map(|invocation| invocation.function.clone()),
            invocation: invocation.map(|invocation| invocation.number),
            fault,
            status: 0,
            code: None,
        };
        self.calls.push(call.clone());
        call
    }

    /// The invocation that the current task runs, for what is not a call.
    pub fn invocation() -> Option<u64> {
        INVOCATION.try_with(|invocation| invocation.number).ok()
    }
}

/// Forty characters that nobody can guess, as AWS makes them.
pub fn random_secret() -> String {
    let text = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    text.chars().take(40).collect()
}

//! What the fake account holds, and how its parts are found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use keywheel::Clock;
use serde_json::Value;
use uuid::Uuid;

use super::account::{
    Call, Execution, Key, Maker, Object, Options, Role, Secret, TaskAnswer, TrailRecord, User,
};
use super::replicas::Replica;
use super::wire::Request;
use super::{INVOCATION, Invocation};
use crate::broken::Broken;
use crate::consumer::Consumer;
use crate::faults::{Kind, Plan};
use crate::functions;
use crate::invariants::Watch;
use crate::place::Place;

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
    /// Calls that are denied, as `service:Action`, or `service:Action@region` for one region.
    pub denied: BTreeSet<String>,
    /// Users by name; those of other accounts by account and name, as `account/name`.
    pub users: BTreeMap<String, User>,
    /// Inline policies of roles that are not Keywheel's, by the role's name, kept as users are.
    pub their_roles: BTreeMap<String, BTreeMap<String, String>>,
    /// The credential report, and when it was made.
    pub report: Option<(Timestamp, String)>,
    /// Whether one is being made.
    pub report_begun: bool,
    /// The same of other accounts; `None` while one is being made.
    pub their_reports: BTreeMap<String, Option<(Timestamp, String)>>,
    /// Customer managed policies by ARN.
    pub managed: BTreeMap<String, String>,
    /// The accounts of keys that are not of this one.
    pub foreign: BTreeMap<String, String>,
    /// What the hub asks to be let into other accounts with; `None` where it enters none.
    pub external_id: Option<String>,
    /// The accounts that let the hub in.
    pub open: BTreeSet<String>,
    /// Secrets.
    pub secrets: Vec<Secret>,
    /// How secrets are replicated to other regions.
    pub replicas: Vec<Replica>,
    /// Executions by ARN.
    pub executions: BTreeMap<String, Execution>,
    /// Executions that were started and that nobody walks yet.
    pub to_walk: Vec<String>,
    /// Open task tokens.
    pub tokens: BTreeSet<String>,
    /// Answered task tokens.
    pub answers: BTreeMap<String, Vec<TaskAnswer>>,
    /// Parameters of the parameter store.
    pub parameters: BTreeMap<String, String>,
    /// The objects of the bucket, the oldest version first.
    pub objects: Vec<Object>,
    /// The objects above whose versions is a delete marker.
    pub deleted: BTreeSet<String>,
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
    /// Faults that belong to the scene, whatever else is planned.
    pub standing: Plan,
    /// How the product is broken on purpose.
    pub broken: Option<Broken>,
    /// Where set, calls take their time, each one's drawn from here: two runs then meet between any two calls.
    pub latency: Option<Rng>,
    /// What people did, and when.
    pub deeds: Vec<(Timestamp, String)>,
    /// Whether people moved labels, so that what follows from labels is theirs.
    pub hands_on_labels: bool,
    /// The calls of a schedule, between those that set its scene and those that settle it.
    pub woven: std::ops::Range<usize>,
    /// Consumers that live on secrets.
    pub consumers: Vec<Consumer>,
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
        let place = Place::here();
        Self {
            clock,
            account: "111122223333".into(),
            partition: place.partition().into(),
            region: format!("{}-{}", place.regions()[0], WORLDS.fetch_add(1, Ordering::Relaxed)),
            options: Options {
                valid_after: Duration::ZERO,
                dies_after: Duration::ZERO,
                list_lag: Duration::ZERO,
                last_used_lag: Duration::ZERO,
                trail_delay: Duration::from_mins(2),
                limit_races: false,
                page: 100,
                report_refused: false,
                bus_fails_entries: false,
            },
            denied: BTreeSet::new(),
            users: BTreeMap::new(),
            their_roles: BTreeMap::new(),
            report: None,
            report_begun: false,
            their_reports: BTreeMap::new(),
            managed: BTreeMap::new(),
            foreign: BTreeMap::new(),
            external_id: None,
            open: BTreeSet::new(),
            secrets: Vec::new(),
            replicas: Vec::new(),
            to_walk: Vec::new(),
            executions: BTreeMap::new(),
            tokens: BTreeSet::new(),
            answers: BTreeMap::new(),
            parameters: BTreeMap::new(),
            objects: Vec::new(),
            deleted: BTreeSet::new(),
            trail: Vec::new(),
            bus: Vec::new(),
            topic: Vec::new(),
            calls: Vec::new(),
            known_secrets: Vec::new(),
            plan: Plan::default(),
            standing: Plan::default(),
            broken: None,
            latency: None,
            deeds: Vec::new(),
            hands_on_labels: false,
            woven: 0..usize::MAX,
            consumers: Vec::new(),
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

    /// How long the next call is on its way there, and back; `None` where calls take no time.
    pub(super) fn latency(&mut self) -> Option<(Duration, Duration)> {
        let rng = self.latency.as_mut()?;
        let mut way =
            || Duration::from_millis(if rng.u8(..8) == 0 { rng.u64(..1_200) } else { rng.u64(..60) });
        Some((way(), way()))
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

    /// The session of a role that another account lets a function use.
    pub(super) fn member_role(&mut self, account: &str, name: &str) -> Role {
        let arn = format!("arn:{}:iam::{account}:role/{name}", self.partition);
        let role = self.role(&format!("{account}/{name}"));
        let entry = self.roles.get_mut(&format!("{account}/{name}")).unwrap();
        entry.arn.clone_from(&arn);
        Role { arn, ..role }
    }

    /// The account that a caller's credentials belong to, where it is another one than the hub's.
    pub fn account_of_signer(&self, signer: &str) -> Option<&str> {
        let account = self.role_of(signer)?.arn.split(':').nth(4)?;
        (account != self.account).then_some(account)
    }

    /// The account in which a request acts.
    pub(super) fn account_of_caller(&self, request: &Request) -> &str {
        self.account_of_signer(&request.signer).unwrap_or(&self.account)
    }

    /// The name under which the user is kept that a request is about.
    pub fn kept_as(&self, request: &Request) -> String {
        let user = request.text("UserName");
        match self.account_of_signer(&request.signer) {
            Some(account) if !user.is_empty() => format!("{account}/{user}"),
            _ => user.to_owned(),
        }
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

    /// Whether people hold a key of a user of ours, or have moved labels: what comes of that is theirs to decide.
    pub fn is_with_people(&self) -> bool {
        let keys = self.users.values().flat_map(|user| &user.keys);
        self.hands_on_labels || keys.into_iter().any(|key| key.exists() && key.maker == Maker::Stranger)
    }

    /// A key that is known to others and Active.
    pub fn leaked_and_active(&self) -> Option<String> {
        let leaked = |id: &&String| self.key(id).is_some_and(|(_, key)| key.is_active());
        self.watch.leaked.iter().find(leaked).cloned()
    }

    /// Whether AWS accepts a key's signature now: it learns of new keys late, and forgets dead ones late.
    pub fn key_works(&self, key: &Key) -> bool {
        let settled = self.ago(self.options.valid_after);
        (key.is_active() && key.changed() <= settled)
            || key.active_at(self.ago(self.options.dies_after)) && !key.is_active()
    }

    /// The function whose role a key's session is of.
    fn function_of(&self, signer: &str) -> Option<String> {
        let (_, role) = self.role_of(signer)?.arn.rsplit_once('/')?;
        role.strip_prefix(&functions::role("")).map(str::to_owned)
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
        if let Some(body) = params.get_mut("Body") {
            *body = "(an object)".into();
        }
        let call = Call {
            index: self.calls.len(),
            name: request.name(),
            run: request.run,
            signer: request.signer.clone(),
            host: request.host().to_owned(),
            at: self.now(),
            params,
            // A task that a function has spawned does not know its invocation; whose role it signs with, it does.
            function: invocation
                .map(|invocation| invocation.function.clone())
                .or_else(|| self.function_of(&request.signer)),
            state: invocation.map(|invocation| invocation.state.clone()),
            invocation: invocation.map(|invocation| invocation.number),
            fault,
            status: 0,
            code: None,
            truncated: false,
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

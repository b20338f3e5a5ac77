//! An account with one managed user, and runs on it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keywheel::clock::Clock;
use keywheel::fleet::freeze;
use keywheel::rotation::{Outcome, Rotation};
use keywheel::{AccessKeyId, RunId};
use serde_json::{Value, json};

use crate::broken::Broken;
use crate::consumer::Consumer;
use crate::fake::{Fake, Maker, Secret, State, User, Version, random_secret};
use crate::functions::{Functions, STAGE};
use crate::invariants;
use crate::logs::Logs;
use crate::place::Place;
use crate::walker::{Control, Walk, Walker};

/// The managed user.
pub const USER: &str = "svc-mail";
/// The managed user's secret.
pub const SECRET: &str = "app/mail";

/// An account, the functions in it, and the machine that calls them.
pub struct World {
    /// The account.
    pub fake: Fake,
    /// The functions.
    pub functions: Functions,
    definition: Value,
    pub(crate) emergency: Value,
    pub(crate) incident: Value,
    logs: Logs,
}

/// One run and how it ended.
#[derive(Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The walk.
    pub walk: Walk,
    /// The document at the end; `None` where the run was over before there was one.
    pub doc: Option<Rotation>,
}

impl Run {
    /// The document at the end.
    pub fn doc(&self) -> &Rotation {
        self.doc
            .as_ref()
            .unwrap_or_else(|| panic!("no document: {:?} {:?}", self.walk.error, self.walk.output))
    }

    /// How the run ended.
    pub fn outcome(&self) -> Option<Outcome> {
        self.doc.as_ref().and_then(|doc| doc.outcome)
    }

    /// The code of the reason that the run gave.
    pub fn why(&self) -> &str {
        self.doc().why.as_ref().map_or("", |why| why.code.as_str())
    }

    /// Fails the test unless the run succeeded with this outcome.
    pub fn expect(&self, outcome: Outcome) -> &Self {
        assert_eq!(
            (self.walk.status, self.outcome()),
            ("SUCCEEDED", Some(outcome)),
            "why: {:?}\nerror: {:?}\nstates: {:?}",
            self.doc.as_ref().and_then(|doc| doc.why.as_ref()),
            self.walk.error,
            self.walk.states()
        );
        self
    }

    /// Fails the test unless the run ended Blocked for this reason.
    pub fn expect_blocked(&self, code: &str) -> &Self {
        self.expect(Outcome::Blocked);
        assert_eq!(self.why(), code, "{:?}", self.doc().why);
        self
    }

    /// The new key's id.
    pub fn new_key(&self) -> &AccessKeyId {
        &self.doc().new.as_ref().unwrap().key
    }
}

/// The rotation machine.
pub fn rotation_machine() -> Value {
    machine("rotation")
}

/// A machine's definition.
pub fn machine(name: &str) -> Value {
    serde_json::from_str(&crate::repository::text(&format!("statemachine/{name}.asl.json"))).unwrap()
}

/// The input that asks for nothing special.
pub fn request() -> Value {
    json!({"secret": SECRET})
}

/// So long from now, where the fake is.
pub fn later(state: &State, duration: Duration) -> Timestamp {
    state.now() + SignedDuration::try_from(duration).unwrap()
}

/// So many hours.
pub const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// Does it on a clock of its own, which stands still.
pub fn paused<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing but memory").block_on(work)
}

impl World {
    /// A user whose one key is in its secret, beside a field of its owner's, and was used a moment ago. The switch is live.
    pub fn new() -> Self {
        let world = Self::without_value();
        {
            let mut state = world.fake.state();
            let key = state.add_key(USER, Maker::Owner);
            let at = state.ago(hours(1));
            state.key_mut(&key).changes[0].0 = state.ago(hours(24 * 100));
            state.key_mut(&key).created = state.ago(hours(24 * 100));
            state.use_key(&key, "ses", at);
            let text = world.value_of(&mut state, &key);
            state.put_current(SECRET, &text);
        }
        world
    }

    /// The same, but the user and its secret are of another account, which lets the hub in.
    pub fn elsewhere(account: &str) -> Self {
        let world = Self::new();
        world.lets_in(account);
        {
            let mut state = world.fake.state();
            let own = state.account.clone();
            let secret = state.secret_mut(SECRET);
            secret.arn = secret.arn.replacen(&own, account, 1);
            let arn = secret.arn.clone();
            let mut user = state.users.remove(USER).unwrap();
            user.account = Some(account.to_owned());
            user.tags.insert("keywheel:secret".into(), arn);
            state.users.insert(format!("{account}/{USER}"), user);
        }
        world
    }

    /// A managed user without keys, whose secret has no value.
    pub fn without_value() -> Self {
        // A clock that does not begin on a full second: what rounds must round the right way.
        let clock = Clock::starting_at("2026-01-05T09:30:00.250Z".parse().unwrap());
        let fake = Fake::new(clock);
        {
            let mut state = fake.state();
            let arn = format!(
                "arn:{}:secretsmanager:{}:{}:secret:{SECRET}-AbCdEf",
                state.partition, state.region, state.account
            );
            state.secrets.push(Secret {
                name: SECRET.into(),
                arn: arn.clone(),
                tags: BTreeMap::from([("keywheel:user".into(), USER.into())]),
                versions: Vec::new(),
                deleted: None,
                primary_region: None,
            });
            let user = User {
                name: USER.into(),
                account: None,
                path: "/apps/".into(),
                id: "AIDAFAKEUSER00000001".into(),
                tags: BTreeMap::from([("keywheel:secret".into(), arn)]),
                keys: Vec::new(),
                inline: BTreeMap::new(),
                attached: BTreeSet::new(),
            };
            state.users.insert(USER.into(), user);
            state.parameters.insert(format!("/keywheel/{STAGE}/mode"), "live".into());
        }
        let functions = Functions::new(&fake);
        Self {
            fake,
            functions,
            definition: rotation_machine(),
            emergency: machine("emergency"),
            incident: machine("incident"),
            logs: Logs::listen(),
        }
    }

    /// Breaks the product in one way.
    pub fn break_it(&mut self, broken: Broken) {
        broken.rotation(&mut self.definition);
        broken.incident(&mut self.incident);
        self.fake.state().broken = Some(broken);
    }

    /// The value that a person would store for a key, with one more field that is nobody's business.
    pub fn value_of(&self, state: &mut State, key: &str) -> String {
        let password = state.new_secret();
        let secret = state.key(key).unwrap().1.secret.clone();
        json!({"Host": "mail.example", "UserName": USER, "AccessKeyId": key, "SecretAccessKey": secret, "Password": password, "Port": 587})
            .to_string()
    }

    /// The ARN of the execution of that name.
    pub fn arn(&self, run: RunId) -> String {
        let state = self.fake.state();
        format!(
            "arn:{}:states:{}:{}:execution:keywheel-{STAGE}-rotation:{run}",
            state.partition, state.region, state.account
        )
    }

    /// Starts a run and waits for its end.
    pub async fn run(&self, input: Value) -> Run {
        self.run_watched(RunId::random(), input, &mut |_, _| Control::Go).await
    }

    /// Starts a run with that id; `at_door` sees each state before it is entered.
    pub async fn run_watched(
        &self,
        id: RunId,
        input: Value,
        at_door: &mut dyn FnMut(&str, &Value) -> Control,
    ) -> Run {
        Run { id, ..self.run_named(&self.arn(id), input, at_door).await }
    }

    /// Starts an execution of any name.
    pub async fn run_named(
        &self,
        arn: &str,
        input: Value,
        at_door: &mut dyn FnMut(&str, &Value) -> Control,
    ) -> Run {
        let walker = Walker::new(&self.definition, &self.functions, &self.fake, arn, at_door);
        let walk = walker.walk(input).await;
        let doc: Option<Rotation> = serde_json::from_value(walk.output.clone()).ok();
        let id = doc.as_ref().map_or_else(RunId::random, |doc| doc.run);
        invariants::after_run(&mut self.fake.state(), id, &walk, doc.as_ref());
        self.assert_promises();
        Run { id, walk, doc }
    }

    /// Does `work` while a run goes on beside it, and stops caring about the run when the work is done.
    pub async fn beside<T>(&self, id: RunId, input: Value, work: impl Future<Output = T>) -> T {
        let mut open = |_: &str, _: &Value| Control::Go;
        let mut run = Box::pin(self.run_watched(id, input, &mut open));
        let mut work = Box::pin(work);
        let mut goes_on = true;
        loop {
            tokio::select! {
                biased;
                _ = &mut run, if goes_on => goes_on = false,
                result = &mut work => return result,
            }
        }
    }

    /// Fails the test if a promise was broken so far, by a call, in the logs or in what was announced.
    pub fn assert_promises(&self) {
        let state = self.fake.state();
        assert!(state.violations.is_empty(), "{:#?}", state.violations);
        let sent = state.calls.iter().filter(|call| !call.host.is_empty());
        for call in sent {
            assert!(Place::here().has_host(&call.host), "{} was sent to {}", call.name, call.host);
        }
        assert!(!invariants::finds_secret(&state, &self.logs.text()), "P4: the logs hold a secret");
        let told = format!("{:?}{:?}{:?}", state.bus, state.topic, state.answers);
        assert!(!invariants::finds_secret(&state, &told), "P4: a notice holds a secret");
    }

    /// Fails the test unless AWSCURRENT opens a working key and no key of ours is lost.
    pub fn assert_sound(&self) {
        let state = self.fake.state();
        let current = state.secret(SECRET).current();
        invariants::current_is_good(&state, current).unwrap();
        assert_eq!(invariants::orphans(&state), Vec::<String>::new(), "orphans");
        drop(state);
        self.assert_promises();
    }

    /// Another region of the world's partition, which no other world has.
    pub fn other_region(&self) -> String {
        let [here, there] = Place::here().regions();
        self.fake.state().region.replacen(here, there, 1)
    }

    /// The key that consumers use.
    pub fn current_key(&self) -> String {
        self.fake.state().secret(SECRET).current_key().unwrap()
    }

    /// The ids of the user's keys that exist.
    pub fn keys(&self) -> BTreeSet<String> {
        let state = self.fake.state();
        let here = state.users.get(USER);
        let user = here.or_else(|| state.users.values().find(|user| user.name == USER)).unwrap();
        user.keys.iter().filter(|key| key.exists()).map(|key| key.id.clone()).collect()
    }

    /// The secret's ARN.
    pub fn secret_arn(&self) -> String {
        self.fake.state().secret(SECRET).arn.clone()
    }

    /// The value of AWSCURRENT.
    pub fn current_value(&self) -> Value {
        self.fake.state().secret(SECRET).current().unwrap()
    }

    /// The version that carries a label.
    pub fn labelled(&self, label: &str) -> Option<Version> {
        self.fake.state().secret(SECRET).labelled(label).cloned()
    }

    /// Lets a consumer live on the secret from now on.
    pub fn consumer(&self) {
        let mut state = self.fake.state();
        let now = state.now();
        state.consumers.push(Consumer::of(SECRET, now));
        state.let_consumers_live();
    }

    /// Turns the switch.
    pub fn mode(&self, mode: &str) {
        self.fake.state().parameters.insert(format!("/keywheel/{STAGE}/mode"), mode.into());
    }

    /// Sets what runs under way read of freezes, as `keywheel policy push` does.
    pub fn freeze(&self, text: &str) {
        self.fake.state().parameters.insert(freeze::parameter(STAGE), text.into());
    }

    /// A task token that the fake's Step Functions waits on.
    pub fn task_token(&self) -> String {
        let token = random_secret();
        self.fake.state().tokens.insert(token.clone());
        token
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

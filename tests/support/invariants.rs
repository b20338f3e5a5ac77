//! The promises, looked at after every call of every test.
//!
//! A broken one is noted in the fake, with the call that broke it, and fails the test at the next state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use crate::fake::{Call, Key, Maker, Request, State};

/// What the promises are held to in one test.
#[derive(Debug)]
pub struct Watch {
    /// Keys that are known to others: they may be current and Inactive, and are never deleted.
    pub leaked: BTreeSet<String>,
    /// How long a superseded key must have been Inactive before it may go.
    pub grace: Duration,
    /// Secrets whose AWSCURRENT has named a working key.
    good: BTreeSet<String>,
    /// Keys that their owner gave up.
    retired: BTreeSet<String>,
    /// Keys that AWSCURRENT has named, as of the call before.
    current: BTreeSet<String>,
    creations: BTreeMap<u64, u32>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            leaked: BTreeSet::new(),
            grace: Duration::from_hours(168),
            good: BTreeSet::new(),
            retired: BTreeSet::new(),
            current: BTreeSet::new(),
            creations: BTreeMap::new(),
        }
    }
}

impl Watch {
    /// Forgets that AWSCURRENT was good, because a person in the test broke it.
    pub fn excuse(&mut self) {
        self.good.clear();
    }
}

/// Looks at everything after a call.
pub fn after_call(state: &mut State, request: &Request, call: &Call) {
    let happened = state.calls[call.index].status == 200;
    let mut broken = Vec::new();
    secret_stays_in_the_store(state, request, &mut broken);
    one_creation_an_attempt(state, request, call, &mut broken);
    if happened && state.role_of(&request.signer).is_some() {
        nothing_of_a_strangers(state, request, &mut broken);
    }
    note_current_and_retired(state);
    always_a_working_key(state, &mut broken);
    let place = format!("after call {} {} of {:?}", call.index, call.name, call.function);
    state.violations.extend(broken.into_iter().map(|what| format!("{what} {place}")));
}

/// P4.
fn secret_stays_in_the_store(state: &State, request: &Request, broken: &mut Vec<String>) {
    if request.service != "secretsmanager" && finds_secret(state, &request.raw) {
        broken.push("P4: a request carries a secret".into());
    }
}

/// Whether any secret there ever was is in the text.
pub fn finds_secret(state: &State, text: &str) -> bool {
    state.known_secrets.iter().any(|secret| text.contains(secret.as_str()))
}

fn one_creation_an_attempt(state: &mut State, request: &Request, call: &Call, broken: &mut Vec<String>) {
    if request.name() == "iam:CreateAccessKey"
        && let Some(invocation) = call.invocation
    {
        let count = state.watch.creations.entry(invocation).or_default();
        *count += 1;
        if *count > 1 {
            broken.push("CreateAccessKey was sent twice by one attempt".into());
        }
    }
}

/// P2, for the two calls that could take a key away.
fn nothing_of_a_strangers(state: &State, request: &Request, broken: &mut Vec<String>) {
    let name = request.name();
    let delete = name == "iam:DeleteAccessKey";
    if !delete && (name != "iam:UpdateAccessKey" || request.text("Status") != "Inactive") {
        return;
    }
    let Some((_, key)) = state.key(request.text("AccessKeyId")) else { return };
    let watch = &state.watch;
    let retired = watch.retired.contains(&key.id);
    let leaked = watch.leaked.contains(&key.id);
    if key.maker == Maker::Stranger && !retired && !key.was_current {
        broken.push(format!("P2: {name} on a stranger's key {}", key.id));
    }
    if watch.current.contains(&key.id) && !leaked {
        broken.push(format!("P1: {name} on the key that AWSCURRENT names, {}", key.id));
    }
    if !delete {
        return;
    }
    if key.changes.last().is_some_and(|(_, active)| *active) {
        broken.push(format!("P2: an Active key was deleted, {}", key.id));
    }
    if leaked {
        broken.push(format!("P2: a leaked key was deleted, {}", key.id));
    }
    let inactive_for = state.now().duration_since(key.changed());
    if (key.was_current || retired) && inactive_for < SignedDuration::try_from(watch.grace).unwrap() {
        broken.push(format!("P2: key {} was deleted after {inactive_for:#} of grace", key.id));
    }
}

fn note_current_and_retired(state: &mut State) {
    let current: BTreeSet<String> =
        state.secrets.iter().filter_map(crate::fake::Secret::current_key).collect();
    let retired: Vec<String> =
        state.users.values().filter_map(|user| user.tags.get("keywheel:retire").cloned()).collect();
    state.watch.retired.extend(retired);
    for key in state.users.values_mut().flat_map(|user| &mut user.keys) {
        key.was_current |= current.contains(&key.id);
    }
    state.watch.current = current;
}

/// P1, from the first time that AWSCURRENT names a working key.
fn always_a_working_key(state: &mut State, broken: &mut Vec<String>) {
    let mut good = Vec::new();
    for secret in state.secrets.iter().filter(|secret| secret.deleted.is_none()) {
        match current_is_good(state, secret.current()) {
            Ok(()) => good.push(secret.name.clone()),
            Err(why) if state.watch.good.contains(&secret.name) => broken.push(format!("P1: {why}")),
            Err(_) => {}
        }
    }
    state.watch.good.extend(good);
}

/// Whether a value opens an Active key that was validated.
pub fn current_is_good(state: &State, value: Option<Value>) -> Result<(), String> {
    let value = value.ok_or("AWSCURRENT names nothing that can be read")?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let id = text("AccessKeyId");
    let Some((user, key)) = state.key(id) else {
        return Err(format!("AWSCURRENT names {id:?}, which is no key"));
    };
    if state.watch.leaked.contains(id) {
        return Ok(());
    }
    let fault = |key: &Key| {
        if !key.is_active() {
            Some("is not Active")
        } else if matches!(key.maker, Maker::Run(_)) && !key.validated {
            Some("was never validated")
        } else if key.secret != text("SecretAccessKey") {
            Some("has another secret")
        } else if user.name != text("UserName") {
            Some("is another user's")
        } else {
            None
        }
    };
    fault(key).map_or(Ok(()), |fault| Err(format!("AWSCURRENT names key {id}, which {fault}")))
}

/// Keys that a run made and that no version of any secret holds: nobody could ever use them.
pub fn orphans(state: &State) -> Vec<String> {
    let stored: String = state
        .secrets
        .iter()
        .flat_map(|secret| &secret.versions)
        .filter_map(|version| version.text.clone())
        .collect();
    state
        .users
        .values()
        .flat_map(|user| &user.keys)
        .filter(|key| key.exists() && matches!(key.maker, Maker::Run(_)) && !stored.contains(&key.id))
        .map(|key| key.id.clone())
        .collect()
}

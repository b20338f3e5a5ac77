//! The promises, looked at after every call of every test.
//!
//! A broken one is noted in the fake, with the call that broke it, and fails the test at the next state.

mod campaign;
mod closed;
mod emergency;
mod ending;
mod keys;
mod unused;

pub use keys::replaced_as_leaked;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::fake::{Call, Key, Maker, Request, State};

pub use campaign::after_campaign;
pub use emergency::{after_alarm, after_incident};
pub use ending::after_run;
pub use unused::after_removal;

/// What the promises are held to in one test.
#[derive(Debug)]
pub struct Watch {
    /// Keys that are known to others: they may be current and Inactive, and are never deleted.
    pub leaked: BTreeSet<String>,
    /// Keys that people have switched or deleted themselves: who then calls with one is refused by them.
    pub by_people: BTreeSet<String>,
    /// How long a superseded key must have been Inactive before it may go.
    pub grace: Duration,
    /// Secrets whose AWSCURRENT has named a working key.
    good: BTreeSet<String>,
    /// Keys that their owner gave up.
    retired: BTreeSet<String>,
    creations: BTreeMap<u64, u32>,
    reads: closed::Reads,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            leaked: BTreeSet::new(),
            by_people: BTreeSet::new(),
            grace: Duration::from_hours(168),
            good: BTreeSet::new(),
            retired: BTreeSet::new(),
            creations: BTreeMap::new(),
            reads: closed::Reads::default(),
        }
    }
}

impl Watch {
    /// Forgets that AWSCURRENT was good, because a person in the test broke it.
    pub fn excuse(&mut self) {
        self.good.clear();
    }
}

/// What the labels named before a call: only what the call itself changed is the caller's doing.
#[derive(Debug)]
pub struct Before {
    labels: Vec<Labels>,
    /// The inline policies of users that have some, by what those are kept as.
    inline: Vec<(String, BTreeMap<String, String>)>,
    managed: BTreeMap<String, String>,
}

/// The keys that one secret's labels lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Labels {
    current: Option<String>,
    previous: Option<String>,
}

impl Before {
    /// As it is now.
    pub fn of(state: &State) -> Self {
        let policies = state.users.iter().filter(|(_, user)| !user.inline.is_empty());
        Self {
            labels: labels(state),
            inline: policies.map(|(name, user)| (name.clone(), user.inline.clone())).collect(),
            managed: state.managed.clone(),
        }
    }
}

fn labels(state: &State) -> Vec<Labels> {
    let named = |secret: &crate::fake::Secret, label| {
        let text = secret.labelled(label)?.text.as_deref()?;
        let value: Value = serde_json::from_str(text).ok()?;
        Some(value.get("AccessKeyId")?.as_str()?.to_owned())
    };
    let of = |secret| Labels { current: named(secret, "AWSCURRENT"), previous: named(secret, "AWSPREVIOUS") };
    state.secrets.iter().map(of).collect()
}

/// Looks at everything after a call.
pub fn after_call(state: &mut State, request: &Request, call: &Call, before: &Before) {
    let happened = state.calls[call.index].status == 200;
    let mut broken = Vec::new();
    secret_stays_in_the_store(state, request, &mut broken);
    one_creation_an_attempt(state, request, call, &mut broken);
    if happened && state.role_of(&request.signer).is_some() {
        keys::nothing_of_a_strangers(state, request, call, before, &mut broken);
        emergency::nothing_else_is_touched(state, request, call, before, &mut broken);
        keys::a_leaked_key_stays_off(state, request, &mut broken);
        keys::the_way_back_stays_open(state, before, &mut broken);
        closed::unknown_is_no_permission(state, request, call, &mut broken);
    }
    closed::note(state, request, call);
    keys::note_current_and_retired(state);
    keys::always_a_working_key(state, &mut broken);
    keys::a_leaked_key_goes_soon(state, &mut broken);
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

/// For how long a key that people took away may be believed to be there: a rollback looks again that often.
const LAG: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);

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
    // IAM answers for a moment as if nothing had happened: what somebody took away just now is theirs.
    // People delete no current key, so one that is gone went before the label came to it, and stays gone.
    let gone_or_new = || key.deleted.is_some() || state.now().duration_since(key.changed()) < LAG;
    let just_now = || state.watch.by_people.contains(id) && gone_or_new();
    let fault = |key: &Key| {
        if !key.is_active() && just_now() {
            None
        } else if !key.is_active() {
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

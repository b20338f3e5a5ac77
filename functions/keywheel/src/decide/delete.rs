//! Whether an old key may be deleted at the end of its grace.

use std::time::Duration;

use jiff::Timestamp;

use super::DIES_LATE;
use crate::clock::after;
use crate::fleet::freeze::Frozen;
use crate::ids::{AccessKeyId, VersionId};
use crate::incident::{EVIDENCE, Record, RecordState};
use crate::key::{self, KeyFacts, LastUse};
use crate::replica::{self, Replica};
use crate::switch::Mode;

/// What is known when the grace should be over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// The installation's switch.
    pub mode: Mode,
    /// The freeze that holds. A run because of a leak has none to mind: it ends without a grace.
    pub frozen: Option<Frozen>,
    /// The version that AWSCURRENT names now.
    pub current: Option<VersionId>,
    /// The user's keys now; empty where the user is gone.
    pub keys: Vec<KeyFacts>,
    /// What the secret's replicas name, where it has any.
    pub replicas: Vec<Replica>,
    /// The old key's last use; `None` where it is not known.
    pub last_use: Option<LastUse>,
    /// What is on record of the old key, where it was contained as leaked.
    pub leaked: Option<Record>,
}

/// What the run has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<'a> {
    /// The version that must be current.
    pub version: Option<&'a VersionId>,
    /// The key that stays.
    pub new: &'a AccessKeyId,
    /// The key to be deleted.
    pub old: &'a AccessKeyId,
    /// When it was read back Inactive.
    pub disabled_at: Timestamp,
    /// When the grace is over.
    pub grace: Duration,
}

/// What may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delete {
    /// Delete it.
    Yes,
    /// It is gone already.
    Gone,
    /// AWSCURRENT names something else.
    StandDown,
    /// Look again then.
    Wait(Timestamp, String),
    /// It stays, and a person decides.
    Held(String),
    /// It stays: the installation was not live, or nobody knew what is frozen, for longer than a run waits.
    Paused(String),
    /// It stays: a replica of the secret does not name the version that must be current, for longer than a run waits.
    Behind(String),
    /// It stays, Inactive: it was contained as leaked, and its evidence time is not over.
    Evidence(String),
}

/// How often a pause, or a read that failed, is looked at again.
const LOOK_AGAIN: Duration = Duration::from_hours(1);
/// How often, at the least, a long pause is looked at.
const LOOK_DAILY: Duration = Duration::from_hours(24);
/// How long after the grace a pause is waited for.
const LONGEST_PAUSE: Duration = Duration::from_hours(24 * 90);
/// How long after the grace an unreadable last use, or a replica that lags, is asked for again, before a person is.
const PATIENCE: Duration = Duration::from_hours(24);

/// Decides. Only an Inactive key, superseded, past its grace and unused since, is deleted.
pub fn decide(facts: &Facts, run: &Run<'_>) -> Delete {
    if facts.current.as_ref() != run.version {
        return Delete::StandDown;
    }
    if !key::find(&facts.keys, run.new).is_some_and(KeyFacts::is_active) {
        // The old key may be the only way back.
        return Delete::Held(format!("the current key {} is not Active", run.new));
    }
    let Some(old) = key::find(&facts.keys, run.old) else { return Delete::Gone };
    if old.is_active() {
        return Delete::Held(format!("key {} was made Active again during its grace", run.old));
    }
    if let Some(record) = &facts.leaked
        && (record.state != RecordState::Closed || facts.now < after(record.at, EVIDENCE))
    {
        return Delete::Evidence(format!("key {} leaked and is kept as evidence", run.old));
    }
    let over = after(run.disabled_at, run.grace);
    if facts.now < over {
        return Delete::Wait(over, "the grace is not over".into());
    }
    if let Some(frozen) = &facts.frozen
        && let Some(next) = frozen.look_again(facts.now)
    {
        return Delete::Wait(next, frozen.why.clone());
    }
    // A freeze whose end nobody knows is a pause.
    let pause = if facts.mode == Mode::Live {
        facts.frozen.as_ref().map(|frozen| frozen.why.clone())
    } else {
        Some(format!("the installation is {}", facts.mode))
    };
    if let Some(why) = pause {
        let paused = Duration::try_from(facts.now.duration_since(over)).unwrap_or_default();
        if paused >= LONGEST_PAUSE {
            return Delete::Paused(why);
        }
        // An execution's history holds 25,000 events: the looks grow rarer.
        return Delete::Wait(after(facts.now, (paused / 24).clamp(LOOK_AGAIN, LOOK_DAILY)), why);
    }
    // The gate has asked this too, unless it found the key Inactive already.
    if let Some(behind) = replica::behind(&facts.replicas, run.version) {
        if facts.now >= after(over, PATIENCE) {
            return Delete::Behind(behind);
        }
        return Delete::Wait(after(facts.now, LOOK_AGAIN), behind);
    }
    match &facts.last_use {
        None if facts.now >= after(over, PATIENCE) => {
            Delete::Held(format!("the last use of key {} could not be read for a day", run.old))
        }
        None => Delete::Wait(after(facts.now, LOOK_AGAIN), "its last use could not be read".into()),
        Some(LastUse { at: Some(at), .. }) if *at > after(run.disabled_at, DIES_LATE) => {
            Delete::Held(format!("key {} was used at {at}, after it had been made Inactive", run.old))
        }
        Some(_) => Delete::Yes,
    }
}

/// Why a leaked key that no run looks after may not be deleted yet; `None` where it may: closed, Inactive, past its
/// evidence time and unused in it.
pub fn kept_as_evidence(
    record: &Record,
    keys: &[KeyFacts],
    last_use: Option<&LastUse>,
    now: Timestamp,
) -> Option<String> {
    let key = &record.key;
    if record.state != RecordState::Closed {
        return Some(format!("the incident of key {key} is not closed"));
    }
    match key::find(keys, key) {
        None => return Some(format!("key {key} is gone already")),
        Some(found) if found.is_active() => return Some(format!("key {key} is Active")),
        Some(_) => {}
    }
    let until = after(record.at, EVIDENCE);
    if now < until {
        return Some(format!("key {key} is kept as evidence until {until}"));
    }
    match last_use {
        None => Some(format!("the last use of key {key} could not be read")),
        Some(LastUse { at: Some(at), .. }) if *at > after(record.at, DIES_LATE) => Some(format!(
            "key {key} was used at {at}, after it had been made Inactive: somebody still has it, or needs it"
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests;

//! Whether a key that nobody uses may be made Inactive, and whether it may be deleted after its grace.
//!
//! *Unused* is: no use recorded for as long as the policy says, counted from the last use, or from the day on which the
//! key was made where IAM knows of no use. Anything that could not be read counts as in use. A key that a secret of ours
//! holds in any labelled version is a rotation's matter, whoever used it when: it is left alone here.
//!
//! In the grace the key is looked at every day. Whoever makes it Active again, uses it, stores it, or takes the user's
//! tag away, keeps it for good: this run then ends, and the next one counts anew from that day.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::after;
use crate::fleet::estate::Used;
use crate::fleet::freeze::Frozen;
use crate::fleet::policy::Removal;
use crate::ids::AccessKeyId;
use crate::incident::Record;
use crate::key::{self, KeyFacts};
use crate::switch::Mode;

/// A user, as far as it concerns its unused keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its unique id.
    pub id: String,
    /// Whether its own tag lets its unused keys go.
    pub allows: bool,
    /// Keys that its other tags name: one that is to be retired, and one that is to be kept.
    pub spared: Vec<AccessKeyId>,
}

/// What is known of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// The installation's switch.
    pub mode: Mode,
    /// The freeze that holds.
    pub frozen: Option<Frozen>,
    /// The user; `None` where it is gone.
    pub user: Option<Owner>,
    /// The user's keys.
    pub keys: Vec<KeyFacts>,
    /// When the key was used last.
    pub used: Used,
    /// The keys that secrets hold which name the user, or which it names; `None` where that is not known.
    pub held: Option<Vec<AccessKeyId>>,
    /// What is on record of the key, where it was contained as leaked.
    pub leaked: Option<Record>,
}

/// Which key, and what its policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// The key.
    pub key: &'a AccessKeyId,
    /// The user's unique id.
    pub user_id: &'a str,
    /// What becomes of it.
    pub unused: Removal,
}

/// Why a key is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// In one word, for programs.
    pub code: &'static str,
    /// In a sentence's part.
    pub text: String,
}

fn stay(code: &'static str, text: impl Into<String>) -> Stay {
    Stay { code, text: text.into() }
}

/// What may be done about a key that is Active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disable {
    /// Make it Inactive: nobody has used it since then.
    Yes(Timestamp),
    /// It is Inactive.
    Inactive,
    /// Leave it.
    Leave(Stay),
}

/// Decides about a key's being made Inactive.
pub fn disable(facts: &Facts, run: &Run<'_>) -> Disable {
    if let Some(stay) = absent(facts, run) {
        return Disable::Leave(stay);
    }
    // Before all else: a key that an earlier attempt made Inactive must not end as one that nobody touched.
    if !key::find(&facts.keys, run.key).is_some_and(KeyFacts::is_active) {
        return Disable::Inactive;
    }
    if let Some(stay) = stands_for(facts, run, "would be made Inactive") {
        return Disable::Leave(stay);
    }
    match (quiet_since(facts, run.key), &facts.held) {
        (Err(stay), _) => Disable::Leave(stay),
        (Ok(_), None) => {
            Disable::Leave(stay("SecretsUnknown", "whether a secret holds it could not be read"))
        }
        (Ok(since), Some(_)) if facts.now < after(since, run.unused.disable_after.get()) => {
            let until = run.unused.disable_after;
            Disable::Leave(stay("InUse", format!("it was in use on {since}, and {until} have not passed")))
        }
        (Ok(since), Some(_)) => match not_now(facts) {
            Some(why) => Disable::Leave(stay("NotNow", format!("{why}; else it would be made Inactive"))),
            None => Disable::Yes(since),
        },
    }
}

/// What may be done about a key in its grace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delete {
    /// Delete it.
    Yes,
    /// It is gone already.
    Gone,
    /// Look again then.
    Wait(Timestamp, String),
    /// It stays.
    Keep(Stay),
}

/// How often, at the least, a key is looked at in its grace and in a pause.
pub const LOOK_DAILY: Duration = Duration::from_hours(24);
/// How long after the grace what could not be read is asked for again, before the key is kept.
const PATIENCE: Duration = Duration::from_hours(24);
/// How long after the grace a pause is waited for.
const LONGEST_PAUSE: Duration = Duration::from_hours(24 * 90);
/// How often what holds the delete up after the grace is looked at.
const LOOK_AGAIN: Duration = Duration::from_hours(1);

/// Decides about its delete. `over` is when the grace ends, `quiet` since when nobody had used the key at its beginning.
pub fn delete(facts: &Facts, run: &Run<'_>, over: Timestamp, quiet: Timestamp) -> Delete {
    let Some(found) = key::find(&facts.keys, run.key) else { return Delete::Gone };
    if found.is_active() {
        return Delete::Keep(stay("Reactivated", "it was made Active again"));
    }
    if let Some(stay) = absent(facts, run).or_else(|| stands_for(facts, run, "would be deleted")) {
        return Delete::Keep(stay);
    }
    let unread = match (facts.used, &facts.held) {
        (Used::At(at), _) if at > quiet => {
            return Delete::Keep(stay("Used", format!("it was used at {at} after all")));
        }
        (Used::Unknown, _) => Some("its last use could not be read"),
        (_, None) => Some("whether a secret holds it could not be read"),
        _ => None,
    };
    if facts.now < over {
        // Whoever brings it back, and whatever uses it, is noticed within a day.
        let next = after(facts.now, LOOK_DAILY).min(over);
        return Delete::Wait(next, unread.unwrap_or("the grace is not over").to_owned());
    }
    if let Some(unread) = unread {
        return if facts.now < after(over, PATIENCE) {
            Delete::Wait(after(facts.now, LOOK_AGAIN), unread.to_owned())
        } else {
            Delete::Keep(stay("Unknown", format!("{unread} for a day")))
        };
    }
    let Some(why) = not_now(facts) else { return Delete::Yes };
    if let Some(next) = facts.frozen.as_ref().and_then(|frozen| frozen.look_again(facts.now)) {
        return Delete::Wait(next, why);
    }
    if facts.now >= after(over, LONGEST_PAUSE) {
        return Delete::Keep(stay("Paused", format!("{why}, for a long time")));
    }
    // An execution's history holds 25,000 events.
    let paused = Duration::try_from(facts.now.duration_since(over)).unwrap_or_default();
    Delete::Wait(after(facts.now, (paused / 24).clamp(LOOK_AGAIN, LOOK_DAILY)), why)
}

/// A key, or its user, that is not there.
fn absent(facts: &Facts, run: &Run<'_>) -> Option<Stay> {
    match &facts.user {
        None => Some(stay("UserGone", "the user is gone")),
        Some(user) if user.id != run.user_id => Some(stay("AnotherUser", "another user has this name now")),
        Some(_) if key::find(&facts.keys, run.key).is_none() => Some(stay("KeyGone", "it is gone")),
        Some(_) => None,
    }
}

/// What stands for a key, whoever used it when.
fn stands_for(facts: &Facts, run: &Run<'_>, what: &str) -> Option<Stay> {
    let user = facts.user.as_ref()?;
    if facts.leaked.is_some() {
        return Some(stay("Leaked", "it leaked, and belongs to its incident"));
    }
    if facts.held.as_ref().is_some_and(|held| held.contains(run.key)) {
        return Some(stay("InSecret", "a secret holds it: it is a rotation's matter"));
    }
    if user.spared.contains(run.key) {
        return Some(stay("Spared", "a tag of its user names it, to be kept or to be retired"));
    }
    (!user.allows).then(|| {
        let (tag, remove) = (crate::unused::TAG, crate::unused::REMOVE);
        stay("NotAllowed", format!("it {what} if its user carried the tag {tag} = {remove}"))
    })
}

/// Since when nobody uses the key.
fn quiet_since(facts: &Facts, id: &AccessKeyId) -> Result<Timestamp, Stay> {
    let created = key::find(&facts.keys, id).and_then(|key| key.created);
    match (facts.used, created) {
        (Used::At(at), Some(created)) => Ok(at.max(created)),
        (Used::Never, Some(created)) => Ok(created),
        (Used::Unknown, _) => Err(stay("UseUnknown", "when it was used last could not be read")),
        (_, None) => Err(stay("AgeUnknown", "IAM does not say when it was made")),
    }
}

/// Why nothing is changed at present.
fn not_now(facts: &Facts) -> Option<String> {
    match &facts.frozen {
        Some(frozen) => Some(frozen.why.clone()),
        None if facts.mode != Mode::Live => Some(format!("the installation is {}", facts.mode)),
        None => None,
    }
}

#[cfg(test)]
mod tests;

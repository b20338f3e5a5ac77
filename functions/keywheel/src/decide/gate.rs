//! The gate before an old key is made Inactive.
//!
//! *Quiet* is: no use of the old key recorded later than the promotion plus the time in which consumers settle,
//! read at least the quiet window after that instant. A use later than that is a consumer that does not follow
//! the secret; waiting longer does not make it safe, it gives people time. So such a run looks again until its
//! longest overlap has passed, and then leaves the key Active and says so, unless the policy says otherwise.
//! It is evidence, not proof: the overlap should exceed the longest time between two uses.
//!
//! A freeze of the fleet's policy keeps the gate shut until its end, whatever else is so, unless the key leaked. Waiting
//! for that end may outlast the longest overlap: people who may touch nothing are not held to a date that passes
//! meanwhile, so the gate is asked once more after it. Where nobody knows the end, that is no freeze to wait out but a
//! reason to stay shut like any other.
//!
//! Where the secret has replicas in other regions, each must name the new version first: their readers hold the old key
//! until then, however quiet it is. Neither the owner's word nor time opens the gate against one that lags. Where one was
//! seen to lag, its readers have as long to change over as all had after the promotion, from the look that found it there.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::after;
use crate::fleet::freeze::Frozen;
use crate::ids::{SecretArn, VersionId};
use crate::key::{self, KeyFacts, LastUse};
use crate::policy::{Policy, WhenStillInUse};
use crate::replica::{self, Replica};
use crate::rotation::{NewKey, OldKey};
use crate::switch::Mode;

/// What the gate decides from. The reads are made in this order, and a later one is only made
/// where the earlier ones leave the question open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// The installation's switch.
    pub mode: Mode,
    /// The freeze that holds.
    pub frozen: Option<Frozen>,
    /// The version that AWSCURRENT names now.
    pub current: Option<VersionId>,
    /// The user's keys now; empty where the user is gone.
    pub keys: Vec<KeyFacts>,
    /// Other secrets whose tag names this user; `None` where it is not known.
    pub rivals: Option<Vec<SecretArn>>,
    /// What the secret's replicas name, where it has any.
    pub replicas: Vec<Replica>,
    /// The old key's last use; `None` where it is not known.
    pub last_use: Option<LastUse>,
}

/// What the run has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<'a> {
    /// The key that must be current.
    pub new: &'a NewKey,
    /// The key to be made Inactive.
    pub old: &'a OldKey,
    /// When the overlap began.
    pub promoted_at: Timestamp,
    /// When a replica that had lagged was found to name the new version.
    pub reached: Option<Timestamp>,
    /// The policy.
    pub policy: &'a Policy,
    /// Whether the old key is known to others: then nothing is waited for.
    pub leaked: bool,
}

impl Run<'_> {
    /// When the last of all readers could read the new version, as far as is known.
    pub fn begun(&self) -> Timestamp {
        self.reached.map_or(self.promoted_at, |reached| reached.max(self.promoted_at))
    }

    /// When those readers should have changed over.
    fn settled(&self) -> Timestamp {
        after(self.begun(), self.policy.settling())
    }

    /// The earliest look that may open the gate and the last one.
    fn window(&self) -> (Timestamp, Timestamp) {
        let (earliest, last) = window(self.promoted_at, self.policy);
        let earliest = earliest.max(after(self.settled(), self.policy.quiet_window.get()));
        (earliest, last.max(earliest))
    }
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Make the old key Inactive.
    Open,
    /// It is Inactive already.
    AlreadyInactive,
    /// The old key, or the user, is gone.
    Gone,
    /// AWSCURRENT names something else: somebody took the matter over.
    StandDown,
    /// Look again then.
    Wait(Timestamp, String),
    /// The longest overlap has passed.
    Held(String),
}

/// The earliest look and the last one.
pub fn window(promoted_at: Timestamp, policy: &Policy) -> (Timestamp, Timestamp) {
    let settled = after(promoted_at, policy.settling());
    let earliest = after(promoted_at, policy.overlap.get()).max(after(settled, policy.quiet_window.get()));
    // A longest overlap that ends before the first useful look would hold every run.
    (earliest, after(promoted_at, policy.max_overlap.get()).max(earliest))
}

/// How often a gate that stays shut is looked at, at most and at least.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_hours(4));

/// How long a step of a run that a rollback has stopped may still be at work: a Lambda's longest time.
pub const IN_FLIGHT: Duration = Duration::from_secs(150);
/// How often, for that long, the key that was brought back is looked at.
pub const LOOK_BACK: Duration = Duration::from_secs(20);

/// How often a leaked key is looked at that cannot go yet.
const LEAKED: Duration = Duration::from_mins(5);

/// Decides. Anything unknown counts as in use.
pub fn decide(facts: &Facts, run: &Run<'_>) -> Gate {
    if facts.current.as_ref() != run.new.version.as_ref() {
        return Gate::StandDown;
    }
    let Some(old) = key::find(&facts.keys, &run.old.key) else { return Gate::Gone };
    if !old.is_active() {
        return Gate::AlreadyInactive;
    }
    let (_, last) = run.window();
    // A leaked key waits for nobody, but the pair that replaces it must work.
    let told = run.policy.when_still_in_use == WhenStillInUse::Deactivate && facts.now >= last;
    let gate = match shut(facts, run) {
        None => Gate::Open,
        Some(shut) if !shut.absolute && (run.leaked || told) => Gate::Open,
        Some(shut) => wait_or_hold(facts, run, shut.why),
    };
    match frozen(facts, run) {
        Some(frozen) => in_freeze(gate, frozen, facts.now),
        None => gate,
    }
}

/// The freeze that holds for this run.
fn frozen<'f>(facts: &'f Facts, run: &Run<'_>) -> Option<&'f Frozen> {
    facts.frozen.as_ref().filter(|_| !run.leaked)
}

/// What a freeze makes of the gate's word: nothing is opened in it, and nothing is left for good.
fn in_freeze(gate: Gate, frozen: &Frozen, now: Timestamp) -> Gate {
    let Some(next) = frozen.look_again(now) else { return gate };
    match gate {
        Gate::Open => Gate::Wait(next, frozen.why.clone()),
        Gate::Held(shut) => Gate::Wait(next, format!("{}, and {shut}", frozen.why)),
        gate => gate,
    }
}

struct Shut {
    why: String,
    /// No policy opens the gate against this.
    absolute: bool,
}

fn shut(facts: &Facts, run: &Run<'_>) -> Option<Shut> {
    let never = |why: String| Some(Shut { why, absolute: true });
    let unless_told = |why: String| Some(Shut { why, absolute: false });
    match key::find(&facts.keys, &run.new.key) {
        Some(new) if new.is_active() => {}
        _ => return never(format!("the current key {} is not Active", run.new.key)),
    }
    if facts.mode != Mode::Live {
        return never(format!("the installation is {}", facts.mode));
    }
    if let Some(Frozen { until: None, why }) = frozen(facts, run) {
        return never(why.clone());
    }
    // Where a leaked key is used as well is no reason to leave it to those who have it.
    let unless_leaked = |why: String| Some(Shut { why, absolute: !run.leaked });
    match &facts.rivals {
        None => return unless_leaked("it could not be read whether another secret holds it".into()),
        Some(rivals) if !rivals.is_empty() => {
            return unless_leaked(format!("another secret is tagged for this user: {}", rivals[0]));
        }
        Some(_) => {}
    }
    // Whoever reads the secret there still calls with the old key.
    if let Some(behind) = replica::behind(&facts.replicas, run.new.version.as_ref()) {
        return unless_leaked(behind);
    }
    let settled = run.settled();
    let (earliest, _) = run.window();
    let Some(last_use) = &facts.last_use else {
        return unless_told("its last use could not be read".into());
    };
    match last_use.at {
        Some(at) if at > settled => {
            let place = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
            unless_told(format!(
                "it was used at {at} for {} in {}, after its users should have changed over",
                place(&last_use.service),
                place(&last_use.region)
            ))
        }
        None if run.old.was_current => {
            unless_told("it was in service, yet IAM shows no date of its last use".into())
        }
        _ if facts.now < earliest => unless_told("the overlap is not over".into()),
        _ => None,
    }
}

fn wait_or_hold(facts: &Facts, run: &Run<'_>, why: String) -> Gate {
    let (earliest, last) = run.window();
    if facts.now >= last {
        return Gate::Held(why);
    }
    // An execution's history holds 25,000 events, some 14 for each look.
    let at_most = Duration::try_from(last.duration_since(earliest)).unwrap_or_default() / 500;
    let pause = (run.policy.quiet_window.get() / 2).max(at_most).clamp(LOOK_AGAIN.0, LOOK_AGAIN.1);
    let next = if run.leaked {
        // As soon as what keeps the gate shut may have passed; the history bounds this as well.
        after(facts.now, LEAKED.max(at_most / 3))
    } else if facts.now < earliest {
        earliest
    } else {
        after(facts.now, pause)
    };
    Gate::Wait(next.min(last), why)
}

#[cfg(test)]
mod tests;

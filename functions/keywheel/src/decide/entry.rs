//! Where a run begins: the facts of the user, the secret and the executions tell the phase.
//!
//! Resuming a held run, taking over an aborted one and starting afresh are all the same question. Whatever is
//! not understood ends in a reason, with nothing touched.

use jiff::Timestamp;

use super::DIES_LATE;
use crate::clock::after;
use crate::ids::{AccessKeyId, RunId, SecretArn, VersionId};
use crate::incident::{EVIDENCE, Record, RecordState};
use crate::key::{self, KeyFacts, LastUse};
use crate::rotation::{CurrentVersion, NewKey, OldKey, Phase, Reason, Suspect, Why};
use crate::switch::Mode;

/// What is known of the run that a version's id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Its execution still runs.
    Running(RunId),
    /// Its execution still runs, and the key that its version replaces had leaked.
    RunningLeaked(RunId),
    /// It was a run of this machine for this secret, and has ended.
    Ended(RunId),
    /// It has ended, and the key that its version replaces had leaked.
    EndedLeaked(RunId),
    /// No execution of ours has this name, or none that worked on this secret.
    NotOurs,
}

impl RunState {
    /// The run, where its execution still runs.
    pub const fn running(self) -> Option<RunId> {
        match self {
            Self::Running(run) | Self::RunningLeaked(run) => Some(run),
            _ => None,
        }
    }

    /// The run, where it has ended.
    pub const fn ended(self) -> Option<RunId> {
        match self {
            Self::Ended(run) | Self::EndedLeaked(run) => Some(run),
            _ => None,
        }
    }

    /// Whether the key that was replaced had leaked.
    pub const fn leaked(self) -> bool {
        matches!(self, Self::RunningLeaked(_) | Self::EndedLeaked(_))
    }

    /// The same, with this word on whether the key that was replaced had leaked.
    #[must_use]
    pub const fn knowing(self, leaked: bool) -> Self {
        match (self, leaked) {
            (Self::Running(run) | Self::RunningLeaked(run), false) => Self::Running(run),
            (Self::Running(run) | Self::RunningLeaked(run), true) => Self::RunningLeaked(run),
            (Self::Ended(run) | Self::EndedLeaked(run), false) => Self::Ended(run),
            (Self::Ended(run) | Self::EndedLeaked(run), true) => Self::EndedLeaked(run),
            (Self::NotOurs, _) => Self::NotOurs,
        }
    }

    /// What two runs on one version say together: one that is at work outweighs one that has ended, and that a
    /// key leaked is said by either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        let leaked = self.leaked() || other.leaked();
        let running = match self.running() {
            Some(run) => Some(run),
            None => other.running(),
        };
        let ended = match self.ended() {
            Some(run) => Some(run),
            None => other.ended(),
        };
        match (running, ended, leaked) {
            (Some(run), _, false) => Self::Running(run),
            (Some(run), _, true) => Self::RunningLeaked(run),
            (None, Some(run), false) => Self::Ended(run),
            (None, Some(run), true) => Self::EndedLeaked(run),
            (None, None, _) => Self::NotOurs,
        }
    }
}

/// A version that is neither current nor previous and holds AWSPENDING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub version: VersionId,
    /// The key it holds, where its value could be read.
    pub key: Option<AccessKeyId>,
    /// Whether all other fields are those of the current value.
    pub same_fields: bool,
    /// The run that wrote it.
    pub run: RunState,
}

/// What is on record of a key that was contained as leaked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The record.
    pub record: Record,
    /// The key's last use; asked for where the incident is closed.
    pub last_use: Option<LastUse>,
}

/// What the entry is decided from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// Why the run was started.
    pub reason: Reason,
    /// Whether a promotion is to be turned back.
    pub roll_back: bool,
    /// Whether only a plan is asked for.
    pub dry_run: bool,
    /// The installation's switch.
    pub mode: Mode,
    /// Other secrets whose tag names this user.
    pub rivals: Vec<SecretArn>,
    /// What AWSCURRENT names; `None` where the secret has no value.
    pub current: Option<CurrentVersion>,
    /// The run that the current version's id names. Looked up only where it matters.
    pub current_run: RunState,
    /// The key that AWSPREVIOUS holds. Read only where it matters.
    pub previous_key: Option<AccessKeyId>,
    /// The pending version, where it is not the current one.
    pub pending: Option<Pending>,
    /// The user's keys.
    pub keys: Vec<KeyFacts>,
    /// The key that its owner said is to be retired.
    pub retire: Option<AccessKeyId>,
    /// The superseded key that its owner said is to be kept.
    pub keep: Option<AccessKeyId>,
    /// What is on record of the key beside the current one, where it was contained as leaked.
    pub evidence: Option<Evidence>,
}

/// Where a run enters the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing may be done.
    Blocked(Why),
    /// The run enters at a phase, with what it knows of the keys.
    At(Start),
}

/// A phase to enter, and what it works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The phase.
    pub phase: Phase,
    /// The key that is or becomes current.
    pub new: Option<NewKey>,
    /// The key to be superseded.
    pub old: Option<OldKey>,
    /// Keys to be attributed first.
    pub suspects: Vec<Suspect>,
    /// Whether the run that is taken over was started because the current key had leaked: that holds for
    /// whoever finishes its work.
    pub leaked: bool,
    /// What the run will do, in words.
    pub plan: String,
}

fn blocked(code: &str, text: impl Into<String>, remedy: impl Into<String>) -> Entry {
    Entry::Blocked(Why::new(code, text, remedy))
}

/// Says where the run enters. `user` is for messages.
pub fn decide(facts: &Facts, user: &str) -> Entry {
    match place(facts, user) {
        Entry::At(start) if facts.mode != Mode::Live || facts.dry_run => {
            let (code, remedy) = match facts.mode {
                Mode::Live => ("DryRun", "Start again without dry_run to do it.".to_owned()),
                Mode::DryRun => ("DryRun", "`keywheel mode live` lets Keywheel change things.".to_owned()),
                Mode::Paused => ("Paused", "`keywheel mode live` ends the pause.".to_owned()),
            };
            blocked(code, format!("Nothing was changed. The run would {}.", start.plan), remedy)
        }
        entry => entry,
    }
}

fn place(facts: &Facts, user: &str) -> Entry {
    if let Some(rival) = facts.rivals.first() {
        return blocked(
            "TwoManagedSecrets",
            format!("Another secret is tagged for user {user} as well: {rival}."),
            "A user's key lives in one secret: take the tag keywheel:user off the other one.",
        );
    }
    let current_key = facts.current.as_ref().and_then(|current| current.key.as_ref());
    if let Some(id) = current_key
        && let Some(refusal) = current_is_unfit(facts, user, id)
    {
        return refusal;
    }
    if let Some(pending) = &facts.pending
        && let Some(run) = pending.run.running()
    {
        return running(run, user);
    }
    let others: Vec<&KeyFacts> = facts.keys.iter().filter(|key| Some(&key.id) != current_key).collect();
    if facts.roll_back {
        return backwards(facts, user, current_key, &others);
    }
    match others.as_slice() {
        [] => create(facts, user, current_key, None),
        [other] => one_other(facts, user, current_key, other),
        _ => slots_full(facts, user, &others),
    }
}

fn current_is_unfit(facts: &Facts, user: &str, id: &AccessKeyId) -> Option<Entry> {
    match key::find(&facts.keys, id) {
        None if facts.reason != Reason::Leaked && !facts.roll_back => Some(blocked(
            "CurrentKeyUnknown",
            format!("The secret holds key {id}, which is not a key of user {user}."),
            "Store the pair that is in use, or remove AccessKeyId and SecretAccessKey from the value to begin anew.",
        )),
        Some(key) if !key.is_active() && facts.reason != Reason::Leaked && !facts.roll_back => Some(blocked(
            "CurrentKeyInactive",
            format!(
                "The secret holds key {id} of user {user}, which is Inactive: its consumers are refused now."
            ),
            "Make the key Active again; where it was made Inactive because it leaked, start with reason \"leaked\".",
        )),
        _ => None,
    }
}

fn running(run: RunId, user: &str) -> Entry {
    blocked(
        "RunInProgress",
        format!("Run {run} is at work on user {user}."),
        format!("`keywheel status --user {user}` shows where it is."),
    )
}

fn slots_full(facts: &Facts, user: &str, others: &[&KeyFacts]) -> Entry {
    let names: Vec<String> = others.iter().map(|key| format!("{} ({:?})", key.id, key.status)).collect();
    blocked(
        "SlotsFull",
        format!(
            "User {user} has {} keys, and Keywheel does not know {}. It never frees a slot on its own.",
            facts.keys.len(),
            names.join(", "),
        ),
        format!(
            "If nobody needs it: `keywheel enroll --user {user} --secret <secret> --retire {}`, or delete it yourself.",
            others[0].id
        ),
    )
}

fn create(facts: &Facts, user: &str, current_key: Option<&AccessKeyId>, old: Option<OldKey>) -> Entry {
    // A leaked key stays as evidence: containment made it Inactive, its incident decides on its end.
    let old = old.or_else(|| current_key.map(|key| OldKey { key: key.clone(), was_current: true }));
    let then = match &old {
        Some(old) if facts.reason == Reason::Leaked => format!("leave the leaked key {} Inactive", old.key),
        Some(old) => format!("retire key {} after overlap and grace", old.key),
        None => "end".to_owned(),
    };
    let plan = format!("make a new key for {user}, validate it, move AWSCURRENT to it, and {then}");
    Entry::At(Start { phase: Phase::Create, new: None, old, suspects: Vec::new(), leaked: false, plan })
}

/// The current key as the one that stays.
fn staying(facts: &Facts) -> Option<NewKey> {
    let current = facts.current.as_ref()?;
    Some(NewKey { key: current.key.clone()?, version: Some(current.version.clone()) })
}

fn one_other(facts: &Facts, user: &str, current_key: Option<&AccessKeyId>, other: &KeyFacts) -> Entry {
    if let Some(pending) = facts.pending.as_ref().filter(|pending| pending.key.as_ref() == Some(&other.id)) {
        return take_over_pending(user, current_key, other, pending);
    }
    let retired = facts.retire.as_ref() == Some(&other.id);
    if current_key.is_none() {
        // First adoption: a slot is free, and what is there is a stranger's unless its owner said otherwise.
        let old = retired.then(|| OldKey { key: other.id.clone(), was_current: false });
        return create(facts, user, None, old);
    }
    let superseded = facts.previous_key.as_ref() == Some(&other.id);
    if superseded && let Some(run) = facts.current_run.running() {
        return running(run, user);
    }
    // Its own run could not make it Inactive, and was Held: whoever comes next does so, without overlap.
    let at_large = superseded && facts.current_run.leaked() && other.is_active();
    let evidence = on_record(facts, &other.id);
    if facts.reason == Reason::Leaked && !at_large && (superseded || retired || evidence.is_some()) {
        // The slot that a replacement needs is taken; which way out is right is for a person. A key that nobody knows
        // may be what an earlier replacement has lost: that is found out below, as in any run.
        return slots_full(facts, user, &[other]);
    }
    if facts.keep.as_ref() == Some(&other.id) && facts.reason != Reason::Leaked {
        return blocked(
            "OldKeyKept",
            format!("The superseded key {} of user {user} is kept by its owner's word.", other.id),
            format!(
                "To let go of it: `keywheel enroll --user {user} --secret <secret> --retire {}`.",
                other.id
            ),
        );
    }
    if at_large {
        return Entry::At(Start {
            phase: Phase::TakeOver,
            new: staying(facts),
            old: Some(OldKey { key: other.id.clone(), was_current: true }),
            suspects: Vec::new(),
            leaked: true,
            plan: format!("make the leaked key {} Inactive and leave it as evidence", other.id),
        });
    }
    if let Some(evidence) = evidence.filter(|_| !other.is_active() && !retired) {
        return leaked_before(facts, user, evidence, superseded);
    }
    if superseded && !retired && facts.current_run.leaked() {
        return leaked_key_kept(user, &other.id);
    }
    // Only a promotion of ours makes a key superseded: the current version's id must name a run of ours.
    let ours = superseded && matches!(facts.current_run, RunState::Ended(_));
    if !ours && !retired {
        let suspect = Suspect { key: other.id.clone(), created: other.created, stored_by: None };
        if superseded {
            // A version of this secret names it, so it is no orphan, and a person put it there.
            return slots_full(facts, user, &[other]);
        }
        return Entry::At(Start {
            phase: Phase::Clear,
            new: None,
            old: current_key.map(|key| OldKey { key: key.clone(), was_current: true }),
            suspects: vec![suspect],
            leaked: false,
            plan: format!(
                "find out from CloudTrail whether key {} is an orphan of an ended run, and only then delete it and go on",
                other.id
            ),
        });
    }
    // A retired key that AWSPREVIOUS names was in service, whoever superseded it.
    let old = Some(OldKey { key: other.id.clone(), was_current: superseded });
    let plan = if other.is_active() {
        format!(
            "wait until the old key {} is quiet, make it Inactive, and delete it after the grace",
            other.id
        )
    } else {
        format!("delete the old key {}, which is Inactive, after a full grace", other.id)
    };
    Entry::At(Start {
        phase: Phase::TakeOver,
        new: staying(facts),
        old,
        suspects: Vec::new(),
        leaked: false,
        plan,
    })
}

fn leaked_key_kept(user: &str, other: &AccessKeyId) -> Entry {
    blocked(
        "LeakedKeyKept",
        format!("Key {other} of user {user} leaked and is kept as evidence; it fills the second slot."),
        format!(
            "When everything was dealt with: `keywheel incident {other} --close`. If the slot is wanted sooner than the evidence time allows: `keywheel enroll --user {user} --secret <secret> --retire {other}`."
        ),
    )
}

/// What is on record of this key, where it was contained as leaked.
fn on_record<'f>(facts: &'f Facts, key: &AccessKeyId) -> Option<&'f Evidence> {
    facts.evidence.as_ref().filter(|evidence| evidence.record.key == *key)
}

/// The key beside the current one was contained as leaked. Its incident closed, its evidence time over and no use of
/// it in all that time, it goes as a superseded one does: after a full grace.
fn leaked_before(facts: &Facts, user: &str, evidence: &Evidence, superseded: bool) -> Entry {
    let Record { key, at, state, .. } = &evidence.record;
    if *state != RecordState::Closed {
        return leaked_key_kept(user, key);
    }
    let until = after(*at, EVIDENCE);
    if facts.now < until {
        return blocked(
            "EvidenceKept",
            format!(
                "Key {key} of user {user} leaked and is kept as evidence until {until}; it fills the second slot."
            ),
            format!(
                "A run after that deletes it. If the slot is wanted sooner: `keywheel enroll --user {user} --secret <secret> --retire {key}`."
            ),
        );
    }
    // No date is an answer too, never used: a use of weeks ago is on record by now.
    let Some(last_use) = &evidence.last_use else { return leaked_key_kept(user, key) };
    if let Some(used) = last_use.at.filter(|used| *used > after(*at, DIES_LATE)) {
        return blocked(
            "EvidenceUsed",
            format!(
                "The leaked key {key} of user {user} was used at {used}, after it had been contained at {at}."
            ),
            format!("Look at what it did, then `keywheel revoke {key}`: its evidence time begins anew."),
        );
    }
    Entry::At(Start {
        phase: Phase::TakeOver,
        new: staying(facts),
        old: Some(OldKey { key: key.clone(), was_current: superseded }),
        suspects: Vec::new(),
        leaked: false,
        plan: format!("delete the leaked key {key}, whose evidence time is over, after a full grace"),
    })
}

fn take_over_pending(
    user: &str,
    current_key: Option<&AccessKeyId>,
    other: &KeyFacts,
    pending: &Pending,
) -> Entry {
    let Some(run) = pending.run.ended() else {
        return blocked(
            "PendingNotOurs",
            format!(
                "AWSPENDING names version {} with key {}, which no run of Keywheel wrote.",
                pending.version, other.id
            ),
            "Another rotation works on this secret: end it, or take AWSPENDING off that version.",
        );
    };
    let old = current_key.map(|key| OldKey { key: key.clone(), was_current: true });
    if other.is_active() && pending.same_fields {
        return Entry::At(Start {
            phase: Phase::Validate,
            new: Some(NewKey { key: other.id.clone(), version: Some(pending.version.clone()) }),
            old,
            suspects: Vec::new(),
            leaked: pending.run.leaked(),
            plan: format!("take over key {} of {user}, which the ended run {run} had stored", other.id),
        });
    }
    Entry::At(Start {
        phase: Phase::Clear,
        new: None,
        old,
        suspects: vec![Suspect { key: other.id.clone(), created: other.created, stored_by: Some(run) }],
        leaked: pending.run.leaked(),
        plan: format!(
            "delete key {} of {user}, which the ended run {run} had stored and never promoted, and go on",
            other.id
        ),
    })
}

fn backwards(facts: &Facts, user: &str, current_key: Option<&AccessKeyId>, others: &[&KeyFacts]) -> Entry {
    let previous = facts.previous_key.as_ref();
    match (current_key, others) {
        (Some(_), [other])
            if previous == Some(&other.id)
                && (facts.current_run.leaked() || on_record(facts, &other.id).is_some()) =>
        {
            leaked_key_kept(user, &other.id)
        }
        // Only a promotion of ours is turned back: what a person stored would be retired as if we had superseded it.
        (Some(current), [other]) if previous == Some(&other.id) && facts.current_run != RunState::NotOurs => {
            Entry::At(Start {
                phase: Phase::Backwards,
                // Still the old roles: RollBack swaps them once AWSCURRENT has moved.
                new: staying(facts),
                old: Some(OldKey { key: other.id.clone(), was_current: true }),
                suspects: Vec::new(),
                leaked: false,
                plan: format!("bring key {} of {user} back and supersede {current}", other.id),
            })
        }
        _ => blocked(
            "NothingToRollBack",
            format!("User {user} has no key that AWSPREVIOUS names and that a run of Keywheel superseded."),
            "After the delete there is no way back; rotate again for a new key.",
        ),
    }
}

#[cfg(test)]
mod tests;

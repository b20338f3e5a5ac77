//! Whose keys nobody uses, by the credential report: who is asked for by name, and which of a user's keys it may mean.
//!
//! The report has the day on which a key was switched last, which no other call tells, and no ids. A key is meant by
//! every row that it may stand in: made no later than that row says, and used then. Only where all of those have been
//! quiet for long is it nominated. So a key that somebody has made Active again counts from that day, and stays.

use jiff::Timestamp;

use super::Desk;
use crate::clock::after;
use crate::fleet::FleetPolicy;
use crate::fleet::estate::{Estate, Row, Slot, Used};
use crate::fleet::plan::{Action, Line};
use crate::fleet::policy::{Removal, Terms};
use crate::key::KeyFacts;

/// A user with a key that nobody has used for as long as its policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quiet {
    /// The user.
    pub user: String,
    /// The policy's rule that says so.
    pub rule: String,
    /// What becomes of such a key.
    pub unused: Removal,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Its account.
    account: String,
    slots: Vec<Slot>,
    /// How many of its keys were Inactive.
    inactive: usize,
    now: Timestamp,
}

/// The users whose keys may go: not exempt, and with an Active key that has been quiet for long. One whose rule is not
/// known, or whose keys were only listed, is not among them.
pub fn quiet(policy: &FleetPolicy, estate: &Estate, now: Timestamp) -> Vec<Quiet> {
    let desk = Desk::new(policy, estate, now);
    estate.users.iter().filter_map(|row| desk.quiet(row)).collect()
}

impl Desk<'_> {
    fn quiet(&self, row: &Row) -> Option<Quiet> {
        if self.exemption(row).is_some() {
            return None;
        }
        let decided = self.policy.decide(&self.subject(row)).ok()?;
        let Terms { unused, owner, .. } = decided.terms;
        let quiet = Quiet {
            user: row.user.clone(),
            rule: decided.rule,
            unused: unused?,
            owner,
            account: self.estate.account.clone(),
            slots: row.keys.iter().filter(|slot| slot.active).cloned().collect(),
            inactive: row.keys.iter().filter(|slot| !slot.active).count(),
            now: self.now,
        };
        quiet.slots.iter().any(|slot| quiet.is_quiet(slot)).then_some(quiet)
    }
}

impl Quiet {
    /// Whether the row's key has been neither used nor switched for long.
    fn is_quiet(&self, slot: &Slot) -> bool {
        let last = match (slot.since, slot.used) {
            (Some(since), Used::At(at)) => since.max(at),
            (Some(since), Used::Never) => since,
            (None, _) | (_, Used::Unknown) => return false,
        };
        after(last, self.unused.disable_after.get()) <= self.now
    }

    /// Whether as many keys are Inactive as the report says, or more. Where fewer are, somebody has made one Active again
    /// since, or deleted one: it would be taken for another row's, and no row says when it was switched.
    pub fn is_of(&self, keys: &[KeyFacts]) -> bool {
        keys.iter().filter(|key| !key.is_active()).count() >= self.inactive
    }

    /// Whether the report says of a key, whichever row is its own, that it has been quiet for long.
    pub fn means(&self, key: &KeyFacts, used: Used) -> bool {
        let Some(created) = key.created else { return false };
        let mut own = self.slots.iter().filter(|slot| {
            // Both to the second: IAM's report knows no less.
            let may_be_older = slot.since.is_none_or(|since| created.as_second() <= since.as_second());
            may_be_older && are_same(slot.used, used)
        });
        let Some(first) = own.next() else { return false };
        key.is_active() && self.is_quiet(first) && own.all(|slot| self.is_quiet(slot))
    }

    /// What a plan says of it.
    pub fn line(&self, key: Option<&KeyFacts>, code: &'static str, why: String) -> Line {
        Line {
            user: self.user.clone(),
            account: self.account.clone(),
            key_id: key.map(|key| key.id.clone()),
            age_days: key
                .and_then(|key| key.created)
                .map(|made| self.now.duration_since(made).as_hours() / 24),
            rule: Some(self.rule.clone()),
            wave: None,
            action: Action::Find,
            code,
            why,
            secret: None,
            owner: self.owner.clone(),
            terms: None,
        }
    }
}

/// Whether two sources tell of the same use. What one of them does not know may be any.
fn are_same(one: Used, other: Used) -> bool {
    match (one, other) {
        (Used::At(one), Used::At(other)) => one.as_second() == other.as_second(),
        (Used::Never, Used::Never) | (Used::Unknown, _) | (_, Used::Unknown) => true,
        (Used::At(_), Used::Never) | (Used::Never, Used::At(_)) => false,
    }
}

#[cfg(test)]
mod tests;

//! When each managed user's key is due, and of which keys somebody is to be told ahead.
//!
//! All of it comes from what a plan reads anyway: warning five thousand users takes no call more than warning none.
//! What that costs: the report is up to four hours old, so that of a key that was rotated since somebody may still be
//! told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{Desk, Managed};
use crate::clock::after;
use crate::fleet::FleetPolicy;
use crate::fleet::estate::{Blind, Estate, Row};
use crate::ids::SecretArn;

/// A key that is not due yet, and is within the time that its owner is told before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Soon {
    /// The user.
    pub user: String,
    /// Its account.
    pub account: String,
    /// Its secret.
    pub secret: SecretArn,
    /// Who answers for the key.
    pub owner: Option<String>,
    /// The key's age in whole days.
    pub age_days: i64,
    /// When it is due.
    pub due: Timestamp,
}

/// When keys are due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calendar {
    /// By managed user; `None` where it is not known.
    pub due: BTreeMap<String, Option<Timestamp>>,
    /// The keys that are due soon, in their order.
    pub soon: Vec<Soon>,
    /// Whether everything could be read: who is not in `due` is then no managed user any more.
    pub complete: bool,
}

/// When the keys of an account are due.
pub fn calendar(policy: &FleetPolicy, estate: &Estate, now: Timestamp) -> Calendar {
    let desk = Desk::new(policy, estate, now);
    // Which rotations run says nothing of who is there.
    let complete = estate.blind.iter().all(|blind| matches!(blind, Blind::Runs { .. }));
    let mut calendar = Calendar { complete, ..Calendar::default() };
    for row in &estate.users {
        let due = match desk.managed(row) {
            None => continue,
            Some(Err(_)) => None,
            Some(Ok(managed)) => since(row, &managed).map(|since| {
                let due = after(since, managed.decided.terms.max_age.get());
                calendar.soon.extend(desk.soon(row, &managed, since, due));
                due
            }),
        };
        calendar.due.insert(row.user.clone(), due);
    }
    calendar.soon.sort_by(|a, b| (a.due, &a.user).cmp(&(b.due, &b.user)));
    calendar
}

/// Since when a user's current key is as it is. In an overlap the newest one is current; what else two keys may mean is
/// told by the plan. As there, a secret that nobody has changed for longer holds a key that is as old.
fn since(row: &Row, managed: &Managed<'_>) -> Option<Timestamp> {
    let active = row.keys.iter().filter(|key| key.active);
    let dates: Option<Vec<Timestamp>> = active.map(|key| key.since).collect();
    let newest = dates?.into_iter().max()?;
    Some(managed.secret.changed.map_or(newest, |changed| newest.min(changed)))
}

impl Desk<'_> {
    /// A key that is due then, where it is soon. One that is due already is rotated, and an exempt one is not.
    fn soon(&self, row: &Row, managed: &Managed<'_>, since: Timestamp, due: Timestamp) -> Option<Soon> {
        let terms = &managed.decided.terms;
        let told_from = after(self.now, terms.warn?.get());
        let near = self.now < due && due <= told_from;
        (near && self.exemption(row).is_none()).then(|| Soon {
            user: row.user.clone(),
            account: self.estate.account.clone(),
            secret: managed.secret.arn.clone(),
            owner: terms.owner.clone(),
            age_days: self.days(Some(since)).unwrap_or_default(),
            due,
        })
    }
}

#[cfg(test)]
mod tests;

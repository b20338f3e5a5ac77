//! When each managed user's key is due, and of which keys somebody is to be told ahead.
//!
//! All of it comes from what a plan reads anyway: warning five thousand users takes no call more than warning none.
//! What that costs: the report is up to four hours old, so that of a key that was rotated since somebody may still be
//! told.

use std::collections::{BTreeMap, BTreeSet};

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
    /// By managed user; `None` where it is not known. Those of other accounts than the installation's own are called
    /// `<account>/<user>`: no user's name has a slash.
    pub due: BTreeMap<String, Option<Timestamp>>,
    /// The keys that are due soon, in their order.
    pub soon: Vec<Soon>,
    /// The accounts that are not the installation's own.
    pub elsewhere: BTreeSet<String>,
    /// Whether everything could be read: who is not in `due` is then no managed user any more.
    pub complete: bool,
}

impl Calendar {
    /// What a user is called in `due`.
    pub fn name_of(&self, soon: &Soon) -> String {
        if self.elsewhere.contains(&soon.account) {
            called(&soon.account, &soon.user)
        } else {
            soon.user.clone()
        }
    }
}

/// What a user of another account is called.
fn called(account: &str, user: &str) -> String {
    format!("{account}/{user}")
}

/// When the keys of several accounts are due; the first one is the installation's own.
pub fn calendar_of_all(policy: &FleetPolicy, estates: &[&Estate], now: Timestamp) -> Calendar {
    let mut all = Calendar { complete: true, ..Calendar::default() };
    for (index, estate) in estates.iter().enumerate() {
        let one = calendar(policy, estate, now);
        all.complete &= one.complete;
        all.soon.extend(one.soon);
        if index == 0 {
            all.due.extend(one.due);
        } else {
            let account = &estate.account;
            all.due.extend(one.due.into_iter().map(|(user, due)| (called(account, &user), due)));
            all.elsewhere.insert(account.clone());
        }
    }
    all.soon.sort_by(|a, b| (a.due, &a.user, &a.account).cmp(&(b.due, &b.user, &b.account)));
    all
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

//! Who is told that its key is due soon, and what is remembered of it.
//!
//! Two things must agree that cannot be written at once: the document, which carries the notices, and the object that
//! remembers whom they are for. The object is written first, just before the document is returned. An entry says which
//! campaign warns, and the object which execution's document carries that campaign's warnings. So whatever is lost in
//! between is found again:
//!
//! - The reply is lost, and the step runs again: its own execution is the one that carries. It tells the same users
//!   under the same ids, and nobody else: a document that is dropped must not have warned anybody.
//! - The execution is stopped, fails, or cannot tell its notices for a day: its output, the only proof, does not say
//!   that they were told. The next campaign carries them, under the id of the first: whoever has them sees a repeat.
//! - The object was not written: nobody is in it, and the document does not carry the notices either. The next campaign
//!   warns, late.
//!
//! Once an output says that a campaign's warnings were told, nobody is asked about them again, and its entries stay
//! until their key is another one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::campaign::Campaign;
use crate::decide::due::{Calendar, Soon};
use crate::fleet::policy::Freeze;
use crate::fleet::warned::{Warned, Warnings};
use crate::ids::RunId;
use crate::rotation::Delivery;
use crate::switch::Mode;

/// What has become of an execution that carries warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// It runs, or nobody could say: it may still tell them.
    Open,
    /// It has ended, and has told the warnings of these campaigns.
    Ended(Vec<RunId>),
}

impl Carrier {
    /// One that has ended; `output` is its document, where it left one.
    pub fn ended(output: Option<Campaign>) -> Self {
        let told = output.filter(|doc| doc.delivery == Delivery::Done);
        Self::Ended(told.map(|doc| doc.carries).unwrap_or_default())
    }

    fn has_told(&self, campaign: RunId) -> bool {
        matches!(self, Self::Ended(told) if told.contains(&campaign))
    }
}

/// The other executions that carry warnings of somebody.
pub fn carriers<'a>(before: &'a Warnings, own: &str) -> BTreeSet<&'a str> {
    let carried =
        before.carried.iter().filter(|(campaign, by)| *by != own && is_of_somebody(before, **campaign));
    carried.map(|(_, by)| by.as_str()).collect()
}

fn is_of_somebody(warnings: &Warnings, campaign: RunId) -> bool {
    warnings.users.values().any(|warned| warned.by == campaign)
}

/// Who is told now, each with the campaign that warns, and what is remembered then. `own` is the campaign that asks and
/// its execution.
pub fn tell<'c>(
    before: &Warnings,
    carriers: &BTreeMap<String, Carrier>,
    calendar: &'c Calendar,
    (campaign, own): (RunId, &str),
    now: Timestamp,
) -> (Warnings, Vec<(RunId, &'c Soon)>) {
    let has_told = |by: &str, campaign| carriers.get(by).is_some_and(|by| by.has_told(campaign));
    // Those that this document carries: nobody else can tell them any more.
    let ours = |campaign: &RunId| {
        let by = before.carried.get(campaign);
        by.is_some_and(|by| {
            by == own || matches!(carriers.get(by), Some(Carrier::Ended(_))) && !has_told(by, *campaign)
        })
    };
    // An attempt of this very step has decided already.
    let is_decided = before.carried.contains_key(&campaign);
    let mut after = Warnings { users: kept(before, calendar), ..Warnings::default() };
    let mut telling = Vec::new();
    for soon in &calendar.soon {
        let user = calendar.name_of(soon);
        if let Some(warned) = after.users.get(&user) {
            if ours(&warned.by) {
                telling.push((warned.by, soon));
            }
        } else if !is_decided {
            let warned = Warned { due: soon.due, warned: now, by: campaign };
            after.users.insert(user, warned);
            telling.push((campaign, soon));
        }
    }
    for (campaign, by) in &before.carried {
        if is_of_somebody(&after, *campaign) && !has_told(by, *campaign) {
            let by = if ours(campaign) { own } else { by.as_str() };
            after.carried.insert(*campaign, by.to_owned());
        }
    }
    after.carried.insert(campaign, own.to_owned());
    (after, telling)
}

/// What is still to be remembered: of users that are there, with the key that was warned of. What is not known, and who
/// could not be read, is remembered.
fn kept(before: &Warnings, calendar: &Calendar) -> BTreeMap<String, Warned> {
    let holds = |(user, warned): &(&String, &Warned)| match calendar.due.get(*user) {
        Some(Some(due)) => warned.is_for(*due),
        Some(None) => true,
        None => !calendar.complete,
    };
    let kept = before.users.iter().filter(holds);
    kept.map(|(user, warned)| (user.clone(), warned.clone())).collect()
}

/// What keeps keys from being rotated now, for whoever is told of one.
pub fn held(mode: Mode, freeze: Option<&Freeze>) -> Option<String> {
    if mode != Mode::Live {
        return Some(format!(
            "The mode of this installation is {mode}: until it is live nothing is rotated."
        ));
    }
    freeze.map(|freeze| {
        let reason: String = freeze.reason.chars().take(200).collect();
        format!("Nothing is rotated until {} ({reason}).", freeze.until)
    })
}

#[cfg(test)]
mod tests;

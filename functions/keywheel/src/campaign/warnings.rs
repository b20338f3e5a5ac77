//! What a campaign tells ahead: one notice for each owner, of all keys that it answers for and that are due soon.
//!
//! Notices travel in the document, which fits into a state whatever the fleet's size: of many owners each is told of
//! fewer users by name, and where they are too many for that as well, the last notice says how many are left. All of
//! them, with their owners, are in a list in the bucket.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Campaign;
use crate::decide::due::Soon;
use crate::ids::RunId;
use crate::notice::{Notice, NoticeKind, Outbox};

/// How many users a notice names at most.
const NAMED: usize = 100;
/// How many users all notices together name, about; each names one at the least.
const NAMED_IN_ALL: usize = 600;
/// How many bytes of the document are theirs: half of what a state may hold. The rest has the waves, those that failed,
/// the last notice and an error.
const ROOM: usize = 128 * 1024;

/// What an owner is called that nobody has named.
const NOBODY: &str = "nobody";
/// The longest name of an owner in a notice.
const LONGEST: usize = 100;

/// An owner's name where notices are told apart by it. It stands in an attribute of a message: one that a channel does
/// not take would hold up all that wait behind it.
fn label(owner: Option<&str>) -> String {
    let plain = |letter: &char| letter.is_alphanumeric() || letter.is_ascii_graphic() || *letter == ' ';
    let name: String = owner.unwrap_or_default().chars().filter(plain).take(LONGEST).collect();
    match name.trim() {
        "" => NOBODY.to_owned(),
        name => name.to_owned(),
    }
}

/// The owner whom a notice is for; `None` where it is for several, or for nobody.
fn owner(notice: &Notice) -> Option<&str> {
    let (_, owner) = notice.id.split_once("/DueSoon/")?;
    (owner != NOBODY).then_some(owner)
}

/// Whose keys a notice is about, in a mail's subject: ASCII alone.
pub(super) fn whose(notice: &Notice) -> String {
    let Some(owner) = owner(notice) else { return "keys".to_owned() };
    let ascii: String = owner.chars().map(|letter| if letter.is_ascii() { letter } else { '?' }).collect();
    format!("keys of {ascii}")
}

fn keys(count: usize) -> String {
    if count == 1 { "1 key".to_owned() } else { format!("{count} keys") }
}

impl Campaign {
    /// Where the list of all that are warned lies: a line of JSON for each.
    pub fn due_soon(&self) -> String {
        self.place("due-soon.jsonl")
    }

    /// Puts warnings into the outbox, each under the id of the campaign that warns; `held` says what keeps keys from
    /// being rotated now. The keys that are due first come first.
    pub fn warn(&mut self, at: Timestamp, telling: &[(RunId, &Soon)], held: Option<&str>) {
        let campaigns: BTreeSet<RunId> = telling.iter().map(|(campaign, _)| *campaign).collect();
        self.carries = campaigns.into_iter().collect();
        self.counts.warned = telling.len();
        let mut owners: BTreeMap<(RunId, String), Vec<&Soon>> = BTreeMap::new();
        for (campaign, soon) in telling {
            owners.entry((*campaign, label(soon.owner.as_deref()))).or_default().push(soon);
        }
        let mut owners: Vec<_> = owners.into_iter().collect();
        owners.sort_by_key(|(_, keys)| keys.iter().map(|soon| soon.due).min());
        let most = (NAMED_IN_ALL / owners.len().max(1)).clamp(1, NAMED);
        let (mut room, mut left) = (ROOM, Vec::new());
        for ((campaign, owner), keys) in owners {
            let text = self.due_soon_text(&owner, &keys, most, held);
            let notice = Notice::new(campaign, NoticeKind::DueSoon, &format!("/{owner}"), at, text);
            let size = serde_json::to_string(&notice).map_or(usize::MAX, |text| text.len());
            if let Some(rest) = room.checked_sub(size) {
                room = rest;
                self.tell(notice);
            } else {
                left.push(keys.len());
            }
        }
        if !left.is_empty() {
            let text = format!(
                "{} of more owners ({}) are due soon: too many to be told one by one. All of them: {}.{}",
                keys(left.iter().sum()),
                left.len(),
                self.list(),
                behind(held)
            );
            self.tell(Notice::new(self.campaign, NoticeKind::DueSoon, "", at, text));
        }
    }

    /// Says that nobody could be warned.
    pub fn warn_nobody(&mut self, at: Timestamp, why: &str) {
        let text = format!(
            "Owners of keys that are due soon were not told: {why}. The next campaign tells them, where their keys are not due by then."
        );
        self.tell(Notice::new(self.campaign, NoticeKind::DueSoon, "", at, text));
    }

    fn list(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.due_soon())
    }

    fn due_soon_text(&self, owner: &str, soon: &[&Soon], most: usize, held: Option<&str>) -> String {
        let whose =
            if owner == NOBODY { " that nobody answers for".to_owned() } else { format!(" of {owner}") };
        let are = if soon.len() == 1 { "is" } else { "are" };
        let line = |soon: &&Soon| {
            let due = soon.due.strftime("%Y-%m-%d");
            format!("\n- {}: {} days old, due on {due}", soon.user, soon.age_days)
        };
        let named: String = soon.iter().take(most).map(line).collect();
        let more = match soon.len().saturating_sub(most) {
            0 => String::new(),
            more => format!("\n- and {more} more: {}", self.list()),
        };
        format!(
            "{}{whose} {are} due soon, and rotated by a campaign from that day on. What reads the secret gets the new key by itself; a copy kept elsewhere ends with the old one.{}{named}{more}",
            keys(soon.len()),
            behind(held)
        )
    }

    /// A warning's event for programs. Without waves and failures: ten of them travel in one call.
    pub(super) fn warning(&self, notice: &Notice) -> Value {
        json!({
            "schema": self.schema,
            "id": notice.id,
            "kind": notice.kind.name(),
            "at": notice.at,
            "campaign": self.campaign,
            "execution": self.execution,
            "reason": self.request.reason,
            "policy_version": self.policy_version,
            "owner": owner(notice),
            "list": self.list(),
            "outcome": null,
            "why": null,
            "title": self.subject(notice),
            "text": notice.text,
        })
    }
}

fn behind(held: Option<&str>) -> String {
    held.map_or_else(String::new, |held| format!(" {held}"))
}

#[cfg(test)]
mod tests;

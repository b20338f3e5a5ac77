//! Whether a campaign goes on: what stands against it before its first batch, and what its last batch says.
//!
//! A batch is counted when each of its rotations has promoted its key or has ended without. Nothing of a wave that
//! failed beyond the tolerance, and nothing behind it, is started any more; what was started goes on by itself.

use std::time::Duration;

use jiff::Timestamp;

use crate::campaign::{Campaign, Failed, Item, Outcome};
use crate::clock::after;
use crate::fleet::policy::Freeze;
use crate::rotation::{self, Reason, Rotation, Why};
use crate::switch::Mode;

/// How long a rotation may take until it has promoted its key: an orphan's record is awaited for half an hour, and
/// IAM's throttling passes. A machine that waits for its answer waits as long.
pub const LATE: Duration = Duration::from_hours(2);

/// How long batches of a plan are begun.
const VALID: Duration = Duration::from_hours(24);

/// How soon a batch is looked at again at the earliest.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Why a rotation is Blocked that finds another run at work.
const IN_PROGRESS: &str = "RunInProgress";

/// What has become of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its new key is current; or, where it only retires an old one, it has begun to.
    Promoted,
    /// It has not promoted, and runs.
    OnItsWay,
    /// It left the secret to another run, which was at work on it: one of a campaign that was stopped, say.
    Left,
    /// It has ended without a promotion, or was never started.
    Failed {
        /// Why, in one word.
        code: String,
        /// Why, in a sentence.
        text: String,
    },
}

impl State {
    /// A rotation that nobody has started.
    pub fn not_started() -> Self {
        Self::Failed { code: "NotStarted".into(), text: "Its execution could not be started.".into() }
    }

    /// What an execution that is over says; `output` is its document, where it left one that can be read.
    pub fn of_ended(status: &str, output: Option<&Rotation>) -> Self {
        let Some(doc) = output else {
            let text = format!("Its execution ended {status} without a word.");
            return Self::Failed { code: status.to_owned(), text };
        };
        let back = doc.outcome == Some(rotation::Outcome::RolledBack);
        if doc.promoted_at.is_some() && !back {
            return Self::Promoted;
        }
        if doc.why.as_ref().is_some_and(|why| why.code == IN_PROGRESS) {
            return Self::Left;
        }
        let (code, text) = doc.why.as_ref().map_or_else(
            || (status.to_owned(), format!("Its execution ended {status}.")),
            |why| (why.code.clone(), why.text.clone()),
        );
        Self::Failed { code, text }
    }
}

/// What comes after the plan or a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The next batch is begun.
    Go,
    /// The campaign ends.
    End(Outcome, Why),
}

fn end(outcome: Outcome, code: &str, text: impl Into<String>, remedy: impl Into<String>) -> Next {
    Next::End(outcome, Why::new(code, text, remedy))
}

/// The freeze that holds.
fn frozen(doc: &Campaign, now: Timestamp) -> Option<&Freeze> {
    doc.freeze.iter().find(|freeze| freeze.holds(now))
}

/// Whether anything is started at all, once the plan is made.
pub fn begin(doc: &Campaign, mode: Mode, now: Timestamp) -> Next {
    if let Some(freeze) = frozen(doc, now) {
        let text = format!("Nothing is rotated until {} ({}).", freeze.until, freeze.reason);
        return end(Outcome::Refused, "Frozen", text, "");
    }
    match mode {
        _ if doc.request.dry_run => end(Outcome::Planned, "DryRun", "The request asks for a plan only.", ""),
        Mode::DryRun => end(
            Outcome::Planned,
            "ModeIsDryRun",
            "The mode of this installation is dry-run: nothing is started.",
            "`keywheel mode live` lets the next campaign rotate.",
        ),
        Mode::Paused => end(
            Outcome::Refused,
            "Paused",
            "The mode of this installation is paused: nothing is started.",
            "`keywheel mode live` lets the next campaign rotate.",
        ),
        Mode::Live if doc.request.reason == Reason::Scheduled && doc.policy_version.is_none() => end(
            Outcome::Planned,
            "NoPolicy",
            "Nobody has pushed a policy, and by itself nothing is started without one.",
            "`keywheel policy push FILE`, if only with an empty one: the careful defaults hold then.",
        ),
        Mode::Live if doc.keys() == 0 && doc.counts.unread > 0 => {
            let text = format!(
                "Of what could be read nothing is due, and {} users, rows, regions or accounts could not be read.",
                doc.counts.unread
            );
            end(Outcome::Stopped, "Unread", text, "The plan names each with its reason.")
        }
        Mode::Live if doc.keys() == 0 => end(Outcome::Done, "NothingDue", "No key is to be rotated.", ""),
        Mode::Live => Next::Go,
    }
}

/// Whether the next batch is begun, once the last one is counted.
pub fn go_on(doc: &Campaign, mode: Mode, now: Timestamp) -> Next {
    let all_begun = doc.waves.iter().all(|wave| wave.begun == wave.batches);
    if !all_begun {
        if mode != Mode::Live {
            let text = format!("The mode was set to {mode} meanwhile.");
            let remedy = "`keywheel mode live` lets the next campaign rotate.";
            return end(Outcome::Stopped, "SwitchedOff", text, remedy);
        }
        if let Some(freeze) = frozen(doc, now) {
            let Freeze { until, reason, .. } = freeze;
            let text = format!("A freeze has begun: nothing is rotated until {until} ({reason}).");
            let remedy = "The campaign after it takes up what is still due.";
            return end(Outcome::Stopped, "Frozen", text, remedy);
        }
        // Who was stopped and is taken up days later would rotate keys that another campaign has rotated since.
        if now >= after(doc.started, VALID) {
            let text = format!("The plan is of {}, and a plan holds for a day.", doc.started);
            let remedy = "The next campaign takes up what is still due.";
            return end(Outcome::Stopped, "PlanTooOld", text, remedy);
        }
        // Of secrets that were named one stops no other.
        if !doc.request.secrets.is_empty() {
            return Next::Go;
        }
    }
    let over = doc.waves.iter().find(|wave| wave.failed * 100 > usize::from(doc.tolerance) * wave.keys);
    if let Some(wave) = over {
        let text = format!(
            "Of the {} keys of wave {} {} were not promoted, and {} % may fail.",
            wave.keys, wave.wave, wave.failed, doc.tolerance
        );
        let remedy = "Look at each, then start the next campaign: what is still due is in it.";
        return end(Outcome::Stopped, "TooManyFailed", text, remedy);
    }
    if all_begun {
        end(Outcome::Done, "AllBegun", "Every key of the plan had its turn.", "")
    } else {
        Next::Go
    }
}

/// When to look again, where a rotation of the batch is still on its way and not late yet.
pub fn look_again(began: Timestamp, states: &[State], now: Timestamp) -> Option<Timestamp> {
    let late = after(began, LATE);
    if now >= late || !states.contains(&State::OnItsWay) {
        return None;
    }
    // The longer it has taken, the longer it is likely to take.
    let since = Duration::try_from(now.duration_since(began)).unwrap_or_default();
    Some(after(now, (since / 4).max(LOOK_AGAIN)).min(late))
}

/// What a batch has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many have promoted.
    pub promoted: usize,
    /// How many have taken an old key's way out over, and promote none.
    pub retiring: usize,
    /// How many were left to another run.
    pub left: usize,
    /// Those that have not promoted.
    pub failed: Vec<Failed>,
}

/// Counts a batch: whoever is still on its way is late.
pub fn count(items: &[Item], states: &[State], wave: u32) -> Counted {
    let failed = |(item, state): (&Item, &State)| {
        let (code, text) = match state {
            State::Promoted | State::Left => return None,
            State::OnItsWay => (
                "Late".to_owned(),
                format!("It has promoted no key for {} hours, and goes on by itself.", LATE.as_secs() / 3600),
            ),
            State::Failed { code, text } => (code.clone(), text.clone()),
        };
        Some(Failed { run: item.run, whom: item.whom().to_owned(), wave, code, text })
    };
    let left = states.iter().filter(|state| **state == State::Left).count();
    let failed: Vec<Failed> = items.iter().zip(states).filter_map(failed).collect();
    let well = |(item, state): &(&Item, &State)| item.only_retires && **state == State::Promoted;
    let retiring = items.iter().zip(states).filter(well).count();
    Counted { promoted: items.len() - retiring - left - failed.len(), retiring, left, failed }
}

#[cfg(test)]
mod tests;

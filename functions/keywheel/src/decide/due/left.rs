//! What ended runs have left: an overlap or a grace without an execution, a key that was stored and never promoted, one
//! whose secret was lost on the way.
//!
//! The plan asks the question that a run asks at its beginning, of the same facts, and starts a run where that one would
//! go on. What a person is to decide it leaves to that person: a run that was Held as its old key is still in use would be
//! Held again, with an alarm each time. Nor does it start one whose end is known to be Blocked: of a key that no version
//! names, CloudTrail is asked by the plan itself, so that a stranger's key costs one look-up a day and no run.

use super::Desk;
use crate::decide::entry::{self, Entry, Facts, Start};
use crate::decide::orphan::Attribution;
use crate::fleet::estate::{Close, Left};
use crate::fleet::plan::{Action, Line};
use crate::fleet::policy::Terms;
use crate::ids::{AccessKeyId, RunId};
use crate::key::{self, KeyFacts};
use crate::rotation::{Phase, Reason};
use crate::switch::Mode;

/// What a run would take over.
struct Work<'a> {
    /// `TakeOver` where no key becomes current, `Reconcile` where one does.
    code: &'static str,
    /// The key that it is about.
    key: &'a AccessKeyId,
    /// The run that has left it, where it is known.
    run: Option<RunId>,
    /// Where that one has stopped.
    at: &'static str,
}

impl Desk<'_> {
    /// The line of a user of whom an ended run has left something, or whom a run is at work on; `None` where there is
    /// nothing of ours beside the current key, or nothing that a run could do about it.
    pub(super) fn left(&self, base: &Line, terms: &Terms, close: &Close) -> Option<Line> {
        let left = close.left.as_deref()?;
        let line = |action: Action, code, key: Option<&AccessKeyId>, why: String| {
            let rotated = action == Action::Rotate;
            let created = key.and_then(|key| key::find(&close.keys, key)).and_then(|key| key.created);
            Line {
                action,
                code,
                why,
                key_id: key.cloned(),
                age_days: self.days(created),
                wave: rotated.then_some(terms.wave),
                terms: rotated.then(|| terms.clone()),
                ..base.clone()
            }
        };
        let skip = |code, key: Option<&AccessKeyId>, why: String| Some(line(Action::Skip, code, key, why));
        let start = match entry::decide(&self.facts(left, close), &base.user) {
            Entry::At(start) => start,
            Entry::Blocked(why) if why.code == "RunInProgress" => {
                return skip("RunInProgress", None, why.text);
            }
            Entry::Blocked(_) => return None,
        };
        if let (Phase::Clear, Some(Attribution::AtWork(run))) = (start.phase, &left.orphan) {
            return skip("RunInProgress", None, format!("Run {run} is at work on it."));
        }
        let work = work(&start, left, close)?;
        // A key that leaked, and one that its owner gives up, are for nobody to decide on any more.
        let decided = start.leaked || close.retire.as_ref() == Some(work.key);
        if let Some(why) = left.held.as_ref().filter(|_| work.code == "TakeOver" && !decided) {
            let why =
                format!("The last run has left it to a person ({}): {} {}", why.code, why.text, why.remedy);
            return skip("Held", Some(work.key), why.trim_end().to_owned());
        }
        let takes =
            work.run.map_or_else(String::new, |run| format!("takes over run {run} at its {}: it ", work.at));
        let why = format!("A run {takes}would {}.", start.plan);
        Some(line(Action::Rotate, work.code, Some(work.key), why))
    }

    /// The facts as a run would have them that is started now.
    fn facts(&self, left: &Left, close: &Close) -> Facts {
        Facts {
            now: self.now,
            reason: Reason::Scheduled,
            roll_back: false,
            dry_run: false,
            mode: Mode::Live,
            // Who has two secrets is left alone before anybody looks closer.
            rivals: Vec::new(),
            current: left.current.clone(),
            current_run: left.current_run,
            previous_key: left.previous_key.clone(),
            pending: left.pending.clone(),
            keys: close.keys.clone(),
            retire: close.retire.clone(),
            keep: close.keep.clone(),
            evidence: left.evidence.clone(),
        }
    }
}

/// What a run that begins so would take over.
fn work<'a>(start: &'a Start, left: &'a Left, close: &Close) -> Option<Work<'a>> {
    let pending = || left.pending.as_ref().and_then(|pending| pending.run.ended());
    match start.phase {
        Phase::Validate => {
            let key = &start.new.as_ref()?.key;
            Some(Work { code: "Reconcile", key, run: pending(), at: "validation" })
        }
        Phase::Clear => {
            let suspect = start.suspects.first()?;
            let stored = suspect.stored_by.is_some();
            (stored || left.orphan == Some(Attribution::Ours)).then_some(Work {
                code: "Reconcile",
                key: &suspect.key,
                run: suspect.stored_by,
                at: "validation",
            })
        }
        Phase::TakeOver => {
            let key = &start.old.as_ref()?.key;
            let superseded = left.previous_key.as_ref() == Some(key);
            let run = left.current_run.ended().filter(|_| superseded);
            // Of several the last one has left it so.
            let run = run.map(|run| left.last.unwrap_or(run));
            // What only its owner gives up goes when the current key is due, as before.
            let ours = run.is_some() || start.leaked || left.evidence.is_some();
            let active = key::find(&close.keys, key).is_some_and(KeyFacts::is_active);
            let at = if active { "overlap" } else { "grace" };
            ours.then_some(Work { code: "TakeOver", key, run, at })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! The document of the unused machine: one key that nobody uses, from its nomination to its end.
//!
//! It names things, as all documents do, and holds no value of a secret. What it may do to a key was said twice: by the
//! fleet's policy, and by whoever may tag the user.

mod notices;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{after, wait_time};
use crate::decide::unused::LOOK_DAILY;
use crate::error::StepError;
use crate::fleet::policy::Removal;
use crate::ids::{AccessKeyId, RunId, UserName};
use crate::notice::{Notice, NoticeKind};
use crate::rotation::{Caught, Delivery, Why};

/// The version of the document that this release writes.
pub const SCHEMA: u32 = 1;

/// The user's tag that lets its unused keys go.
pub const TAG: &str = "keywheel:unused";
/// What it says then. The roles may write on such users only.
pub const REMOVE: &str = "remove";

/// The machine's input: a key that a campaign found unused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// The account.
    pub account: String,
    /// The user.
    pub user: UserName,
    /// Its unique id: another one under the same name is another user.
    pub user_id: String,
    /// The key.
    pub key: AccessKeyId,
    /// What becomes of it.
    pub unused: Removal,
    /// Where secrets may hold it.
    pub regions: Vec<String>,
    /// The policy's rule that says so.
    pub rule: String,
    /// Who answers for the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The campaign that found it.
    pub campaign: RunId,
}

impl Removed {
    /// The run of a day: started twice, it runs once.
    pub fn run(&self, now: Timestamp) -> RunId {
        RunId::standing_for(&format!("unused {} {} {}", self.account, self.key, now.strftime("%Y-%m-%d")))
    }
}

/// What the machine hands its first step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// The machine's input as it came.
    pub input: Value,
    /// The execution's name.
    pub name: String,
    /// The execution's ARN.
    pub execution: String,
    /// When the execution started.
    pub started: Timestamp,
}

/// What the machine does next. The ASL's Choice states read it by these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Make the key Inactive.
    Disable,
    /// The key is Inactive; wait, then look.
    Grace,
    /// The run has its outcome.
    Ended,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The key is gone.
    Removed,
    /// The key is Inactive, and by the policy it is never deleted.
    Disabled,
    /// The key was made Inactive and is not deleted: somebody needs it, or stands for it.
    Kept,
    /// Nothing was touched.
    Left,
    /// A step failed for good: how the key is left is for a person to find out.
    Held,
}

impl Outcome {
    /// Every outcome, for tables and tests.
    pub const ALL: [Self; 5] = [Self::Removed, Self::Disabled, Self::Kept, Self::Left, Self::Held];

    /// The name, as documents and metrics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Removed => "Removed",
            Self::Disabled => "Disabled",
            Self::Kept => "Kept",
            Self::Left => "Left",
            Self::Held => "Held",
        }
    }
}

/// One unused key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// The version of this document.
    pub schema: u32,
    /// The run's id.
    pub run: RunId,
    /// The execution's ARN.
    pub execution: String,
    /// When the execution started.
    pub started: Timestamp,
    /// What was asked.
    pub removed: Removed,
    /// What comes next.
    pub phase: Phase,
    /// Since when nobody has used the key, as this run saw it first.
    pub quiet_since: Option<Timestamp>,
    /// When it was read back Inactive.
    pub disabled_at: Option<Timestamp>,
    /// When the next Wait ends.
    pub wait_until: Option<Timestamp>,
    /// How the run ended.
    pub outcome: Option<Outcome>,
    /// Why.
    pub why: Option<Why>,
    /// The outbox, sent and unsent.
    #[serde(default)]
    pub notices: Vec<Notice>,
    /// How far the outbox is.
    #[serde(default)]
    pub delivery: Delivery,
    /// The error that the machine caught last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Caught>,
}

impl Unused {
    /// A document at its beginning. What no policy could have said is refused, whoever started the execution.
    pub fn new(begin: &Begin) -> Result<Self, StepError> {
        let removed: Removed = serde_json::from_value(begin.input.clone()).map_err(|error| {
            StepError::BadInput(format!("the input of a removal is not understood: {error}"))
        })?;
        if let Some((field, what)) = removed.unused.mistakes().first() {
            return Err(StepError::BadInput(format!("unused.{field}: {what}")));
        }
        // The steps ask their own account alone, where another user may have the same name.
        let own = begin.execution.split(':').nth(4).unwrap_or_default();
        if removed.account != own {
            let account = &removed.account;
            return Err(StepError::BadInput(format!(
                "account is {account}, and keys of {own} alone are removed"
            )));
        }
        // Nobody would be asked whether a secret holds the key.
        if removed.regions.is_empty() {
            return Err(StepError::BadInput("regions names none".to_owned()));
        }
        let standing = || RunId::standing_for(&begin.execution);
        Ok(Self {
            schema: SCHEMA,
            run: begin.name.parse().unwrap_or_else(|_| standing()),
            execution: begin.execution.clone(),
            started: begin.started,
            removed,
            phase: Phase::Disable,
            quiet_since: None,
            disabled_at: None,
            wait_until: None,
            outcome: None,
            why: None,
            notices: Vec::new(),
            delivery: Delivery::Pending,
            error: None,
        })
    }

    /// Begins the grace, or ends the run where the policy knows of none: from now on the key is Inactive.
    pub fn begin_grace(&mut self, now: Timestamp) {
        self.disabled_at = Some(now);
        if let Some(grace) = self.removed.unused.delete_after {
            self.phase = Phase::Grace;
            // Long before its end: whoever brings the key back is noticed within a day.
            self.wait_until = Some(wait_time(after(now, grace.get().min(LOOK_DAILY))));
            self.announce(now, NoticeKind::Disabled);
        } else {
            self.announce(now, NoticeKind::Disabled);
            let text = format!("Key {} of {} is Inactive.", self.removed.key, self.removed.user);
            self.end(now, Outcome::Disabled, Why::new("Disabled", text, self.way_back()));
        }
    }

    /// When the grace is over, and since when nobody has used the key.
    pub fn grace(&self) -> Result<(Timestamp, Timestamp), StepError> {
        let missing = |what: &str| StepError::BadInput(format!("the document has no {what}"));
        let disabled = self.disabled_at.ok_or_else(|| missing("disabled_at"))?;
        let grace = self.removed.unused.delete_after.ok_or_else(|| missing("delete_after"))?;
        let quiet = self.quiet_since.ok_or_else(|| missing("quiet_since"))?;
        Ok((after(disabled, grace.get()), quiet))
    }

    /// The one command that makes the key Active again.
    pub fn way_back(&self) -> String {
        format!("`keywheel restore {}` makes it Active again.", self.removed.key)
    }

    /// Ends the run with its outcome, and puts the last notice into the outbox.
    pub fn end(&mut self, at: Timestamp, outcome: Outcome, why: Why) {
        self.phase = Phase::Ended;
        self.wait_until = None;
        self.outcome = Some(outcome);
        self.why = Some(why);
        self.announce(at, NoticeKind::Ended);
    }

    /// Puts a notice into the outbox, once.
    pub fn announce(&mut self, at: Timestamp, kind: NoticeKind) {
        let notice = Notice::new(self.run, kind, "", at, self.sentence(kind));
        if self.notices.iter().all(|known| known.id != notice.id) {
            self.notices.push(notice);
            self.delivery = Delivery::Pending;
        }
    }
}

#[cfg(test)]
mod tests;

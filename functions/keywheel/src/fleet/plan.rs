//! What the next run would do, user by user.

use serde::Serialize;

use super::policy::Terms;
use crate::ids::{AccessKeyId, SecretArn};

/// What is done about a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Its key is rotated.
    Rotate,
    /// It is left alone.
    Skip,
    /// Nothing is done, and somebody should know.
    Find,
}

/// One line of a plan. A user has one line that says whether it is rotated, where it is managed, and one for each
/// finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The user; `<root_account>` for the account's root user.
    pub user: String,
    /// The account.
    pub account: String,
    /// The key, where it is known.
    pub key_id: Option<AccessKeyId>,
    /// The key's age in whole days, where it is known.
    pub age_days: Option<i64>,
    /// The rule that decides; `None` for users that are not managed.
    pub rule: Option<String>,
    /// The wave, where the user is rotated.
    pub wave: Option<u32>,
    /// What is done.
    pub action: Action,
    /// Why, in one word for programs.
    pub code: &'static str,
    /// Why, in a sentence.
    pub why: String,
    /// The secret.
    pub secret: Option<SecretArn>,
    /// Who answers for the key.
    pub owner: Option<String>,
    /// What holds for its rotation, where the user is rotated.
    pub terms: Option<Terms>,
}

impl Line {
    /// Whether all is as it should be: the key is young, exempt, being rotated, or not there yet. Other users that are
    /// left alone want somebody's eye.
    pub fn is_ordinary(&self) -> bool {
        self.action == Action::Skip && ["NotDue", "Exempt", "NoKey", "RunInProgress"].contains(&self.code)
    }

    /// Whether the rotation makes no key current: it takes an old one's way out to its end.
    pub fn only_retires(&self) -> bool {
        self.action == Action::Rotate && ["Retire", "TakeOver"].contains(&self.code)
    }

    /// Whether it is there because something could not be read.
    pub fn is_unread(&self) -> bool {
        const CODES: [&str; 9] = [
            "Unread",
            "AgeUnknown",
            "AccountUnread",
            "RegionUnread",
            "RowUnread",
            "UserUnread",
            "RootUnread",
            "RunsUnread",
            "UnusedUnread",
        ];
        CODES.contains(&self.code)
    }
}

/// A plan: what is rotated, in its order, then what is skipped, then what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its lines.
    pub lines: Vec<Line>,
}

impl Plan {
    /// The lines with that action.
    pub fn with(&self, action: Action) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.action == action)
    }
}

//! What is kept of a leaked key beside every execution: that it was contained, and what people have said of it since.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AccessKeyId, RunId, UserName};

/// What is kept of a key that leaked, in a parameter of its own: it outlives the execution, and tells a repeat, a
/// reactivation and a false alarm from a first finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this record.
    pub schema: u32,
    /// The key.
    pub key: AccessKeyId,
    /// Its owner.
    pub user: UserName,
    /// The account of both, where it is not the installation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The incident, which is the name of an execution.
    pub incident: RunId,
    /// When the key was contained.
    pub at: Timestamp,
    /// What holds for it.
    pub state: RecordState,
    /// Until when a clearance holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Who changed it last, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What holds for a key that was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// It leaked and is Inactive.
    Contained,
    /// A person has said that it did not leak; reports are only paged until the clearance ends.
    Cleared,
    /// The incident is closed: after the evidence time the key may be deleted.
    Closed,
}

impl Record {
    /// Where the record of a key is kept.
    pub fn parameter(stage: &str, key: &AccessKeyId) -> String {
        format!("{}{key}", Self::parameters(stage))
    }

    /// Where all records are kept.
    pub fn parameters(stage: &str) -> String {
        format!("/keywheel/{stage}/incidents/")
    }

    /// Whether a person's word keeps the key Active at that time.
    pub fn is_cleared(&self, at: Timestamp) -> bool {
        self.state == RecordState::Cleared && self.until.is_some_and(|until| at < until)
    }
}

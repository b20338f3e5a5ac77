//! What an event about a key is taken for: the emergency machine's document, from the event as it came to the
//! incidents that come of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Incident, SCHEMA, account, is_zero, sibling};
use crate::decide::making::Odd;
use crate::emergency::{Emergency, Response};
use crate::ids::{RunId, UserName};
use crate::making::Made;
use crate::notice::Notice;
use crate::rotation::Delivery;
use crate::triage::{Class, Kind, Severity, Source, Target};

/// What the emergency machine hands its first step: an event as it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// The event.
    pub event: Value,
    /// The execution's ARN.
    pub execution: String,
    /// When the execution started.
    pub started: Timestamp,
    /// How many of its credentials have had their turn: a document holds some hundred at a time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub from: usize,
    /// Whether some of those are neither started nor contained, or wait for a bound.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub undone: bool,
    /// Whether all of them have had a turn before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub again: bool,
}

/// What the emergency machine does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// Each credential gets an execution of its own.
    Incidents,
    /// A key was made: whether that is odd, is asked first.
    Watch,
    /// A person is told, nothing else.
    Tell,
    /// Nothing of ours.
    Nothing,
    /// It cannot be understood: loud, and the execution fails.
    Reject,
}

/// What an event was taken for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The version of this document.
    pub schema: u32,
    /// Stands for the execution in notices and User-Agents.
    pub id: RunId,
    /// The execution's ARN.
    pub execution: String,
    /// When it started.
    pub started: Timestamp,
    /// When the event's source has said it, where the event tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Timestamp>,
    /// The event's own id, where it has a sensible one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The class of the event.
    pub class: Class,
    /// Why.
    pub reason: String,
    /// What comes of it.
    pub course: Course,
    /// The key that somebody has made, where the event is about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
    /// The credentials, each with its own document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incidents: Vec<Incident>,
    /// Where the next ones begin, where there are more than these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<usize>,
    /// Whether some of those before these are neither started nor contained, or wait for a bound.
    #[serde(default)]
    pub undone: bool,
    /// Whether all credentials of the event have had a turn before. The machine hands both on, so both are written.
    #[serde(default)]
    pub again: bool,
    /// The outbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// How far the outbox is.
    #[serde(default)]
    pub delivery: Delivery,
    /// When the outbox is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until: Option<Timestamp>,
}

impl Alert {
    /// The document of an event before it is judged.
    pub fn new(execution: String, started: Timestamp, class: Class, reason: String) -> Self {
        Self {
            schema: SCHEMA,
            id: RunId::standing_for(&execution),
            execution,
            started,
            said: None,
            event: None,
            class,
            reason,
            course: Course::Nothing,
            made: None,
            incidents: Vec::new(),
            from: None,
            undone: false,
            again: false,
            notices: Vec::new(),
            delivery: Delivery::Pending,
            wait_until: None,
        }
    }

    /// The account of the installation, which is where the execution runs.
    pub fn own_account(&self) -> &str {
        account(&self.execution)
    }

    /// Makes an incident of what is odd about the making of a key. All events of the same oddity name it alike, so
    /// that it is started once; where the policy does more than tell, each of its keys has an incident of its own.
    pub fn open_odd(&mut self, made: &Made, odd: Odd, policy: &Emergency, now: Timestamp) {
        let target = Target {
            class: Class::OddKeyMaking,
            account: made.account.clone(),
            key_id: Some(made.key.clone()),
            user: made.user.clone(),
            kind: Kind::LongTerm,
            source: Source::CloudTrail,
            severity: Severity::Unknown,
        };
        let told = policy.response(&target, target.user.as_ref().map(UserName::as_str)) == Response::Page;
        let name = if told { odd.name } else { format!("{}/{}", odd.name, made.key) };
        let mut incident = Incident::open(self, target, odd.reason);
        // People can act on it from now on, and not since the event that was looked into for a quarter of an hour.
        (incident.started, incident.said) = (now, None);
        let machine = self.execution.rsplit_once(':').map_or(self.execution.as_str(), |(machine, _)| machine);
        incident.id = RunId::standing_for(&format!("{machine}/key-making/{name}"));
        incident.execution = sibling(&self.execution, incident.id);
        self.incidents = vec![incident];
        self.course = Course::Incidents;
        self.wait_until = None;
    }
}

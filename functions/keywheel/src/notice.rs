//! Notices: what Keywheel tells people and programs, and the outbox they wait in.
//!
//! Steps append notices to the document; the Notify states send what is unsent. A notice is sent at least once,
//! with an id that lets the receiver drop a repeat, and it names nothing that may not be seen.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rotation::Rotation;

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticeKind {
    /// A new key was made and stored; nothing uses it yet.
    Created,
    /// The new key answered as the right user.
    Validated,
    /// AWSCURRENT names the new key.
    Promoted,
    /// The old key is still used, so it stays Active for now.
    StillInUse,
    /// The old key is Inactive; it can be brought back until it is deleted.
    Deactivated,
    /// The old key was deleted.
    Deleted,
    /// A promotion was turned back.
    TurnedBack,
    /// A key that a lost run had left was cleared.
    OrphanCleared,
    /// Undoing does not succeed; a person is needed.
    Stuck,
    /// The run has its outcome.
    Ended,
}

impl NoticeKind {
    /// The name that ids, events and attributes carry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Validated => "Validated",
            Self::Promoted => "Promoted",
            Self::StillInUse => "StillInUse",
            Self::Deactivated => "Deactivated",
            Self::Deleted => "Deleted",
            Self::TurnedBack => "TurnedBack",
            Self::OrphanCleared => "OrphanCleared",
            Self::Stuck => "Stuck",
            Self::Ended => "Ended",
        }
    }
}

/// One entry of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// `<run>/<kind>`: the same however often it is sent.
    pub id: String,
    /// What it is about.
    pub kind: NoticeKind,
    /// When it happened.
    pub at: Timestamp,
    /// One sentence for people.
    pub text: String,
    /// Whether the event bus has it.
    #[serde(default)]
    pub on_bus: bool,
    /// Whether the topic has it.
    #[serde(default)]
    pub on_topic: bool,
}

/// The `source` of our events.
pub const EVENT_SOURCE: &str = "keywheel";

impl Notice {
    /// The notice of `kind` about where `rotation` is now.
    pub fn about(rotation: &Rotation, at: Timestamp, kind: NoticeKind) -> Self {
        Self {
            id: format!("{}/{}", rotation.run, kind.name()),
            kind,
            at,
            text: sentence(rotation, kind),
            on_bus: false,
            on_topic: false,
        }
    }

    /// Whether every channel has it.
    pub fn is_sent(&self) -> bool {
        self.on_bus && self.on_topic
    }

    /// The `detail-type` of the event.
    pub fn detail_type(&self) -> String {
        format!("Keywheel Rotation {}", self.kind.name())
    }

    /// A line for a mail's subject: ASCII, under 100 characters, as SNS demands.
    pub fn subject(&self, rotation: &Rotation) -> String {
        let what = rotation.outcome.filter(|_| self.kind == NoticeKind::Ended);
        let what = what.map_or(self.kind.name(), crate::Outcome::name);
        format!("[keywheel] {what}: {}", rotation.user_name()).chars().take(99).collect()
    }

    /// The event's detail, for programs.
    pub fn detail(&self, rotation: &Rotation) -> Value {
        let baseline = rotation.baseline.as_ref();
        json!({
            "schema": rotation.schema,
            "id": self.id,
            "kind": self.kind.name(),
            "at": self.at,
            "run": rotation.run,
            "execution": rotation.execution,
            "reason": rotation.request.reason,
            "account": rotation.secret.as_ref().map(super::SecretArn::account),
            "region": rotation.secret.as_ref().map(super::SecretArn::region),
            "secret": rotation.secret.as_ref().map_or(rotation.request.secret.as_str(), super::SecretArn::as_str),
            "user": baseline.map(|baseline| &baseline.user.name),
            "user_id": baseline.map(|baseline| &baseline.user.id),
            "new_key": rotation.new.as_ref().map(|new| &new.key),
            "old_key": rotation.old.as_ref().map(|old| &old.key),
            "wait_until": rotation.wait_until,
            "outcome": rotation.outcome.filter(|_| self.kind == NoticeKind::Ended),
            "why": rotation.why.as_ref().filter(|_| self.kind == NoticeKind::Ended),
            "text": self.text,
        })
    }
}

fn sentence(rotation: &Rotation, kind: NoticeKind) -> String {
    let user = rotation.user_name();
    let new = rotation.new.as_ref().map_or("(none)", |new| new.key.as_str());
    let old = rotation.old.as_ref().map_or("(none)", |old| old.key.as_str());
    let until = rotation.wait_until.map_or_else(String::new, |until| format!(" Next look at {until}."));
    match kind {
        NoticeKind::Created => {
            format!("A new key {new} was made for {user} and stored; nothing uses it yet.")
        }
        NoticeKind::Validated => format!("The new key {new} of {user} answers."),
        NoticeKind::Promoted => format!(
            "The secret of {user} now names key {new}. The old key {old} stays Active until its users have changed over.{until}"
        ),
        NoticeKind::StillInUse => {
            let shut = rotation.gate.as_ref().and_then(|gate| gate.shut.as_deref()).unwrap_or("it is in use");
            format!("The old key {old} of {user} stays Active: {shut}.{until}")
        }
        NoticeKind::Deactivated => format!(
            "The old key {old} of {user} is Inactive. `keywheel rollback --user {user}` brings it back.{until}"
        ),
        NoticeKind::Deleted => format!("The old key {old} of {user} was deleted."),
        NoticeKind::TurnedBack => format!(
            "The promotion was turned back: the secret of {user} names key {new} again; {old} is superseded.{until}"
        ),
        NoticeKind::OrphanCleared => {
            format!("A key of {user} that an earlier attempt had made and not stored was deleted.")
        }
        NoticeKind::Stuck => {
            let why = rotation.why.as_ref().map_or("", |why| why.text.as_str());
            format!(
                "What the run for {user} had begun could not be undone. {why} The next run goes on from there."
            )
        }
        NoticeKind::Ended => {
            let outcome = rotation.outcome.map_or("Ended", super::Outcome::name);
            rotation
                .why
                .as_ref()
                .map_or_else(|| outcome.to_owned(), |why| format!("{outcome}: {} {}", why.text, why.remedy))
                .trim_end()
                .to_owned()
        }
    }
}

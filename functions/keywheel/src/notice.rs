//! Notices: what Keywheel tells people and programs, and the outbox they wait in.
//!
//! Steps append notices to the document; the Notify states send what is unsent. A notice is sent at least once,
//! with an id that lets the receiver drop a repeat, and it names nothing that may not be seen.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ids::RunId;
use crate::rotation::{Delivery, Outcome, Phase, Rotation};

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
    /// A leaked key is Inactive.
    Contained,
    /// A leaked key could not be made Inactive yet.
    NotContained,
    /// A leaked key is made Inactive later, unless a person stops it.
    Delayed,
    /// The sessions of a leaked key could not be denied yet.
    SessionsNotDenied,
    /// A key that appeared while the leaked one was contained was made Inactive too, or needs a person.
    KeyMinted,
    /// A leaked key was made Active by somebody, and Inactive again.
    Reactivated,
    /// How the application gets a working key.
    Replacement,
    /// What the leaked key did.
    Investigated,
    /// Sessions of roles that were assumed with a leaked key are denied, or could not be.
    RoleSessions,
    /// The sessions' deny was taken off.
    SessionsFree,
    /// What a campaign is about to do.
    Planned,
    /// Whose keys are due soon.
    DueSoon,
    /// A key that nobody uses is Inactive; it can be brought back until it is deleted.
    Disabled,
    /// An event that changes nothing here, for a person to look at.
    Event,
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
            Self::Contained => "Contained",
            Self::NotContained => "NotContained",
            Self::Delayed => "Delayed",
            Self::SessionsNotDenied => "SessionsNotDenied",
            Self::KeyMinted => "KeyMinted",
            Self::Reactivated => "Reactivated",
            Self::Replacement => "Replacement",
            Self::Investigated => "Investigated",
            Self::RoleSessions => "RoleSessions",
            Self::SessionsFree => "SessionsFree",
            Self::Planned => "Planned",
            Self::DueSoon => "DueSoon",
            Self::Disabled => "Disabled",
            Self::Event => "Event",
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

/// How long after the outcome an undelivered notice is tried.
const PATIENCE: Duration = Duration::from_hours(24);
/// How long after a run got stuck. It has left something half done, and while it still tells, no other run of its
/// secret can mend that.
const PATIENCE_STUCK: Duration = Duration::from_hours(1);

/// A document that notices wait in.
pub trait Outbox {
    /// The run or incident, which every call's User-Agent names.
    fn id(&self) -> RunId;
    /// What waits, and what was sent.
    fn notices(&self) -> &[Notice];
    /// The same, to be marked as sent.
    fn notices_mut(&mut self) -> &mut [Notice];
    /// The `detail-type` of a notice's event.
    fn detail_type(&self, notice: &Notice) -> String;
    /// A line for a mail's subject: ASCII, under 100 characters, as SNS demands.
    fn subject(&self, notice: &Notice) -> String;
    /// The event's detail, for programs.
    fn detail(&self, notice: &Notice) -> Value;
    /// The ARNs that the event names as its resources.
    fn resources(&self) -> Vec<String>;
    /// The name of its outcome, where it has one.
    fn outcome(&self) -> Option<&'static str>;
    /// Brings a document that arrives with a caught error to what that error means.
    fn conclude(&mut self, now: Timestamp);
    /// Since when nothing but its notices keeps it alive, and how long they are tried then.
    fn last_words(&self) -> Option<(Timestamp, Duration)>;
    /// Says how far the outbox is, and when it is tried again.
    fn deliver(&mut self, delivery: Delivery, again: Option<Timestamp>);
}

impl Notice {
    /// A notice of `kind` from the document `of`, with `more` in its id where that kind is told more than once.
    pub fn new(of: RunId, kind: NoticeKind, more: &str, at: Timestamp, text: String) -> Self {
        Self { id: format!("{of}/{}{more}", kind.name()), kind, at, text, on_bus: false, on_topic: false }
    }

    /// The notice of `kind` about where `rotation` is now.
    pub fn about(rotation: &Rotation, at: Timestamp, kind: NoticeKind) -> Self {
        Self::new(rotation.run, kind, "", at, sentence(rotation, kind))
    }

    /// Whether every channel has it.
    pub fn is_sent(&self) -> bool {
        self.on_bus && self.on_topic
    }
}

/// A subject line of its two halves.
pub(crate) fn subject(what: &str, whom: &str) -> String {
    format!("[keywheel] {what}: {whom}").chars().take(99).collect()
}

impl Outbox for Rotation {
    fn id(&self) -> RunId {
        self.run
    }

    fn notices(&self) -> &[Notice] {
        &self.notices
    }

    fn notices_mut(&mut self) -> &mut [Notice] {
        &mut self.notices
    }

    fn detail_type(&self, notice: &Notice) -> String {
        format!("Keywheel Rotation {}", notice.kind.name())
    }

    fn subject(&self, notice: &Notice) -> String {
        let what = self.outcome.filter(|_| notice.kind == NoticeKind::Ended);
        subject(what.map_or(notice.kind.name(), Outcome::name), self.user_name())
    }

    fn detail(&self, notice: &Notice) -> Value {
        let baseline = self.baseline.as_ref();
        json!({
            "schema": self.schema,
            "id": notice.id,
            "kind": notice.kind.name(),
            "at": notice.at,
            "run": self.run,
            "execution": self.execution,
            "reason": self.request.reason,
            "account": self.secret.as_ref().map(super::SecretArn::account),
            "region": self.secret.as_ref().map(super::SecretArn::region),
            "secret": self.secret.as_ref().map_or(self.request.secret.as_str(), super::SecretArn::as_str),
            "user": baseline.map(|baseline| &baseline.user.name),
            "user_id": baseline.map(|baseline| &baseline.user.id),
            "new_key": self.new.as_ref().map(|new| &new.key),
            "old_key": self.old.as_ref().map(|old| &old.key),
            "wait_until": self.wait_until,
            "outcome": self.outcome.filter(|_| notice.kind == NoticeKind::Ended),
            "why": self.why.as_ref().filter(|_| notice.kind == NoticeKind::Ended),
            "title": self.subject(notice),
            "text": notice.text,
        })
    }

    fn resources(&self) -> Vec<String> {
        self.secret.iter().map(ToString::to_string).collect()
    }

    fn outcome(&self) -> Option<&'static str> {
        self.outcome.map(Outcome::name)
    }

    fn conclude(&mut self, now: Timestamp) {
        Self::conclude(self, now);
    }

    fn last_words(&self) -> Option<(Timestamp, Duration)> {
        self.notices.iter().find_map(|notice| match notice.kind {
            NoticeKind::Ended if self.phase == Phase::Ended => Some((notice.at, PATIENCE)),
            NoticeKind::Stuck => Some((notice.at, PATIENCE_STUCK)),
            _ => None,
        })
    }

    fn deliver(&mut self, delivery: Delivery, again: Option<Timestamp>) {
        self.delivery = delivery;
        self.wait_until = again.or(self.wait_until);
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
        // Told of incidents and events, never of a rotation.
        other => other.name().to_owned(),
    }
}

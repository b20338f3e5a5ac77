//! The document of the rotation machine: what every state takes and returns.
//!
//! It names things (account, user, secret, versions, key ids, times, policy) and never holds a value of the
//! secret. Executions outlive deployments by weeks, so a document written by an earlier release must still be
//! read: new fields are optional or have a default, and a change of meaning raises [`SCHEMA`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{after, wait_time};
use crate::decide::gate;
use crate::error::StepError;
use crate::ids::{AccessKeyId, RunId, SecretArn, UserName, VersionId};
use crate::key::{KeyFacts, LastUse};
use crate::notice::{Notice, NoticeKind};
use crate::policy::{Policy, PolicyOverride};
use crate::replica::Reached;

/// The version of the document that this release writes.
pub const SCHEMA: u32 = 1;

/// Why a rotation was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The schedule found the key due.
    Scheduled,
    /// A person asked.
    #[default]
    Manual,
    /// The current key is known to others: no overlap, and the old key is kept Inactive as evidence.
    Leaked,
}

/// The machine's input, as its users write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The secret's name or ARN.
    pub secret: String,
    /// Why.
    #[serde(default)]
    pub reason: Reason,
    /// Durations that differ from the installation's.
    #[serde(default)]
    pub policy: PolicyOverride,
    /// Look, say what would be done, and end.
    #[serde(default)]
    pub dry_run: bool,
    /// Turn the last promotion back instead of making a new key.
    #[serde(default)]
    pub roll_back: bool,
    /// A task token, answered on every way out before the overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_promoted: Option<String>,
}

/// What the machine does next. The ASL's Choice states read it by these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Make the new key and store it.
    Create,
    /// Call STS with the new key until it answers.
    Validate,
    /// Move AWSCURRENT to the new key.
    Promote,
    /// Take over the overlap or the grace that an ended run has left.
    TakeOver,
    /// Both keys are Active; wait, then look at the gate.
    Overlap,
    /// The old key is Inactive; wait, then delete it.
    Grace,
    /// Find out whether a key that nobody stored is an orphan of ours, and clear it.
    Clear,
    /// Turn a promotion back.
    Backwards,
    /// The run has its outcome.
    Ended,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The new key is current and the old one is gone.
    Completed,
    /// AWSCURRENT is as it was before; the new key is gone, or on its way out under the gate.
    RolledBack,
    /// Nothing was touched.
    Blocked,
    /// The old key was left as it is, with an alarm: it is still used, or somebody else changed things.
    Held,
    /// The leaked key is Inactive and kept as evidence; the new one is current.
    Contained,
}

impl Outcome {
    /// Every outcome, for tables and tests.
    pub const ALL: [Self; 5] =
        [Self::Completed, Self::RolledBack, Self::Blocked, Self::Held, Self::Contained];

    /// The name, as documents and metrics write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::RolledBack => "RolledBack",
            Self::Blocked => "Blocked",
            Self::Held => "Held",
            Self::Contained => "Contained",
        }
    }
}

/// Why a run ended the way it did: a name for programs, a sentence for people, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// A stable name such as `SlotsFull`.
    pub code: String,
    /// What was found.
    pub text: String,
    /// What a person can do about it.
    pub remedy: String,
}

impl Why {
    /// A reason from its three parts.
    pub fn new(code: impl Into<String>, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: code.into(), text: text.into(), remedy: remedy.into() }
    }
}

/// The managed user, as read once at the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFacts {
    /// The user's name.
    pub name: UserName,
    /// The user's ARN, with its path.
    pub arn: String,
    /// The unique id: another one under the same name is another user.
    pub id: String,
}

impl UserFacts {
    /// The account that the user belongs to.
    pub fn account(&self) -> &str {
        self.arn.split(':').nth(4).unwrap_or_default()
    }
}

/// The version that AWSCURRENT names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentVersion {
    /// The version's id.
    pub version: VersionId,
    /// The key it holds; `None` for a placeholder or a value without credentials.
    pub key: Option<AccessKeyId>,
}

/// The facts that a run started from. No retry takes them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// When they were read.
    pub at: Timestamp,
    /// The secret's name, for people.
    pub secret_name: String,
    /// The user.
    pub user: UserFacts,
    /// What AWSCURRENT named; `None` where the secret had no value at all.
    pub current: Option<CurrentVersion>,
    /// All keys of the user.
    pub keys: Vec<KeyFacts>,
}

/// The key that is, or is to become, current.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// Its id.
    pub key: AccessKeyId,
    /// The secret's version that holds it; `None` while it is not stored.
    pub version: Option<VersionId>,
}

/// The key that is superseded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldKey {
    /// Its id.
    pub key: AccessKeyId,
    /// Whether AWSCURRENT ever named it. A key that was in service and shows no date of use is unknown,
    /// not unused.
    pub was_current: bool,
}

/// A key that no version of the secret names, which may be an orphan of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its id.
    pub key: AccessKeyId,
    /// When IAM made it.
    pub created: Option<Timestamp>,
    /// The ended run whose stored version names this key: proof enough. `None`: only CloudTrail can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_by: Option<RunId>,
}

/// Somebody who still called with the old key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The source address that CloudTrail recorded.
    pub address: String,
    /// The user agent.
    pub agent: String,
    /// The service called.
    pub service: String,
    /// The region called.
    pub region: String,
    /// The last call seen.
    pub last: Timestamp,
    /// How many calls were seen.
    pub calls: u32,
}

/// What the gate saw when it last looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReport {
    /// When it looked.
    pub at: Timestamp,
    /// What IAM had recorded.
    pub last_use: LastUse,
    /// Why the gate stayed shut; `None` when it opened.
    pub shut: Option<String>,
    /// Who still used the old key, as far as CloudTrail could tell.
    #[serde(default)]
    pub callers: Vec<Caller>,
}

/// How far the outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Something waits to be sent.
    #[default]
    Pending,
    /// All is sent.
    Done,
    /// A day has passed, or an hour where the run is stuck; an alarm tells.
    GaveUp,
}

/// An error that the machine caught, as Step Functions writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caught {
    /// The error's name, such as `Keywheel.Refused`.
    #[serde(rename = "Error")]
    pub error: String,
    /// The body that the Lambda posted, or the service's words.
    #[serde(rename = "Cause", default)]
    pub cause: String,
}

impl Caught {
    /// The error's message without the JSON around it.
    pub fn message(&self) -> String {
        let body: Option<Value> = serde_json::from_str(&self.cause).ok();
        body.as_ref()
            .and_then(|body| body.get("errorMessage"))
            .and_then(Value::as_str)
            .unwrap_or(&self.cause)
            .to_owned()
    }
}

fn missing(what: &str) -> StepError {
    StepError::BadInput(format!("the document has no {what}"))
}

/// One rotation, from its request to its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The version of this document.
    pub schema: u32,
    /// The run's id, which is the execution's name.
    pub run: RunId,
    /// The execution's ARN.
    pub execution: String,
    /// When the execution started.
    pub started: Timestamp,
    /// What was asked.
    pub request: Request,
    /// The policy that holds for this run.
    pub policy: Policy,
    /// The secret, once it was found.
    pub secret: Option<SecretArn>,
    /// The facts at the start.
    pub baseline: Option<Baseline>,
    /// What comes next.
    pub phase: Phase,
    /// When the next Wait ends.
    pub wait_until: Option<Timestamp>,
    /// The key that is or becomes current.
    pub new: Option<NewKey>,
    /// The key that is superseded.
    pub old: Option<OldKey>,
    /// Keys that may be orphans of ours.
    #[serde(default)]
    pub suspects: Vec<Suspect>,
    /// How many orphans this run has cleared to go on.
    #[serde(default)]
    pub cleared: u32,
    /// Whether the run has failed and only undoes what it did.
    #[serde(default)]
    pub undoing: bool,
    /// When AWSCURRENT moved, or when this run took over not knowing when it had.
    pub promoted_at: Option<Timestamp>,
    /// When those could read the new version who read the secret in other regions, where one came late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
    /// When the old key was read back Inactive, or found so.
    pub disabled_at: Option<Timestamp>,
    /// What the gate saw.
    pub gate: Option<GateReport>,
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
    /// Whether the task token was answered, or can no longer be.
    #[serde(default)]
    pub answered: bool,
    /// The error the machine caught last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Caught>,
}

impl Rotation {
    /// A document at its beginning.
    pub fn new(run: RunId, execution: String, started: Timestamp, request: Request, policy: Policy) -> Self {
        Self {
            schema: SCHEMA,
            run,
            execution,
            started,
            request,
            policy,
            secret: None,
            baseline: None,
            phase: Phase::Create,
            wait_until: None,
            new: None,
            old: None,
            suspects: Vec::new(),
            cleared: 0,
            undoing: false,
            promoted_at: None,
            reached: None,
            disabled_at: None,
            gate: None,
            outcome: None,
            why: None,
            notices: Vec::new(),
            delivery: Delivery::Pending,
            answered: false,
            error: None,
        }
    }

    /// Ends the run with its outcome, and puts the last notice into the outbox.
    pub fn end(&mut self, at: Timestamp, outcome: Outcome, why: Why) {
        self.phase = Phase::Ended;
        self.wait_until = None;
        self.outcome = Some(outcome);
        self.why = Some(why);
        self.announce(at, NoticeKind::Ended);
    }

    /// Ends a run that has promoted nothing: Blocked where it has touched nothing, `RolledBack` where it cleared
    /// an orphan, made a key that is gone again, or stored a placeholder.
    pub fn end_unpromoted(&mut self, at: Timestamp, why: Why) {
        let placeholder = self.run.placeholder_version();
        let current = self.baseline.as_ref().and_then(|baseline| baseline.current.as_ref());
        let stored_placeholder = current.is_some_and(|current| current.version == placeholder);
        let mut why = why;
        if stored_placeholder {
            why.text += " The secret, which had no value, holds a placeholder without credentials.";
        }
        if self.cleared > 0 {
            why.text += " An orphan of an earlier attempt was deleted.";
            self.announce(at, NoticeKind::OrphanCleared);
        }
        let touched = self.new.is_some() || self.cleared > 0 || stored_placeholder;
        self.end(at, if touched { Outcome::RolledBack } else { Outcome::Blocked }, why);
    }

    /// Gives a run that fails before its outcome the reason, and sends it to `RollBack`.
    pub fn give_up(&mut self, why: Why) {
        self.undoing = true;
        self.why = Some(why);
    }

    /// Brings a document that arrives with a caught error and no outcome to what that error means: an old key
    /// that could not be retired is held; anything before the promotion that could not be undone is stuck.
    pub fn conclude(&mut self, at: Timestamp) {
        let (Some(error), None) = (&self.error, self.outcome) else { return };
        let mut text = format!("A step failed for good: {}.", error.message());
        if self.phase == Phase::Grace
            && let Some(old) = &self.old
        {
            // The reply to a delete may be among what was lost.
            text = format!("{text} Whether the old key {} is still there is not known.", old.key);
        }
        let why = Why::new(
            error.error.clone(),
            text,
            "Mend the cause, then start a run for this secret again: it goes on where this one ended.",
        );
        match self.phase {
            Phase::Overlap | Phase::Grace => self.end(at, Outcome::Held, why),
            _ => {
                self.why = Some(why);
                self.announce(at, NoticeKind::Stuck);
            }
        }
    }

    /// The account that the installation itself is in.
    pub fn own_account(&self) -> &str {
        self.execution.split(':').nth(4).unwrap_or_default()
    }

    /// Why the run has left the old key to a person: it is still used, say. One that a step's error has ended has left it
    /// to whoever comes next.
    pub fn left_to_a_person(&self) -> Option<&Why> {
        let why = self.why.as_ref().filter(|_| self.outcome == Some(Outcome::Held))?;
        let failed = self.error.as_ref().is_some_and(|error| error.error == why.code);
        (!failed).then_some(why)
    }

    /// The baseline, which every step after Look relies on.
    pub fn baseline(&self) -> Result<&Baseline, StepError> {
        self.baseline.as_ref().ok_or_else(|| missing("baseline"))
    }

    /// The secret's ARN.
    pub fn secret(&self) -> Result<&SecretArn, StepError> {
        self.secret.as_ref().ok_or_else(|| missing("secret"))
    }

    /// The key that is or becomes current.
    pub fn new_key(&self) -> Result<&NewKey, StepError> {
        self.new.as_ref().ok_or_else(|| missing("new"))
    }

    /// The superseded key.
    pub fn old_key(&self) -> Result<&OldKey, StepError> {
        self.old.as_ref().ok_or_else(|| missing("old"))
    }

    /// Begins the overlap: from now on AWSCURRENT names the new key.
    pub fn begin_overlap(&mut self, now: Timestamp) {
        self.promoted_at = Some(now);
        self.reached = None;
        self.phase = Phase::Overlap;
        let leaked = self.request.reason == Reason::Leaked;
        let first_look = if leaked { now } else { gate::window(now, &self.policy).0 };
        self.wait_until = Some(wait_time(first_look));
    }

    /// Begins the grace: the old key is Inactive from now on.
    pub fn begin_grace(&mut self, now: Timestamp) {
        self.disabled_at = Some(now);
        self.phase = Phase::Grace;
        self.wait_until = Some(wait_time(after(now, self.policy.grace.get())));
    }

    /// Ends a run whose old key is gone. One that turned a promotion back has then rolled back entirely.
    pub fn old_key_gone(&mut self, now: Timestamp, code: &str, text: String) {
        let outcome = if self.request.roll_back { Outcome::RolledBack } else { Outcome::Completed };
        self.end(now, outcome, Why::new(code, text, ""));
    }

    /// Ends a run that finds AWSCURRENT moved by somebody else.
    pub fn stand_down(&mut self, now: Timestamp, current: Option<&VersionId>) {
        let before = self.baseline.as_ref().and_then(|baseline| baseline.current.as_ref());
        let back = current.is_some() && before.map(|before| &before.version) == current;
        let text = "AWSCURRENT was moved by somebody else while this run waited.";
        if back {
            let why = Why::new("TurnedBack", format!("{text} It names what it named before."), "");
            self.end(now, Outcome::RolledBack, why);
        } else {
            let old = self.old.as_ref().map_or("(none)", |old| old.key.as_str());
            let user = self.user_name();
            let why = Why::new(
                "CurrentMoved",
                format!("{text} This run leaves key {old} as it is."),
                format!(
                    "Look at the secret and the keys (`keywheel status --user {user}`). If key {old} is no longer needed: `keywheel enroll --user {user} --secret {} --retire {old}`.",
                    self.request.secret
                ),
            );
            self.end(now, Outcome::Held, why);
        }
    }

    /// Puts a notice into the outbox. The id is made of the run and the kind, so that a step run twice
    /// announces once.
    pub fn announce(&mut self, at: Timestamp, kind: NoticeKind) {
        let notice = Notice::about(self, at, kind);
        if self.notices.iter().all(|known| known.id != notice.id) {
            self.notices.push(notice);
            self.delivery = Delivery::Pending;
        }
    }

    /// The user's name for messages, where it is known.
    pub fn user_name(&self) -> &str {
        self.baseline.as_ref().map_or("(unknown)", |baseline| baseline.user.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_needs_only_the_secret_and_refuses_typos() {
        let request: Request = serde_json::from_str(r#"{"secret":"app/mailer"}"#).unwrap();
        assert_eq!((request.reason, request.dry_run), (Reason::Manual, false));
        let error = serde_json::from_str::<Request>(r#"{"secret":"a","dryrun":true}"#).unwrap_err();
        assert!(error.to_string().contains("dryrun"), "{error}");
    }

    #[test]
    fn only_what_a_run_has_found_is_left_to_a_person_and_not_what_has_struck_it() {
        let request = serde_json::from_str(r#"{"secret":"app/mailer"}"#).unwrap();
        let (run, at) = (RunId::random(), Timestamp::UNIX_EPOCH);
        let mut doc = Rotation::new(run, String::new(), at, request, Policy::default());
        assert_eq!(doc.left_to_a_person(), None);
        doc.phase = Phase::Overlap;
        let mut found = doc.clone();
        found.end(at, Outcome::Held, Why::new("StillInUse", "It is.", ""));
        assert_eq!(found.left_to_a_person().map(|why| why.code.as_str()), Some("StillInUse"));
        doc.error = Some(Caught { error: "Keywheel.Refused".into(), cause: String::new() });
        doc.conclude(at);
        assert_eq!((doc.outcome, doc.left_to_a_person()), (Some(Outcome::Held), None));
    }

    #[test]
    fn a_caught_error_gives_its_message_with_and_without_json() {
        let caught = |cause: &str| Caught { error: "E".into(), cause: cause.into() }.message();
        assert_eq!(caught(r#"{"errorType":"Keywheel.Refused","errorMessage":"no"}"#), "no");
        assert_eq!(caught("RequestId: 1 Process exited"), "RequestId: 1 Process exited");
    }
}

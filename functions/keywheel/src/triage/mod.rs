//! What an event says has leaked, judged from the event alone.
//!
//! No call is made and nothing is guessed: an event gets a named class, and whoever acts on it (`contain`, the
//! fleet, a person) finds out the rest from IAM. What cannot be understood is [`Class::Reject`], which is loud and
//! has no side effect. A reason names fields and well-formed ids; it never repeats a value that could be anything.

mod cloudtrail;
mod config;
mod fields;
mod guardduty;
mod health;
mod own;
mod secretsmanager;
mod securityhub;
mod subject;
mod trustedadvisor;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{AccessKeyId, UserName};
use crate::making::Made;
use fields::Fields;

/// What should come of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Class {
    /// Nothing of ours: no side effect.
    Ignore,
    /// A detector's sample: no change, a quiet notice.
    Sample,
    /// A record of somebody's change: bring the view up to date.
    Observe,
    /// An ordinary rotation, if it is due.
    Rotate,
    /// A step of a rotation that Secrets Manager itself started.
    SmRotationStep,
    /// Malformed: loud, no side effect.
    Reject,
    /// Tell a person, change nothing.
    NotifyOnly,
    /// A finding about something else than a leaked credential: tell a person.
    NotCredentialLeakNotify,
    /// The caller belongs to somebody else: tell a person.
    NotOursNotify,
    /// A credential is compromised, and the event does not say which: a person finds out.
    NotifyResolve,
    /// A key was made as keys are not usually made. Never a verdict on an event alone: the `Watch` state finds it.
    OddKeyMaking,
    /// The configured threshold decides, not the parser.
    PolicyDecides,
    /// A key was made Active: to be contained again where it had leaked.
    RevokeAgainIfLeaked,
    /// The account's root: page a person; its keys are never changed here.
    Root,
    /// Temporary credentials of a role, and it is not known which session.
    SessionResolve,
    /// Temporary credentials of a role: deny the sessions, or page.
    SessionOnly,
    /// A temporary key minted from a user's key: deny by its issue time, look at the user's own keys.
    UserSession,
    /// The user is known, the key is not: list the user's keys, let the policy decide.
    ResolveUserKeys,
    /// A long-term key of an IAM user: Inactive, in the account that owns it.
    RevokeUserKey,
}

/// What kind of credential a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `AKIA…`: a long-term key of an IAM user, as far as an id can tell.
    LongTerm,
    /// `ASIA…` of an IAM user's or a federated user's session.
    UserSession,
    /// `ASIA…` of a role's session.
    RoleSession,
    /// `ASIA…`, and the event does not say whose.
    Session,
    /// An IAM user, no key named.
    User,
    /// A role, no session named.
    Role,
    /// The account's root.
    Root,
}

/// The family an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// GuardDuty's findings.
    GuardDuty,
    /// CloudTrail's records.
    CloudTrail,
    /// AWS Health.
    Health,
    /// Security Hub, ASFF or OCSF.
    SecurityHub,
    /// Trusted Advisor.
    TrustedAdvisor,
    /// AWS Config.
    Config,
    /// Our own leak event, from scanners and webhooks.
    Keywheel,
}

/// How bad the source thinks it is, in GuardDuty's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The source gives none.
    Unknown,
    /// Below 4 of 10.
    Low,
    /// From 4 on.
    Medium,
    /// From 7 on.
    High,
    /// From 9 on.
    Critical,
}

/// One credential, and what is said of it. The pair of user and key is the event's word and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What should come of this one.
    pub class: Class,
    /// The account's twelve digits, where the event says so.
    pub account: Option<String>,
    /// The access key's id.
    pub key_id: Option<AccessKeyId>,
    /// The IAM user, or the role for a role's session.
    pub user: Option<UserName>,
    /// What kind of credential it is.
    pub kind: Kind,
    /// Who says so.
    pub source: Source,
    /// How bad it is.
    pub severity: Severity,
}

/// What is made of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The class of the whole: that of its gravest part.
    pub class: Class,
    /// The credentials it is about.
    pub targets: Vec<Target>,
    /// Why, for a person.
    pub reason: String,
    /// How many parts of it could not be understood, beside those that could: a person must hear of them.
    #[serde(skip)]
    pub odd: usize,
}

/// The longest event that is read. EventBridge's are up to 1 MiB.
pub const LONGEST: usize = 2 * 1024 * 1024;
/// The most targets of one event of our own senders. More are no leak that a machine should act on by itself.
pub const MOST_TARGETS: usize = 1000;
/// And of one of AWS's, which are believed: more than one execution's history has room for.
pub const MOST_OF_AWS: usize = 2000;
/// How deep an event may be wrapped in messages of SNS and SQS.
const WRAPPERS: usize = 4;
/// How long EventBridge tries to deliver an event.
const LATEST: SignedDuration = SignedDuration::from_hours(24);

impl Verdict {
    fn of(class: Class, reason: impl Into<String>) -> Self {
        Self { class, targets: Vec::new(), reason: reason.into(), odd: 0 }
    }

    fn ignore(reason: impl Into<String>) -> Self {
        Self::of(Class::Ignore, reason)
    }

    fn reject(reason: impl Into<String>) -> Self {
        Self::of(Class::Reject, reason)
    }

    fn about(target: Target, reason: impl Into<String>) -> Self {
        Self { class: target.class, targets: vec![target], reason: reason.into(), odd: 0 }
    }

    /// The same with another class, for the whole and for each target.
    fn classed(mut self, class: Class) -> Self {
        self.class = class;
        for target in &mut self.targets {
            target.class = class;
        }
        self
    }

    fn add(&mut self, more: &str) {
        self.reason.push_str(more);
    }

    /// Several parts of one event as one: the gravest class, every target once, every reason that differs.
    fn all(parts: Vec<Self>) -> Option<Self> {
        let class = parts.iter().map(|part| part.class).max()?;
        let (mut targets, mut reasons) = (Vec::<Target>::new(), Vec::<String>::new());
        let mut odd = 0;
        for part in parts {
            odd += part.odd + usize::from(part.class == Class::Reject && class != Class::Reject);
            for target in part.targets {
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
            if reasons.len() < 5 && !reasons.contains(&part.reason) {
                reasons.push(part.reason);
            }
        }
        Some(Self { class, targets, reason: reasons.join(" "), odd })
    }
}

/// Judges the bytes of an event.
pub fn triage(event: &[u8]) -> Verdict {
    if event.len() > LONGEST {
        return Verdict::reject(format!("The event has {} bytes; {LONGEST} are read.", event.len()));
    }
    let text = event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Verdict::reject("The event is empty.");
    }
    // serde's own message would repeat a piece of the text.
    match serde_json::from_slice::<Value>(text) {
        Ok(value) => judge(&value),
        Err(error) => Verdict::reject(format!(
            "The event is not JSON: it breaks off or errs at line {}, column {}.",
            error.line(),
            error.column()
        )),
    }
}

/// Judges an event.
pub fn judge(event: &Value) -> Verdict {
    let verdict = unwrapped(event, WRAPPERS);
    let ours = verdict.targets.iter().any(|target| target.source == Source::Keywheel);
    let most = if ours { MOST_TARGETS } else { MOST_OF_AWS };
    if verdict.targets.len() > most {
        return Verdict::reject(format!(
            "The event names {} credentials; more than {most} are for a person to look at.",
            verdict.targets.len()
        ));
    }
    verdict
}

/// The same by somebody who knows which roles of ours may make a key Active: a call that only bears our names is
/// nobody's of ours.
pub fn judge_knowing(event: &Value, roles: &[String]) -> Verdict {
    let fields = Fields(event);
    let told = fields.text("detail-type").is_some_and(cloudtrail::is_record);
    let pretended =
        fields.get("detail").filter(|_| told).and_then(|detail| cloudtrail::pretended(fields, detail, roles));
    pretended.unwrap_or_else(|| judge(event))
}

/// An event may come as it is, or as the message of a topic or a queue that a Lambda is given.
fn unwrapped(event: &Value, depth: usize) -> Verdict {
    let Some(fields) = event.as_object() else { return Verdict::reject("The event is not an object.") };
    if fields.is_empty() {
        return Verdict::reject("The event is an empty object.");
    }
    let event = Fields(event);
    let messages: Vec<Option<&str>> = if let Some(records) = event.list("Records") {
        records
            .iter()
            .map(|record| {
                record.text("body").or_else(|| record.get("Sns").and_then(|sns| sns.text("Message")))
            })
            .collect()
    } else if event.text("Type") == Some("Notification") && event.get("TopicArn").is_some() {
        vec![event.text("Message")]
    } else {
        return of_family(event);
    };
    if depth == 0 {
        return Verdict::reject("The event is wrapped in messages too many times.");
    }
    let inner = |message: Option<&str>| match message.map(serde_json::from_str::<Value>) {
        Some(Ok(value)) => unwrapped(&value, depth - 1),
        Some(Err(_)) => Verdict::reject("A message in the event is not JSON."),
        None => Verdict::reject("A record in the event has no message."),
    };
    Verdict::all(messages.into_iter().map(inner).collect())
        .unwrap_or_else(|| Verdict::reject("The event has no records."))
}

/// The key that somebody has made, where the event is CloudTrail's record of that.
pub fn made(event: &Value) -> Option<Made> {
    let event = Fields(event);
    let told = event.text("source") == Some("aws.iam")
        && event.text("detail-type").is_some_and(cloudtrail::is_record);
    if told { made_in_record(event.get("detail")?.0) } else { None }
}

/// The key that somebody has made, by a record of CloudTrail.
pub fn made_in_record(record: &Value) -> Option<Made> {
    cloudtrail::made(Fields(record))
}

/// When the source has said it, by the event's own time, where that can be so: an event does not arrive before it is
/// sent, and what is older than EventBridge tries to deliver was sent again, or bears a time that somebody chose.
pub fn said_at(event: &Value, arrived: Timestamp) -> Option<Timestamp> {
    let event = Fields(event);
    // A record bears the time of the call, and CloudTrail hands it on a minute or more later.
    let recorded = event.text("detail-type").is_some_and(cloudtrail::is_record);
    let at: Timestamp = event.text("time").filter(|_| !recorded)?.parse().ok()?;
    (SignedDuration::ZERO..=LATEST).contains(&arrived.duration_since(at)).then_some(at)
}

fn of_family(event: Fields<'_>) -> Verdict {
    let (Some(source), Some(kind)) = (event.text("source"), event.text("detail-type")) else {
        return bare(event);
    };
    let family = match source {
        "aws.guardduty" => guardduty::finding,
        "aws.health" => health::event,
        "aws.securityhub" => securityhub::event,
        "aws.trustedadvisor" => trustedadvisor::item,
        "aws.config" => config::change,
        "aws.events" | "aws.scheduler" if kind == "Scheduled Event" => {
            return Verdict::of(Class::Rotate, "A schedule: what is due is rotated.");
        }
        own::SOURCE => own::leak,
        _ if cloudtrail::is_record(kind) => cloudtrail::record,
        _ => return Verdict::ignore("No source of leaks that is known."),
    };
    match event.get("detail") {
        Some(detail) if detail.is_object() => family(event, kind, detail),
        _ => Verdict::reject("The event's detail is missing or no object."),
    }
}

/// What a Lambda is given without an envelope, where its own fields leave no doubt.
fn bare(event: Fields<'_>) -> Verdict {
    let nothing = Value::Null;
    let envelope = Fields(&nothing);
    if event.get("Step").is_some() && event.get("SecretId").is_some() {
        secretsmanager::step(event)
    } else if event.get("invokingEvent").is_some() && event.get("configRuleName").is_some() {
        Verdict::ignore("AWS Config invokes a rule: nothing of ours.")
    } else if event.any("service").and_then(|service| service.any_text("serviceName")) == Some("guardduty") {
        guardduty::finding(envelope, guardduty::FINDING, event)
    } else if event.get("eventTypeCode").is_some() && event.get("affectedEntities").is_some() {
        health::event(envelope, health::EVENT, event)
    } else if event.get("eventSource").is_some() && event.get("eventName").is_some() {
        cloudtrail::record(envelope, cloudtrail::API_CALL, event)
    } else if event.get("ProductArn").is_some() && event.get("Resources").is_some() {
        securityhub::asff(envelope, event)
    } else {
        Verdict::reject("The event has no source and detail-type, and is none that is known without.")
    }
}

#[cfg(test)]
mod tests;

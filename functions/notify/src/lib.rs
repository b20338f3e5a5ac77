//! The `Notify…` states: send what waits in the document's outbox.
//!
//! Each channel on its own, briefly, and never as an error: what could not be sent stays in the outbox for the
//! next Notify. After the outcome the machine comes back here for a day, and then an alarm tells; where the run is
//! stuck, for an hour.

use std::time::Duration;

use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use aws_sdk_sns::types::MessageAttributeValue;
use aws_smithy_types::DateTime;
use aws_types::SdkConfig;
use jiff::Timestamp;
use keywheel::clock::{after, wait_time};
use keywheel::error::Failure;
use keywheel::notice::{EVENT_SOURCE, Notice, NoticeKind, Outbox};
use keywheel::rotation::{Delivery, Outcome, Phase};
use keywheel::{Alert, Campaign, Context, Incident, Rotation, Step, StepError, Unused, aws};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::{info, warn};

/// Where notices go.
#[derive(Debug, Clone)]
pub struct Channels {
    /// The event bus's name or ARN.
    pub bus: String,
    /// The topic's ARN.
    pub topic: String,
}

/// The step.
pub struct Notify {
    config: SdkConfig,
    channels: Channels,
}

/// The longest that one Notify takes from a rotation.
const BRIEFLY: Duration = Duration::from_secs(8);
/// The first and the longest pause between two tries after the outcome.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(15));

impl Notify {
    /// A step that calls AWS with `config` and sends to `channels`.
    pub fn new(config: SdkConfig, channels: Channels) -> Self {
        Self { config, channels }
    }
}

/// The document of any machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Document {
    /// A rotation.
    Rotation(Box<Rotation>),
    /// One leaked credential.
    Incident(Box<Incident>),
    /// What an event was taken for.
    Alert(Box<Alert>),
    /// A run over all keys that are due.
    Campaign(Box<Campaign>),
    /// One key that nobody uses.
    Unused(Box<Unused>),
}

impl<'de> Deserialize<'de> for Document {
    /// Told apart by a field that each of them alone has, so that a mistake is named by the type it was meant for.
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(input)?;
        let read = if value.get("target").is_some() {
            serde_json::from_value(value).map(Self::Incident)
        } else if value.get("course").is_some() {
            serde_json::from_value(value).map(Self::Alert)
        } else if value.get("campaign").is_some() {
            serde_json::from_value(value).map(Self::Campaign)
        } else if value.get("removed").is_some() {
            serde_json::from_value(value).map(Self::Unused)
        } else {
            serde_json::from_value(value).map(Self::Rotation)
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl Document {
    fn outbox(&mut self) -> &mut (dyn Outbox + Send + Sync) {
        match self {
            Self::Rotation(doc) => &mut **doc,
            Self::Incident(doc) => &mut **doc,
            Self::Alert(doc) => &mut **doc,
            Self::Campaign(doc) => &mut **doc,
            Self::Unused(doc) => &mut **doc,
        }
    }

    /// The rotation whose waiting machine is to be answered now.
    fn waiting(&mut self) -> Option<&mut Rotation> {
        match self {
            Self::Rotation(doc) if waits_for_answer(doc) => Some(doc),
            _ => None,
        }
    }
}

impl Step for Notify {
    const NAME: &'static str = "notify";
    type Input = Document;
    type Output = Document;

    /// Run twice, it sends what the first run's document does not know to be sent: at least once, with the
    /// same id. It fails on nothing that a channel does.
    async fn run(&self, mut doc: Document, ctx: &Context) -> Result<Document, StepError> {
        let now = ctx.clock.now();
        let outbox = doc.outbox();
        outbox.conclude(now);
        let config = aws::for_run(&self.config, outbox.id());
        let deadline = tokio::time::Instant::now() + BRIEFLY;
        // Each of the three has its share of the time, and none waits for another's success.
        let _ = tokio::time::timeout_at(deadline - BRIEFLY * 2 / 3, self.to_bus(&config, outbox)).await;
        let _ = tokio::time::timeout_at(deadline - BRIEFLY / 3, self.to_topic(&config, outbox)).await;
        if let Some(rotation) = doc.waiting() {
            let _ = tokio::time::timeout_at(deadline, answer(&config, rotation)).await;
        }
        let unanswered = doc.waiting().is_some();
        deliver(doc.outbox(), unanswered, now);
        Ok(doc)
    }
}

/// Says how far the outbox is, and when to try again.
fn deliver(doc: &mut dyn Outbox, unanswered: bool, now: Timestamp) {
    if doc.notices().iter().all(Notice::is_sent) && !unanswered {
        return doc.deliver(Delivery::Done, None);
    }
    let Some((at, patience)) = doc.last_words() else { return doc.deliver(Delivery::Pending, None) };
    let since = Duration::try_from(now.duration_since(at)).unwrap_or_default();
    if since >= patience {
        warn!(rotation.id = %doc.id(), "Gave up sending notices of {}", doc.id());
        doc.deliver(Delivery::GaveUp, None);
    } else {
        doc.deliver(Delivery::Pending, Some(wait_time(after(now, since.clamp(TRY_AGAIN.0, TRY_AGAIN.1)))));
    }
}

/// Whether a waiting machine is to be told: the run is past the point that it asks about.
fn waits_for_answer(doc: &Rotation) -> bool {
    let decided = matches!(doc.phase, Phase::Overlap | Phase::Grace | Phase::Ended)
        || doc.notices.iter().any(|notice| notice.kind == NoticeKind::Stuck);
    doc.request.on_promoted.is_some() && !doc.answered && decided
}

/// The most entries that one call of `PutEvents` takes.
const ENTRIES: usize = 10;

impl Notify {
    async fn to_bus(&self, config: &SdkConfig, doc: &mut (dyn Outbox + Send + Sync)) {
        let waiting: Vec<usize> =
            (0..doc.notices().len()).filter(|&index| !doc.notices()[index].on_bus).collect();
        let client = aws_sdk_eventbridge::Client::new(config);
        for waiting in waiting.chunks(ENTRIES) {
            let entries = waiting.iter().map(|&index| {
                let notice = &doc.notices()[index];
                PutEventsRequestEntry::builder()
                    .event_bus_name(&self.channels.bus)
                    .source(EVENT_SOURCE)
                    .detail_type(doc.detail_type(notice))
                    .time(DateTime::from_secs(notice.at.as_second()))
                    .set_resources(Some(doc.resources()).filter(|named| !named.is_empty()))
                    .detail(doc.detail(notice).to_string())
                    .build()
            });
            let sent = client.put_events().set_entries(Some(entries.collect())).send().await;
            match sent {
                Ok(reply) => {
                    for (&index, entry) in waiting.iter().zip(reply.entries()) {
                        doc.notices_mut()[index].on_bus = entry.event_id().is_some();
                        if let Some(code) = entry.error_code() {
                            warn!(rotation.id = %doc.id(), "The bus refused notice {}: {code}", doc.notices()[index].id);
                        }
                    }
                }
                Err(error) => {
                    warn!(rotation.id = %doc.id(), "{}", StepError::from_sdk("events:PutEvents", &error));
                    return;
                }
            }
        }
    }

    async fn to_topic(&self, config: &SdkConfig, doc: &mut (dyn Outbox + Send + Sync)) {
        let client = aws_sdk_sns::Client::new(config);
        for index in 0..doc.notices().len() {
            let notice = &doc.notices()[index];
            if notice.on_topic {
                continue;
            }
            let detail = doc.detail(notice);
            let message = format!("{}\n\n{detail:#}\n", notice.text);
            let sent = client
                .publish()
                .topic_arn(&self.channels.topic)
                .subject(doc.subject(notice))
                .message(message)
                .message_attributes("id", attribute(&notice.id))
                .message_attributes("kind", attribute(notice.kind.name()))
                .message_attributes("outcome", attribute(doc.outcome().unwrap_or("none")))
                .send()
                .await;
            match sent {
                Ok(_) => {
                    info!(rotation.id = %doc.id(), "Announced {}", doc.notices()[index].id);
                    doc.notices_mut()[index].on_topic = true;
                }
                Err(error) => {
                    warn!(rotation.id = %doc.id(), "{}", StepError::from_sdk("sns:Publish", &error));
                    // The topic does not take this one; the next one would wait as long for nothing.
                    return;
                }
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "data_type is set, and is all that build asks for")]
fn attribute(value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder().data_type("String").string_value(value).build().expect("complete")
}

/// Answers the fleet's task token once: promoted, or not and why. A token that can no longer be answered is
/// as good as answered; its owner has stopped waiting.
async fn answer(config: &SdkConfig, doc: &mut Rotation) {
    let Some(token) = doc.request.on_promoted.as_ref() else { return };
    let client = aws_sdk_sfn::Client::new(config);
    let promoted = doc.promoted_at.is_some();
    // A run that took over an Inactive key is on its way like one that has promoted.
    let on_its_way = promoted || doc.phase == Phase::Grace;
    let result = if on_its_way {
        let output =
            json!({ "run": doc.run, "promoted": promoted, "outcome": doc.outcome, "user": doc.user_name() });
        let sent = client.send_task_success().task_token(token).output(output.to_string()).send().await;
        sent.map(|_| ()).map_err(|error| StepError::from_sdk("states:SendTaskSuccess", &error))
    } else {
        let outcome = doc.outcome.map_or("Held", Outcome::name);
        let cause = doc.why.as_ref().map_or(String::new(), |why| format!("{}: {}", why.code, why.text));
        let sent = client
            .send_task_failure()
            .task_token(token)
            .error(format!("Keywheel.{outcome}"))
            .cause(cause)
            .send()
            .await;
        sent.map(|_| ()).map_err(|error| StepError::from_sdk("states:SendTaskFailure", &error))
    };
    doc.answered = match &result {
        Ok(()) => true,
        Err(StepError::Refused(Failure { code, .. })) => {
            matches!(code.as_str(), "TaskTimedOut" | "TaskDoesNotExist" | "InvalidToken")
        }
        Err(_) => false,
    };
    if let Err(error) = result {
        warn!(rotation.id = %doc.run, "{error}");
    }
}

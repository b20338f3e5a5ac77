//! The `Notify…` states: send what waits in the document's outbox.
//!
//! Each channel on its own, briefly, and never as an error: what could not be sent stays in the outbox for the
//! next Notify. After the outcome the machine comes back here for a day, and then an alarm tells.

use std::time::Duration;

use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use aws_sdk_sns::types::MessageAttributeValue;
use aws_smithy_types::DateTime;
use aws_types::SdkConfig;
use jiff::Timestamp;
use keywheel::clock::{after, wait_time};
use keywheel::error::Failure;
use keywheel::notice::{EVENT_SOURCE, Notice, NoticeKind};
use keywheel::rotation::{Delivery, Outcome, Phase};
use keywheel::{Context, Rotation, Step, StepError, aws};
use serde_json::json;
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
/// How long after the outcome an undelivered notice is tried.
const PATIENCE: Duration = Duration::from_hours(24);
/// The first and the longest pause between two tries after the outcome.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(15));

impl Notify {
    /// A step that calls AWS with `config` and sends to `channels`.
    pub fn new(config: SdkConfig, channels: Channels) -> Self {
        Self { config, channels }
    }
}

impl Step for Notify {
    const NAME: &'static str = "notify";
    type Input = Rotation;
    type Output = Rotation;

    /// Run twice, it sends what the first run's document does not know to be sent: at least once, with the
    /// same id. It fails on nothing that a channel does.
    async fn run(&self, mut doc: Rotation, ctx: &Context) -> Result<Rotation, StepError> {
        let now = ctx.clock.now();
        doc.conclude(now);
        let config = aws::for_run(&self.config, doc.run);
        let deadline = tokio::time::Instant::now() + BRIEFLY;
        // Each of the three has its share of the time, and none waits for another's success.
        let _ = tokio::time::timeout_at(deadline - BRIEFLY * 2 / 3, self.to_bus(&config, &mut doc)).await;
        let _ = tokio::time::timeout_at(deadline - BRIEFLY / 3, self.to_topic(&config, &mut doc)).await;
        let _ = tokio::time::timeout_at(deadline, answer(&config, &mut doc)).await;
        deliver(&mut doc, now);
        Ok(doc)
    }
}

/// Says how far the outbox is, and when to try again.
fn deliver(doc: &mut Rotation, now: Timestamp) {
    let waits_for_answer = doc.request.on_promoted.is_some() && !doc.answered && is_decided(doc);
    if doc.notices.iter().all(Notice::is_sent) && !waits_for_answer {
        doc.delivery = Delivery::Done;
        return;
    }
    doc.delivery = Delivery::Pending;
    let ended = doc.notices.iter().find(|notice| notice.kind == NoticeKind::Ended);
    if let (Phase::Ended, Some(ended)) = (doc.phase, ended) {
        let since = Duration::try_from(now.duration_since(ended.at)).unwrap_or_default();
        if since >= PATIENCE {
            warn!(rotation.id = %doc.run, "Gave up sending notices of {}", doc.user_name());
            doc.delivery = Delivery::GaveUp;
        } else {
            doc.wait_until = Some(wait_time(after(now, since.clamp(TRY_AGAIN.0, TRY_AGAIN.1))));
        }
    }
}

/// Whether the run is past the point that a waiting fleet asks about.
fn is_decided(doc: &Rotation) -> bool {
    matches!(doc.phase, Phase::Overlap | Phase::Grace | Phase::Ended)
        || doc.notices.iter().any(|notice| notice.kind == NoticeKind::Stuck)
}

impl Notify {
    async fn to_bus(&self, config: &SdkConfig, doc: &mut Rotation) {
        let waiting: Vec<usize> =
            (0..doc.notices.len()).filter(|&index| !doc.notices[index].on_bus).collect();
        if waiting.is_empty() {
            return;
        }
        let client = aws_sdk_eventbridge::Client::new(config);
        let entries = waiting.iter().map(|&index| {
            let notice = &doc.notices[index];
            PutEventsRequestEntry::builder()
                .event_bus_name(&self.channels.bus)
                .source(EVENT_SOURCE)
                .detail_type(notice.detail_type())
                .time(DateTime::from_secs(notice.at.as_second()))
                .set_resources(doc.secret.as_ref().map(|arn| vec![arn.to_string()]))
                .detail(notice.detail(doc).to_string())
                .build()
        });
        // A run has at most ten notices, which is what one call takes.
        let sent = client.put_events().set_entries(Some(entries.collect())).send().await;
        match sent {
            Ok(reply) => {
                for (&index, entry) in waiting.iter().zip(reply.entries()) {
                    doc.notices[index].on_bus = entry.event_id().is_some();
                    if let Some(code) = entry.error_code() {
                        warn!(rotation.id = %doc.run, "The bus refused notice {}: {code}", doc.notices[index].id);
                    }
                }
            }
            Err(error) => {
                warn!(rotation.id = %doc.run, "{}", StepError::from_sdk("events:PutEvents", &error));
            }
        }
    }

    async fn to_topic(&self, config: &SdkConfig, doc: &mut Rotation) {
        let client = aws_sdk_sns::Client::new(config);
        for index in 0..doc.notices.len() {
            let notice = &doc.notices[index];
            if notice.on_topic {
                continue;
            }
            let detail = notice.detail(doc);
            let message = format!("{}\n\n{detail:#}\n", notice.text);
            let sent = client
                .publish()
                .topic_arn(&self.channels.topic)
                .subject(notice.subject(doc))
                .message(message)
                .message_attributes("id", attribute(&notice.id))
                .message_attributes("kind", attribute(notice.kind.name()))
                .message_attributes("outcome", attribute(doc.outcome.map_or("none", Outcome::name)))
                .send()
                .await;
            match sent {
                Ok(_) => {
                    info!(rotation.id = %doc.run, "Announced {}", notice.id);
                    doc.notices[index].on_topic = true;
                }
                Err(error) => {
                    warn!(rotation.id = %doc.run, "{}", StepError::from_sdk("sns:Publish", &error));
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
    let Some(token) = doc.request.on_promoted.as_ref().filter(|_| !doc.answered && is_decided(doc)) else {
        return;
    };
    let client = aws_sdk_sfn::Client::new(config);
    let promoted = doc.promoted_at.is_some();
    let result = if promoted {
        let output =
            json!({ "run": doc.run, "promoted": true, "outcome": doc.outcome, "user": doc.user_name() });
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

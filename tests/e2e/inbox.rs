//! A queue that hears what a bus or a topic says, as a subscriber of one's own would.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cloud::{Cloud, fresh};

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// As it came: an event, or SNS's envelope.
    pub(crate) raw: String,
    /// Its body, read.
    pub(crate) body: Value,
}

/// The queue and what feeds it.
pub(crate) struct Inbox {
    cloud: Arc<Cloud>,
    url: String,
    name: String,
    subscription: Option<String>,
    got: Vec<Message>,
}

impl Inbox {
    async fn queue(cloud: &Arc<Cloud>) -> (Self, String) {
        let name = format!("e2e-{}", fresh());
        let arn = format!("arn:aws:sqs:{}:{}:{name}", cloud.region(), cloud.account());
        let senders = json!({ "Service": ["events.amazonaws.com", "sns.amazonaws.com"] });
        let statement =
            json!({ "Effect": "Allow", "Principal": senders, "Action": "sqs:SendMessage", "Resource": arn });
        let policy = json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
        let input = json!({ "QueueName": name, "Attributes": { "Policy": policy } });
        let made = cloud.call("sqs", "AmazonSQS.CreateQueue", &input).await;
        let url = made["QueueUrl"].as_str().unwrap().to_owned();
        (Self { cloud: Arc::clone(cloud), url, name, subscription: None, got: Vec::new() }, arn)
    }

    /// Hears all of Keywheel's events on its bus.
    pub(crate) async fn on_bus(cloud: &Arc<Cloud>) -> Self {
        let (inbox, arn) = Self::queue(cloud).await;
        let pattern = json!({ "source": ["keywheel"] }).to_string();
        let rule = json!({ "Name": inbox.name, "EventBusName": cloud.bus, "EventPattern": pattern });
        cloud.raw("events", "AWSEvents.PutRule", &rule).await;
        let targets = json!([{ "Id": "queue", "Arn": arn }]);
        let targets = json!({ "Rule": inbox.name, "EventBusName": cloud.bus, "Targets": targets });
        cloud.raw("events", "AWSEvents.PutTargets", &targets).await;
        inbox
    }

    /// Hears all that the topic is told.
    pub(crate) async fn on_topic(cloud: &Arc<Cloud>) -> Self {
        let (mut inbox, arn) = Self::queue(cloud).await;
        let fields = [
            ("Action", "Subscribe"),
            ("Version", "2010-03-31"),
            ("TopicArn", &cloud.topic),
            ("Protocol", "sqs"),
            ("Endpoint", &arn),
        ];
        let reply = cloud.query("sns", &fields).await;
        let arn = reply.split_once("<SubscriptionArn>").and_then(|(_, rest)| rest.split_once('<'));
        inbox.subscription = arn.map(|(arn, _)| arn.to_owned());
        inbox
    }

    /// Waits until as many messages as wanted fit; all that fit so far.
    pub(crate) async fn wait(&mut self, many: usize, fits: impl Fn(&Message) -> bool) -> Vec<Message> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.receive().await;
            let found: Vec<Message> = self.got.iter().filter(|message| fits(message)).cloned().collect();
            if found.len() >= many || Instant::now() > until {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// All that it has heard, as one text.
    pub(crate) async fn everything(&mut self) -> String {
        self.receive().await;
        self.got.iter().map(|message| message.raw.as_str()).collect::<Vec<_>>().join("\n")
    }

    async fn receive(&mut self) {
        loop {
            let input = json!({ "QueueUrl": self.url, "MaxNumberOfMessages": 10 });
            let reply = self.cloud.call("sqs", "AmazonSQS.ReceiveMessage", &input).await;
            let Some(page) = reply["Messages"].as_array().filter(|page| !page.is_empty()) else { return };
            for message in page {
                let raw = message["Body"].as_str().unwrap().to_owned();
                let body = serde_json::from_str(&raw).unwrap_or_default();
                self.got.push(Message { raw, body });
                let input = json!({ "QueueUrl": self.url, "ReceiptHandle": message["ReceiptHandle"] });
                self.cloud.raw("sqs", "AmazonSQS.DeleteMessage", &input).await;
            }
        }
    }

    /// Takes it all down again: nobody else's notices should be copied for nothing.
    pub(crate) async fn close(self) {
        if let Some(arn) = &self.subscription {
            let fields = [("Action", "Unsubscribe"), ("Version", "2010-03-31"), ("SubscriptionArn", arn)];
            self.cloud.query("sns", &fields).await;
        } else {
            let rule = json!({ "Rule": self.name, "EventBusName": self.cloud.bus, "Ids": ["queue"] });
            self.cloud.raw("events", "AWSEvents.RemoveTargets", &rule).await;
            let rule = json!({ "Name": self.name, "EventBusName": self.cloud.bus });
            self.cloud.raw("events", "AWSEvents.DeleteRule", &rule).await;
        }
        self.cloud.raw("sqs", "AmazonSQS.DeleteQueue", &json!({ "QueueUrl": self.url })).await;
    }
}

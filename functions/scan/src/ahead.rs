//! Warnings ahead: owners of keys that are due soon are told, each once for a key's date.
//!
//! The scheduled campaign warns, whatever becomes of it: also where a freeze, a pause or the mode `dry-run` keeps it
//! from rotating, since a key that is due meanwhile is rotated as soon as that ends; the notice says what holds it up.
//! A plan that a person asks for warns nobody, and takes no warning from the campaign that would give it.
//!
//! However many users are warned, it takes two calls where nobody is, three where somebody is, and one for each
//! execution of which it is not known whether it has told its own: the last one. None of them can fail a campaign.

use std::collections::BTreeMap;

use aws_sdk_sfn::Client;
use aws_sdk_sfn::types::ExecutionStatus;
use aws_types::SdkConfig;
use facts::bucket::Bucket;
use jiff::Timestamp;
use keywheel::StepError;
use keywheel::campaign::Campaign;
use keywheel::decide::ahead::{self, Carrier};
use keywheel::decide::due::Calendar;
use keywheel::fleet::warned::{WARNINGS, Warnings};
use tracing::warn;

/// What warnings are made from.
pub(crate) struct Ahead {
    /// When keys are due.
    pub(crate) calendar: Calendar,
    /// What keeps them from being rotated now.
    pub(crate) held: Option<String>,
}

impl Ahead {
    /// Puts the warnings into the document's outbox, and remembers them. Where that fails, nobody is warned, and the
    /// next campaign does it; the document says so.
    pub(crate) async fn tell(&self, config: &SdkConfig, bucket: &Bucket, doc: &mut Campaign, now: Timestamp) {
        if let Err(error) = self.remember_and_tell(config, bucket, doc, now).await {
            warn!(rotation.id = %doc.campaign, "Nobody was warned: {error}");
            if !self.calendar.soon.is_empty() {
                doc.warn_nobody(now, &error.to_string());
            }
        }
    }

    async fn remember_and_tell(
        &self,
        config: &SdkConfig,
        bucket: &Bucket,
        doc: &mut Campaign,
        now: Timestamp,
    ) -> Result<(), StepError> {
        let before = read(bucket).await?;
        let sfn = Client::new(config);
        let mut carriers = BTreeMap::new();
        for execution in ahead::carriers(&before, &doc.execution) {
            carriers.insert(execution.to_owned(), carrier(&sfn, execution).await);
        }
        let unwritten = |error: serde_json::Error| {
            StepError::BadInput(format!("the warnings cannot be written: {error}"))
        };
        let own = (doc.campaign, doc.execution.as_str());
        let (after, telling) = ahead::tell(&before, &carriers, &self.calendar, own, now);
        if !telling.is_empty() {
            let mut list = String::new();
            for (_, soon) in &telling {
                list += &serde_json::to_string(soon).map_err(unwritten)?;
                list.push('\n');
            }
            bucket.write(&doc.due_soon(), "application/jsonl", list).await?;
        }
        // Before the document has the notices, and after everything else: see `decide::ahead` for what may be lost
        // here.
        if after != before {
            let text = serde_json::to_string(&after).map_err(unwritten)?;
            bucket.write(WARNINGS, "application/json", text).await?;
        }
        doc.warn(now, &telling, self.held.as_deref());
        Ok(())
    }
}

async fn read(bucket: &Bucket) -> Result<Warnings, StepError> {
    let Some(stored) = bucket.read(WARNINGS, None).await? else { return Ok(Warnings::default()) };
    serde_json::from_str(&stored.text).map_err(|error| {
        StepError::Conflict(format!("{} is not understood: {error}", bucket.address(WARNINGS)))
    })
}

/// What has become of an execution.
async fn carrier(sfn: &Client, execution: &str) -> Carrier {
    let reply = match sfn.describe_execution().execution_arn(execution).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let error = StepError::from_sdk("states:DescribeExecution", &error);
            // After 90 days nobody remembers it.
            if error.is_refused(&["ExecutionDoesNotExist"]) {
                return Carrier::ended(None);
            }
            warn!("Whether {execution} has told its warnings is asked again: {error}");
            return Carrier::Open;
        }
    };
    match reply.status() {
        ExecutionStatus::Running | ExecutionStatus::PendingRedrive => Carrier::Open,
        // Only one that succeeded leaves its document.
        _ => Carrier::ended(reply.output().and_then(|output| serde_json::from_str(output).ok())),
    }
}

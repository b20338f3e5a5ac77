//! What CloudTrail knows: who made a key, and who still calls with one.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::types::{Event, LookupAttribute, LookupAttributeKey};
use aws_smithy_types::DateTime;
use jiff::Timestamp;
use keywheel::clock::after;
use keywheel::decide::orphan::CreateRecord;
use keywheel::making::Made;
use keywheel::rotation::{Caller, Suspect};
use keywheel::triage::made_in_record;
use keywheel::{AccessKeyId, RunId, StepError};
use serde_json::Value;

use crate::timestamp;

/// The region whose trail holds IAM's records, by partition: IAM is global and speaks from one region.
pub fn iam_region(partition: &str) -> Option<&'static str> {
    match partition {
        "aws" => Some("us-east-1"),
        "aws-us-gov" => Some("us-gov-west-1"),
        "aws-cn" => Some("cn-north-1"),
        _ => None,
    }
}

fn seconds(at: Timestamp) -> DateTime {
    DateTime::from_secs(at.as_second())
}

fn attribute(key: LookupAttributeKey, value: &str) -> Result<LookupAttribute, StepError> {
    LookupAttribute::builder()
        .attribute_key(key)
        .attribute_value(value)
        .build()
        .map_err(|_| StepError::BadInput("cloudtrail:LookupEvents: the attribute could not be built".into()))
}

fn record(event: &Event) -> Option<Value> {
    serde_json::from_str(event.cloud_trail_event()?).ok()
}

/// The record of the call that made the suspect, where CloudTrail has it.
pub async fn create_record(trail: &Client, suspect: &Suspect) -> Result<Option<CreateRecord>, StepError> {
    let Some(created) = suspect.created else { return Ok(None) };
    // IAM's time of creation and CloudTrail's of the call may differ a little.
    let around = Duration::from_mins(5);
    let start = Timestamp::from_second(created.as_second() - 300).unwrap_or(created);
    let mut pages = trail
        .lookup_events()
        .lookup_attributes(attribute(LookupAttributeKey::EventName, "CreateAccessKey")?)
        .start_time(seconds(start))
        .end_time(seconds(after(created, around)))
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("cloudtrail:LookupEvents", &error))?;
        for record in page.events().iter().filter_map(record) {
            let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
            if text("/responseElements/accessKey/accessKeyId") == Some(suspect.key.as_str()) {
                return Ok(Some(CreateRecord {
                    role: text("/userIdentity/sessionContext/sessionIssuer/arn").map(str::to_owned),
                    run: text("/userAgent").and_then(RunId::from_user_agent),
                    by: text("/userIdentity/arn").unwrap_or("an unnamed caller").to_owned(),
                }));
            }
        }
    }
    Ok(None)
}

/// How many pages of new keys are read: of 3,000 keys it is known well enough that they are many.
const PAGES_OF_KEYS: usize = 60;
/// A region's history allows two lookups a second, to all callers together.
const BETWEEN_PAGES: Duration = Duration::from_millis(600);

/// The keys that were made from `since` to `until`, whoever made them, the latest first; no more of them are read than
/// are `enough`.
pub async fn made_between(
    trail: &Client,
    since: Timestamp,
    until: Timestamp,
    enough: impl Fn(&[Made]) -> bool,
) -> Result<Vec<Made>, StepError> {
    let mut pages = trail
        .lookup_events()
        .lookup_attributes(attribute(LookupAttributeKey::EventName, "CreateAccessKey")?)
        .start_time(seconds(since))
        .end_time(seconds(until))
        .into_paginator()
        .send();
    let mut made = Vec::new();
    for number in 0..PAGES_OF_KEYS {
        if number > 0 {
            tokio::time::sleep(BETWEEN_PAGES).await;
        }
        let Some(page) = pages.next().await else { break };
        let page = page.map_err(|error| StepError::from_sdk("cloudtrail:LookupEvents", &error))?;
        made.extend(page.events().iter().filter_map(record).filter_map(|record| made_in_record(&record)));
        if enough(&made) {
            break;
        }
    }
    Ok(made)
}

/// How many pages of a busy key's calls are read: the answer is for people, who need the callers, not the count.
const PAGES: usize = 4;
/// How many callers are named.
const CALLERS: usize = 10;

/// Who called with `key` since `since`, the latest first, as far as a few pages tell.
pub async fn callers(trail: &Client, key: &AccessKeyId, since: Timestamp) -> Result<Vec<Caller>, StepError> {
    let mut pages = trail
        .lookup_events()
        .lookup_attributes(attribute(LookupAttributeKey::AccessKeyId, key.as_str())?)
        .start_time(seconds(since))
        .into_paginator()
        .send();
    let mut callers: BTreeMap<(String, String, String, String), (Timestamp, u32)> = BTreeMap::new();
    for _ in 0..PAGES {
        let Some(page) = pages.next().await else { break };
        let page = page.map_err(|error| StepError::from_sdk("cloudtrail:LookupEvents", &error))?;
        for event in page.events() {
            let Some(at) = event.event_time().and_then(timestamp).filter(|at| *at >= since) else { continue };
            let record = record(event).unwrap_or_default();
            let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or("unknown").to_owned();
            let who = (text("sourceIPAddress"), text("userAgent"), text("eventSource"), text("awsRegion"));
            let seen = callers.entry(who).or_insert((at, 0));
            *seen = (seen.0.max(at), seen.1 + 1);
        }
    }
    let mut callers: Vec<Caller> = callers
        .into_iter()
        .map(|((address, agent, service, region), (last, calls))| Caller {
            address,
            agent,
            service,
            region,
            last,
            calls,
        })
        .collect();
    callers.sort_by_key(|caller| std::cmp::Reverse(caller.last));
    callers.truncate(CALLERS);
    Ok(callers)
}

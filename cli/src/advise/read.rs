//! What CloudTrail's history shows of a key, region by region.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_cloudtrail::Client;
use aws_sdk_cloudtrail::operation::lookup_events::LookupEventsOutput;
use aws_sdk_cloudtrail::types::{LookupAttribute, LookupAttributeKey};
use keywheel::decide::advice::History;
use keywheel::incident::findings::Gaps;
use keywheel::{AccessKeyId, StepError};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::place::Place;

/// Before each call but the first: a region allows two a second, to all callers of the account together.
pub(super) const PAUSE: Duration = Duration::from_millis(600);
/// Before a call that was throttled is made again.
const BACK_OFF: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// How many pages are read in one region: the latest 2,000 calls.
const PAGES: usize = 40;
/// How many regions are read in the same moment.
const AT_ONCE: usize = 8;

/// What was read of a key, and what was not.
pub(super) struct Read {
    pub(super) history: History,
    pub(super) gaps: Gaps,
    /// Why regions could not be read.
    pub(super) errors: Vec<(String, StepError)>,
}

/// Reads the history of these regions. One that cannot be read is named.
pub(super) async fn history(place: &Place, key: &AccessKeyId, regions: &[String]) -> Read {
    let history = Arc::new(Mutex::new(History::default()));
    let mut read = Read { history: History::default(), gaps: Gaps::default(), errors: Vec::new() };
    let (mut waiting, mut calls) = (regions.iter(), JoinSet::new());
    loop {
        while calls.len() < AT_ONCE
            && let Some(region) = waiting.next()
        {
            let (trail, key, history) = (place.trail(region), key.clone(), Arc::clone(&history));
            let region = region.clone();
            calls.spawn(async move {
                let whole = read_region(&trail, &key, &history).await;
                (region, whole)
            });
        }
        match calls.join_next().await {
            None => break,
            Some(Ok((_, Ok(true)))) => read.gaps.read += 1,
            Some(Ok((region, Ok(false)))) => {
                read.gaps.read += 1;
                read.gaps.cut.push(region);
            }
            Some(Ok((region, Err(error)))) => {
                read.gaps.missing.push(region.clone());
                read.errors.push((region, error));
            }
            // Only a bug breaks one off, and then nobody knows which.
            Some(Err(_)) => read.gaps.missing.push("a region whose look-up broke off".to_owned()),
        }
    }
    read.gaps.missing.sort_unstable();
    read.gaps.cut.sort_unstable();
    read.history = history.lock().unwrap_or_else(PoisonError::into_inner).clone();
    read
}

/// Reads one region; whether to the end.
async fn read_region(trail: &Client, key: &AccessKeyId, history: &Mutex<History>) -> Result<bool, StepError> {
    let wanted = LookupAttribute::builder()
        .attribute_key(LookupAttributeKey::AccessKeyId)
        .attribute_value(key.as_str())
        .build()
        .map_err(|_| StepError::BadInput("cloudtrail:LookupEvents: no attribute".into()))?;
    let mut token = None;
    for number in 0..PAGES {
        if number > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let reply = page(trail, &wanted, token).await?;
        count(&reply, history);
        token = reply.next_token;
        if token.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn count(reply: &LookupEventsOutput, history: &Mutex<History>) {
    let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
    for event in reply.events() {
        // A record that cannot be read is a call from nobody knows where.
        let record = event.cloud_trail_event().and_then(|text| serde_json::from_str(text).ok());
        history.add(&record.unwrap_or(Value::Null));
    }
}

/// One page, asked for again where that may help.
async fn page(
    trail: &Client,
    wanted: &LookupAttribute,
    token: Option<String>,
) -> Result<LookupEventsOutput, StepError> {
    let mut pauses = BACK_OFF.into_iter();
    loop {
        let call = trail.lookup_events().lookup_attributes(wanted.clone()).set_next_token(token.clone());
        let error = match call.send().await {
            Ok(reply) => return Ok(reply),
            Err(error) => StepError::from_sdk("cloudtrail:LookupEvents", &error),
        };
        match pauses.next().filter(|_| matches!(error, StepError::Throttled(_))) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(error),
        }
    }
}

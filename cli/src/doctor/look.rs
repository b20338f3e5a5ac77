//! What is in the account, read once.

use jiff::Timestamp;
use keywheel::StepError;
use serde_json::Value;

use super::alarms::{self, Alarm};
use super::installed::{self, Machine};
use super::reach::{self, Region};
use super::tags::{self, Tags};
use super::{clock, policy};
use crate::error::Trouble;
use crate::place::Place;
use crate::regions;
use crate::switches::Switches;

/// How many of the latest emergencies are looked at.
const LATEST: i32 = 60;

/// What the last drill is called where it could not be read.
pub(super) const DRILL: &str = "the last drill";

/// A rule that starts an emergency, or forwards to what does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) enabled: bool,
    /// The sources that its pattern names.
    pub(super) sources: Vec<String>,
}

/// An event that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) source: String,
    pub(super) at: Timestamp,
}

/// All of it. What could not be read is named.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The installation's stage.
    pub(super) stage: String,
    /// The topic's ARN.
    pub(super) topic: String,
    /// The two switches.
    pub(super) switches: Option<Switches>,
    /// The machines.
    pub(super) machines: Option<Vec<Machine>>,
    /// The buses, and whether each is there.
    pub(super) buses: Option<Vec<(String, bool)>>,
    /// The alarms.
    pub(super) alarms: Option<Vec<Alarm>>,
    /// The policy that campaigns follow.
    pub(super) policy: Option<policy::Pushed>,
    /// The pairs of users and secrets.
    pub(super) tags: Option<Tags>,
    /// How far this clock is from AWS's.
    pub(super) clock: Option<clock::Told>,
    /// The other regions.
    pub(super) regions: Vec<Region>,
    /// The hub's region.
    pub(super) region: String,
    /// The region where IAM's records come from; the hub's own in a partition that nobody has told us of.
    pub(super) global: String,
    /// The rules of the hub.
    pub(super) rules: Vec<Rule>,
    /// Those of the global region that forward to the hub.
    pub(super) intake: Vec<Rule>,
    /// Whether any trail logs.
    pub(super) trail: Option<bool>,
    /// Whether the leak bus lets others in.
    pub(super) senders: Option<bool>,
    /// Confirmed subscribers of the topic, and those that wait to be.
    pub(super) subscribers: Option<(usize, usize)>,
    /// The latest event of each source.
    pub(super) last: Vec<Seen>,
    /// The record of the last drill.
    pub(super) drill: Option<Value>,
    /// What could not be read, and why.
    pub(super) unread: Vec<(&'static str, Trouble)>,
}

impl Found {
    fn take<T, E: Into<Trouble>>(&mut self, what: &'static str, read: Result<T, E>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                self.unread.push((what, error.into()));
                None
            }
        }
    }
}

/// Reads everything, whatever fails.
pub(super) async fn around(place: &Place) -> Found {
    let global = facts::trail::iam_region(&place.partition).unwrap_or(&place.region);
    let mut found = Found {
        region: place.region.clone(),
        global: global.to_owned(),
        stage: place.stage.clone(),
        topic: place.topic(),
        ..Found::default()
    };
    let switches = Switches::read(place).await;
    found.switches = found.take("the switches", switches);
    installation(place, &mut found).await;
    let (events, hub) = (place.events(&place.region), place.emergency.as_str());
    for bus in ["default", place.leaks.as_str()] {
        let rules = rules(&events, bus, hub).await;
        let rules = found.take("the rules of the hub", rules).unwrap_or_default();
        found.rules.extend(rules);
    }
    if found.region != found.global {
        let forward =
            format!("arn:{}:events:{}:{}:event-bus/default", place.partition, place.region, place.account);
        let rules = rules(&place.events(&found.global), "default", &forward).await;
        found.intake = found.take("the rules that forward to the hub", rules).unwrap_or_default();
    }
    let trail = trail(place).await;
    found.trail = found.take("the trails", trail);
    let senders = senders(place).await;
    found.senders = found.take("the leak bus", senders);
    let subscribers = subscribers(place).await;
    found.subscribers = found.take("the topic's subscribers", subscribers);
    let last = last(place).await;
    found.last = found.take("the latest emergencies", last).unwrap_or_default();
    let drill = drill(place).await;
    found.drill = found.take(DRILL, drill).flatten();
    let regions = regions::enabled(place).await;
    let regions = found.take("the list of regions", regions).unwrap_or_else(|| regions::known(place));
    found.regions = reach::read(place, regions).await;
    found
}

/// What was deployed, and what was made of it since.
async fn installation(place: &Place, found: &mut Found) {
    let machines = installed::machines(place).await;
    found.machines = found.take("the machines", machines);
    let buses = installed::buses(place).await;
    found.buses = found.take("the buses", buses);
    let alarms = alarms::read(place).await;
    found.alarms = found.take("the alarms", alarms);
    let policy = policy::read(place).await;
    found.policy = found.take("the pushed policy", policy);
    let tags = tags::read(place).await;
    found.tags = found.take("the managed pairs", tags);
    let clock = clock::read(place).await;
    found.clock = found.take("AWS's time", clock);
}

pub(super) async fn rules(
    events: &aws_sdk_eventbridge::Client,
    bus: &str,
    target: &str,
) -> Result<Vec<Rule>, StepError> {
    let (mut rules, mut token) = (Vec::new(), None);
    loop {
        let call = events.list_rule_names_by_target().target_arn(target).event_bus_name(bus);
        let page = call.set_next_token(token).send().await;
        let page = page.map_err(|error| StepError::from_sdk("events:ListRuleNamesByTarget", &error))?;
        for name in page.rule_names() {
            let told = events.describe_rule().name(name).event_bus_name(bus).send().await;
            let told = told.map_err(|error| StepError::from_sdk("events:DescribeRule", &error))?;
            let enabled = told.state().is_some_and(|state| state.as_str().starts_with("ENABLED"));
            rules.push(Rule { name: name.clone(), enabled, sources: sources(told.event_pattern()) });
        }
        token = page.next_token().map(str::to_owned);
        if token.is_none() {
            return Ok(rules);
        }
    }
}

/// The sources of a pattern. One that is written in another way than ours names none.
fn sources(pattern: Option<&str>) -> Vec<String> {
    let pattern: Option<Value> = pattern.and_then(|pattern| serde_json::from_str(pattern).ok());
    let sources = pattern.as_ref().and_then(|pattern| pattern["source"].as_array());
    sources.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

async fn trail(place: &Place) -> Result<bool, StepError> {
    let client = place.trail(&place.region);
    let told = client.describe_trails().include_shadow_trails(true).send().await;
    let told = told.map_err(|error| StepError::from_sdk("cloudtrail:DescribeTrails", &error))?;
    for trail in told.trail_list() {
        let global = trail.is_multi_region_trail() == Some(true)
            && trail.include_global_service_events() == Some(true);
        let Some(arn) = trail.trail_arn().filter(|_| global) else { continue };
        let status = client.get_trail_status().name(arn).send().await;
        let status = status.map_err(|error| StepError::from_sdk("cloudtrail:GetTrailStatus", &error))?;
        if status.is_logging() == Some(true) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn senders(place: &Place) -> Result<bool, StepError> {
    let told = place.events(&place.region).describe_event_bus().name(&place.leaks).send().await;
    let told = told.map_err(|error| StepError::from_sdk("events:DescribeEventBus", &error))?;
    Ok(told.policy().is_some_and(|policy| !policy.trim().is_empty()))
}

async fn subscribers(place: &Place) -> Result<(usize, usize), StepError> {
    let call = place.sns().list_subscriptions_by_topic().topic_arn(place.topic());
    let mut pages = call.into_paginator().send();
    let (mut confirmed, mut pending) = (0, 0);
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("sns:ListSubscriptionsByTopic", &error))?;
        for one in page.subscriptions() {
            // One that waits has no ARN yet.
            if one.subscription_arn().is_some_and(|arn| arn.starts_with("arn:")) {
                confirmed += 1;
            } else {
                pending += 1;
            }
        }
    }
    Ok((confirmed, pending))
}

async fn last(place: &Place) -> Result<Vec<Seen>, StepError> {
    let call = place.sfn().list_executions().state_machine_arn(&place.emergency).max_results(LATEST);
    let latest = call.send().await.map_err(|error| StepError::from_sdk("states:ListExecutions", &error))?;
    let mut seen: Vec<Seen> = Vec::new();
    for execution in latest.executions() {
        let told = place.sfn().describe_execution().execution_arn(execution.execution_arn()).send().await;
        let told = told.map_err(|error| StepError::from_sdk("states:DescribeExecution", &error))?;
        let event: Option<Value> = told.input().and_then(|input| serde_json::from_str(input).ok());
        let Some(event) = event else { continue };
        // What a person typed has no id: it did not come over a rule.
        let source = event["source"].as_str().filter(|_| event["id"].is_string());
        let at = Timestamp::from_second(execution.start_date().secs()).ok();
        if let (Some(source), Some(at)) = (source, at)
            && !seen.iter().any(|one| one.source == source)
        {
            seen.push(Seen { source: source.to_owned(), at });
        }
    }
    Ok(seen)
}

async fn drill(place: &Place) -> Result<Option<Value>, StepError> {
    match place.ssm().get_parameter().name(crate::drill::parameter(&place.stage)).send().await {
        Ok(reply) => {
            let text = reply.parameter().and_then(|parameter| parameter.value());
            Ok(text.and_then(|text| serde_json::from_str(text).ok()))
        }
        Err(error) => {
            let error = StepError::from_sdk("ssm:GetParameter", &error);
            if error.is_refused(&["ParameterNotFound"]) { Ok(None) } else { Err(error) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patterns_sources_are_read() {
        assert_eq!(
            sources(Some("{\"source\": [\"aws.iam\", {\"prefix\": \"x\"}], \"detail\": {}}")),
            ["aws.iam"]
        );
        for odd in [None, Some("nonsense"), Some("{}"), Some("{\"source\": \"aws.iam\"}")] {
            assert_eq!(sources(odd), Vec::<String>::new());
        }
    }
}

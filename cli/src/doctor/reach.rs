//! The regions from which nothing would come: in use, and without the intake.
//!
//! A region is in use where CloudTrail's history has a call that changed something. One whose history cannot be read
//! counts as in use.

use aws_sdk_cloudtrail::types::{LookupAttribute, LookupAttributeKey};
use keywheel::StepError;

use super::look::{Rule, rules};
use super::{Check, list};
use crate::place::Place;

/// A region beside the hub's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) name: String,
    /// The rules that forward from there, or why they could not be read.
    pub(super) rules: Result<Vec<Rule>, String>,
    /// Whether something is done there; not asked for where all is well.
    pub(super) used: Result<bool, String>,
}

impl Region {
    fn is_whole(&self) -> bool {
        self.rules.as_ref().is_ok_and(|rules| !rules.is_empty() && off(rules).is_empty())
    }

    /// Whether events of there may be missed: what global services say comes from one region, used or not.
    fn is_needed(&self, global: &str) -> bool {
        self.name == global || self.used != Ok(false)
    }
}

/// The rules that somebody switched off. One of them may be off by the parameter `WatchKeyMaking`.
fn off(rules: &[Rule]) -> Vec<&str> {
    let off = rules.iter().filter(|rule| !rule.enabled && !rule.name.ends_with("-leak-key-made"));
    off.map(|rule| rule.name.as_str()).collect()
}

/// Looks at the regions beside the hub's.
pub(super) async fn read(place: &Place, regions: Vec<String>) -> Vec<Region> {
    let hub = format!("arn:{}:events:{}:{}:event-bus/default", place.partition, place.region, place.account);
    let mut found = Vec::new();
    for name in regions.into_iter().filter(|name| *name != place.region) {
        let there = rules(&place.events(&name), "default", &hub).await.map_err(|error| error.to_string());
        let mut region = Region { name, rules: there, used: Ok(true) };
        // What IAM's records tell comes from one region, used or not.
        let is_iams = facts::trail::iam_region(&place.partition) == Some(region.name.as_str());
        if !region.is_whole() && !is_iams {
            region.used = used(place, &region.name).await.map_err(|error| error.to_string());
        }
        found.push(region);
    }
    found
}

async fn used(place: &Place, region: &str) -> Result<bool, StepError> {
    let writes = LookupAttribute::builder()
        .attribute_key(LookupAttributeKey::ReadOnly)
        .attribute_value("false")
        .build()
        .map_err(|_| StepError::BadInput("cloudtrail:LookupEvents: no attribute".into()))?;
    let call = place.trail(region).lookup_events().lookup_attributes(writes).max_results(1);
    let told = call.send().await.map_err(|error| StepError::from_sdk("cloudtrail:LookupEvents", &error))?;
    Ok(!told.events().is_empty())
}

fn names<'a>(regions: &[&'a Region], fits: impl Fn(&Region) -> bool) -> Vec<&'a str> {
    regions.iter().copied().filter(|&region| fits(region)).map(|region| region.name.as_str()).collect()
}

/// From which regions nothing comes, and why.
pub(super) fn checks(regions: &[Region], (hub, global): (&str, &str)) -> Vec<Check> {
    let lacking: Vec<&Region> =
        regions.iter().filter(|region| !region.is_whole() && region.is_needed(global)).collect();
    let deploy = format!(
        "Deploy infra/intake.yaml in each of them, with HubAccountId, AlarmTopicArn and HubRegion={hub}."
    );
    let none =
        names(&lacking, |region| region.rules.as_ref().is_ok_and(Vec::is_empty) && region.used.is_ok());
    let perhaps =
        names(&lacking, |region| region.rules.as_ref().is_ok_and(Vec::is_empty) && region.used.is_err());
    let disabled = names(&lacking, |region| region.rules.as_ref().is_ok_and(|rules| !rules.is_empty()));
    let unread = names(&lacking, |region| region.rules.is_err());
    let mut checks = Vec::new();
    if !none.is_empty() {
        let text = format!("nothing forwards what is said in {}, and it is in use", list(&none));
        checks.push(Check::bad("intake", text, deploy.clone()));
    }
    if !perhaps.is_empty() {
        let text = format!(
            "nothing forwards what is found in {}, and whether anything is done there could not be read",
            list(&perhaps)
        );
        checks.push(Check::bad("intake", text, deploy.clone()));
    }
    if !disabled.is_empty() {
        let text = format!("some of the rules that forward are disabled in {}", list(&disabled));
        checks.push(Check::bad("intake", text, "Enable them, or deploy infra/intake.yaml there again."));
    }
    if !unread.is_empty() {
        let text = format!("whether anything forwards from {} could not be read", list(&unread));
        checks.push(Check::bad(
            "intake",
            text,
            "Allow these credentials events:ListRuleNamesByTarget there.",
        ));
    }
    if checks.is_empty() {
        let whole = regions.iter().filter(|region| region.is_whole()).count();
        checks
            .push(Check::good("intake", format!("{whole} regions forward to {hub}, and no other is in use")));
    }
    checks
}

//! The event of a drill: one that the rules take for a leak.

use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use clap::ValueEnum;
use keywheel::{AccessKeyId, StepError};
use serde_json::{Value, json};

use crate::error::{Result, Trouble};
use crate::place::Place;

/// Who says that the key has leaked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    /// A sender of our own, over the leak bus
    Own,
    /// GuardDuty; only on a local cloud, for AWS lets nobody speak in its services' names
    GuardDuty,
    /// AWS Health; only on a local cloud
    Health,
}

impl Family {
    /// AWS refuses events whose source begins with `aws.` from anybody but its services.
    pub(super) fn may_be_sent(self, place: &Place) -> Result<()> {
        if self == Self::Own || place.kind() == "LOCAL" {
            return Ok(());
        }
        Err(Trouble::new(
            "AWS lets nobody send an event in the name of one of its services.",
            "Nothing was changed. `keywheel drill --family own` goes the same way from the rule on.",
        ))
    }

    fn event(self, place: &Place, key: &AccessKeyId, user: &str) -> (&'static str, &'static str, Value) {
        match self {
            Self::Own => (
                "keywheel.leak",
                "Leaked Access Key",
                json!({
                    "schema": 1,
                    "keys": [{ "key_id": key, "user": user }],
                    "certainty": "exposed",
                    "severity": "critical",
                    "reporter": place.caller,
                    "reason": "a drill",
                }),
            ),
            Self::GuardDuty => (
                "aws.guardduty",
                "GuardDuty Finding",
                json!({
                    "schemaVersion": "2.0",
                    "accountId": place.account,
                    "region": place.region,
                    "severity": 8,
                    "type": "UnauthorizedAccess:IAMUser/MaliciousIPCaller.Custom",
                    "title": "A drill",
                    "resource": {
                        "resourceType": "AccessKey",
                        "accessKeyDetails": { "accessKeyId": key, "userType": "IAMUser", "userName": user },
                    },
                    "service": { "serviceName": "guardduty", "count": 1 },
                }),
            ),
            Self::Health => (
                "aws.health",
                "AWS Health Event",
                json!({
                    "service": "RISK",
                    "eventTypeCode": "AWS_RISK_CREDENTIALS_EXPOSED",
                    "eventTypeCategory": "issue",
                    "affectedAccount": place.account,
                    "affectedEntities": [{ "entityValue": key }],
                }),
            ),
        }
    }

    /// Puts the event where its family comes from.
    pub(super) async fn send(self, place: &Place, key: &AccessKeyId, user: &str) -> Result<()> {
        let (source, kind, detail) = self.event(place, key, user);
        let bus = if self == Self::Own { place.leaks.as_str() } else { "default" };
        let entry = PutEventsRequestEntry::builder()
            .event_bus_name(bus)
            .source(source)
            .detail_type(kind)
            .detail(detail.to_string())
            .build();
        let sent = place.events(&place.region).put_events().entries(entry).send().await;
        let sent = sent.map_err(|error| StepError::from_sdk("events:PutEvents", &error))?;
        let failed = sent.entries().iter().find_map(|entry| entry.error_message());
        match failed {
            None if sent.failed_entry_count() == 0 => Ok(()),
            why => Err(Trouble::new(
                format!("The bus {bus} did not take the event: {}.", why.unwrap_or("it does not say why")),
                "Look at the bus's policy: it names who may send.",
            )),
        }
    }
}

//! What the tests of this command are about.

use aws_sdk_sfn::types::ExecutionStatus;
use jiff::Timestamp;
use keywheel::Incident;
use keywheel::incident::{Record, RecordState, SCHEMA};
use serde_json::json;

use super::read::Seen;

pub(crate) const KEY: &str = "AKIA2OGYBAH6QKEYWHEL";
pub(crate) const OTHER: &str = "AKIA2OGYBAH6QKEYWHE2";
const ID: &str = "7ccf611a-6ff9-5e0a-9bfc-0927dc6c1f27";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn document() -> Incident {
    let value = json!({
        "schema": SCHEMA,
        "id": ID,
        "execution": format!("arn:aws-us-gov:states:us-gov-west-1:111122223333:execution:keywheel-prod-incident:{ID}"),
        "started": "2026-03-02T09:00:01Z",
        "target": {
            "class": "REVOKE_USER_KEY", "account": "111122223333", "key_id": KEY, "user": "svc-mail",
            "kind": "long-term", "source": "guardduty", "severity": "high",
        },
        "reason": "A long-term key of an IAM user.",
        "phase": "contain",
    });
    serde_json::from_value(value).unwrap()
}

pub(crate) fn record(state: RecordState) -> Record {
    Record {
        schema: SCHEMA,
        key: KEY.parse().unwrap(),
        user: "svc-mail".parse().unwrap(),
        account: None,
        incident: ID.parse().unwrap(),
        at: at("2026-03-02T09:00:02Z"),
        state,
        until: None,
        note: None,
    }
}

pub(crate) fn seen(document: Incident) -> Seen {
    Seen {
        id: document.id.to_string(),
        status: ExecutionStatus::Running,
        document: Some(document),
        failure: None,
    }
}

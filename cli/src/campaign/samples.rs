//! A campaign of two waves for the tests.

use aws_sdk_sfn::types::ExecutionStatus;
use jiff::Timestamp;
use keywheel::campaign::{Batch, Begin, Campaign, Counts, Failed, Outcome, Phase, Request, Wave};
use keywheel::rotation::Why;
use serde_json::json;

use super::read::Seen;

pub(super) const ID: &str = "0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10";

pub(super) fn t(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// The canary is through, with one failure; the first of two batches of the other wave is under way.
pub(super) fn document() -> Campaign {
    let begin = Begin { input: json!({}), name: ID.to_owned(), execution: "e".to_owned(), started: t(100) };
    let mut doc = Campaign::new(&begin, Request::default(), "bucket");
    doc.tolerance = 10;
    doc.policy_version = Some("v7".to_owned());
    doc.counts = Counts { users: 250, rotate: 30, skip: 218, find: 2, unread: 1, warned: 0, unused: 0 };
    doc.waves = vec![
        Wave { wave: 0, keys: 11, begun: 2, batches: 2, promoted: 10, retiring: 0, left: 0, failed: 1 },
        Wave { wave: 3, keys: 19, begun: 1, batches: 2, promoted: 0, retiring: 0, left: 0, failed: 0 },
    ];
    doc.phase = Phase::Batch;
    doc.batch = Some(Batch { number: 3, wave: 3, key: doc.items(3), began: t(200) });
    doc.failed = vec![Failed {
        run: doc.campaign.child("svc-mail"),
        whom: "svc-mail".to_owned(),
        wave: 0,
        code: "SlotsFull".to_owned(),
        text: "Both slots are taken.".to_owned(),
    }];
    doc
}

/// Its execution, and with an outcome at its end.
pub(super) fn seen(status: ExecutionStatus, outcome: Option<Outcome>) -> Seen {
    let mut doc = document();
    if let Some(outcome) = outcome {
        doc.batch = None;
        doc.end(t(900), outcome, Why::new("Code", "This is why.", "Do that."));
    }
    let running = status == ExecutionStatus::Running;
    Seen {
        id: ID.to_owned(),
        stopped: (!running).then(|| t(1_000)),
        status,
        started: t(100),
        request: Some(Request::default()),
        state: Some(("Batch".to_owned(), t(210))),
        document: Some(doc),
        failure: None,
    }
}

//! Runs that were stopped from outside, in each state: the next run finds what they left and ends it well.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_iam::types::StatusType;
use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::{Value, json};

use crate::blocked::{delay, refusal};
use crate::cloud::Cloud;
use crate::run::{all, brief_but, new_id};
use crate::scene::Scene;
use crate::watch::Watch;

/// How long a slow call takes; the run is stopped within it, and its Lambda goes on.
const SLOW: u32 = 1200;

type Faults = fn(&str) -> Vec<Value>;

fn late(run: &str, call: (&str, &str), skip: u32) -> Value {
    let mut fault = delay(run, call, SLOW);
    fault["skip"] = json!(skip);
    fault
}

fn once(mut fault: Value) -> Value {
    fault["times"] = json!(1);
    fault
}

/// What makes a run fail after it has made a key.
fn unstored(run: &str) -> Value {
    once(refusal(run, ("secretsmanager", "PutSecretValue"), 400, "AccessDeniedException"))
}

/// Each state, and what makes it last long enough to be stopped in.
const STATES: [(&str, Faults); 18] = [
    ("Look", |run| vec![late(run, ("ssm", "GetParameter"), 0)]),
    ("CreateKey", |run| vec![late(run, ("iam", "ListAccessKeys"), 1)]),
    ("CreateKey", |run| vec![late(run, ("iam", "CreateAccessKey"), 0)]),
    ("CreateKey", |run| vec![late(run, ("secretsmanager", "PutSecretValue"), 0)]),
    ("ValidateKey", |_| Vec::new()),
    ("PromoteKey", |run| vec![late(run, ("secretsmanager", "UpdateSecretVersionStage"), 0)]),
    ("NotifyPromoted", |run| vec![late(run, ("events", "PutEvents"), 0)]),
    ("Overlap", |_| Vec::new()),
    // Nothing to tell where the last use cannot be read; the stop comes in the wait that follows.
    ("NotifyStillInUse", |run| {
        vec![once(refusal(run, ("iam", "GetAccessKeyLastUsed"), 403, "AccessDenied"))]
    }),
    ("DeactivateKey", |run| vec![late(run, ("iam", "UpdateAccessKey"), 0)]),
    ("NotifyDeactivated", |run| vec![late(run, ("events", "PutEvents"), 1)]),
    ("Grace", |_| Vec::new()),
    ("DeleteKey", |run| vec![late(run, ("iam", "DeleteAccessKey"), 0)]),
    ("NotifyOutcome", |run| vec![late(run, ("events", "PutEvents"), 2)]),
    ("AwaitDelivery", |run| vec![refusal(run, ("events", "PutEvents"), 400, "AccessDeniedException")]),
    ("RollBack", |run| vec![unstored(run), late(run, ("iam", "UpdateAccessKey"), 0)]),
    ("NotifyStuck", |run| {
        let stuck = refusal(run, ("iam", "UpdateAccessKey"), 403, "AccessDenied");
        vec![unstored(run), stuck, late(run, ("events", "PutEvents"), 0)]
    }),
    ("AwaitRecord", |run| {
        let mut lost = late(run, ("iam", "CreateAccessKey"), 0);
        (lost["when"], lost["drop"], lost["delay_ms"]) = (json!("after"), json!(true), json!(0));
        vec![lost, refusal(run, ("cloudtrail", "LookupEvents"), 400, "AccessDeniedException")]
    }),
];

#[tokio::test]
async fn a_run_stopped_in_any_state_loses_no_key_and_doubles_none() {
    let Some(cloud) = Cloud::here().await else { return };
    let stop = |cloud: Arc<Cloud>, state: &'static str, faults: Faults| async move {
        let (scene, old) = Scene::managed(&cloud, "stopped").await;
        let watch = Watch::start(&scene, Duration::from_millis(400));
        let id = new_id();
        for fault in faults(&id) {
            cloud.fault(fault).await;
        }
        let first = scene.start_with(&id, json!({})).await;
        first.reaches(state).await;
        first.stop().await;
        assert_eq!(first.end().await.status, ExecutionStatus::Aborted);
        // At once, while a Lambda of the stopped run may still be in the middle of a call.
        let mut end = scene.rotate().await;
        if end.outcome() != "Completed" {
            assert!(["Blocked", "RolledBack"].contains(&end.outcome()), "{:?}: {}", end.status, end.why());
            tokio::time::sleep(Duration::from_millis(u64::from(SLOW))).await;
            end = scene.rotate().await;
        }
        end.expect("Completed");
        assert_ne!(scene.expect_one_working_key().await.id, old.id);
        watch.end();
    };
    let case = |(state, faults): (&'static str, Faults)| {
        let calls: Vec<String> = faults("").iter().map(|fault| fault["action"].to_string()).collect();
        (format!("{state} {calls:?}"), stop(Arc::clone(&cloud), state, faults))
    };
    all(7, STATES.into_iter().map(case).collect()).await;
}

#[tokio::test]
async fn a_key_that_a_stopped_run_stored_is_taken_over_or_cleared() {
    let Some(cloud) = Cloud::here().await else { return };
    let stored = |cloud: Arc<Cloud>, spoilt: bool| async move {
        let (scene, old) = Scene::managed(&cloud, "stored").await;
        let first = scene.start().await;
        first.reaches("ValidateKey").await;
        first.stop().await;
        let mut keys = scene.keys().await;
        keys.remove(&old.id);
        let left = keys.into_keys().next().unwrap();
        if spoilt {
            scene.set_key(&left, StatusType::Inactive).await;
        }
        let second = scene.start().await;
        second.end().await.expect("Completed");
        let current = scene.expect_one_working_key().await;
        // An Active key is worth taking over; one that somebody switched off is not.
        assert_eq!(current.id == left, !spoilt);
        let made = second.requests().await.iter().any(|request| request.made().is_some());
        assert_eq!(made, spoilt);
    };
    let cases = [false, true].map(|spoilt| (format!("spoilt: {spoilt}"), stored(Arc::clone(&cloud), spoilt)));
    all(2, cases.into()).await;
}

#[tokio::test]
async fn who_takes_over_starts_the_clock_anew() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old) = Scene::managed(&cloud, "clock").await;
    let policy = brief_but(&json!({ "overlap": "4s", "grace": "4s" }));
    let first = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    first.reaches("Overlap").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    first.stop().await;
    let second = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    second.reaches("Overlap").await;
    let began = tokio::time::Instant::now();
    second.reaches("Grace").await;
    // A whole overlap, and what the quiet window adds to it; half a second for polling.
    assert!(began.elapsed() > Duration::from_millis(3500), "the overlap was cut short");
    assert_eq!(scene.keys().await.get(&old.id), Some(&false));
    second.stop().await;
    let third = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    third.reaches("Grace").await;
    let began = tokio::time::Instant::now();
    third.end().await.expect("Completed");
    assert!(began.elapsed() > Duration::from_millis(3500), "the grace was cut short");
    scene.expect_one_working_key().await;
}

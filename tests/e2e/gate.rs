//! The gate: an old key that somebody still uses stays Active, who it is gets named, and each way on works.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_iam::types::StatusType;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cloud::{Cloud, Pair};
use crate::requests::Kind;
use crate::run::{Run, brief_but, new_id};
use crate::scene::Scene;

/// Somebody who took the old pair down and never looks at the secret again.
pub(crate) struct Laggard(JoinHandle<()>);

/// Under what name it calls.
const LAGGARD: &str = "e2e-laggard";

impl Laggard {
    /// Begins to call.
    pub(crate) fn start(cloud: &Cloud, pair: &Pair) -> Self {
        let sts = cloud.sts(pair, LAGGARD);
        Self(tokio::spawn(async move {
            loop {
                let _ = sts.get_caller_identity().send().await;
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }))
    }
}

impl Drop for Laggard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A run that its laggard drove to Held, with the scene and the old pair.
pub(crate) async fn held(cloud: &Arc<Cloud>) -> (Scene, Pair, Run, Value) {
    let (scene, old) = Scene::managed(cloud, "gate").await;
    let laggard = Laggard::start(cloud, &old);
    let policy = brief_but(&json!({ "max_overlap": "7s" }));
    let run = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    let end = run.end().await;
    drop(laggard);
    end.expect("Held").expect_code("StillInUse");
    (scene, old, run, end.doc)
}

/// The lines of a function's log that name a run.
async fn log_lines(cloud: &Cloud, function: &str, run: &Run) -> Vec<String> {
    let group = json!({ "logGroupName": format!("/aws/lambda/keywheel-{}-{function}", cloud.stage) });
    let events = cloud.pages("logs", "Logs_20140328.FilterLogEvents", group, "events").await;
    let lines = events.into_iter().filter_map(|event| Some(event["message"].as_str()?.to_owned()));
    lines.filter(|line| line.contains(&run.id)).collect()
}

#[tokio::test]
async fn an_old_key_still_in_use_is_held_and_its_callers_are_named() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old, run, doc) = held(&cloud).await;

    // It waited in the overlap first, and told so with the same report.
    let waiting = run.given_to("NotifyStillInUse").await;
    for report in [&waiting["gate"], &doc["gate"]] {
        let region = cloud.region();
        assert_eq!(report["last_use"]["service"], "sts");
        assert_eq!(report["last_use"]["region"], region);
        assert!(report["last_use"]["at"].as_str() > doc["promoted_at"].as_str());
        let shut = report["shut"].as_str().unwrap();
        for part in ["sts", &region, report["last_use"]["at"].as_str().unwrap()] {
            assert!(shut.contains(part), "{part} is not in: {shut}");
        }
        let caller = &report["callers"][0];
        assert!(caller["agent"].as_str().unwrap().contains(&format!("app/{LAGGARD}")), "{caller}");
        assert_eq!((&caller["address"], &caller["region"]), (&json!("127.0.0.1"), &json!(region)));
        assert!(caller["calls"].as_u64() > Some(0) && caller["last"].is_string());
    }
    assert_eq!(waiting["phase"], "overlap");
    let why = &doc["why"];
    assert!(why["text"].as_str().unwrap().contains("127.0.0.1"), "{why}");
    for way in ["keywheel resume", "--deactivate-anyway", "--keep-old", "keywheel rollback"] {
        assert!(why["remedy"].as_str().unwrap().contains(way), "{why}");
    }

    // The old key is untouched, and the alarm's metric was written.
    assert!(old.works(&cloud).await && scene.current().await.works(&cloud).await);
    assert!(!run.requests().await.iter().any(|request| request.action == "UpdateAccessKey"));
    let lines = log_lines(&cloud, "deactivate-key", &run).await;
    let alarm = |line: &String| {
        let record: Value = serde_json::from_str(line).unwrap_or_default();
        record["Outcome"] == "Held"
            && record["RunEnded"] == 1
            && record["_aws"]["CloudWatchMetrics"].is_array()
    };
    assert_eq!(lines.iter().filter(|line| alarm(line)).count(), 1);

    // The way on: its owner's word that it goes all the same.
    let policy = brief_but(&json!({ "max_overlap": "1s", "when_still_in_use": "deactivate" }));
    let resumed = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    resumed.end().await.expect("Completed");
    assert!(
        !resumed.requests().await.iter().any(|request| request.made().is_some()),
        "a run that resumes makes no key"
    );
    assert_ne!(scene.expect_one_working_key().await.id, old.id);
}

#[tokio::test]
async fn a_held_run_that_waits_longer_completes_once_its_callers_have_changed_over() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old, _, _) = held(&cloud).await;
    // The callers have stopped; the new run takes the clock up anew.
    scene.rotate().await.expect("Completed");
    assert_ne!(scene.expect_one_working_key().await.id, old.id);
}

#[tokio::test]
async fn a_superseded_key_that_its_owner_keeps_is_left_alone() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old, _, _) = held(&cloud).await;
    scene.tag("keywheel:keep", &old.id).await;
    let before = scene.truth().await;
    let run = scene.start().await;
    run.end().await.expect("Blocked").expect_code("OldKeyKept");
    assert_eq!(scene.truth().await, before);
    assert!(old.works(&cloud).await);
}

#[tokio::test]
async fn p6_a_gate_that_cannot_read_stays_shut() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old) = Scene::managed(&cloud, "blind").await;
    let id = new_id();
    for (service, action, code) in [("iam", "GetAccessKeyLastUsed", "AccessDenied")] {
        cloud.fault(crate::blocked::refusal(&id, (service, action), 403, code)).await;
    }
    let policy = brief_but(&json!({ "max_overlap": "3s" }));
    let run = scene.start_with(&id, json!({ "policy": policy })).await;
    run.end().await.expect("Held").expect_code("StillInUse");
    assert!(old.works(&cloud).await);
    let log = run.requests().await;
    assert!(log.iter().any(|request| request.kind() == Kind::Gate && request.status == 403));
}

#[tokio::test]
async fn a_key_made_active_in_its_grace_is_not_deleted() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old) = Scene::managed(&cloud, "needed").await;
    let policy = brief_but(&json!({ "grace": "3s" }));
    let run = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    run.reaches("Grace").await;
    scene.set_key(&old.id, StatusType::Active).await;
    run.end().await.expect("Held").expect_code("UsedInGrace");
    assert!(old.works(&cloud).await && scene.current().await.works(&cloud).await);
}

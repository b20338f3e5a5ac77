//! Several runs for one user: one goes its way, the others leave everything to it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::blocked::delay;
use crate::cloud::Cloud;
use crate::run::{Run, all, brief_but, new_id};
use crate::scene::Scene;
use crate::watch::Watch;

/// How many keys these runs have made.
async fn made(runs: &[&Run]) -> usize {
    let mut made = 0;
    for run in runs {
        made += run.requests().await.iter().filter(|request| request.made().is_some()).count();
    }
    made
}

#[tokio::test]
async fn of_two_runs_at_once_one_completes_and_one_new_key_is_made() {
    let Some(cloud) = Cloud::here().await else { return };
    let race = |cloud: Arc<Cloud>, slow: Option<(&'static str, &'static str)>| async move {
        let (scene, old) = Scene::managed(&cloud, "race").await;
        let watch = Watch::start(&scene, Duration::from_millis(300));
        let ids = [new_id(), new_id()];
        if let Some(call) = slow {
            cloud.fault(delay(&ids[0], call, 1500)).await;
        }
        let (first, second) =
            tokio::join!(scene.start_with(&ids[0], json!({})), scene.start_with(&ids[1], json!({})));
        let ends = tokio::join!(first.end(), second.end());
        let outcomes = [ends.0.outcome(), ends.1.outcome()];
        let said = [ends.0.why(), ends.1.why()];
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == "Completed").count(), 1, "{said:?}");
        let other = outcomes.iter().find(|outcome| **outcome != "Completed").unwrap();
        assert!(["Blocked", "RolledBack"].contains(other), "{said:?}");
        assert_eq!(made(&[&first, &second]).await, 1, "{said:?}");
        assert_ne!(scene.expect_one_working_key().await.id, old.id);
        watch.end();
    };
    // The second of them catches up with the first where that one is slow.
    let slow = [
        None,
        Some(("iam", "ListAccessKeys")),
        Some(("iam", "CreateAccessKey")),
        Some(("secretsmanager", "PutSecretValue")),
    ];
    all(4, slow.into_iter().map(|slow| (format!("{slow:?}"), race(Arc::clone(&cloud), slow))).collect())
        .await;
}

#[tokio::test]
async fn a_run_beside_one_at_work_is_blocked_and_changes_nothing() {
    let Some(cloud) = Cloud::here().await else { return };
    let beside = |cloud: Arc<Cloud>, state: &'static str| async move {
        let (scene, old) = Scene::managed(&cloud, "beside").await;
        let policy = brief_but(&json!({ "overlap": "3s", "grace": "3s" }));
        let first = scene.start_with(&new_id(), json!({ "policy": policy })).await;
        first.reaches(state).await;
        let before = scene.truth().await;
        let second = scene.start().await;
        second.end().await.expect("Blocked").expect_code("RunInProgress");
        assert!(second.writes().await.is_empty(), "{:?}", second.writes().await);
        assert_eq!(scene.truth().await, before);
        first.end().await.expect("Completed");
        assert_eq!(made(&[&first, &second]).await, 1);
        assert_ne!(scene.expect_one_working_key().await.id, old.id);
    };
    let states = ["ValidateKey", "Overlap", "Grace"];
    all(3, states.map(|state| (state.to_owned(), beside(Arc::clone(&cloud), state))).into()).await;
}

//! The installation's switch: paused and dry-run change nothing and say what they would have done. And the freezes that
//! are read with it.
//!
//! All runs read this one switch, so its tests have the cloud for themselves and put it back whatever happens.

use std::sync::Arc;

use serde_json::json;

use crate::cloud::Cloud;
use crate::run::{brief_but, new_id};
use crate::scene::Scene;

/// Runs a test of the switch, and turns it back to live, and ends every freeze, even where the test fails.
async fn then_live(cloud: &Arc<Cloud>, test: impl Future<Output = ()> + Send + 'static) {
    let result = tokio::spawn(test).await;
    cloud.switch("live").await;
    cloud.set_parameter("freeze", "[]").await;
    if let Err(failed) = result {
        std::panic::resume_unwind(failed.into_panic());
    }
}

#[tokio::test]
async fn a_paused_or_dry_run_installation_changes_nothing_and_says_what_it_would_do() {
    let Some(cloud) = Cloud::alone().await else { return };
    let inner = Arc::clone(&cloud);
    then_live(&cloud, async move {
        let cloud = inner;
        let (scene, old) = Scene::managed(&cloud, "switch").await;
        let before = scene.truth().await;
        for (mode, code) in [("paused", "Paused"), ("dry-run", "DryRun")] {
            cloud.switch(mode).await;
            let run = scene.start().await;
            let end = run.end().await;
            end.expect("Blocked").expect_code(code);
            let would = format!("would make a new key for {}", scene.user);
            for part in [would.as_str(), "move AWSCURRENT", &old.id, "keywheel mode live"] {
                assert!(end.why().contains(part), "{part} is not in: {}", end.why());
            }
            assert!(run.writes().await.is_empty(), "{mode}: {:?}", run.writes().await);
            assert_eq!(scene.truth().await, before, "{mode}");
        }
        // What nobody has decided, or what is misspelt, is not live.
        cloud.switch("on").await;
        let run = scene.start().await;
        assert_ne!(run.end().await.outcome(), "Completed");
        assert_eq!(scene.truth().await, before);
        cloud.switch("live").await;
        scene.rotate().await.expect("Completed");
    })
    .await;
}

#[tokio::test]
async fn a_pause_in_the_overlap_leaves_the_old_key_active_until_it_ends() {
    let Some(cloud) = Cloud::alone().await else { return };
    let inner = Arc::clone(&cloud);
    then_live(&cloud, async move {
        let cloud = inner;
        let (scene, old) = Scene::managed(&cloud, "pause").await;
        let policy = brief_but(&json!({ "max_overlap": "60s" }));
        let run = scene.start_with(&new_id(), json!({ "policy": policy })).await;
        run.reaches("Overlap").await;
        cloud.switch("paused").await;
        run.reaches("NotifyStillInUse").await;
        // Not tried out: a call with it now would be a late use.
        assert_eq!(scene.keys().await.get(&old.id), Some(&true));
        cloud.switch("live").await;
        run.end().await.expect("Completed");
        assert_ne!(scene.expect_one_working_key().await.id, old.id);
    })
    .await;
}

#[tokio::test]
async fn a_freeze_leaves_the_old_key_active_until_its_end_and_longer_than_the_longest_overlap() {
    let Some(cloud) = Cloud::alone().await else { return };
    let inner = Arc::clone(&cloud);
    then_live(&cloud, async move {
        let cloud = inner;
        let (scene, old) = Scene::managed(&cloud, "freeze").await;
        let from = jiff::Timestamp::now();
        let until = from + jiff::SignedDuration::from_secs(30);
        let freezes = json!([{ "from": from, "until": until, "reason": "a move" }]);
        cloud.set_parameter("freeze", &freezes.to_string()).await;
        let policy = brief_but(&json!({ "max_overlap": "10s" }));
        let run = scene.start_with(&new_id(), json!({ "policy": policy })).await;
        run.reaches("NotifyStillInUse").await;
        // Not tried out: a call with it now would be a late use.
        assert_eq!(scene.keys().await.get(&old.id), Some(&true));
        run.end().await.expect("Completed");
        let calls = run.requests().await;
        let off = calls.iter().find(|call| call.action == "UpdateAccessKey").unwrap();
        assert!(off.time >= until, "made Inactive at {}, before {until}", off.time);
        assert_ne!(scene.expect_one_working_key().await.id, old.id);
    })
    .await;
}

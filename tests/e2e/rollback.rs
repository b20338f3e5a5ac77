//! P8: one command brings the old key back, from Held, from the overlap and from the grace.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::{Value, json};

use crate::cloud::{Cloud, Pair};
use crate::gate::held;
use crate::run::{Run, all, brief_but, new_id};
use crate::scene::Scene;
use crate::watch::Watch;

/// From where the promotion is turned back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Held,
    Overlap,
    Grace,
}

async fn promoted(cloud: &Arc<Cloud>, from: From) -> (Scene, Pair, Run) {
    let long: Value = match from {
        From::Held => {
            let (scene, old, run, _) = held(cloud).await;
            return (scene, old, run);
        }
        From::Overlap => json!({ "overlap": "60s", "max_overlap": "60s" }),
        From::Grace => json!({ "grace": "60s" }),
    };
    let (scene, old) = Scene::managed(cloud, "back").await;
    let run = scene.start_with(&new_id(), json!({ "policy": brief_but(&long) })).await;
    run.reaches(if from == From::Grace { "Grace" } else { "Overlap" }).await;
    (scene, old, run)
}

#[tokio::test]
async fn p8_a_promotion_is_turned_back_from_held_overlap_and_grace() {
    let Some(cloud) = Cloud::here().await else { return };
    let back = |cloud: Arc<Cloud>, from: From| async move {
        let (scene, old, run) = promoted(&cloud, from).await;
        let new = scene.current().await;
        assert_ne!(new.id, old.id);
        assert_eq!(old.works(&cloud).await, from != From::Grace);
        let watch = Watch::start(&scene, Duration::from_millis(200));
        let policy = brief_but(&json!({ "overlap": "3s", "grace": "2s" }));
        let rollback = scene.start_with(&new_id(), json!({ "roll_back": true, "policy": policy })).await;
        rollback.reaches("Overlap").await;

        // At once: AWSCURRENT is back, and whoever holds the new pair goes on unharmed.
        assert_eq!(scene.current().await.id, old.id);
        assert!(old.works(&cloud).await && new.works(&cloud).await);
        let stopped = run.end().await.status;
        let expected = if from == From::Held { ExecutionStatus::Succeeded } else { ExecutionStatus::Aborted };
        assert_eq!(stopped, expected);

        // Later the new key goes the way of every superseded one.
        rollback.end().await.expect("RolledBack");
        let visited = rollback.visited().await;
        assert!(visited.contains(&"Grace".to_owned()), "{visited:?}");
        assert_eq!(scene.expect_one_working_key().await.id, old.id);
        watch.end();
        // And a rotation works from there as from anywhere.
        scene.rotate().await.expect("Completed");
        assert_ne!(scene.expect_one_working_key().await.id, old.id);
    };
    let cases = [From::Held, From::Overlap, From::Grace];
    all(3, cases.map(|from| (format!("{from:?}"), back(Arc::clone(&cloud), from))).into()).await;
}

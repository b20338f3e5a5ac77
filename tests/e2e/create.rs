//! Making a key: sent once however it fails, and what a lost reply leaves is cleared only by attribution.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::requests::{Request, names};
use crate::run::{Run, all, new_id};
use crate::scene::Scene;

async fn creations(run: &Run) -> Vec<Request> {
    let mut log = run.requests().await;
    log.retain(|request| request.action == "CreateAccessKey");
    log
}

fn fault(run: &str, how: &Value) -> Value {
    let mut fault = json!({ "service": "iam", "action": "CreateAccessKey", "app_contains": run });
    fault.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
    fault
}

#[tokio::test]
async fn a_lost_create_response_leaves_no_orphan_key() {
    let Some(cloud) = Cloud::here().await else { return };
    let lost = |cloud: Arc<Cloud>, how: Value| async move {
        let (scene, old) = Scene::managed(&cloud, "lost").await;
        let id = new_id();
        cloud.fault(fault(&id, &how)).await;
        let run = scene.start_with(&id, json!({})).await;
        let end = run.end().await;
        end.expect("Completed");
        let current = scene.expect_one_working_key().await;

        let log = run.requests().await;
        let position = |fits: &dyn Fn(&Request) -> bool| log.iter().position(fits);
        let made = creations(&run).await;
        assert_eq!(made.len(), 2, "sent once, and once more after the orphan was gone: {:?}", names(&made));
        let orphan = made[0].made().unwrap().id;
        assert!(orphan != current.id && orphan != old.id);
        // Between the two: looked, asked CloudTrail who made it, made it Inactive, deleted it.
        let first = position(&|request| request.seq == made[0].seq).unwrap();
        let second = position(&|request| request.seq == made[1].seq).unwrap();
        let between = names(&log[first + 1..second]);
        let steps =
            ["iam:ListAccessKeys", "cloudtrail:LookupEvents", "iam:UpdateAccessKey", "iam:DeleteAccessKey"];
        let mut rest = between.iter();
        for step in steps {
            assert!(rest.any(|name| name == step), "{step} is missing or out of order: {between:?}");
        }
        assert!(end.doc["notices"].to_string().contains("OrphanCleared"));
    };
    let cases = [
        json!({ "when": "after", "drop": true }),
        json!({ "when": "after", "status": 500, "code": "ServiceFailure" }),
    ];
    all(2, cases.into_iter().map(|how| (how.to_string(), lost(Arc::clone(&cloud), how))).collect()).await;
}

#[tokio::test]
async fn a_create_that_failed_before_it_took_effect_is_sent_once_an_attempt() {
    let Some(cloud) = Cloud::here().await else { return };
    let failed = |cloud: Arc<Cloud>, how: Value| async move {
        let (scene, old) = Scene::managed(&cloud, "unmade").await;
        let id = new_id();
        cloud.fault(fault(&id, &how)).await;
        let run = scene.start_with(&id, json!({})).await;
        run.end().await.expect("Completed");
        assert_ne!(scene.expect_one_working_key().await.id, old.id);
        // The machine's retry, not the SDK's: the keys were listed between the two.
        let log = run.requests().await;
        let sent: Vec<usize> = (0..log.len()).filter(|&at| log[at].action == "CreateAccessKey").collect();
        assert_eq!(sent.len(), 2, "{:?}", names(&log));
        assert!(names(&log[sent[0]..sent[1]]).contains(&"iam:ListAccessKeys".to_owned()));
    };
    let cases = [
        json!({ "status": 400, "code": "Throttling" }),
        json!({ "status": 503, "code": "ServiceUnavailable" }),
        json!({ "drop": true }),
    ];
    all(3, cases.into_iter().map(|how| (how.to_string(), failed(Arc::clone(&cloud), how))).collect()).await;
}

#[tokio::test]
async fn a_create_that_is_refused_is_sent_once() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old) = Scene::managed(&cloud, "denied").await;
    let (id, before) = (new_id(), scene.truth().await);
    cloud.fault(fault(&id, &json!({ "status": 403, "code": "AccessDenied", "times": null }))).await;
    let run = scene.start_with(&id, json!({})).await;
    run.end().await.expect("Blocked").expect_code("AccessDenied");
    assert_eq!(creations(&run).await.len(), 1);
    assert_eq!(scene.truth().await, before);
    assert_eq!(scene.expect_one_working_key().await.id, old.id);
}

#[tokio::test]
async fn a_promotion_whose_reply_is_lost_is_recognised() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old) = Scene::managed(&cloud, "promoted").await;
    let id = new_id();
    let fault = json!({
        "service": "secretsmanager", "action": "UpdateSecretVersionStage", "app_contains": id,
        "when": "after", "drop": true,
    });
    cloud.fault(fault).await;
    let run = scene.start_with(&id, json!({})).await;
    run.end().await.expect("Completed");
    assert_ne!(scene.expect_one_working_key().await.id, old.id);
    assert_eq!(scene.labels().await["AWSCURRENT"], run.id);
    assert!(!run.visited().await.contains(&"RollBack".to_owned()));
}

//! How long the application of a user whose current key leaks has none, in each place where the leak may find it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Alarm, finding, is_active, put, until};
use crate::cloud::{Cloud, Pair};
use crate::run::{Run, brief_but, new_id};
use crate::scene::Scene;
use support::figures::say;

/// A rotation that has promoted its key, and stands in `state` for long.
async fn rotated(cloud: &Arc<Cloud>, what: &str, state: &str) -> (Scene, Pair, Run) {
    let (scene, old) = Scene::managed(cloud, what).await;
    let long = if state == "Overlap" {
        json!({ "overlap": "90s", "max_overlap": "90s" })
    } else {
        json!({ "grace": "90s" })
    };
    let run = scene.start_with(&new_id(), json!({ "policy": brief_but(&long) })).await;
    run.reaches(state).await;
    (scene, old, run)
}

/// Lets the current key leak and waits until the secret holds the other one again.
async fn comes_back(state: &str) {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old, run) = rotated(&cloud, "leak-back", state).await;
    let leaked = scene.current().await;
    assert_ne!(leaked.id, old.id);
    let id = put(&cloud, &finding(&leaked.id, &scene.user)).await;
    until("the key's end", || async { is_active(&scene, &leaked.id).await == Some(false) }).await;
    let began = Instant::now();
    until("the superseded key", || async { scene.current().await.id == old.id }).await;
    assert_eq!(is_active(&scene, &old.id).await, Some(true));
    assert!(old.works(&cloud).await);
    say(&format!("in the {state} the application had no key for {:.1?} after containment", began.elapsed()));
    // The rotation that had promoted the leaked key finds AWSCURRENT moved, and stands down, or was stopped.
    until("the end of the rotation", || async { !run.goes_on().await }).await;
    assert_eq!(is_active(&scene, &old.id).await, Some(true), "{state}");
    assert_eq!(is_active(&scene, &leaked.id).await, Some(false), "{state}");
    let alarm = Alarm::of_event(&cloud, &id).await;
    let [incident] = &alarm.incidents().await[..] else { panic!("not one incident") };
    incident.reaches("WaitForSessions").await;
    let doc = incident.given_to("WaitForSessions").await;
    assert_eq!(
        (&doc["outcome"], &doc["replacement"]["way"]),
        (&json!("Contained"), &json!("back")),
        "{doc:#}"
    );
    incident.stop().await;
}

#[tokio::test]
async fn in_the_overlap_the_superseded_key_comes_back() {
    comes_back("Overlap").await;
}

#[tokio::test]
async fn in_the_grace_the_superseded_key_is_made_active_and_comes_back() {
    comes_back("Grace").await;
}

#[tokio::test]
async fn beside_a_strangers_second_key_a_person_is_told_the_command() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, pair) = Scene::managed(&cloud, "leak-full").await;
    let theirs = scene.make_key().await;
    // IAM keeps whole seconds: one that is made in the second of the event is taken for a part of the leak.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let id = put(&cloud, &finding(&pair.id, &scene.user)).await;
    let alarm = Alarm::of_event(&cloud, &id).await;
    let [incident] = &alarm.incidents().await[..] else { panic!("not one incident") };
    incident.reaches("WaitForSessions").await;
    let doc = incident.given_to("WaitForSessions").await;
    assert_eq!(
        (&doc["outcome"], &doc["replacement"]["way"]),
        (&json!("Contained"), &json!("person")),
        "{doc:#}"
    );
    let told =
        doc["notices"].as_array().unwrap().iter().find(|notice| notice["kind"] == "Replacement").unwrap();
    let text = told["text"].as_str().unwrap();
    assert!(text.contains(&format!("keywheel rotate --user {} --reason leaked", scene.user)), "{text}");
    assert!(told["on_topic"] == true && text.contains(&theirs.id), "{told:#}");
    assert_eq!(is_active(&scene, &theirs.id).await, Some(true));
    assert_eq!(is_active(&scene, &pair.id).await, Some(false));
    assert_eq!(scene.current().await.id, pair.id, "nobody else's key is put into the secret");
    incident.stop().await;
}

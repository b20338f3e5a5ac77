//! What Keywheel tells: each stage once on the bus and once on the topic, and a run that was stopped as well.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cloud::Cloud;
use crate::inbox::Inbox;
use crate::scene::Scene;

/// The stages of an undisturbed rotation that are announced, in their order.
const KINDS: [&str; 6] = ["Created", "Validated", "Promoted", "Deactivated", "Deleted", "Ended"];

#[tokio::test]
async fn p7_every_stage_is_announced_on_bus_and_topic_with_its_id() {
    let Some(cloud) = Cloud::here().await else { return };
    let (mut bus, mut topic) = (Inbox::on_bus(&cloud).await, Inbox::on_topic(&cloud).await);
    let (scene, old) = Scene::managed(&cloud, "notices").await;
    let run = scene.start().await;
    run.end().await.expect("Completed");
    let new = scene.expect_one_working_key().await;

    let of_run = |body: &Value| body["detail"]["run"] == run.id.as_str();
    let events = bus.wait(KINDS.len(), |message| of_run(&message.body)).await;
    let by_id: BTreeMap<&str, &Value> =
        events.iter().map(|event| (event.body["detail"]["id"].as_str().unwrap(), &event.body)).collect();
    assert_eq!(by_id.len(), KINDS.len(), "{:?}", by_id.keys());
    for kind in KINDS {
        let event = by_id[format!("{}/{kind}", run.id).as_str()];
        assert_eq!(event["source"], "keywheel");
        assert_eq!(event["detail-type"], format!("Keywheel Rotation {kind}"));
        let detail = &event["detail"];
        assert_eq!(
            (&detail["user"], &detail["secret"]),
            (&scene.user.clone().into(), &scene.secret.clone().into())
        );
        assert_eq!(detail["new_key"], new.id);
        assert_eq!(detail["old_key"], old.id);
        assert!(!detail["text"].as_str().unwrap().is_empty());
    }
    let ended = by_id[format!("{}/Ended", run.id).as_str()];
    assert_eq!(ended["detail"]["outcome"], "Completed");

    let id_of =
        |body: &Value| body["MessageAttributes"]["id"]["Value"].as_str().unwrap_or_default().to_owned();
    let messages = topic.wait(KINDS.len(), |message| id_of(&message.body).starts_with(&run.id)).await;
    let ids: Vec<String> = messages.iter().map(|message| id_of(&message.body)).collect();
    for kind in KINDS {
        assert!(ids.contains(&format!("{}/{kind}", run.id)), "{kind} is missing: {ids:?}");
    }
    assert_eq!(ids.len(), KINDS.len(), "{ids:?}");
    for message in &messages {
        let subject = message.body["Subject"].as_str().unwrap();
        assert!(subject.is_ascii() && subject.len() < 100 && subject.contains(&scene.user), "{subject}");
    }
    bus.close().await;
    topic.close().await;
}

#[tokio::test]
async fn a_run_that_was_stopped_is_announced_though_it_can_say_nothing() {
    let Some(cloud) = Cloud::here().await else { return };
    let mut topic = Inbox::on_topic(&cloud).await;
    let (scene, _) = Scene::managed(&cloud, "aborted").await;
    let run = scene.start().await;
    run.reaches("Overlap").await;
    run.stop().await;
    let told =
        topic.wait(1, |message| message.raw.contains(&run.id) && message.raw.contains("ABORTED")).await;
    assert!(!told.is_empty(), "nobody heard of the stopped run");
    scene.rotate().await.expect("Completed");
    topic.close().await;
}

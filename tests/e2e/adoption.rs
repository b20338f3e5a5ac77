//! The first key of a secret, and keys that somebody made by hand.

use std::sync::Arc;

use serde_json::Value;

use crate::cloud::Cloud;
use crate::run::all;
use crate::scene::Scene;

#[tokio::test]
async fn a_secret_without_a_value_gets_its_first_key() {
    let Some(cloud) = Cloud::here().await else { return };
    let scene = Scene::bare(&cloud, "first").await;
    let run = scene.start().await;
    run.end().await.expect("Completed");
    let first = scene.expect_one_working_key().await;
    // The first version of a secret is current whatever its labels; it must not have been the new key's.
    let labels = scene.labels().await;
    assert_eq!(labels["AWSCURRENT"], run.id);
    let call = cloud.store.get_secret_value().secret_id(&scene.secret).version_id(&labels["AWSPREVIOUS"]);
    let placeholder = call.send().await.unwrap();
    let placeholder: Value = serde_json::from_str(placeholder.secret_string().unwrap()).unwrap();
    assert!(placeholder.get("AccessKeyId").is_none() && placeholder.get("SecretAccessKey").is_none());
    // And it is a key like any other from then on.
    scene.rotate().await.expect("Completed");
    assert_ne!(scene.expect_one_working_key().await.id, first.id);
}

#[tokio::test]
async fn a_value_without_credentials_keeps_its_fields_and_gets_a_key() {
    let Some(cloud) = Cloud::here().await else { return };
    let scene = Scene::bare(&cloud, "fields").await;
    scene.put(r#"{"Host":"mail.invalid", "Port": 5.870e2}"#).await;
    scene.rotate().await.expect("Completed");
    scene.expect_one_working_key().await;
    let fields = scene.other_fields().await;
    for (name, raw) in [("Host", r#""mail.invalid""#), ("Port", "5.870e2")] {
        assert!(fields.iter().any(|field| *field == (name.to_owned(), raw.to_owned())), "{name}");
    }
}

#[tokio::test]
async fn p2_a_strangers_key_is_left_alone_and_the_text_says_how_to_retire_it() {
    let Some(cloud) = Cloud::here().await else { return };
    let scene = Scene::bare(&cloud, "stranger").await;
    let stranger = scene.make_key().await;
    let end = scene.rotate().await;
    end.expect("Completed");
    let command = format!("--retire {}", stranger.id);
    assert!(end.why().contains("keywheel enroll") && end.why().contains(&command), "{}", end.why());
    assert_eq!(scene.keys().await.get(&stranger.id), Some(&true));
    assert!(stranger.works(&cloud).await && scene.current().await.works(&cloud).await);

    // The slots are full now; nothing is freed unasked.
    let before = scene.truth().await;
    let run = scene.start().await;
    let end = run.end().await;
    end.expect("Blocked").expect_code("SlotsFull");
    assert!(end.why().contains(&command), "{}", end.why());
    assert!(run.writes().await.is_empty());
    assert_eq!(scene.truth().await, before);
}

#[tokio::test]
async fn a_hand_made_key_that_is_to_be_retired_is_gone_after_two_rotations() {
    let Some(cloud) = Cloud::here().await else { return };
    let retire = |cloud: Arc<Cloud>, stored: bool| async move {
        let scene = Scene::bare(&cloud, "retire").await;
        if stored {
            let current = scene.make_key().await;
            scene.put(&scene.value(&current)).await;
            assert!(current.works(&cloud).await);
        }
        let by_hand = scene.keys().await;
        let retired = scene.make_key().await;
        scene.tag("keywheel:retire", &retired.id).await;
        let first = scene.start().await;
        first.end().await.expect("Completed");
        // It went the way of our own keys: Inactive first, then a grace.
        assert!(first.visited().await.contains(&"Grace".to_owned()));
        scene.expect_one_working_key().await;
        scene.rotate().await.expect("Completed");
        let ours = scene.expect_one_working_key().await;
        assert!(ours.id != retired.id && !by_hand.contains_key(&ours.id));
    };
    // Once before the secret has a key, once beside a current key that was stored by hand.
    let cases = [false, true].map(|stored| (format!("stored: {stored}"), retire(Arc::clone(&cloud), stored)));
    all(2, cases.into()).await;
}

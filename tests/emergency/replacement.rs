//! The application of a user whose current key leaked gets a working key again, or a person is told how.

use keywheel::RunId;
use keywheel::incident::Way;
use keywheel::notice::NoticeKind;
use keywheel::rotation::Outcome;
use serde_json::json;
use support::alarm::finding;
use support::fake::Maker;
use support::world::{SECRET, USER, World, hours, request};

#[tokio::test(start_paused = true)]
async fn with_a_free_slot_a_new_key_is_made() {
    let world = World::leaked();
    world.consumer();
    let key = world.current_key();
    let started = world.fake.state().now();
    let alarm = world.alarm(finding(&key, USER)).await;
    let replacement = alarm.incident().doc.replacement.as_ref().unwrap();
    assert_eq!((replacement.way, replacement.working), (Way::New, true));
    let promoted = alarm.rotation().doc().promoted_at.unwrap();
    assert!(promoted.duration_since(started).as_secs() < 60, "{promoted}");
    world.assert_replaced();
}

#[tokio::test(start_paused = true)]
async fn in_the_overlap_and_in_the_grace_the_superseded_key_comes_back() {
    for after in [2, 24 * 3] {
        let world = World::new();
        world.consumer();
        world.containment("on");
        let old = world.current_key();
        let work = async {
            tokio::time::sleep(hours(after)).await;
            let new = world.current_key();
            assert_ne!(new, old);
            world.leak(&new);
            let alarm = world.alarm(finding(&new, USER)).await;
            let incident = alarm.incident();
            incident.expect(Outcome::Contained, "Contained");
            let replacement = incident.doc.replacement.as_ref().unwrap();
            assert_eq!(
                (replacement.way, replacement.working),
                (Way::Back, true),
                "{after} h: {replacement:?}"
            );
            assert!(!world.is_active(&new));
        };
        world.beside(RunId::random(), request(), work).await;
        assert_eq!(world.current_key(), old);
        world.assert_replaced();
    }
}

#[tokio::test(start_paused = true)]
async fn a_superseded_key_that_leaks_takes_nothing_from_the_application() {
    let world = World::new();
    world.consumer();
    world.containment("on");
    let old = world.current_key();
    let work = async {
        tokio::time::sleep(hours(2)).await;
        let new = world.current_key();
        world.leak(&old);
        let alarm = world.alarm(finding(&old, USER)).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
        assert_eq!(alarm.incident().doc.replacement.as_ref().unwrap().way, Way::NotNeeded);
        assert!(!world.is_active(&old) && world.is_active(&new));
        assert_eq!(world.current_key(), new);
    };
    world.beside(RunId::random(), request(), work).await;
    world.assert_promises();
}

#[tokio::test(start_paused = true)]
async fn beside_a_strangers_second_key_a_person_is_told_the_command() {
    let world = World::leaked();
    let key = world.current_key();
    let theirs = world.fake.state().add_key(USER, Maker::Stranger);
    tokio::time::sleep(hours(1)).await;
    let alarm = world.alarm(finding(&key, USER)).await;
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    let told = incident.notice(NoticeKind::Replacement);
    assert!(told.contains("NO working key") && told.contains(&theirs), "{told}");
    assert!(told.contains(&format!("keywheel rotate --user {USER} --reason leaked")), "{told}");
    assert!(world.is_active(&theirs) && !world.is_active(&key) && world.keys().contains(&key));
    assert!(alarm.rotations.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_ends_without_a_key_is_told_with_the_command() {
    let world = World::leaked();
    world.mode("dry-run");
    let key = world.current_key();
    let alarm = world.alarm(finding(&key, USER)).await;
    let incident = alarm.incident();
    incident.expect(Outcome::Contained, "Contained");
    let replacement = incident.doc.replacement.as_ref().unwrap();
    assert_eq!((replacement.way, replacement.working), (Way::Person, false), "{replacement:?}");
    let told = incident.notice(NoticeKind::Replacement);
    assert!(told.contains("keywheel rotate"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_is_about_to_store_its_key_brings_it() {
    // The leak comes while an ordinary rotation waits for its new key to be valid.
    let world = World::leaked();
    world.consumer();
    let key = world.current_key();
    world.fake.state().options.valid_after = std::time::Duration::from_secs(40);
    let work = async {
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        let alarm = world.alarm(finding(&key, USER)).await;
        alarm.incident().expect(Outcome::Contained, "Contained");
        let replacement = alarm.incident().doc.replacement.as_ref().unwrap();
        assert_eq!((replacement.way, replacement.working), (Way::UnderWay, true), "{replacement:?}");
        assert!(!alarm.incident().told(NoticeKind::KeyMinted));
    };
    world.beside(RunId::random(), json!({"secret": SECRET}), work).await;
    world.assert_replaced();
    assert!(!world.is_active(&key));
}

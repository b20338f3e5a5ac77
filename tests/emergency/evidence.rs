//! What becomes of a leaked key when its incident is closed.

use std::time::Duration;

use keywheel::RunId;
use keywheel::incident::Way;
use keywheel::rotation::Outcome;
use serde_json::json;
use support::alarm::{finding, made_active, report};
use support::walker::Control;
use support::world::{Run, SECRET, USER, World, hours, request};

const fn days(days: u64) -> Duration {
    hours(24 * days)
}

/// A managed user whose leaked key was contained and replaced; a day and a half has passed.
async fn dealt_with() -> (World, String) {
    let world = World::leaked();
    let key = world.current_key();
    world.alarm(finding(&key, USER)).await.incident().expect(Outcome::Contained, "Contained");
    world.assert_replaced();
    (world, key)
}

fn use_now(world: &World, key: &str) {
    let mut state = world.fake.state();
    let now = state.now();
    state.use_key(key, "ses", now);
}

#[tokio::test(start_paused = true)]
async fn a_closed_one_is_deleted_after_thirty_days_and_the_user_rotates_again() {
    let (world, key) = dealt_with().await;
    // Open, it stays for ever.
    tokio::time::sleep(days(60)).await;
    world.run(request()).await.expect_blocked("LeakedKeyKept");
    world.close(&key);
    let current = world.current_key();
    let run = world.run(request()).await;
    run.expect(Outcome::Completed);
    assert_eq!(
        (world.keys().len(), world.current_key()),
        (1, current.clone()),
        "only the leaked key is gone"
    );
    use_now(&world, &current);
    world.run(request()).await.expect(Outcome::Completed);
    assert_ne!(world.current_key(), current);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn before_its_time_it_stays_and_the_run_says_until_when() {
    let (world, key) = dealt_with().await;
    world.close(&key);
    tokio::time::sleep(days(28)).await;
    let run = world.run(request()).await;
    run.expect_blocked("EvidenceKept");
    assert!(world.keys().contains(&key));
    let text = &run.doc().why.as_ref().unwrap().text;
    assert!(text.contains("2026-02-04T"), "thirty days after the containment: {text}");
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_is_contained_again_and_its_time_begins_anew() {
    let (world, key) = dealt_with().await;
    world.close(&key);
    tokio::time::sleep(days(40)).await;
    world.switch_key(&key, true);
    world.alarm(made_active(&key, USER)).await.incident().expect(Outcome::Contained, "Contained");
    world.run(request()).await.expect_blocked("LeakedKeyKept");
    world.close(&key);
    world.run(request()).await.expect_blocked("EvidenceKept");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_deletes_nothing() {
    for spoil in [true, false] {
        let (world, key) = dealt_with().await;
        world.close(&key);
        tokio::time::sleep(days(40)).await;
        let name = format!("/keywheel/{}/incidents/{key}", support::functions::STAGE);
        let expected = if spoil {
            world.fake.state().parameters.insert(name, "{\"schema\": 1".into());
            "Conflict"
        } else {
            world.fake.state().denied.insert("iam:GetAccessKeyLastUsed".into());
            "AccessDenied"
        };
        world.run(request()).await.expect_blocked(expected);
        assert!(world.keys().contains(&key));
    }
}

/// A closed leak whose key is in the grace of the run that will delete it; Step Functions has forgotten the run that
/// replaced it. `work` goes on beside that run.
async fn in_its_last_grace<T>(work: impl AsyncFnOnce(&World, &str) -> T) -> (World, String, Run, T) {
    let (world, key) = dealt_with().await;
    world.close(&key);
    tokio::time::sleep(days(100)).await;
    world.fake.state().executions.clear();
    let mut open = |_: &str, _: &serde_json::Value| Control::Go;
    let (run, done) = tokio::join!(world.run_watched(RunId::random(), request(), &mut open), async {
        tokio::time::sleep(days(2)).await;
        assert!(world.keys().contains(&key), "it is in its grace");
        work(&world, &key).await
    });
    (world, key, run, done)
}

#[tokio::test(start_paused = true)]
async fn no_rollback_brings_a_leaked_key_back_however_long_ago_it_was_replaced() {
    let back = async |world: &World, _: &str| world.run(json!({"secret": SECRET, "roll_back": true})).await;
    let (world, key, run, turned) = in_its_last_grace(back).await;
    turned.expect_blocked("LeakedKeyKept");
    run.expect(Outcome::Completed);
    assert!(!world.keys().contains(&key));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_leaked_before_does_not_replace_one_that_leaks_now() {
    let again = async |world: &World, old: &str| {
        let current = world.current_key();
        world.leak(&current);
        let alarm = world.alarm(finding(&current, USER)).await;
        assert!(!world.is_active(old), "the key of the first leak is back in service");
        alarm
    };
    let (_, _, _, alarm) = in_its_last_grace(again).await;
    let replacement = alarm.incident().doc.replacement.clone().unwrap();
    assert_eq!((replacement.way, replacement.working), (Way::Person, false), "{replacement:?}");
    assert!(alarm.rotations.is_empty(), "a run was started that could only be refused");
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_in_its_last_grace_is_kept() {
    let reopened = async |world: &World, key: &str| {
        world.switch_key(key, true);
        world.alarm(made_active(key, USER)).await
    };
    let (world, key, run, alarm) = in_its_last_grace(reopened).await;
    alarm.incident().expect(Outcome::Contained, "Contained");
    run.expect(Outcome::Contained);
    assert_eq!(run.why(), "LeakedKeyKept");
    assert!(world.keys().contains(&key) && !world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn one_that_was_used_in_the_meantime_stays_and_what_is_to_be_done_about_it_does_it() {
    let (world, key) = dealt_with().await;
    world.close(&key);
    tokio::time::sleep(days(10)).await;
    // Switched on and off again, and nobody was told: the rules were out of order.
    world.switch_key(&key, true);
    use_now(&world, &key);
    tokio::time::sleep(Duration::from_mins(10)).await;
    world.switch_key(&key, false);
    tokio::time::sleep(days(30)).await;
    let run = world.run(request()).await;
    run.expect_blocked("EvidenceUsed");
    assert!(
        world.keys().contains(&key) && run.doc().why.as_ref().unwrap().remedy.contains("keywheel revoke")
    );
    // What `keywheel revoke` sends: a person's word has no id.
    let mut revoke = report([key.as_str()]);
    revoke.as_object_mut().unwrap().remove("id");
    world.alarm(revoke).await.incident().expect(Outcome::Contained, "Contained");
    world.close(&key);
    world.run(request()).await.expect_blocked("EvidenceKept");
    tokio::time::sleep(days(31)).await;
    world.run(request()).await.expect(Outcome::Completed);
    assert!(!world.keys().contains(&key));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_leaks_while_it_is_brought_back_stays_inactive() {
    let world = World::new();
    world.consumer();
    world.containment("on");
    let old = world.current_key();
    let work = async {
        tokio::time::sleep(hours(2)).await;
        // Look has found nothing on record.
        let mut leaks = |state: &str, _: &serde_json::Value| {
            if state == "RollBack" && world.is_active(&old) {
                world.leak(&old);
                world.switch_key(&old, false);
                world.contained(&old, USER);
            }
            Control::Go
        };
        let back = json!({"secret": SECRET, "roll_back": true});
        world.run_watched(RunId::random(), back, &mut leaks).await
    };
    let turned = world.beside(RunId::random(), request(), work).await;
    turned.expect(Outcome::Held);
    assert_eq!(turned.why(), "LeakedKeyKept");
    assert!(!world.is_active(&old) && world.current_key() != old);
}

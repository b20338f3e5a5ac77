//! What becomes of a leaked key when its incident is closed.

use std::time::Duration;

use keywheel::rotation::Outcome;
use support::alarm::{finding, made_active};
use support::world::{USER, World, hours, request};

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
async fn one_that_was_used_in_the_meantime_stays() {
    let (world, key) = dealt_with().await;
    world.close(&key);
    tokio::time::sleep(days(10)).await;
    // Switched on and off again, and nobody was told: the rules were out of order.
    world.switch_key(&key, true);
    use_now(&world, &key);
    tokio::time::sleep(Duration::from_mins(10)).await;
    world.switch_key(&key, false);
    tokio::time::sleep(days(30)).await;
    world.run(request()).await.expect_blocked("EvidenceUsed");
    assert!(world.keys().contains(&key));
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

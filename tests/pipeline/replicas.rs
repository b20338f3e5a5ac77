//! A secret with a replica in another region: whoever reads it there loses no key.

use std::time::Duration;

use keywheel::rotation::Outcome;
use keywheel::{RunId, SecretArn};
use serde_json::{Value, json};
use support::consumer::Consumer;
use support::faults::{Fault, Kind, Plan};
use support::walker::Control;
use support::world::{Run, SECRET, World, hours, request};

const DAY: Duration = hours(24);

/// Gives the secret a replica that has each change so much later; its region.
fn replicated(world: &World, lag: Duration) -> String {
    let region = world.other_region();
    world.fake.state().replicate(SECRET, &region, lag);
    region
}

/// How many calls were made in a region; none of them may change anything.
fn calls_in(world: &World, region: &str) -> usize {
    let state = world.fake.state();
    let there: Vec<&str> =
        state.calls.iter().filter(|call| call.host.contains(region)).map(|call| call.name.as_str()).collect();
    assert!(there.iter().all(|name| *name == "secretsmanager:DescribeSecret"), "{there:?}");
    there.len()
}

/// A run in whose overlap the replication fails, before the replica has anything of it.
async fn with_a_replication_that_fails(world: &World, region: &str, input: Value) -> Run {
    world
        .run_watched(RunId::random(), input, &mut |state, _| {
            if state == "Overlap" {
                world.fake.state().replica_mut(SECRET, region).failed = Some("the name is taken".into());
            }
            Control::Go
        })
        .await
}

/// Fails the test unless the run was held for the replica, and says which.
fn held_for(world: &World, run: &Run, region: &str, old: &str) {
    run.expect(Outcome::Held);
    assert_eq!(run.why(), "ReplicaBehind");
    let text = &run.doc().why.as_ref().unwrap().text;
    assert!(text.contains(region), "{text}");
    assert!(world.fake.state().key(old).unwrap().1.exists());
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_replica_has_the_new_version_before_the_rotation_is_completed() {
    for lag in [0, 20, 600] {
        let world = World::new();
        world.consumer();
        let region = replicated(&world, Duration::from_secs(lag));
        {
            let mut state = world.fake.state();
            let now = state.now();
            state.consumers.push(Consumer::of_replica(SECRET, &region, now));
        }
        world.run(request()).await.expect(Outcome::Completed);
        world.assert_sound();
        assert_eq!(world.keys().len(), 1);
        let current = world.current_key();
        assert_eq!(world.fake.state().secret_in(SECRET, &region).current_key(), Some(current));
        // Before the old key is made Inactive, and before it is deleted.
        assert_eq!(calls_in(&world, &region), 2, "{lag} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lags_is_waited_for() {
    let world = World::new();
    world.consumer();
    let region = replicated(&world, DAY * 3);
    let old = world.current_key();
    let run = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            if state == "NotifyDeactivated" {
                assert_eq!(world.fake.state().lagging(SECRET), Vec::<String>::new());
            }
            Control::Go
        })
        .await;
    run.expect(Outcome::Completed);
    world.assert_sound();
    let doc = run.doc();
    let kept = doc.disabled_at.unwrap().duration_since(doc.promoted_at.unwrap());
    // Those who read it there have as long to change over as all the others: 75 minutes, and a quiet day.
    assert!(kept.as_hours() >= 72 + 25 && kept.as_hours() < 80 + 26, "{kept:#}");
    assert!(!world.keys().contains(&old));
    assert!(calls_in(&world, &region) > 2);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_follows_no_more_holds_the_run_whoever_says_otherwise() {
    for policy in [json!({}), json!({"when_still_in_use": "deactivate"})] {
        let world = World::new();
        world.consumer();
        let region = replicated(&world, DAY);
        let old = world.current_key();
        let input = json!({"secret": SECRET, "policy": policy});
        let run = with_a_replication_that_fails(&world, &region, input).await;
        held_for(&world, &run, &region, &old);
        assert!(run.doc().why.as_ref().unwrap().text.contains("the name is taken"));
        assert!(world.fake.state().key(&old).unwrap().1.is_active());
        // A run that begins so does not begin; one after it was mended goes on where the first has stopped.
        world.run(request()).await.expect_blocked("ReplicaFailed");
        world.fake.state().replica_mut(SECRET, &region).failed = None;
        world.run(request()).await.expect(Outcome::Completed);
        assert!(!world.keys().contains(&old));
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_may_not_be_read_counts_as_one_that_lags() {
    let world = World::new();
    world.consumer();
    let region = replicated(&world, Duration::ZERO);
    let old = world.current_key();
    let denied = format!("secretsmanager:DescribeSecret@{region}");
    world.fake.state().denied.insert(denied.clone());
    let run = world.run(request()).await;
    held_for(&world, &run, &region, &old);
    assert!(run.doc().why.as_ref().unwrap().text.contains("AccessDenied"));
    assert!(world.fake.state().key(&old).unwrap().1.is_active());
    world.fake.state().denied.remove(&denied);
    world.run(request()).await.expect(Outcome::Completed);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_taken_away_keeps_nobody() {
    let world = World::new();
    world.consumer();
    let region = replicated(&world, DAY * 30);
    let mut looks = 0;
    let run = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            looks += usize::from(state == "DeactivateKey");
            if looks == 3 {
                world.fake.state().end_replication(SECRET, &region);
            }
            Control::Go
        })
        .await;
    run.expect(Outcome::Completed);
    assert_eq!(looks, 3);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_person_made_inactive_is_not_deleted_while_a_replica_names_it() {
    let world = World::new();
    world.consumer();
    let region = replicated(&world, DAY * 60);
    let old = world.current_key();
    let run = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            if state == "DeactivateKey" {
                let mut state = world.fake.state();
                // Some time ago, as a key dies late.
                let then = state.ago(Duration::from_mins(1));
                state.key_mut(&old).changes.push((then, false));
                state.watch.by_people.insert(old.clone());
                // Whoever reads it there is refused from now on, by that person.
                state.watch.excuse();
            }
            Control::Go
        })
        .await;
    held_for(&world, &run, &region, &old);
    assert!(run.doc().disabled_at.is_some(), "it was in its grace");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_made_active_while_a_region_is_asked_is_not_deleted() {
    let world = World::new();
    world.consumer();
    replicated(&world, Duration::ZERO);
    let old = world.current_key();
    let mut reached = false;
    let mut slow = |state: &str, _: &Value| {
        if state == "DeleteKey" && !std::mem::replace(&mut reached, true) {
            world.fake.state().plan = Plan::new([Fault::within("DeleteKey", 3, Kind::TimeoutBefore)]);
        }
        Control::Go
    };
    let back = async {
        // The overlap of a quiet key takes 25 hours, and its grace a week.
        tokio::time::sleep(hours(190)).await;
        for _ in 0..10_000 {
            if world.fake.state().plan.fired() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        world.switch_key(&old, true);
    };
    let (run, ()) = tokio::join!(world.run_watched(RunId::random(), request(), &mut slow), back);
    assert_eq!(world.fake.state().plan.fired(), 1);
    run.expect(Outcome::Held);
    assert!(world.is_active(&old));
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_waits_for_no_region() {
    let world = World::new();
    let region = replicated(&world, DAY * 30);
    let leaked = world.current_key();
    {
        let mut state = world.fake.state();
        state.watch.leaked.insert(leaked.clone());
        state.replica_mut(SECRET, &region).failed = Some("the name is taken".into());
    }
    let started = world.fake.state().now();
    world.run(json!({"secret": SECRET, "reason": "leaked"})).await.expect(Outcome::Contained);
    let state = world.fake.state();
    assert!(!state.key(&leaked).unwrap().1.is_active());
    assert!(state.now().duration_since(started).as_secs() < 60, "no region is waited for");
    drop(state);
    assert_eq!(calls_in(&world, &region), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_that_its_run_left_active_waits_for_no_region_either() {
    let world = World::new();
    let region = replicated(&world, Duration::ZERO);
    let leaked = world.current_key();
    world.fake.state().watch.leaked.insert(leaked.clone());
    world.fake.state().plan = Plan::new([Fault::within("DeactivateKey", 0, Kind::Refused)]);
    world.run(json!({"secret": SECRET, "reason": "leaked"})).await.expect(Outcome::Held);
    assert!(world.fake.state().key(&leaked).unwrap().1.is_active());
    world.fake.state().replica_mut(SECRET, &region).failed = Some("the name is taken".into());
    // Whatever the next run is started for.
    world.run(request()).await.expect(Outcome::Contained);
    assert!(!world.fake.state().key(&leaked).unwrap().1.is_active());
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_promotion_is_turned_back_whatever_a_replica_does() {
    let world = World::new();
    world.consumer();
    let region = replicated(&world, Duration::from_mins(10));
    let old = world.current_key();
    let work = async {
        tokio::time::sleep(hours(2)).await;
        world.fake.state().replica_mut(SECRET, &region).lag = DAY * 2;
        world.run(json!({"secret": SECRET, "roll_back": true})).await
    };
    let run = world.beside(RunId::random(), request(), work).await;
    run.expect(Outcome::RolledBack);
    assert_eq!(world.current_key(), old);
    assert_eq!(world.fake.state().lagging(SECRET), Vec::<String>::new());
    let kept = run.doc().disabled_at.unwrap().duration_since(run.doc().promoted_at.unwrap());
    assert!(kept.as_hours() >= 48, "the abandoned key was still read in {region}: {kept:#}");
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_rotation_of_the_replica_is_told_where_the_primary_is() {
    let world = World::new();
    let region = replicated(&world, Duration::ZERO);
    let primary: SecretArn = world.fake.state().secret(SECRET).arn.parse().unwrap();
    let before = world.current_key();
    let run = world.run(json!({"secret": primary.in_region(&region)})).await;
    run.expect_blocked("SecretIsReplica");
    let why = run.doc().why.as_ref().unwrap();
    assert!(why.text.contains(primary.region()) && why.remedy.contains(primary.as_str()), "{why:?}");
    assert_eq!((world.current_key(), world.keys().len()), (before, 1));
}

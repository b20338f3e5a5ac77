//! One command brings the old key back until it is deleted; and keys that leaked.

use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::{Value, json};
use support::walker::Control;
use support::world::{Run, SECRET, World, hours, request};

fn back() -> Value {
    json!({"secret": SECRET, "roll_back": true})
}

/// Does `then` so many hours after a rotation began, with the old key and the new one.
async fn after_promotion<T>(world: &World, after: u64, then: impl AsyncFnOnce(&str, &str) -> T) -> T {
    let old = world.current_key();
    let work = async {
        tokio::time::sleep(hours(after)).await;
        let new = world.current_key();
        assert_ne!(new, old);
        then(&old, &new).await
    };
    world.beside(RunId::random(), request(), work).await
}

async fn turned_back(after: u64) -> (World, Run, String, String) {
    let world = World::new();
    world.consumer();
    let (run, old, new) = after_promotion(&world, after, async |old, new| {
        (world.run(back()).await, old.to_owned(), new.to_owned())
    })
    .await;
    (world, run, old, new)
}

#[tokio::test(start_paused = true)]
async fn a_promotion_is_turned_back_in_the_overlap_and_in_the_grace() {
    for after in [2, 24 * 4] {
        let (world, run, old, new) = turned_back(after).await;
        run.expect(Outcome::RolledBack);
        world.assert_sound();
        assert_eq!(world.current_key(), old, "after {after} hours");
        assert!(!world.keys().contains(&new), "the new key went through overlap, gate and grace");
        let stopped = world.fake.state().executions.values().filter(|run| run.status == "ABORTED").count();
        assert_eq!(stopped, 1, "the run that would have retired the old key");
    }
}

#[tokio::test(start_paused = true)]
async fn the_old_key_works_before_awscurrent_names_it() {
    let (world, run, old, _) = turned_back(24 * 4).await;
    let state = world.fake.state();
    let of_run: Vec<_> = state.calls.iter().filter(|call| call.run == Some(run.id)).collect();
    let place = |name: &str| of_run.iter().position(|call| call.name == name).unwrap();
    let swaps = |call: &support::fake::Call| {
        call.name == "secretsmanager:UpdateSecretVersionStage" && call.params["VersionStage"] == "AWSCURRENT"
    };
    let moved = of_run.iter().position(|call| swaps(call)).unwrap();
    assert!(place("iam:UpdateAccessKey") < place("sts:GetCallerIdentity"));
    assert!(place("sts:GetCallerIdentity") < moved);
    assert!(state.key(&old).unwrap().1.is_active());
}

#[tokio::test(start_paused = true)]
async fn after_the_delete_there_is_no_way_back() {
    let world = World::new();
    world.consumer();
    world.run(request()).await.expect(Outcome::Completed);
    world.run(back()).await.expect_blocked("NothingToRollBack");
}

#[tokio::test(start_paused = true)]
async fn a_turned_back_key_that_is_still_used_is_held_and_a_new_run_retires_it_and_promotes_it_never_again() {
    let world = World::new();
    world.consumer();
    after_promotion(&world, 2, async |old, new| {
        world.fake.state().keep_using(new, "s3", hours(1), hours(24 * 10));
        world.run(back()).await.expect(Outcome::Held);
        assert_eq!(world.current_key(), old);
        world.run(request()).await.expect(Outcome::Completed);
        assert_eq!(world.current_key(), old, "the key that was turned back from is current again");
        assert!(!world.keys().contains(new));
    })
    .await;
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_turned_back_key_in_its_grace_keeps_its_grace_when_the_run_is_stopped() {
    let world = World::new();
    world.consumer();
    after_promotion(&world, 2, async |old, new| {
        let mut stop =
            |state: &str, _: &Value| if state == "DeleteKey" { Control::Stop } else { Control::Go };
        let stopped = world.run_watched(RunId::random(), back(), &mut stop).await;
        assert_eq!(stopped.walk.status, "ABORTED");
        assert!(!world.fake.state().key(new).unwrap().1.is_active());
        // The promises watch that the key is not deleted before its grace is over.
        world.fake.state().watch.grace = hours(24 * 8);
        world.run(json!({"secret": SECRET, "policy": {"grace": "8d"}})).await.expect(Outcome::Completed);
        assert_eq!(world.current_key(), old);
    })
    .await;
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_rollback_stops_the_run_that_resumed_another() {
    let world = World::new();
    world.consumer();
    let old = world.current_key();
    world.fake.state().keep_using(&old, "s3", hours(1), hours(24 * 3));
    let held = json!({"secret": SECRET, "policy": {"max_overlap": "3d"}});
    world.run(held).await.expect(Outcome::Held);
    let resumed = RunId::random();
    let work = async {
        tokio::time::sleep(hours(2)).await;
        world.run(back()).await.expect(Outcome::RolledBack);
    };
    world.beside(resumed, request(), work).await;
    assert_eq!(world.current_key(), old);
    world.assert_sound();
    let arn = world.arn(resumed);
    assert_ne!(world.fake.state().executions[&arn].status, "RUNNING");
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_is_replaced_at_once_and_kept_as_evidence() {
    for inactive_already in [true, false] {
        let world = World::new();
        let leaked = world.current_key();
        {
            let mut state = world.fake.state();
            state.watch.leaked.insert(leaked.clone());
            let now = state.now();
            if inactive_already {
                state.key_mut(&leaked).changes.push((now, false));
            } else {
                state.keep_using(&leaked, "s3", hours(1), hours(48));
            }
        }
        let started = world.fake.state().now();
        let run = world.run(json!({"secret": SECRET, "reason": "leaked"})).await;
        run.expect(Outcome::Contained);
        let state = world.fake.state();
        let key = state.key(&leaked).unwrap().1;
        assert!(key.exists() && !key.is_active(), "Inactive, and kept");
        assert!(state.now().duration_since(started).as_secs() < 60, "no overlap is waited for");
        drop(state);
        assert_ne!(world.current_key(), leaked);
        world.assert_sound();
    }
}

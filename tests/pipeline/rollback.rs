//! One command brings the old key back until it is deleted; and keys that leaked.

use std::time::Duration;

use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::{Value, json};
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::walker::Control;
use support::world::{Run, SECRET, USER, World, hours, request};

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
async fn a_leak_of_long_ago_is_not_said_of_the_key_that_a_rollback_supersedes() {
    let world = World::new();
    world.consumer();
    // The version that is turned back to was written when another key had leaked, which is gone since.
    let leaked = world.current_key();
    world.fake.state().watch.leaked.insert(leaked.clone());
    world.run(json!({"secret": SECRET, "reason": "leaked"})).await.expect(Outcome::Contained);
    {
        let mut state = world.fake.state();
        let now = state.now();
        state.key_mut(&leaked).deleted = Some(now);
    }
    let (first, mut stop) =
        (
            world.current_key(),
            |state: &str, _: &Value| {
                if state == "Overlap" { Control::Stop } else { Control::Go }
            },
        );
    world.run_watched(RunId::random(), request(), &mut stop).await;
    tokio::time::sleep(hours(3)).await;
    let second = world.current_key();
    world.run_watched(RunId::random(), back(), &mut stop).await;
    assert_eq!(world.current_key(), first);
    // Whoever goes on from here waits for the consumers of the key that was turned away from.
    let began = world.fake.state().now();
    let run = world.run(request()).await;
    run.expect(Outcome::Completed);
    let off = world.fake.state().key(&second).unwrap().1.changed();
    assert!(
        off.duration_since(began).as_hours() >= 4,
        "made Inactive at {off}, and the run began at {began}"
    );
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

/// Found by tests/model.rs: the run was stopped, and the call that takes the old key away landed after AWSCURRENT
/// had moved back to it.
#[tokio::test(start_paused = true)]
async fn awscurrent_moves_back_only_when_no_call_of_the_stopped_run_can_take_the_old_key() {
    for name in ["iam:DeleteAccessKey", "iam:UpdateAccessKey"] {
        for attempts in [1, 2] {
            let world = World::new();
            world.consumer();
            let old = world.current_key();
            // The SDK asks again after five seconds without an answer.
            let slow = Fault::on(name, Kind::TimeoutBefore).times(attempts);
            world.fake.state().plan = Plan::new([slow]);
            let fired = async |world: &World| {
                while world.fake.state().plan.fired() == 0 {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            };
            let work = async {
                fired(&world).await;
                world.run(back()).await
            };
            let run = world.beside(RunId::random(), request(), work).await;
            world.assert_promises();
            if name == "iam:DeleteAccessKey" {
                run.expect(Outcome::Held);
                assert_eq!((run.why(), world.keys().len()), ("OldKeyGone", 1));
                assert_ne!(world.current_key(), old);
            } else {
                run.expect(Outcome::RolledBack);
                assert_eq!(world.current_key(), old);
            }
        }
    }
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

/// Found by the woven schedule of seed 2281.
#[tokio::test(start_paused = true)]
async fn a_leaked_key_that_its_run_could_not_make_inactive_is_so_after_the_next() {
    for next in [json!({"secret": SECRET, "reason": "leaked"}), request()] {
        let world = World::new();
        let leaked = world.current_key();
        world.fake.state().watch.leaked.insert(leaked.clone());
        world.fake.state().plan = Plan::new([Fault::within("DeactivateKey", 0, Kind::Refused)]);
        world.run(json!({"secret": SECRET, "reason": "leaked"})).await.expect(Outcome::Held);
        assert!(world.fake.state().key(&leaked).unwrap().1.is_active());
        let held = world.fake.state().now();
        world.run(next).await.expect(Outcome::Contained);
        let state = world.fake.state();
        let key = state.key(&leaked).unwrap().1;
        assert!(key.exists() && !key.is_active(), "Inactive, and kept");
        assert!(state.now().duration_since(held).as_secs() < 60, "no overlap is waited for");
        drop(state);
        world.assert_sound();
    }
}

/// Found by the woven schedule of seed 1424.
#[tokio::test(start_paused = true)]
async fn a_leaked_key_goes_although_nobody_can_tell_who_else_holds_it() {
    let world = World::new();
    let leaked = world.current_key();
    world.fake.state().watch.leaked.insert(leaked.clone());
    let refused = Fault::within("DeactivateKey", 3, Kind::Refused).for_good();
    world.fake.state().plan = Plan::new([refused]);
    let started = world.fake.state().now();
    world.run(json!({"secret": SECRET, "reason": "leaked"})).await.expect(Outcome::Contained);
    let state = world.fake.state();
    assert!(state.plan.fired() > 0);
    assert!(!state.key(&leaked).unwrap().1.is_active());
    assert!(state.now().duration_since(started).as_secs() < 60);
}

/// Found by the woven schedules of seeds 1657 and 3316.
#[tokio::test(start_paused = true)]
async fn a_pair_that_a_person_stored_and_went_back_from_is_a_strangers() {
    let world = World::new();
    world.run(request()).await.expect(Outcome::Completed);
    let (ours, theirs) = {
        let mut state = world.fake.state();
        let ours = state.secret(SECRET).labelled("AWSCURRENT").unwrap().id.clone();
        let theirs = state.add_key(USER, Maker::Stranger);
        (ours, theirs)
    };
    {
        let mut state = world.fake.state();
        let text = world.value_of(&mut state, &theirs);
        state.put_current(SECRET, &text);
        state.move_current(SECRET, &ours);
        state.hands_on_labels = true;
    }
    world.run(request()).await.expect_blocked("SlotsFull");
    world.run(back()).await.expect_blocked("NothingToRollBack");
    assert!(world.fake.state().key(&theirs).unwrap().1.is_active());
}

#[tokio::test(start_paused = true)]
async fn a_leak_is_seen_from_a_version_that_another_run_took_over() {
    let leaked_request = || json!({"secret": SECRET, "reason": "leaked"});
    for inputs in [[request(), leaked_request()], [leaked_request(), request()]] {
        let world = World::new();
        let leaked = world.current_key();
        world.fake.state().watch.leaked.insert(leaked.clone());
        let mut stop =
            |state: &str, _: &Value| if state == "ValidateKey" { Control::Stop } else { Control::Go };
        let [first, second] = inputs;
        world.run_watched(RunId::random(), first, &mut stop).await;
        world.run(second).await.expect(Outcome::Contained);
        world.run(back()).await.expect_blocked("LeakedKeyKept");
        world.run(request()).await.expect_blocked("LeakedKeyKept");
        let state = world.fake.state();
        let key = state.key(&leaked).unwrap().1;
        assert!(key.exists() && !key.is_active(), "Inactive, and kept");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leaked_key_is_not_brought_back_while_its_run_is_at_work() {
    let world = World::new();
    let leaked = world.current_key();
    world.fake.state().watch.leaked.insert(leaked.clone());
    let mut paused = false;
    let mut pause = |state: &str, _: &Value| {
        if state == "DeactivateKey" && !paused {
            paused = true;
            world.mode("paused");
        }
        Control::Go
    };
    let run = Box::pin(world.run_watched(
        RunId::random(),
        json!({"secret": SECRET, "reason": "leaked"}),
        &mut pause,
    ));
    let turn = async {
        tokio::time::sleep(hours(1)).await;
        world.mode("live");
        world.run(back()).await
    };
    let (run, turned) = tokio::join!(run, turn);
    turned.expect_blocked("LeakedKeyKept");
    run.expect(Outcome::Contained);
    assert!(!world.fake.state().key(&leaked).unwrap().1.is_active());
}

#[tokio::test(start_paused = true)]
async fn a_pause_keeps_a_promotion_as_it_is() {
    let world = World::new();
    world.consumer();
    after_promotion(&world, 2, async |old, new| {
        let mut pause = |state: &str, _: &Value| {
            if state == "RollBack" {
                world.mode("paused");
            }
            Control::Go
        };
        world.run_watched(RunId::random(), back(), &mut pause).await.expect_blocked("Paused");
        assert_eq!(world.current_key(), new);
        let state = world.fake.state();
        assert!(state.executions.values().all(|run| run.status != "ABORTED"), "a run was stopped");
        assert!(state.key(old).unwrap().1.is_active());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_step_in_flight_beside_a_rollback_does_not_leave_the_old_key_inactive() {
    // What a stopped run's step had begun lands before AWSCURRENT names the old key again, or long after.
    for (seconds, seen) in [(10, false), (60, true), (130, true)] {
        let world = World::new();
        after_promotion(&world, 2, async |old, new| {
            let late = async {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                {
                    let mut state = world.fake.state();
                    let now = state.now();
                    state.use_key(new, "ses", now);
                    state.key_mut(old).changes.push((now, false));
                    if seen {
                        state.watch.excuse();
                    }
                }
                tokio::time::sleep(Duration::from_secs(30)).await;
                assert!(world.fake.state().key(old).unwrap().1.is_active(), "{seconds} s: not repaired");
            };
            let (run, ()) = tokio::join!(world.run(back()), late);
            run.expect(Outcome::RolledBack);
            assert_eq!(world.current_key(), old);
            assert!(!world.keys().contains(new));
        })
        .await;
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_turned_nothing_back_is_blocked() {
    let world = World::new();
    after_promotion(&world, 2, async |_, _| {
        let mut meddled = false;
        let mut meddle = |name: &str, _: &Value| {
            if name == "RollBack" && !meddled {
                meddled = true;
                let mut state = world.fake.state();
                state.options.limit_races = true;
                let key = state.add_key(USER, Maker::Owner);
                let text = world.value_of(&mut state, &key);
                state.put_current(SECRET, &text);
            }
            Control::Go
        };
        world.run_watched(RunId::random(), back(), &mut meddle).await.expect_blocked("CurrentMoved");
    })
    .await;
}

/// Found by the woven schedule of seed 1000483.
#[tokio::test(start_paused = true)]
async fn a_replacement_clears_what_the_one_before_it_has_lost() {
    let world = World::new();
    let leaked = world.current_key();
    world.leak(&leaked);
    // Made, and never stored; then somebody stops the run.
    world.fake.state().plan =
        Plan::new([Fault::on("secretsmanager:PutSecretValue", Kind::KilledBefore).for_good()]);
    let mut stop = |state: &str, _: &Value| if state == "RollBack" { Control::Stop } else { Control::Go };
    let request = || json!({"secret": SECRET, "reason": "leaked"});
    world.run_watched(RunId::random(), request(), &mut stop).await;
    assert_eq!(world.keys().len(), 2, "the lost key is there");
    world.fake.state().plan = Plan::default();
    tokio::time::sleep(hours(1)).await;
    world.run(request()).await.expect(Outcome::Contained);
    assert_eq!(world.keys().len(), 2, "the leaked key and its replacement");
    assert_ne!(world.current_key(), leaked);
    world.assert_sound();
}

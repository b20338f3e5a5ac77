//! What goes wrong before AWSCURRENT moves leaves everything as it was, and nothing behind.

use std::time::Duration;

use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::json;
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::walker::Control;
use support::world::{SECRET, USER, World, hours, request};

fn count(world: &World, name: &str) -> usize {
    world.fake.call_names().iter().filter(|call| *call == name).count()
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_stored_is_taken_back() {
    // KMS refuses, the store refuses, or it is away for longer than the step waits.
    for kind in [Kind::Refused, Kind::ErrorBefore, Kind::Throttled, Kind::LostBefore, Kind::TimeoutBefore] {
        let world = World::new();
        let before = (world.current_value(), world.keys());
        world.fake.state().plan = Plan::new([Fault::on("secretsmanager:PutSecretValue", kind).for_good()]);
        let run = world.run(request()).await;
        run.expect(Outcome::RolledBack);
        world.assert_sound();
        assert_eq!((world.current_value(), world.keys()), before, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_create_reply_leaves_no_orphan() {
    for kind in [Kind::LostAfter, Kind::TimeoutAfter, Kind::GarbledAfter, Kind::KilledAfter] {
        let world = World::new();
        world.consumer();
        world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", kind)]);
        let run = world.run(request()).await;
        run.expect(Outcome::Completed);
        world.assert_sound();
        assert_eq!(count(&world, "iam:CreateAccessKey"), 2, "{kind:?}");
        assert!(count(&world, "cloudtrail:LookupEvents") > 0, "the orphan was cleared without proof");
        assert!(run.doc().notices.iter().any(|notice| notice.id.ends_with("OrphanCleared")));
    }
}

#[tokio::test(start_paused = true)]
async fn replies_that_keep_getting_lost_end_the_run_and_leave_nothing() {
    let world = World::new();
    let before = (world.current_value(), world.keys());
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter).for_good()]);
    let run = world.run(request()).await;
    run.expect(Outcome::RolledBack);
    assert_eq!(run.why(), "CreateKeepsFailing");
    world.assert_sound();
    assert_eq!((world.current_value(), world.keys()), before);
}

#[tokio::test(start_paused = true)]
async fn a_strangers_key_made_in_the_same_minute_is_left_alone() {
    // Made by a person, by nobody known, by our role without a run, by another role that names this very run.
    for who in ["person", "nobody", "our role", "another role"] {
        let world = World::new();
        let run = RunId::random();
        let mut stranger = String::new();
        let state = |world: &World| {
            let mut state = world.fake.state();
            let key = state.add_key(USER, Maker::Stranger);
            let ours = state.role_of(&state.calls[0].signer).unwrap().arn.replace("-look", "-create-key");
            let role = |arn: &str| json!({"type": "AssumedRole", "arn": arn, "sessionContext": {"sessionIssuer": {"arn": arn}}});
            match who {
                "person" => state.trail_made_by(
                    &key,
                    &json!({"type": "IAMUser", "arn": "arn:of:colleague"}),
                    "console",
                ),
                "our role" => state.trail_made_by(&key, &role(&ours), "aws-cli/2"),
                "another role" => {
                    let agent = format!("aws-sdk-rust/1 app/{}", run.app_name());
                    state.trail_made_by(&key, &role("arn:of:another"), &agent);
                }
                _ => {}
            }
            key
        };
        let walked = world
            .run_watched(run, request(), &mut |name, _| {
                if name == "CreateKey" && stranger.is_empty() {
                    stranger = state(&world);
                }
                Control::Go
            })
            .await;
        walked.expect_blocked("SlotsFull");
        assert!(world.keys().contains(&stranger), "{who}");
        assert_eq!(count(&world, "iam:UpdateAccessKey") + count(&world, "iam:DeleteAccessKey"), 0, "{who}");
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_strangers_key_beside_our_orphan_is_left_alone() {
    let world = World::new();
    world.consumer();
    world.fake.state().options.limit_races = true;
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
    let mut stranger = String::new();
    let run = world
        .run_watched(RunId::random(), request(), &mut |name, _| {
            if name == "AfterCreate" && stranger.is_empty() {
                stranger = world.fake.state().add_key(USER, Maker::Stranger);
            }
            Control::Go
        })
        .await;
    assert!(world.keys().contains(&stranger));
    assert!(run.outcome().is_some());
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_comes_late_is_awaited_for_half_an_hour() {
    for (minutes, outcome) in [(5, Outcome::Completed), (25, Outcome::Completed), (45, Outcome::Blocked)] {
        let world = World::new();
        world.consumer();
        world.fake.state().options.trail_delay = Duration::from_secs(minutes * 60);
        world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
        world.run(request()).await.expect(outcome);
        if outcome == Outcome::Blocked {
            // The next run finds the record.
            tokio::time::sleep(hours(1)).await;
            world.run(request()).await.expect(Outcome::Completed);
        }
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_promotion_reply_is_recognised() {
    for kind in [Kind::LostAfter, Kind::TimeoutAfter, Kind::GarbledAfter, Kind::KilledAfter] {
        let world = World::new();
        world.consumer();
        world.fake.state().plan = Plan::new([Fault::on("secretsmanager:UpdateSecretVersionStage", kind)]);
        let run = world.run(request()).await;
        run.expect(Outcome::Completed);
        world.assert_sound();
        assert_eq!(world.current_key(), run.new_key().as_str(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_changed_meanwhile_is_respected() {
    for at in ["CreateKey", "ValidateKey", "PromoteKey"] {
        let world = World::new();
        let mut theirs = String::new();
        let run = world
            .run_watched(RunId::random(), request(), &mut |name, _| {
                if name == at && theirs.is_empty() {
                    let mut state = world.fake.state();
                    let text = state.secret(SECRET).labelled("AWSCURRENT").unwrap().text.clone().unwrap();
                    theirs = state.put_current(SECRET, &text.replace("\"Port\":587", "\"Port\":465"));
                }
                Control::Go
            })
            .await;
        run.expect(if at == "CreateKey" { Outcome::Blocked } else { Outcome::RolledBack });
        assert_eq!(world.labelled("AWSCURRENT").unwrap().id, theirs, "changed at {at}");
        assert_eq!(world.keys().len(), 1);
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_deleted_meanwhile_gets_no_key() {
    for at in ["CreateKey", "ValidateKey", "PromoteKey"] {
        let world = World::new();
        let before = world.keys();
        let run = world
            .run_watched(RunId::random(), request(), &mut |name, _| {
                if name == at {
                    let mut state = world.fake.state();
                    let now = state.now();
                    state.secret_mut(SECRET).deleted = Some(now);
                }
                Control::Go
            })
            .await;
        assert!(
            matches!(run.outcome(), Some(Outcome::RolledBack | Outcome::Blocked)),
            "{at}: {:?}",
            run.walk
        );
        assert_eq!(world.keys(), before, "deleted at {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_made_anew_under_the_same_name_is_another_user() {
    let world = World::new();
    let run = world
        .run_watched(RunId::random(), request(), &mut |name, _| {
            if name == "ValidateKey" {
                world.fake.state().users.get_mut(USER).unwrap().id = "AIDAANOTHERUSER00001".into();
            }
            Control::Go
        })
        .await;
    run.expect(Outcome::RolledBack);
    assert_eq!(world.keys().len(), 1);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn the_switch_is_read_anew_by_every_step_that_changes_something() {
    for (at, mode, outcome) in [
        ("CreateKey", "paused", Outcome::Blocked),
        ("CreateKey", "dry-run", Outcome::Blocked),
        ("PromoteKey", "paused", Outcome::RolledBack),
        ("PromoteKey", "nonsense", Outcome::RolledBack),
    ] {
        let world = World::new();
        let before = (world.current_value(), world.keys());
        let run = world
            .run_watched(RunId::random(), request(), &mut |name, _| {
                if name == at {
                    world.mode(mode);
                }
                Control::Go
            })
            .await;
        run.expect(outcome);
        assert_eq!(run.why(), "Paused");
        assert_eq!((world.current_value(), world.keys()), before, "{mode} at {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_that_the_list_does_not_show_yet_is_taken_back() {
    let world = World::new();
    let before = (world.current_value(), world.keys());
    {
        let mut state = world.fake.state();
        state.options.list_lag = Duration::from_secs(30);
        state.plan = Plan::new([Fault::on("secretsmanager:PutSecretValue", Kind::Refused).for_good()]);
    }
    world.run(request()).await.expect(Outcome::RolledBack);
    assert_eq!((world.current_value(), world.keys()), before);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_stored_just_now_is_not_taken_for_gone() {
    for lag in [30, 55] {
        let world = World::new();
        world.fake.state().options.list_lag = Duration::from_secs(lag);
        let stop = &mut |state: &str, _: &serde_json::Value| {
            if state == "ValidateKey" { Control::Stop } else { Control::Go }
        };
        world.run_watched(RunId::random(), request(), stop).await;
        // The next one comes before IAM's list shows what that one has made.
        let run = world.run(request()).await;
        run.expect(Outcome::Completed);
        assert_eq!(world.keys(), [world.current_key()].into(), "{lag}");
        world.assert_sound();
    }
}

/// A run that was stopped has left a key that nobody stored.
async fn with_an_orphan() -> World {
    let world = World::new();
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
    let mut stop = |state: &str, _: &serde_json::Value| {
        if state == "AfterCreate" { Control::Stop } else { Control::Go }
    };
    world.run_watched(RunId::random(), request(), &mut stop).await;
    assert_eq!(world.keys().len(), 2);
    tokio::time::sleep(hours(1)).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cleared_an_orphan_says_so_whatever_comes_next() {
    for next in ["pause", "stranger", "refused"] {
        let world = with_an_orphan().await;
        let mut meddled = false;
        let run = world
            .run_watched(RunId::random(), request(), &mut |state, _| {
                if state == "CreateKey" && !meddled {
                    meddled = true;
                    match next {
                        "pause" => world.mode("paused"),
                        "stranger" => drop(world.fake.state().add_key(USER, Maker::Stranger)),
                        _ => drop(world.fake.state().denied.insert("iam:CreateAccessKey".into())),
                    }
                }
                Control::Go
            })
            .await;
        run.expect(Outcome::RolledBack);
        let told = run.doc().notices.iter().any(|notice| notice.id.ends_with("OrphanCleared"));
        assert!(told, "{next}: {:?}", run.doc().why);
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_stored_a_placeholder_says_so() {
    let world = World::without_value();
    world.fake.state().denied.insert("iam:CreateAccessKey".into());
    let run = world.run(request()).await;
    run.expect(Outcome::RolledBack);
    let why = run.doc().why.clone().unwrap();
    assert!(why.text.contains("placeholder"), "{why:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_keeps_orphans_as_they_are() {
    for mode in ["paused", "dry-run"] {
        let world = with_an_orphan().await;
        let keys = world.keys();
        let run = world
            .run_watched(RunId::random(), request(), &mut |state, _| {
                if state == "RollBack" {
                    world.mode(mode);
                }
                Control::Go
            })
            .await;
        run.expect_blocked("Paused");
        assert_eq!(world.keys(), keys, "{mode}");
        world.mode("live");
        world.run(request()).await.expect(Outcome::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_that_does_not_work_any_more_is_not_promoted() {
    for taken_over in [true, false] {
        for deleted in [true, false] {
            let world = World::new();
            let before = world.current_value();
            if taken_over {
                let mut stop = |state: &str, _: &serde_json::Value| {
                    if state == "ValidateKey" { Control::Stop } else { Control::Go }
                };
                world.run_watched(RunId::random(), request(), &mut stop).await;
            }
            let old = world.current_key();
            let mut meddled = false;
            let run = world
                .run_watched(RunId::random(), request(), &mut |name, _| {
                    if name == "PromoteKey" && !meddled {
                        meddled = true;
                        let new = world.keys().into_iter().find(|key| *key != old).unwrap();
                        let mut state = world.fake.state();
                        let now = state.now();
                        let key = state.key_mut(&new);
                        if deleted {
                            key.deleted = Some(now);
                        } else {
                            key.changes.push((now, false));
                        }
                        if !taken_over {
                            // What was validated a moment ago is not looked at again; what waits is.
                            let away = Fault::on("ssm:GetParameter", Kind::ErrorBefore).times(9);
                            state.plan = Plan::new([away]);
                        }
                    }
                    Control::Go
                })
                .await;
            run.expect(Outcome::RolledBack);
            assert_eq!(world.current_value(), before, "taken over: {taken_over}, deleted: {deleted}");
            world.assert_sound();
            assert_eq!(world.keys().len(), 1);
        }
    }
}

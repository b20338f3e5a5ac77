//! Every step is announced at least once, and no announcement can fail or delay a rotation.

use std::collections::BTreeSet;

use keywheel::RunId;
use keywheel::rotation::{Delivery, Outcome};
use serde_json::{Value, json};
use support::faults::{Fault, Kind, Plan};
use support::walker::Control;
use support::world::{SECRET, World, hours, request};

fn told(items: &[Value], id: impl Fn(&Value) -> Value) -> Vec<String> {
    items.iter().map(|item| id(item).as_str().unwrap().rsplit_once('/').unwrap().1.to_owned()).collect()
}

fn on_bus(world: &World) -> Vec<String> {
    told(&world.fake.state().bus, |entry| entry["Detail"]["id"].clone())
}

fn on_topic(world: &World) -> Vec<String> {
    let id = |message: &Value| {
        let name = |number: i32| format!("MessageAttributes.entry.{number}.");
        let number = (1..9).find(|&number| message[format!("{}Name", name(number))] == "id").unwrap();
        message[format!("{}Value.StringValue", name(number))].clone()
    };
    told(&world.fake.state().topic, id)
}

const HAPPY: [&str; 6] = ["Created", "Validated", "Promoted", "Deactivated", "Deleted", "Ended"];

#[tokio::test(start_paused = true)]
async fn every_step_is_announced_once_on_both_channels() {
    let world = World::new();
    let run = world.run(request()).await;
    run.expect(Outcome::Completed);
    assert_eq!(on_bus(&world), HAPPY);
    assert_eq!(on_topic(&world), HAPPY);
    assert_eq!(run.doc().delivery, Delivery::Done);
    let state = world.fake.state();
    let last = &state.bus.last().unwrap();
    assert_eq!(last["Source"], "keywheel");
    assert_eq!((&last["Detail"]["outcome"], &last["Detail"]["run"]), (&json!("Completed"), &json!(run.id)));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_down_delays_nothing_and_gets_all_when_it_is_back() {
    for (name, other) in [("events:PutEvents", "sns:Publish"), ("sns:Publish", "events:PutEvents")] {
        for kind in [Kind::Refused, Kind::Throttled, Kind::ErrorBefore, Kind::LostBefore, Kind::TimeoutBefore]
        {
            let world = World::new();
            let started = world.fake.state().now();
            world.fake.state().plan = Plan::new([Fault::on(name, kind).for_good()]);
            let mut ended = None;
            let run = world
                .run_watched(RunId::random(), request(), &mut |state, _| {
                    if state == "AwaitDelivery" && ended.is_none() {
                        let mut state = world.fake.state();
                        ended = Some(state.now());
                        state.plan = Plan::default();
                    }
                    Control::Go
                })
                .await;
            run.expect(Outcome::Completed);
            // Some steps' length, not hours: eight seconds a Notify at most.
            let took = ended.unwrap().duration_since(started);
            assert!(took.as_hours() < 24 * 9 + 2, "{kind:?} took {took:#}");
            let all: BTreeSet<String> = HAPPY.map(str::to_owned).into();
            assert_eq!(
                on_bus(&world).into_iter().collect::<BTreeSet<_>>(),
                all,
                "{name} {kind:?}, not {other}"
            );
            assert_eq!(
                on_topic(&world).into_iter().collect::<BTreeSet<_>>(),
                all,
                "{name} {kind:?}, not {other}"
            );
            assert_eq!(run.doc().delivery, Delivery::Done);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn entries_that_the_bus_refuses_are_not_counted_as_sent() {
    let world = World::new();
    world.fake.state().options.bus_fails_entries = true;
    let run = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            if state == "AwaitDelivery" {
                world.fake.state().options.bus_fails_entries = false;
            }
            Control::Go
        })
        .await;
    run.expect(Outcome::Completed);
    assert_eq!(on_bus(&world), HAPPY);
}

#[tokio::test(start_paused = true)]
async fn channels_that_stay_down_for_a_day_are_given_up_and_the_run_has_its_outcome() {
    let world = World::new();
    let dead = |name| Fault::on(name, Kind::TimeoutBefore).for_good();
    world.fake.state().plan = Plan::new([dead("events:PutEvents"), dead("sns:Publish")]);
    let mut ended = None;
    let run = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            if state == "NotifyOutcome" && ended.is_none() {
                ended = Some(world.fake.state().now());
            }
            Control::Go
        })
        .await;
    run.expect(Outcome::Completed);
    assert_eq!(run.doc().delivery, Delivery::GaveUp);
    let tried = world.fake.state().now().duration_since(ended.unwrap());
    assert!(tried.as_hours() >= 24 && tried.as_hours() < 25, "{tried:#}");
    assert_eq!(world.keys().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_notify_that_dies_every_time_fails_no_rotation() {
    let world = World::new();
    world.consumer();
    world.fake.state().plan = Plan::new([Fault::on("events:PutEvents", Kind::KilledBefore).for_good()]);
    let run = world.run(request()).await;
    run.expect(Outcome::Completed);
    assert_eq!(world.keys().len(), 1);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fleet_is_answered_when_the_new_key_is_current() {
    let world = World::new();
    let token = world.task_token();
    let mut answered_at = None;
    let input = json!({"secret": SECRET, "on_promoted": token.clone()});
    let run = world
        .run_watched(RunId::random(), input, &mut |state, _| {
            if state == "Overlap" && answered_at.is_none() {
                answered_at = world.fake.state().answers.get(&token).map(std::vec::Vec::len);
            }
            Control::Go
        })
        .await;
    run.expect(Outcome::Completed);
    assert_eq!(answered_at, Some(1), "answered before the overlap, once");
    let state = world.fake.state();
    let answer = &state.answers[&token][0];
    assert_eq!(answer.action, "SendTaskSuccess");
    assert!(run.doc().answered);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fleet_is_told_of_every_other_way_out() {
    let failed = [
        (json!({"secret": SECRET, "reason": "boredom"}), None, "Keywheel.Blocked"),
        (json!({"secret": "no/such"}), None, "Keywheel.Blocked"),
        (json!({"secret": SECRET}), Some("iam:CreateAccessKey"), "Keywheel.Blocked"),
        (json!({"secret": SECRET}), Some("sts:GetCallerIdentity"), "Keywheel.RolledBack"),
        (json!({"secret": SECRET}), Some("secretsmanager:DescribeSecret"), "Keywheel.Blocked"),
    ];
    for (mut input, denied, error) in failed {
        let world = World::new();
        let token = world.task_token();
        input["on_promoted"] = token.clone().into();
        world.fake.state().denied.extend(denied.map(str::to_owned));
        world.run(input.clone()).await;
        let state = world.fake.state();
        let answers =
            state.answers.get(&token).unwrap_or_else(|| panic!("{input} {denied:?} was not answered"));
        assert_eq!((answers.len(), answers[0].action.as_str()), (1, "SendTaskFailure"));
        assert_eq!(answers[0].body["error"], error, "{denied:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_waits_on_any_more_is_no_trouble() {
    let world = World::new();
    let run = world.run(json!({"secret": SECRET, "on_promoted": "expired"})).await;
    run.expect(Outcome::Completed);
    assert!(run.doc().answered);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_run_is_announced_and_fails_and_the_next_one_mends_it() {
    let world = World::new();
    world.consumer();
    let token = world.task_token();
    world.fake.state().plan = Plan::new([
        Fault::on("sts:GetCallerIdentity", Kind::Refused).for_good(),
        Fault::on("iam:UpdateAccessKey", Kind::Refused).for_good(),
    ]);
    let run = world.run(json!({"secret": SECRET, "on_promoted": token.clone()})).await;
    assert_eq!(run.walk.error.as_ref().unwrap().error, "Keywheel.RollBackIncomplete");
    assert!(on_bus(&world).contains(&"Stuck".to_owned()), "{:?}", on_bus(&world));
    assert!(world.fake.state().answers.contains_key(&token), "the fleet still waits");
    world.fake.state().plan = Plan::default();
    tokio::time::sleep(hours(1)).await;
    world.run(request()).await.expect(Outcome::Completed);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_nobody_could_be_told_is_not_reported_as_success() {
    for refused in ["iam:UpdateAccessKey", "iam:DeleteAccessKey"] {
        let world = World::new();
        world.consumer();
        let old = world.current_key();
        let run = world
            .run_watched(RunId::random(), request(), &mut |state, _| {
                // Told of all that went before, so that the last notice is what cannot be made.
                if ["DeactivateKey", "DeleteKey"].contains(&state) {
                    world.fake.state().plan = Plan::new([
                        Fault::on(refused, Kind::Refused).for_good(),
                        Fault::on("sns:Publish", Kind::KilledBefore).for_good(),
                    ]);
                }
                Control::Go
            })
            .await;
        let error = run.walk.error.as_ref().map(|failure| failure.error.as_str());
        assert_eq!((run.walk.status, error), ("FAILED", Some("Keywheel.NotConcluded")), "{refused}");
        assert!(world.keys().contains(&old), "{refused}: what failed has not happened");
        world.fake.state().plan = Plan::default();
        world.run(request()).await.expect(Outcome::Completed);
        world.assert_sound();
        assert_eq!(world.keys().len(), 1, "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_run_keeps_telling_for_an_hour() {
    // The fleet's token and the channels do not answer for some minutes, or not at all.
    for lasting in [false, true] {
        let world = World::new();
        world.consumer();
        let token = world.task_token();
        let away = |name| {
            let fault = Fault::on(name, Kind::ErrorBefore);
            if lasting { fault.for_good() } else { fault.times(7) }
        };
        world.fake.state().plan = Plan::new([
            Fault::on("sts:GetCallerIdentity", Kind::Refused).for_good(),
            Fault::on("iam:UpdateAccessKey", Kind::Refused).for_good(),
            away("events:PutEvents"),
            away("states:SendTaskFailure"),
        ]);
        let mut told = None;
        let run = world
            .run_watched(
                RunId::random(),
                json!({"secret": SECRET, "on_promoted": token.clone()}),
                &mut |state, _| {
                    if state == "NotifyStuck" && told.is_none() {
                        told = Some(world.fake.state().now());
                    }
                    Control::Go
                },
            )
            .await;
        assert_eq!(run.walk.error.as_ref().unwrap().error, "Keywheel.RollBackIncomplete");
        assert_eq!(world.fake.state().answers.contains_key(&token), !lasting);
        assert_eq!(on_bus(&world).contains(&"Stuck".to_owned()), !lasting);
        // No notice keeps the next run waiting for long.
        let took = world.fake.state().now().duration_since(told.unwrap());
        assert!(took.as_secs() <= 75 * 60, "{took:#}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_run_tells_even_if_its_process_dies_some_times() {
    let world = World::new();
    world.consumer();
    let token = world.task_token();
    world.fake.state().plan = Plan::new([
        Fault::on("sts:GetCallerIdentity", Kind::Refused).for_good(),
        Fault::on("iam:UpdateAccessKey", Kind::Refused).for_good(),
        Fault::on("sns:Publish", Kind::KilledBefore).times(4),
    ]);
    let run = world.run(json!({"secret": SECRET, "on_promoted": token.clone()})).await;
    assert_eq!(run.walk.error.as_ref().unwrap().error, "Keywheel.RollBackIncomplete");
    assert!(on_topic(&world).contains(&"Stuck".to_owned()), "{:?}", on_topic(&world));
    assert!(world.fake.state().answers.contains_key(&token), "the fleet still waits");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_run_whose_process_always_dies_ends_within_the_hour_or_so() {
    let world = World::new();
    world.consumer();
    world.fake.state().plan = Plan::new([
        Fault::on("sts:GetCallerIdentity", Kind::Refused).for_good(),
        Fault::on("iam:UpdateAccessKey", Kind::Refused).for_good(),
        Fault::on("sns:Publish", Kind::KilledBefore).for_good(),
    ]);
    let mut told = None;
    let run = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            if state == "NotifyStuck" && told.is_none() {
                told = Some(world.fake.state().now());
            }
            Control::Go
        })
        .await;
    assert_eq!(run.walk.error.as_ref().unwrap().error, "Keywheel.RollBackIncomplete");
    let took = world.fake.state().now().duration_since(told.unwrap());
    assert!(took.as_secs() >= 50 * 60 && took.as_secs() <= 75 * 60, "{took:#}");
}

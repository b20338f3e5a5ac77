//! Runs beside each other, and runs that were stopped anywhere.

use std::time::Duration;

use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::json;
use support::walker::Control;
use support::world::{SECRET, World, hours, request};

fn created(world: &World) -> usize {
    let state = world.fake.state();
    state.calls.iter().filter(|call| call.name == "iam:CreateAccessKey" && call.status == 200).count()
}

#[tokio::test(start_paused = true)]
async fn two_runs_at_once_make_one_rotation() {
    for races in [false, true] {
        for delay in [0, 1, 500, 2_000, 3_500, 60_000, 3_600_000] {
            let world = World::new();
            world.consumer();
            world.fake.state().options.limit_races = races;
            let late = async {
                tokio::time::sleep(Duration::from_millis(delay)).await;
                world.run(request()).await
            };
            let (one, two) = tokio::join!(world.run(request()), late);
            let outcomes = [one.outcome().unwrap(), two.outcome().unwrap()];
            assert!(outcomes.contains(&Outcome::Completed), "races {races}, {delay} ms: {outcomes:?}");
            let loser = if one.outcome() == Some(Outcome::Completed) { &two } else { &one };
            assert!(
                matches!(loser.outcome(), Some(Outcome::Blocked | Outcome::RolledBack)),
                "races {races}, {delay} ms: {outcomes:?} {:?}",
                loser.doc().why
            );
            world.assert_sound();
            assert_eq!(world.keys().len(), 1, "races {races}, {delay} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_beside_one_that_resumed_another_is_blocked() {
    let world = World::new();
    world.consumer();
    let old = world.current_key();
    world.fake.state().keep_using(&old, "s3", hours(1), hours(24 * 3));
    world.run(json!({"secret": SECRET, "policy": {"max_overlap": "3d"}})).await.expect(Outcome::Held);
    let work = async {
        tokio::time::sleep(hours(2)).await;
        world.run(request()).await.expect_blocked("RunInProgress");
    };
    world.beside(RunId::random(), request(), work).await;
}

#[tokio::test(start_paused = true)]
async fn the_labels_of_ended_runs_make_room_for_the_one_that_goes_on() {
    let world = World::new();
    world.consumer();
    let old = world.current_key();
    world.fake.state().keep_using(&old, "s3", hours(1), hours(24 * 3));
    world.run(json!({"secret": SECRET, "policy": {"max_overlap": "3d"}})).await.expect(Outcome::Held);
    // As many as the secret takes, each of a run that was killed before it could take its own off.
    let current = world.labelled("AWSCURRENT").unwrap().id;
    let labels = |world: &World| -> Vec<String> {
        let state = world.fake.state();
        let versions = &state.secret(SECRET).versions;
        versions.iter().flat_map(|version| version.stages.iter().cloned()).collect()
    };
    while labels(&world).len() < 20 {
        let run = world.run(json!({"secret": SECRET, "dry_run": true})).await.expect_blocked("DryRun").id;
        let mut state = world.fake.state();
        let versions = &mut state.secret_mut(SECRET).versions;
        versions.iter_mut().find(|version| version.id == current).unwrap().stages.insert(run.label());
    }
    world.run(request()).await.expect(Outcome::Completed);
    let left = labels(&world).into_iter().filter(|label| RunId::from_label(label).is_some()).count();
    assert_eq!(left, 1, "the label of the run that went on");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_stopped_anywhere_is_finished_by_the_next() {
    // Every state that an undisturbed run enters.
    let world = World::new();
    let states: Vec<String> =
        world.run(request()).await.walk.states().iter().map(|&state| state.to_owned()).collect();
    assert!(states.len() > 15);
    for stop in &states {
        let world = World::new();
        world.consumer();
        let stopped = world
            .run_watched(RunId::random(), request(), &mut |state, _| {
                if state == stop { Control::Stop } else { Control::Go }
            })
            .await;
        assert_eq!(stopped.walk.status, "ABORTED");
        tokio::time::sleep(hours(1)).await;
        let before = created(&world);
        let next = world.run(request()).await;
        assert_eq!(next.outcome(), Some(Outcome::Completed), "stopped at {stop}: {:?}", next.doc().why);
        assert!(before == 0 || created(&world) == before || world.keys().len() == 1, "stopped at {stop}");
        assert_eq!(world.keys().len(), 1, "stopped at {stop}");
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphan_of_a_stopped_run_is_cleared_by_the_next() {
    use support::faults::{Fault, Kind, Plan};
    let world = World::new();
    world.consumer();
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
    let stopped = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            if state == "AfterCreate" { Control::Stop } else { Control::Go }
        })
        .await;
    assert_eq!((stopped.walk.status, world.keys().len()), ("ABORTED", 2));
    world.run(request()).await.expect(Outcome::Completed);
    assert_eq!(world.keys().len(), 1);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn every_step_may_run_twice() {
    let world = World::new();
    let states: Vec<String> =
        world.run(request()).await.walk.states().iter().map(|&state| state.to_owned()).collect();
    for twice in &states {
        let world = World::new();
        world.consumer();
        let run = world
            .run_watched(RunId::random(), request(), &mut |state, _| {
                if state == twice { Control::Twice } else { Control::Go }
            })
            .await;
        assert_eq!(run.outcome(), Some(Outcome::Completed), "{twice} twice: {:?}", run.doc().why);
        assert_eq!((created(&world), world.keys().len()), (1, 1), "{twice} twice");
        world.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_beside_one_that_took_over_a_pending_version_is_blocked() {
    let world = World::new();
    world.consumer();
    let mut stop = |state: &str, _: &serde_json::Value| {
        if state == "ValidateKey" { Control::Stop } else { Control::Go }
    };
    world.run_watched(RunId::random(), request(), &mut stop).await;
    let work = async {
        tokio::time::sleep(hours(2)).await;
        world.run(request()).await.expect_blocked("RunInProgress");
    };
    world.beside(RunId::random(), request(), work).await;
    // Of two that take over at the same time, one goes on.
    let world = World::new();
    world.consumer();
    world.run_watched(RunId::random(), request(), &mut stop).await;
    let (one, two) = tokio::join!(world.run(request()), world.run(request()));
    let outcomes = [one.outcome().unwrap(), two.outcome().unwrap()];
    assert!(
        outcomes.contains(&Outcome::Completed) && outcomes.contains(&Outcome::Blocked),
        "{outcomes:?}: {:?} {:?}",
        one.doc().why,
        two.doc().why
    );
    assert_eq!(world.keys().len(), 1);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn every_step_may_come_once_more_when_its_successor_has_failed() {
    use support::faults::{Fault, Kind, Plan};
    let world = World::new();
    let run = world.run(request()).await;
    let machine = support::world::rotation_machine();
    let states = run.walk.states();
    let tasks: Vec<&str> =
        states.into_iter().filter(|state| machine["States"][*state]["Type"] == "Task").collect();
    assert!(tasks.len() > 8);
    for pair in tasks.windows(2) {
        let world = World::new();
        world.consumer();
        let fault = Fault::within(pair[1], 0, Kind::KilledBefore);
        world.fake.state().plan = Plan::new([fault]);
        let run = world
            .run_watched(RunId::random(), request(), &mut |state, _| {
                if state == pair[0] { Control::Late } else { Control::Go }
            })
            .await;
        assert_eq!(run.outcome(), Some(Outcome::Completed), "{pair:?}: {:?}", run.doc().why);
        let fired = world.fake.state().plan.fired();
        assert_eq!((fired, created(&world), world.keys().len()), (1, 1, 1), "{pair:?}");
        world.assert_sound();
    }
}

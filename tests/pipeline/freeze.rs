//! A freeze of the fleet's policy holds runs under way: what they would take away stays until its end.

use std::time::Duration;

use jiff::Timestamp;
use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::{Value, json};
use support::faults::{Fault, Kind, Plan};
use support::walker::Control;
use support::world::{Run, SECRET, World, hours, later, request};

const DAY: u64 = 24;

/// Sets freezes, each from so many hours after now to so many.
fn freeze(world: &World, freezes: &[(u64, u64)]) {
    let now = world.fake.state().now();
    let at = |after: u64| keywheel::clock::after(now, hours(after)).to_string();
    let one =
        |(from, until): &(u64, u64)| json!({"from": at(*from), "until": at(*until), "reason": "year end"});
    let freezes: Value = freezes.iter().map(one).collect();
    world.freeze(&freezes.to_string());
}

/// How long after `began` the first call of that name was made that takes a key away.
fn first(world: &World, name: &str, began: Timestamp) -> Duration {
    let state = world.fake.state();
    let mut calls = state.calls.iter();
    let call = calls.find(|call| call.name == name && call.params["Status"] != "Active");
    let call = call.unwrap_or_else(|| panic!("no {name}"));
    Duration::try_from(call.at.duration_since(began)).unwrap()
}

/// How often a state was entered.
fn times(run: &Run, state: &str) -> usize {
    run.walk.states().iter().filter(|entered| **entered == state).count()
}

/// Fails the test unless `took` is these hours, to the minute.
fn expect_hours(took: Duration, wanted: u64, what: &str) {
    assert!(took >= hours(wanted) && took < hours(wanted) + Duration::from_mins(1), "{what} after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_begins_in_the_overlap_leaves_the_old_key_active_until_its_end() {
    // Within the longest overlap, and long beyond it.
    for days in [3, 20] {
        let world = World::new();
        world.consumer();
        let (old, began) = (world.current_key(), world.fake.state().now());
        freeze(&world, &[(2, days * DAY)]);
        let mut said = Vec::new();
        let run = world
            .run_watched(RunId::random(), request(), &mut |state, document| {
                if state == "Overlap" {
                    said.extend(document["gate"]["shut"].as_str().map(str::to_owned));
                    assert!(world.fake.state().key(&old).unwrap().1.is_active());
                }
                Control::Go
            })
            .await;
        run.expect(Outcome::Completed);
        world.assert_sound();
        expect_hours(first(&world, "iam:UpdateAccessKey", began), days * DAY, "made Inactive");
        // A full grace follows.
        expect_hours(first(&world, "iam:DeleteAccessKey", began), (days + 7) * DAY, "deleted");
        assert!(!said.is_empty() && said.iter().all(|said| said.contains("(year end)")), "{said:?}");
        // The first look was after a day, an hour and a quarter.
        assert_eq!(times(&run, "DeactivateKey"), usize::try_from(days).unwrap());
        assert!(run.doc().notices.iter().all(|notice| !notice.id.ends_with("StillInUse")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_begins_in_the_grace_leaves_the_old_key_there_until_its_end() {
    let world = World::new();
    world.consumer();
    let (old, began) = (world.current_key(), world.fake.state().now());
    freeze(&world, &[(2 * DAY, 30 * DAY)]);
    let run = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            if state == "DeleteKey" {
                assert!(world.keys().contains(&old));
            }
            Control::Go
        })
        .await;
    run.expect(Outcome::Completed);
    world.assert_sound();
    assert!(first(&world, "iam:UpdateAccessKey", began) < hours(2 * DAY));
    expect_hours(first(&world, "iam:DeleteAccessKey", began), 30 * DAY, "deleted");
}

#[tokio::test(start_paused = true)]
async fn freezes_in_a_row_are_waited_out_one_after_the_other() {
    // One after the other without a moment between them, and one in the overlap and one in the grace.
    for (freezes, off, gone) in [
        ([(2, 2 * DAY), (2 * DAY, 4 * DAY)], 4 * DAY, 11 * DAY),
        ([(2, 3 * DAY), (5 * DAY, 40 * DAY)], 3 * DAY, 40 * DAY),
        // The order in which they are written is nobody's.
        ([(DAY, 6 * DAY), (2, 2 * DAY)], 6 * DAY, 13 * DAY),
    ] {
        let world = World::new();
        world.consumer();
        let began = world.fake.state().now();
        freeze(&world, &freezes);
        world.run(request()).await.expect(Outcome::Completed);
        world.assert_sound();
        expect_hours(first(&world, "iam:UpdateAccessKey", began), off, "made Inactive");
        expect_hours(first(&world, "iam:DeleteAccessKey", began), gone, "deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_is_over_or_to_come_holds_nobody() {
    let world = World::new();
    world.consumer();
    let began = world.fake.state().now();
    freeze(&world, &[(2, DAY), (30 * DAY, 40 * DAY)]);
    world.run(request()).await.expect(Outcome::Completed);
    assert!(first(&world, "iam:UpdateAccessKey", began) < hours(26));
    assert!(first(&world, "iam:DeleteAccessKey", began) < hours(26 + 7 * DAY));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_pushed_in_a_freeze_ends_it_within_a_day() {
    for (door, wait, call, from) in [
        ("DeactivateKey", "Overlap", "iam:UpdateAccessKey", 2),
        ("DeleteKey", "Grace", "iam:DeleteAccessKey", 2 * DAY),
    ] {
        let world = World::new();
        world.consumer();
        freeze(&world, &[(from, 60 * DAY)]);
        let (mut looks, mut ended) = (0, None);
        let run = world
            .run_watched(RunId::random(), request(), &mut |state, _| {
                looks += usize::from(state == door);
                if state == wait && looks == 2 && ended.is_none() {
                    ended = Some(world.fake.state().now());
                    world.freeze("[]");
                }
                Control::Go
            })
            .await;
        run.expect(Outcome::Completed);
        world.assert_sound();
        let took = first(&world, call, ended.unwrap());
        assert!(took > hours(DAY - 1) && took < hours(DAY + 1), "{call} after {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_used_late_is_held_after_a_freeze_and_not_in_it() {
    let world = World::new();
    world.consumer();
    let (old, began) = (world.current_key(), world.fake.state().now());
    world.fake.state().keep_using(&old, "s3", hours(1), hours(5 * DAY));
    freeze(&world, &[(10 * DAY, 20 * DAY)]);
    let run = world.run(request()).await;
    run.expect(Outcome::Held);
    assert_eq!(run.why(), "StillInUse");
    assert!(run.doc().why.as_ref().unwrap().text.contains("was used at"));
    let took = Duration::try_from(world.fake.state().now().duration_since(began)).unwrap();
    // The last notice may take its time.
    assert!(took >= hours(20 * DAY) && took < hours(21 * DAY), "{took:?}");
    assert!(world.fake.state().key(&old).unwrap().1.is_active());
    // Whom the policy tells to deactivate it waits for the freeze's end as well.
    let world = World::new();
    world.consumer();
    let (old, began) = (world.current_key(), world.fake.state().now());
    world.fake.state().keep_using(&old, "s3", hours(1), hours(3 * DAY));
    freeze(&world, &[(2 * DAY, 10 * DAY)]);
    let input = json!({"secret": SECRET, "policy": {"when_still_in_use": "deactivate", "max_overlap": "4d"}});
    world.run(input).await.expect(Outcome::Completed);
    expect_hours(first(&world, "iam:UpdateAccessKey", began), 10 * DAY, "made Inactive");
}

#[tokio::test(start_paused = true)]
async fn no_freeze_holds_a_run_because_of_a_leak() {
    let whole =
        r#"[{"from": "2026-01-01T00:00:00Z", "until": "2026-04-01T00:00:00Z", "reason": "year end"}]"#;
    for text in [whole, "nobody understands this"] {
        let world = World::new();
        world.consumer();
        let (old, began) = (world.current_key(), world.fake.state().now());
        world.freeze(text);
        world.fake.state().watch.leaked.insert(old.clone());
        let run = world.run(json!({"secret": SECRET, "reason": "leaked"})).await;
        run.expect(Outcome::Contained);
        world.assert_sound();
        assert!(!world.fake.state().key(&old).unwrap().1.is_active());
        assert!(first(&world, "iam:UpdateAccessKey", began) < hours(1));
    }
}

#[tokio::test(start_paused = true)]
async fn no_freeze_holds_what_is_undone() {
    // Before the promotion.
    let world = World::new();
    world.consumer();
    let (before, began) = (world.current_value(), world.fake.state().now());
    freeze(&world, &[(0, 60 * DAY)]);
    world.fake.state().options.valid_after = hours(2);
    world.run(request()).await.expect(Outcome::RolledBack);
    world.assert_sound();
    assert_eq!((world.current_value(), world.keys().len()), (before, 1));
    assert!(first(&world, "iam:DeleteAccessKey", began) < hours(1));
    // After it: the old key is back at once, and only the one that was turned back from stays until the end.
    let world = World::new();
    world.consumer();
    let old = world.current_key();
    freeze(&world, &[(0, 20 * DAY)]);
    let work = async {
        tokio::time::sleep(hours(2)).await;
        let (began, mut back) = (world.fake.state().now(), None);
        let run = world
            .run_watched(RunId::random(), json!({"secret": SECRET, "roll_back": true}), &mut |state, _| {
                if state == "Overlap" && back.is_none() {
                    back = Some((world.current_key(), world.fake.state().now()));
                }
                Control::Go
            })
            .await;
        (run, began, back.unwrap())
    };
    let (run, began, (key, at)) = world.beside(RunId::random(), request(), work).await;
    run.expect(Outcome::RolledBack);
    world.assert_sound();
    assert_eq!((key.as_str(), world.current_key().as_str()), (old.as_str(), old.as_str()));
    assert!(at.duration_since(began).as_mins() < 5, "brought back at {at}");
    expect_hours(first(&world, "iam:UpdateAccessKey", began), 20 * DAY - 2, "made Inactive");
}

#[tokio::test(start_paused = true)]
async fn freezes_that_nobody_understands_hold_what_a_pause_would() {
    let odd = ["soon", "{}", r#"[{"from": "2026-12-20", "until": "2027-01-04", "reason": "year end"}]"#];
    for text in odd {
        // In the overlap: the run is held at its end, and says why. The next one goes on when it is mended.
        let world = World::new();
        world.consumer();
        let old = world.current_key();
        world.freeze(text);
        let run = world.run(request()).await;
        run.expect(Outcome::Held);
        let why = run.doc().why.as_ref().unwrap();
        assert!(why.text.contains("/keywheel/test/freeze cannot be understood"), "{why:?}");
        assert!(world.fake.state().key(&old).unwrap().1.is_active());
        world.freeze("[]");
        world.run(request()).await.expect(Outcome::Completed);
        world.assert_sound();
        // In the grace: waited for as a pause is.
        let world = World::new();
        world.consumer();
        let mut looks = 0;
        let run = world
            .run_watched(RunId::random(), request(), &mut |state, _| {
                if state == "DeleteKey" {
                    looks += 1;
                    world.freeze(if looks < 5 { text } else { "[]" });
                }
                Control::Go
            })
            .await;
        run.expect(Outcome::Completed);
        assert_eq!(looks, 5);
        world.assert_sound();
    }
    // And, like a pause, not for ever.
    let world = World::new();
    let old = world.current_key();
    let run = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            if state == "DeleteKey" {
                world.freeze("soon");
            }
            Control::Go
        })
        .await;
    run.expect(Outcome::Held);
    assert_eq!(run.why(), "Paused");
    assert!(run.doc().why.as_ref().unwrap().remedy.contains("keywheel policy push"));
    assert!(world.keys().contains(&old));
    world.freeze("[]");
    world.run(request()).await.expect(Outcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_begins_between_two_tries_of_a_step_holds_the_second() {
    let world = World::new();
    world.consumer();
    let began = world.fake.state().now();
    let mut tried = false;
    let run = world
        .run_watched(RunId::random(), request(), &mut |state, _| {
            if state == "DeactivateKey" && !tried {
                tried = true;
                let mut state = world.fake.state();
                let (from, until) = (later(&state, Duration::from_secs(1)), later(&state, hours(2 * DAY)));
                let freezes = json!([{"from": from, "until": until, "reason": "a move"}]).to_string();
                state.parameters.insert("/keywheel/test/freeze".into(), freezes);
                state.plan = Plan::new([Fault::on("iam:UpdateAccessKey", Kind::ErrorBefore).times(4)]);
            }
            Control::Go
        })
        .await;
    run.expect(Outcome::Completed);
    world.assert_sound();
    let wrote = world.fake.state().calls.iter().rfind(|call| call.name == "iam:UpdateAccessKey").unwrap().at;
    assert!(wrote.duration_since(began).as_hours() >= 24 * 3, "made Inactive at {wrote}");
}

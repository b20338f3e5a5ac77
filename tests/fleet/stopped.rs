//! Campaigns that are stopped, repeated, or never told: no key is lost, and nobody is rotated twice.

use std::time::Duration;

use keywheel::Outcome;
use keywheel::campaign::Outcome as Ended;
use serde_json::json;
use support::estate::days;
use support::faults::{Fault, Kind, Plan};
use support::walker::Control;
use support::world::World;

use crate::all_due;

/// Fails the test unless each of these users was rotated, once, and has one key.
pub(crate) fn each_was_rotated_once(world: &World, users: usize, case: &str) {
    assert_eq!(world.promotions().len(), users, "{case}");
    for number in 0..users {
        let user = format!("svc-{number:02}");
        let state = world.fake.state();
        let keys = state.users[&user].keys.iter().filter(|key| key.exists()).count();
        assert_eq!(keys, 1, "{user}, {case}");
    }
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn a_campaign_that_is_stopped_anywhere_is_taken_up_by_the_next() {
    for stopped_at in
        ["Scan", "NotifyPlanned", "Batch", "StartRotation", "Settled", "Review", "NotifyOutcome"]
    {
        // The next one comes while the rotations of the first are in their overlap, or long after their end.
        for after in [Duration::from_mins(1), days(30)] {
            let case = format!("stopped at {stopped_at}, the next after {after:?}");
            let world = all_due(12);
            let (mut seen, mut is_stopped) = (0, false);
            let asked = [Duration::ZERO, after].map(|after| (after, json!({"reason": "scheduled"})));
            let all = world
                .campaigns(asked.into(), &mut |machine, state, _| {
                    if machine != "fleet" || state != stopped_at || is_stopped {
                        return Control::Go;
                    }
                    seen += 1;
                    // Not the first item: some of the batch are then on their way, and some are not.
                    is_stopped = seen == if state == "StartRotation" { 6 } else { 1 };
                    if is_stopped { Control::Stop } else { Control::Go }
                })
                .await;
            let [first, second] = &all[..] else { panic!("{} campaigns", all.len()) };
            assert_eq!(first.walk.status, "ABORTED", "{case}");
            second.expect(Ended::Done, if second.rotations.is_empty() { "NothingDue" } else { "AllBegun" });
            assert_eq!(first.rotations.len() + second.rotations.len(), 12, "{case}");
            for run in first.rotations.iter().chain(&second.rotations) {
                run.expect(Outcome::Completed);
            }
            each_was_rotated_once(&world, 12, &case);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_step_of_a_campaign_may_run_twice() {
    for twice in ["Scan", "NotifyPlanned", "StartRotation", "Review", "NotifyOutcome"] {
        let world = all_due(12);
        let mut states = Vec::new();
        let done = world
            .campaign_watched(json!({"reason": "scheduled"}), &mut |machine, state, _| {
                states.push(state.to_owned());
                if machine == "fleet" && state == twice { Control::Twice } else { Control::Go }
            })
            .await;
        assert!(states.iter().any(|state| state == twice), "{twice}");
        done.expect(Ended::Done, "AllBegun");
        assert_eq!((done.doc().done(), done.rotations.len()), ((12, 0), 12), "{twice}");
        for run in &done.rotations {
            run.expect(Outcome::Completed);
        }
        each_was_rotated_once(&world, 12, twice);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_made_once_more_while_it_is_carried_out_harms_no_key() {
    let world = all_due(12);
    // Scan's repeat comes when Review has failed once: ten users have promoted, and two are still due.
    world.fake.state().plan = Plan::new([Fault::within("Review", 0, Kind::KilledBefore)]);
    let done = world
        .campaign_watched(json!({"reason": "scheduled"}), &mut |machine, state, _| {
            if (machine, state) == ("fleet", "Scan") { Control::Late } else { Control::Go }
        })
        .await;
    // The late plan lies beside the one that is carried out, which goes on as it was made.
    done.expect(Ended::Done, "AllBegun");
    assert_eq!((done.doc().done(), world.fake.state().plan.fired()), ((12, 0), 1));
    let state = world.fake.state();
    let plans = state.objects.iter().filter(|object| object.key.ends_with("/plan.jsonl")).count();
    assert_eq!(plans, 2);
    drop(state);
    each_was_rotated_once(&world, 12, "a late plan");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_for_good_is_found_by_asking() {
    for kind in [Kind::Refused, Kind::ErrorBefore, Kind::TimeoutBefore] {
        let world = all_due(3);
        world.fake.state().plan = Plan::new([Fault::on("states:SendTaskSuccess", kind).for_good()]);
        let done = world.campaign(json!({"reason": "scheduled"})).await;
        done.expect(Ended::Done, "AllBegun");
        assert_eq!(done.doc().done(), (3, 0), "{kind:?}");
        // The machine has waited as long as it waits for anybody, and then asked.
        let (began, asked) = (done.entered("Batch")[0], done.entered("Review")[0]);
        assert!(asked.duration_since(began).as_hours() >= 2, "{kind:?}");
        for run in &done.rotations {
            run.expect(Outcome::Completed);
        }
        each_was_rotated_once(&world, 3, "lost answers");
    }
}

#[tokio::test(start_paused = true)]
async fn rotations_whose_start_nobody_heard_of_are_looked_at_until_they_have_promoted() {
    let world = all_due(3);
    // They take longer than the machine tries to start them.
    world.fake.state().options.valid_after = Duration::from_mins(4);
    world.fake.state().plan = Plan::new([Fault::on("states:StartExecution", Kind::LostAfter).for_good()]);
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Done, "AllBegun");
    assert_eq!((done.doc().done(), done.rotations.len()), ((3, 0), 3));
    let looks = done.entered("Settle").len();
    assert!((1..10).contains(&looks), "{looks}");
    each_was_rotated_once(&world, 3, "lost starts");
}

#[tokio::test(start_paused = true)]
async fn rotations_that_could_not_be_started_are_counted_and_touch_nothing() {
    let world = all_due(3);
    let before = world.current_keys();
    world.fake.state().plan = Plan::new([Fault::on("states:StartExecution", Kind::Refused).for_good()]);
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Stopped, "TooManyFailed");
    assert_eq!((done.doc().done(), done.rotations.len()), ((0, 3), 0));
    assert!(done.doc().failed.iter().all(|failed| failed.code == "NotStarted"), "{:?}", done.doc().failed);
    assert_eq!(world.current_keys(), before);
    // The next one takes them up.
    world.fake.state().plan = Plan::default();
    world.campaign(json!({"reason": "scheduled"})).await.expect(Ended::Done, "AllBegun");
    each_was_rotated_once(&world, 3, "refused starts");
}

#[tokio::test(start_paused = true)]
async fn a_review_that_fails_for_good_starts_nothing_more_and_says_so() {
    let world = all_due(12);
    world.fake.state().plan = Plan::new([Fault::within("Review", 0, Kind::Refused).for_good()]);
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Stopped, "Keywheel.Refused");
    assert_eq!((done.doc().waves[0].begun, done.rotations.len()), (1, 10));
    for run in &done.rotations {
        run.expect(Outcome::Completed);
    }
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_has_ended_and_cannot_tell_it_is_not_one_that_is_late() {
    let world = all_due(10);
    // Nobody hears of it: neither the machine that waits, nor the bus.
    world.fake.state().plan = Plan::new(
        ["states:SendTaskFailure", "events:PutEvents"].map(|name| Fault::on(name, Kind::Refused).for_good()),
    );
    let done = world
        .campaign_watched(json!({"reason": "scheduled"}), &mut |machine, state, _| {
            if (machine, state) == ("fleet", "Batch") {
                world.untag("svc-03", "user");
            }
            Control::Go
        })
        .await;
    done.expect(Ended::Done, "AllBegun");
    let [failed] = done.doc().failed.as_slice() else { panic!("{:?}", done.doc().failed) };
    assert_eq!((failed.whom.as_str(), failed.code.as_str()), ("svc-03", "NotMutual"));
    // It was still trying when it was counted.
    let run = done.rotations.iter().find(|run| run.id == failed.run).unwrap();
    let ended = run.expect(Outcome::Blocked).walk.history.last().unwrap().at;
    assert!(ended > done.entered("Review")[0], "{ended}");
    world.assert_all_sound();
}

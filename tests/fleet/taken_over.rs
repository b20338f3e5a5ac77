//! What rotations have left that ended half way, and campaigns that end it: whatever the age of the keys, once, and only
//! where it is ours.

use std::time::Duration;

use fastrand::Rng;
use keywheel::campaign::{Campaign, Outcome as Ended};
use keywheel::{Outcome, RunId};
use serde_json::{Value, json};
use support::campaign::Campaigned;
use support::estate::days;
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::walker::Control;
use support::world::{World, hours};

use crate::all_due;
use crate::stopped::each_was_rotated_once;

/// The user that these tests are about; none of its keys is due.
const ONE: &str = "svc-00";

fn one_user() -> World {
    let world = all_due(0);
    world.managed(ONE, &[40]);
    world
}

/// Rotates the user by name, and stops its rotation before it enters that state.
async fn stopped_at(world: &World, state: &str) -> Campaigned {
    let mut is_stopped = false;
    let asked = json!({"reason": "manual", "secrets": [ONE]});
    let first = world
        .campaign_watched(asked, &mut |machine, entered, _| {
            let stop = !is_stopped && (machine, entered) == ("rotation", state);
            is_stopped |= stop;
            if stop { Control::Stop } else { Control::Go }
        })
        .await;
    assert!(is_stopped, "no rotation came to {state}");
    assert_eq!(first.rotations[0].walk.status, "ABORTED", "{state}");
    first
}

/// The lines that a campaign's plan has of the user.
fn lines(world: &World, doc: &Campaign) -> Vec<Value> {
    let state = world.fake.state();
    let plan = state.object(&doc.plan()).unwrap().lines();
    let lines = plan.map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["user"] == ONE).collect()
}

fn codes(world: &World, doc: &Campaign) -> Vec<String> {
    lines(world, doc).iter().map(|line| line["code"].as_str().unwrap().to_owned()).collect()
}

/// Fails the test unless a campaign takes it over with this code, and its rotation comes to the end.
async fn is_taken_over(world: &World, by: RunId, code: &str, case: &str) {
    let next = world.campaign(json!({"reason": "scheduled"})).await;
    next.expect(Ended::Done, "AllBegun");
    let doc = next.doc();
    let lines = lines(world, doc);
    assert_eq!(lines[0]["code"], code, "{case}: {lines:?}");
    if code == "TakeOver" {
        assert!(lines[0]["why"].as_str().unwrap().contains(&by.to_string()), "{case}: {lines:?}");
    }
    let [run] = &next.rotations[..] else { panic!("{case}: {} rotations", next.rotations.len()) };
    run.expect(Outcome::Completed);
    let (promoted, retiring) = (doc.waves[0].promoted, doc.waves[0].retiring);
    assert_eq!((promoted, retiring), if code == "TakeOver" { (0, 1) } else { (1, 0) }, "{case}");
    each_was_rotated_once(world, 1, case);
    // Nothing is left for the one after it.
    world.fake.wait(days(1)).await;
    let last = world.campaign(json!({"reason": "scheduled"})).await;
    last.expect(Ended::Done, "NothingDue");
    assert_eq!(codes(world, last.doc()), ["NotDue"], "{case}");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_was_stopped_is_taken_over_where_it_stopped() {
    for (state, code) in [
        ("ValidateKey", "Reconcile"),
        ("PromoteKey", "Reconcile"),
        ("NotifyPromoted", "TakeOver"),
        ("Overlap", "TakeOver"),
        ("DeactivateKey", "TakeOver"),
        ("NotifyDeactivated", "TakeOver"),
        ("Grace", "TakeOver"),
        ("DeleteKey", "TakeOver"),
    ] {
        // The next day, and when the longest overlap has long passed: nothing ran in all that time.
        for after in [days(1), days(40)] {
            let world = one_user();
            let first = stopped_at(&world, state).await;
            world.fake.wait(after).await;
            is_taken_over(&world, first.rotations[0].id, code, &format!("{state}, after {after:?}")).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_over_gives_consumers_a_whole_overlap_and_people_a_whole_grace() {
    let world = one_user();
    stopped_at(&world, "Overlap").await;
    world.fake.wait(days(30)).await;
    let began = world.fake.state().now();
    let next = world.campaign(json!({"reason": "scheduled"})).await;
    let doc = next.rotations[0].expect(Outcome::Completed).doc();
    let (taken, off) = (doc.promoted_at.unwrap(), doc.disabled_at.unwrap());
    assert!(taken >= began);
    assert!(off.duration_since(taken).as_hours() >= 24, "{off}");
    let ended = next.rotations[0].walk.history.iter().find(|entered| entered.state == "DeleteKey").unwrap();
    assert!(ended.at.duration_since(off).as_hours() >= 7 * 24, "{}", ended.at);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_a_broken_stack_has_ended_is_taken_over_as_well() {
    let world = one_user();
    world.fake.state().plan = Plan::new([Fault::within("DeactivateKey", 0, Kind::Refused).for_good()]);
    let first = world.campaign(json!({"secrets": [ONE]})).await;
    let run = first.rotations[0].expect(Outcome::Held);
    assert_eq!(run.why(), "Keywheel.Refused");
    world.fake.state().plan = Plan::default();
    world.fake.wait(days(1)).await;
    is_taken_over(&world, run.id, "TakeOver", "a refused DeactivateKey").await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_still_used_stays_with_the_person_whom_the_run_has_asked() {
    let world = one_user();
    let old = world.current_keys()[ONE].clone();
    world.fake.state().keep_using(&old, "s3", hours(1), days(30));
    let first = world.campaign(json!({"secrets": [ONE]})).await;
    assert_eq!(first.rotations[0].expect(Outcome::Held).why(), "StillInUse");
    let before = world.writes_on(ONE);
    for _ in 0..3 {
        world.fake.wait(days(1)).await;
        let next = world.campaign(json!({"reason": "scheduled"})).await;
        next.expect(Ended::Done, "NothingDue");
        let lines = lines(&world, next.doc());
        assert_eq!(lines[0]["code"], "Held", "{lines:?}");
        assert!(lines[0]["why"].as_str().unwrap().contains("keywheel resume"), "{lines:?}");
    }
    assert_eq!(world.writes_on(ONE), before);
    // Whoever resumes it and is stopped has decided.
    let resumed = stopped_at(&world, "Overlap").await;
    world.fake.wait(days(30)).await;
    is_taken_over(&world, resumed.rotations[0].id, "TakeOver", "resumed, and stopped").await;
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_cloudtrail_attributes_is_cleared_and_a_strangers_key_starts_no_run() {
    let world = one_user();
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
    let first = stopped_at(&world, "RollBack").await;
    assert_eq!(world.promotions().len(), 0);
    world.fake.state().plan = Plan::default();
    world.fake.wait(days(1)).await;
    is_taken_over(&world, first.rotations[0].id, "Reconcile", "an orphan").await;

    let world = one_user();
    let stranger = world.fake.state().add_key(ONE, Maker::Stranger);
    for _ in 0..2 {
        world.fake.wait(days(1)).await;
        let next = world.campaign(json!({"reason": "scheduled"})).await;
        next.expect(Ended::Done, "NothingDue");
        assert_eq!((next.rotations.len(), codes(&world, next.doc())), (0, vec!["NotDue".to_owned()]));
    }
    let asked = world.fake.call_names().iter().filter(|name| *name == "cloudtrail:LookupEvents").count();
    assert_eq!(asked, 2, "once for each campaign");
    assert!(world.fake.state().key(&stranger).unwrap().1.is_active());
    assert_eq!(world.writes_on(ONE), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn limits_freezes_and_exemptions_hold_for_what_is_taken_over() {
    let exempt = json!({"exemptions": [
        {"user": ONE, "owner": "b@example.com", "reason": "a fair", "until": "2026-12-31"},
    ]});
    let frozen = json!({"limits": {"freeze": [
        {"from": "2026-01-01T00:00:00Z", "until": "2026-03-01T00:00:00Z", "reason": "a fair"},
    ]}});
    let full = json!({
        "rules": [{"name": "first", "match": {"user": "old"}, "set": {"wave": 0}}],
        "limits": {"keys_per_run": 1},
    });
    for (policy, code) in [(exempt, "Exempt"), (frozen, "Frozen"), (full, "Limit")] {
        let world = one_user();
        stopped_at(&world, "Overlap").await;
        if code == "Limit" {
            world.managed("old", &[300]);
        }
        world.push_policy(policy);
        world.fake.wait(days(1)).await;
        let before = world.writes_on(ONE);
        let next = world.campaign(json!({"reason": "scheduled"})).await;
        assert_eq!(codes(&world, next.doc()), [code]);
        assert_eq!(world.writes_on(ONE), before, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn runs_under_way_are_told_from_two_lists_and_nobody_is_asked_for_them() {
    let world = all_due(12);
    let asked = [Duration::ZERO, days(2)].map(|after| (after, json!({"reason": "scheduled"})));
    let mut before = 0;
    let all = world
        .campaigns(asked.into(), &mut |machine, state, _| {
            if (machine, state) == ("fleet", "Scan") {
                before = world.fake.state().calls.len();
            }
            Control::Go
        })
        .await;
    let second = all[1].expect(Ended::Done, "NothingDue").doc();
    let state = world.fake.state();
    let of_scan: Vec<&str> = state.calls[before..]
        .iter()
        .filter(|call| call.function.as_deref() == Some("scan"))
        .map(|call| call.name.as_str())
        .collect();
    for by_name in ["iam:GetUser", "iam:ListAccessKeys", "states:DescribeExecution"] {
        assert!(!of_scan.contains(&by_name), "{of_scan:?}");
    }
    // Other campaigns, and the rotations that run.
    assert_eq!(of_scan.iter().filter(|name| **name == "states:ListExecutions").count(), 2, "{of_scan:?}");
    drop(state);
    let plan = world.fake.state().object(&second.plan()).unwrap().to_owned();
    assert_eq!(plan.matches("\"RunInProgress\"").count(), 12, "{plan}");
}

#[tokio::test(start_paused = true)]
async fn where_it_cannot_be_read_what_runs_nothing_is_taken_over_and_it_is_said() {
    for denied in ["states:ListExecutions", "states:DescribeExecution"] {
        let world = one_user();
        stopped_at(&world, "Overlap").await;
        world.fake.wait(days(1)).await;
        let (estate, plan) = {
            world.fake.state().denied.insert(denied.to_owned());
            crate::plan(&world.fake, &crate::policy(json!({}))).await.unwrap()
        };
        assert_eq!(crate::users(&plan, keywheel::fleet::plan::Action::Rotate), [""; 0], "{denied}");
        let unread: Vec<&str> =
            plan.lines.iter().filter(|line| line.is_unread()).map(|line| line.code).collect();
        let expected = if denied == "states:ListExecutions" { "RunsUnread" } else { "Unread" };
        assert_eq!(unread, [expected], "{denied}");
        assert_eq!(estate.running.is_none(), expected == "RunsUnread");
    }
}

#[tokio::test(start_paused = true)]
async fn two_secrets_of_one_user_are_found_and_a_run_of_either_is_blocked() {
    let world = one_user();
    {
        let mut state = world.fake.state();
        let mut second = state.secret(ONE).clone();
        second.name = "svc-too".into();
        second.arn = second.arn.replace(ONE, "svc-too");
        state.secrets.push(second);
    }
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Done, "NothingDue");
    let lines = lines(&world, done.doc());
    assert_eq!(lines[0]["code"], "TwoManagedSecrets", "{lines:?}");
    assert!(lines[0]["why"].as_str().unwrap().contains("svc-too"), "{lines:?}");
    world.run(json!({"secret": ONE})).await.expect_blocked("TwoManagedSecrets");
    // The user names the first.
    world.run(json!({"secret": "svc-too"})).await.expect_blocked("NotMutual");
    assert_eq!(world.promotions().len(), 0);
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn five_stops_at_any_moment_lose_no_key_and_double_none() {
    for seed in 1..=16 {
        let world = all_due(6);
        let (mut rng, mut stops) = (Rng::with_seed(seed), 0);
        let first = world
            .campaign_watched(json!({"reason": "scheduled"}), &mut |_, _, _| {
                if stops < 5 && rng.u8(..12) == 0 {
                    stops += 1;
                    return Control::Stop;
                }
                Control::Go
            })
            .await;
        let aborted = first.rotations.iter().filter(|run| run.walk.status == "ABORTED").count();
        let mut campaigns = 0;
        loop {
            world.fake.wait(days(1)).await;
            let next = world.campaign(json!({"reason": "scheduled"})).await;
            for run in &next.rotations {
                run.expect(Outcome::Completed);
            }
            if next.why() == "NothingDue" {
                break;
            }
            next.expect(Ended::Done, "AllBegun");
            campaigns += 1;
            assert!(campaigns < 4, "seed {seed}: it does not come to an end");
        }
        let case = format!("seed {seed}, {stops} stops, {aborted} rotations aborted");
        each_was_rotated_once(&world, 6, &case);
        assert!(stops > 0, "{case}");
    }
}

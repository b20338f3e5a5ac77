//! What a campaign leaves alone: beyond its limits, exempt, frozen, switched off, or refused as a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use keywheel::Outcome;
use keywheel::campaign::Outcome as Ended;
use serde_json::{Value, json};
use support::campaign::Campaigned;
use support::estate::days;
use support::walker::Control;
use support::world::World;

use crate::all_due;

/// The users of [`all_due`] that a campaign has rotated. Of all others nothing was written.
fn rotated(world: &World, users: usize) -> Vec<usize> {
    let promoted: BTreeSet<String> = world.promotions().into_keys().collect();
    let (touched, untouched): (Vec<usize>, Vec<usize>) =
        (0..users).partition(|number| promoted.contains(&format!("svc-{number:02}")));
    for number in untouched {
        assert_eq!(world.writes_on(&format!("svc-{number:02}")), [""; 0]);
    }
    touched
}

/// Fails the test unless the campaign started nothing, ended so, and wrote nothing but its own objects.
fn nothing_done(world: &World, users: usize, done: &Campaigned, outcome: Ended, code: &str) {
    done.expect(outcome, code);
    assert_eq!((rotated(world, users), done.rotations.len()), (Vec::new(), 0), "{code}");
    let starts = world.fake.call_names().iter().filter(|name| *name == "states:StartExecution").count();
    assert_eq!(starts, 0, "{code}");
    assert!(!done.walk.states().contains(&"Batch"), "{code}");
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn a_run_rotates_as_many_as_the_policy_allows_and_the_oldest_first() {
    let world = all_due(6);
    world.managed("svc-06", &[400]);
    world.push_policy(json!({"limits": {"keys_per_run": 3}}));
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Done, "AllBegun");
    assert_eq!(rotated(&world, 7), [0, 1, 6]);
    assert_eq!(world.planned(done.doc(), "rotate").len(), 3);
    // Those that were left are in the next one.
    world.campaign(json!({})).await.expect(Ended::Done, "AllBegun");
    assert_eq!(rotated(&world, 7), [0, 1, 2, 3, 4, 6]);
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn more_secrets_than_the_policy_allows_are_refused_together() {
    let world = all_due(3);
    world.push_policy(json!({"limits": {"keys_per_run": 2}}));
    let done = world.campaign(json!({"secrets": ["svc-00", "svc-01", "svc-02"]})).await;
    nothing_done(&world, 3, &done, Ended::Refused, "Limit");
}

#[tokio::test(start_paused = true)]
async fn who_is_exempt_is_not_touched_until_the_day_has_passed() {
    let world = all_due(3);
    world.push_policy(json!({
        "exemptions": [{"user": "svc-01", "owner": "b@example.com", "reason": "a fair", "until": "2026-01-31"}],
    }));
    world.campaign(json!({"reason": "scheduled"})).await.expect(Ended::Done, "AllBegun");
    assert_eq!(rotated(&world, 3), [0, 2]);
    world.fake.wait(days(30)).await;
    world.campaign(json!({"reason": "scheduled"})).await.expect(Ended::Done, "AllBegun");
    assert_eq!(rotated(&world, 3), [0, 1, 2]);
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_only_told_where_nothing_is_to_be_started() {
    for (mode, input, outcome, code) in [
        ("live", json!({"dry_run": true}), Ended::Planned, "DryRun"),
        ("live", json!({"dry_run": true, "secrets": ["svc-01"]}), Ended::Planned, "DryRun"),
        ("paused", json!({"dry_run": true}), Ended::Planned, "DryRun"),
        ("dry-run", json!({}), Ended::Planned, "ModeIsDryRun"),
        ("nonsense", json!({}), Ended::Planned, "ModeIsDryRun"),
        ("paused", json!({}), Ended::Refused, "Paused"),
    ] {
        let world = all_due(3);
        world.mode(mode);
        let done = world.campaign(input).await;
        nothing_done(&world, 3, &done, outcome, code);
        // What would have been done can be read.
        let planned = world.planned(done.doc(), "rotate");
        assert_eq!(planned.len(), done.doc().keys(), "{mode}");
        assert!(planned.contains("svc-01"), "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_has_pushed_a_policy_the_schedule_starts_nothing_and_people_do() {
    let world = World::new();
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    nothing_done(&world, 0, &done, Ended::Planned, "NoPolicy");
    assert_eq!((done.doc().keys(), done.doc().policy_version.as_ref()), (1, None));
    let done = world.campaign(json!({"reason": "manual"})).await;
    assert_eq!(done.expect(Ended::Done, "AllBegun").doc().done(), (1, 0));
    world.assert_all_sound();
}

fn freeze(from: &str, until: &str) -> Value {
    json!({"limits": {"freeze": [{"from": from, "until": until, "reason": "year end"}]}})
}

#[tokio::test(start_paused = true)]
async fn in_a_freeze_nothing_is_started_even_what_is_named() {
    for input in [json!({"reason": "scheduled"}), json!({"secrets": ["svc-00"]})] {
        let world = all_due(3);
        world.push_policy(freeze("2026-01-01T00:00:00Z", "2026-01-06T00:00:00Z"));
        let done = world.campaign(input).await;
        nothing_done(&world, 3, &done, Ended::Refused, "Frozen");
        assert!(done.doc().why.as_ref().unwrap().text.contains("year end"));
        // The day after it is as if it had not been.
        world.fake.wait(days(1)).await;
        world.campaign(json!({})).await.expect(Ended::Done, "AllBegun");
        assert_eq!(rotated(&world, 3), [0, 1, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_begins_between_two_batches_stops_before_the_next() {
    // When the two batches begin where nothing is frozen: time is the same in every world.
    let world = all_due(15);
    let done = world.campaign(json!({})).await;
    let [first, second] = done.entered("Batch")[..] else { panic!("{:?}", done.walk.states()) };
    assert_eq!(done.doc().done(), (15, 0));
    let between = first + second.duration_since(first) / 2;

    let world = all_due(15);
    world.push_policy(freeze(&between.to_string(), "2026-01-06T00:00:00Z"));
    let done = world.campaign(json!({})).await;
    done.expect(Ended::Stopped, "Frozen");
    assert_eq!((done.doc().done(), done.doc().waves[0].begun), ((10, 0), 1));
    assert_eq!(rotated(&world, 15).len(), 10);
    for run in &done.rotations {
        run.expect(Outcome::Completed);
    }
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_is_turned_between_two_batches_stops_before_the_next() {
    for mode in ["paused", "dry-run"] {
        let world = all_due(12);
        let done = world
            .campaign_watched(json!({}), &mut |machine, state, _| {
                match (machine, state) {
                    ("fleet", "Review") => world.mode(mode),
                    // The rotations under way need it to go on.
                    ("fleet", "Ended") => world.mode("live"),
                    _ => {}
                }
                Control::Go
            })
            .await;
        done.expect(Ended::Stopped, "SwitchedOff");
        assert_eq!((done.doc().done(), rotated(&world, 12).len()), ((10, 0), 10), "{mode}");
        world.assert_all_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_with_a_mistake_starts_nothing_at_all() {
    for text in [
        "no json",
        "[]",
        "{\"limits\": {\"keys_per_run\": 0}}",
        "{\"limit\": {}}",
        "{\"defaults\": {\"max_age\": \"10d\"}}",
    ] {
        let world = all_due(3);
        world.push_policy_text(text);
        let done = world.campaign(json!({"reason": "scheduled"})).await;
        nothing_done(&world, 3, &done, Ended::Refused, "BadPolicy");
        // Nobody was even asked who is due.
        let iam = world.fake.call_names().iter().filter(|name| name.starts_with("iam:")).count();
        assert_eq!(iam, 0, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_of_the_policy_that_the_request_names_holds_whatever_was_pushed_since() {
    let world = all_due(5);
    let one = world.push_policy(json!({"limits": {"keys_per_run": 1}}));
    world.push_policy(json!({"limits": {"keys_per_run": 4}}));
    let done = world.campaign(json!({"policy_version": "policy-unknown"})).await;
    nothing_done(&world, 5, &done, Ended::Refused, "NoSuchPolicy");
    let done = world.campaign(json!({"policy_version": one})).await;
    assert_eq!(done.expect(Ended::Done, "AllBegun").doc().policy_version.as_deref(), Some(one.as_str()));
    assert_eq!(rotated(&world, 5).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_input_that_nobody_understands_starts_nothing_and_fails_by_name() {
    for input in [json!({"secret": "svc-00"}), json!({"secrets": "svc-00"}), json!({"reason": "because"})] {
        let world = all_due(2);
        let done = world.campaign(input).await;
        let error = done.walk.error.as_ref().map(|failure| failure.error.as_str());
        assert_eq!((done.walk.status, error), ("FAILED", Some("Keywheel.NotScanned")));
        assert_eq!((rotated(&world, 2), done.rotations.len()), (Vec::new(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_campaign_beside_a_first_is_refused() {
    let world = all_due(4);
    // The first one's batch takes more than a minute.
    world.fake.state().options.valid_after = Duration::from_mins(1);
    let asked = [0, 30].map(|after| (Duration::from_secs(after), json!({"reason": "scheduled"})));
    let all = world.campaigns(asked.into(), &mut |_, _, _| Control::Go).await;
    let [first, second] = &all[..] else { panic!("{} campaigns", all.len()) };
    assert_eq!(first.expect(Ended::Done, "AllBegun").doc().done(), (4, 0));
    second.expect(Ended::Refused, "CampaignInProgress");
    assert!(second.doc().why.as_ref().unwrap().text.contains(&first.id.to_string()));
    assert_eq!(second.rotations.len(), 0);
    world.assert_all_sound();
}

/// Takes every campaign out of the list of those that run.
fn hide_campaigns(world: &World) {
    let mut state = world.fake.state();
    for execution in state.executions.values_mut().filter(|execution| execution.arn.contains("-fleet:")) {
        "SUCCEEDED".clone_into(&mut execution.status);
    }
}

#[tokio::test(start_paused = true)]
async fn two_campaigns_that_do_not_see_each_other_rotate_nobody_twice() {
    // Step Functions' list shows an execution late: each is told that it is alone.
    for after in [0, 1, 3, 4, 5] {
        let world = all_due(4);
        let asked = [0, after].map(|after| (Duration::from_secs(after), json!({"reason": "scheduled"})));
        let all = world
            .campaigns(asked.into(), &mut |machine, state, _| {
                if (machine, state) == ("fleet", "Scan") {
                    hide_campaigns(&world);
                }
                Control::Go
            })
            .await;
        assert!(all.iter().all(|done| done.walk.status == "SUCCEEDED"));
        assert!(all.iter().any(|done| done.doc().done().0 > 0), "{after}");
        assert_eq!(rotated(&world, 4), [0, 1, 2, 3], "{after}");
        for number in 0..4 {
            let user = format!("svc-{number:02}");
            let state = world.fake.state();
            let keys = state.users[&user].keys.iter().filter(|key| key.exists()).count();
            assert_eq!(keys, 1, "{user}, {after}");
        }
        world.assert_all_sound();
    }
}

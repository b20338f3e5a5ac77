//! Campaigns that nothing stops: whom they rotate, in which order, and what they say of it.

use std::collections::{BTreeMap, BTreeSet};

use keywheel::campaign::Outcome as Ended;
use keywheel::notice::NoticeKind;
use keywheel::{Outcome, RunId};
use serde_json::json;
use support::campaign::is_promotion;
use support::estate::days;
use support::figures::say;
use support::walker::Control;

use crate::{all_due, of_250_users};

#[tokio::test(start_paused = true)]
async fn of_250_users_exactly_the_due_are_rotated_and_the_plan_says_who() {
    let world = of_250_users();
    world.push_policy(json!({}));
    let before = world.current_keys();
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Done, "AllBegun");
    let doc = done.doc();
    let after = world.current_keys();
    let changed = before.iter().filter(|(user, key)| after[*user] != **key);
    let changed: BTreeSet<String> = changed.map(|(user, _)| user.clone()).collect();
    assert_eq!(changed.len(), 39);
    assert_eq!(world.planned(doc, "rotate"), changed);
    assert_eq!((doc.counts.users, doc.counts.rotate, doc.counts.unread), (250, 39, 0));
    assert_eq!((doc.done(), doc.failed.len()), ((39, 0), 0));
    // Each run is the one that the plan's batch names, and came to its end long after the campaign did.
    let batches = world.batches(doc);
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10, 9]);
    let named: BTreeSet<RunId> = batches.iter().flatten().map(|item| item.run).collect();
    assert_eq!(done.rotations.iter().map(|run| run.id).collect::<BTreeSet<_>>(), named);
    for run in &done.rotations {
        run.expect(Outcome::Completed);
    }
    world.assert_all_sound();
    // The document fits into a state however many users there are.
    assert!(done.walk.output.to_string().len() < 4_000, "{}", done.walk.output.to_string().len());
    let told = |kind: NoticeKind| doc.notices.iter().filter(|notice| notice.kind == kind).count();
    assert_eq!((told(NoticeKind::Planned), told(NoticeKind::Ended)), (1, 1));
    let calls = world.calls_by_function();
    let took = done.entered("Ended")[0].duration_since(doc.started);
    say(&format!(
        "fleet: a campaign over 250 users, {} due, took {took:#}: {} calls of scan, {} of review, {} in all until every rotation had ended",
        doc.keys(),
        calls["scan"],
        calls["review"],
        calls.values().sum::<usize>()
    ));
    // The report is asked for twice and fetched once; of a user that may be due its tags, its keys and what its secret
    // holds are asked for. Then come the other campaigns, the policy, the switch, the plan and the batches.
    let looked_at = 39 + 3;
    // Two of them have two keys: which rotations run is asked once, and of each its labels, the version before, the run
    // that the current one may be of, and whether the other key has leaked.
    let two_keys = 1 + 2 * 4;
    assert_eq!(calls["scan"], 3 + 249_usize.div_ceil(37) + 3 * looked_at + two_keys + 3 + 1 + batches.len());
    // Each run and its secret are asked for once; each batch has its items, the switch and its results. Last of all comes
    // the outcome.
    assert_eq!(calls["review"], 2 * 39 + 3 * batches.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn the_canary_goes_first_and_nobody_follows_before_all_of_it_have_promoted() {
    let world = all_due(12);
    for number in 0..3 {
        world.managed(&format!("canary-{number}"), &[95]);
    }
    let version = world.push_policy(json!({
        "rules": [{"name": "canary", "match": {"user": "canary-*"}, "set": {"wave": 0}}],
    }));
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Done, "AllBegun");
    let doc = done.doc();
    assert_eq!(doc.policy_version, Some(version));
    let waves: Vec<_> =
        doc.waves.iter().map(|wave| (wave.wave, wave.keys, wave.batches, wave.promoted)).collect();
    assert_eq!(waves, [(0, 3, 1, 3), (1, 12, 2, 12)]);
    {
        let state = world.fake.state();
        let of = |name: &'static str| move |text: &str| text.contains(&format!("secret:{name}-"));
        let (canary, other) = (of("canary"), of("svc"));
        let promoted =
            state.calls.iter().rposition(|call| is_promotion(call) && canary(&call.params.to_string()));
        let started = state
            .calls
            .iter()
            .position(|call| call.name == "states:StartExecution" && other(&call.params.to_string()));
        assert!(promoted.unwrap() < started.unwrap(), "{promoted:?}, {started:?}");
    }
    // The terms of the policy are those of each run.
    for run in &done.rotations {
        assert_eq!(run.expect(Outcome::Completed).doc().policy, keywheel::policy::Policy::default());
    }
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn a_wave_in_which_one_in_five_fails_is_the_last() {
    let world = all_due(10);
    for number in 0..4 {
        world.managed(&format!("late-{number}"), &[300]);
    }
    world.push_policy(json!({
        "rules": [{"name": "late", "match": {"user": "late-*"}, "set": {"wave": 2}}],
    }));
    let before = world.current_keys();
    // Between the plan and the batch somebody takes two users out of Keywheel's hands.
    let unlucky = ["svc-03", "svc-07"];
    let done = world
        .campaign_watched(json!({"reason": "scheduled"}), &mut |machine, state, _| {
            if (machine, state) == ("fleet", "Batch") {
                for user in unlucky {
                    world.untag(user, "user");
                }
            }
            Control::Go
        })
        .await;
    done.expect(Ended::Stopped, "TooManyFailed");
    let doc = done.doc();
    let waves: Vec<_> =
        doc.waves.iter().map(|wave| (wave.wave, wave.begun, wave.promoted, wave.failed)).collect();
    assert_eq!(waves, [(1, 1, 8, 2), (2, 0, 0, 0)]);
    // Each that failed is named, with what its own run said.
    let failed: BTreeMap<&str, &str> =
        doc.failed.iter().map(|failed| (failed.whom.as_str(), failed.code.as_str())).collect();
    assert_eq!(failed.keys().copied().collect::<Vec<_>>(), unlucky);
    let summary = doc.notices.iter().find(|notice| notice.kind == NoticeKind::Ended).unwrap();
    for run in done.rotations.iter().filter(|run| run.outcome() == Some(Outcome::Blocked)) {
        assert!(failed.values().any(|code| *code == run.why()), "{failed:?}");
    }
    for user in unlucky {
        assert!(summary.text.contains(user), "{}", summary.text);
    }
    // The wave behind it was looked at, and no more.
    for number in 0..4 {
        assert_eq!(world.writes_on(&format!("late-{number}")), [""; 0]);
    }
    // Those that were on their way went on by themselves.
    let completed = done.rotations.iter().filter(|run| run.outcome() == Some(Outcome::Completed)).count();
    assert_eq!((completed, done.rotations.len()), (8, 10));
    let after = world.current_keys();
    for user in before.keys().filter(|user| unlucky.contains(&user.as_str()) || user.starts_with("late-")) {
        assert_eq!(before[user], after[user], "{user}");
    }
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn one_in_ten_may_fail_and_the_next_wave_has_its_turn() {
    let world = all_due(10);
    world.managed("late-0", &[300]);
    world.push_policy(json!({
        "rules": [{"name": "late", "match": {"user": "late-*"}, "set": {"wave": 2}}],
    }));
    let done = world
        .campaign_watched(json!({}), &mut |machine, state, _| {
            if (machine, state) == ("fleet", "Batch") {
                world.untag("svc-05", "user");
            }
            Control::Go
        })
        .await;
    done.expect(Ended::Done, "AllBegun");
    let doc = done.doc();
    assert_eq!(doc.done(), (10, 1));
    assert_eq!((doc.waves[1].promoted, doc.failed[0].whom.as_str()), (1, "svc-05"));
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn of_secrets_that_are_named_each_has_its_own_run_and_its_own_end() {
    // None of them is due.
    let world = all_due(0);
    world.managed("svc-a", &[5]);
    world.managed("svc-b", &[6]);
    world.managed("svc-c", &[7]);
    let arn = world.fake.state().secret("svc-b").arn.clone();
    let asked = json!({"reason": "manual", "secrets": ["svc-a", "app/nobody", arn, "svc-b"]});
    let done = world.campaign(asked).await;
    let doc = done.doc();
    assert_eq!(done.walk.status, "SUCCEEDED");
    assert!(matches!(doc.outcome, Some(Ended::Done | Ended::Stopped)), "{:?}", doc.why);
    assert_eq!((doc.keys(), doc.done()), (3, (2, 1)));
    let [failed] = doc.failed.as_slice() else { panic!("{:?}", doc.failed) };
    assert_eq!((failed.whom.as_str(), failed.code.as_str()), ("app/nobody", "NoSuchSecret"));
    let mut ends: Vec<_> = done.rotations.iter().map(|run| (run.outcome(), run.why())).collect();
    ends.sort_by_key(|(_, why)| *why == "NoSuchSecret");
    let outcomes: Vec<_> = ends.iter().map(|(outcome, _)| *outcome).collect();
    assert_eq!(outcomes, [Some(Outcome::Completed), Some(Outcome::Completed), Some(Outcome::Blocked)]);
    assert_eq!(ends[2].1, "NoSuchSecret");
    assert_eq!(world.promotions().keys().collect::<Vec<_>>(), ["svc-a", "svc-b"]);
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn the_next_campaign_finds_nothing_due_and_the_one_after_ninety_days_all_of_it() {
    let world = all_due(3);
    world.campaign(json!({})).await.expect(Ended::Done, "AllBegun");
    world.campaign(json!({})).await.expect(Ended::Done, "NothingDue");
    assert_eq!(world.promotions().len(), 3);
    world.fake.wait(days(91)).await;
    let third = world.campaign(json!({})).await;
    // The world's own user among them, whose key was ten days old at first.
    assert_eq!(third.expect(Ended::Done, "AllBegun").doc().done(), (4, 0));
    world.assert_promises();
}

//! Campaigns over several accounts: each is read and rotated by itself, and one that fails touches no other.

use std::collections::{BTreeMap, BTreeSet};

use keywheel::campaign::{Campaign, Outcome as Ended};
use keywheel::fleet::warned::{WARNINGS, Warnings};
use keywheel::{Outcome, RunId};
use serde_json::{Value, json};
use support::estate::days;
use support::fake::Maker;
use support::faults::{Fault, Kind, Plan};
use support::walker::Control;
use support::world::{Run, World};

use crate::all_due;

const OPEN: &str = "444455556666";
const SHUT: &str = "777788889999";

/// Two users who are due in the hub's account, two in one that lets the hub in, and two in one that does not.
fn three_accounts() -> World {
    let world = all_due(2);
    for number in 0..2 {
        world.managed_in(OPEN, &format!("open-{number}"), &[120]);
        world.managed_in(SHUT, &format!("shut-{number}"), &[120]);
    }
    world.fake.state().open.remove(SHUT);
    world.push_policy(json!({"accounts": [OPEN, SHUT]}));
    world
}

/// The secrets whose keys were rotated.
fn rotated(world: &World) -> BTreeSet<String> {
    world.promotions().into_keys().collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What was called in another account.
fn calls_in(world: &World, account: &str) -> Vec<String> {
    let state = world.fake.state();
    let there = state.calls.iter().filter(|call| state.account_of_signer(&call.signer) == Some(account));
    there.map(|call| call.name.clone()).collect()
}

/// Whether all of these only read.
fn only_read(calls: &[String]) -> bool {
    let reads = ["Get", "List", "Describe", "Generate"];
    calls.iter().all(|call| reads.iter().any(|read| call.contains(&format!(":{read}"))))
}

/// The lines of a campaign's plan.
fn plan(world: &World, doc: &Campaign) -> Vec<Value> {
    let state = world.fake.state();
    let plan = state.object(&doc.plan()).unwrap_or_default();
    plan.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The account that could not be read, and what the plan says of it.
fn unread(world: &World, doc: &Campaign) -> (String, String) {
    let lines = plan(world, doc);
    let found: Vec<&Value> = lines.iter().filter(|line| line["code"] == "AccountUnread").collect();
    let [line] = found[..] else { panic!("{lines:?}") };
    assert_eq!((&line["action"], &line["user"]), (&json!("find"), &json!("")));
    let text = |field: &str| line[field].as_str().unwrap().to_owned();
    (text("account"), text("why"))
}

#[tokio::test(start_paused = true)]
async fn of_three_accounts_two_are_done_wholly_and_the_one_that_is_shut_is_told_and_untouched() {
    let world = three_accounts();
    let before = world.current_keys();
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Done, "AllBegun");
    let doc = done.doc();
    assert_eq!(rotated(&world), names(&["open-0", "open-1", "svc-00", "svc-01"]));
    assert_eq!((doc.counts.users, doc.counts.rotate, doc.counts.unread), (5, 4, 1));
    assert_eq!((doc.done(), doc.failed.len(), done.rotations.len()), ((4, 0), 0, 4));
    for run in &done.rotations {
        run.expect(Outcome::Completed);
    }
    // Each line says whose user it is, and each run follows from its secret's ARN.
    let runs: BTreeSet<RunId> = done.rotations.iter().map(|run| run.id).collect();
    let child = |name: &str| doc.campaign.child(&world.fake.state().secret(name).arn);
    let follow: BTreeSet<RunId> = ["svc-00", "svc-01", "open-0", "open-1"].map(child).into();
    assert_eq!(runs, follow);
    let accounts: BTreeMap<String, String> = plan(&world, doc)
        .iter()
        .filter(|line| line["action"] == "rotate")
        .map(|line| (line["user"].as_str().unwrap().into(), line["account"].as_str().unwrap().into()))
        .collect();
    let own = world.fake.state().account.clone();
    let of = |user: &str| if user.starts_with("open-") { OPEN.to_owned() } else { own.clone() };
    assert!(
        accounts.len() == 4 && accounts.iter().all(|(user, account)| *account == of(user)),
        "{accounts:?}"
    );
    // What could not be read is told, by the plan and to people.
    let (account, why) = unread(&world, doc);
    assert!(account == SHUT && why.contains("AccessDenied"), "{account}: {why}");
    assert!(doc.notices.iter().any(|notice| notice.text.contains("1 could not be read")));
    assert_eq!(calls_in(&world, SHUT), [""; 0]);
    let after = world.current_keys();
    for user in ["shut-0", "shut-1"] {
        assert_eq!(before[user], after[user]);
        assert_eq!(world.writes_on(user), [""; 0]);
    }
    world.assert_all_sound();
    // Once it opens, the next campaign does it too, and nobody twice.
    world.lets_in(SHUT);
    let next = world.campaign(json!({"reason": "scheduled"})).await;
    next.expect(Ended::Done, "AllBegun");
    assert_eq!((next.doc().done(), next.doc().counts.unread), ((2, 0), 0));
    assert_eq!(rotated(&world).len(), 6);
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_throttled_or_does_not_answer_is_skipped_and_the_others_are_done() {
    for kind in [Kind::Refused, Kind::Throttled, Kind::LostBefore, Kind::ErrorBefore, Kind::TimeoutBefore] {
        let world = all_due(2);
        world.managed_in(OPEN, "open-0", &[120]);
        world.push_policy(json!({"accounts": [OPEN]}));
        world.fake.state().plan = Plan::new([Fault::on("sts:AssumeRole", kind).times(3)]);
        let done = world.campaign(json!({"reason": "scheduled"})).await;
        done.expect(Ended::Done, "AllBegun");
        assert_eq!(rotated(&world), names(&["svc-00", "svc-01"]), "{kind:?}");
        assert_eq!(unread(&world, done.doc()).0, OPEN);
        assert_eq!(calls_in(&world, OPEN), [""; 0], "{kind:?}");
        world.fake.state().plan = Plan::default();
        world.assert_all_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_shuts_before_its_rotations_blocks_them_and_nothing_there_is_touched() {
    let world = three_accounts();
    let done = world
        .campaign_watched(json!({"reason": "scheduled"}), &mut |machine, state, _| {
            if (machine, state) == ("fleet", "Batch") {
                world.fake.state().open.remove(OPEN);
            }
            Control::Go
        })
        .await;
    assert_eq!(rotated(&world), names(&["svc-00", "svc-01"]));
    let blocked = done.rotations.iter().filter(|run| run.outcome() == Some(Outcome::Blocked));
    let blocked: Vec<&str> = blocked.map(Run::why).collect();
    assert_eq!(blocked, ["AccountNotEntered"; 2]);
    assert_eq!((done.doc().done(), done.doc().failed.len()), ((2, 2), 2));
    assert!(done.doc().failed.iter().all(|failed| failed.code == "AccountNotEntered"));
    let calls = calls_in(&world, OPEN);
    assert!(!calls.is_empty() && only_read(&calls), "{calls:?}");
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_due_of_what_could_be_read_an_account_that_is_shut_is_no_success() {
    let world = all_due(0);
    world.managed_in(SHUT, "shut-0", &[120]);
    world.fake.state().open.clear();
    world.push_policy(json!({"accounts": [SHUT]}));
    world.campaign(json!({"reason": "scheduled"})).await.expect(Ended::Stopped, "Unread");
    // Nor is it where this installation enters no account at all.
    world.fake.state().external_id = None;
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    done.expect(Ended::Stopped, "Unread");
    assert!(unread(&world, done.doc()).1.contains("enters no other account"));
    assert_eq!(rotated(&world), names(&[]));
}

#[tokio::test(start_paused = true)]
async fn what_is_named_is_read_in_the_account_of_its_arn() {
    let world = three_accounts();
    let arns = ["open-0", "shut-0"].map(|name| world.fake.state().secret(name).arn.clone());
    let done = world.campaign(json!({"secrets": ["svc-00", arns[0], arns[1]]})).await;
    done.expect(Ended::Done, "AllBegun");
    assert_eq!(rotated(&world), names(&["open-0", "svc-00"]));
    let skipped: Vec<Value> =
        plan(&world, done.doc()).into_iter().filter(|line| line["action"] == "skip").collect();
    let [line] = &skipped[..] else { panic!("{skipped:?}") };
    assert_eq!((&line["account"], &line["code"]), (&json!(SHUT), &json!("Unread")));
    assert_eq!((done.doc().counts.unread, calls_in(&world, SHUT).len()), (1, 0));
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn the_hubs_own_account_in_the_list_is_read_once_and_no_value_is_read_elsewhere() {
    let world = all_due(2);
    world.managed_in(OPEN, "open-0", &[120]);
    let own = world.fake.state().account.clone();
    world.push_policy(json!({"accounts": [own, OPEN]}));
    let done = world.campaign(json!({"dry_run": true})).await;
    done.expect(Ended::Planned, "DryRun");
    assert_eq!((done.doc().counts.users, done.doc().counts.rotate), (4, 3));
    let calls = calls_in(&world, OPEN);
    let values = calls.iter().filter(|call| *call == "secretsmanager:GetSecretValue").count();
    assert!(values == 0 && !calls.is_empty() && only_read(&calls), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn owners_of_keys_elsewhere_are_warned_ahead_once() {
    let world = all_due(0);
    let key = world.current_key();
    world.fake.state().age_key(&key, 85);
    world.managed_in(OPEN, "open-0", &[85]);
    world.push_policy(json!({"defaults": {"warn": "7d"}, "accounts": [OPEN]}));
    let first = world.campaign(json!({"reason": "scheduled"})).await;
    assert_eq!(first.expect(Ended::Done, "NothingDue").doc().counts.warned, 2);
    let kept: Warnings =
        serde_json::from_str(world.fake.state().object(WARNINGS).unwrap_or_default()).unwrap();
    assert_eq!(kept.users.keys().collect::<Vec<_>>(), ["444455556666/open-0", "svc-mail"]);
    // Shut out for a day, the hub forgets nobody there, and warns nobody twice.
    world.fake.state().open.clear();
    world.campaign(json!({"reason": "scheduled"})).await;
    world.lets_in(OPEN);
    let third = world.campaign(json!({"reason": "scheduled"})).await;
    assert_eq!(third.doc().counts.warned, 0);
}

#[tokio::test(start_paused = true)]
async fn what_an_ended_run_has_left_elsewhere_is_told_and_taken_up_by_name() {
    let world = all_due(0);
    world.managed_in(OPEN, "open-0", &[40]);
    world.push_policy(json!({"accounts": [OPEN]}));
    let arn = world.fake.state().secret("open-0").arn.clone();
    let first = world
        .campaign_watched(json!({"secrets": [arn]}), &mut |machine, state, _| {
            if (machine, state) == ("rotation", "Overlap") { Control::Stop } else { Control::Go }
        })
        .await;
    assert_eq!(first.rotations[0].walk.status, "ABORTED");
    world.fake.wait(days(1)).await;
    let next = world.campaign(json!({"reason": "scheduled"})).await;
    next.expect(Ended::Done, "NothingDue");
    let lines = plan(&world, next.doc());
    let said: Vec<&Value> = lines.iter().filter(|line| line["user"] == "open-0").collect();
    let [line] = said[..] else { panic!("{lines:?}") };
    assert_eq!(
        (&line["action"], &line["code"], &line["account"]),
        (&json!("skip"), &json!("TwoKeys"), &json!(OPEN))
    );
    let by_name = world.campaign(json!({"secrets": [arn]})).await;
    by_name.rotations[0].expect(Outcome::Completed);
    assert_eq!(world.promotions()["open-0"].len(), 1);
    world.assert_all_sound();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_uses_elsewhere_is_told_and_no_run_is_started_for_it() {
    let world = all_due(0);
    world.managed_in(OPEN, "open-0", &[10]);
    {
        let mut state = world.fake.state();
        let key = state.add_key(&format!("{OPEN}/open-0"), Maker::Stranger);
        state.age_key(&key, 200);
    }
    world.push_policy(json!({
        "accounts": [OPEN],
        "defaults": {"unused": {"disable_after": "120d", "delete_after": "30d"}},
    }));
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    assert_eq!((done.removals.len(), done.doc().counts.unused), (0, 0));
    let lines = plan(&world, done.doc());
    let told: Vec<&Value> = lines.iter().filter(|line| line["code"] == "UnusedElsewhere").collect();
    let [line] = told[..] else { panic!("{lines:?}") };
    assert_eq!((&line["account"], &line["user"]), (&json!(OPEN), &json!("open-0")));
    assert!(only_read(&calls_in(&world, OPEN)));
}

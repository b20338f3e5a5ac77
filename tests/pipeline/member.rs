//! Users of other accounts: each is rotated there, through a role that lets the hub in, and nobody of its name here.

use std::collections::BTreeSet;

use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::{Value, json};
use support::fake::{Call, Maker};
use support::faults::{Fault, Kind, Plan};
use support::functions::ROTATING;
use support::walker::Control;
use support::world::{SECRET, USER, World, hours, request};

const MEMBER: &str = "444455556666";

fn whole(world: &World) -> Value {
    json!({"secret": world.secret_arn()})
}

/// Those of the calls that are about users, keys and secrets.
fn about_keys(calls: &[Call]) -> impl Iterator<Item = &Call> {
    calls.iter().filter(|call| ["iam:", "secretsmanager:"].iter().any(|name| call.name.starts_with(name)))
}

fn count(world: &World, name: &str) -> usize {
    world.fake.call_names().iter().filter(|call| *call == name).count()
}

/// The calls that have changed something about a user, a key or a secret.
fn writes(world: &World) -> Vec<String> {
    let reads = ["Get", "List", "Describe"];
    let is_write = |call: &&Call| {
        let action = call.name.split_once(':').map_or("", |(_, action)| action);
        call.status == 200 && !reads.iter().any(|read| action.starts_with(read))
    };
    about_keys(&world.fake.state().calls).filter(is_write).map(|call| call.name.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_rotation_elsewhere_makes_the_calls_of_one_here_in_its_account_and_enters_once_a_step() {
    let here = World::new();
    here.consumer();
    here.run(whole(&here)).await.expect(Outcome::Completed);
    let world = World::elsewhere(MEMBER);
    world.consumer();
    // Its namesake here, with a key of its own.
    let namesake = {
        let mut state = world.fake.state();
        let mut user = state.users[&format!("{MEMBER}/{USER}")].clone();
        (user.account, user.keys) = (None, Vec::new());
        state.users.insert(USER.into(), user);
        state.add_key(USER, Maker::Stranger)
    };
    let old = world.current_key();
    let run = world.run(whole(&world)).await;
    run.expect(Outcome::Completed);
    let doc = run.doc();
    assert_eq!(doc.baseline.as_ref().unwrap().user.account(), MEMBER);
    assert_eq!(doc.old.as_ref().map(|old| old.key.to_string()), Some(old));
    assert_eq!(world.current_key(), run.new_key().as_str());
    // The same calls, in the same order, each made there.
    let mut names = world.fake.call_names();
    names.retain(|name| name != "sts:AssumeRole");
    assert_eq!(names, here.fake.call_names());
    assert_eq!(count(&here, "sts:AssumeRole"), 0);
    {
        let state = world.fake.state();
        for call in about_keys(&state.calls) {
            assert_eq!(state.account_of_signer(&call.signer), Some(MEMBER), "{}", call.name);
        }
        let entered: Vec<&Call> = state.calls.iter().filter(|call| call.name == "sts:AssumeRole").collect();
        let steps: BTreeSet<Option<u64>> = entered.iter().map(|call| call.invocation).collect();
        assert_eq!(steps.len(), entered.len(), "once a step");
        for call in entered {
            assert!(ROTATING.contains(&call.function.as_deref().unwrap()), "{:?}", call.function);
            assert_eq!(call.params["RoleSessionName"], run.id.to_string());
        }
        let key = state.key(&namesake).unwrap().1;
        assert!(key.is_active() && key.changes.len() == 1);
    }
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_promotion_elsewhere_is_turned_back_there() {
    let world = World::elsewhere(MEMBER);
    world.consumer();
    let old = world.current_key();
    let work = async {
        tokio::time::sleep(hours(2)).await;
        assert_ne!(world.current_key(), old);
        world.run(json!({"secret": world.secret_arn(), "roll_back": true})).await
    };
    world.beside(RunId::random(), whole(&world), work).await.expect(Outcome::RolledBack);
    assert_eq!((world.current_key(), world.keys().len()), (old, 1));
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn an_orphan_elsewhere_is_cleared_by_the_records_of_its_account() {
    let world = World::elsewhere(MEMBER);
    world.consumer();
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
    world.run(whole(&world)).await.expect(Outcome::Completed);
    {
        let state = world.fake.state();
        let asked: Vec<&Call> =
            state.calls.iter().filter(|call| call.name == "cloudtrail:LookupEvents").collect();
        assert!(!asked.is_empty(), "the orphan was cleared without proof");
        assert!(asked.iter().all(|call| state.account_of_signer(&call.signer) == Some(MEMBER)));
    }
    assert_eq!(count(&world, "iam:CreateAccessKey"), 2);
    world.assert_sound();
    // Made there under another role, it is nobody of ours who made it, whatever the run in its User-Agent.
    let world = World::elsewhere(MEMBER);
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
    let mut forge = |state: &str, _: &Value| {
        if state == "RollBack" {
            let mut state = world.fake.state();
            for event in state.trail.iter_mut().filter(|event| event.name == "CreateAccessKey") {
                event.record["userIdentity"]["sessionContext"]["sessionIssuer"]["arn"] =
                    json!("arn:aws:iam::444455556666:role/admin");
            }
        }
        Control::Go
    };
    let run = world.run_watched(RunId::random(), whole(&world), &mut forge).await;
    run.expect_blocked("SlotsFull");
    assert_eq!(world.keys().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_cannot_be_entered_blocks_the_run_and_nothing_there_is_touched() {
    for members in [true, false] {
        let world = World::elsewhere(MEMBER);
        if members {
            world.fake.state().open.clear();
        } else {
            world.fake.state().external_id = None;
        }
        let run = world.run(whole(&world)).await;
        run.expect_blocked("AccountNotEntered");
        let why = run.doc().why.as_ref().unwrap();
        assert!(why.text.contains(MEMBER) && !why.remedy.is_empty(), "{why:?}");
        assert_eq!(about_keys(&world.fake.state().calls).count(), 0, "members: {members}");
        world.assert_sound();
    }
    // STS that is too busy is asked again.
    let world = World::elsewhere(MEMBER);
    world.consumer();
    world.fake.state().plan = Plan::new([Fault::on("sts:AssumeRole", Kind::Throttled).times(4)]);
    world.run(whole(&world)).await.expect(Outcome::Completed);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_door_that_shuts_in_the_overlap_holds_the_run_and_the_next_one_goes_on() {
    let world = World::elsewhere(MEMBER);
    world.consumer();
    let mut shut = |state: &str, _: &Value| {
        if state == "DeactivateKey" {
            world.fake.state().open.clear();
        }
        Control::Go
    };
    let run = world.run_watched(RunId::random(), whole(&world), &mut shut).await;
    run.expect(Outcome::Held);
    assert_eq!(world.keys().len(), 2, "the old key is left as it is");
    assert!(!writes(&world).contains(&"iam:UpdateAccessKey".to_owned()));
    world.assert_sound();
    world.lets_in(MEMBER);
    world.run(whole(&world)).await.expect(Outcome::Completed);
    assert_eq!(world.keys().len(), 1);
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_name_is_a_secret_of_the_hubs_own_account() {
    let world = World::elsewhere(MEMBER);
    assert_eq!(request()["secret"], SECRET);
    world.run(request()).await.expect_blocked("NoSuchSecret");
    assert_eq!((count(&world, "sts:AssumeRole"), writes(&world).len()), (0, 0));
}

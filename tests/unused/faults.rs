//! Every call of a removal fails in every way, one after the other: it ends in a named state, says what is so, and takes
//! nothing that it may not.

use std::collections::BTreeMap;

use aws_sdk_iam::types::StatusType;
use keywheel::unused::Outcome;
use serde_json::json;
use support::faults::{Fault, Kind, Plan};
use support::figures::say;
use support::functions::role;
use support::unused::Removal;
use support::world::{SECRET, World};

use crate::{OLD, exists, world};

/// A removal under a fault: the world after it, the key, and how it ended.
async fn removal(fault: Option<Fault>) -> (World, String, Removal) {
    let (world, key) = world(200);
    world.fake.state().plan = Plan::new(fault);
    let removal = world.removal(&world.removed(OLD, &key)).await;
    (world, key, removal)
}

/// What became of it, in a word.
fn end(world: &World, key: &str, removal: &Removal, case: &str) -> &'static str {
    world.assert_promises();
    if removal.walk.status == "FAILED" {
        let error = removal.walk.error.as_ref().map_or("", |failure| failure.error.as_str());
        match error {
            "Keywheel.NotNominated" => assert!(world.is_active(key), "{case}"),
            "Keywheel.NotTold" => {}
            other => panic!("{case}: {other}"),
        }
        return "failed, told by the rule";
    }
    assert_eq!(removal.walk.status, "SUCCEEDED", "{case}");
    let there = exists(world, key);
    match removal.outcome() {
        Some(Outcome::Removed) => assert!(!there, "{case}"),
        Some(Outcome::Left) => assert!(world.is_active(key), "{case}"),
        Some(Outcome::Kept | Outcome::Disabled) => assert!(there && !world.is_active(key), "{case}"),
        // Whatever could be read no more is for a person.
        Some(Outcome::Held) => {}
        None => panic!("{case}: no outcome"),
    }
    removal.outcome().map_or("", Outcome::name)
}

async fn every_call(kind: Kind, lasting: bool) {
    let (world, key, undisturbed) = removal(None).await;
    assert_eq!(end(&world, &key, &undisturbed, "undisturbed"), "Removed");
    let calls = world.fake.state().calls.len();
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    // Of thirty looks that are alike the first and the last few are disturbed.
    for number in (0..calls).filter(|number| *number < 40 || *number + 20 > calls) {
        let fault = Fault::at(number, kind);
        let (world, key, removal) = removal(Some(if lasting { fault.for_good() } else { fault })).await;
        let hit = world.fake.state().calls.iter().find(|call| call.fault.is_some()).cloned();
        let case = format!("{kind:?} at {number}, lasting: {lasting}, {:?}", hit.map(|call| call.name));
        *ends.entry(end(&world, &key, &removal, &case)).or_default() += 1;
    }
    let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
    say(&format!("unused: {kind:?}, lasting: {lasting}, {calls} calls: {}", ends.join(", ")));
}

macro_rules! every_failed_call_ends_in_a_named_state {
    ($($name:ident: $kind:ident),*) => {
        mod once {
            use crate::faults::{Kind, every_call};
            $(#[tokio::test(start_paused = true)]
            async fn $name() { every_call(Kind::$kind, false).await; })*
        }
        mod for_good {
            use crate::faults::{Kind, every_call};
            $(#[tokio::test(start_paused = true)]
            async fn $name() { every_call(Kind::$kind, true).await; })*
        }
    };
}

every_failed_call_ends_in_a_named_state! {
    refused: Refused,
    throttled: Throttled,
    lost_before: LostBefore,
    lost_after: LostAfter,
    error_before: ErrorBefore,
    garbled_after: GarbledAfter,
    timeout_before: TimeoutBefore,
    timeout_after: TimeoutAfter,
    killed_before: KilledBefore,
    killed_after: KilledAfter
}

/// What a careless author might have written, by the roles' own hands: the promise must be seen to break.
#[tokio::test(start_paused = true)]
async fn control_a_key_that_is_taken_against_the_promise_is_seen() {
    for (age, function, what) in [
        (100, "disable-unused", "which was in use on"),
        (200, "delete-unused", "which is Active"),
        (200, "stored", "which a secret holds"),
        (200, "early", "before its grace has passed"),
    ] {
        let (world, key) = world(age);
        let removed = world.removed(OLD, &key);
        let run = {
            let mut state = world.fake.state();
            let run = removed.run(state.now());
            let arn =
                format!("{}:{run}", state.machine("unused").replacen(":stateMachine:", ":execution:", 1));
            state.execution_started(&arn, &serde_json::to_value(&removed).unwrap());
            run
        };
        if function == "stored" {
            let mut state = world.fake.state();
            let secret = state.key(&key).unwrap().1.secret.clone();
            let text = json!({"UserName": OLD, "AccessKeyId": key, "SecretAccessKey": secret}).to_string();
            state.put_current(SECRET, &text);
        }
        let client = |function: &str| {
            let config = world.fake.config_of(&role(function));
            aws_sdk_iam::Client::new(&keywheel::aws::for_run(&config, run))
        };
        if function != "delete-unused" {
            let call = client("disable-unused").update_access_key().user_name(OLD).access_key_id(&key);
            call.status(StatusType::Inactive).send().await.unwrap();
        }
        if ["delete-unused", "early"].contains(&function) {
            world.days_pass(29).await;
            let call = client("delete-unused").delete_access_key().user_name(OLD).access_key_id(&key);
            call.send().await.unwrap();
        }
        let violations = world.fake.state().violations.clone();
        let seen = violations.iter().any(|one| one.starts_with("P2") && one.contains(what));
        assert!(seen, "{what}: {violations:#?}");
    }
}

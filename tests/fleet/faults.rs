//! Every call of a small campaign fails in every way, one after the other: it ends with a document that says how, and
//! nobody is rotated twice.

use std::collections::BTreeMap;

use keywheel::campaign::Outcome as Ended;
use serde_json::json;
use support::campaign::Campaigned;
use support::faults::{Fault, Kind, Plan};
use support::figures::{everything, say};
use support::world::World;

use crate::all_due;

const USERS: usize = 3;

/// A campaign under a fault: the world after it, and how it ended.
async fn campaign(fault: Option<Fault>) -> (World, Campaigned) {
    let world = all_due(USERS);
    world.fake.state().plan = Plan::new(fault);
    let done = world.campaign(json!({"reason": "scheduled"})).await;
    (world, done)
}

/// How many calls are made until the campaign has ended; the rotations that it started make theirs long after.
fn until_its_end(world: &World, done: &Campaigned) -> usize {
    let state = world.fake.state();
    state.calls.iter().rposition(|call| call.run == Some(done.id)).unwrap() + 1
}

/// What became of it, in a word; whatever it was, what it promises must hold.
fn end(world: &World, done: &Campaigned, case: &str) -> &'static str {
    world.assert_rotated_once();
    world.assert_promises();
    for (user, key) in world.current_keys() {
        assert!(world.is_active(&key), "{case}: key {key} of {user}");
    }
    let Some(doc) = &done.doc else {
        // Without a plan nothing was begun.
        let error = done.walk.error.as_ref().map(|failure| failure.error.as_str());
        assert_eq!((done.walk.status, error), ("FAILED", Some("Keywheel.NotScanned")), "{case}");
        assert_eq!((done.rotations.len(), world.promotions().len()), (0, 0), "{case}");
        return "not planned";
    };
    if done.walk.status == "FAILED" {
        let error = done.walk.error.as_ref().map(|failure| failure.error.as_str());
        assert_eq!(error, Some("Keywheel.NotTold"), "{case}");
        return "not told";
    }
    assert_eq!(done.walk.status, "SUCCEEDED", "{case}");
    let (promoted, failed) = doc.done();
    match doc.outcome {
        Some(Ended::Done) if promoted == USERS => "all promoted",
        Some(Ended::Done) => {
            // Who could not be read was not planned.
            assert_eq!((promoted, failed), (doc.keys(), 0), "{case}");
            "fewer planned"
        }
        Some(Ended::Stopped) => "stopped",
        // A policy that cannot be understood, which is what a garbled reply looks like.
        Some(Ended::Refused) if done.rotations.is_empty() => "refused",
        other => panic!("{case}: {other:?} {:?}", doc.why),
    }
}

async fn every_call(kind: Kind, lasting: bool) {
    let (world, undisturbed) = campaign(None).await;
    assert_eq!(end(&world, &undisturbed, "undisturbed"), "all promoted");
    let calls = until_its_end(&world, &undisturbed);
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    // On every change each call fails in a third of the ways, neighbours in others.
    let all = everything();
    for number in (0..calls).filter(|number| all || (number + kind as usize).is_multiple_of(3)) {
        let fault = Fault::at(number, kind);
        let (world, done) = campaign(Some(if lasting { fault.for_good() } else { fault })).await;
        let hit = world.fake.state().calls.iter().find(|call| call.fault.is_some()).cloned();
        let hit = hit.map(|call| (call.name, call.function));
        assert!(hit.is_some(), "call {number} was not made");
        let case = format!("{kind:?} at {number}, lasting: {lasting}, {hit:?}");
        *ends.entry(end(&world, &done, &case)).or_default() += 1;
    }
    let times = if lasting { "from" } else { "at" };
    let hit: usize = ends.values().sum();
    let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
    say(&format!("fleet: {kind:?} {times} {hit} of the {calls} calls of a campaign: {}", ends.join(", ")));
}

macro_rules! every_failed_call_ends_with_a_document {
    ($($name:ident: $kind:ident),*) => {
        mod every_failed_call_ends_with_a_document {
            use crate::faults::{Kind, every_call};
            $(#[tokio::test(start_paused = true)]
            async fn $name() { every_call(Kind::$kind, false).await; })*
        }
    };
}

every_failed_call_ends_with_a_document! {
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

/// The faults that a retry does not simply absorb.
mod every_call_that_fails_for_good_ends_with_a_document {
    use crate::faults::{Kind, every_call};

    #[tokio::test(start_paused = true)]
    async fn refused() {
        every_call(Kind::Refused, true).await;
    }

    #[tokio::test(start_paused = true)]
    async fn lost_after() {
        every_call(Kind::LostAfter, true).await;
    }

    #[tokio::test(start_paused = true)]
    async fn killed_after() {
        every_call(Kind::KilledAfter, true).await;
    }
}

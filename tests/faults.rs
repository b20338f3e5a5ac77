//! Every call of a rotation fails in every way, one after the other, and every run still ends well.
//!
//! "Well" is: a named outcome, a working key behind AWSCURRENT at every instant, nothing lost. A run that could
//! not undo what it did may fail, loudly; the next one, undisturbed, must then finish the work. The calls are
//! counted, not named: a new call is covered the day it is written.

use keywheel::rotation::Outcome;
use support::faults::{Fault, Kind, Plan};
use support::world::{Run, World, request};

/// A user with a consumer, so that last uses are dated, and a run with these faults.
async fn disturbed(fault: Fault) -> (World, Run) {
    let world = World::new();
    world.consumer();
    world.fake.state().plan = Plan::new([fault]);
    let run = world.run(request()).await;
    (world, run)
}

/// The promise for one disturbed run and an undisturbed one after it.
async fn ends_well(world: &World, run: &Run, case: &str) -> Result<(), String> {
    let state = || {
        format!(
            "{case}: {:?} {:?}, states {:?}",
            run.walk.error,
            run.doc.as_ref().and_then(|doc| doc.why.clone()),
            run.walk.states()
        )
    };
    if run.walk.status == "SUCCEEDED" && run.outcome().is_none() {
        return Err(format!("no outcome. {}", state()));
    }
    if run.walk.status == "FAILED"
        && run.walk.error.as_ref().is_none_or(|error| !error.error.starts_with("Keywheel."))
    {
        return Err(format!("failed without a name. {}", state()));
    }
    world.fake.state().plan = Plan::default();
    if run.outcome() != Some(Outcome::Completed) {
        let next = world.run(request()).await;
        if next.outcome() != Some(Outcome::Completed) {
            let (outcome, why) = (next.outcome(), next.doc.as_ref().and_then(|doc| doc.why.clone()));
            return Err(format!("the next run ended {outcome:?} {why:?}. {}", state()));
        }
    }
    world.assert_sound();
    if world.keys().len() != 1 {
        return Err(format!("{} keys are left. {}", world.keys().len(), state()));
    }
    Ok(())
}

async fn every_call(kind: Kind, lasting: bool) {
    let mut wrong = Vec::new();
    for number in 0.. {
        let fault = Fault::at(number, kind);
        let (world, run) = disturbed(if lasting { fault.for_good() } else { fault }).await;
        let hit = world
            .fake
            .state()
            .calls
            .iter()
            .find(|call| call.fault.is_some())
            .map(|call| format!("{} of {:?}", call.name, call.function));
        let Some(hit) = hit else {
            run.expect(Outcome::Completed);
            assert!(number > 20, "only {number} calls were made");
            break;
        };
        let case = format!("call {number}, {hit}, {kind:?}, lasting: {lasting}");
        if let Err(error) = ends_well(&world, &run, &case).await {
            wrong.push(error);
        }
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

macro_rules! every_failed_call_ends_well {
    ($($name:ident: $kind:ident),*) => {
        mod every_failed_call_ends_well {
            use super::{Kind, every_call};
            mod once {
                $(#[tokio::test(start_paused = true)]
                async fn $name() { super::every_call(super::Kind::$kind, false).await; })*
            }
            mod for_good {
                $(#[tokio::test(start_paused = true)]
                async fn $name() { super::every_call(super::Kind::$kind, true).await; })*
            }
        }
    };
}

every_failed_call_ends_well! {
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

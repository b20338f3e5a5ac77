//! Every call of a run fails in every way, one after the other, and every run still ends well.
//!
//! "Well" is: a named outcome, a working key behind AWSCURRENT at every instant, nothing lost. A run that could
//! not undo what it did may fail, loudly; the next one, undisturbed, must then finish the work. The calls are
//! counted, not named: a new call is covered the day it is written.

use std::sync::Mutex;

use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::json;
use support::faults::{Fault, Kind, Plan};
use support::figures::{everything, hand_over, say};
use support::world::{Run, SECRET, World, hours, paused, request};

/// What is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// A rotation from its beginning.
    Rotation,
    /// The first rotation of a secret without a value.
    Adoption,
    /// A rotation that clears an orphan of its own on the way.
    Orphan,
    /// A promotion that is turned back in its overlap.
    Backwards,
    /// A held run that is resumed.
    Resumed,
    /// A rotation in another account.
    Elsewhere,
}

impl Scene {
    /// Sets the scene, lets a run meet the faults, and holds it to the promise.
    async fn play(self, faults: Vec<Fault>, case: &str) -> Result<Option<String>, String> {
        let world = match self {
            Self::Adoption => World::without_value(),
            Self::Elsewhere => World::elsewhere("444455556666"),
            _ => World::new(),
        };
        world.consumer();
        let disturbed = async |input| {
            let calls = world.fake.state().calls.len();
            world.fake.state().plan = Plan::new(faults);
            let run = world.run(input).await;
            let hit =
                world.fake.state().calls[calls..].iter().rev().find(|call| call.fault.is_some()).cloned();
            let case =
                format!("{self:?}, {case}, {:?}", hit.as_ref().map(|call| (&call.name, &call.function)));
            ends_well(&world, &run, &case).await?;
            Ok(hit.map(|call| call.name))
        };
        match self {
            Self::Rotation | Self::Adoption | Self::Orphan => disturbed(request()).await,
            Self::Elsewhere => disturbed(json!({"secret": world.secret_arn()})).await,
            Self::Backwards => {
                let work = async {
                    tokio::time::sleep(hours(2)).await;
                    disturbed(json!({"secret": SECRET, "roll_back": true})).await
                };
                world.beside(RunId::random(), request(), work).await
            }
            Self::Resumed => {
                let old = world.current_key();
                world.fake.state().keep_using(&old, "s3", hours(1), hours(24 * 3));
                let held = json!({"secret": SECRET, "policy": {"max_overlap": "3d"}});
                world.run(held).await.expect(Outcome::Held);
                disturbed(request()).await
            }
        }
    }
}

/// The promise for one disturbed run and an undisturbed one after it.
async fn ends_well(world: &World, run: &Run, case: &str) -> Result<(), String> {
    let why =
        |run: &Run| format!("{:?} {:?}", run.outcome(), run.doc.as_ref().and_then(|doc| doc.why.clone()));
    let told = || format!("{case}: {} {:?}, states {:?}", why(run), run.walk.error, run.walk.states());
    if run.walk.status == "SUCCEEDED" && run.outcome().is_none() {
        return Err(format!("no outcome. {}", told()));
    }
    if run.walk.error.as_ref().is_some_and(|error| !error.error.starts_with("Keywheel.")) {
        return Err(format!("failed without a name. {}", told()));
    }
    world.fake.state().plan = Plan::default();
    if run.outcome() != Some(Outcome::Completed) || world.keys().len() != 1 {
        let again = json!({"secret": world.secret_arn()});
        let mut next = world.run(again.clone()).await;
        if next.outcome() == Some(Outcome::Blocked) && next.why() == "RunInProgress" {
            // What was to be turned back goes on instead; let it.
            tokio::time::sleep(hours(24 * 15)).await;
            next = world.run(again).await;
        }
        if next.outcome() != Some(Outcome::Completed) {
            return Err(format!("the next run ended {}. {}", why(&next), told()));
        }
    }
    world.assert_sound();
    if world.keys().len() != 1 {
        return Err(format!("{} keys are left. {}", world.keys().len(), told()));
    }
    Ok(())
}

async fn every_call(scene: Scene, kind: Kind, lasting: bool) {
    let mut wrong = Vec::new();
    for number in 0.. {
        let fault = Fault::at(number, kind);
        let mut faults = vec![if lasting { fault.for_good() } else { fault }];
        if scene == Scene::Orphan {
            faults.push(Fault::on("iam:CreateAccessKey", Kind::LostAfter));
        }
        let case = format!("call {number}, {kind:?}, lasting: {lasting}");
        match scene.play(faults, &case).await {
            Ok(None) => break,
            // Only the orphan's own fault was left.
            Ok(Some(name)) if scene == Scene::Orphan && number > 60 && name == "iam:CreateAccessKey" => break,
            Ok(Some(_)) => {}
            Err(error) => wrong.push(error),
        }
        assert!(number < 200, "the run does not end");
    }
    assert!(wrong.is_empty(), "{} cases: {wrong:#?}", wrong.len());
}

/// Every pair of calls fails, in every pair of ways where everything is asked for; else each pair of calls in one
/// pair of ways, a different one for each.
#[test]
fn every_pair_of_failed_calls_ends_well() {
    let kinds: Vec<(Kind, Kind)> =
        Kind::ALL.iter().flat_map(|first| Kind::ALL.map(|second| (*first, second))).collect();
    let calls = paused(async {
        let world = World::new();
        world.run(request()).await;
        world.fake.state().calls.len()
    });
    // All of them are hours of runs, so every processor takes its share.
    let (next, told) = (Mutex::new(0..calls), Mutex::new((0_usize, Vec::new())));
    let threads = if everything() { std::thread::available_parallelism().map_or(2, usize::from) } else { 1 };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(first) = { next.lock().unwrap().next() } {
                    let (pairs, wrong) = paused(pairs_from(first, calls, &kinds));
                    if everything() {
                        say(&format!("pairs: call {first} of {calls}, {} wrong", wrong.len()));
                    }
                    let mut told = told.lock().unwrap();
                    told.0 += pairs;
                    told.1.extend(wrong);
                }
            });
        }
    });
    let (pairs, wrong) = told.into_inner().unwrap();
    say(&format!("pairs: {pairs} runs with two faults"));
    hand_over(
        "pairs",
        &serde_json::json!({"schedules": pairs, "faults": pairs * 2, "violations": wrong.len()}),
    );
    assert!(pairs > 700, "{pairs}");
    assert!(wrong.is_empty(), "{} cases: {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
}

/// The runs whose first fault falls on this call: how many met two faults, and what went wrong.
async fn pairs_from(first: usize, calls: usize, kinds: &[(Kind, Kind)]) -> (usize, Vec<String>) {
    let (mut pairs, mut wrong) = (0, Vec::new());
    // A run that meets the first fault makes some calls more.
    for second in first + 1..calls + 12 {
        let one = &[kinds[(first * 41 + second * 7) % kinds.len()]];
        for (a, b) in if everything() { kinds } else { one } {
            let world = World::new();
            world.consumer();
            world.fake.state().plan = Plan::new([Fault::at(first, *a), Fault::at(second, *b)]);
            let run = world.run(request()).await;
            pairs += usize::from(world.fake.state().plan.fired() == 2);
            let case = format!("calls {first} {a:?} and {second} {b:?}");
            if let Err(error) = ends_well(&world, &run, &case).await {
                wrong.push(error);
            }
        }
    }
    (pairs, wrong)
}

macro_rules! every_failed_call_ends_well {
    ($($name:ident: $kind:ident),*) => {
        mod every_failed_call_ends_well {
            mod once {
                use crate::{Kind, Scene, every_call};
                $(#[tokio::test(start_paused = true)]
                async fn $name() { every_call(Scene::Rotation, Kind::$kind, false).await; })*
            }
            mod for_good {
                use crate::{Kind, Scene, every_call};
                $(#[tokio::test(start_paused = true)]
                async fn $name() { every_call(Scene::Rotation, Kind::$kind, true).await; })*
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

/// The other ways through the machine, under the faults that a retry does not simply absorb.
macro_rules! every_failed_call_of_another_way_ends_well {
    ($($name:ident: $scene:ident),*) => {
        mod every_failed_call_of_another_way_ends_well {
            use crate::{Kind, Scene, every_call};
            $(mod $name {
                use super::{Kind, Scene, every_call};
                #[tokio::test(start_paused = true)]
                async fn refused_for_good() { every_call(Scene::$scene, Kind::Refused, true).await; }
                #[tokio::test(start_paused = true)]
                async fn lost_after_for_good() { every_call(Scene::$scene, Kind::LostAfter, true).await; }
                #[tokio::test(start_paused = true)]
                async fn killed_after() { every_call(Scene::$scene, Kind::KilledAfter, false).await; }
            })*
        }
    };
}

every_failed_call_of_another_way_ends_well! {
    adoption: Adoption,
    orphan: Orphan,
    backwards: Backwards,
    resumed: Resumed,
    elsewhere: Elsewhere
}

//! Lambdas killed in the middle of a call, calls spoilt by lot, and an emulator that answers late: real processes,
//! the real interpreter, and a consumer at work on every secret.
//!
//! `KEYWHEEL_SEED` draws other lots than those of every day; a test prints the seed that it used.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::{Value, json};

use crate::cloud::Cloud;
use crate::consumer::Consumer;
use crate::proxy::{Lots, Told};
use crate::requests::Request;
use crate::run::{Run, all, brief_but, new_id};
use crate::scene::Scene;
use crate::watch::Watch;

const SEED: u64 = 20_260_105;
/// How many rotations go on at once: more would only wait for the two cores of a small machine.
const AT_ONCE: usize = 8;
/// The calls of an undisturbed rotation; a kill is drawn from these.
const CALLS: u64 = 36;
/// How often a consumer calls: slow enough for many beside each other.
const PAUSE: Duration = Duration::from_millis(250);

/// What all rotations of a test leave to be counted.
#[derive(Default)]
struct Tally {
    /// Faults that fell, by kind, and the function or the call.
    fallen: BTreeMap<String, u32>,
    /// Runs that met at least one.
    met: usize,
    /// Kills that found their process.
    killed: usize,
    /// How the disturbed runs ended.
    ended: BTreeMap<String, u32>,
    /// The consumers, by the name that their calls carry.
    consumers: BTreeSet<String>,
    calls: usize,
}

impl Tally {
    fn add(&mut self, told: &Told, ended: String, consumer: &str) {
        for fallen in &told.faults {
            let place = fallen.killed.as_deref().unwrap_or(&fallen.call);
            *self.fallen.entry(format!("{} {place}", fallen.kind)).or_default() += 1;
            self.killed += usize::from(fallen.killed.is_some());
        }
        self.met += usize::from(!told.faults.is_empty());
        self.calls += told.calls;
        *self.ended.entry(ended).or_default() += 1;
        self.consumers.insert(consumer.to_owned());
    }
}

pub(crate) fn seed() -> u64 {
    std::env::var("KEYWHEEL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// The name of the disturbed run's end. One whose last notice waits for its next try has its outcome already: it
/// is stopped there, for the minute of that pause would tell nothing.
async fn named_end(run: &Run) -> String {
    loop {
        if run.visited().await.iter().any(|state| state == "AwaitDelivery") {
            let outcome = run.given_to("AwaitDelivery").await["outcome"].as_str().unwrap().to_owned();
            run.stop().await;
            return outcome;
        }
        if !run.goes_on().await {
            let end = run.end().await;
            if end.status == ExecutionStatus::Succeeded {
                return end.outcome().to_owned();
            }
            // What could not be undone is said, under its own name; the next run finishes it.
            let error = run.error().await;
            assert!(error.starts_with("Keywheel."), "run {} failed without a name: {error}", run.id);
            return error;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// One rotation under faults, with its consumer, and what must hold after it.
async fn rotation(cloud: Arc<Cloud>, plan: Value, tally: Arc<Mutex<Tally>>) {
    let (scene, old) = Scene::managed(&cloud, "spoilt").await;
    let others = scene.other_fields().await;
    let (consumer, watch) =
        (Consumer::every(&scene, PAUSE), Watch::start(&scene, Duration::from_millis(600)));
    let id = new_id();
    cloud.spoil(&id, plan.clone()).await;
    let policy = brief_but(&json!({ "overlap": "3s", "grace": "1s" }));
    let run = scene.start_with(&id, json!({ "policy": policy })).await;
    let ended = named_end(&run).await;
    let named = ["Completed", "RolledBack", "Blocked", "Held", "Keywheel.RollBackIncomplete"];
    assert!(named.contains(&ended.as_str()), "{ended} is no named end, with {plan}");
    let told = cloud.spoilt(&id).await;
    if ended != "Completed" || scene.keys().await.len() != 1 {
        // Not spoilt: it finds what the first has left.
        let next = scene.start_with(&new_id(), json!({ "policy": policy })).await.end().await;
        assert_eq!(next.outcome(), "Completed", "after {ended} with {told:?}: {}", next.why());
    }
    // One key, Active, current and working: no orphan is left, and the old one is gone.
    assert_ne!(scene.expect_one_working_key().await.id, old.id, "{told:?}");
    assert!(scene.other_fields().await == others, "a field that is not ours has changed, with {told:?}");
    watch.end();
    tally.lock().unwrap().add(&told, ended, consumer.app());
}

/// All rotations, and what their consumers saw.
async fn rotations(cloud: &Arc<Cloud>, plans: Vec<Value>) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let count = plans.len();
    let case = |plan: Value| (plan.to_string(), rotation(Arc::clone(cloud), plan, Arc::clone(&tally)));
    let work = all(AT_ONCE, plans.into_iter().map(case).collect());
    // One poll of each inside the other, so that the big future lives on the heap.
    let work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
    work.await;
    let tally = Arc::into_inner(tally).unwrap().into_inner().unwrap();
    let log = cloud.requests().await;
    let of_consumers = |request: &&Request| tally.consumers.iter().any(|consumer| request.is_of(consumer));
    let calls: Vec<&Request> = log.iter().filter(of_consumers).collect();
    let refused = calls.iter().filter(|call| call.status != 200).count();
    assert_eq!(refused, 0, "P1: consumers were refused");
    assert!(calls.len() > count * 10, "the consumers made {} calls", calls.len());
    println!(
        "{count} rotations, {} calls of Lambdas, {} of consumers; {} runs met a fault; ended {:?}; {:#?}",
        tally.calls,
        calls.len(),
        tally.met,
        tally.ended,
        tally.fallen
    );
    tally
}

#[tokio::test]
async fn p1_p5_fifty_rotations_survive_that_their_lambda_is_killed_in_a_call() {
    let Some(cloud) = Cloud::here().await else { return };
    let seed = seed();
    let mut lots = Lots(seed);
    let plans = (0..50).map(|_| {
        let kind = ["killed_before", "killed_after"][usize::from(lots.below(2) == 1)];
        json!({ "at": [{ "number": lots.below(CALLS), "kind": kind }] })
    });
    println!("seed {seed}");
    let tally = rotations(&cloud, plans.collect()).await;
    println!("{} processes were killed", tally.killed);
    assert!(tally.killed >= 45, "only {} of 50 kills found their process", tally.killed);
    let functions: BTreeSet<&str> =
        tally.fallen.keys().filter_map(|key| key.split_once("keywheel-")).map(|(_, name)| name).collect();
    assert!(functions.len() >= 6, "only {functions:?} were killed");
}

#[tokio::test]
async fn p1_p5_rotations_whose_calls_are_spoilt_by_lot_end_in_a_named_state() {
    let Some(cloud) = Cloud::here().await else { return };
    let seed = seed();
    println!("seed {seed}");
    let plans = (0..30).map(|number| {
        json!({
            "seed": seed + number, "per_mille": 90,
            "kinds": [
                "lost_before", "lost_after", "throttled", "error_before", "error_after", "garbled_after",
                "cut_after", "late", "timeout_before", "timeout_after", "killed_before", "killed_after",
            ],
        })
    });
    let tally = rotations(&cloud, plans.collect()).await;
    assert!(tally.met >= 27, "only {} of 30 runs met a fault", tally.met);
    let kinds: BTreeSet<&str> = tally.fallen.keys().filter_map(|key| key.split(' ').next()).collect();
    assert!(kinds.len() >= 10, "only {kinds:?} fell");
}

#[tokio::test]
async fn p1_p5_rotations_end_well_where_every_answer_is_late_and_some_too_late() {
    let Some(cloud) = Cloud::here().await else { return };
    let seed = seed();
    println!("seed {seed}");
    let plans = (0..8).map(|number| {
        // One in ten is later than the SDK waits, the others up to two seconds late.
        let mut kinds = vec!["late"; 9];
        kinds.push("timeout_after");
        json!({ "seed": seed + 1_000 + number, "per_mille": 1_000, "kinds": kinds })
    });
    let tally = rotations(&cloud, plans.collect()).await;
    let too_late: u32 =
        tally.fallen.iter().filter(|(key, _)| key.starts_with("timeout_after")).map(|(_, count)| count).sum();
    assert!(tally.met == 8 && too_late >= 8, "{too_late} answers came too late");
}

//! Runs, people and faults woven by seeds: the promises hold in every order that is drawn.
//!
//! `KEYWHEEL_SCHEDULES` and `KEYWHEEL_SEED` say how many and from where; `cargo xtask prove` sets them. One seed
//! alone (`KEYWHEEL_SCHEDULES=1 KEYWHEEL_SEED=…`) plays the same story again.

#![expect(clippy::unwrap_used, reason = "a test, where a panic with its place is what should be seen")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::json;
use support::faults::Kind;
use support::figures::{hand_over, number, say};
use support::woven::{Alarms, Reached, Schedule, Story, Tally, play, play_alarms, targets};

/// How many schedules every change is held to, and from how many on everything must have been reached.
const SCHEDULES: u64 = 20_000;
const ENOUGH: u64 = 20_000;

/// Seeds that have found something, in the product or in what it is held to.
const FOUND: [u64; 43] = [
    525, 1424, 1649, 1657, 2281, 2325, 2713, 3316, 3536, 4150, 4416, 4753, 6362, 6841, 6966, 7585, 10_976,
    13_401, 14_414, 15_253, 15_304, 15_927, 16_773, 16_858, 17_888, 18_233, 18_364, 18_882, 19_693, 19_777,
    24_110, 29_620, 39_061, 1_000_483, 1_005_497, 1_015_124, 1_038_583, 1_040_505, 1_061_408, 1_080_793,
    1_091_525, 1_097_812, 2_003_547,
];

/// And seeds of alarms that have.
const FOUND_ALARMS: [u64; 13] =
    [79, 326, 440, 583, 728, 2_551, 4_026, 4_388, 4_496, 5_325, 5_431, 6_712, 12_154];

/// After how many schedules a long search says how far it is.
const SAID_EVERY: u64 = 10_000;

/// What the threads are called that play schedules. A promise broken there becomes a story; the panic that
/// tells of it is not for the screen.
const WEAVER: &str = "weaver";

fn only_stories() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(WEAVER) {
            usual(panic);
        }
    }));
}

/// Plays the seeds on all processors.
fn weave(
    seeds: impl Iterator<Item = u64> + Send,
    play: impl Fn(u64) -> Result<Reached, Box<Story>> + Sync,
) -> (Tally, Vec<Story>) {
    // Counted as they are handed out: what a thread has in hand may still fail.
    let next = Mutex::new(seeds.zip(1_u64..));
    let result = Mutex::new((Tally::default(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let weaver = std::thread::Builder::new().name(WEAVER.to_owned());
            let work = || {
                let (mut tally, mut stories) = (Tally::default(), Vec::new());
                while let Some((seed, number)) = { next.lock().unwrap().next() } {
                    if number.is_multiple_of(SAID_EVERY) {
                        say(&format!("woven: {number} schedules begun"));
                    }
                    match play(seed) {
                        Ok(reached) => tally.add(reached),
                        Err(story) => {
                            // At once: who searches for an hour must not wait for it.
                            say(&format!("woven: seed {seed}: {}", story.what));
                            stories.push(*story);
                        }
                    }
                }
                let mut result = result.lock().unwrap();
                result.0.merge(tally);
                result.1.extend(stories);
            };
            weaver.spawn_scoped(scope, work).unwrap();
        }
    });
    result.into_inner().unwrap()
}

#[test]
fn what_was_found_stays_mended() {
    only_stories();
    let targets = targets();
    let (_, stories) = weave(FOUND.into_iter(), |seed| play(&Schedule::draw(seed, &targets), |_| {}));
    if let Some(first) = stories.first() {
        panic!("{} of them broke a promise again\n{first}", stories.len());
    }
    let (_, stories) = weave(FOUND_ALARMS.into_iter(), |seed| play_alarms(&Alarms::draw(seed)));
    none_broke(&stories);
}

/// Fails where a schedule broke a promise, with the story of the first.
fn none_broke(stories: &[Story]) {
    let Some(first) = stories.first() else { return };
    let mut alike: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for story in stories {
        alike.entry(story.what.chars().take(60).collect()).or_default().push(story.seed);
    }
    panic!("{} schedules broke a promise: {alike:#?}\n{first}", stories.len());
}

/// How many alarms every change is held to; a search that is asked for more rotations plays more of these too.
const ALARMS: u64 = 1_000;

#[test]
fn every_promise_holds_when_a_key_leaks_in_every_order() {
    let rotations = number("KEYWHEEL_SCHEDULES", SCHEDULES);
    let (count, first) = ((rotations * ALARMS / SCHEDULES).max(1), number("KEYWHEEL_SEED", 1));
    only_stories();
    let started = Instant::now();
    let (tally, mut stories) = weave(first..first + count, |seed| play_alarms(&Alarms::draw(seed)));
    stories.sort_by_key(|story| story.seed);
    let each = (started.elapsed() / u32::try_from(count).unwrap()).as_secs_f64() * 1e3;
    say(&format!(
        "woven alarms: {} schedules, {} distinct, {} with a fault, {} faults, {} calls, {each:.1} ms a schedule",
        tally.schedules,
        tally.distinct.len(),
        tally.fired,
        tally.faults,
        tally.calls,
    ));
    say(&format!("woven alarms: executions ended {:?}", tally.ends));
    say(&format!("woven alarms: {} of {} calls of states hit", tally.struck.len(), tally.seen.len()));
    hand_over(
        "alarms",
        &json!({
            "schedules": tally.schedules + stories.len() as u64,
            "faults": tally.faults,
            "calls_covered": tally.struck.len(),
            "violations": stories.len(),
        }),
    );
    none_broke(&stories);
    if count < ALARMS {
        return;
    }
    assert!(
        tally.distinct.len() as u64 * 10 >= count * 9,
        "{} of {count} are distinct",
        tally.distinct.len()
    );
    assert!(tally.fired * 10 >= count * 7, "faults fired in {} of {count} schedules", tally.fired);
    for (end, least) in [("Contained", 1000), ("Blocked", 200), ("ABORTED", 10), ("RolledBack", 5)] {
        let times = tally.ends.get(end).copied().unwrap_or(0);
        assert!(times >= least, "only {times} executions ended {end}");
    }
}

#[test]
fn every_promise_holds_in_every_order() {
    let (count, first) = (number("KEYWHEEL_SCHEDULES", SCHEDULES), number("KEYWHEEL_SEED", 1));
    only_stories();
    let targets = targets();
    let started = Instant::now();
    let (tally, mut stories) =
        weave(first..first + count, |seed| play(&Schedule::draw(seed, &targets), |_| {}));
    let each = (started.elapsed() / u32::try_from(count).unwrap()).as_secs_f64() * 1e3;
    stories.sort_by_key(|story| story.seed);
    say(&format!(
        "woven: {} schedules (seeds {first} to {}), {} distinct, {} with a fault, {} faults, {} calls, {each:.1} ms a schedule",
        tally.schedules,
        first + count - 1,
        tally.distinct.len(),
        tally.fired,
        tally.faults,
        tally.calls,
    ));
    say(&format!("woven: runs ended {:?}", tally.ends));
    let rarest = tally.pairs.iter().min_by_key(|(_, count)| **count);
    say(&format!(
        "woven: {} of {} calls of states hit, {:?} not; {} pairs of state and fault, the rarest {rarest:?} times",
        tally.struck.len(),
        tally.seen.len(),
        tally.missed(),
        tally.pairs.len(),
    ));
    hand_over(
        "woven",
        &json!({
            "schedules": tally.schedules + stories.len() as u64,
            "faults": tally.faults,
            "calls_covered": tally.struck.len(),
            "violations": stories.len(),
            "ms_per_schedule": (each * 10.0).round() / 10.0,
        }),
    );
    none_broke(&stories);
    if count < ENOUGH {
        return;
    }
    assert!(tally.fired * 10 >= count * 9, "faults fired in {} of {count} schedules", tally.fired);
    assert_eq!(tally.missed(), Vec::<&(String, String)>::new(), "calls that no fault hit");
    for target in &targets {
        for kind in Kind::ALL {
            let times = tally.pairs.get(&(target.state.clone(), kind)).copied().unwrap_or(0);
            assert!(times >= 20, "{kind:?} hit calls of {} only {times} times", target.state);
        }
    }
    for end in ["Completed", "RolledBack", "Blocked", "Held", "Contained", "FAILED", "ABORTED"] {
        let times = tally.ends.get(end).copied().unwrap_or(0);
        assert!(times >= 20, "only {times} runs ended {end}");
    }
}

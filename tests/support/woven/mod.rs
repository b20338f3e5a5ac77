//! Woven schedules: runs, people and faults that meet in an order drawn from a seed.
//!
//! A schedule is a [`Way`] through the machine, faults aimed at the calls of its states, weather (how late IAM,
//! CloudTrail and the network are), a second run and people who get in between. Calls take time, drawn from the
//! seed, so that whatever goes on at once meets between any two calls. The promises are looked at after every
//! call; at the end the faults cease, and undisturbed runs must bring everything to a sound end.
//!
//! A seed is the whole schedule: the same one gives the same calls in the same order.

mod alarms;
mod draw;
mod people;
mod story;
mod tally;
mod ways;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Duration;

use keywheel::rotation::Outcome;
use serde_json::{Value, json};

use crate::faults::Plan;
use crate::invariants::replaced_as_leaked;
use crate::walker::{Control, join};
use crate::world::{Run, SECRET, USER, World, hours};

pub use alarms::{Alarms, play_alarms};
pub use draw::{Schedule, Target};
pub use people::Deed;
pub use story::{Story, promises_in};
pub use tally::{Reached, Tally, targets};
pub use ways::Way;

type Work<'a> = Pin<Box<dyn Future<Output = Option<Run>> + 'a>>;

/// Plays one schedule; what it reached, or the story of how a promise was broken.
pub fn play(schedule: &Schedule, scene: impl FnOnce(&mut World)) -> Result<Reached, Box<Story>> {
    // The SDK draws the pauses between its retries from here.
    fastrand::seed(schedule.seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut seen = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut world = schedule.way.world();
            scene(&mut world);
            seen = Some(world.fake.clone());
            perform(schedule, &world).await
        })
    }));
    let fake = seen.expect("a world was made");
    match played {
        Ok(Ok(())) => Ok(Reached::of(&fake)),
        Ok(Err(what)) => Err(Box::new(Story::of(schedule.seed, schedule, &fake, what))),
        Err(panic) => Err(Box::new(Story::of(schedule.seed, schedule, &fake, words(&*panic)))),
    }
}

/// What a panic said.
pub fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

async fn perform(schedule: &Schedule, world: &World) -> Result<(), String> {
    world.consumer();
    let input = schedule.way.prepare(world).await;
    {
        let mut state = world.fake.state();
        schedule.weather.set(&mut state.options);
        state.latency = schedule.latency();
        state.plan = Plan::new(schedule.faults());
        state.woven = state.calls.len()..usize::MAX;
    }
    let main = schedule.run_id(0);
    let mut work: Vec<Work<'_>> = vec![Box::pin(start(world, schedule, 0, input))];
    for (number, (after, input)) in schedule.others.iter().enumerate() {
        work.push(Box::pin(async move {
            tokio::time::sleep(*after).await;
            start(world, schedule, number + 1, input.clone()).await
        }));
    }
    for (after, deed) in &schedule.deeds {
        work.push(Box::pin(async move {
            tokio::time::sleep(*after).await;
            deed.do_it(world, main).await;
            None
        }));
    }
    join(work).await;
    settle(world).await
}

async fn start(world: &World, schedule: &Schedule, number: usize, input: Value) -> Option<Run> {
    let id = schedule.run_id(number);
    Some(world.run_watched(id, input, &mut |_, _| Control::Go).await)
}

/// The faults are over, nobody interferes: what was begun must now come to a sound end.
async fn settle(world: &World) -> Result<(), String> {
    {
        let mut state = world.fake.state();
        state.woven.end = state.calls.len();
        state.plan = Plan::default();
        state.standing = Plan::default();
        state.latency = None;
        state.denied.clear();
        state.options.valid_after = Duration::ZERO;
        state.options.bus_fails_entries = false;
    }
    world.mode("live");
    let mut last = String::new();
    for turn in 0..5 {
        tokio::time::sleep(hours(if turn == 0 { 1 } else { 24 * 20 })).await;
        let leaked = world.fake.state().leaked_and_active();
        let reason = if leaked.is_some() { "leaked" } else { "manual" };
        let run = world.run(json!({"secret": SECRET, "reason": reason})).await;
        last = format!("{:?} {:?}", run.outcome(), run.doc.as_ref().and_then(|doc| doc.why.clone()));
        if let Some(done) = settled(world, &run) {
            world.assert_promises();
            let overrun = world.fake.state().users[USER].keys.iter().filter(|key| key.exists()).count() > 2;
            if !overrun && !world.fake.state().is_with_people() {
                world.assert_sound();
            }
            return done.map_err(|what| format!("{what}: {last}"));
        }
    }
    Err(format!("five undisturbed runs did not bring it to an end: {last}"))
}

/// Whether the end is reached; an error where it is no good one.
fn settled(world: &World, run: &Run) -> Option<Result<(), String>> {
    let state = world.fake.state();
    let keys: Vec<_> = state.users[USER].keys.iter().filter(|key| key.exists()).collect();
    // A key that people made, or whose labels they moved, is theirs to decide on.
    let theirs = state.is_with_people();
    let leaked = keys.iter().any(|key| state.watch.leaked.contains(&key.id));
    let active = keys.iter().find(|key| state.watch.leaked.contains(&key.id) && key.is_active());
    // Superseded by a rotation that knew of no leak, it is one of two keys that might be meant: a person says.
    let ambiguous = run.why() == "SlotsFull" && replaced_as_leaked(&state).is_none();
    if let Some(key) = active.filter(|_| !theirs && !ambiguous) {
        let text = format!("P3: the leaked key {} is still Active", key.id);
        return (run.outcome() == Some(Outcome::Blocked)).then_some(Err(text));
    }
    // A once-current key without any date of use is unknown, not quiet: a person decides on it.
    let unknown = run.doc.as_ref().and_then(|doc| doc.old.as_ref()).is_some_and(|old| {
        keys.iter().any(|key| key.id == old.key.as_str() && key.uses.is_empty() && key.is_active())
    });
    let good = match run.outcome() {
        Some(Outcome::Completed) => theirs || keys.len() == 1,
        Some(Outcome::Contained) => true,
        // More keys than IAM allows, made by creations that overtook each other: a person is told which.
        // People deleted the key in the moment in which the label came to it.
        Some(Outcome::Blocked) if run.why() == "CurrentKeyUnknown" => {
            state.secret(SECRET).current_key().is_some_and(|key| state.watch.by_people.contains(&key))
        }
        Some(Outcome::Blocked) if keys.len() > 2 => run.why() == "SlotsFull",
        Some(Outcome::Blocked) => theirs || leaked && ["LeakedKeyKept", "SlotsFull"].contains(&run.why()),
        Some(Outcome::Held) => unknown,
        _ => false,
    };
    good.then_some(Ok(()))
}

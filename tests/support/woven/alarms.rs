//! Alarms woven with faults, thieves, people and rotations: a managed user's current key leaks.
//!
//! As with rotations a seed is the whole schedule. The promises are looked at after every call. At the end the faults
//! cease, the leak is reported once more, and the key must be Inactive or gone, nobody denied anything for good, and
//! the application must have a key that has not leaked, or people must have been told what is in its way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Duration;

use fastrand::Rng;
use keywheel::RunId;
use keywheel::rotation::Outcome;
use serde_json::{Value, json};

use super::draw::Weather;
use super::tally::Reached;
use super::{Story, words};
use crate::alarm::{finding, made_active, report};
use crate::fake::Maker;
use crate::faults::{Fault, Kind, Plan};
use crate::walker::{Control, join};
use crate::world::{SECRET, USER, World, hours, request};

/// How long what fails for good does so: then somebody has mended it.
const BROKEN: Duration = Duration::from_hours(6);

/// What else happens while a leak is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Another source finds the same key.
    FoundAgain,
    /// A scanner reports it over the bus.
    Reported,
    /// The thief makes the leaked key Active, and CloudTrail records it.
    MadeActive,
    /// The thief makes another key, where a slot is free.
    Minted,
    /// A person deletes the leaked key, where the secret does not name it any more.
    Deleted,
    /// A scheduled rotation starts.
    Rotation,
    /// A person replaces the leaked key.
    Replaced,
    /// A person turns the last promotion back.
    TurnedBack,
}

impl Event {
    const ALL: [Self; 8] = [
        Self::FoundAgain,
        Self::Reported,
        Self::MadeActive,
        Self::Minted,
        Self::Deleted,
        Self::Rotation,
        Self::Replaced,
        Self::TurnedBack,
    ];
}

/// One schedule.
#[derive(Debug, Clone)]
pub struct Alarms {
    /// What it is drawn from.
    pub seed: u64,
    /// Whether a rotation is in its overlap when the key that it made leaks.
    pub in_overlap: bool,
    /// The faults: how many calls come before, how it fails, and how many calls of that name do.
    pub faults: Vec<(usize, Kind, usize)>,
    /// How late everything is.
    pub weather: Weather,
    /// What else happens, and when.
    pub events: Vec<(Duration, Event)>,
    woven: bool,
}

fn moment(rng: &mut Rng) -> Duration {
    match rng.u8(..6) {
        0 | 1 => Duration::from_millis(rng.u64(..5_000)),
        2 => Duration::from_millis(rng.u64(..30_000)),
        3 => Duration::from_secs(rng.u64(..15 * 60)),
        4 => Duration::from_secs(rng.u64(..8 * 3600)),
        _ => Duration::from_secs(rng.u64(..48 * 3600)),
    }
}

impl Alarms {
    /// Draws a schedule.
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6c65_616b);
        let faults = (0..rng.choice([0, 1, 1, 1, 2, 3]).unwrap())
            .map(|number| {
                // Each kind gets its turn; an alarm makes some sixty calls, most of what matters among the first.
                let turn = usize::try_from(seed % 10).unwrap();
                let kind = if number == 0 { Kind::ALL[turn] } else { *rng.choice(Kind::ALL.iter()).unwrap() };
                let before = if rng.bool() { rng.usize(..15) } else { rng.usize(..90) };
                (before, kind, rng.choice([1, 1, 1, 2, 4, 12, usize::MAX]).unwrap())
            })
            .collect();
        let events = (0..rng.choice([0, 1, 1, 2, 2, 3]).unwrap())
            .map(|_| (moment(&mut rng), *rng.choice(Event::ALL.iter()).unwrap()))
            .collect();
        let weather = Weather::draw(&mut rng);
        let (in_overlap, woven) = (rng.u8(..4) == 0, rng.u8(..4) > 0);
        Self { seed, in_overlap, faults, weather, events, woven }
    }

    fn id(&self, number: usize) -> RunId {
        let mut rng = Rng::with_seed(self.seed ^ (u64::try_from(number).unwrap() << 56));
        let id = uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid();
        id.to_string().parse().unwrap()
    }
}

/// Plays one schedule; what it reached, or the story of how a promise was broken.
pub fn play_alarms(schedule: &Alarms) -> Result<Reached, Box<Story>> {
    fastrand::seed(schedule.seed);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let mut seen = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let world = World::new();
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

type Work<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

async fn perform(schedule: &Alarms, world: &World) -> Result<(), String> {
    world.consumer();
    world.containment("on");
    let mut work: Vec<Work<'_>> = Vec::new();
    if schedule.in_overlap {
        work.push(Box::pin(async {
            world.run_watched(schedule.id(0), request(), &mut |_, _| Control::Go).await;
        }));
    }
    work.push(Box::pin(async {
        if schedule.in_overlap {
            tokio::time::sleep(hours(2)).await;
        }
        leak(schedule, world).await;
    }));
    join(work).await;
    settle(world).await
}

/// The key that is current leaks, and all of it happens.
async fn leak(schedule: &Alarms, world: &World) {
    let key = world.current_key();
    world.leak(&key);
    {
        let mut state = world.fake.state();
        schedule.weather.set(&mut state.options);
        state.latency = schedule.woven.then(|| Rng::with_seed(schedule.seed));
        let fault = |(before, kind, times): &(usize, Kind, usize)| Fault::at(*before, *kind).times(*times);
        state.plan = Plan::new(schedule.faults.iter().map(fault));
        state.woven = state.calls.len()..usize::MAX;
    }
    let mut work: Vec<Work<'_>> = vec![
        Box::pin(async {
            world.alarm(finding(&key, USER)).await;
        }),
        Box::pin(async {
            tokio::time::sleep(BROKEN).await;
            let mut state = world.fake.state();
            (state.plan, state.standing) = (Plan::default(), Plan::default());
        }),
    ];
    for (number, (after, event)) in schedule.events.iter().enumerate() {
        let key = &key;
        work.push(Box::pin(async move {
            tokio::time::sleep(*after).await;
            event.happen(world, key, schedule.id(number + 1)).await;
        }));
    }
    join(work).await;
}

fn deed(world: &World, text: String) {
    let mut state = world.fake.state();
    let now = state.now();
    state.deeds.push((now, text));
}

impl Event {
    async fn happen(self, world: &World, key: &str, run: RunId) {
        deed(world, format!("{self:?}"));
        let run_with = |input: Value| async move {
            world.run_watched(run, input, &mut |_, _| Control::Go).await;
        };
        match self {
            Self::FoundAgain => drop(world.alarm(finding(key, USER)).await),
            Self::Reported => drop(world.alarm(report([key])).await),
            Self::MadeActive => {
                let there = world.fake.state().key(key).is_some();
                if there {
                    world.switch_key(key, true);
                    tokio::time::sleep(Duration::from_mins(2)).await;
                    world.alarm(made_active(key, USER)).await;
                }
            }
            Self::Minted => {
                let mut state = world.fake.state();
                if state.users[USER].keys.iter().filter(|key| key.exists()).count() < 2 {
                    state.add_key(USER, Maker::Stranger);
                }
            }
            Self::Deleted => {
                let unneeded = world.current_key() != key;
                let mut state = world.fake.state();
                if unneeded && state.key(key).is_some() {
                    let now = state.now();
                    state.key_mut(key).deleted = Some(now);
                    state.watch.by_people.insert(key.to_owned());
                }
            }
            Self::Rotation => run_with(request()).await,
            Self::Replaced if world.current_key() == key => {
                run_with(json!({"secret": SECRET, "reason": "leaked"})).await;
            }
            Self::Replaced => {}
            Self::TurnedBack => run_with(json!({"secret": SECRET, "roll_back": true})).await,
        }
    }
}

/// The faults are over, nobody interferes: the leak is reported once more.
async fn settle(world: &World) -> Result<(), String> {
    {
        let mut state = world.fake.state();
        state.woven.end = state.calls.len();
        (state.plan, state.standing) = (Plan::default(), Plan::default());
        state.latency = None;
        state.options.valid_after = Duration::ZERO;
    }
    tokio::time::sleep(hours(1)).await;
    let leaked: Vec<String> = world.fake.state().watch.leaked.iter().cloned().collect();
    for key in &leaked {
        if world.fake.state().key(key).is_some() {
            world.alarm(finding(key, USER)).await;
        }
        if world.is_active(key) {
            return Err(format!("P3: {key} is Active at the end"));
        }
    }
    let current = world.current_key();
    if leaked.contains(&current) {
        let run = world.run(json!({"secret": SECRET, "reason": "leaked"})).await;
        let replaced = run.outcome() == Some(Outcome::Contained) && !leaked.contains(&world.current_key());
        let told = run.outcome() == Some(Outcome::Blocked) && !run.why().is_empty();
        if !replaced && !told {
            return Err(format!("the application has no key: {:?} {}", run.outcome(), run.why()));
        }
    }
    let state = world.fake.state();
    if state.denies_keys(USER) {
        return Err("P3: the user is denied everything at the end".into());
    }
    let left: Vec<&String> =
        state.users[USER].inline.keys().filter(|name| name.starts_with("keywheel-")).collect();
    if !left.is_empty() {
        return Err(format!("P5: {left:?} are left on the user"));
    }
    drop(state);
    world.assert_promises();
    Ok(())
}

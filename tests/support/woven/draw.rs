//! From a seed to a schedule.

use std::time::Duration;

use fastrand::Rng;
use keywheel::RunId;
use serde_json::{Value, json};

use super::{Deed, Way};
use crate::fake::Options;
use crate::faults::{Fault, Kind};
use crate::world::{SECRET, hours, request};

/// A place to aim at: a state of a way, and how many calls it makes there undisturbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The state.
    pub state: String,
    /// The ways that enter it, with the number of their calls there.
    pub ways: Vec<(Way, usize)>,
}

/// How late everything is.
#[derive(Debug, Clone)]
pub struct Weather {
    valid_after: Option<Duration>,
    dies_after: Duration,
    list_lag: Duration,
    last_used_lag: Duration,
    trail_delay: Duration,
    limit_races: bool,
    page: usize,
}

impl Weather {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let seconds = |rng: &mut Rng, choices: &[u64]| Duration::from_secs(*rng.choice(choices).unwrap());
        Self {
            valid_after: Some(seconds(rng, &[0, 0, 5, 12])),
            dies_after: seconds(rng, &[0, 4]),
            list_lag: seconds(rng, &[0, 0, 0, 2, 6]),
            last_used_lag: seconds(rng, &[0, 4 * 3600]),
            trail_delay: seconds(rng, &[0, 120, 600]),
            limit_races: rng.u8(..5) == 0,
            page: if rng.bool() { 100 } else { 1 },
        }
    }

    /// Makes it so; a way that needs a key to be late keeps it late.
    pub(super) fn set(&self, options: &mut Options) {
        if let Some(late) = self.valid_after {
            options.valid_after = options.valid_after.max(late);
        }
        options.dies_after = self.dies_after;
        options.list_lag = self.list_lag;
        options.last_used_lag = self.last_used_lag;
        options.trail_delay = self.trail_delay;
        options.limit_races = self.limit_races;
        options.page = self.page;
    }
}

/// One schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// What it is drawn from.
    pub seed: u64,
    /// The way through the machine.
    pub way: Way,
    /// The faults, in words.
    pub aimed: Vec<Aimed>,
    /// How late everything is.
    pub weather: Weather,
    /// Runs beside the first: when, and their input.
    pub others: Vec<(Duration, Value)>,
    /// What people do, and when.
    pub deeds: Vec<(Duration, Deed)>,
    woven: bool,
}

/// One fault of a schedule.
#[derive(Debug, Clone)]
pub struct Aimed {
    /// The state whose call is hit.
    pub state: String,
    /// How many calls of that state come before.
    pub calls_before: usize,
    /// How it fails.
    pub kind: Kind,
    /// How many calls of that name are hit.
    pub times: usize,
}

impl Schedule {
    /// A way by itself: nothing is disturbed but what makes it that way.
    pub fn undisturbed(way: Way) -> Self {
        let weather = Weather {
            valid_after: None,
            dies_after: Duration::ZERO,
            list_lag: Duration::ZERO,
            last_used_lag: Duration::ZERO,
            trail_delay: Duration::from_mins(2),
            limit_races: false,
            page: 100,
        };
        Self { seed: 0, way, aimed: Vec::new(), weather, others: Vec::new(), deeds: Vec::new(), woven: false }
    }

    /// The same with so many items a page in every list.
    #[must_use]
    pub fn paged(self, page: usize) -> Self {
        Self { weather: Weather { page, ..self.weather }, ..self }
    }

    /// Draws a schedule. `targets` were found by running every way once; each state and kind of fault gets its
    /// turn, so that no state's calls are left out because other states make more of them.
    pub fn draw(seed: u64, targets: &[Target]) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x6b65_7977_6865_656c);
        let turn = usize::try_from(seed % u64::MAX).unwrap();
        let target = &targets[turn % targets.len()];
        let kind = Kind::ALL[turn / targets.len() % Kind::ALL.len()];
        let (way, calls) = *rng.choice(&target.ways).unwrap();
        let times = |rng: &mut Rng| rng.choice([1, 1, 1, 2, 3, 4, 12, usize::MAX]).unwrap();
        let first = Aimed {
            state: target.state.clone(),
            calls_before: rng.usize(..calls),
            kind,
            times: times(&mut rng),
        };
        let mut aimed = vec![first];
        if rng.u8(..5) < 2 {
            let here: Vec<(&str, usize)> = targets
                .iter()
                .filter_map(|target| {
                    let (_, calls) = target.ways.iter().find(|(other, _)| *other == way)?;
                    Some((target.state.as_str(), *calls))
                })
                .collect();
            let (state, calls) = *rng.choice(&here).unwrap();
            let kind = *rng.choice(Kind::ALL.iter()).unwrap();
            let (calls_before, times) = (rng.usize(..calls), times(&mut rng));
            aimed.push(Aimed { state: state.to_owned(), calls_before, kind, times });
        }
        let others = (0..rng.choice([0, 0, 0, 1, 1, 2]).unwrap())
            .map(|_| {
                let input = if rng.u8(..3) == 0 && way != Way::Leaked {
                    json!({"secret": SECRET, "roll_back": true})
                } else {
                    request()
                };
                (moment(&mut rng), input)
            })
            .collect();
        let deeds = (0..rng.choice([0, 0, 0, 1, 1, 2, 3]).unwrap())
            .map(|_| (moment(&mut rng), *rng.choice(Deed::ALL.iter()).unwrap()))
            .collect();
        let weather = Weather::draw(&mut rng);
        Self { seed, way, aimed, weather, others, deeds, woven: rng.u8(..4) > 0 }
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        let aimed = self
            .aimed
            .iter()
            .map(|aimed| Fault::within(&aimed.state, aimed.calls_before, aimed.kind).times(aimed.times));
        aimed.chain(self.way.own_faults()).collect()
    }

    pub(super) fn latency(&self) -> Option<Rng> {
        self.woven.then(|| Rng::with_seed(self.seed))
    }

    /// The id of the run of that number.
    pub(super) fn run_id(&self, number: usize) -> RunId {
        let mut rng = Rng::with_seed(self.seed ^ (u64::try_from(number).unwrap() << 56));
        let id = uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid();
        id.to_string().parse().unwrap()
    }
}

/// A moment after the start: while the new key is made, in the overlap, in the grace.
fn moment(rng: &mut Rng) -> Duration {
    match rng.u8(..6) {
        0 | 1 => Duration::from_millis(rng.u64(..8_000)),
        2 => Duration::from_millis(rng.u64(..90_000)),
        3 => Duration::from_secs(rng.u64(..2 * 3600)),
        4 => Duration::from_secs(rng.u64(..3 * 86_400)),
        _ => hours(24) + Duration::from_secs(rng.u64(..12 * 86_400)),
    }
}

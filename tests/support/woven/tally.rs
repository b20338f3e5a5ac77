//! What schedules reached, counted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Schedule;
use super::draw::Target;
use super::ways::Way;
use crate::fake::Fake;
use crate::faults::Kind;

/// What one schedule reached.
#[derive(Debug)]
pub struct Reached {
    /// The order of everything that happened, as a number.
    pub hash: u64,
    /// Every call: the state that made it, its name, and the fault that hit it.
    pub calls: Vec<(String, String, Option<Kind>)>,
    /// How the runs ended.
    pub ends: Vec<String>,
}

impl Reached {
    /// What a fake that was played on has seen since its scene was set.
    pub(super) fn of(fake: &Fake) -> Self {
        let state = fake.state();
        let to = state.woven.end.min(state.calls.len());
        let calls = &state.calls[state.woven.start.min(to)..to];
        let (began, ended) = (calls.first().map(|call| call.at), calls.last().map(|call| call.at));
        let mut hasher = DefaultHasher::new();
        let mut runs = Vec::new();
        for call in calls {
            // Which run, not which id: two schedules that differ in names only are the same.
            let run = runs.iter().position(|known| *known == call.run).unwrap_or_else(|| {
                runs.push(call.run);
                runs.len() - 1
            });
            let place = (run, &call.state, call.invocation.is_some(), &call.name);
            (place, call.fault, call.status, &call.code).hash(&mut hasher);
        }
        for (at, deed) in &state.deeds {
            let calls_before = state.calls.iter().filter(|call| call.at <= *at).count();
            (calls_before, deed).hash(&mut hasher);
        }
        let calls = calls
            .iter()
            .map(|call| (call.state.clone().unwrap_or_default(), call.name.clone(), call.fault))
            .collect();
        let in_time = |execution: &&crate::fake::Execution| {
            began.is_none_or(|began| execution.started >= began)
                && ended.is_none_or(|ended| execution.started <= ended)
        };
        let ends = state.executions.values().filter(in_time);
        Self { hash: hasher.finish(), calls, ends: ends.map(end).collect() }
    }
}

fn end(execution: &crate::fake::Execution) -> String {
    let output = execution.output.as_deref().filter(|_| execution.status == "SUCCEEDED");
    let output: Option<serde_json::Value> = output.and_then(|output| serde_json::from_str(output).ok());
    let outcome = output.as_ref().and_then(|output| output["outcome"].as_str());
    outcome.unwrap_or(&execution.status).to_owned()
}

/// What many schedules reached.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many were played.
    pub schedules: u64,
    /// How many faults fired.
    pub faults: u64,
    /// How many calls were made.
    pub calls: u64,
    /// In how many schedules one fired at least.
    pub fired: u64,
    /// The schedules, each by its order of events.
    pub distinct: HashSet<u64>,
    /// How often runs ended in each way.
    pub ends: BTreeMap<String, u64>,
    /// How often each kind of fault hit a call of each state.
    pub pairs: BTreeMap<(String, Kind), u64>,
    /// Every call of every state that was made.
    pub seen: BTreeSet<(String, String)>,
    /// Those that a fault hit.
    pub struck: BTreeSet<(String, String)>,
}

impl Tally {
    /// Counts one more schedule.
    pub fn add(&mut self, reached: Reached) {
        self.schedules += 1;
        self.distinct.insert(reached.hash);
        let mut faults = 0;
        for (state, name, fault) in reached.calls {
            self.calls += 1;
            let call = (state, name);
            if let Some(kind) = fault {
                faults += 1;
                *self.pairs.entry((call.0.clone(), kind)).or_default() += 1;
                self.struck.insert(call.clone());
            }
            self.seen.insert(call);
        }
        self.faults += faults;
        self.fired += u64::from(faults > 0);
        for end in reached.ends {
            *self.ends.entry(end).or_default() += 1;
        }
    }

    /// Counts what another one has counted.
    pub fn merge(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.faults += other.faults;
        self.calls += other.calls;
        self.fired += other.fired;
        self.distinct.extend(other.distinct);
        self.seen.extend(other.seen);
        self.struck.extend(other.struck);
        for (end, count) in other.ends {
            *self.ends.entry(end).or_default() += count;
        }
        for (pair, count) in other.pairs {
            *self.pairs.entry(pair).or_default() += count;
        }
    }

    /// The calls that no fault hit.
    pub fn missed(&self) -> Vec<&(String, String)> {
        self.seen.difference(&self.struck).collect()
    }
}

/// Where faults can be aimed: every state that makes calls on some way, found by going every way once.
pub fn targets() -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for way in Way::ALL {
        let reached =
            super::play(&Schedule::undisturbed(way), |_| {}).unwrap_or_else(|story| panic!("{story}"));
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (state, ..) in reached.calls {
            *counts.entry(state).or_default() += 1;
        }
        for (state, count) in counts {
            match targets.iter_mut().find(|target| target.state == state) {
                Some(target) => target.ways.push((way, count)),
                None => targets.push(Target { state, ways: vec![(way, count)] }),
            }
        }
    }
    targets
}

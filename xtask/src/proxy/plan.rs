//! Which call of a run is spoilt, and how: by its number, by its name, or by lot from a seed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a call is spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The caller may not.
    Refused,
    /// Slow down; nothing happened.
    Throttled,
    /// The connection breaks before anything happened.
    LostBefore,
    /// It happened, and the connection breaks.
    LostAfter,
    /// A 500; nothing happened.
    ErrorBefore,
    /// It happened, and a 500 says it did not.
    ErrorAfter,
    /// It happened, and the 200 cannot be read.
    GarbledAfter,
    /// It happened, and the connection breaks within the reply.
    CutAfter,
    /// The reply comes late, but while it is waited for.
    Late,
    /// No answer comes; nothing happened.
    TimeoutBefore,
    /// It happened, and the answer comes when nobody waits for it any more.
    TimeoutAfter,
    /// The Lambda is killed as it sends the request.
    KilledBefore,
    /// It happened, and the Lambda is killed before it learns of it.
    KilledAfter,
}

impl Kind {
    /// Whether the call reaches the emulator.
    pub(super) const fn has_effect(self) -> bool {
        use Kind::{CutAfter, ErrorAfter, GarbledAfter, KilledAfter, Late, LostAfter, TimeoutAfter};
        matches!(self, LostAfter | ErrorAfter | GarbledAfter | CutAfter | Late | TimeoutAfter | KilledAfter)
    }
}

/// A fault at the call of that number, counted from 0.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    number: usize,
    kind: Kind,
}

/// A fault at the next calls of that name; without `times` at all of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct On {
    call: String,
    kind: Kind,
    times: Option<usize>,
}

/// What a test asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Planned {
    pub(super) run: String,
    #[serde(default)]
    at: Vec<At>,
    #[serde(default)]
    on: Vec<On>,
    /// What the lots are drawn from.
    #[serde(default)]
    seed: u64,
    /// How many of a thousand calls are spoilt by lot.
    #[serde(default)]
    per_mille: u64,
    #[serde(default)]
    kinds: Vec<Kind>,
}

/// A fault that is due now.
pub(super) struct Strike {
    pub(super) run: String,
    pub(super) number: usize,
    pub(super) kind: Kind,
    pub(super) pause: Duration,
}

/// A fault that fell.
struct Fallen {
    number: usize,
    call: String,
    kind: Kind,
    killed: Option<String>,
}

/// The faults of one run.
pub(super) struct Plan {
    planned: Planned,
    calls: usize,
    fallen: Vec<Fallen>,
}

impl Plan {
    pub(super) fn new(planned: Planned) -> Self {
        Self { planned, calls: 0, fallen: Vec::new() }
    }

    /// The fault that the run's next call meets, if it does.
    pub(super) fn strike(&mut self, run: &str, call: &str) -> Option<Strike> {
        let number = self.calls;
        self.calls += 1;
        // Each number has lots of its own, so that what one call draws does not depend on those before it.
        let mut lots = Lots(self.planned.seed.wrapping_mul(0x0001_0001).wrapping_add(number as u64));
        let kind = self.at(number).or_else(|| self.on(call)).or_else(|| self.by_lot(&mut lots))?;
        let pause = Duration::from_millis(200 + lots.below(2_000));
        self.fallen.push(Fallen { number, call: call.to_owned(), kind, killed: None });
        Some(Strike { run: run.to_owned(), number, kind, pause })
    }

    fn at(&self, number: usize) -> Option<Kind> {
        self.planned.at.iter().find(|at| at.number == number).map(|at| at.kind)
    }

    fn on(&mut self, call: &str) -> Option<Kind> {
        let on = self.planned.on.iter_mut().find(|on| on.call == call && on.times != Some(0))?;
        on.times = on.times.map(|times| times - 1);
        Some(on.kind)
    }

    fn by_lot(&self, lots: &mut Lots) -> Option<Kind> {
        let hit = lots.below(1_000) < self.planned.per_mille;
        let kind = lots.below(self.planned.kinds.len().max(1) as u64);
        let kind = self.planned.kinds.get(usize::try_from(kind).ok()?);
        kind.filter(|_| hit).copied()
    }

    /// Notes which function's process was killed.
    pub(super) fn killed(&mut self, number: usize, function: Option<String>) {
        if let Some(fallen) = self.fallen.iter_mut().find(|fallen| fallen.number == number) {
            fallen.killed = function;
        }
    }

    /// How many calls the run has made, and the faults that fell.
    pub(super) fn told(&self) -> Value {
        let fallen = self.fallen.iter().map(|fallen| {
            json!({
                "number": fallen.number, "call": fallen.call, "kind": fallen.kind, "killed": fallen.killed,
            })
        });
        json!({ "calls": self.calls, "faults": fallen.collect::<Vec<_>>() })
    }
}

/// Numbers by lot (SplitMix64): the same seed draws the same on every machine.
struct Lots(u64);

impl Lots {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

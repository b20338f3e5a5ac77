//! Faults to come: which call is hit, how, and how often.
//!
//! A fault is aimed at a call by its number, not by its name, so that a new call is covered the day it is
//! written. One that goes on hits later calls of the same name too: the SDK's own retries would hide it otherwise.

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
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
    /// It happened, and the 200 cannot be read.
    GarbledAfter,
    /// No answer comes; nothing happened.
    TimeoutBefore,
    /// It happened, and no answer comes.
    TimeoutAfter,
    /// The process dies as it sends the request.
    KilledBefore,
    /// It happened, and the process dies before it learns of it.
    KilledAfter,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::Throttled,
        Self::LostBefore,
        Self::LostAfter,
        Self::ErrorBefore,
        Self::GarbledAfter,
        Self::TimeoutBefore,
        Self::TimeoutAfter,
        Self::KilledBefore,
        Self::KilledAfter,
    ];
}

#[derive(Debug, Clone)]
enum Aim {
    Number(usize),
    Name(String),
    State { state: String, calls_before: usize },
}

/// One fault.
#[derive(Debug, Clone)]
pub struct Fault {
    aim: Aim,
    kind: Kind,
    times: usize,
}

impl Fault {
    /// Hits the call of that number, counted from when the plan was made.
    pub fn at(number: usize, kind: Kind) -> Self {
        Self { aim: Aim::Number(number), kind, times: 1 }
    }

    /// Hits the next call of that name, such as `iam:CreateAccessKey`.
    pub fn on(name: &str, kind: Kind) -> Self {
        Self { aim: Aim::Name(name.to_owned()), kind, times: 1 }
    }

    /// Hits a call that a state makes: the one after so many others of that state.
    pub fn within(state: &str, calls_before: usize, kind: Kind) -> Self {
        Self { aim: Aim::State { state: state.to_owned(), calls_before }, kind, times: 1 }
    }

    /// Hits so many calls of the same name.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Hits every later call of the same name as well.
    #[must_use]
    pub fn for_good(self) -> Self {
        self.times(usize::MAX)
    }
}

/// All faults to come.
#[derive(Debug, Default)]
pub struct Plan {
    faults: Vec<Fault>,
    seen: usize,
    fired: usize,
}

impl Plan {
    /// A plan of these faults.
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { faults: faults.into_iter().collect(), seen: 0, fired: 0 }
    }

    /// How many calls were hit.
    pub fn fired(&self) -> usize {
        self.fired
    }

    /// Whether something has begun to fail and goes on failing until somebody mends it.
    pub fn lasts(&self) -> bool {
        self.fired > 0 && self.faults.iter().any(|fault| fault.times > 1)
    }

    /// How the next call fails, if it does.
    pub(crate) fn strike(&mut self, name: &str, state: Option<&str>) -> Option<Kind> {
        let number = self.seen;
        self.seen += 1;
        let mut hit = None;
        for (index, fault) in self.faults.iter_mut().enumerate().filter(|(_, fault)| fault.times > 0) {
            let aimed_here = match &mut fault.aim {
                Aim::Number(wanted) => *wanted == number,
                Aim::Name(wanted) => wanted == name,
                Aim::State { state: wanted, calls_before } if Some(wanted.as_str()) == state => {
                    let here = *calls_before == 0;
                    *calls_before = calls_before.saturating_sub(1);
                    here
                }
                Aim::State { .. } => false,
            };
            if aimed_here && hit.is_none() {
                hit = Some(index);
            }
        }
        let fault = self.faults.get_mut(hit?)?;
        fault.times -= 1;
        // From now on it is the name that is hit.
        fault.aim = Aim::Name(name.to_owned());
        self.fired += 1;
        Some(fault.kind)
    }
}

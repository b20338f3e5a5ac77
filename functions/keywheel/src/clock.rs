//! Time, as something a step is given: a run is then a function of its inputs.

use std::time::Duration;

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};

/// Tells the time and waits.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A clock that starts at the given time and follows tokio's, so that tests with paused time
    /// move both together.
    Tokio(Timestamp, tokio::time::Instant),
}

impl Clock {
    /// A clock that shows `start` now and follows tokio's time from here on.
    pub fn starting_at(start: Timestamp) -> Self {
        Self::Tokio(start, tokio::time::Instant::now())
    }

    /// The time, to the millisecond: what documents hold.
    pub fn now(&self) -> Timestamp {
        let now = match self {
            Self::System => Timestamp::now(),
            Self::Tokio(start, since) => after(*start, since.elapsed()),
        };
        now.round(TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Trunc)).unwrap_or(now)
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// `duration` after `start`; the end of time where that is later than any date.
pub fn after(start: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| start.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

/// A time for a machine's Wait state: whole seconds, rounded up, so that nobody wakes early.
pub fn wait_time(at: Timestamp) -> Timestamp {
    at.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).unwrap_or(at)
}

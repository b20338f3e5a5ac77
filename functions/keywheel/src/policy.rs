//! How long each stage of a rotation lasts, and what happens when the old key is still in use.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A duration written as people write it: `24h`, `4h 15m`, `7d`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

/// The longest duration a policy may name: an execution lives a year at most.
const LONGEST: Duration = Duration::from_hours(8784);

/// The seconds of a day.
const DAY: u64 = 24 * 60 * 60;

impl Span {
    /// A span of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
    /// A span of whole minutes.
    pub const fn minutes(minutes: u64) -> Self {
        Self::seconds(minutes * 60)
    }
    /// A span of whole hours.
    pub const fn hours(hours: u64) -> Self {
        Self::minutes(hours * 60)
    }
    /// A span of whole days of 24 hours.
    pub const fn days(days: u64) -> Self {
        Self::hours(days * 24)
    }
    /// As the standard library's duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= LONGEST => Ok(Self(duration)),
            Ok(_) => Err(format!("duration {text:?} is longer than a year")),
            Err(_) => {
                Err(format!("duration {text:?} is not understood: write it like \"24h\", \"15m\" or \"7d\""))
            }
        }
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0.as_secs() / DAY, self.0.as_secs() % DAY);
        // From a month on humantime counts in months of 30.44 days, and nobody recognises their 90 days.
        match (days, rest) {
            (0..30, _) => humantime::format_duration(self.0).fmt(f),
            (_, 0) => write!(f, "{days}days"),
            (_, rest) => write!(f, "{days}days {}", humantime::format_duration(Duration::from_secs(rest))),
        }
    }
}

/// What happens at the end of the longest overlap when the old key is still in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenStillInUse {
    /// The run ends Held: the old key stays Active and a person decides.
    #[default]
    Hold,
    /// The old key is made Inactive all the same.
    Deactivate,
}

/// One use recorded by IAM stands for up to this long.
pub const LAST_USED_SPAN: Duration = Duration::from_mins(15);

/// The shortest quiet window that IAM's records can answer for: a use shows up to 4 hours late,
/// and one record stands for 15 minutes.
pub const SHORTEST_QUIET_WINDOW: Span = Span::minutes(4 * 60 + 15);

/// The policy a run follows from its first step to its last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// How long both keys stay Active at least.
    pub overlap: Span,
    /// How long the run waits for the old key to fall quiet.
    pub max_overlap: Span,
    /// How long after the consumers should have changed over the last use is read.
    pub quiet_window: Span,
    /// How long the old key stays Inactive, recoverable, before it is deleted.
    pub grace: Span,
    /// How long consumers may cache the secret.
    pub cache: Span,
    /// What happens when the old key never falls quiet.
    pub when_still_in_use: WhenStillInUse,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            overlap: Span::hours(24),
            max_overlap: Span::days(14),
            quiet_window: Span::hours(24),
            grace: Span::days(7),
            cache: Span::hours(1),
            when_still_in_use: WhenStillInUse::Hold,
        }
    }
}

/// The part of a policy that a run's input may set; what is absent comes from the installation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyOverride {
    /// See [`Policy::overlap`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Span>,
    /// See [`Policy::max_overlap`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_overlap: Option<Span>,
    /// See [`Policy::quiet_window`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_window: Option<Span>,
    /// See [`Policy::grace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// See [`Policy::cache`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Span>,
    /// See [`Policy::when_still_in_use`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_still_in_use: Option<WhenStillInUse>,
}

impl Policy {
    /// This policy with a run's own wishes. A wish that cannot be kept is refused in words; a shorter
    /// quiet window than IAM's records can answer for is taken, since only tests ask for one.
    pub fn with(&self, wish: &PolicyOverride) -> Result<Self, String> {
        let policy = Self {
            overlap: wish.overlap.unwrap_or(self.overlap),
            max_overlap: wish.max_overlap.unwrap_or(self.max_overlap),
            quiet_window: wish.quiet_window.unwrap_or(self.quiet_window),
            grace: wish.grace.unwrap_or(self.grace),
            cache: wish.cache.unwrap_or(self.cache),
            when_still_in_use: wish.when_still_in_use.unwrap_or(self.when_still_in_use),
        };
        // Only a contradiction within the wish itself: the default of one field must not make
        // the other one, given alone, impossible.
        if let (Some(overlap), Some(max)) = (wish.overlap, wish.max_overlap)
            && overlap > max
        {
            return Err(format!("policy.overlap ({overlap}) is longer than policy.max_overlap ({max})"));
        }
        Ok(Self { max_overlap: policy.max_overlap.max(policy.overlap), ..policy })
    }

    /// How long after the promotion a use of the old key still says nothing: consumers may hold the old
    /// pair for their cache time, and IAM's record of it covers 15 minutes.
    ///
    /// A run that asked for a quiet window below what IAM's records allow is a rehearsal; there the
    /// overlap bounds this time, or no rehearsal would end within the hour.
    pub fn settling(&self) -> Duration {
        let settling = self.cache.get() + LAST_USED_SPAN;
        if self.quiet_window < SHORTEST_QUIET_WINDOW { settling.min(self.overlap.get()) } else { settling }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_write_like_people_do() {
        for (text, span) in
            [("24h", Span::hours(24)), ("0s", Span::seconds(0)), ("4h 15m", Span::minutes(255))]
        {
            assert_eq!(text.parse::<Span>().unwrap(), span);
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        for (text, span) in [("90days", Span::days(90)), ("45days 12h", Span::hours(45 * 24 + 12))] {
            assert_eq!(span.to_string(), text);
            assert_eq!(text.parse::<Span>().unwrap(), span);
        }
        for text in ["", "5", "soon", "-1h", "3 fortnights", "9999999d"] {
            assert!(text.parse::<Span>().unwrap_err().contains(text));
        }
    }

    #[test]
    fn the_careful_settling_time_is_bounded_only_in_a_rehearsal() {
        let careful = Policy { overlap: Span::seconds(10), ..Policy::default() };
        assert_eq!(careful.settling(), Duration::from_mins(75));
        let rehearsal = Policy { quiet_window: Span::seconds(5), ..careful };
        assert_eq!(rehearsal.settling(), Duration::from_secs(10));
    }

    #[test]
    fn a_contradiction_is_refused_and_a_single_wish_is_kept() {
        let wish = |json| serde_json::from_str::<PolicyOverride>(json).unwrap();
        assert!(Policy::default().with(&wish(r#"{"overlap":"2h","max_overlap":"1h"}"#)).is_err());
        let policy = Policy::default().with(&wish(r#"{"max_overlap":"0s"}"#)).unwrap();
        assert_eq!(policy.max_overlap, policy.overlap);
        let policy = Policy::default().with(&wish(r#"{"overlap":"20d"}"#)).unwrap();
        assert_eq!(policy.max_overlap, Span::days(20));
        assert!(serde_json::from_str::<PolicyOverride>(r#"{"overlaps":"1h"}"#).is_err());
    }

    #[test]
    fn the_shortest_quiet_window_is_iams_lag_and_span_and_no_rehearsal() {
        assert_eq!(SHORTEST_QUIET_WINDOW, Span::seconds(4 * 3600 + 15 * 60));
        let shortest =
            Policy { quiet_window: SHORTEST_QUIET_WINDOW, overlap: Span::seconds(10), ..Policy::default() };
        assert_eq!(shortest.settling(), Duration::from_mins(75));
    }

    #[test]
    fn a_policy_is_written_as_it_is_read_and_its_bounds_may_touch() {
        let text = serde_json::to_string(&Span::hours(24)).unwrap();
        assert_eq!(serde_json::from_str::<Span>(&text).unwrap(), Span::hours(24));
        let both = PolicyOverride {
            overlap: Some(Span::hours(2)),
            max_overlap: Some(Span::hours(2)),
            ..PolicyOverride::default()
        };
        assert_eq!(Policy::default().with(&both).unwrap().max_overlap, Span::hours(2));
        let year = Span::days(366);
        assert_eq!(year.to_string().parse::<Span>().unwrap(), year);
    }
}

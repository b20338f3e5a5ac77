//! The freezes of the pushed policy, as runs under way know them: a parameter that `keywheel policy push` writes.
//!
//! A campaign has its policy with it. A run has none, and waits for longer than any campaign lives. So the two steps
//! that take a superseded key away read the freezes anew, in the call that reads the switch. A parameter that is
//! missing is no freeze: so it is before the first push. One that cannot be understood is a freeze whose end nobody
//! knows: a key that stays for too long can still go, and one that is gone on a day on which nobody may touch anything
//! is what a freeze was to prevent.

use std::time::Duration;

use jiff::Timestamp;

use super::policy::Freeze;
use crate::clock::after;

/// The longest text that a parameter of the standard tier holds.
const LONGEST: usize = 4096;

/// How often, at the least, a freeze is looked at again. A policy that is pushed meanwhile may end it.
const LOOK_DAILY: Duration = Duration::from_hours(24);

/// Where they are kept, for the given stage.
pub fn parameter(stage: &str) -> String {
    format!("/keywheel/{stage}/freeze")
}

/// What is written there, if a parameter holds so much.
pub fn text(freezes: &[Freeze]) -> Result<String, String> {
    let text = serde_json::to_string(freezes).map_err(|error| error.to_string())?;
    if text.len() > LONGEST {
        return Err(format!("they take {} characters, and a parameter holds {LONGEST}", text.len()));
    }
    Ok(text)
}

/// What the parameter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freezes {
    /// These.
    Known(Vec<Freeze>),
    /// Nobody knows, for this reason.
    Unknown(String),
}

/// A freeze that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// When it ends; `None` where nobody knows.
    pub until: Option<Timestamp>,
    /// Why nothing is touched, as part of a sentence.
    pub why: String,
}

impl Freezes {
    /// What the text of a stage's parameter says; `None` where there is no such parameter.
    pub fn read(stage: &str, text: Option<&str>) -> Self {
        match text.map(serde_json::from_str::<Vec<Freeze>>) {
            None => Self::Known(Vec::new()),
            Some(Ok(freezes)) => Self::Known(freezes),
            Some(Err(error)) => {
                Self::Unknown(format!("the freezes in {} cannot be understood ({error})", parameter(stage)))
            }
        }
    }

    /// What holds at `now`; of several freezes the one that ends last.
    pub fn holding(&self, now: Timestamp) -> Option<Frozen> {
        match self {
            Self::Known(freezes) => {
                let holding = freezes.iter().filter(|freeze| freeze.holds(now));
                let last = holding.max_by_key(|freeze| freeze.until)?;
                let why = format!("a freeze holds until {} ({})", last.until, last.reason);
                Some(Frozen { until: Some(last.until), why })
            }
            Self::Unknown(why) => Some(Frozen { until: None, why: why.clone() }),
        }
    }

    /// Whether it says, of what is not over at `now`, just this.
    pub fn says(&self, freezes: &[Freeze], now: Timestamp) -> bool {
        match self {
            Self::Known(known) => known.iter().filter(|freeze| now < freeze.until).eq(freezes),
            Self::Unknown(_) => false,
        }
    }
}

impl Frozen {
    /// When to look again, where its end is known: at the end, and every day before it.
    pub fn look_again(&self, now: Timestamp) -> Option<Timestamp> {
        Some(self.until?.min(after(now, LOOK_DAILY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn freeze(from: &str, until: &str, reason: &str) -> Freeze {
        Freeze { from: at(from), until: at(until), reason: reason.into() }
    }

    fn two() -> Vec<Freeze> {
        vec![
            freeze("2026-12-20T00:00:00Z", "2027-01-04T00:00:00Z", "year end"),
            freeze("2027-01-03T00:00:00Z", "2027-01-06T00:00:00Z", "a move"),
        ]
    }

    #[test]
    fn what_is_written_is_read_again_and_holds_within_its_borders() {
        let text = text(&two()).unwrap();
        let freezes = Freezes::read("prod", Some(&text));
        assert_eq!(freezes, Freezes::Known(two()));
        for (now, until) in [
            ("2026-12-19T23:59:59Z", None),
            ("2026-12-20T00:00:00Z", Some("2027-01-04T00:00:00Z")),
            ("2027-01-02T23:59:59Z", Some("2027-01-04T00:00:00Z")),
            // Where two hold, the one that ends last says until when.
            ("2027-01-03T00:00:00Z", Some("2027-01-06T00:00:00Z")),
            ("2027-01-05T23:59:59Z", Some("2027-01-06T00:00:00Z")),
            ("2027-01-06T00:00:00Z", None),
        ] {
            let frozen = freezes.holding(at(now));
            assert_eq!(frozen.and_then(|frozen| frozen.until), until.map(at), "{now}");
        }
        let frozen = freezes.holding(at("2026-12-24T12:00:00Z")).unwrap();
        assert_eq!(frozen.why, "a freeze holds until 2027-01-04T00:00:00Z (year end)");
    }

    #[test]
    fn a_parameter_that_is_missing_is_no_freeze_and_one_that_is_not_understood_is_one_without_end() {
        let now = at("2026-12-24T12:00:00Z");
        assert_eq!(Freezes::read("prod", None).holding(now), None);
        assert_eq!(Freezes::read("prod", Some("[]")).holding(now), None);
        for odd in [
            "",
            "soon",
            "{}",
            "null",
            "[{\"from\": \"2026-12-20\"}]",
            "[{\"until\": \"2027-01-04T00:00:00Z\"}]",
        ] {
            let frozen = Freezes::read("prod", Some(odd)).holding(now).unwrap();
            assert_eq!((frozen.until, frozen.look_again(now)), (None, None), "{odd}");
            assert!(frozen.why.starts_with("the freezes in /keywheel/prod/freeze cannot be"), "{frozen:?}");
        }
    }

    #[test]
    fn a_freeze_is_looked_at_again_at_its_end_and_every_day_before_it() {
        let frozen = Frozen { until: Some(at("2027-01-04T00:00:00Z")), why: String::new() };
        for (now, next) in [
            ("2026-12-24T12:00:00Z", "2026-12-25T12:00:00Z"),
            ("2027-01-03T00:00:00Z", "2027-01-04T00:00:00Z"),
            ("2027-01-03T23:59:59Z", "2027-01-04T00:00:00Z"),
        ] {
            assert_eq!(frozen.look_again(at(now)), Some(at(next)), "{now}");
        }
    }

    #[test]
    fn what_is_over_makes_no_difference() {
        let (known, empty) = (Freezes::Known(two()), Freezes::Known(Vec::new()));
        let [first, last] = ["2026-12-24T12:00:00Z", "2027-01-04T00:00:00Z"].map(at);
        assert!(known.says(&two(), first) && !known.says(&two()[1..], first));
        assert!(known.says(&two()[1..], last) && !known.says(&two(), last));
        assert!(empty.says(&[], first) && !empty.says(&two(), first));
        assert!(!Freezes::Unknown("x".into()).says(&[], first));
    }

    #[test]
    fn more_than_a_parameter_holds_is_refused() {
        let long = |reason: usize| {
            text(&[freeze("2026-12-20T00:00:00Z", "2027-01-04T00:00:00Z", &"x".repeat(reason))])
        };
        let rest = long(0).unwrap().len();
        assert!(long(4096 - rest).is_ok());
        assert!(long(4097 - rest).unwrap_err().contains("4097 characters"));
    }
}

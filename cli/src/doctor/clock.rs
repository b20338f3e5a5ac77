//! How far this computer's clock is from AWS's: every answer carries its date.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::BoxError;
use aws_sdk_sts::primitives::{DateTime, DateTimeFormat};
use jiff::{SignedDuration, Timestamp};
use keywheel::StepError;

use super::Check;
use crate::place::Place;

/// A date has no parts of a second, and an answer takes its time. Beyond this the clock is wrong.
const OFF: SignedDuration = SignedDuration::from_secs(30);

/// What an answer told of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// This clock is so far ahead.
    Ahead(SignedDuration),
    /// It had no date.
    Nothing,
}

/// Notes how far ahead of an answer's date this clock is.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<Mutex<Option<SignedDuration>>>);

impl Intercept for Heard {
    fn name(&self) -> &'static str {
        "Heard"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let ahead = date.and_then(|date| ahead(date, Timestamp::now()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
        Ok(())
    }
}

fn ahead(date: &str, now: Timestamp) -> Option<SignedDuration> {
    let date = DateTime::from_str(date, DateTimeFormat::HttpDate).ok()?;
    Some(now.duration_since(facts::timestamp(&date)?))
}

/// Asks, and compares the answer's date with this clock.
pub(super) async fn read(place: &Place) -> Result<Told, StepError> {
    let heard = Heard::default();
    let call = aws_sdk_sts::Client::new(place.config()).get_caller_identity().customize();
    let told = call.interceptor(heard.clone()).send().await;
    told.map_err(|error| StepError::from_sdk("sts:GetCallerIdentity", &error))?;
    let ahead = *heard.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(ahead.map_or(Told::Nothing, Told::Ahead))
}

/// Whether the clock is right.
pub(super) fn check(told: Told) -> Check {
    let remedy = "Let this computer take its time by NTP: AWS refuses what is signed five minutes off.";
    match told {
        Told::Nothing => Check::bad("clock", "AWS's answer had no date to compare this clock with", remedy),
        Told::Ahead(ahead) if ahead.abs() <= OFF => Check::good("clock", "this clock and AWS's agree"),
        Told::Ahead(ahead) => {
            let way = if ahead.is_negative() { "behind" } else { "ahead of" };
            let far = ahead.abs().as_secs();
            Check::bad(
                "clock",
                format!("this clock is {far} s {way} AWS's, and so are the ages shown"),
                remedy,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_date_tells_how_far_ahead_the_clock_is() {
        let now: Timestamp = "2026-03-01T10:02:00Z".parse().unwrap();
        assert_eq!(ahead("Sun, 01 Mar 2026 10:00:00 GMT", now), Some(SignedDuration::from_secs(120)));
        assert_eq!(ahead("soon", now), None);
        assert!(check(Told::Ahead(SignedDuration::from_secs(-30))).good);
        assert!(check(Told::Ahead(SignedDuration::from_secs(-31))).text.contains("31 s behind"));
        assert!(check(Told::Ahead(SignedDuration::from_secs(120))).text.contains("120 s ahead of"));
    }
}

//! `keywheel drill`: a throwaway user's key leaks, and the time until it is dead is measured.
//!
//! Nothing is simulated: the event goes through the rule that a real one goes through, and what is asked afterwards
//! is IAM, with the leaked session's own credentials. Whatever happens, all that was made is removed.

mod events;
mod stage;

use std::time::{Duration, Instant};

use keywheel::StepError;
use keywheel::policy::Span;
use keywheel::switch::{Containment, Mode};
use serde_json::{Value, json};

use crate::args::Drill;
use crate::error::{Exit, Result, Trouble};
use crate::output::{Out, table};
use crate::place::Place;
use crate::switches::Switches;
use crate::time;
use stage::Stage;

pub(crate) use events::Family;

/// Within what time the key must be Inactive, unless it is said.
const BOUND: Span = Span::seconds(60);
/// How much later than the key its session must be denied: that is the very next step.
const DENIED_AFTER: Duration = Duration::from_secs(5);
/// How long all of it is waited for, and so within what time the application must have another key: a rotation has no
/// promise of seconds.
const PATIENCE: Duration = Duration::from_mins(5);
/// In place of a time, where something did not come to pass.
const NEVER: &str = "never";
/// How often is looked.
const EVERY: Duration = Duration::from_millis(200);

/// From the event on, after how long something was so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Times {
    inactive: Option<Duration>,
    denied: Option<Duration>,
    replaced: Option<Duration>,
}

impl Times {
    const fn all(&self) -> bool {
        self.inactive.is_some() && self.denied.is_some() && self.replaced.is_some()
    }

    /// What was not so in time, each with the bound that was passed.
    fn failures(&self, bounds: &Bounds) -> Vec<String> {
        let failure = |so: &str, not: &str, took: Option<Duration>, bound: Duration| match took {
            None => Some(format!("{not} within {}", time::short(PATIENCE))),
            Some(took) if took > bound => Some(format!(
                "{so} after {:.1} s, and the bound for that is {}",
                took.as_secs_f64(),
                time::short(bound)
            )),
            Some(_) => None,
        };
        let failures = [
            failure("the key was Inactive", "the key was not Inactive", self.inactive, bounds.inactive),
            failure("the session was denied", "the session was not denied", self.denied, bounds.denied),
            failure(
                "the application had a key",
                "the application got no key",
                self.replaced,
                bounds.replaced,
            ),
        ];
        failures.into_iter().flatten().collect()
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |what: &str, took: Option<Duration>| {
            vec![
                what.to_owned(),
                took.map_or_else(|| NEVER.to_owned(), |took| format!("{:.1} s", took.as_secs_f64())),
            ]
        };
        vec![
            row("key Inactive", self.inactive),
            row("its session denied", self.denied),
            row("application with another key", self.replaced),
        ]
    }

    fn json(&self) -> Value {
        let millis = |took: Option<Duration>| took.and_then(|took| u64::try_from(took.as_millis()).ok());
        json!({
            "inactive_ms": millis(self.inactive),
            "denied_ms": millis(self.denied),
            "replaced_ms": millis(self.replaced),
        })
    }
}

/// From the event on, within what time each of them must be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    inactive: Duration,
    denied: Duration,
    replaced: Duration,
}

impl Bounds {
    /// Those that follow from the one for Inactive.
    fn of(inactive: Duration) -> Self {
        Self { inactive, denied: (inactive + DENIED_AFTER).min(PATIENCE), replaced: PATIENCE }
    }

    fn line(&self) -> String {
        let [inactive, denied, replaced] = [self.inactive, self.denied, self.replaced].map(time::short);
        format!("the bounds are {inactive}, {denied} and {replaced}")
    }
}

/// Where the result of the last one is kept; Parameter Store keeps the hundred before it.
pub(crate) fn parameter(stage: &str) -> String {
    format!("/keywheel/{stage}/drill")
}

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &Drill) -> Result<Exit> {
    out.note(&place.line());
    let bound = args.bound.unwrap_or(BOUND).get();
    if bound.is_zero() || bound > PATIENCE {
        return Err(Trouble::new(
            format!("The bound must be more than nothing and at most {}.", time::short(PATIENCE)),
            "Nothing was changed. Give --bound 60s, for example.",
        ));
    }
    let bounds = Bounds::of(bound);
    args.family.may_be_sent(place)?;
    ready(&Switches::read(place).await?)?;
    out.note(
        "A user, a key and a secret are made for this, the key leaks, and all of it is removed. People are told as in earnest.",
    );
    out.confirm("Begin?", args.yes)?;

    let mut stage = Stage::new();
    out.note(&format!("The throwaway user is {}.", stage.user));
    let played = tokio::select! {
        played = play(place, out, &mut stage, args.family) => played,
        _ = tokio::signal::ctrl_c() => Err(Trouble::new("The drill was interrupted.", "")),
    };
    let left = stage.remove(place).await;
    let times = match played {
        Ok(times) => times,
        Err(trouble) => {
            // An earlier drill that passed must not stand for this one.
            let result = json!({
                "at": jiff::Timestamp::now(), "by": place.caller, "family": args.family, "passed": false,
                "failures": [trouble.text], "left": left,
            });
            if let Err(error) = keep(place, &result).await {
                out.trouble(Some("the record of the drill"), &Trouble::from(error));
            }
            let cleared = if left.is_empty() {
                "All that was made is removed."
            } else {
                "Remove what is left behind by hand."
            };
            return Err(Trouble::new(
                trouble.text,
                format!("{} {cleared}", trouble.remedy).trim().to_owned(),
            ));
        }
    };
    let mut failures = times.failures(&bounds);
    failures.extend(left.iter().map(|what| format!("left behind: {what}")));
    out.lines(&table(&times.rows()));
    for failure in &failures {
        out.line(&format!("Failed: {failure}."));
    }
    if failures.is_empty() {
        out.line(&format!("Passed: {}. All that was made is removed.", bounds.line()));
    }
    let millis = |bound: Duration| u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    let mut result = json!({
        "at": jiff::Timestamp::now(),
        "by": place.caller,
        "family": args.family,
        "bound_ms": millis(bounds.inactive),
        "denied_bound_ms": millis(bounds.denied),
        "replaced_bound_ms": millis(bounds.replaced),
        "passed": failures.is_empty(),
        "failures": failures,
        "left": left,
    });
    if let (Some(fields), Some(more)) = (result.as_object_mut(), times.json().as_object()) {
        fields.extend(more.clone());
    }
    let kept = keep(place, &result).await;
    if let Err(error) = &kept {
        out.trouble(Some("the record of the drill"), &Trouble::from(error.clone()));
    }
    out.json(&result);
    let good = failures.is_empty() && kept.is_ok();
    Ok(if good { Exit::Done } else { Exit::Failed })
}

/// Where nothing would be contained or replaced, a drill shows nothing.
fn ready(switches: &Switches) -> Result<()> {
    let refuse = |what: &str, is: &str, remedy: &str| {
        Err(Trouble::new(
            format!("A drill shows nothing while {what} is {is}."),
            format!("Nothing was changed. {remedy}"),
        ))
    };
    let (mode, containment) = (&switches.mode.value, &switches.containment.value);
    if containment.parse() != Ok(Containment::On) {
        return refuse("containment", containment, "`keywheel containment on` first.");
    }
    if mode.parse() != Ok(Mode::Live) {
        return refuse("the mode", mode, "`keywheel mode live` first: the replacement is a rotation.");
    }
    Ok(())
}

async fn play(place: &Place, out: &Out, stage: &mut Stage, family: Family) -> Result<Times> {
    let scene = stage.build(place).await?;
    out.note(&format!("Key {} works, and so does a session minted from it.", scene.key));
    family.send(place, &scene.key, &stage.user).await?;
    let began = Instant::now();
    out.note("The event is sent.");
    let mut times = Times::default();
    let mut told = 0;
    while !times.all() && began.elapsed() < PATIENCE {
        if times.inactive.is_none() && scene.is_inactive(place, &stage.user).await {
            times.inactive = Some(began.elapsed());
        }
        if times.denied.is_none() && scene.is_denied().await {
            times.denied = Some(began.elapsed());
        }
        if times.replaced.is_none() && scene.is_replaced(place).await {
            times.replaced = Some(began.elapsed());
        }
        let so: Vec<String> = times
            .rows()
            .iter()
            .filter(|row| row[1] != NEVER)
            .map(|row| format!("{} {}", row[0], row[1]))
            .collect();
        if so.len() != told {
            told = so.len();
            out.note(&so.join(", "));
        }
        tokio::time::sleep(EVERY).await;
    }
    Ok(times)
}

async fn keep(place: &Place, result: &Value) -> std::result::Result<(), StepError> {
    let call = place.ssm().put_parameter().name(parameter(&place.stage)).value(result.to_string());
    let kept = call.r#type(aws_sdk_ssm::types::ParameterType::String).overwrite(true).send().await;
    kept.map(|_| ()).map_err(|error| StepError::from_sdk("ssm:PutParameter", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_all_of_it_in_time_is_a_pass() {
        let good =
            Times { inactive: Some(seconds(2)), denied: Some(seconds(7)), replaced: Some(seconds(300)) };
        let bounds = Bounds::of(seconds(2));
        assert_eq!(good.failures(&bounds), Vec::<String>::new());
        let milli = Duration::from_millis(1);
        for (late, says) in [
            (
                Times { inactive: Some(seconds(3)), ..good },
                "the key was Inactive after 3.0 s, and the bound for that is 2s",
            ),
            (
                Times { denied: Some(seconds(70)), ..good },
                "the session was denied after 70.0 s, and the bound for that is 7s",
            ),
            (
                Times { replaced: Some(seconds(300) + milli), ..good },
                "the application had a key after 300.0 s, and the bound for that is 5m",
            ),
            (Times { inactive: None, ..good }, "the key was not Inactive within 5m"),
            (Times { denied: None, ..good }, "the session was not denied within 5m"),
            (Times { replaced: None, ..good }, "the application got no key within 5m"),
        ] {
            assert_eq!(late.failures(&bounds), [says]);
        }
        assert_eq!(Times::default().failures(&bounds).len(), 3);
    }

    #[test]
    fn the_bounds_follow_from_the_one_that_is_given_and_none_is_later_than_is_waited_for() {
        let usual = Bounds::of(BOUND.get());
        assert_eq!(usual.line(), "the bounds are 1m, 1m 5s and 5m");
        let longest = Bounds { inactive: PATIENCE, denied: PATIENCE, replaced: PATIENCE };
        assert_eq!(Bounds::of(PATIENCE), longest);
    }

    #[test]
    fn it_is_refused_where_it_would_show_nothing() {
        let switches = |mode, containment| Switches::of_values(mode, containment);
        assert!(ready(&switches("live", "on")).is_ok());
        for (mode, containment, says) in [
            ("live", "page", "containment is page"),
            ("live", "nonsense", "containment is page"),
            ("paused", "on", "the mode is paused"),
        ] {
            let trouble = ready(&switches(mode, containment)).unwrap_err();
            assert!(trouble.text.contains(says), "{trouble}");
            assert!(trouble.remedy.starts_with("Nothing was changed"), "{trouble}");
        }
    }
}

//! `keywheel doctor`: which sources of leaks can reach this installation, and what keeps the others from it.
//!
//! What is in the account is asked for; what cannot be asked for is said to be unknown, with the command that shows
//! it. That something has come is the best evidence there is, so the last event of each source is named.

mod look;
mod sources;

use keywheel::switch::{Containment, Mode};
use serde_json::{Value, json};

use crate::error::{Exit, Result};
use crate::output::{Out, table};
use crate::place::Place;
use crate::switches::Switches;
use crate::time;
use look::{Found, Seen};
use sources::{Reaches, SOURCES, Source};

/// One finding about the installation itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    what: &'static str,
    good: bool,
    text: String,
    remedy: String,
}

impl Check {
    fn new(what: &'static str, good: bool, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, good, text: text.into(), remedy: if good { String::new() } else { remedy.into() } }
    }

    fn json(&self) -> Value {
        json!({ "check": self.what, "good": self.good, "text": self.text, "remedy": self.remedy })
    }
}

/// Runs the command. Whatever could not be read is a finding of its own.
pub(crate) async fn run(place: &Place, out: &Out) -> Result<Exit> {
    out.note(&place.line());
    let found = look::around(place).await;
    let mut checks = vec![switches(&Switches::read(place).await?), people(place, &found), drill(&found)];
    checks.extend(found.unread.iter().map(|(what, why)| {
        Check::new(
            "rights",
            false,
            format!("{what} could not be read: {why}"),
            "What follows from it is not known.",
        )
    }));
    for check in &checks {
        out.json(&check.json());
        out.line(&format!("{}  {}", if check.good { "ok " } else { "BAD" }, check.text));
        if !check.remedy.is_empty() {
            out.line(&format!("     {}", check.remedy));
        }
    }
    let now = jiff::Timestamp::now();
    let mut rows =
        vec![["SOURCE", "REACHES", "LAST EVENT", "WHY, AND WHAT TO DO"].map(str::to_owned).to_vec()];
    let mut good = checks.iter().all(|check| check.good);
    for source in SOURCES {
        let (reaches, why) = source.reaches(&found);
        let last = found.last.iter().find(|seen| source.sent(seen));
        good &= reaches != Reaches::No;
        out.json(&row_json(&source, reaches, &why, last));
        let last = last.map_or_else(
            || "-".to_owned(),
            |seen| format!("{} ago", time::short(time::between(seen.at, now))),
        );
        rows.push(vec![source.name.to_owned(), reaches.word().to_owned(), last, why]);
    }
    out.line("");
    out.lines(&table(&rows));
    out.line("");
    out.line(&format!(
        "GuardDuty and Security Hub speak in their own region: every region in use but {} needs infra/intake.yaml.",
        place.region
    ));
    Ok(if good { Exit::Done } else { Exit::Refused })
}

fn row_json(source: &Source, reaches: Reaches, why: &str, last: Option<&Seen>) -> Value {
    json!({
        "source": source.name,
        "reaches": reaches.word(),
        "why": why,
        "last_event": last.map(|seen| seen.at),
    })
}

fn switches(switches: &Switches) -> Check {
    let (mode, containment) = (&switches.mode, &switches.containment);
    let text = format!("containment {containment}, mode {mode}");
    let on = containment.value.parse() == Ok(Containment::On);
    let live = mode.value.parse() == Ok(Mode::Live);
    let remedy = match (on, live) {
        (false, _) => "Leaked keys are not made Inactive: `keywheel containment on`.",
        _ => "A leaked key is not replaced while rotation is off: `keywheel mode live`.",
    };
    Check::new("switches", on && live, text, remedy)
}

fn people(place: &Place, found: &Found) -> Check {
    let topic = place.topic();
    let remedy = format!(
        "`aws sns subscribe --topic-arn {topic} --protocol email --notification-endpoint <address>`, and confirm."
    );
    match found.subscribers {
        None => Check::new("people", false, "who is told is not known", remedy),
        Some((0, 0)) => Check::new("people", false, "nobody is told: the topic has no subscriber", remedy),
        Some((0, pending)) => Check::new(
            "people",
            false,
            format!("nobody is told: {pending} subscriptions wait to be confirmed"),
            "Follow the link that each of them was sent.",
        ),
        Some((confirmed, _)) => Check::new("people", true, format!("{confirmed} subscribers are told"), ""),
    }
}

fn drill(found: &Found) -> Check {
    let remedy = "`keywheel drill` measures it.";
    match &found.drill {
        None => Check::new("drill", false, "there was never a drill", remedy),
        Some(drill) if drill["passed"] == true => {
            let at = drill["at"].as_str().and_then(|at| at.parse().ok()).map_or_else(String::new, time::at);
            let took = drill["inactive_ms"].as_u64().unwrap_or_default();
            Check::new(
                "drill",
                true,
                format!("the last drill, {at}: the key was Inactive after {took} ms"),
                "",
            )
        }
        Some(drill) => {
            let failures = drill["failures"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let failures: Vec<&str> = failures.collect();
            Check::new("drill", false, format!("the last drill failed: {}", failures.join("; ")), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_key_from_being_contained_is_said_with_its_remedy() {
        assert!(switches(&Switches::of_values("live", "on")).good);
        for (mode, containment, remedy) in [
            ("live", "page", "containment on"),
            ("paused", "on", "mode live"),
            ("paused", "off", "containment on"),
        ] {
            let check = switches(&Switches::of_values(mode, containment));
            assert!(!check.good && check.remedy.contains(remedy), "{check:?}");
        }
    }

    #[test]
    fn a_drill_that_failed_or_never_was_is_no_evidence() {
        let of = |drill| super::drill(&Found { drill, ..Found::default() });
        assert!(!of(None).good);
        let good = json!({ "passed": true, "at": "2026-03-01T10:00:00Z", "inactive_ms": 900 });
        assert_eq!(
            of(Some(good)).text,
            "the last drill, 2026-03-01 10:00:00 UTC: the key was Inactive after 900 ms"
        );
        let bad = of(Some(json!({ "passed": false, "failures": ["the application got no key within 5m"] })));
        assert!(!bad.good && bad.text.contains("got no key"), "{bad:?}");
    }
}

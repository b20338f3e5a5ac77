//! `keywheel doctor`: what is wrong with this installation, and what to do about it; and which sources of leaks can
//! reach it.
//!
//! What is in the account is asked for; what cannot be asked for is said to be unknown, with the command that shows
//! it. That something has come is the best evidence there is, so the last event of each source is named. What could not
//! be read is a line of its own, and what would follow from it has none: half a look must not end well.

mod alarms;
mod clock;
mod installed;
mod look;
mod policy;
mod reach;
mod sources;
mod tags;

use keywheel::switch::{Containment, Mode};
use serde_json::{Value, json};

use crate::error::{Exit, Result, Trouble};
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
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, good: true, text: text.into(), remedy: String::new() }
    }

    fn bad(what: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, good: false, text: text.into(), remedy: remedy.into() }
    }

    fn json(&self) -> Value {
        json!({ "check": self.what, "good": self.good, "text": self.text, "remedy": self.remedy })
    }
}

/// Names for people.
fn list(names: &[&str]) -> String {
    names.join(", ")
}

/// Runs the command. Whatever could not be read is a finding of its own.
pub(crate) async fn run(place: &Place, out: &Out) -> Result<Exit> {
    let found = look::around(place).await;
    head(place, out, &found);
    let checks = checks(&found);
    for check in &checks {
        out.json(&check.json());
        out.line(&format!("{}  {}: {}", if check.good { "ok " } else { "BAD" }, check.what, check.text));
        if !check.remedy.is_empty() {
            out.line(&format!("     {}", check.remedy));
        }
    }
    let reached = reached(out, &found);
    out.line("");
    out.line(&format!(
        "GuardDuty and Security Hub speak in their own region: every region in use but {} needs infra/intake.yaml.",
        place.region
    ));
    let good = reached && checks.iter().all(|check| check.good);
    Ok(if good { Exit::Done } else { Exit::Refused })
}

/// The first lines, which are those of `status`.
fn head(place: &Place, out: &Out, found: &Found) {
    let mut head = place.json();
    out.line(&place.line());
    match &found.switches {
        Some(switches) => {
            out.line(&format!("mode {}, containment {}", switches.mode, switches.containment));
            let (mode, containment) = switches.json();
            if let Some(fields) = head.as_object_mut() {
                fields.insert("mode".into(), mode);
                fields.insert("containment".into(), containment);
            }
        }
        None => out.line("mode and containment are not known"),
    }
    out.json(&head);
    out.line("");
}

/// Every line about the installation.
fn checks(found: &Found) -> Vec<Check> {
    let mut checks: Vec<Check> = found.unread.iter().map(|(what, why)| unread(what, why)).collect();
    checks.extend(found.switches.as_ref().map(switches));
    checks.extend(found.machines.as_deref().map(installed::checks).unwrap_or_default());
    checks.extend(found.buses.as_deref().map(installed::bus));
    checks.extend(people(found));
    checks.extend(found.alarms.as_deref().map(|alarms| alarms::check(alarms, &found.stage)));
    checks.extend(found.trail.map(trail));
    checks.extend(reach::checks(&found.regions, (found.region.as_str(), found.global.as_str())));
    checks.extend(found.tags.as_ref().map(tags::check));
    checks.extend(found.policy.as_ref().map(policy::check));
    checks.extend(found.clock.map(clock::check));
    if !found.unread.iter().any(|(what, _)| *what == look::DRILL) {
        checks.push(drill(found));
    }
    checks
}

/// Something that could not be read: a right that is missing, above all.
fn unread(what: &str, why: &Trouble) -> Check {
    let remedy =
        if why.remedy.is_empty() { "What follows from it is not known." } else { why.remedy.as_str() };
    Check::bad("rights", format!("{what} could not be read: {}", why.text), remedy)
}

/// The sources of leaks as a table; whether none of them is kept away.
fn reached(out: &Out, found: &Found) -> bool {
    let now = jiff::Timestamp::now();
    let mut rows =
        vec![["SOURCE", "REACHES", "LAST EVENT", "WHY, AND WHAT TO DO"].map(str::to_owned).to_vec()];
    let mut good = true;
    for source in SOURCES {
        let (reaches, why) = source.reaches(found);
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
    good
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
    match (on, live) {
        (true, true) => Check::good("switches", text),
        (false, _) => {
            Check::bad("switches", text, "Leaked keys are not made Inactive: `keywheel containment on`.")
        }
        (true, false) => Check::bad(
            "switches",
            text,
            "A leaked key is not replaced while rotation is off: `keywheel mode live`.",
        ),
    }
}

fn people(found: &Found) -> Option<Check> {
    let remedy = format!(
        "`aws sns subscribe --topic-arn {} --protocol email --notification-endpoint <address>`, and confirm.",
        found.topic
    );
    Some(match found.subscribers? {
        (0, 0) => Check::bad("people", "nobody is told: the topic has no subscriber", remedy),
        (0, pending) => Check::bad(
            "people",
            format!("nobody is told: {pending} subscriptions wait to be confirmed"),
            "Follow the link that each of them was sent.",
        ),
        (confirmed, _) => Check::good("people", format!("{confirmed} subscribers are told")),
    })
}

fn trail(logs: bool) -> Check {
    if logs {
        return Check::good("trail", "a trail of all regions logs management events");
    }
    Check::bad(
        "trail",
        "no trail of all regions logs: no region tells of a quarantine or of keys that are made",
        "`aws cloudtrail create-trail --is-multi-region-trail --name <name> --s3-bucket-name <bucket>`, then `aws cloudtrail start-logging --name <name>`.",
    )
}

fn drill(found: &Found) -> Check {
    let remedy = "`keywheel drill` measures it.";
    match &found.drill {
        None => Check::bad("drill", "there was never a drill", remedy),
        Some(drill) if drill["passed"] == true => {
            let at = drill["at"].as_str().and_then(|at| at.parse().ok()).map_or_else(String::new, time::at);
            let took = drill["inactive_ms"].as_u64().unwrap_or_default();
            Check::good("drill", format!("the last drill, {at}: the key was Inactive after {took} ms"))
        }
        Some(drill) => {
            let failures = drill["failures"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let failures: Vec<&str> = failures.collect();
            Check::bad("drill", format!("the last drill failed: {}", failures.join("; ")), remedy)
        }
    }
}

#[cfg(test)]
mod tests;

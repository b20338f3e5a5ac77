//! `keywheel status`: where rotations are, since when, what comes next, and what to do.

mod every;
mod leaked;
mod one;

use jiff::Timestamp;
use keywheel::fleet::freeze::Frozen;
use serde_json::{Map, Value, json};

use crate::args::Status;
use crate::campaign;
use crate::error::{Exit, Result, Trouble};
use crate::output::Out;
use crate::place::Place;
use crate::switches::Switches;

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &Status) -> Result<Exit> {
    let switches = Switches::read(place).await;
    let mut head = place.json();
    match &switches {
        Ok(switches) => {
            let (mode, containment) = switches.json();
            if let Some(fields) = head.as_object_mut() {
                fields.insert("mode".into(), mode);
                fields.insert("containment".into(), containment);
            }
            out.line(&place.line());
            out.line(&format!("mode {}, containment {}", switches.mode, switches.containment));
        }
        Err(trouble) => {
            out.line(&place.line());
            out.trouble(Some("mode and containment"), trouble);
        }
    }
    freeze(place, out, &mut head).await;
    if args.user.is_none() {
        fleet(place, out, &mut head).await;
    }
    out.line("");
    let shown = match &args.user {
        Some(user) => one::show(place, out, &head, user).await?,
        None => every::show(place, out, &head).await?,
    };
    Ok(if switches.is_err() { shown.max(Exit::Refused) } else { shown })
}

/// Adds the freeze that holds runs under way. Read apart from the switches: whoever may read those alone would else be
/// refused them too. Where it cannot be read it is said, and keeps nothing else from being shown.
async fn freeze(place: &Place, out: &Out, head: &mut Value) {
    match facts::fleet::read_freezes(&place.ssm(), &place.stage).await {
        Ok(freezes) => {
            let Some(frozen) = freezes.holding(Timestamp::now()) else { return };
            out.line(&words(&frozen));
            if let Some(fields) = head.as_object_mut() {
                fields.insert("frozen".into(), json!({ "until": frozen.until, "why": frozen.why }));
            }
        }
        Err(error) => {
            out.note(&format!("Whether a freeze holds could not be read: {}", Trouble::from(error)));
        }
    }
}

/// A freeze, for people.
fn words(frozen: &Frozen) -> String {
    let mend = if frozen.until.is_none() { " `keywheel policy push FILE` writes them anew." } else { "" };
    format!("No old key is made Inactive or deleted, unless it leaked: {}.{mend}", frozen.why)
}

/// Adds the campaign that runs, or the last one. One that cannot be read is said, and keeps nothing else from being
/// shown.
async fn fleet(place: &Place, out: &Out, head: &mut Value) {
    match campaign::glance(place).await {
        Ok(None) => {}
        Ok(Some((line, seen))) => {
            out.line(&line);
            if let Some(fields) = head.as_object_mut() {
                fields.insert("fleet".into(), seen);
            }
        }
        Err(trouble) => out.note(&format!("The fleet's campaigns could not be read: {trouble}")),
    }
}

/// One object out of two.
fn merged(head: &Value, more: Value) -> Value {
    let fields = |value: Value| match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let mut all = fields(head.clone());
    all.extend(fields(more));
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keywheel::fleet::freeze::Freezes;

    #[test]
    fn a_freeze_is_told_with_its_end_and_one_that_nobody_understands_with_what_mends_it() {
        let now: Timestamp = "2026-12-24T12:00:00Z".parse().unwrap();
        let told = |text: &str| words(&Freezes::read("prod", Some(text)).holding(now).unwrap());
        let freeze =
            r#"[{"from": "2026-12-20T00:00:00Z", "until": "2027-01-04T00:00:00Z", "reason": "year end"}]"#;
        assert!(told(freeze).ends_with(": a freeze holds until 2027-01-04T00:00:00Z (year end)."));
        assert!(told("soon").ends_with(". `keywheel policy push FILE` writes them anew."));
    }
}

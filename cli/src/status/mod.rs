//! `keywheel status`: where rotations are, since when, what comes next, and what to do.

mod every;
mod leaked;
mod one;

use serde_json::{Map, Value};

use crate::args::Status;
use crate::campaign;
use crate::error::{Exit, Result};
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

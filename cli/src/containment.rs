//! `keywheel containment`: shows or sets whether leaked keys are contained.

use keywheel::switch::Containment;
use serde_json::json;

use crate::args::ContainmentArgs;
use crate::error::{Exit, Result};
use crate::output::Out;
use crate::place::Place;
use crate::switches::{self, Switches};

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &ContainmentArgs) -> Result<Exit> {
    out.note(&place.line());
    let before = Switches::read(place).await?.containment;
    let Some(wanted) = args.containment else {
        out.line(&format!("containment: {before}"));
        out.json(&json!({ "containment": before.value, "remark": before.remark }));
        return Ok(Exit::Done);
    };
    let is_so = before.remark.is_none() && before.value == wanted.to_string();
    if is_so {
        out.line(&format!("containment: {before}, as before"));
    } else {
        switches::set_containment(place, wanted).await?;
        out.line(&format!("containment: {before} -> {wanted}"));
        out.line(match wanted {
            Containment::Off => "Leaked keys are left as they are, and nobody is told.",
            Containment::Page => {
                "People are told of leaked keys, and what would have been done; nothing is changed."
            }
            Containment::On => "Leaked keys are made Inactive.",
        });
    }
    out.json(&json!({ "before": before.value, "containment": wanted, "changed": !is_so }));
    Ok(Exit::Done)
}

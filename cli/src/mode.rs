//! `keywheel mode`: shows or sets whether Keywheel changes anything.

use keywheel::switch::Mode;
use serde_json::json;

use crate::args::ModeArgs;
use crate::error::{Exit, Result};
use crate::output::Out;
use crate::place::Place;
use crate::switches::{self, Switches};

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &ModeArgs) -> Result<Exit> {
    // Shown for a mere look as well: a mode means little without its place.
    out.note(&place.line());
    let before = Switches::read(place).await?.mode;
    let Some(wanted) = args.mode else {
        out.line(&format!("mode: {before}"));
        out.json(&json!({ "mode": before.value, "remark": before.remark }));
        return Ok(Exit::Done);
    };
    let is_so = before.remark.is_none() && before.value == wanted.to_string();
    if is_so {
        out.line(&format!("mode: {before}, as before"));
    } else {
        switches::set_mode(place, wanted).await?;
        out.line(&format!("mode: {before} -> {wanted}"));
        out.line(match wanted {
            Mode::DryRun => "New runs change nothing and say what they would do. Runs under way stop changing things and wait.",
            Mode::Live => "Keys are rotated.",
            Mode::Paused => "Nothing is changed; runs under way wait.",
        });
    }
    out.json(&json!({ "before": before.value, "mode": wanted, "changed": !is_so }));
    Ok(Exit::Done)
}

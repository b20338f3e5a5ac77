//! `keywheel triage`: what an event would set in motion, judged without a call to AWS.

use std::io::Read;
use std::path::Path;

use keywheel::triage;

use crate::args::TriageArgs;
use crate::error::{Exit, Result, Trouble};
use crate::output::Out;

/// Runs the command. A file that cannot be opened does not hide the verdicts on the others.
pub(crate) fn run(out: &Out, args: &TriageArgs) -> Exit {
    let mut exit = Exit::Done;
    for file in &args.files {
        match read(file) {
            Ok(event) => {
                let verdict = serde_json::to_string(&triage::triage(&event));
                // Names and ids only: nothing in a verdict can fail to be written.
                out.document(&verdict.unwrap_or_default());
            }
            Err(trouble) => {
                out.trouble(None, &trouble);
                exit = Exit::Refused;
            }
        }
    }
    exit
}

/// What is read of a file: one byte more than an event may have, so that a larger one is seen to be so.
const MOST: u64 = triage::LONGEST as u64 + 1;

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut event = Vec::new();
    let result = if file.as_os_str() == "-" {
        std::io::stdin().take(MOST).read_to_end(&mut event)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(MOST).read_to_end(&mut event))
    };
    result.map(|_| event).map_err(|error| {
        Trouble::new(
            format!("{} cannot be read: {error}.", file.display()),
            "Name a file with one event, or - for standard input.",
        )
    })
}

//! The story of a schedule that broke a promise: everything that happened, in its order.

use std::fmt;

use jiff::Timestamp;

use crate::fake::{Call, Fake};

/// A broken promise, and what led to it.
#[derive(Debug)]
pub struct Story {
    /// The seed; playing it again tells the same story.
    pub seed: u64,
    /// What went wrong.
    pub what: String,
    schedule: String,
    lines: Vec<String>,
}

impl Story {
    pub(super) fn of(seed: u64, schedule: &impl fmt::Debug, fake: &Fake, what: String) -> Self {
        let state = fake.state();
        let mut events: Vec<(Timestamp, String)> = state.deeds.clone();
        events.extend(state.calls.iter().map(|call| (call.at, line(call))));
        for execution in state.executions.values() {
            let (_, run) = execution.arn.rsplit_once(':').unwrap_or_default();
            events.push((execution.started, format!("{} starts with {}", short(run), execution.input)));
        }
        // A stable sort: what happened in the same millisecond keeps its order.
        events.sort_by_key(|(at, _)| *at);
        let lines = events.into_iter().map(|(at, text)| format!("{at}  {text}")).collect();
        let what = if state.violations.is_empty() { what } else { state.violations.join("\n") };
        Self { seed, what, schedule: format!("{schedule:#?}"), lines }
    }

    /// The promises that were broken, such as `P1`.
    pub fn promises(&self) -> Vec<&str> {
        promises_in(&self.what)
    }
}

/// The promises that a text names as broken, such as `P1`.
pub fn promises_in(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() == 2 && word.starts_with('P') && word.as_bytes()[1].is_ascii_digit())
        .collect()
}

fn short(run: &str) -> String {
    format!("run {}", run.chars().take(8).collect::<String>())
}

fn line(call: &Call) -> String {
    let run = call.run.map_or_else(|| "nobody".to_owned(), |run| short(&run.to_string()));
    let key = ["AccessKeyId", "Status", "VersionStage", "MoveToVersionId", "RemoveFromVersionId"]
        .iter()
        .filter_map(|name| Some(format!(" {}", call.params.get(name)?.as_str()?)));
    let result = match (call.status, &call.code) {
        (0, _) => "nothing happened".to_owned(),
        (status, None) => status.to_string(),
        (status, Some(code)) => format!("{status} {code}"),
    };
    let fault = call.fault.map_or_else(String::new, |kind| format!("  << {kind:?}"));
    let state = call.state.as_deref().unwrap_or("?");
    format!("{run} {state} {}{}: {result}{fault}", call.name, key.collect::<String>())
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}\n{}", self.seed, self.what, self.schedule)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

//! Follows an execution to its end, and shows it state by state.

use std::time::{Duration, Instant};

use crate::cloud::Cloud;
use crate::demo::history::{Execution, Visit, between};
use crate::demo::watch::Watch;
use crate::demo::witness::Witness;
use crate::error::Result;
use crate::screen::Screen;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

/// Who is shown beside the states.
pub(crate) struct Onlookers<'a> {
    /// The consumer.
    pub(crate) witness: &'a Witness,
    /// The keys.
    pub(crate) watch: &'a Watch,
}

/// Follows until the execution has ended, or `limit` has passed.
pub(crate) async fn follow(
    screen: &Screen,
    cloud: &Cloud,
    arn: &str,
    onlookers: &Onlookers<'_>,
    limit: Duration,
) -> Result<Execution> {
    let until = Instant::now() + limit;
    let mut shown = 0;
    loop {
        let execution = Execution::read(cloud, arn).await?;
        let visits: Vec<&Visit> = execution.visits.iter().filter(|visit| visit.task || visit.wait).collect();
        for visit in visits.iter().skip(shown) {
            let at = between(execution.times.0, visit.from);
            screen.line(&format!("{at:>7.1} s  {:<18} {}", visit.state, onlookers.line()));
        }
        shown = visits.len();
        if execution.status != "RUNNING" || Instant::now() > until {
            screen.draw(&[]);
            return Ok(execution);
        }
        if screen.is_terminal() {
            let now = jiff::Timestamp::now();
            let state = visits.last().map_or_else(String::new, |visit| {
                format!("{}, for {:.1} s", visit.state, between(visit.from, now).max(0.0))
            });
            let mut lines =
                vec![String::new(), format!("{:>7.1} s  {state}", between(execution.times.0, now))];
            lines.extend(onlookers.lines());
            screen.draw(&lines);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Onlookers<'_> {
    /// In one line.
    fn line(&self) -> String {
        let counts = self.witness.counts();
        let keys = self.watch.keys().map(|look| look.keys).unwrap_or_default();
        let active = keys.iter().filter(|(_, active)| *active).count();
        format!(
            "keys: {active} Active, {} Inactive; consumer: {} calls, {} failed",
            keys.len() - active,
            counts.calls,
            counts.failed
        )
    }

    /// A line for each key and one for the consumer.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(look) = self.watch.keys() {
            for (id, active) in &look.keys {
                let status = if *active { "Active" } else { "Inactive" };
                let current = if *id == look.current { "  AWSCURRENT" } else { "" };
                lines.push(format!("           {id}  {status}{current}"));
            }
        }
        let counts = self.witness.counts();
        lines.push(format!("           consumer: {} calls, {} failed", counts.calls, counts.failed));
        lines
    }
}

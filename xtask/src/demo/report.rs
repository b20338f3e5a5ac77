//! The demo's result: tables for people, or one JSON object.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::consumer::Summary;
use crate::demo::history::between;
use crate::demo::tally::{Life, Span, Tally};
use crate::demo::watch::{Move, Seen};

/// What is told.
pub(crate) struct Report<'a> {
    /// How the run ended.
    pub(crate) outcome: &'a str,
    /// When it started.
    pub(crate) started: Timestamp,
    /// How long it took.
    pub(crate) seconds: f64,
    /// What was counted.
    pub(crate) tally: &'a Tally,
    /// What was seen.
    pub(crate) seen: &'a Seen,
    /// What the consumer says.
    pub(crate) consumer: &'a Summary,
    /// How many texts were looked through for secrets.
    pub(crate) places: usize,
    /// What did not hold.
    pub(crate) violations: &'a [String],
}

impl Report<'_> {
    /// As one object.
    pub(crate) fn json(&self) -> Value {
        let (tally, consumer) = (self.tally, &self.tally.consumer);
        json!({
            "outcome": self.outcome,
            "aws_calls": tally.calls,
            "aws_writes": tally.writes.len(),
            "apart": tally.apart,
            "consumer": {
                "calls": self.consumer.total.calls,
                "failed": self.consumer.total.failed + self.consumer.reads.failed,
                "old_after_promotion": consumer.old_after_promotion,
                "new_before_deactivation": consumer.new_before_deactivation,
                "after_delete": consumer.after_delete,
            },
            "seconds": self.seconds,
            "violations": self.violations,
            "steps": tally.steps,
            "keys": tally.keys,
        })
    }

    /// As tables.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.keys(&mut text);
        self.labels(&mut text);
        self.consumer(&mut text);
        self.steps(&mut text);
        self.verdict(&mut text);
        text
    }

    fn keys(&self, text: &mut String) {
        let header = ["Key", "created", "current from", "until", "Inactive", "deleted"];
        let row = |life: &Life| {
            let at = |time: Option<Timestamp>| time.map_or_else(|| "-".into(), |time| self.at(time));
            let times = [life.created, life.current_from, life.current_to, life.inactive, life.deleted];
            [life.key.clone()].into_iter().chain(times.map(at)).collect::<Vec<_>>()
        };
        table(text, &header, &self.tally.keys.iter().map(row).collect::<Vec<_>>());
        let _ = writeln!(text, "Seconds from the run's start.\n");
    }

    fn labels(&self, text: &mut String) {
        let row = |moved: &Move| {
            let version = |id: &Option<String>| id.as_deref().map_or("-", short).to_owned();
            vec![moved.label.clone(), version(&moved.from), version(&moved.to), self.at(moved.at)]
        };
        let rows: Vec<_> = self.seen.moves.iter().map(row).collect();
        table(text, &["Label", "from version", "to version", "seen"], &rows);
        text.push('\n');
    }

    fn consumer(&self, text: &mut String) {
        let mut rows = Vec::new();
        for life in &self.tally.keys {
            let mut row = vec![life.key.clone()];
            for span in [Span::Before, Span::Overlap, Span::Grace, Span::After] {
                let counts =
                    self.tally.consumer.stages.get(&(life.key.clone(), span)).copied().unwrap_or_default();
                row.push(match counts {
                    (0, 0) => "-".into(),
                    (calls, 0) => calls.to_string(),
                    (calls, failed) => format!("{calls}, {failed} FAILED"),
                });
            }
            rows.push(row);
        }
        let header = ["Consumer's calls with", "before promotion", "overlap", "grace", "after delete"];
        table(text, &header, &rows);
        let (total, reads) = (self.consumer.total, self.consumer.reads);
        let _ = writeln!(
            text,
            "{} calls in all, {} failed, none retried; the secret read {} times, {} failed.\n",
            total.calls, total.failed, reads.calls, reads.failed
        );
    }

    fn steps(&self, text: &mut String) {
        let rows: Vec<_> = self
            .tally
            .steps
            .iter()
            .map(|step| {
                let count = |n: u32| if n == 0 { "-".into() } else { n.to_string() };
                vec![step.state.clone(), count(step.calls), count(step.apart), format!("{:.1}", step.seconds)]
            })
            .collect();
        table(text, &["Step", "calls", "apart", "seconds"], &rows);
        let (calls, writes, apart) = (self.tally.calls, self.tally.writes.len(), self.tally.apart);
        let _ = writeln!(text, "{calls} calls to AWS, {writes} of them writes.");
        let _ = writeln!(
            text,
            "Counted apart: {} gate polls, {} reads of the switch, {} notices, {} roles assumed.\n",
            apart.gate_polls, apart.switch_reads, apart.notices, apart.assume_roles
        );
    }

    fn verdict(&self, text: &mut String) {
        let _ = writeln!(text, "Outcome: {} in {:.1} s.", self.outcome, self.seconds);
        let _ = writeln!(
            text,
            "Watched: {} looks at the secret and the keys, {} texts searched for secrets.",
            self.seen.looks, self.places
        );
        if self.violations.is_empty() {
            let _ = writeln!(text, "Every promise held.");
        } else {
            let _ = writeln!(text, "Violations:");
            for violation in self.violations {
                let _ = writeln!(text, "  {violation}");
            }
        }
    }

    fn at(&self, time: Timestamp) -> String {
        format!("{:+.1}", between(self.started, time))
    }
}

/// The part of a version's id that tells it from others.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// A table whose columns are as wide as what they hold; all but the first are set to the right.
fn table(text: &mut String, header: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    for row in [&header, &rule].into_iter().chain(rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let mut text = String::new();
        table(&mut text, &["Step", "calls"], &[vec!["CreateKey".into(), "7".into()]]);
        assert_eq!(text, "Step       calls\n---------  -----\nCreateKey      7\n");
    }

    #[test]
    fn the_object_has_the_agreed_names() {
        let (tally, seen, consumer) = (Tally::default(), Seen::default(), Summary::default());
        let report = Report {
            outcome: "Completed",
            started: Timestamp::UNIX_EPOCH,
            seconds: 1.0,
            tally: &tally,
            seen: &seen,
            consumer: &consumer,
            places: 0,
            violations: &[],
        };
        let json = report.json();
        let names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "outcome",
                "aws_calls",
                "aws_writes",
                "apart",
                "consumer",
                "seconds",
                "violations",
                "steps",
                "keys"
            ]
        );
        assert!(report.text().contains("Every promise held."));
    }
}

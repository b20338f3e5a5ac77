//! Medians, ratios, and what they are held to.

use std::time::Duration;

use serde_json::{Value, json};

use super::measure::Sample;

/// DESIGN's budgets for one function.
const COLD: Duration = Duration::from_millis(25);
const CPU: Duration = Duration::from_millis(10);
const PEAK_KIB: u64 = 16 * 1024;
const ZIPPED: u64 = 4_000_000;

/// All samples of one function.
#[derive(Debug)]
pub(crate) struct Row {
    /// The function.
    pub(crate) name: &'static str,
    /// The Lambda's.
    pub(crate) lambda: Vec<Sample>,
    /// The peer's.
    pub(crate) peer: Vec<Sample>,
    /// The Lambda's program, in bytes.
    pub(crate) program: u64,
    /// The same zipped.
    pub(crate) zipped: u64,
}

/// The middle of each figure; they need not come from one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Middle {
    /// Process start to answer.
    pub(crate) cold: Duration,
    /// Processor time.
    pub(crate) cpu: Duration,
    /// Peak of resident memory.
    pub(crate) peak_kib: u64,
}

impl Middle {
    fn of(samples: &[Sample]) -> Self {
        Self {
            cold: median(samples.iter().map(|sample| sample.cold)),
            cpu: median(samples.iter().map(|sample| sample.cpu)),
            peak_kib: median(samples.iter().map(|sample| sample.peak_kib)),
        }
    }
}

/// The middle one; of an even number the later of the two in the middle, so that nothing is made up.
fn median<T: Ord + Default>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    let middle = values.len() / 2;
    values.into_iter().nth(middle).unwrap_or_default()
}

impl Row {
    fn middles(&self) -> (Middle, Middle) {
        (Middle::of(&self.lambda), Middle::of(&self.peer))
    }

    /// How many times longer the peer takes: cold start and processor time.
    pub(crate) fn ratios(&self) -> (f64, f64) {
        let (lambda, peer) = self.middles();
        let ratio = |peer: Duration, lambda: Duration| peer.as_secs_f64() / lambda.as_secs_f64().max(1e-9);
        (ratio(peer.cold, lambda.cold), ratio(peer.cpu, lambda.cpu))
    }

    fn calls(&self) -> usize {
        self.lambda.first().map_or(0, |sample| sample.traffic.calls.len())
    }

    fn handshakes(&self) -> (usize, usize) {
        let count = |samples: &[Sample]| samples.first().map_or(0, |sample| sample.traffic.handshakes);
        (count(&self.lambda), count(&self.peer))
    }

    /// The budgets that this function does not meet.
    fn over(&self) -> Vec<&'static str> {
        let (lambda, _) = self.middles();
        let checks = [
            ("cold start", lambda.cold > COLD),
            ("cpu", lambda.cpu > CPU),
            ("memory", lambda.peak_kib > PEAK_KIB),
            ("size", self.zipped > ZIPPED),
        ];
        checks.into_iter().filter_map(|(name, over)| over.then_some(name)).collect()
    }
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    /// One row a function.
    pub(crate) rows: Vec<Row>,
    /// The ratio that every function must reach.
    pub(crate) gate: f64,
}

impl Report {
    /// The ratios that are too low, each in a sentence.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for row in &self.rows {
            let (cold, cpu) = row.ratios();
            for (what, ratio) in [("cold start", cold), ("cpu", cpu)] {
                if ratio < self.gate {
                    failures.push(format!(
                        "{}: {what} is {ratio:.1} times below Python's, not {}",
                        row.name, self.gate
                    ));
                }
            }
        }
        failures
    }

    /// The report for people.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![
            format!(
                "{:<16}{:^24}{:^24}{:^22}{:>9}{:>7}{:>6}",
                "", "cold start, ms", "cpu, ms", "peak, MiB", "zip, MB", "calls", "TLS"
            ),
            format!(
                "{:<16}{:>8}{:>9}{:>7}{:>8}{:>9}{:>7}{:>11}{:>11}",
                "", "rust", "python", "x", "rust", "python", "x", "rust", "python"
            ),
        ];
        for row in &self.rows {
            let (lambda, peer) = row.middles();
            let (cold, cpu) = row.ratios();
            let (handshakes, _) = row.handshakes();
            let over = row.over();
            lines.push(format!(
                "{:<16}{:>8.1}{:>9.0}{cold:>7.1}{:>8.1}{:>9.0}{cpu:>7.1}{:>11.1}{:>11.1}{:>9.2}{:>7}{handshakes:>6}{}",
                row.name,
                millis(lambda.cold),
                millis(peer.cold),
                millis(lambda.cpu),
                millis(peer.cpu),
                mebi(lambda.peak_kib),
                mebi(peer.peak_kib),
                mega(row.zipped),
                row.calls(),
                if over.is_empty() { String::new() } else { format!("  over: {}", over.join(", ")) }
            ));
        }
        lines.push(String::new());
        lines.extend(self.budgets());
        lines.join("\n")
    }

    /// Whether each budget is met by every function.
    fn budgets(&self) -> Vec<String> {
        let worst = |pick: fn(&Row) -> f64| self.rows.iter().map(pick).fold(0.0, f64::max);
        let lowest = |pick: fn(&Row) -> f64| self.rows.iter().map(pick).fold(f64::INFINITY, f64::min);
        let cold = worst(|row| millis(row.middles().0.cold));
        let cpu = worst(|row| millis(row.middles().0.cpu));
        let peak = worst(|row| mebi(row.middles().0.peak_kib));
        let zip = worst(|row| mega(row.zipped));
        let line = |what: &str, unit: &str, worst: f64, budget: f64| {
            let met = if worst <= budget { "met" } else { "NOT met" };
            format!("{what:<12} at most {worst:>6.2} {unit:<4} budget {budget:>3} {unit:<4} {met}")
        };
        let ratio = |what: &str, lowest: f64| {
            let met = if lowest >= self.gate { "met" } else { "NOT met" };
            format!("{what:<12} at least {lowest:>5.1} x    gate   {:>3} x    {met}", self.gate)
        };
        vec![
            line("cold start", "ms", cold, millis(COLD)),
            line("cpu", "ms", cpu, millis(CPU)),
            line("peak memory", "MiB", peak, mebi(PEAK_KIB)),
            line("zipped", "MB", zip, mega(ZIPPED)),
            ratio("cold start", lowest(|row| row.ratios().0)),
            ratio("cpu", lowest(|row| row.ratios().1)),
        ]
    }

    /// The report for programs.
    pub(crate) fn json(&self) -> Value {
        let round = |value: f64| (value * 100.0).round() / 100.0;
        let side = |middle: &Middle| {
            json!({"cold_start_ms": round(millis(middle.cold)), "cpu_ms": round(millis(middle.cpu)),
                "peak_mib": round(mebi(middle.peak_kib))})
        };
        let rows = self.rows.iter().map(|row| {
            let (lambda, peer) = row.middles();
            let (cold, cpu) = row.ratios();
            let (handshakes, peers) = row.handshakes();
            let mut rust = side(&lambda);
            rust["program_bytes"] = json!(row.program);
            rust["zipped_bytes"] = json!(row.zipped);
            rust["tls_connections"] = json!(handshakes);
            let mut python = side(&peer);
            python["tls_connections"] = json!(peers);
            json!({"function": row.name, "aws_calls": row.calls(), "rust": rust, "python": python,
                "ratio": {"cold_start": round(cold), "cpu": round(cpu)}, "over_budget": row.over()})
        });
        json!({
            "functions": rows.collect::<Vec<Value>>(),
            "repetitions": self.rows.first().map_or(0, |row| row.peer.len()),
            "gate": self.gate,
            "passed": self.failures().is_empty(),
            "budgets": {"cold_start_ms": millis(COLD), "cpu_ms": millis(CPU), "peak_mib": mebi(PEAK_KIB),
                "zipped_bytes": ZIPPED},
            "budgets_met": self.rows.iter().all(|row| row.over().is_empty()),
        })
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn mebi(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::services::Traffic;

    fn sample(cold: u64, cpu: u64, peak_kib: u64) -> Sample {
        let traffic = Traffic { calls: vec!["iam:GetUser".into()], handshakes: 1 };
        let (cold, cpu) = (Duration::from_millis(cold), Duration::from_millis(cpu));
        Sample { cold, cpu, peak_kib, traffic }
    }

    fn report(lambda: Vec<Sample>, peer: Vec<Sample>) -> Report {
        let row = Row { name: "look", lambda, peer, program: 5_000_000, zipped: 2_500_000 };
        Report { rows: vec![row], gate: 15.0 }
    }

    #[test]
    fn an_outlier_does_not_move_the_middle() {
        let samples = [sample(10, 5, 1), sample(900, 500, 9), sample(12, 6, 2)];
        let middle = Middle::of(&samples);
        assert_eq!((middle.cold, middle.cpu), (Duration::from_millis(12), Duration::from_millis(6)));
        assert_eq!(middle.peak_kib, 2);
        assert_eq!(median([3, 1].into_iter()), 3);
    }

    #[test]
    fn each_ratio_is_held_to_the_gate_by_itself() {
        assert!(report(vec![sample(20, 10, 1)], vec![sample(300, 150, 1)]).failures().is_empty());
        let slow = report(vec![sample(20, 10, 1)], vec![sample(299, 150, 1)]);
        assert_eq!(slow.failures().len(), 1);
        assert!(slow.failures()[0].contains("look: cold start is 14.9"), "{:?}", slow.failures());
        let busy = report(vec![sample(20, 11, 1)], vec![sample(300, 150, 1)]);
        assert!(busy.failures()[0].contains("cpu is 13.6"), "{:?}", busy.failures());
        assert_eq!(busy.json()["passed"], false);
    }

    #[test]
    fn a_budget_that_is_missed_is_said() {
        let good = report(vec![sample(25, 10, 16 * 1024)], vec![sample(500, 400, 60_000)]);
        assert!(!good.table().contains("over:") && !good.table().contains("NOT met"), "{}", good.table());
        assert_eq!(good.json()["budgets_met"], true);
        let bad = report(vec![sample(26, 11, 17 * 1024)], vec![sample(500, 400, 60_000)]);
        assert!(bad.table().contains("over: cold start, cpu, memory"), "{}", bad.table());
        assert_eq!(bad.table().matches("NOT met").count(), 3);
        assert_eq!(bad.json()["functions"][0]["over_budget"], json!(["cold start", "cpu", "memory"]));
    }

    #[test]
    fn the_line_for_programs_has_both_sides() {
        let line = report(vec![sample(20, 8, 8 * 1024)], vec![sample(400, 320, 64 * 1024)]).json();
        let row = &line["functions"][0];
        assert_eq!(row["rust"]["peak_mib"], 8.0);
        assert_eq!(row["python"]["cold_start_ms"], 400.0);
        assert_eq!(row["ratio"], json!({"cold_start": 20.0, "cpu": 40.0}));
        assert_eq!(row["aws_calls"], 1);
    }
}

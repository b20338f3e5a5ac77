//! A run's overlap, gate and grace as a ruler, with a mark for now.

use std::fmt::Write as _;

use jiff::Timestamp;
use keywheel::Rotation;
use keywheel::clock::after;
use keywheel::decide::gate;

use crate::time;

/// One stretch of the ruler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    name: &'static str,
    from: Timestamp,
    to: Timestamp,
    /// What the times below the ruler say of it.
    says: String,
}

/// The stretches of a run that has promoted its key; nothing before that.
pub(crate) fn stretches(document: &Rotation) -> Option<Vec<Stretch>> {
    let promoted = document.promoted_at?;
    document.old.as_ref()?;
    let (earliest, last) = gate::window(promoted, &document.policy);
    let disabled = document.disabled_at;
    // A leaked key waits for nobody; one that was Inactive already did not either.
    let overlap_ends = disabled.map_or(earliest, |disabled| disabled.clamp(promoted, earliest));
    let gate_ends = disabled.unwrap_or(last).max(overlap_ends);
    let grace_ends = after(gate_ends, document.policy.grace.get());
    let grace = if disabled.is_some() {
        format!("the old key is Inactive; deleted from {} on", time::at(grace_ends))
    } else {
        format!("{} from when the old key is made Inactive", time::short(document.policy.grace.get()))
    };
    let gate = match disabled {
        Some(disabled) => format!("opened {}", time::at(disabled)),
        None => format!("looked at from {} to {}", time::at(earliest), time::at(last)),
    };
    Some(vec![
        Stretch {
            name: "overlap",
            from: promoted,
            to: overlap_ends,
            says: format!(
                "both keys Active from {} to {} at least",
                time::at(promoted),
                time::at(overlap_ends)
            ),
        },
        Stretch { name: "gate", from: overlap_ends, to: gate_ends, says: gate },
        Stretch { name: "grace", from: gate_ends, to: grace_ends, says: grace },
    ])
}

/// The cells that the ruler takes, its ends and joints apart.
const WIDTH: u64 = 60;

/// Draws the ruler. Every stretch has room for its name, the rest is shared by duration. With `stopped` nothing
/// moves on it any more, so it has no mark for now.
pub(crate) fn draw(document: &Rotation, now: Timestamp, stopped: bool, unicode: bool) -> Vec<String> {
    let Some(stretches) = stretches(document) else { return Vec::new() };
    let marks = if unicode { Marks::LINES } else { Marks::ASCII };
    let lengths: Vec<u64> =
        stretches.iter().map(|stretch| time::between(stretch.from, stretch.to).as_secs()).collect();
    let cells =
        share(&lengths, &stretches.iter().map(|stretch| stretch.name.len() as u64 + 2).collect::<Vec<_>>());
    let (mut names, mut bar) = (String::new(), String::from(marks.start));
    let (mut mark, mut column) = (None, 1);
    for (index, (stretch, cells)) in stretches.iter().zip(&cells).enumerate() {
        let length = lengths[index];
        let passed = time::between(stretch.from, now).as_secs().min(length);
        let all = u64::from(now >= stretch.to) * cells;
        let filled = (cells * passed).checked_div(length).unwrap_or(all);
        if now >= stretch.from && (now < stretch.to || index + 1 == stretches.len()) {
            mark = Some(column + filled.min(cells.saturating_sub(1)));
        }
        let _ = write!(names, " {:<width$}", stretch.name, width = count(*cells));
        bar.push_str(&marks.full.repeat(count(filled)));
        bar.push_str(&marks.empty.repeat(count(cells - filled)));
        bar.push_str(if index + 1 == stretches.len() { marks.end } else { marks.joint });
        column += cells + 1;
    }
    let mut lines = vec![names.trim_end().to_owned(), bar];
    if let Some(mark) = mark.filter(|_| !stopped) {
        lines.push(format!("{}{} now", " ".repeat(count(mark)), marks.now));
    }
    lines.extend(stretches.iter().map(|stretch| format!("  {:<8} {}", stretch.name, stretch.says)));
    lines
}

struct Marks {
    start: &'static str,
    joint: &'static str,
    end: &'static str,
    full: &'static str,
    empty: &'static str,
    now: &'static str,
}

impl Marks {
    const LINES: Self =
        Self { start: "├", joint: "┼", end: "┤", full: "━", empty: "╌", now: "▲" };
    const ASCII: Self = Self { start: "|", joint: "|", end: "|", full: "=", empty: "-", now: "^" };
}

fn count(cells: u64) -> usize {
    usize::try_from(cells).unwrap_or(0)
}

/// Shares the width: each its least, and what is left by length.
fn share(lengths: &[u64], least: &[u64]) -> Vec<u64> {
    let total: u64 = lengths.iter().sum();
    let left = WIDTH.saturating_sub(least.iter().sum());
    lengths
        .iter()
        .zip(least)
        .map(|(length, least)| least + (left * length).checked_div(total).unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::document;
    use keywheel::Phase;
    use keywheel::policy::{Policy, Span};
    use keywheel::rotation::OldKey;

    fn t(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Promoted at 0; overlap to 100, gate to 200, grace of 100. A rehearsal, so that settling is bounded.
    fn promoted() -> Rotation {
        let mut document = document();
        document.phase = Phase::Overlap;
        document.policy = Policy {
            overlap: Span::seconds(100),
            max_overlap: Span::seconds(200),
            quiet_window: Span::seconds(0),
            grace: Span::seconds(100),
            ..Policy::default()
        };
        document.promoted_at = Some(t(0));
        document.old = Some(OldKey { key: "AKIAOOOOOOOOOOOOOOOO".parse().unwrap(), was_current: true });
        document
    }

    #[test]
    fn nothing_is_drawn_before_the_promotion() {
        assert!(draw(&document(), t(0), false, true).is_empty());
    }

    #[test]
    fn the_mark_stands_under_the_end_of_what_has_passed() {
        for now in [0, 1, 50, 99, 100, 150, 199, 200, 250, 299] {
            let lines = draw(&promoted(), t(now), false, false);
            let filled = lines[1].chars().filter(|c| *c == '=').count();
            let joints = lines[1].chars().take(lines[2].find('^').unwrap()).filter(|c| *c == '|').count();
            assert_eq!(lines[2].find('^').unwrap(), filled + joints, "{now}: {lines:#?}");
        }
    }

    #[test]
    fn names_stand_over_their_stretches() {
        let lines = draw(&promoted(), t(150), false, false);
        let joint = lines[1].match_indices('|').nth(1).unwrap().0;
        assert_eq!(lines[0].find("gate").unwrap(), joint + 1, "{lines:#?}");
        assert!(lines[3].contains("1970-01-01 00:00:00 UTC to 1970-01-01 00:01:40 UTC"), "{lines:#?}");
    }

    #[test]
    fn both_drawings_are_equally_long_at_any_time() {
        for now in [0, 42, 100, 10_000] {
            let width = |unicode| draw(&promoted(), t(now), false, unicode)[1].chars().count();
            assert_eq!(width(true), width(false));
            assert!(width(true) <= 64);
        }
    }

    #[test]
    fn a_key_made_inactive_at_once_has_no_overlap_and_stretches_of_no_length_are_drawn() {
        let mut document = promoted();
        document.disabled_at = Some(t(0));
        document.phase = Phase::Grace;
        let lines = draw(&document, t(10), false, false);
        let mark = lines[2].find('^').unwrap();
        assert!(mark > lines[0].find("grace").unwrap(), "{lines:#?}");
        document.policy.grace = Span::seconds(0);
        assert!(draw(&document, t(10), false, false)[1].ends_with("=|"));
    }
}

//! Where words go: results to stdout, everything else to stderr, and JSON in place of both on request.
//!
//! Nothing here panics when the reader of a pipe has gone away.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::{Value, json};

use crate::error::{Result, Trouble};

/// The command's two outlets.
#[derive(Debug)]
pub(crate) struct Out {
    stdout: io::Stdout,
    stderr: io::Stderr,
    json: bool,
    unicode: bool,
    live: bool,
}

impl Out {
    /// The outlets as this process has them.
    pub(crate) fn new(json: bool) -> Self {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let unicode = stdout.is_terminal() && utf8_locale();
        let live = stderr.is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb");
        Self { stdout, stderr, json, unicode, live }
    }

    /// Whether results are JSON.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether drawings may use more than ASCII.
    pub(crate) const fn unicode(&self) -> bool {
        self.unicode
    }

    /// A line of the result, for people.
    pub(crate) fn line(&self, text: &str) {
        if !self.json {
            let _ = writeln!(self.stdout.lock(), "{text}");
        }
    }

    /// A line of JSON that is the result in either form.
    pub(crate) fn document(&self, json: &str) {
        let _ = writeln!(self.stdout.lock(), "{json}");
    }

    /// Hands a secret to the program at the other end of standard output, whole, or says that it could not. A screen
    /// and its scrollback are no such end.
    pub(crate) fn hand_over(&self, text: &str) -> Result<()> {
        let mut stdout = self.stdout.lock();
        let sent = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n"));
        sent.and_then(|()| stdout.flush()).map_err(|error| {
            Trouble::new(format!("Standard output did not take the pair: {error}."), "Run it again.")
        })
    }

    /// Whether the result would be shown on a screen.
    pub(crate) fn is_screen(&self) -> bool {
        self.stdout.is_terminal()
    }

    /// A part of the result, for programs.
    pub(crate) fn json(&self, value: &Value) {
        if self.json {
            let _ = writeln!(self.stdout.lock(), "{value}");
        }
    }

    /// Lines of the result, for people.
    pub(crate) fn lines(&self, lines: &[String]) {
        for line in lines {
            self.line(line);
        }
    }

    /// Remarks beside the result.
    pub(crate) fn notes(&self, lines: &[String]) {
        for line in lines {
            self.note(line);
        }
    }

    /// A remark beside the result.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(self.stderr.lock(), "{text}");
    }

    /// What went wrong, in both forms. `about` names whom it concerns where several are at work.
    pub(crate) fn trouble(&self, about: Option<&str>, trouble: &Trouble) {
        let whom = about.map_or_else(String::new, |about| format!("{about}: "));
        self.note(&format!("keywheel: {whom}{trouble}"));
        let mut value = json!({ "error": trouble.text, "remedy": trouble.remedy });
        if let (Some(about), Some(fields)) = (about, value.as_object_mut()) {
            fields.insert("asked".into(), about.into());
        }
        self.json(&value);
    }

    /// Asks before something is changed. Without a terminal there is nobody to ask, so nothing is done.
    pub(crate) fn confirm(&self, question: &str, yes: bool) -> Result<()> {
        if yes {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && self.stderr.is_terminal()) {
            return Err(Trouble::new(
                "Nothing was changed: there is no terminal to ask on.",
                "Give --yes to go on without a question.",
            ));
        }
        let mut stderr = self.stderr.lock();
        let _ = write!(stderr, "{question} [y/N] ");
        let _ = stderr.flush();
        let mut answer = String::new();
        let _ = io::stdin().lock().read_line(&mut answer);
        if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            Err(Trouble::new("Nothing was changed.", ""))
        }
    }
}

fn utf8_locale() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_uppercase();
    locale.contains("UTF-8") || locale.contains("UTF8")
}

/// Lines that show the present: redrawn in place on a terminal, and written anew elsewhere when they change.
#[derive(Debug)]
pub(crate) struct Screen {
    live: bool,
    shown: Vec<String>,
}

impl Screen {
    /// A screen below what was written so far.
    pub(crate) fn new(out: &Out) -> Self {
        Self { live: out.live, shown: Vec::new() }
    }

    /// Whether lines are redrawn, so that they may hold what changes every second.
    pub(crate) const fn is_live(&self) -> bool {
        self.live
    }

    /// Shows the lines as they are now.
    pub(crate) fn show(&mut self, lines: Vec<String>) {
        if lines == self.shown {
            return;
        }
        let mut stderr = io::stderr().lock();
        let text = if self.live { redrawn(self.shown.len(), &lines) } else { changed(&self.shown, &lines) };
        let _ = stderr.write_all(text.as_bytes());
        let _ = stderr.flush();
        self.shown = lines;
    }
}

/// Goes up over the old lines and writes the new ones. Wrapping is off meanwhile: a line that wraps would
/// count as two.
fn redrawn(before: usize, lines: &[String]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("\x1b[?7l");
    if before > 0 {
        let _ = write!(text, "\x1b[{before}A");
    }
    for line in lines {
        let _ = writeln!(text, "\r\x1b[2K{line}");
    }
    text.push_str("\x1b[?7h");
    text
}

fn changed(before: &[String], lines: &[String]) -> String {
    let new = lines.iter().enumerate().filter(|(index, line)| before.get(*index) != Some(*line));
    new.flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
}

/// Rows in columns, the first row being the head.
pub(crate) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![lines(&["KEY", "STATE"]), lines(&["AKIA1", "Active"]), lines(&["é", ""])];
        assert_eq!(table(&rows), ["KEY    STATE", "AKIA1  Active", "é"]);
        assert!(table(&[]).is_empty());
    }

    #[test]
    fn a_pipe_gets_only_the_lines_that_changed() {
        assert_eq!(changed(&lines(&["a", "b"]), &lines(&["a", "c"])), "c\n");
        assert_eq!(changed(&[], &lines(&["a"])), "a\n");
    }

    #[test]
    fn a_terminal_is_redrawn_from_the_first_old_line() {
        let text = redrawn(2, &lines(&["a"]));
        assert!(text.contains("\x1b[2A") && text.contains("\r\x1b[2Ka\n"), "{text:?}");
        assert!(!redrawn(0, &lines(&["a"])).contains('A'));
    }
}

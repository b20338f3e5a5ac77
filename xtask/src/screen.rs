//! What a task says while it runs: lines on standard error, and on a terminal a few that are drawn anew.
//!
//! Everything said is kept, so that the demo can look for secrets in its own words.

use std::cell::RefCell;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::error::Result;

/// The terminal, or the pipe in its place.
pub(crate) struct Screen {
    terminal: bool,
    drawn: RefCell<usize>,
    said: RefCell<String>,
}

impl Screen {
    /// Standard error.
    pub(crate) fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            drawn: RefCell::new(0),
            said: RefCell::new(String::new()),
        }
    }

    /// Whether somebody watches.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Everything that was said so far.
    pub(crate) fn said(&self) -> String {
        self.said.borrow().clone()
    }

    /// Says a line.
    pub(crate) fn line(&self, line: &str) {
        self.erase();
        self.write(line, true);
    }

    /// Draws a few lines in place of those drawn before; nothing in a pipe.
    pub(crate) fn draw(&self, lines: &[String]) {
        if !self.terminal {
            return;
        }
        self.erase();
        for line in lines {
            self.write(line, true);
        }
        *self.drawn.borrow_mut() = lines.len();
    }

    /// Names what is being done, does it, and says how long it took.
    pub(crate) async fn step<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.erase();
        self.write(&format!("{what}…"), false);
        let started = Instant::now();
        let result = work.await;
        self.write(
            &if result.is_ok() { format!(" {}", seconds(started.elapsed())) } else { " failed".into() },
            true,
        );
        result
    }

    /// As [`Screen::step`], for work that prints lines of its own.
    pub(crate) async fn loud<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.line(&format!("{what}…"));
        let started = Instant::now();
        let result = work.await;
        let end = if result.is_ok() { seconds(started.elapsed()) } else { "failed".into() };
        self.line(&format!("{what}: {end}"));
        result
    }

    fn erase(&self) {
        let lines = self.drawn.replace(0);
        if lines > 0 {
            eprint!("\x1b[{lines}A\x1b[J");
        }
    }

    fn write(&self, text: &str, end: bool) {
        let end = if end { "\n" } else { "" };
        eprint!("{text}{end}");
        let _ = std::io::stderr().flush();
        let mut said = self.said.borrow_mut();
        said.push_str(text);
        said.push_str(end);
    }
}

/// A duration as a person reads it.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

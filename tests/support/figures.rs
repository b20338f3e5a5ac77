//! Figures that tests print and hand to `cargo xtask prove`.

use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

/// Prints a line past the test harness, which keeps what passing tests print to itself.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether everything is asked for, however long it takes: `cargo xtask prove` says so.
pub fn everything() -> bool {
    std::env::var_os("KEYWHEEL_FIGURES").is_some()
}

/// Hands figures over under a name, where somebody collects them.
pub fn hand_over(name: &str, figures: &Value) {
    if let Some(dir) = std::env::var_os("KEYWHEEL_FIGURES") {
        let path = PathBuf::from(dir).join(format!("{name}.json"));
        std::fs::write(&path, figures.to_string())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}

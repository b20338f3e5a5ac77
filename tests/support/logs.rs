//! What the steps write to their logs, kept for the search for secrets.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

/// Takes every log line of this thread while it lives.
#[derive(Debug)]
pub struct Logs {
    lines: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

#[derive(Debug, Clone)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logs {
    /// Begins to listen, as a Lambda does: other crates from `warn` on, ours even more than it would.
    pub fn listen() -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let ours =
            ["keywheel", "facts", "look", "create_key", "validate_key", "promote_key", "deactivate_key"]
                .into_iter()
                .chain([
                    "delete_key",
                    "roll_back",
                    "notify",
                    "triage",
                    "contain",
                    "deny_sessions",
                    "replace",
                    "watch",
                    "scan",
                    "review",
                    "disable_unused",
                    "delete_unused",
                ])
                .map(|name| (name, LevelFilter::TRACE));
        let filter = Targets::new().with_default(LevelFilter::WARN).with_targets(ours);
        let writer = Writer(Arc::clone(&lines));
        let layer = tracing_subscriber::fmt::layer().json().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer).with(filter);
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// Everything that was written.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lines.lock().unwrap()).into_owned()
    }
}

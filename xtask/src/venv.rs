//! The Python environment of the emulator: made once, from a lock file with hashes.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::{Error, Explain, Result};
use crate::paths;
use crate::process::output;

/// The interpreters to look for. A bare `python3` comes first: it is the one its owner chose.
const PYTHONS: [&str; 6] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"];

/// A ready environment.
#[derive(Clone)]
pub(crate) struct Venv {
    dir: PathBuf,
}

impl Venv {
    /// The environment, made or brought up to the lock file where it is not.
    pub(crate) async fn prepare() -> Result<Self> {
        let (state, dir) = (paths::state(), paths::state().join("venv"));
        paths::make(&state)?;
        // Two tasks at once would build one environment in each other's way.
        let file = std::fs::File::create(state.join("venv.lock"))?;
        let held = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await?;
        let held = held.explain("waiting for another task that prepares the emulator")?;
        let venv = Self { dir };
        venv.bring_up().await?;
        drop(held);
        Ok(venv)
    }

    /// The environment's interpreter.
    pub(crate) fn python(&self) -> PathBuf {
        self.bin("python")
    }

    /// A program of the environment.
    pub(crate) fn bin(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    async fn bring_up(&self) -> Result<()> {
        let lock = paths::emulator().join("requirements.lock");
        let wanted = std::fs::read_to_string(&lock).explain(format_args!("reading {}", lock.display()))?;
        // The stamp is the lock file itself: an equal one has been installed to the end.
        let stamp = self.dir.join("installed.lock");
        let installed = std::fs::read_to_string(&stamp).ok();
        if installed.as_deref() == Some(&wanted) && runs(&self.python()).await {
            return Ok(());
        }
        if self.dir.exists() {
            // Whatever it is, it is not what the lock file says.
            std::fs::remove_dir_all(&self.dir).explain("removing the old Python environment")?;
        }
        let python = python().await?;
        output(Command::new(&python).args(["-m", "venv"]).arg(&self.dir), "python3 -m venv").await.explain(
            "the Python environment could not be made; on Debian and Ubuntu: apt-get install python3-venv",
        )?;
        let pip =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"];
        output(Command::new(self.python()).args(pip).arg(&lock), "pip install").await?;
        std::fs::write(&stamp, wanted).explain("writing the Python environment's stamp")
    }
}

/// The first interpreter that is new enough.
async fn python() -> Result<PathBuf> {
    let mut found = Vec::new();
    for name in PYTHONS {
        let print = "import sys; print('%d.%d' % sys.version_info[:2])";
        let Ok(version) = output(Command::new(name).args(["-c", print]), name).await else { continue };
        if is_enough(version.trim()) {
            return Ok(name.into());
        }
        found.push(format!("{name} is {}", version.trim()));
    }
    let found = if found.is_empty() { "none was found".to_owned() } else { found.join(", ") };
    Err(Error::from(format!("the local cloud needs Python 3.10 or later; {found}")))
}

fn is_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (3, 10)
}

async fn runs(python: &Path) -> bool {
    output(Command::new(python).args(["-c", "import ministack"]), "python").await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_enough("3.10") && is_enough("3.11") && is_enough("4.0"));
        assert!(!is_enough("3.9") && !is_enough("2.7") && !is_enough(""));
    }
}

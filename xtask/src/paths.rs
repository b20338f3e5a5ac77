//! Where things are: the repository, and the directory of everything that the local cloud leaves behind.

use std::path::{Path, PathBuf};

use crate::error::{Explain, Result};

/// The repository's top directory.
pub(crate) fn root() -> PathBuf {
    // Cargo names the crate's directory to what it runs; a binary that was moved knows it from its build.
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    let manifest = PathBuf::from(manifest);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// This program, to be started again.
pub(crate) fn this() -> Result<PathBuf> {
    // Linux finds it even when a build has put another file in its place meanwhile.
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() { Ok(link) } else { std::env::current_exe().explain("finding this program") }
}

/// Everything that is made while trying and testing; ignored by git, and safe to delete.
pub(crate) fn state() -> PathBuf {
    root().join(".local-cloud")
}

/// The directory of the emulator and the deployment script.
pub(crate) fn emulator() -> PathBuf {
    root().join("infra/local")
}

/// Makes a directory and those above it.
pub(crate) fn make(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).explain(format_args!("making the directory {}", dir.display()))
}

/// A directory that is removed with this value, unless it is to be kept.
pub(crate) struct Scratch {
    /// Where it is.
    pub(crate) dir: PathBuf,
    keep: bool,
}

impl Scratch {
    /// An empty directory of this name under [`state`].
    pub(crate) fn new(name: &str, keep: bool) -> Result<Self> {
        let dir = state().join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).explain(format_args!("emptying {}", dir.display()))?;
        }
        make(&dir)?;
        Ok(Self { dir, keep })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            // What remains is ignored by git and emptied by the next run of this name.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

//! The programs under measurement: the Lambdas as they are deployed, and their Python peers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::cases::CASES;
use super::measure::Subject;
use crate::error::{Explain, Result};
use crate::process::{Group, output};
use crate::venv::Venv;
use crate::{lambdas, paths};

/// The directory of the Python handlers.
fn peers() -> PathBuf {
    paths::root().join("xtask/bench")
}

fn names() -> Vec<String> {
    CASES.iter().map(|case| case.name.to_owned()).collect()
}

/// See [`lambdas::release_ahead`].
pub(crate) fn ahead() -> Option<Group> {
    lambdas::release_ahead(&names())
}

/// The Lambdas: built, or those of a directory that holds them under their names.
pub(crate) async fn lambdas(given: Option<&Path>) -> Result<BTreeMap<String, PathBuf>> {
    match given {
        Some(dir) => Ok(names().into_iter().map(|name| (name.clone(), dir.join(name))).collect()),
        None => lambdas::release(&names()).await,
    }
}

/// Its peer.
pub(crate) fn peer(venv: &Venv, name: &str) -> Subject {
    let bootstrap = peers().join("bootstrap.py").to_string_lossy().into_owned();
    Subject { program: venv.python(), arguments: vec![bootstrap, name.replace('-', "_")] }
}

/// The bundle of roots that boto3 brings: some 140, like those of a Lambda's operating system.
pub(crate) async fn roots(venv: &Venv) -> Result<PathBuf> {
    let print = "import botocore, os; print(os.path.join(os.path.dirname(botocore.__file__), 'cacert.pem'))";
    let path = output(Command::new(venv.python()).args(["-c", print]), "python").await?;
    Ok(path.trim().into())
}

/// The sizes of a program, bare and zipped as it is deployed.
pub(crate) async fn sizes(venv: &Venv, program: &Path, scratch: &Path) -> Result<(u64, u64)> {
    let (copy, zip) = (scratch.join("bootstrap"), scratch.join("bootstrap.zip"));
    std::fs::copy(program, &copy).explain(format_args!("copying {}", program.display()))?;
    let mut pack = Command::new(venv.python());
    output(pack.args(["-m", "zipfile", "-c"]).arg(&zip).arg(&copy), "zipping").await?;
    Ok((std::fs::metadata(&copy)?.len(), std::fs::metadata(&zip)?.len()))
}

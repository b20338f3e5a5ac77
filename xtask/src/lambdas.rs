//! The Lambdas' binaries: found, built and set out for the deployment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::error::{Error, Explain, Result};
use crate::paths;
use crate::process::Group;

/// The packages of all Lambdas: every crate of `functions/` that has a program.
pub(crate) fn packages() -> Result<Vec<String>> {
    let functions = paths::root().join("functions");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&functions).explain("reading functions/")? {
        let dir = entry?.path();
        if dir.join("src/main.rs").is_file()
            && let Some(name) = dir.file_name().and_then(|name| name.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds the Lambdas and puts them, stripped and named after their packages, into `dir`.
pub(crate) async fn set_out(dir: &Path) -> Result<()> {
    let packages = packages()?;
    let built = build(&packages).await?;
    paths::make(dir)?;
    for package in &packages {
        let binary =
            built.get(package).ok_or_else(|| Error::from(format!("cargo built no program of {package}")))?;
        place(binary, &dir.join(package)).await?;
    }
    Ok(())
}

/// Cargo, as it was called for this program.
pub(crate) fn cargo() -> Command {
    in_place(Command::new(cargo_program()))
}

fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn in_place(mut cargo: Command) -> Command {
    cargo.current_dir(paths::root());
    // What `cargo run` told us about the crate xtask would pass for a change of their settings with the build
    // scripts that read the same names, and have half of the SDK built anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Builds the Lambdas as they are deployed, all in one go: what they share is compiled once.
pub(crate) async fn release(packages: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let mut build = cargo();
    build.args(["build", "--release"]);
    run(build, packages.iter().map(String::as_str)).await
}

/// Begins to build them for release with what others leave of the processors. Whoever asks for them with [`release`]
/// waits until it has ended; where it fails, that one says why.
pub(crate) fn release_ahead(packages: &[String]) -> Option<Group> {
    let mut build = Command::new("nice");
    build.args(["-n", "19"]).arg(cargo_program()).args(["build", "--release"]);
    for package in packages {
        build.args(["--package", package]);
    }
    let mut build = in_place(build);
    build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Group::spawn(&mut build).ok()
}

async fn build(packages: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let mut build = cargo();
    build.arg("build");
    // Features are united over what is built together. With xtask among it they are the ones that xtask was
    // built with a moment ago, and nothing is compiled a second time for the Lambdas.
    run(build, packages.iter().map(String::as_str).chain(["xtask"])).await
}

async fn run<'a>(
    mut build: Command,
    packages: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, PathBuf>> {
    build.arg("--message-format=json-render-diagnostics");
    for package in packages {
        build.args(["--package", package]);
    }
    let child = build
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .explain("starting cargo")?;
    let result = child.wait_with_output().await.explain("cargo build")?;
    if !result.status.success() {
        return Err("the Lambdas could not be built".into());
    }
    Ok(programs(&String::from_utf8_lossy(&result.stdout)))
}

/// The programs that cargo's messages name.
fn programs(messages: &str) -> BTreeMap<String, PathBuf> {
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message.pointer("/target/name")?.as_str()?.to_owned();
        Some((name, message.get("executable")?.as_str()?.into()))
    };
    messages.lines().filter_map(program).collect()
}

async fn place(binary: &Path, target: &Path) -> Result<()> {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    if let (Some(source), Some(copy)) = (changed(binary), changed(target))
        && copy > source
    {
        return Ok(());
    }
    // Made beside it and put in its place at once: another task may be deploying from this directory. A smaller
    // file is zipped, deployed and started sooner; without the tool the file works as it is.
    let new = target.with_extension(std::process::id().to_string());
    let stripped =
        Command::new("strip").arg("-s").arg("-o").arg(&new).arg(binary).stderr(Stdio::null()).status();
    if !stripped.await.is_ok_and(|status| status.success()) {
        std::fs::copy(binary, &new).explain(format_args!("copying {}", binary.display()))?;
    }
    // The tool keeps the source's times on some systems; ours must be later than the build's.
    std::fs::File::options().append(true).open(&new)?.set_modified(std::time::SystemTime::now())?;
    std::fs::rename(&new, target).explain(format_args!("placing {}", target.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"keywheel"},"executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","target":{"name":"look"},"executable":"/t/debug/look"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(programs(messages), BTreeMap::from([("look".to_owned(), PathBuf::from("/t/debug/look"))]));
    }
}

//! `package`: what is installed on a machine without a toolchain, in one directory.
//!
//! The command in an archive, a zip for each function, the machines, the templates that point at them by their
//! content, what all of it was built from, a manifest and the hashes. Nothing in it says when, where or from which
//! commit it was made: the same programs give the same bytes.

mod archive;
mod components;
mod template;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flate2::Compression;
use keywheel::package::{
    Architecture, Artefact, BOOTSTRAP, HEADER, Kind, MANIFEST, Manifest, SCHEMA, SUMS, TEMPLATE, sums_text,
};
use sha2::{Digest, Sha256};

use crate::error::{Error, Explain, Result};
use crate::screen::Screen;
use crate::{lambdas, paths};

/// The crate and the program of the command.
const COMMAND: (&str, &str) = ("keywheel-cli", "keywheel");
/// What the archive of the command holds beside it, where it is there.
const BESIDE: [&str; 4] = ["README.md", "LICENSE", "LICENSE.txt", "NOTICE"];
/// The templates that are handed on as they are.
const OTHERS: [&str; 2] = ["intake.yaml", "member.yaml"];

/// `cargo xtask package`
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where to; what an earlier one has left there is removed first.
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
    /// Programs that are there already, named after their packages; without it they are built for release. The
    /// command is left out where it is not among them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// Runs the task.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let screen = Screen::new();
    let (functions, command) = match &options.programs {
        Some(dir) => given(dir)?,
        None => Box::pin(screen.loud("Building for release", built())).await?,
    };
    // What is released is packed once and fetched often.
    let level = if options.programs.is_some() { Compression::fast() } else { Compression::best() };
    let manifest = write(&options.out, &functions, command.as_deref(), level).await?;
    println!(
        "{}: {} files for {}",
        options.out.display(),
        manifest.artefacts.len() + 2,
        manifest.architecture
    );
    Ok(ExitCode::SUCCESS)
}

type Programs = BTreeMap<String, PathBuf>;

/// The programs of a directory.
pub(crate) fn given(dir: &Path) -> Result<(Programs, Option<PathBuf>)> {
    let packages = lambdas::packages()?;
    let functions = packages.into_iter().map(|name| (name.clone(), dir.join(name))).collect();
    let command = Some(dir.join(COMMAND.1)).filter(|path| path.is_file());
    Ok((functions, command))
}

/// The programs as they are released. The command is built apart: its features would be united with the functions'.
async fn built() -> Result<(Programs, Option<PathBuf>)> {
    let packages = lambdas::packages()?;
    let mut functions = lambdas::release(&packages).await?;
    functions.retain(|name, _| packages.contains(name));
    let command = lambdas::release(&[COMMAND.0.to_owned()]).await?.remove(COMMAND.1);
    let command = command.ok_or_else(|| Error::from("cargo built no command"))?;
    Ok((functions, Some(command)))
}

/// The files of a release as they are written, and what is said of them.
struct Release {
    dir: PathBuf,
    artefacts: Vec<Artefact>,
    sums: BTreeMap<String, String>,
}

impl Release {
    /// An empty directory. One that holds something else is not emptied.
    fn new(dir: &Path) -> Result<Self> {
        let is_ours = dir.join(MANIFEST).is_file();
        if dir.exists() {
            let empty =
                std::fs::read_dir(dir).explain(format_args!("reading {}", dir.display()))?.next().is_none();
            if !is_ours && !empty {
                let what =
                    format!("{} holds something else than a release: it is left as it is", dir.display());
                return Err(what.into());
            }
            std::fs::remove_dir_all(dir).explain(format_args!("emptying {}", dir.display()))?;
        }
        paths::make(dir)?;
        Ok(Self { dir: dir.to_path_buf(), artefacts: Vec::new(), sums: BTreeMap::new() })
    }

    /// Writes a file, and returns its hash.
    fn write(&mut self, path: &str, contents: &[u8]) -> Result<String> {
        let file = self.dir.join(path);
        if let Some(above) = file.parent() {
            paths::make(above)?;
        }
        std::fs::write(&file, contents).explain(format_args!("writing {}", file.display()))?;
        let sum = sha256(contents);
        self.sums.insert(path.to_owned(), sum.clone());
        Ok(sum)
    }

    /// Writes an artefact.
    fn add(&mut self, path: &str, kind: Kind, contents: &[u8]) -> Result<Artefact> {
        let sum = self.write(path, contents)?;
        let artefact = Artefact::new(path, kind, &sum, u64::try_from(contents.len())?);
        self.artefacts.push(artefact.clone());
        Ok(artefact)
    }

    /// Writes the manifest and the hashes.
    fn finish(mut self, architecture: Architecture, parameters: Vec<String>) -> Result<Manifest> {
        self.artefacts.sort_by(|a, b| a.path.cmp(&b.path));
        let artefacts = std::mem::take(&mut self.artefacts);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let manifest = Manifest { schema: SCHEMA, version, architecture, parameters, artefacts };
        let text = serde_json::to_string_pretty(&manifest)? + "\n";
        self.write(MANIFEST, text.as_bytes())?;
        let sums = sums_text(&self.sums);
        std::fs::write(self.dir.join(SUMS), sums).explain("writing the hashes")?;
        Ok(manifest)
    }
}

/// Writes a release of these programs into `dir`.
pub(crate) async fn write(
    dir: &Path,
    functions: &Programs,
    command: Option<&Path>,
    level: Compression,
) -> Result<Manifest> {
    let architecture = architecture(functions)?;
    let mut release = Release::new(dir)?;
    // What stands in the place of a path of the repository.
    let mut places = BTreeMap::new();
    for (name, program) in functions {
        let zip = archive::zip(&[(BOOTSTRAP, read(program)?)], level)?;
        let artefact = release.add(&format!("functions/{name}.zip"), Kind::Function, &zip)?;
        places.insert(format!("functions/{name}"), artefact);
    }
    for (path, text) in machines()? {
        let artefact = release.add(&path, Kind::Machine, text.as_bytes())?;
        places.insert(path, artefact);
    }
    let infra = paths::root().join("infra");
    let hub = read_text(&infra.join(TEMPLATE))?;
    let packaged = template::packaged(&hub, &places, architecture)?;
    release.add(TEMPLATE, Kind::Template, packaged.as_bytes())?;
    for name in OTHERS {
        release.add(name, Kind::Template, &read(&infra.join(name))?)?;
    }
    if let Some(command) = command {
        let name = format!("keywheel-{}-{architecture}-linux.tar.gz", env!("CARGO_PKG_VERSION"));
        release.add(&name, Kind::Command, &command_archive(command)?)?;
    }
    let roots = functions.keys().cloned().chain([COMMAND.0.to_owned()]).collect();
    let components = components::list(&roots, architecture).await?;
    release.add("components.cdx.json", Kind::Components, components.as_bytes())?;
    release.finish(architecture, template::parameters(&packaged))
}

/// The command, and what people read before they use it.
fn command_archive(command: &Path) -> Result<Vec<u8>> {
    let mut entries = vec![(COMMAND.1, 0o755, read(command)?)];
    for name in BESIDE {
        let file = paths::root().join(name);
        if file.is_file() {
            entries.push((name, 0o644, read(&file)?));
        }
    }
    archive::tar_gz(&entries)
}

/// The machines' definitions, by their path in the repository.
fn machines() -> Result<BTreeMap<String, String>> {
    let dir = paths::root().join("statemachine");
    let mut machines = BTreeMap::new();
    for entry in std::fs::read_dir(&dir).explain("reading statemachine/")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".asl.json") {
            machines.insert(format!("statemachine/{name}"), read_text(&entry.path())?);
        }
    }
    Ok(machines)
}

/// What all programs were built for.
fn architecture(functions: &Programs) -> Result<Architecture> {
    let mut found: Option<(Architecture, &str)> = None;
    for (name, program) in functions {
        let bytes = read(program)?;
        let header = bytes.get(..HEADER).unwrap_or(&bytes);
        let own = Architecture::of_program(header).explain(format_args!("the program of {name}"))?;
        match found {
            Some((known, other)) if known != own => {
                return Err(format!("{name} was built for {own}, and {other} for {known}").into());
            }
            _ => found = Some((own, name.as_str())),
        }
    }
    found.map(|(architecture, _)| architecture).ok_or_else(|| Error::from("there are no functions"))
}

/// A hash in hexadecimal digits.
pub(crate) fn sha256(contents: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(contents).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).explain(format_args!("reading {}", path.display()))
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).explain(format_args!("reading {}", path.display()))
}

#[cfg(test)]
mod tests;

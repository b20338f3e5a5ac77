//! A release as it is handed on: files, each with its hash, and a manifest that names them.
//!
//! `cargo xtask package` writes one, `keywheel install` reads it on a machine without a toolchain. What is put into a
//! bucket is named by its content there: a stack that points at an object points at these very bytes, and an upload
//! replaces nothing that a running function came from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The version of the manifest.
pub const SCHEMA: u32 = 1;
/// The manifest's file.
pub const MANIFEST: &str = "manifest.json";
/// The file with the hash of every other one, as `sha256sum` writes and checks it.
pub const SUMS: &str = "SHA256SUMS";
/// The hub's template.
pub const TEMPLATE: &str = "template.yaml";
/// The template's parameter that names the bucket of the artefacts.
pub const BUCKET_PARAMETER: &str = "ArtefactBucket";
/// The template's parameter that says what the functions were built for.
pub const ARCHITECTURE_PARAMETER: &str = "Architecture";
/// The program of a function, in its zip.
pub const BOOTSTRAP: &str = "bootstrap";
/// What every key in the bucket begins with.
pub const PREFIX: &str = "keywheel";
/// How much of a program tells what it was built for.
pub const HEADER: usize = 20;

/// What a function was built for, as the template writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit ARM.
    #[serde(rename = "arm64")]
    Arm64,
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86,
}

impl Architecture {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Arm64, Self::X86];

    /// As the template writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86 => "x86_64",
        }
    }

    /// As Rust's targets begin.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64",
            Self::X86 => "x86_64",
        }
    }

    /// The number that an ELF header has for it.
    const fn machine(self) -> u16 {
        match self {
            Self::Arm64 => 183,
            Self::X86 => 62,
        }
    }

    /// What a program was built for, from the first [`HEADER`] bytes of it.
    pub fn of_program(header: &[u8]) -> Result<Self, Unfit> {
        let [0x7f, b'E', b'L', b'F', class, order, rest @ ..] = header else { return Err(Unfit::NoElf) };
        // 64 bits, the low byte first: Lambda has nothing else.
        if (*class, *order) != (2, 1) {
            return Err(Unfit::OtherClass);
        }
        // Behind six bytes more than were taken: the rest of the identity, and the type.
        let Some(&[low, high]) = rest.get(12..14) else { return Err(Unfit::NoElf) };
        let machine = u16::from_le_bytes([low, high]);
        Self::ALL.into_iter().find(|one| one.machine() == machine).ok_or(Unfit::OtherMachine(machine))
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.name() == text);
        known.ok_or_else(|| format!("{text:?} is neither arm64 nor x86_64"))
    }
}

/// Why a file is no program that Lambda could start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Another kind of file, or the beginning of one.
    #[error("it is no program of Linux: it has no ELF header")]
    NoElf,
    /// 32 bits, or the high byte first.
    #[error("it is a program for 32 bits or another order of bytes")]
    OtherClass,
    /// A machine of the ELF table that Lambda does not have.
    #[error("it is a program for machine {0} of the ELF table, which is neither arm64 nor x86_64")]
    OtherMachine(u16),
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The archive of the command, for people.
    Command,
    /// A function's zip.
    Function,
    /// A machine's definition.
    Machine,
    /// A template.
    Template,
    /// The list of what everything was built from.
    Components,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// Where it is, from the manifest's directory.
    pub path: String,
    /// What it is for.
    pub kind: Kind,
    /// Its hash, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Its key in the bucket, where it belongs into one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Artefact {
    /// The artefact of a file with this hash. The bucket gets what a stack is made of.
    pub fn new(path: &str, kind: Kind, sha256: &str, bytes: u64) -> Self {
        let key = matches!(kind, Kind::Function | Kind::Machine | Kind::Template).then(|| key(path, sha256));
        Self { path: path.to_owned(), kind, sha256: sha256.to_owned(), bytes, key }
    }
}

/// The key of a file in the bucket: its content, and the end of its name.
pub fn key(path: &str, sha256: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let end = name.split_once('.').map_or("", |(_, end)| end);
    format!("{PREFIX}/{sha256}.{end}")
}

/// What a release consists of. Nothing of it depends on where or when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this document.
    pub schema: u32,
    /// The release.
    pub version: String,
    /// What its functions were built for.
    pub architecture: Architecture,
    /// The parameters of the hub's template.
    pub parameters: Vec<String>,
    /// All files but this one and that of the hashes, by path.
    pub artefacts: Vec<Artefact>,
}

impl Manifest {
    /// Reads a manifest, and holds it against the hashes of the files beside it. It must name each of them, and none
    /// that is not there; and nothing of it may lead elsewhere.
    pub fn read(text: &str, sums: &BTreeMap<String, String>) -> Result<Self, String> {
        let manifest: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if manifest.schema != SCHEMA {
            return Err(format!("it is of schema {}, and this command reads {SCHEMA}", manifest.schema));
        }
        for artefact in &manifest.artefacts {
            let path = &artefact.path;
            if sums.get(path) != Some(&artefact.sha256) {
                return Err(format!("{path} has another hash in {SUMS}"));
            }
            if *artefact != Artefact::new(path, artefact.kind, &artefact.sha256, artefact.bytes) {
                return Err(format!("{path} has a key that is not its content's"));
            }
        }
        let unnamed = sums.keys().find(|path| {
            *path != MANIFEST && !manifest.artefacts.iter().any(|artefact| artefact.path == **path)
        });
        unnamed.map_or(Ok(manifest), |path| Err(format!("it does not name {path}")))
    }
}

/// The text of [`SUMS`].
pub fn sums_text(sums: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = sums.iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect();
    lines.concat()
}

/// Reads the text of [`SUMS`].
pub fn read_sums(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let hash =
            |sum: &&str| sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let parts = line.split_once("  ").filter(|(sum, path)| hash(sum) && stays_inside(path));
        let Some((sum, path)) = parts else { return Err(format!("this is no hash and file: {line:?}")) };
        if sums.insert(path.to_owned(), sum.to_owned()).is_some() {
            return Err(format!("{path} is there twice"));
        }
    }
    if sums.contains_key(MANIFEST) { Ok(sums) } else { Err(format!("{MANIFEST} is not there")) }
}

/// Whether a path is one of a file below the directory that it begins in.
fn stays_inside(path: &str) -> bool {
    path != SUMS
        && !path.contains('\\')
        && path.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

#[cfg(test)]
mod tests;

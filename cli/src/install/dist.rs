//! A release on this disk. Nothing of it is used before all of it was held against its hashes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keywheel::package::{Architecture, Artefact, Kind, MANIFEST, Manifest, SUMS, TEMPLATE, read_sums};
use sha2::{Digest, Sha256};

use super::zip;
use crate::error::{Result, Trouble};

/// What to do about files that are not as they were.
const AGAIN: &str = "Nothing was changed. Get the release again, and unpack it into an empty directory.";

/// A release whose files are all there and as they were written.
#[derive(Debug)]
pub(super) struct Dist {
    dir: PathBuf,
    pub(super) manifest: Manifest,
}

impl Dist {
    /// Reads a release.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let sums = text(dir, SUMS)?;
        let sums = read_sums(&sums).map_err(|why| broken(dir, SUMS, &why))?;
        // The manifest first: its own text is what is understood below, and is read once.
        let manifest = contents(dir, MANIFEST, sums.get(MANIFEST).map(String::as_str).unwrap_or_default())?;
        let manifest = String::from_utf8(manifest).map_err(|_| broken(dir, MANIFEST, "it is no text"))?;
        let manifest = Manifest::read(&manifest, &sums).map_err(|why| broken(dir, MANIFEST, &why))?;
        for (path, sum) in &sums {
            contents(dir, path, sum)?;
        }
        Ok(Self { dir: dir.to_path_buf(), manifest })
    }

    /// The hub's template.
    pub(super) fn template(&self) -> Result<&Artefact> {
        let mut templates = self.manifest.artefacts.iter().filter(|one| one.kind == Kind::Template);
        let template = templates.find(|one| one.path == TEMPLATE);
        template.ok_or_else(|| broken(&self.dir, MANIFEST, &format!("it names no {TEMPLATE}")))
    }

    /// The contents of an artefact, once more held against its hash.
    pub(super) fn contents(&self, artefact: &Artefact) -> Result<Vec<u8>> {
        contents(&self.dir, &artefact.path, &artefact.sha256)
    }

    /// Refuses a function that would not start on this architecture: CloudFormation takes it, and every run fails.
    pub(super) fn fits(&self, architecture: Architecture) -> Result<()> {
        for function in self.manifest.artefacts.iter().filter(|one| one.kind == Kind::Function) {
            let packed = self.contents(function)?;
            let program = zip::program(&packed)
                .ok_or_else(|| broken(&self.dir, &function.path, "it holds no program bootstrap"))?;
            let built = Architecture::of_program(&program)
                .map_err(|why| broken(&self.dir, &function.path, &format!("of its program: {why}")))?;
            if built != architecture {
                return Err(Trouble::new(
                    format!(
                        "{} was built for {built}, and would be installed for {architecture}.",
                        function.path
                    ),
                    format!(
                        "Nothing was changed. Get the release for {architecture}, or give --parameter Architecture={built}."
                    ),
                ));
            }
        }
        Ok(())
    }

    /// What goes into the bucket: the key and the artefact.
    pub(super) fn uploads(&self) -> BTreeMap<&str, &Artefact> {
        self.manifest.artefacts.iter().filter_map(|one| Some((one.key.as_deref()?, one))).collect()
    }
}

fn broken(dir: &Path, name: &str, why: &str) -> Trouble {
    Trouble::new(format!("{} is not as it was released: {why}.", dir.join(name).display()), AGAIN)
}

fn read(dir: &Path, name: &str) -> Result<Vec<u8>> {
    std::fs::read(dir.join(name)).map_err(|error| {
        Trouble::new(
            format!("{} could not be read: {error}.", dir.join(name).display()),
            "Give --from the directory of an unpacked release; `cargo xtask package` makes one.",
        )
    })
}

fn text(dir: &Path, name: &str) -> Result<String> {
    String::from_utf8(read(dir, name)?).map_err(|_| broken(dir, name, "it is no text"))
}

/// A file whose hash is this one.
fn contents(dir: &Path, name: &str, sum: &str) -> Result<Vec<u8>> {
    let contents = read(dir, name)?;
    if sha256(&contents) == sum { Ok(contents) } else { Err(broken(dir, name, "its hash is another one")) }
}

/// A hash in hexadecimal digits.
fn sha256(contents: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(contents).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::zip::tests::zip;
    use super::*;
    use keywheel::package::{SCHEMA, sums_text};

    /// A directory that goes with this value.
    pub(crate) struct Place(pub(crate) PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A program of this machine, in a zip.
    fn function(machine: u8) -> Vec<u8> {
        let mut program = b"\x7fELF\x02\x01".to_vec();
        program.resize(18, 0);
        program.extend([machine, 0]);
        zip("bootstrap", &program, true)
    }

    /// A release with a template and a function.
    pub(crate) fn release(name: &str, machine: u8) -> Place {
        let dir = std::env::temp_dir().join(format!("keywheel-install-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("functions")).unwrap();
        let mut sums = BTreeMap::new();
        let mut artefacts = Vec::new();
        let files = [
            ("functions/look.zip", Kind::Function, function(machine)),
            (TEMPLATE, Kind::Template, b"Parameters:\n".to_vec()),
        ];
        for (path, kind, contents) in files {
            std::fs::write(dir.join(path), &contents).unwrap();
            let sum = sha256(&contents);
            artefacts.push(Artefact::new(path, kind, &sum, u64::try_from(contents.len()).unwrap()));
            sums.insert(path.to_owned(), sum);
        }
        let parameters = ["ArtefactBucket", "Architecture", "Stage", "LogRetentionDays"].map(str::to_owned);
        let manifest = Manifest {
            schema: SCHEMA,
            version: "0.1.0".into(),
            architecture: Architecture::Arm64,
            parameters: parameters.into(),
            artefacts,
        };
        let manifest = serde_json::to_string(&manifest).unwrap();
        std::fs::write(dir.join(MANIFEST), &manifest).unwrap();
        sums.insert(MANIFEST.to_owned(), sha256(manifest.as_bytes()));
        std::fs::write(dir.join(SUMS), sums_text(&sums)).unwrap();
        Place(dir)
    }

    #[test]
    fn a_release_as_it_was_written_is_taken() {
        let place = release("whole", 183);
        let dist = Dist::read(&place.0).unwrap();
        assert_eq!(dist.template().unwrap().path, TEMPLATE);
        let keys: Vec<&str> = dist.uploads().into_keys().collect();
        assert!(keys.len() == 2 && keys.iter().all(|key| key.starts_with("keywheel/")), "{keys:?}");
        assert_eq!(dist.fits(Architecture::Arm64), Ok(()));
    }

    #[test]
    fn a_file_that_was_changed_added_or_lost_stops_everything() {
        for name in [TEMPLATE, "functions/look.zip", MANIFEST] {
            let place = release(&format!("changed-{}", name.len()), 183);
            let mut contents = std::fs::read(place.0.join(name)).unwrap();
            contents.push(b'\n');
            std::fs::write(place.0.join(name), contents).unwrap();
            let trouble = Dist::read(&place.0).unwrap_err();
            assert!(trouble.text.contains(name) && trouble.text.contains("another one"), "{trouble}");
            assert!(trouble.remedy.contains("Nothing was changed"), "{trouble}");
            std::fs::remove_file(place.0.join(name)).unwrap();
            assert!(Dist::read(&place.0).unwrap_err().text.contains("could not be read"));
        }
        let place = release("unnamed", 183);
        let added =
            format!("{}{}  added.zip\n", std::fs::read_to_string(place.0.join(SUMS)).unwrap(), sha256(b"x"));
        std::fs::write(place.0.join(SUMS), added).unwrap();
        std::fs::write(place.0.join("added.zip"), "x").unwrap();
        assert!(Dist::read(&place.0).unwrap_err().text.contains("does not name added.zip"));
    }

    #[test]
    fn a_file_that_is_changed_after_it_was_looked_at_is_not_uploaded() {
        let place = release("later", 183);
        let dist = Dist::read(&place.0).unwrap();
        std::fs::write(place.0.join(TEMPLATE), "Resources:\n").unwrap();
        assert!(dist.contents(dist.template().unwrap()).unwrap_err().text.contains("another one"));
    }

    #[test]
    fn a_program_for_another_architecture_is_refused_by_name() {
        let place = release("other", 62);
        let dist = Dist::read(&place.0).unwrap();
        let trouble = dist.fits(Architecture::Arm64).unwrap_err();
        assert_eq!(
            trouble.text,
            "functions/look.zip was built for x86_64, and would be installed for arm64."
        );
        assert_eq!(dist.fits(Architecture::X86), Ok(()));
        let place = release("unknown", 243);
        let trouble = Dist::read(&place.0).unwrap().fits(Architecture::Arm64).unwrap_err();
        assert!(trouble.text.contains("machine 243"), "{trouble}");
    }
}

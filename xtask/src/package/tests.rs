use super::*;

/// A directory that goes with this value.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("keywheel-package-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn program(place: &Place, name: &str, machine: u8) -> (String, PathBuf) {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(18, 0);
    bytes.extend([machine, 0]);
    bytes.extend(name.as_bytes());
    let file = place.0.join(name);
    std::fs::write(&file, bytes).unwrap();
    (name.to_owned(), file)
}

#[test]
fn programs_for_one_machine_are_taken_and_a_mixture_is_not() {
    let place = Place::new("machines");
    let same = BTreeMap::from([program(&place, "a", 183), program(&place, "b", 183)]);
    assert_eq!(architecture(&same).unwrap(), Architecture::Arm64);
    let mixed = BTreeMap::from([program(&place, "a", 183), program(&place, "b", 62)]);
    let error = architecture(&mixed).unwrap_err().to_string();
    assert!(error.contains("b was built for x86_64, and a for arm64"), "{error}");
    let script = place.0.join("c");
    std::fs::write(&script, "#!/bin/sh").unwrap();
    let error = architecture(&BTreeMap::from([("c".to_owned(), script)])).unwrap_err().to_string();
    assert!(error.contains("the program of c") && error.contains("ELF"), "{error}");
    assert!(architecture(&BTreeMap::new()).is_err());
}

#[test]
fn a_release_is_read_back_as_it_was_written() {
    let place = Place::new("release");
    let dir = place.0.join("dist");
    let mut release = Release::new(&dir).unwrap();
    release.add("functions/look.zip", Kind::Function, b"zip").unwrap();
    release.add(TEMPLATE, Kind::Template, b"Parameters:\n").unwrap();
    let manifest = release.finish(Architecture::Arm64, vec!["Stage".into()]).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let sums = keywheel::package::read_sums(&read(SUMS)).unwrap();
    assert_eq!(Manifest::read(&read(MANIFEST), &sums), Ok(manifest));
    for (path, sum) in &sums {
        assert_eq!(sha256(&std::fs::read(dir.join(path)).unwrap()), *sum, "{path}");
    }
    // What is known of SHA-256.
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn a_directory_that_holds_something_else_is_left_as_it_is() {
    let place = Place::new("other");
    std::fs::write(place.0.join("thesis.txt"), "mine").unwrap();
    assert!(Release::new(&place.0).is_err());
    assert_eq!(std::fs::read_to_string(place.0.join("thesis.txt")).unwrap(), "mine");
    let dir = place.0.join("dist");
    Release::new(&dir).unwrap().finish(Architecture::X86, Vec::new()).unwrap();
    // A release makes room for the next one.
    std::fs::write(dir.join("old.zip"), "old").unwrap();
    Release::new(&dir).unwrap();
    assert!(!dir.join("old.zip").exists());
}

use super::*;

/// The beginning of a program for this machine.
fn header(class: u8, order: u8, machine: u16) -> Vec<u8> {
    let mut header = vec![0x7f, b'E', b'L', b'F', class, order, 1, 0];
    header.extend([0; 8]);
    header.extend([3, 0]);
    header.extend(machine.to_le_bytes());
    header
}

#[test]
fn a_program_says_in_its_header_what_it_was_built_for() {
    assert_eq!(header(2, 1, 62).len(), HEADER);
    assert_eq!(Architecture::of_program(&header(2, 1, 62)), Ok(Architecture::X86));
    assert_eq!(Architecture::of_program(&header(2, 1, 183)), Ok(Architecture::Arm64));
    // More of the file does no harm.
    let whole = [header(2, 1, 183), vec![0xff; 100]].concat();
    assert_eq!(Architecture::of_program(&whole), Ok(Architecture::Arm64));
}

#[test]
fn what_lambda_could_not_start_is_refused_by_what_it_is() {
    for not_elf in
        [&b""[..], b"#!/bin/sh\nexec true\n", b"PK\x03\x04 and so on, 20 bytes", &header(2, 1, 62)[..19]]
    {
        assert_eq!(Architecture::of_program(not_elf), Err(Unfit::NoElf), "{not_elf:?}");
    }
    assert_eq!(Architecture::of_program(&header(1, 1, 40)), Err(Unfit::OtherClass));
    assert_eq!(Architecture::of_program(&header(2, 2, 183)), Err(Unfit::OtherClass));
    // RISC-V; and 62 with its bytes the other way round.
    assert_eq!(Architecture::of_program(&header(2, 1, 243)), Err(Unfit::OtherMachine(243)));
    assert_eq!(Architecture::of_program(&header(2, 1, 62 << 8)), Err(Unfit::OtherMachine(62 << 8)));
}

#[test]
fn architectures_are_written_as_in_the_template() {
    for one in Architecture::ALL {
        assert_eq!(one.name().parse(), Ok(one));
        assert_eq!(serde_json::to_value(one).unwrap(), one.name());
    }
    assert!("aarch64".parse::<Architecture>().unwrap_err().contains("neither arm64 nor x86_64"));
}

const ZIP: &str = "functions/look.zip";

fn sum(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn sums() -> BTreeMap<String, String> {
    BTreeMap::from([(MANIFEST.to_owned(), sum('a')), (ZIP.to_owned(), sum('b'))])
}

fn manifest() -> Manifest {
    Manifest {
        schema: SCHEMA,
        version: "0.1.0".into(),
        architecture: Architecture::Arm64,
        parameters: vec!["Stage".into()],
        artefacts: vec![Artefact::new(ZIP, Kind::Function, &sum('b'), 7)],
    }
}

fn read(manifest: &Manifest, sums: &BTreeMap<String, String>) -> Result<Manifest, String> {
    Manifest::read(&serde_json::to_string(manifest).unwrap(), sums)
}

#[test]
fn the_bucket_gets_what_a_stack_is_made_of_under_its_content() {
    let at = |path, kind| Artefact::new(path, kind, &sum('c'), 1).key;
    assert_eq!(at(ZIP, Kind::Function), Some(format!("keywheel/{}.zip", sum('c'))));
    let definition = at("statemachine/rotation.asl.json", Kind::Machine);
    assert_eq!(definition, Some(format!("keywheel/{}.asl.json", sum('c'))));
    assert_eq!(at(TEMPLATE, Kind::Template), Some(format!("keywheel/{}.yaml", sum('c'))));
    assert_eq!(at("keywheel-0.1.0-arm64.tar.gz", Kind::Command), None);
    assert_eq!(at("components.cdx.json", Kind::Components), None);
}

#[test]
fn a_manifest_is_taken_as_it_was_written() {
    assert_eq!(read(&manifest(), &sums()), Ok(manifest()));
}

#[test]
fn a_manifest_that_contradicts_the_hashes_is_refused() {
    let mut other = sums();
    other.insert(ZIP.into(), sum('c'));
    assert!(read(&manifest(), &other).unwrap_err().contains("another hash"));
    let mut more = sums();
    more.insert("functions/scan.zip".into(), sum('d'));
    assert!(read(&manifest(), &more).unwrap_err().contains("does not name functions/scan.zip"));
    let mut less = sums();
    less.remove(ZIP);
    assert!(read(&manifest(), &less).unwrap_err().contains("another hash"));
}

#[test]
fn a_manifest_that_leads_elsewhere_is_refused() {
    let mut astray = manifest();
    astray.artefacts[0].key = Some("keywheel/of-somebody-else.zip".into());
    assert!(read(&astray, &sums()).unwrap_err().contains("not its content's"));
    astray.artefacts[0].key = None;
    assert!(read(&astray, &sums()).is_err());
    let later = Manifest { schema: SCHEMA + 1, ..manifest() };
    assert!(read(&later, &sums()).unwrap_err().contains("schema 2"));
}

#[test]
fn hashes_are_read_as_they_are_written() {
    assert_eq!(read_sums(&sums_text(&sums())), Ok(sums()));
    assert_eq!(sums_text(&sums()).lines().next(), Some(format!("{}  functions/look.zip", sum('b')).as_str()));
}

#[test]
fn hashes_of_anything_outside_or_of_nothing_are_refused() {
    let with = |line: &str| read_sums(&format!("{}{line}\n", sums_text(&sums())));
    for path in ["/etc/passwd", "../template.yaml", "a/../../b", "a//b", "", ".hidden", "a\\..\\b", SUMS, ZIP]
    {
        assert!(with(&format!("{}  {path}", sum('e'))).is_err(), "{path}");
    }
    for line in [format!("{} *x", sum('e')), format!("{}  x", sum('E')), "abc  x".into(), "x".into()] {
        assert!(with(&line).is_err(), "{line}");
    }
    assert!(read_sums("").unwrap_err().contains(MANIFEST));
}

//! The beginning of a function's program, out of its zip.

use std::io::Read as _;

use flate2::read::DeflateDecoder;
use keywheel::package::{BOOTSTRAP, HEADER};

const END: &[u8] = b"PK\x05\x06";
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";

/// The first bytes of the program that Lambda would start; fewer where it is shorter. `None` where there is none.
pub(super) fn program(zip: &[u8]) -> Option<Vec<u8>> {
    // The end of the directory stands behind all, but for a comment.
    let end = (0..=zip.len().checked_sub(22)?).rev().find(|at| zip[*at..].starts_with(END))?;
    let (count, mut at) = (half(zip, end + 10)?, word(zip, end + 16)?);
    for _ in 0..count {
        let entry = zip.get(at..)?;
        if !entry.starts_with(ENTRY) {
            return None;
        }
        let (name, extra, comment) = (half(entry, 28)?, half(entry, 30)?, half(entry, 32)?);
        if entry.get(46..46 + name)? == BOOTSTRAP.as_bytes() {
            return contents(zip, half(entry, 10)?, word(entry, 20)?, word(entry, 42)?);
        }
        at = at.checked_add(46 + name + extra + comment)?;
    }
    None
}

/// The beginning of a member: its method, packed size and place.
fn contents(zip: &[u8], method: usize, packed: usize, at: usize) -> Option<Vec<u8>> {
    let member = zip.get(at..)?;
    if !member.starts_with(LOCAL) {
        return None;
    }
    let start = 30 + half(member, 26)? + half(member, 28)?;
    let packed = member.get(start..start.checked_add(packed)?)?;
    let mut header = Vec::with_capacity(HEADER);
    let limit = u64::try_from(HEADER).ok()?;
    match method {
        0 => packed.take(limit).read_to_end(&mut header).ok()?,
        8 => DeflateDecoder::new(packed).take(limit).read_to_end(&mut header).ok()?,
        _ => return None,
    };
    Some(header)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write as _;

    /// A zip of one member, packed or not, as any tool writes it.
    pub(crate) fn zip(name: &str, contents: &[u8], deflated: bool) -> Vec<u8> {
        let packed = if deflated {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(contents).unwrap();
            encoder.finish().unwrap()
        } else {
            contents.to_vec()
        };
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let method = if deflated { 8 } else { 0 };
        let common = [
            &[20, 0, 0, 0, method, 0, 0, 0, 33, 0, 0, 0, 0, 0][..],
            &size(&packed),
            &size(contents),
            &length,
            &[0, 0],
        ]
        .concat();
        let member = [LOCAL, &common, name.as_bytes(), &packed].concat();
        let rest = [0; 14];
        let entry = [ENTRY, &[20, 3], &common, &rest, name.as_bytes()].concat();
        let end = [END, &[0, 0, 0, 0, 1, 0, 1, 0], &size(&entry), &size(&member), &[0, 0]].concat();
        [member, entry, end].concat()
    }

    #[test]
    fn the_programs_beginning_is_found_packed_or_not() {
        let program = [b"\x7fELF and so on, and on and on".as_slice(), &[7; 5_000]].concat();
        for deflated in [false, true] {
            let found = super::program(&zip("bootstrap", &program, deflated)).unwrap();
            assert_eq!(found, program[..HEADER]);
        }
        // A comment at the end does no harm.
        let commented = [zip("bootstrap", &program, true), b"made by hand".to_vec()].concat();
        assert_eq!(super::program(&commented).unwrap(), program[..HEADER]);
        assert_eq!(super::program(&zip("bootstrap", b"short", false)).unwrap(), b"short");
    }

    #[test]
    fn what_holds_no_program_is_none() {
        let whole = zip("bootstrap", &[7; 100], true);
        assert_eq!(super::program(&zip("handler.py", b"def handler(): pass", true)), None);
        assert_eq!(super::program(b""), None);
        assert_eq!(super::program(b"not a zip, whatever it is called"), None);
        assert_eq!(super::program(&whole[..whole.len() - 23]), None);
        // An offset that leads out of it.
        let mut astray = whole.clone();
        let end = whole.len() - 22;
        astray[end + 16..end + 20].copy_from_slice(&[0xff; 4]);
        assert_eq!(super::program(&astray), None);
    }
}

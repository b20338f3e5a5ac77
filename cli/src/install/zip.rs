//! The beginning of a function's program, out of its zip.

use std::io::{Cursor, Read as _};

use keywheel::package::{BOOTSTRAP, HEADER};
use zip::ZipArchive;

/// The first bytes of the program that Lambda would start; fewer where it is shorter. `None` where there is none.
pub(super) fn program(packed: &[u8]) -> Option<Vec<u8>> {
    let mut archive = ZipArchive::new(Cursor::new(packed)).ok()?;
    let member = archive.by_name(BOOTSTRAP).ok()?;
    let mut header = Vec::with_capacity(HEADER);
    member.take(u64::try_from(HEADER).ok()?).read_to_end(&mut header).ok()?;
    Some(header)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write as _;

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    /// The end of a zip without a comment.
    const END: usize = 22;

    /// A zip of one member, packed or not, as any tool writes it.
    pub(crate) fn zip(name: &str, contents: &[u8], deflated: bool) -> Vec<u8> {
        let method = if deflated { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file(name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(contents).unwrap();
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn the_programs_beginning_is_found_packed_or_not() {
        let program = [b"\x7fELF and so on, and on and on".as_slice(), &[7; 5_000]].concat();
        for deflated in [false, true] {
            let found = super::program(&zip("bootstrap", &program, deflated)).unwrap();
            assert_eq!(found, program[..HEADER]);
        }
        // A comment at the end does no harm.
        let (mut commented, comment) = (zip("bootstrap", &program, true), b"made by hand");
        commented.truncate(commented.len() - 2);
        commented.extend(u16::try_from(comment.len()).unwrap().to_le_bytes());
        commented.extend(comment);
        assert_eq!(super::program(&commented).unwrap(), program[..HEADER]);
        assert_eq!(super::program(&zip("bootstrap", b"short", false)).unwrap(), b"short");
    }

    #[test]
    fn what_holds_no_program_is_none() {
        let whole = zip("bootstrap", &[7; 100], true);
        assert_eq!(super::program(&zip("handler.py", b"def handler(): pass", true)), None);
        assert_eq!(super::program(b""), None);
        assert_eq!(super::program(b"not a zip, whatever it is called"), None);
        assert_eq!(super::program(&whole[..whole.len() - END - 1]), None);
        // A directory that says nothing.
        let mut blank = whole.clone();
        let end = whole.len() - END;
        let place = &whole[end + 16..end + 20];
        let directory = usize::try_from(u32::from_le_bytes(place.try_into().unwrap())).unwrap();
        blank[directory..end].fill(0);
        assert_eq!(super::program(&blank), None);
        // Contents that are not there any more.
        let mut bare = whole;
        bare[..directory].fill(0);
        assert_eq!(super::program(&bare), None);
    }
}

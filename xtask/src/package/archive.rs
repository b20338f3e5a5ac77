//! Archives that depend on nothing but what is in them: fixed times and owners, entries in the order of their names.

use std::io::{Cursor, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::error::{Explain as _, Result};

/// The first day that a zip can name, in seconds since 1970.
const SECONDS: u64 = 315_532_800;
/// What may be done with a program.
const PROGRAM: u32 = 0o755;

/// A zip of programs.
pub(crate) fn zip(entries: &[(&str, Vec<u8>)], level: Compression) -> Result<Vec<u8>> {
    let mut entries: Vec<&(&str, Vec<u8>)> = entries.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    // That day is the default as well, unless another crate lets `zip` look at the clock.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(i64::from(level.level())))
        .last_modified_time(DateTime::default())
        .unix_permissions(PROGRAM);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, contents) in entries {
        zip.start_file(*name, options)?;
        zip.write_all(contents)?;
    }
    Ok(zip.finish()?.into_inner())
}

/// A compressed tar of files with their modes.
pub(crate) fn tar_gz(entries: &[(&str, u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut entries: Vec<&(&str, u32, Vec<u8>)> = entries.iter().collect();
    entries.sort_by_key(|(name, ..)| *name);
    // What compresses it names neither a file nor a time.
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    for (name, mode, contents) in entries {
        // As POSIX has it: a name that does not fit is refused.
        let mut header = Header::new_ustar();
        header.set_path(name).explain("naming a file of the archive")?;
        header.set_entry_type(EntryType::Regular);
        header.set_mode(*mode);
        header.set_mtime(SECONDS);
        // Nobody's.
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(u64::try_from(contents.len())?);
        header.set_cksum();
        tar.append(&header, contents.as_slice())?;
    }
    Ok(tar.into_inner()?.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use tar::Archive;
    use zip::ZipArchive;

    /// The unit of a tar.
    const BLOCK: usize = 512;

    #[test]
    fn the_same_programs_give_the_same_zip_whatever_their_order() {
        let (a, b) = (("a", vec![1; 10_000]), ("b", b"two".to_vec()));
        let zip = zip(&[a.clone(), b.clone()], Compression::best()).unwrap();
        assert_eq!(super::zip(&[b, a], Compression::best()).unwrap(), zip);
        let other =
            super::zip(&[("a", vec![2; 10_000]), ("b", b"two".to_vec())], Compression::best()).unwrap();
        assert_ne!(other, zip);
    }

    #[test]
    fn a_zip_holds_an_executable_of_the_first_day_with_the_same_contents() {
        let contents: Vec<u8> = (0..100_000_u32).flat_map(|number| (number / 64).to_le_bytes()).collect();
        let zip = zip(&[("bootstrap", contents.clone())], Compression::fast()).unwrap();
        // Nothing before it and nothing behind it.
        assert!(zip.starts_with(b"PK\x03\x04") && zip[zip.len() - 22..].starts_with(b"PK\x05\x06"));
        assert!(zip.len() < contents.len());
        let mut archive = ZipArchive::new(Cursor::new(zip)).unwrap();
        assert_eq!(archive.len(), 1);
        let mut entry = archive.by_name("bootstrap").unwrap();
        assert_eq!((entry.unix_mode(), entry.compression()), (Some(0o100_755), CompressionMethod::Deflated));
        let at = entry.last_modified().unwrap();
        assert_eq!((at.year(), at.month(), at.day()), (1980, 1, 1));
        assert_eq!((at.hour(), at.minute(), at.second()), (0, 0, 0));
        let mut unpacked = Vec::new();
        // Its end is where the sum is compared.
        entry.read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, contents);
    }

    #[test]
    fn a_tar_has_the_modes_and_times_of_its_files_and_nobodys_names() {
        let entries = [("keywheel", 0o755, vec![7; 513]), ("README.md", 0o644, b"text".to_vec())];
        let archive = tar_gz(&entries).unwrap();
        let turned = [entries[1].clone(), entries[0].clone()];
        assert_eq!(tar_gz(&turned).unwrap(), archive);
        let mut tar = Vec::new();
        GzDecoder::new(&archive[..]).read_to_end(&mut tar).unwrap();
        // README.md, one block of text, keywheel, two blocks, and two empty ones.
        assert_eq!(tar.len(), 7 * BLOCK);
        let mut read = Vec::new();
        for entry in Archive::new(&tar[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            let (header, name) = (entry.header(), entry.path().unwrap().display().to_string());
            assert_eq!(
                (header.mtime().unwrap(), header.entry_type()),
                (SECONDS, EntryType::Regular),
                "{name}"
            );
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0), "{name}");
            assert_eq!(header.username_bytes(), Some(&b""[..]), "{name}");
            read.push((name, header.mode().unwrap(), contents));
        }
        let written = turned.map(|(name, mode, contents)| (name.to_owned(), mode, contents));
        assert_eq!(read, written);
        assert!(tar_gz(&[("x".repeat(101).as_str(), 0o644, vec![])]).is_err());
    }
}

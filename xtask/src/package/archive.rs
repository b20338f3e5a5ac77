//! Archives that depend on nothing but what is in them: fixed times and owners, entries in the order of their names.

use std::io::Write as _;

use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc};

use crate::error::{Error, Result};

/// The first day that a zip can name, as MS-DOS writes it.
const DAY: u16 = (1 << 5) | 1;
/// The same in seconds since 1970.
const SECONDS: u64 = 315_532_800;
/// What unpacks it must know: deflate.
const VERSION: u16 = 20;
/// Made on Unix, so that the mode counts.
const MADE_BY: u16 = (3 << 8) | VERSION;
const DEFLATED: u16 = 8;
/// A plain file that may be executed, where Unix keeps it.
const MODE: u32 = 0o100_755 << 16;
/// The unit of a tar.
const BLOCK: usize = 512;

/// A zip of programs.
pub(crate) fn zip(entries: &[(&str, Vec<u8>)], level: Compression) -> Result<Vec<u8>> {
    let mut entries: Vec<&(&str, Vec<u8>)> = entries.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    let (mut zip, mut directory) = (Vec::<u8>::new(), Vec::<u8>::new());
    for (name, contents) in &entries {
        let mut packed = DeflateEncoder::new(Vec::new(), level);
        packed.write_all(contents)?;
        let packed = packed.finish()?;
        let mut crc = Crc::new();
        crc.update(contents);
        let offset = u32::try_from(zip.len())?;
        // What stands in front of the contents and in the directory alike.
        let mut common = Vec::<u8>::new();
        for half in [VERSION, 0, DEFLATED, 0, DAY] {
            common.extend(half.to_le_bytes());
        }
        for word in [crc.sum(), u32::try_from(packed.len())?, u32::try_from(contents.len())?] {
            common.extend(word.to_le_bytes());
        }
        common.extend(u16::try_from(name.len())?.to_le_bytes());
        common.extend(0_u16.to_le_bytes());

        zip.extend(0x0403_4b50_u32.to_le_bytes());
        zip.extend(&common);
        zip.extend(name.as_bytes());
        zip.extend(packed);

        directory.extend(0x0201_4b50_u32.to_le_bytes());
        directory.extend(MADE_BY.to_le_bytes());
        directory.extend(&common);
        // No comment, the first disk, no attributes of its own.
        directory.extend([0_u8; 6]);
        directory.extend(MODE.to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let count = u16::try_from(entries.len())?;
    let (size, offset) = (u32::try_from(directory.len())?, u32::try_from(zip.len())?);
    zip.extend(directory);
    zip.extend(0x0605_4b50_u32.to_le_bytes());
    for half in [0, 0, count, count] {
        zip.extend(half.to_le_bytes());
    }
    zip.extend(size.to_le_bytes());
    zip.extend(offset.to_le_bytes());
    zip.extend(0_u16.to_le_bytes());
    Ok(zip)
}

/// A compressed tar of files with their modes.
pub(crate) fn tar_gz(entries: &[(&str, u32, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut entries: Vec<&(&str, u32, Vec<u8>)> = entries.iter().collect();
    entries.sort_by_key(|(name, ..)| *name);
    // It names neither a file nor a time.
    let mut tar = GzEncoder::new(Vec::new(), Compression::best());
    for (name, mode, contents) in entries {
        tar.write_all(&tar_header(name, *mode, contents.len())?)?;
        tar.write_all(contents)?;
        tar.write_all(&[0; BLOCK][..contents.len().next_multiple_of(BLOCK) - contents.len()])?;
    }
    tar.write_all(&[0; 2 * BLOCK])?;
    Ok(tar.finish()?)
}

/// The header of a plain file, as POSIX has it.
fn tar_header(name: &str, mode: u32, size: usize) -> Result<[u8; BLOCK]> {
    if name.len() > 100 {
        return Err(Error::from(format!("{name} is too long a name for the archive")));
    }
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    // Nobody's.
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, &format!("{SECONDS:011o}"));
    // The sum is that of the header with blanks in its place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    use flate2::read::{DeflateDecoder, GzDecoder};

    fn half(bytes: &[u8], at: usize) -> usize {
        usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
    }

    fn word(bytes: &[u8], at: usize) -> usize {
        half(bytes, at) | (half(bytes, at + 2) << 16)
    }

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
    fn a_zip_leads_from_its_end_to_an_executable_with_the_same_contents() {
        let contents: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let zip = zip(&[("bootstrap", contents.clone())], Compression::fast()).unwrap();
        let end = zip.len() - 22;
        assert_eq!((&zip[end..end + 4], half(&zip, end + 10)), (&b"PK\x05\x06"[..], 1));
        let entry = word(&zip, end + 16);
        assert_eq!(entry + word(&zip, end + 12), end);
        let directory = &zip[entry..end];
        assert_eq!((&directory[..4], &directory[46..]), (&b"PK\x01\x02"[..], &b"bootstrap"[..]));
        assert_eq!(word(directory, 38) >> 16, 0o100_755);
        // 1980-01-01, midnight.
        assert_eq!((half(directory, 12), half(directory, 14)), (0, 33));
        let (packed, size) = (word(directory, 20), word(directory, 24));
        assert_eq!((size, word(directory, 42)), (contents.len(), 0));
        assert_eq!(zip[..4], *b"PK\x03\x04");
        let start = 30 + half(&zip, 26) + half(&zip, 28);
        let mut unpacked = Vec::new();
        DeflateDecoder::new(&zip[start..start + packed]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, contents);
        let mut crc = Crc::new();
        crc.update(&contents);
        assert_eq!(word(&zip, 14), usize::try_from(crc.sum()).unwrap());
    }

    #[test]
    fn a_tar_has_the_sizes_modes_and_sums_of_its_headers() {
        let entries = [("keywheel", 0o755, vec![7; 513]), ("README.md", 0o644, b"text".to_vec())];
        let archive = tar_gz(&entries).unwrap();
        let turned = [entries[1].clone(), entries[0].clone()];
        assert_eq!(tar_gz(&turned).unwrap(), archive);
        let mut tar = Vec::new();
        GzDecoder::new(&archive[..]).read_to_end(&mut tar).unwrap();
        // README.md, one block of text, keywheel, two blocks, and two empty ones.
        assert_eq!(tar.len(), 7 * BLOCK);
        assert!(tar.starts_with(b"README.md\0") && tar[2 * BLOCK..].starts_with(b"keywheel\0"));
        assert_eq!((&tar[100..107], &tar[124..135]), (&b"0000644"[..], &b"00000000004"[..]));
        assert_eq!(tar[BLOCK..BLOCK + 5], *b"text\0");
        let header = &tar[2 * BLOCK..3 * BLOCK];
        let blank = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
        let sum: u32 = header.iter().enumerate().map(blank).sum();
        assert_eq!(header[148..156], *format!("{sum:06o}\0 ").as_bytes());
        assert!(tar_gz(&[("x".repeat(101).as_str(), 0o644, vec![])]).is_err());
    }
}

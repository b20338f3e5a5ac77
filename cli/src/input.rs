//! What a command is given to read: a file, or standard input.

use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Result, Trouble};

/// The text of a file, or of standard input where its name is `-`: `longest` bytes at most. It may hold a secret, so
/// this copy is wiped; what the operating system keeps is beyond us.
pub(crate) fn text(file: &Path, longest: usize, what: &str) -> Result<Zeroizing<String>> {
    let name = if file.as_os_str() == "-" { "Standard input".to_owned() } else { file.display().to_string() };
    let unread = |error: std::io::Error| {
        Trouble::new(format!("{name} cannot be read: {error}."), format!("Give {what}."))
    };
    // With room for all of it: a buffer that grows leaves parts of the text behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(longest.min(64 * 1024) + 1));
    let limit = longest as u64 + 1;
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(unread)?;
    if bytes.len() > longest {
        return Err(Trouble::new(
            format!("{name} holds more than {longest} bytes."),
            format!("Give {what}."),
        ));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Trouble::new(format!("{name} is no UTF-8 text."), format!("Give {what}.")))?;
    // Programs of Windows begin a file with a mark that is no part of it.
    Ok(Zeroizing::new(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let file = std::env::temp_dir().join(format!("keywheel-input-{}", std::process::id()));
        std::fs::write(&file, "\u{feff}user,secret\n").unwrap();
        let read = |longest| text(&file, longest, "a list").map(|text| text.as_str().to_owned());
        assert_eq!(read(100).unwrap(), "user,secret\n");
        assert!(read(5).unwrap_err().text.contains("more than 5 bytes"));
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(read(100).unwrap_err().text.contains("no UTF-8"));
        std::fs::remove_file(&file).unwrap();
        assert!(read(100).unwrap_err().remedy.contains("Give a list."));
    }
}

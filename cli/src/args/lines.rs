//! Every command line that the README and the pages for people show is one that this command takes.

use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;

use super::Cli;

/// The README and the pages.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut paths = vec![root.join("README.md")];
    paths.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|end| end == "md"));
    let read =
        |path: &std::path::PathBuf| (path.display().to_string(), std::fs::read_to_string(path).unwrap());
    paths.iter().map(read).collect()
}

/// The words of a line as a shell takes them, up to a pipe, a redirection or a remark.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars().chain([' ']) {
        match quote {
            Some(mark) if letter == mark => quote = None,
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            None if letter.is_whitespace() => {
                if ["|", ">", "&&", ";"].contains(&word.as_str()) || word.starts_with('#') {
                    break;
                }
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(letter),
        }
    }
    words
}

/// The command lines of a page, and whether each stands in a block of code, whole.
fn commands(page: &str) -> Vec<(String, bool)> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            let line = line.trim().trim_start_matches("$ ");
            // In a list of commands a remark stands two blanks behind.
            let line = line.split("  ").next().unwrap_or(line);
            if line.starts_with("keywheel ") {
                found.push((line.to_owned(), true));
            }
        } else {
            let spans = line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("keywheel "));
            found.extend(spans.map(|span| (span.to_owned(), false)));
        }
    }
    found
}

#[test]
fn every_command_line_on_paper_is_one_that_this_command_takes() {
    let (mut taken, mut refused) = (0, Vec::new());
    for (path, page) in pages() {
        for (line, whole) in commands(&page) {
            let words = words(&line);
            let Err(error) = Cli::try_parse_from(&words) else {
                taken += 1;
                continue;
            };
            // In a sentence a command may be named by its beginning.
            let begun = matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            ) || error.to_string().contains("none was supplied");
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            if !(help || begun && !whole) {
                refused.push(format!("{path}: {line}\n{error}"));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(taken > 60, "only {taken} command lines were found");
}

#[test]
fn a_line_that_is_not_taken_would_be_found() {
    let page = "Say `keywheel rotate --usr a` or\n\n    $ keywheel mode 'dry-run' | cat   # so\n```\nkeywheel plan > x\n```\n";
    let found = commands(page);
    let lines: Vec<(&str, bool)> = found.iter().map(|(line, whole)| (line.as_str(), *whole)).collect();
    assert_eq!(
        lines,
        [
            ("keywheel rotate --usr a", false),
            ("keywheel mode 'dry-run' | cat", true),
            ("keywheel plan > x", true)
        ]
    );
    assert_eq!(words(lines[1].0), ["keywheel", "mode", "dry-run"]);
    assert_eq!(words(lines[2].0), ["keywheel", "plan"]);
    let wrong = Cli::try_parse_from(words(lines[0].0)).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::UnknownArgument);
}

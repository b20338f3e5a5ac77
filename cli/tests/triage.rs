//! `keywheel triage`: a verdict for each file, whatever it holds. It speaks to nobody, so there is no cloud here.

#![expect(clippy::unwrap_used, reason = "a test, where a panic with its place is what should be seen")]

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What the command said and how it ended.
struct Said {
    code: Option<i32>,
    /// The lines of the result.
    lines: Vec<Value>,
    /// What it said beside that.
    beside: String,
}

impl Said {
    fn classes(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line["class"].as_str().unwrap_or_default()).collect()
    }
}

/// Types the command with something on its standard input.
fn triage(args: &[impl AsRef<OsStr>], input: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keywheel"));
    command.arg("triage").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    running.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = running.wait_with_output().unwrap();
    let (out, beside) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    let lines = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Said { code: ended.status.code(), lines, beside }
}

fn sample(name: &str) -> String {
    format!("{}/../events/leaks/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn each_file_has_one_line_and_a_malformed_one_is_rejected_with_success() {
    let folder = std::env::temp_dir().join(format!("keywheel-triage-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let malformed = |name: &str, event: &[u8]| {
        let file = folder.join(name);
        std::fs::write(&file, event).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let said = triage(
        &[
            sample("guardduty_user_key.json"),
            malformed("torn.json", b"{\"source\": \"aws.guardduty\","),
            malformed("empty.json", b""),
            malformed("no-text.json", b"\xff\xfe{}"),
            sample("guardduty_sample.json"),
        ],
        "",
    );
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!((said.code, said.beside.as_str()), (Some(0), ""));
    assert_eq!(said.classes(), ["REVOKE_USER_KEY", "REJECT", "REJECT", "REJECT", "SAMPLE"]);
    assert!(said.lines[0]["targets"][0]["key_id"].is_string(), "{}", said.lines[0]);
    for line in &said.lines {
        assert!(line["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{line}");
        assert!(line["class"] != "REJECT" || line["targets"] == json!([]), "{line}");
    }
}

#[test]
fn a_dash_stands_for_standard_input() {
    let event = std::fs::read_to_string(sample("keywheel_exposed.json")).unwrap();
    for (input, class) in [(event.as_str(), "REVOKE_USER_KEY"), ("no event", "REJECT"), ("", "REJECT")] {
        let said = triage(&["-"], input);
        assert_eq!((said.code, said.classes()), (Some(0), vec![class]), "{}", said.beside);
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_and_hides_no_verdict() {
    let (missing, there) = ("/nowhere/keywheel/finding.json", sample("guardduty_user_key.json"));
    let said = triage(&[missing, &there], "");
    assert_eq!((said.code, said.classes()), (Some(1), vec!["REVOKE_USER_KEY"]), "{}", said.beside);
    for words in [missing, "cannot be read", "Name a file with one event"] {
        assert!(said.beside.contains(words), "{words:?} is not in {:?}", said.beside);
    }
    // A program finds the same on its own line.
    let said = triage(&["--json", missing, &there], "");
    assert_eq!((said.code, said.classes()), (Some(1), vec!["", "REVOKE_USER_KEY"]));
    assert!(said.lines[0]["error"].as_str().unwrap().contains(missing), "{}", said.lines[0]);
    // Nothing is named, which is no event that would be read from a terminal.
    let nothing: [&str; 0] = [];
    assert_eq!(triage(&nothing, "").code, Some(2));
}

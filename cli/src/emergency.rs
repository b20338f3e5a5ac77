//! `keywheel emergency`: shows, checks and sets the policy that decides about findings.

use std::io::Read;
use std::path::Path;

use facts::switch;
use keywheel::decide::contain::Kept;
use keywheel::emergency::{Emergency, Response, RoleSessions, Rule};
use serde_json::{Value, json};

use crate::args::{EmergencyAction, EmergencyArgs};
use crate::error::{Exit, Result, Trouble};
use crate::output::{Out, table};
use crate::place::Place;
use crate::switches;

/// The longest text that a parameter of the standard tier holds.
const LONGEST: usize = 4096;

/// Runs what needs AWS.
pub(crate) async fn run(place: &Place, out: &Out, args: &EmergencyArgs) -> Result<Exit> {
    match &args.action {
        EmergencyAction::Show => show(place, out).await,
        EmergencyAction::Check { file } => check(out, file),
        EmergencyAction::Set { file, yes } => set(place, out, file, *yes).await,
    }
}

/// Checks a policy, without a call to AWS.
pub(crate) fn check(out: &Out, file: &Path) -> Result<Exit> {
    let policy = load(file)?;
    out.lines(&words(&policy));
    out.json(&json!({ "valid": true, "policy": policy }));
    Ok(Exit::Done)
}

async fn show(place: &Place, out: &Out) -> Result<Exit> {
    out.note(&place.line());
    let policy = stored(place).await?;
    if policy.is_none() {
        out.line("No policy is set.");
    }
    out.lines(&words(policy.as_ref().unwrap_or(&Emergency::default())));
    out.json(&json!({ "set": policy.is_some(), "policy": policy }));
    Ok(Exit::Done)
}

/// The policy that is set. One that cannot be understood holds up nothing, so whoever looks must hear of it.
async fn stored(place: &Place) -> Result<Option<Emergency>> {
    match switch::standing(&place.ssm(), &place.stage, None).await.emergency {
        Kept::Is(policy) => Ok(Some(policy)),
        Kept::None => Ok(None),
        Kept::Unread(why) => Err(Trouble::new(
            format!("The emergency policy could not be read: {why}. Until it can, nothing is delayed by it."),
            "`keywheel emergency set FILE` sets another one.",
        )),
    }
}

async fn set(place: &Place, out: &Out, file: &Path, yes: bool) -> Result<Exit> {
    out.note(&place.line());
    let policy = load(file)?;
    let text = fitting(&policy)?;
    let before = match stored(place).await {
        Ok(before) => before,
        Err(trouble) => {
            out.note(&trouble.text);
            None
        }
    };
    let changed = before.as_ref() != Some(&policy);
    if changed {
        let headed = |head: &str, lines: Vec<String>| {
            std::iter::once(head.to_owned()).chain(lines.into_iter().map(|line| format!("  {line}")))
        };
        let old = before.as_ref().map_or_else(|| vec!["none that could be read".to_owned()], words);
        let lines: Vec<String> = headed("Before:", old).chain(headed("After:", words(&policy))).collect();
        out.notes(&lines);
        out.confirm("Set this policy?", yes)?;
        switches::set(place, Emergency::parameter(&place.stage), text).await?;
        out.line("The emergency policy is set.");
    } else {
        out.line("The emergency policy is so already; nothing was changed.");
    }
    out.json(&json!({ "before": before, "policy": policy, "changed": changed }));
    Ok(Exit::Done)
}

fn load(file: &Path) -> Result<Emergency> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut open| open.read_to_string(&mut text))
    };
    read.map_err(|error| {
        Trouble::new(
            format!("{} cannot be read: {error}.", file.display()),
            "Name a file with one policy, or - for standard input.",
        )
    })?;
    parsed(&file.display().to_string(), &text)
}

fn parsed(name: &str, text: &str) -> Result<Emergency> {
    Emergency::parse(text).map_err(|why| {
        Trouble::new(
            format!("{name} is not an emergency policy: {why}."),
            "Nothing was changed. `keywheel help emergency` shows one.",
        )
    })
}

/// What is stored, if a parameter holds so much.
fn fitting(policy: &Emergency) -> Result<String> {
    let text = serde_json::to_string(policy)
        .map_err(|error| Trouble::new(format!("The policy could not be written: {error}."), ""))?;
    if text.len() > LONGEST {
        return Err(Trouble::new(
            format!("The policy takes {} characters; a parameter holds {LONGEST}.", text.len()),
            "Nothing was changed. Join rules, for example with `*` in the user's name.",
        ));
    }
    Ok(text)
}

/// The rules in words, one line each, and what holds where none fits.
fn words(policy: &Emergency) -> Vec<String> {
    let head = ["RULE", "WHERE", "THEN"].map(str::to_owned).to_vec();
    let rule =
        |(index, rule): (usize, &Rule)| vec![(index + 1).to_string(), conditions(rule), response(rule.then)];
    let rules = policy.rules.iter().enumerate().map(rule);
    let rest = [
        vec!["-".to_owned(), "a mere suspicion, or no key named".to_owned(), response(Response::Page)],
        vec!["-".to_owned(), "class ODD_KEY_MAKING".to_owned(), response(Response::Page)],
        vec!["-".to_owned(), "everything else".to_owned(), response(Response::Now)],
    ];
    let mut lines = table(&std::iter::once(head).chain(rules).chain(rest).collect::<Vec<_>>());
    let assumed = match policy.role_sessions {
        RoleSessions::Page => "people are told which they are",
        RoleSessions::Deny => {
            "their roles deny them, where the parameter DenyRoleSessions of the stack is on"
        }
    };
    lines.push(format!("Sessions of roles that were assumed with a leaked key: {assumed}."));
    lines.push("Rules that name no class are about leaks, and not about ODD_KEY_MAKING.".to_owned());
    lines.push(format!(
        "With more than {} incidents in ten minutes, reports over the bus are only paged.",
        policy.max_contain
    ));
    lines
}

fn conditions(rule: &Rule) -> String {
    // The words of the document itself, so that one can be found by the other.
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let parts: Vec<String> = [
        rule.source.map(|source| format!("source {}", word(json!(source)))),
        rule.class.map(|class| format!("class {}", word(json!(class)))),
        rule.below.map(|below| format!("below {}", word(json!(below)))),
        rule.user.as_ref().map(|user| format!("user {user}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}

fn response(response: Response) -> String {
    match response {
        Response::Now => "Inactive at once".to_owned(),
        Response::Page => "people are told, nothing is changed".to_owned(),
        Response::After(minutes) => {
            format!("Inactive after {} minutes, unless somebody stops it", u64::from(minutes))
        }
        Response::ReplaceFirst(minutes) => {
            format!("replaced first, and Inactive after {} minutes at most", u64::from(minutes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_told_in_words() {
        let text = r#"{"rules": [
            {"user": "prod-*", "then": {"replace_first": 10}},
            {"source": "securityhub", "below": "high", "then": "page"},
            {"then": {"after": 5}}]}"#;
        let lines = words(&parsed("f", text).unwrap());
        assert!(lines[1].starts_with("1     user prod-*"), "{lines:?}");
        assert!(lines[1].ends_with("Inactive after 10 minutes at most"), "{lines:?}");
        assert!(lines[2].contains("source securityhub, below high"), "{lines:?}");
        assert!(lines[3].contains("everything  ") && lines[3].contains("unless somebody"), "{lines:?}");
    }

    #[test]
    fn what_is_wrong_is_named_with_line_and_column() {
        for (text, says) in [
            ("{\"rules\": [\n {\"usr\": \"x\", \"then\": \"now\"}]}", "unknown field `usr`"),
            ("{\"rules\": [{\"then\": {\"after\": 90}}]}", "1 to 60 minutes, not by 90"),
            ("{\"rules\": [{\"then\": \"later\"}]}", "unknown variant `later`"),
            ("{\"rules\": [{}]}", "missing field `then`"),
            ("", "EOF"),
        ] {
            let trouble = parsed("policy.json", text).unwrap_err();
            assert!(trouble.text.starts_with("policy.json is not"), "{trouble}");
            assert!(trouble.text.contains(says), "{trouble}");
            assert!(trouble.text.contains("line ") && trouble.text.contains("column "), "{trouble}");
        }
    }

    #[test]
    fn a_policy_that_no_parameter_holds_is_refused() {
        let mut policy = parsed("f", r#"{"rules": [{"user": "prod-*", "then": "now"}]}"#).unwrap();
        assert!(fitting(&policy).is_ok());
        policy.rules = vec![policy.rules[0].clone(); 200];
        assert!(fitting(&policy).unwrap_err().text.contains("4096"));
    }
}

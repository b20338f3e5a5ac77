//! The pages for people: each reason that a run, a plan, a campaign or an incident can give has its line, and each line
//! is about a reason that is given.

use std::collections::BTreeSet;

use keywheel::StepError;
use keywheel::secret::ValueError;
use support::repository::{text, texts, without_tests};

const PAGE: &str = "docs/troubleshooting.md";
/// What stands before a reason's code.
const BEFORE: [&str; 4] = ["Why::new(", "blocked(", "skip(", "end("];
/// Where codes stand in pairs with their sentences.
const PAIRED: [&str; 3] = ["decide/due", "decide/contain.rs", "functions/scan/src/lib.rs"];

/// The code with which the arguments of a reason begin.
fn code(arguments: &str) -> Option<&str> {
    let arguments = arguments.trim_start();
    let arguments = match arguments.strip_prefix("Outcome::") {
        Some(rest) => rest.split_once(',')?.1.trim_start(),
        None => arguments,
    };
    let (code, rest) = arguments.strip_prefix('"')?.split_once('"')?;
    let is_code = code.len() > 2
        && code.starts_with(|first: char| first.is_ascii_uppercase())
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_code && rest.starts_with(',')).then_some(code)
}

/// Every code that the functions can give as a reason.
fn given() -> BTreeSet<String> {
    let mut given = BTreeSet::new();
    for (path, source) in texts("functions") {
        let source = without_tests(&path, &source);
        for before in BEFORE {
            given.extend(source.split(before).skip(1).filter_map(code).map(str::to_owned));
        }
        if PAIRED.iter().any(|place| path.contains(place)) {
            given.extend(source.split('(').skip(1).filter_map(code).map(str::to_owned));
        }
    }
    let unfit = [
        ValueError::Binary,
        ValueError::NotAnObject,
        ValueError::FieldMissing("UserName"),
        ValueError::BadKeyId,
        ValueError::OtherUser,
    ];
    given.extend(unfit.iter().map(|error| error.code().to_owned()));
    given.extend(StepError::NAMES.map(str::to_owned));
    given
}

/// The codes that the page has a line for.
fn told(page: &str) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    cells
        .flat_map(|cell| {
            format!("`{cell}").split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_reason_that_is_given_has_its_line_among_the_troubles() {
    let (given, told) = (given(), told(&text(PAGE)));
    assert!(given.len() > 70, "only {} reasons were found: {given:?}", given.len());
    let untold: Vec<&String> = given.difference(&told).collect();
    assert!(untold.is_empty(), "{PAGE} has no line for {untold:?}");
}

#[test]
fn every_trouble_that_is_told_of_can_come_to_pass() {
    let sources: Vec<String> =
        ["functions", "statemachine"].into_iter().flat_map(texts).map(|(_, source)| source).collect();
    for code in told(&text(PAGE)) {
        let quoted = format!("\"{code}\"");
        assert!(sources.iter().any(|source| source.contains(&quoted)), "nothing gives {code}");
    }
}

#[test]
fn the_pages_name_each_other_and_nothing_that_is_not_there() {
    for page in ["first-hour", "migrating", "costs", "regions", "troubleshooting"] {
        let page = format!("docs/{page}.md");
        for link in text(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            // Panics where there is none.
            let _ = text(&format!("docs/{link}"));
        }
        assert!(text("README.md").contains(&format!("]({page})")), "{page}");
    }
}

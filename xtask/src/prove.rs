//! `prove`: the promises under more schedules, every pair of faults and every mutant, counted in one line.
//!
//! What a change is held to in minutes, `cargo xtask test` does; this takes its time. It asks cargo for the tests
//! that search (woven schedules, pairs of faults, the model, the broken variants) with everything switched on, has
//! cargo-mutants try the deciding functions, and adds up the figures that they hand over.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::error::{Explain, Result};
use crate::lambdas::cargo;
use crate::paths::{self, Scratch};
use crate::process::succeed;

/// The one test of the emergency that searches.
const PAIRS_OF_AN_ALARM: &str = "every_pair_of_failed_calls_of_an_alarm_ends_well";

/// The version whose mutants the list of equivalent ones was written for.
const MUTANTS: &str = "27.1.0";

/// `cargo xtask prove`
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many woven schedules.
    #[arg(long, default_value_t = 100_000)]
    schedules: u64,
    /// The first seed; every change is held to the seeds from 1 on.
    #[arg(long, default_value_t = 1_000_001)]
    seed: u64,
    /// Leave cargo-mutants out: it is installed when it is missing, and takes a quarter of an hour.
    #[arg(long)]
    without_mutants: bool,
}

/// Runs everything, whatever fails, and says at the end what was found.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let scratch = Scratch::new(&format!("prove-{}", std::process::id()), false)?;
    let searched = search(&options, &scratch.dir).await;
    let mutated = if options.without_mutants { Ok(Value::Null) } else { mutate(&scratch.dir).await };
    let parts =
        ["woven", "alarms", "pairs", "pairs-emergency", "sensitivity"].map(|name| read(&scratch.dir, name));
    let mut line = sum(&parts, mutated.as_ref().unwrap_or(&Value::Null));
    if searched.is_err() && line["violations"] == 0 {
        // The model hands no figures over, and finds what it finds.
        line["violations"] = json!(1);
    }
    for problem in [searched.as_ref().err(), mutated.as_ref().err()].into_iter().flatten() {
        eprintln!("error: {problem}");
    }
    println!("{line}");
    let holds = line["violations"] == 0 && line["mutants"] == line["mutants_caught"];
    let good = holds && searched.is_ok() && mutated.is_ok();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn search(options: &Options, figures: &Path) -> Result<()> {
    let mut all = cargo_test(options, figures);
    for test in ["woven", "faults", "fleet", "sensitivity", "model"] {
        all.args(["--test", test]);
    }
    let searched = succeed(all.args(["--", "--include-ignored"]), "the tests that search").await;
    // A filter would hold for all of those, and the emergency's other tests search nothing.
    let mut pairs = cargo_test(options, figures);
    pairs.args(["--test", "emergency", PAIRS_OF_AN_ALARM]);
    let paired = succeed(&mut pairs, "the pairs of faults over an emergency").await;
    searched.and(paired)
}

fn cargo_test(options: &Options, figures: &Path) -> Command {
    let mut tests = cargo();
    // One test's failure must not keep the others' figures back.
    // Of the whole workspace, as everywhere: of one package alone cargo unites features anew, and builds the SDK again.
    tests
        .args(["test", "--no-fail-fast", "--workspace"])
        .env("KEYWHEEL_SCHEDULES", options.schedules.to_string())
        .env("KEYWHEEL_SEED", options.seed.to_string())
        .env("KEYWHEEL_FIGURES", figures);
    tests
}

/// Has cargo-mutants try every mutant of the deciding functions, in a copy of the tree.
async fn mutate(scratch: &Path) -> Result<Value> {
    let tool = installed().await?;
    let mut mutants = Command::new(&tool);
    // Its settings are in .cargo/mutants.toml.
    mutants.arg("mutants").arg("--output").arg(scratch).current_dir(paths::root());
    let result = succeed(&mut mutants, "cargo mutants").await;
    let outcomes = read(&scratch.join("mutants.out"), "outcomes");
    if outcomes.is_null() {
        result?;
        return Err("cargo mutants left no outcomes".into());
    }
    let count = |name: &str| outcomes[name].as_u64().unwrap_or(0);
    let viable = count("total_mutants") - count("unviable");
    Ok(json!({"mutants": viable, "mutants_caught": count("caught")}))
}

/// The program, installed where all that is made while trying lies.
async fn installed() -> Result<PathBuf> {
    let root = paths::state().join("tools");
    let tool = root.join("bin/cargo-mutants");
    let mut install = cargo();
    // A version that is there already is left as it is.
    install.args(["install", "cargo-mutants", "--version", MUTANTS, "--locked", "--root"]).arg(&root);
    succeed(&mut install, "cargo install cargo-mutants").await?;
    Ok(tool)
}

fn read(dir: &Path, name: &str) -> Value {
    let text = std::fs::read_to_string(dir.join(format!("{name}.json")));
    text.explain("figures").ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
}

/// The figures of all parts in one line. A part that handed none over has broken down, which is a violation.
fn sum(parts: &[Value], mutants: &Value) -> Value {
    let total =
        |name: &str| parts.iter().chain([mutants]).filter_map(|part| part[name].as_u64()).sum::<u64>();
    let silent = u64::try_from(parts.iter().filter(|part| part.is_null()).count()).unwrap_or(u64::MAX);
    json!({
        "schedules": total("schedules"),
        "faults": total("faults"),
        "calls_covered": total("calls_covered"),
        "violations": total("violations") + silent,
        "mutants_caught": total("mutants_caught"),
        "mutants": total("mutants"),
        "ms_per_schedule": parts.iter().find_map(|part| part["ms_per_schedule"].as_f64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_says_nothing_is_a_violation() {
        let woven =
            json!({"schedules": 3, "faults": 4, "calls_covered": 5, "violations": 0, "ms_per_schedule": 1.5});
        let broken = json!({"mutants": 2, "mutants_caught": 2});
        let all = sum(&[woven.clone(), broken.clone()], &json!({"mutants": 10, "mutants_caught": 9}));
        assert_eq!(
            (&all["violations"], &all["mutants"], &all["mutants_caught"]),
            (&json!(0), &json!(12), &json!(11))
        );
        assert_eq!(sum(&[woven, Value::Null], &broken)["violations"], 1);
    }
}

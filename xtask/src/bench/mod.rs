//! `bench`: what a cold start of each Lambda costs, beside a plain Python Lambda that does the same step.
//!
//! Both run as processes under a Lambda Runtime API, and call the same services over TLS on loopback. Each
//! starts anew for every repetition, in turn, so that whatever else the machine does hits both. A run counts
//! only when its answer is a success, and both must have made the same AWS calls.
//!
//! What loopback leaves out is the network, which is the same for both; what it cannot show is a Lambda's
//! sandbox: there a process of 128 MB has a fourteenth of a processor, and a millisecond of CPU takes fourteen.
//! CPU is therefore the figure to watch; the time to the answer also tells how busy this machine is.

mod cases;
mod measure;
pub(crate) mod release;
mod report;
mod runtime;
mod services;
mod tls;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::bench::cases::CASES;
use crate::bench::measure::{Bench, Sample, Subject};
use crate::bench::report::{Report, Row};
use crate::bench::services::Services;
use crate::bench::tls::Tls;
use crate::error::{Error, Explain, Result};
use crate::paths::Scratch;
use crate::screen::Screen;
use crate::venv::Venv;

/// `cargo xtask bench`
#[derive(clap::Args)]
pub(crate) struct Options {
    /// One line of JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// How many times below Python's both cold start and CPU time of every function must be.
    #[arg(long, value_name = "RATIO", default_value_t = 15.0)]
    gate: f64,
    /// How often each function is started, in each language; the median counts.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Measure the programs of this directory, named after their functions, instead of building them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

impl Options {
    /// What the suite runs.
    pub(crate) fn for_the_suite() -> Self {
        Self { json: false, gate: 15.0, repetitions: 5, programs: None }
    }
}

/// Measures, prints, and fails where a ratio is below the gate.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let screen = Screen::new();
    let report = measure(&screen, &options).await?;
    if options.json {
        println!("{}", report.json());
    } else {
        println!("{}", report.table());
    }
    let failures = report.failures();
    for failure in &failures {
        screen.line(&format!("error: {failure}"));
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(screen: &Screen, options: &Options) -> Result<Report> {
    let venv = screen.step("Preparing the Python environment", Venv::prepare()).await?;
    let given = options.programs.as_deref();
    let lambdas = screen.loud("Building the Lambdas for release", release::lambdas(given)).await?;
    let scratch = Scratch::new(&format!("bench-{}", std::process::id()), false)?;
    let tls = Tls::new()?;
    let services = Services::start(&tls).await?;
    let roots = scratch.dir.join("roots.pem");
    tls.write_bundle(&release::roots(&venv).await?, &roots)?;
    let bench = Bench { services: &services, roots, scratch: &scratch.dir };

    let mut rows = Vec::new();
    for case in CASES {
        let program =
            lambdas.get(case.name).ok_or_else(|| Error::from(format!("no program {}", case.name)))?;
        let (bare, zipped) = release::sizes(&venv, program, &scratch.dir).await?;
        let lambda = Subject { program: program.clone(), arguments: Vec::new() };
        let peer = release::peer(&venv, case.name);
        let mut row = Row { name: case.name, lambda: vec![], peer: vec![], program: bare, zipped };
        let work = async {
            // One start of each that does not count: it brings the files into the page cache, and Python's
            // handlers into their compiled form.
            for round in 0..=options.repetitions {
                let (rust, python) =
                    (bench.cold_start(&case, &lambda).await, bench.cold_start(&case, &peer).await);
                let (rust, python) = (rust.explain("the Lambda")?, python.explain("its peer")?);
                same_calls(&rust, &python)?;
                if round > 0 {
                    row.lambda.push(rust);
                    row.peer.push(python);
                }
            }
            Ok(())
        };
        screen.step(&format!("Measuring {}", case.name), work).await.explain(case.name)?;
        rows.push(row);
    }
    Ok(Report { rows, gate: options.gate })
}

/// A peer that does less, or more, is none. Where a step makes two calls at the same time, either may arrive first.
fn same_calls(rust: &Sample, python: &Sample) -> Result<()> {
    let sorted = |sample: &Sample| {
        let mut calls = sample.traffic.calls.clone();
        calls.sort();
        calls
    };
    let (ours, theirs) = (sorted(rust), sorted(python));
    if ours == theirs {
        Ok(())
    } else {
        Err(format!("the Lambda calls {ours:?}, its peer {theirs:?}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sample(calls: &[&str]) -> Sample {
        let calls = calls.iter().map(|call| (*call).to_owned()).collect();
        let traffic = services::Traffic { calls, handshakes: 1 };
        Sample { cold: Duration::ZERO, cpu: Duration::ZERO, peak_kib: 0, traffic }
    }

    #[test]
    fn a_peer_that_saves_itself_a_call_is_found_out() {
        let (two, one) = (sample(&["iam:GetUser", "sts:GetCallerIdentity"]), sample(&["iam:GetUser"]));
        assert!(same_calls(&two, &two).is_ok());
        assert!(same_calls(&two, &one).is_err());
    }
}

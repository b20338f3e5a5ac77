//! `demo`: one rotation from beginning to end in a cloud of its own, with a consumer that lives on the key, and
//! the promises checked by somebody other than the machine that makes them.

mod follow;
mod history;
mod leaks;
mod report;
mod stage;
mod tally;
mod verdict;
mod watch;
mod witness;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use keywheel::RunId;
use keywheel::policy::{PolicyOverride, Span};
use keywheel::rotation::{Reason, Request};

use crate::cloud::Cloud;
use crate::demo::follow::{Onlookers, follow};
use crate::demo::history::{Execution, between};
use crate::demo::leaks::Place;
use crate::demo::report::Report;
use crate::demo::stage::Stage;
use crate::demo::tally::Tally;
use crate::demo::verdict::{Facts, violations};
use crate::demo::watch::Watch;
use crate::demo::witness::Witness;
use crate::error::{Explain, Result, aws};
use crate::paths::Scratch;
use crate::screen::Screen;
use crate::{deploy, requests};

/// How long the consumer's workers keep a pair.
pub(crate) const CACHE: Duration = Duration::from_secs(8);
/// How long the consumer goes on after the run.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// A run that takes longer has failed.
const LIMIT: Duration = Duration::from_mins(3);

/// `cargo xtask demo`
#[derive(clap::Args)]
pub(crate) struct Options {
    /// One JSON object on the last line instead of tables.
    #[arg(long)]
    json: bool,
    /// Keep the demo's directory: the emulator's log, the requests, the execution's history.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo. It succeeds only when every promise held.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let screen = Screen::new();
    let scratch = Scratch::new(&format!("demo-{}", std::process::id()), options.keep)?;
    // Made after its directory, so that it ends before the directory goes.
    let own = deploy::own(&screen, &scratch.dir, 1.0, None).await?;
    let cloud = &own.cloud;
    let stage = screen.step("Making a managed user with a key and a secret", stage::set(cloud)).await?;
    let witness = screen.step("Starting a consumer of the key", Witness::start(cloud, &stage)).await?;
    let watch = Watch::start(cloud, &stage.secret);
    let run = RunId::random();
    let execution = start(cloud, &own.outputs.rotation, &stage, run).await?;
    screen.line(&format!("Rotation {run} of {}", stage::USER));
    let onlookers = Onlookers { witness: &witness, watch: &watch };
    let execution = follow(&screen, cloud, &execution, &onlookers, LIMIT).await?;
    tokio::time::sleep(AFTERWARDS).await;
    let (consumer, said) = witness.stop().await?;
    let seen = watch.end();

    let log = requests::all(cloud).await?;
    let new = execution.told("/new/key").unwrap_or_default();
    let tally = Tally::count(&log, &run.app_name(), &execution.visits, &stage.key, &new);
    let mut secrets: Vec<String> = log
        .iter()
        .filter_map(|request| request.reply.as_ref())
        .map(|pair| pair.secret_access_key.clone())
        .collect();
    secrets.push(stage::HOST.to_owned());
    let mut places = places(cloud, &execution, &scratch.dir.join("emulator.log")).await?;
    places.push(Place::new("the consumer's output", said));
    places.push(Place::new("the demo's own output", screen.said()));
    let mut leaks = leaks::find(&secrets, &places);
    // A search for what is not known, or in the wrong place, finds nothing and proves nothing.
    if secrets.len() < 4 {
        leaks.push(
            "P4: the new pairs are not all in the log of requests, so they could not be looked for".into(),
        );
    }
    if !places.iter().any(|place| place.name.starts_with("the log ") && place.text.contains(&run.to_string()))
    {
        leaks.push("P4: no Lambda's log names the run, so the logs cannot be the run's".into());
    }
    if options.keep && leaks.is_empty() {
        keep(&scratch.dir, &log, &execution)?;
        screen.line(&format!("Kept in {}", scratch.dir.display()));
    }

    let outcome = execution.told("/outcome");
    let broken = violations(&Facts {
        status: &execution.status,
        outcome: outcome.as_deref(),
        new: &new,
        tally: &tally,
        seen: &seen,
        consumer: &consumer,
        other_field: stage::other_field_survived(cloud, &stage.secret).await?,
        leaks: &leaks,
    });
    let report = Report {
        outcome: outcome.as_deref().unwrap_or(&execution.status),
        started: execution.times.0,
        seconds: execution.times.1.map_or(0.0, |end| between(execution.times.0, end)),
        tally: &tally,
        seen: &seen,
        consumer: &consumer,
        places: places.len() + 1,
        violations: &broken,
    };
    let result = if options.json { report.json().to_string() } else { format!("\n{}", report.text()) };
    // The last words are looked through before they are said.
    if !leaks::find(&secrets, &[Place::new("the report", &*result)]).is_empty() {
        return Err("P4: the report would have shown a secret".into());
    }
    println!("{result}");
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts the rotation as a person would, with times short enough to watch.
async fn start(cloud: &Cloud, machine: &str, stage: &Stage, run: RunId) -> Result<String> {
    let request = Request {
        secret: stage.secret.clone(),
        reason: Reason::Manual,
        policy: PolicyOverride {
            overlap: Some(Span::seconds(20)),
            max_overlap: Some(Span::seconds(120)),
            quiet_window: Some(Span::seconds(5)),
            grace: Some(Span::seconds(10)),
            cache: Some(Span::seconds(CACHE.as_secs())),
            when_still_in_use: None,
        },
        dry_run: false,
        roll_back: false,
        on_promoted: None,
    };
    let sfn = aws_sdk_sfn::Client::new(&cloud.root());
    let input = serde_json::to_string(&request)?;
    let start = sfn.start_execution().state_machine_arn(machine).name(run.to_string()).input(input);
    let started = aws("states:StartExecution", start.send().await)?;
    Ok(started.execution_arn().to_owned())
}

/// Everything that may be read by those who must not see a secret.
async fn places(cloud: &Cloud, execution: &Execution, log: &Path) -> Result<Vec<Place>> {
    let mut places = leaks::logs(cloud).await?;
    places.push(Place::new("the execution's input, output or history", &*execution.raw));
    places.push(Place::file("the emulator's log", log)?);
    Ok(places)
}

/// Leaves what was counted for whoever wants to count again. Replies stay out: they hold secrets.
fn keep(dir: &Path, log: &[requests::Request], execution: &Execution) -> Result<()> {
    let lines: Vec<String> = log.iter().map(requests::Request::line).collect();
    std::fs::write(dir.join("requests.txt"), lines.join("\n")).explain("keeping the requests")?;
    std::fs::write(dir.join("execution.json"), &execution.raw).explain("keeping the execution's history")
}

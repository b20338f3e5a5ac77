//! `test`: everything that must hold before a change is taken, stage by stage.
//!
//! The cheap stages come first. The end-to-end tests speak to a local cloud that this task starts for them, with
//! the waits of state machines skipped; they find it through the environment.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use flate2::Compression;
use tokio::process::Command;

use crate::bench;
use crate::cloud::python;
use crate::deploy::{self, Own};
use crate::error::{Explain, Result};
use crate::lambdas::cargo;
use crate::package;
use crate::paths::{self, Scratch};
use crate::process::succeed;
use crate::proxy::Proxy;
use crate::screen::{Screen, seconds};
use crate::venv::Venv;

/// Tells the tests that a local cloud must be there: none of them may skip itself then.
const END_TO_END: &str = "KEYWHEEL_E2E";

/// `cargo xtask test`
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only what needs no local cloud: format, clippy, and the tests that do without.
    #[arg(long)]
    quick: bool,
    /// Only the Rust tests whose name contains this.
    filter: Option<String>,
}

/// The stages so far, with their times.
struct Stages<'a> {
    screen: &'a Screen,
    done: Vec<(&'static str, Duration, bool)>,
}

impl Stages<'_> {
    async fn run(&mut self, name: &'static str, work: impl Future<Output = Result<()>>) -> Result<()> {
        self.screen.line(&format!("\n== {name}"));
        let started = Instant::now();
        let result = work.await;
        self.done.push((name, started.elapsed(), result.is_ok()));
        result.explain(name)
    }

    fn summary(&self) {
        println!();
        for (name, took, passed) in &self.done {
            println!("{name:<24} {} {:>10}", if *passed { "passed" } else { "FAILED" }, seconds(*took));
        }
    }
}

/// Runs the stages; the first that fails ends the task.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let screen = Screen::new();
    let mut stages = Stages { screen: &screen, done: Vec::new() };
    let result = all(&mut stages, &screen, &options).await;
    stages.summary();
    result?;
    if options.quick {
        println!("Left out (--quick): documentation, template, state machines, emulator, end-to-end, bench.");
    }
    match &options.filter {
        Some(filter) => println!("Only tests named like {filter:?} were run."),
        None => println!("All of these hold."),
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(stages: &mut Stages<'_>, screen: &Screen, options: &Options) -> Result<()> {
    let filter = options.filter.as_deref();
    if filter.is_none() {
        stages.run("format", succeed(cargo().args(["fmt", "--all", "--check"]), "cargo fmt")).await?;
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        stages.run("clippy", succeed(cargo().args(clippy), "cargo clippy")).await?;
    }
    if options.quick {
        return stages.run("tests without a cloud", tests(filter, None)).await;
    }
    if filter.is_none() {
        stages.run("documentation", documentation()).await?;
        stages.run("template", template(screen)).await?;
        stages.run("state machines", machines()).await?;
        stages.run("emulator", emulator(screen)).await?;
    }
    // The bench needs a build of its own, and the end-to-end tests mostly wait.
    let ahead = if filter.is_none() { bench::release::ahead() } else { None };
    Box::pin(stages.run("tests", with_cloud(screen, filter))).await?;
    if filter.is_none() {
        // Last, and alone: it measures time.
        Box::pin(stages.run("bench", bench())).await?;
    }
    drop(ahead);
    Ok(())
}

/// Cold start and CPU of every Lambda, held to a ratio below Python's.
async fn bench() -> Result<()> {
    let code = bench::run(bench::Options::for_the_suite()).await?;
    if code == ExitCode::SUCCESS { Ok(()) } else { Err("a Lambda has become too slow".into()) }
}

async fn documentation() -> Result<()> {
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    succeed(&mut doc, "cargo doc").await
}

/// AWS's linter over every template.
async fn template(screen: &Screen) -> Result<()> {
    let venv = screen.step("Preparing the emulator", Venv::prepare()).await?;
    let templates = files(&paths::root().join("infra"), ".yaml")?;
    let mut lint = Command::new(venv.bin("cfn-lint"));
    lint.current_dir(paths::root()).arg("--").args(&templates);
    succeed(&mut lint, "cfn-lint").await
}

/// A linter for the states language: the emulator takes any definition, AWS does not.
async fn machines() -> Result<()> {
    let dir = paths::state().join("npm");
    paths::make(&dir)?;
    let source = paths::root().join("xtask/npm");
    let lock = "package-lock.json";
    let changed =
        std::fs::read(source.join(lock))? != std::fs::read(dir.join("installed.json")).unwrap_or_default();
    if changed {
        for name in ["package.json", lock] {
            std::fs::copy(source.join(name), dir.join(name)).explain(format_args!("copying {name}"))?;
        }
        let mut npm = Command::new("npm");
        // Nothing of what is installed may run by being installed.
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&dir);
        succeed(&mut npm, "npm ci")
            .await
            .explain("the linter for state machines needs Node.js with npm (--quick leaves it out)")?;
        std::fs::copy(dir.join(lock), dir.join("installed.json"))?;
    }
    let mut lint = Command::new(dir.join("node_modules/.bin/asl-validator"));
    // The ARNs are substitutions of the template until it is deployed.
    lint.arg("--no-arn-check");
    for file in files(&paths::root().join("statemachine"), ".asl.json")? {
        lint.arg("--json-path").arg(file);
    }
    succeed(&mut lint, "asl-validator").await
}

/// The tests of the emulator's own patches.
async fn emulator(screen: &Screen) -> Result<()> {
    let venv = screen.step("Preparing the emulator", Venv::prepare()).await?;
    let mut tests = Command::from(python(&venv));
    succeed(tests.args(["-m", "unittest", "discover", "-s", "tests"]), "the emulator's tests").await
}

/// All Rust tests, with a local cloud for those that need one.
async fn with_cloud(screen: &Screen, filter: Option<&str>) -> Result<()> {
    let scratch = Scratch::new(&format!("test-{}", std::process::id()), false)?;
    let proxy = Proxy::start().await?;
    // Made after its directory, so that it ends before the directory goes.
    let own = deploy::own(screen, &scratch.dir, 0.0, Some(&proxy)).await?;
    let dist = scratch.dir.join("dist");
    screen.step("Packing a release of the same Lambdas", release(&dist)).await?;
    let result = tests(filter, Some((&own, &proxy, dist.as_path()))).await;
    if result.is_err() {
        // The directory goes with this function; what the emulator said may explain the failure.
        let kept = paths::state().join("failed-test.log");
        std::fs::copy(scratch.dir.join("emulator.log"), &kept)?;
        screen.line(&format!("The emulator's log is kept in {}", kept.display()));
    }
    result
}

/// A release of the programs that the local cloud runs.
async fn release(dist: &Path) -> Result<()> {
    let (functions, command) = package::given(&paths::state().join("bootstraps"))?;
    package::write(dist, &functions, command.as_deref(), Compression::fast()).await.map(|_| ())
}

async fn tests(filter: Option<&str>, cloud: Option<(&Own, &Proxy, &Path)>) -> Result<()> {
    let mut tests = cargo();
    tests.args(["test", "--workspace"]).args(filter);
    for (name, _) in std::env::vars_os() {
        // A shell that speaks to `local up`, or to a real account, must not lead the tests there.
        let text = name.to_string_lossy();
        if text.starts_with("AWS_") || text.starts_with("KEYWHEEL_") {
            tests.env_remove(&name);
        }
    }
    if let Some((own, proxy, dist)) = cloud {
        tests.envs(deploy::variables(&own.cloud, &own.outputs)).env(END_TO_END, "1");
        tests.env("KEYWHEEL_FAULT_PROXY", &proxy.url).env("KEYWHEEL_DIST", dist);
    }
    succeed(&mut tests, "cargo test").await
}

/// The files of a directory whose names end so, in their order.
fn files(dir: &Path, end: &str) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).explain(format_args!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_file() && path.to_string_lossy().ends_with(end) {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("{} has no file *{end}", dir.display()).into());
    }
    Ok(files)
}

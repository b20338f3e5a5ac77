//! `local up`, `local down`, `local status`: a cloud that stays until it is taken down.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use std::os::unix::process::CommandExt;

use crate::cloud::{Cloud, free_port, is_free};
use crate::error::{Error, Explain, Result};
use crate::process::{command_line, end_group, log_file};
use crate::screen::Screen;
use crate::venv::Venv;
use crate::{deploy, lambdas, paths};

/// The port that `up` takes when nobody has it.
const PORT: u16 = 4601;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start it, or bring what runs up to date.
    Up {
        /// How long a second of the machines' waits lasts: 0 does not wait at all.
        #[arg(long, default_value_t = 1.0, value_name = "X")]
        time_scale: f64,
        /// The port; without it 4601, or another one where that is taken.
        #[arg(long)]
        port: Option<u16>,
    },
    /// Stop it and forget what it holds.
    Down,
    /// Tell whether it runs, and where.
    Status,
}

/// The emulator that `up` started.
#[derive(Serialize, Deserialize)]
struct Running {
    /// The leader of its process group.
    process: i32,
    port: u16,
}

impl Running {
    fn file() -> PathBuf {
        paths::state().join("cloud.json")
    }

    /// The emulator that runs, if the process of that id is still ours.
    fn find() -> Option<Self> {
        let running: Self = serde_json::from_str(&std::fs::read_to_string(Self::file()).ok()?).ok()?;
        command_line(running.process)?.contains("overlay").then_some(running)
    }
}

/// Runs the command.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { time_scale, port } => up(time_scale, port).await,
        Command::Down => down(),
        Command::Status => status().await,
    }
}

async fn up(time_scale: f64, port: Option<u16>) -> Result<ExitCode> {
    if !(time_scale.is_finite() && time_scale >= 0.0) {
        return Err("--time-scale takes a number that is 0 or more".into());
    }
    let screen = Screen::new();
    let (state, bootstraps) = (paths::state(), paths::state().join("bootstraps"));
    paths::make(&state)?;
    let venv = screen.step("Preparing the emulator", Venv::prepare()).await?;
    screen.loud("Building the Lambdas", lambdas::set_out(&bootstraps)).await?;
    let (running, begun) = start(&screen, &venv, port).await?;
    let cloud = Cloud::at(running.port);
    cloud.scale_time(time_scale).await?;
    let outputs =
        screen.step("Deploying Keywheel", deploy::deploy(&cloud, &venv, &bootstraps, &state)).await?;
    begun.keep();
    let file = state.join("env");
    let line = |(name, value): &(&str, String)| format!("export {name}={value}\n");
    let lines: String = deploy::variables(&cloud, &outputs).iter().map(line).collect();
    std::fs::write(&file, lines).explain(format_args!("writing {}", file.display()))?;
    println!("Keywheel runs in a local cloud at {}", cloud.url);
    println!("  . .local-cloud/env         makes a shell speak to it");
    println!("  cargo xtask local down     stops it");
    Ok(ExitCode::SUCCESS)
}

/// The emulator that runs, or a new one, which stays only when the rest of `up` succeeds.
async fn start(screen: &Screen, venv: &Venv, port: Option<u16>) -> Result<(Running, Begun)> {
    if let Some(running) = Running::find() {
        let same = port.is_none_or(|port| port == running.port);
        if same && Cloud::at(running.port).answers().await {
            screen.line(&format!("The emulator runs at port {}", running.port));
            return Ok((running, Begun(None)));
        }
        if let Some(port) = port.filter(|port| !same && !is_free(*port)) {
            return Err(Error::from(format!("port {port} is taken")));
        }
        // Deaf, or asked for elsewhere: it makes room.
        end_group(running.process);
    }
    let port = match port {
        Some(port) if !is_free(port) => return Err(Error::from(format!("port {port} is taken"))),
        Some(port) => port,
        None if is_free(PORT) => PORT,
        None => free_port()?,
    };
    let (state, log) = (paths::state(), paths::state().join("emulator.log"));
    let cloud = Cloud::at(port);
    let mut command = cloud.command(venv, &state)?;
    let out = log_file(&log)?;
    // A group of its own: it outlives this program, and `down` ends it with its Lambdas.
    command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).process_group(0);
    let mut child = command.spawn().explain("starting the emulator")?;
    let process = i32::try_from(child.id()).explain("the emulator's process id")?;
    let running = Running { process, port };
    std::fs::write(Running::file(), serde_json::to_string(&running)?)
        .explain("noting the emulator's process")?;
    let begun = Begun(Some(process));
    let runs = || matches!(child.try_wait(), Ok(None));
    screen.step("Starting the emulator", cloud.ready(runs, &log)).await?;
    Ok((running, begun))
}

/// Ends an emulator that `up` has started when `up` itself does not come to its end.
struct Begun(Option<i32>);

impl Begun {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(process) = self.0 {
            end_group(process);
        }
    }
}

fn down() -> Result<ExitCode> {
    let running = Running::find();
    if let Some(running) = &running
        && !end_group(running.process)
    {
        return Err(Error::from(format!("the emulator (process {}) does not end", running.process)));
    }
    for name in ["cloud.json", "env", "keywheel-local.json", "keywheel-local-member.json"] {
        // It is not there where `up` never came so far.
        let _ = std::fs::remove_file(paths::state().join(name));
    }
    let _ = std::fs::remove_dir_all(paths::state().join("files"));
    println!("{}", if running.is_some() { "The local cloud is down." } else { "No local cloud runs." });
    Ok(ExitCode::SUCCESS)
}

async fn status() -> Result<ExitCode> {
    let Some(running) = Running::find() else {
        println!("No local cloud runs. `cargo xtask local up` starts one.");
        return Ok(ExitCode::FAILURE);
    };
    let cloud = Cloud::at(running.port);
    if !cloud.answers().await {
        println!("The emulator (process {}) does not answer at {}", running.process, cloud.url);
        return Ok(ExitCode::FAILURE);
    }
    println!("The local cloud runs at {} (process group {})", cloud.url, running.process);
    let env = std::fs::read_to_string(paths::state().join("env")).unwrap_or_default();
    for line in env.lines().filter(|line| line.contains("KEYWHEEL_")) {
        println!("  {}", line.trim_start_matches("export "));
    }
    Ok(ExitCode::SUCCESS)
}

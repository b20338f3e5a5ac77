//! Puts Keywheel into a running emulator: the Lambdas, the template, the two switches.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::cloud::{Cloud, REGION, ROOT_KEY, python};
use crate::error::{Error, Explain, Result, aws};
use crate::paths;
use crate::process::{self, Guarded};
use crate::proxy::Proxy;
use crate::screen::Screen;
use crate::venv::Venv;
use crate::{cloud, lambdas};

/// The stage of every local installation.
pub(crate) const STAGE: &str = "local";

/// The account that lets the installation in.
const MEMBER: &str = "444455556666";
/// What it asks for. Nobody but the emulator's own accounts could use it.
const EXTERNAL_ID: &str = "the-local-clouds-own";

/// What the stack says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outputs {
    /// The rotation machine.
    pub(crate) rotation: String,
    /// The machine that rotates all keys that are due.
    pub(crate) fleet: String,
    /// The machine that events about leaks start.
    pub(crate) emergency: String,
    /// The machine of one leaked credential.
    pub(crate) incident: String,
    /// The bus that takes reports of leaked keys.
    pub(crate) leaks: String,
    /// The bus of our events.
    pub(crate) bus: String,
    /// The topic of our notices.
    pub(crate) topic: String,
}

/// An emulator of a task's own, with Keywheel in it; it ends with this value.
pub(crate) struct Own {
    /// The emulator.
    pub(crate) cloud: Cloud,
    /// Its stack.
    pub(crate) outputs: Outputs,
    _guard: Guarded,
}

/// Builds, starts and deploys everything for one task, on a port of its own, with its files under `dir`. The
/// Lambdas call AWS through the proxy, where there is one.
pub(crate) async fn own(screen: &Screen, dir: &Path, time_scale: f64, proxy: Option<&Proxy>) -> Result<Own> {
    let venv = screen.step("Preparing the emulator", Venv::prepare()).await?;
    let bootstraps = paths::state().join("bootstraps");
    screen.loud("Building the Lambdas", lambdas::set_out(&bootstraps)).await?;
    let cloud = Cloud::at(cloud::free_port()?);
    let log = dir.join("emulator.log");
    let mut command = cloud.command(&venv, dir)?;
    if let Some(proxy) = proxy {
        proxy.forward_to(&cloud.url)?;
        // The emulator hands this on to every Lambda that it starts.
        command.env("AWS_ENDPOINT_URL", &proxy.url);
    }
    let mut guard = Guarded::spawn(&command, &log)?;
    screen.step("Starting the emulator", cloud.ready(|| guard.is_running(), &log)).await?;
    cloud.scale_time(time_scale).await?;
    let outputs = screen.step("Deploying Keywheel", deploy(&cloud, &venv, &bootstraps, dir)).await?;
    Ok(Own { cloud, outputs, _guard: guard })
}

/// Deploys the template with the Lambdas of `bootstraps`, and switches rotation on.
pub(crate) async fn deploy(cloud: &Cloud, venv: &Venv, bootstraps: &Path, dir: &Path) -> Result<Outputs> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    let stack = |name: &str, template: &str| {
        let mut script = python(venv);
        let outputs = dir.join(format!("{name}.json"));
        script.arg("deploy.py").args(["--endpoint", &cloud.url, "--stack", name, "--region", REGION]);
        script.arg("--template").arg(paths::root().join(template));
        script.arg("--bootstraps").arg(bootstraps).arg("--outputs").arg(&outputs);
        script.args(["--parameter", &format!("Stage={STAGE}")]);
        (script, outputs)
    };
    let (mut script, outputs) = stack("keywheel-local", "infra/template.yaml");
    script.args(["--parameter", &format!("Architecture={architecture}")]);
    // People and tests who try things here make keys by hand all the time.
    script.args(["--parameter", "WatchKeyMaking=off", "--parameter", "DenyRoleSessions=on"]);
    script.args(["--parameter", &format!("MemberExternalId={EXTERNAL_ID}")]);
    process::output(&mut Command::from(script), "the deployment").await?;
    let text = std::fs::read_to_string(&outputs).explain("reading the stack's outputs")?;
    let told: Value = serde_json::from_str(&text).explain("reading the stack's outputs")?;
    let outputs = read(&told)?;

    let (mut script, _) = stack("keywheel-local-member", "infra/member.yaml");
    script.args(["--account", MEMBER, "--parameter", &format!("ExternalId={EXTERNAL_ID}")]);
    let hub = outputs.rotation.split(':').nth(4).unwrap_or_default();
    script.args(["--parameter", &format!("HubAccountId={hub}")]);
    for (parameter, output) in [
        ("ContainRoles", "MemberContainRoles"),
        ("ReadRoles", "MemberReadRoles"),
        ("RotateRoles", "MemberRotateRoles"),
    ] {
        script.args(["--parameter", &format!("{parameter}={}", output_of(&told, output)?)]);
    }
    process::output(&mut Command::from(script), "the deployment into another account").await?;
    switch_on(cloud).await?;
    Ok(outputs)
}

/// The switches are parameters of the account, not of the template, and a fresh installation is careful.
async fn switch_on(cloud: &Cloud) -> Result<()> {
    let ssm = aws_sdk_ssm::Client::new(&cloud.root());
    for (name, value) in [("mode", "live"), ("containment", "on")] {
        let put = ssm
            .put_parameter()
            .name(format!("/keywheel/{STAGE}/{name}"))
            .value(value)
            .r#type(aws_sdk_ssm::types::ParameterType::String)
            .overwrite(true);
        aws("ssm:PutParameter", put.send().await)?;
    }
    Ok(())
}

/// One of the outputs, which are a map from name to value, or the list that the API returns.
fn output_of(outputs: &Value, name: &str) -> Result<String> {
    let listed = || {
        let mut rows = outputs.as_array()?.iter();
        rows.find(|row| row.get("OutputKey").and_then(Value::as_str) == Some(name))?.get("OutputValue")
    };
    let value = outputs.get(name).or_else(listed).and_then(Value::as_str).map(str::to_owned);
    value.ok_or_else(|| Error::from(format!("the stack has no output {name}")))
}

/// What the rest of the program needs of them.
fn read(outputs: &Value) -> Result<Outputs> {
    let get = |name: &str| output_of(outputs, name);
    Ok(Outputs {
        rotation: get("RotationArn")?,
        fleet: get("FleetArn")?,
        emergency: get("EmergencyArn")?,
        incident: get("IncidentArn")?,
        leaks: get("LeakBusName")?,
        bus: get("BusName")?,
        topic: get("TopicArn")?,
    })
}

/// What a shell, or a test, needs to know to speak to the installation.
pub(crate) fn variables(cloud: &Cloud, outputs: &Outputs) -> [(&'static str, String); 14] {
    [
        ("AWS_ENDPOINT_URL", cloud.url.clone()),
        ("AWS_REGION", REGION.into()),
        ("AWS_ACCESS_KEY_ID", ROOT_KEY.into()),
        ("AWS_SECRET_ACCESS_KEY", ROOT_KEY.into()),
        ("KEYWHEEL_ROTATION_ARN", outputs.rotation.clone()),
        ("KEYWHEEL_FLEET_ARN", outputs.fleet.clone()),
        ("KEYWHEEL_EMERGENCY_ARN", outputs.emergency.clone()),
        ("KEYWHEEL_INCIDENT_ARN", outputs.incident.clone()),
        ("KEYWHEEL_LEAK_BUS", outputs.leaks.clone()),
        ("KEYWHEEL_BUS", outputs.bus.clone()),
        ("KEYWHEEL_TOPIC_ARN", outputs.topic.clone()),
        ("KEYWHEEL_STAGE", STAGE.into()),
        ("KEYWHEEL_MEMBER_ACCOUNT", MEMBER.into()),
        ("KEYWHEEL_LOCAL_CONTROL", cloud.url.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn outputs_are_read_in_both_forms_and_missed_by_name() {
        let map = json!({
            "RotationArn": "r", "FleetArn": "f", "EmergencyArn": "e", "IncidentArn": "i", "LeakBusName": "l",
            "BusName": "b", "TopicArn": "t",
        });
        let row = |(key, value): (&String, &Value)| json!({"OutputKey": key, "OutputValue": value});
        let list: Value = map.as_object().unwrap().iter().rev().map(row).collect();
        let expected = Outputs {
            rotation: "r".into(),
            fleet: "f".into(),
            emergency: "e".into(),
            incident: "i".into(),
            leaks: "l".into(),
            bus: "b".into(),
            topic: "t".into(),
        };
        assert_eq!(read(&map).unwrap(), expected);
        assert_eq!(read(&list).unwrap(), expected);
        assert!(read(&json!({"BusName": "b"})).unwrap_err().to_string().contains("RotationArn"));
    }
}

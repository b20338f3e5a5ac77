//! Where the command works: account, region, stage, endpoint, and the clients for them.

use aws_config::BehaviorVersion;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sts::config::{AppName, ProvideCredentials, Region};
use aws_types::SdkConfig;
use keywheel::StepError;
use serde_json::{Value, json};
use std::time::Duration;

use crate::args::Common;
use crate::error::{Result, Trouble};
use crate::names;

/// The account and region of one invocation, and what is derived from them.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    config: SdkConfig,
    /// Where IAM is asked; `None` where nobody may ask it.
    iam: Option<SdkConfig>,
    pub(crate) account: String,
    /// Whose credentials these are.
    pub(crate) caller: String,
    pub(crate) partition: String,
    pub(crate) region: String,
    pub(crate) stage: String,
    /// The rotation machine's ARN.
    pub(crate) machine: String,
    /// The emergency machine's ARN.
    pub(crate) emergency: String,
    /// The fleet machine's ARN.
    pub(crate) fleet: String,
    /// The bus that takes reports of leaked keys.
    pub(crate) leaks: String,
    endpoint: Option<String>,
}

impl Place {
    /// Finds out who and where we are. Every later answer would be a riddle where this one is wrong.
    pub(crate) async fn find(common: &Common) -> Result<Self> {
        stage_is_valid(&common.stage)?;
        let (config, region) = configured(common).await?;
        let endpoint = config.endpoint_url().map(str::to_owned);
        let caller =
            aws_sdk_sts::Client::new(&config).get_caller_identity().send().await.map_err(|error| {
                nobody_answers(StepError::from_sdk("sts:GetCallerIdentity", &error), endpoint.as_deref())
            })?;
        let arn = caller.arn().unwrap_or_default();
        let (Some(partition), Some(account)) = (arn.split(':').nth(1), caller.account()) else {
            return Err(Trouble::new("sts:GetCallerIdentity named no account.", "Check the endpoint."));
        };
        let (account, partition) = (account.to_owned(), partition.to_owned());
        let named = |variable: &str, name: &str| match std::env::var(variable) {
            Ok(arn) if !arn.is_empty() => machine_is_here(variable, arn, &region, &account),
            _ => Ok(machine(&partition, &region, &account, &common.stage, name)),
        };
        let machine = named("KEYWHEEL_ROTATION_ARN", "rotation")?;
        let emergency = named("KEYWHEEL_EMERGENCY_ARN", "emergency")?;
        let fleet = named("KEYWHEEL_FLEET_ARN", "fleet")?;
        let (caller, stage) = (arn.to_owned(), common.stage.clone());
        let leaks = std::env::var("KEYWHEEL_LEAK_BUS").ok().filter(|name| !name.is_empty());
        let leaks = leaks.unwrap_or_else(|| format!("keywheel-{stage}-leaks"));
        let iam = Some(config.clone());
        Ok(Self {
            config,
            iam,
            account,
            caller,
            partition,
            region,
            stage,
            machine,
            emergency,
            fleet,
            leaks,
            endpoint,
        })
    }

    /// The configuration that every client of this place has.
    pub(crate) const fn config(&self) -> &SdkConfig {
        &self.config
    }

    /// LOCAL or AWS, so that nobody mistakes one for the other.
    pub(crate) fn kind(&self) -> &'static str {
        if self.endpoint.as_deref().is_some_and(is_loopback) { "LOCAL" } else { "AWS" }
    }

    /// The line that a command which writes shows first.
    pub(crate) fn line(&self) -> String {
        let through = self.endpoint.as_deref().map_or_else(String::new, |url| format!(" through {url}"));
        format!(
            "{}{through}: account {}, region {}, stage {}",
            self.kind(),
            self.account,
            self.region,
            self.stage
        )
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "where": self.kind(),
            "endpoint": self.endpoint,
            "account": self.account,
            "region": self.region,
            "stage": self.stage,
        })
    }

    /// The ARN of a run.
    pub(crate) fn execution(&self, run: &str) -> String {
        execution_of(&self.machine, run)
    }

    /// The ARN of the machine that follows one leaked credential: the emergency machine's sister.
    pub(crate) fn incidents(&self) -> String {
        let emergency = self.emergency.strip_suffix("-emergency").unwrap_or(&self.emergency);
        format!("{emergency}-incident")
    }

    /// The ARNs of the stage's machines by their names, whatever the environment says: these are removed.
    pub(crate) fn own_machines(&self) -> [String; 5] {
        ["rotation", "fleet", "unused", "emergency", "incident"]
            .map(|name| machine(&self.partition, &self.region, &self.account, &self.stage, name))
    }

    /// The ARN of the machine that removes keys that nobody uses: the fleet machine's sister.
    pub(crate) fn removals(&self) -> String {
        let fleet = self.fleet.strip_suffix("-fleet").unwrap_or(&self.fleet);
        format!("{fleet}-unused")
    }

    /// IAM of the account that is meant. A place without one must not be asked.
    pub(crate) fn iam(&self) -> aws_sdk_iam::Client {
        aws_sdk_iam::Client::new(self.iam.as_ref().unwrap_or(&self.config))
    }

    /// Whether there is an account whose IAM can be asked.
    pub(crate) fn has_iam(&self) -> bool {
        self.iam.is_some()
    }

    /// The same place, where what is meant is in an account that nobody has entered.
    pub(crate) fn without_iam(&self) -> Self {
        Self { iam: None, ..self.clone() }
    }

    /// The same place, but with IAM of another account, entered through a role there.
    pub(crate) async fn enter(&self, account: &str, role: &str) -> Result<Self> {
        let of_it = format!("arn:{}:iam::{account}:role/", self.partition);
        if !role.starts_with(&of_it) || role.len() == of_it.len() {
            return Err(Trouble::new(
                format!("{role} is no role of account {account}."),
                format!("Nothing was changed. Give --role {of_it}NAME."),
            ));
        }
        let call = aws_sdk_sts::Client::new(&self.config).assume_role().role_arn(role);
        let reply = call.role_session_name("keywheel").duration_seconds(900).send().await;
        let reply = reply.map_err(|error| StepError::from_sdk("sts:AssumeRole", &error))?;
        let Some(session) = reply.credentials else {
            return Err(Trouble::new("sts:AssumeRole gave no credentials.", "Nothing was changed."));
        };
        Ok(Self { iam: Some(facts::member::with_session(&self.config, session)), ..self.clone() })
    }

    pub(crate) fn stacks(&self) -> aws_sdk_cloudformation::Client {
        aws_sdk_cloudformation::Client::new(&self.config)
    }

    pub(crate) fn sfn(&self) -> aws_sdk_sfn::Client {
        aws_sdk_sfn::Client::new(&self.config)
    }

    pub(crate) fn ssm(&self) -> aws_sdk_ssm::Client {
        aws_sdk_ssm::Client::new(&self.config)
    }

    /// EventBridge of a region.
    pub(crate) fn events(&self, region: &str) -> aws_sdk_eventbridge::Client {
        aws_sdk_eventbridge::Client::new(&keywheel::aws::in_region(&self.config, region))
    }

    pub(crate) fn sns(&self) -> aws_sdk_sns::Client {
        aws_sdk_sns::Client::new(&self.config)
    }

    /// The topic whose subscribers are told.
    pub(crate) fn topic(&self) -> String {
        let named = std::env::var("KEYWHEEL_TOPIC_ARN").ok().filter(|arn| !arn.is_empty());
        named.unwrap_or_else(|| {
            format!("arn:{}:sns:{}:{}:keywheel-{}", self.partition, self.region, self.account, self.stage)
        })
    }

    /// The same place as somebody else sees it.
    pub(crate) fn acting_as(&self, credentials: aws_sdk_iam::config::Credentials) -> SdkConfig {
        let provider = aws_sdk_iam::config::SharedCredentialsProvider::new(credentials);
        self.config.clone().into_builder().credentials_provider(provider).build()
    }

    /// Secrets Manager in the region of the secret.
    pub(crate) fn secrets(&self, region: &str) -> aws_sdk_secretsmanager::Client {
        aws_sdk_secretsmanager::Client::new(&keywheel::aws::in_region(&self.config, region))
    }

    /// CloudTrail of a region.
    pub(crate) fn trail(&self, region: &str) -> aws_sdk_cloudtrail::Client {
        aws_sdk_cloudtrail::Client::new(&keywheel::aws::in_region(&self.config, region))
    }
}

/// The configuration of this invocation and its region, with credentials in it.
pub(crate) async fn configured(common: &Common) -> Result<(SdkConfig, String)> {
    if let Some(region) = &common.region {
        names::region(region)?;
    }
    let config = config(common).await;
    let Some(region) = config.region().map(|region| region.as_ref().to_owned()) else {
        return Err(Trouble::new(
            "No region is set.",
            "Give --region, set AWS_REGION, or name a region in the profile.",
        ));
    };
    if !config.endpoint_url().is_some_and(is_loopback) {
        names::region(&region)?;
    }
    credentials_exist(&config, common.profile.as_deref()).await?;
    Ok((config, region))
}

async fn config(common: &Common) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(20))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(keywheel::aws::http_client())
        .timeout_config(timeouts);
    if let Some(profile) = &common.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = &common.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Ok(name) = AppName::new("keywheel-cli") {
        loader = loader.app_name(name);
    }
    loader.load().await
}

/// Nothing at a loopback address means a local cloud that does not run.
fn nobody_answers(error: StepError, endpoint: Option<&str>) -> Trouble {
    match endpoint.filter(|url| is_loopback(url)) {
        Some(url) if error.code() == Some("ConnectionFailed") => Trouble::new(
            format!("Nothing answers at {url}: the local cloud does not run."),
            "`cargo xtask local up` starts it, then read .local-cloud/env anew; without AWS_ENDPOINT_URL the command works in AWS.",
        ),
        _ => error.into(),
    }
}

/// Asks for credentials before the first call, since a call without any fails as if the network had.
async fn credentials_exist(config: &SdkConfig, profile: Option<&str>) -> Result<()> {
    let reason = match config.credentials_provider() {
        None => "none are configured".to_owned(),
        Some(provider) => match provider.provide_credentials().await {
            Ok(_) => return Ok(()),
            Err(error) => innermost(&error),
        },
    };
    let (whose, what) = match profile {
        Some(profile) => (
            format!(" for profile {profile}"),
            format!(
                "`aws configure list-profiles` shows the profiles; `aws sso login --profile {profile}` logs in."
            ),
        ),
        None => (
            String::new(),
            "Choose a profile with --profile or AWS_PROFILE, or log in, for example with `aws sso login`."
                .to_owned(),
        ),
    };
    Err(Trouble::new(
        format!(
            "There are no AWS credentials{whose}: neither the environment nor a profile, SSO or the instance gave any (the last said: {reason})."
        ),
        what,
    ))
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().trim_end_matches('.').to_owned()
}

fn stage_is_valid(stage: &str) -> Result<()> {
    let valid =
        (1..=32).contains(&stage.len()) && stage.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if valid {
        Ok(())
    } else {
        Err(Trouble::new(
            format!("{stage:?} is not the name of a stage: 1 to 32 letters, digits or hyphens."),
            "Check --stage and KEYWHEEL_STAGE.",
        ))
    }
}

/// A machine's ARN where the template gave it its name.
fn machine(partition: &str, region: &str, account: &str, stage: &str, name: &str) -> String {
    format!("arn:{partition}:states:{region}:{account}:stateMachine:keywheel-{stage}-{name}")
}

/// The ARN of an execution of a machine.
pub(crate) fn execution_of(machine: &str, name: &str) -> String {
    format!("{}:{name}", machine.replacen(":stateMachine:", ":execution:", 1))
}

/// A machine's ARN from the environment, which must not lead elsewhere than the line on the screen says.
fn machine_is_here(variable: &str, arn: String, region: &str, account: &str) -> Result<String> {
    let parts: Vec<&str> = arn.split(':').collect();
    match parts.as_slice() {
        ["arn", _, "states", there, owner, "stateMachine", _] if *there == region && *owner == account => {
            Ok(arn)
        }
        ["arn", _, "states", there, owner, "stateMachine", _] => Err(Trouble::new(
            format!(
                "{variable} names a machine in {there} of account {owner}, and this command works in {region} of account {account}."
            ),
            format!("Correct or unset {variable}, or choose that place with --region and --profile."),
        )),
        _ => Err(Trouble::new(
            format!("{variable} is not the ARN of a state machine."),
            "Unset it, or give arn:aws:states:<region>:<account>:stateMachine:<name>.",
        )),
    }
}

/// Whether an endpoint is on this computer.
fn is_loopback(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_computer_is_local() {
        for url in
            ["http://127.0.0.1:4566", "http://localhost:1/x", "https://[::1]:4566/", "http://sts.localhost:1"]
        {
            assert!(is_loopback(url), "{url}");
        }
        for url in
            ["https://sts.amazonaws.com", "http://127.0.0.1.example.com", "http://localhost@example.com/"]
        {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn the_machine_has_the_callers_partition_and_the_stage() {
        assert_eq!(
            machine("aws-cn", "cn-north-1", "111122223333", "test", "rotation"),
            "arn:aws-cn:states:cn-north-1:111122223333:stateMachine:keywheel-test-rotation"
        );
    }

    #[test]
    fn a_machine_elsewhere_is_refused_by_name() {
        let arn = || machine("aws", "eu-west-1", "111122223333", "prod", "rotation");
        assert!(machine_is_here("X", arn(), "eu-west-1", "111122223333").is_ok());
        let trouble = machine_is_here("X", arn(), "us-east-1", "111122223333").unwrap_err();
        assert!(trouble.text.contains("eu-west-1") && trouble.text.contains("us-east-1"));
        assert!(machine_is_here("X", "keywheel".into(), "eu-west-1", "111122223333").is_err());
    }

    #[test]
    fn a_stage_is_a_short_word() {
        assert!(stage_is_valid("prod").is_ok());
        assert!(stage_is_valid("").is_err() && stage_is_valid("a/b").is_err());
    }
}

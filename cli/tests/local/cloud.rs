//! The local cloud as a person's credentials see it, and commands typed at it.

use std::env::var;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_iam::types::Tag;
use aws_types::SdkConfig;
use aws_types::region::Region;
use serde_json::{Value, json};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub(crate) struct Cloud {
    pub(crate) iam: aws_sdk_iam::Client,
    pub(crate) store: aws_sdk_secretsmanager::Client,
    pub(crate) sfn: aws_sdk_sfn::Client,
    pub(crate) ssm: aws_sdk_ssm::Client,
    pub(crate) events: aws_sdk_eventbridge::Client,
    pub(crate) stage: String,
    pub(crate) incidents: String,
    rotations: String,
    control: String,
    pub(crate) config: SdkConfig,
}

/// What a command said and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Cloud {
    pub(crate) fn here() -> Option<Self> {
        if var("KEYWHEEL_E2E").is_err() {
            println!("skipped: no local cloud (`cargo xtask test` starts one)");
            return None;
        }
        let need = |name: &str| var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let root =
            Credentials::new(need("AWS_ACCESS_KEY_ID"), need("AWS_SECRET_ACCESS_KEY"), None, None, "Test");
        let base = keywheel::aws::base(keywheel::aws::http_client(), root).into_builder();
        let config: SdkConfig =
            base.endpoint_url(need("AWS_ENDPOINT_URL")).region(Region::new(need("AWS_REGION"))).build();
        Some(Self {
            iam: aws_sdk_iam::Client::new(&config),
            store: aws_sdk_secretsmanager::Client::new(&config),
            sfn: aws_sdk_sfn::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            events: aws_sdk_eventbridge::Client::new(&config),
            stage: need("KEYWHEEL_STAGE"),
            incidents: need("KEYWHEEL_INCIDENT_ARN"),
            rotations: need("KEYWHEEL_ROTATION_ARN"),
            control: need("KEYWHEEL_LOCAL_CONTROL"),
            config,
        })
    }

    pub(crate) async fn user(&self, what: &str) -> String {
        let name = format!("cli-{what}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        self.iam.create_user().user_name(&name).send().await.unwrap();
        name
    }

    /// A new key's id and secret.
    pub(crate) async fn key(&self, user: &str) -> (String, String) {
        let made = self.iam.create_access_key().user_name(user).send().await.unwrap();
        let key = made.access_key().unwrap();
        (key.access_key_id().to_owned(), key.secret_access_key().to_owned())
    }

    /// A user whose one key is in its secret.
    pub(crate) async fn managed(&self, what: &str) -> (String, String) {
        let user = self.user(what).await;
        let (id, secret) = self.key(&user).await;
        let value = json!({ "UserName": user, "AccessKeyId": id, "SecretAccessKey": secret });
        let tag = aws_sdk_secretsmanager::types::Tag::builder().key("keywheel:user").value(&user).build();
        let made = self.store.create_secret().name(format!("cli/{user}")).secret_string(value.to_string());
        let made = made.tags(tag).send().await.unwrap();
        let tag = Tag::builder().key("keywheel:secret").value(made.arn().unwrap()).build().unwrap();
        self.iam.tag_user().user_name(&user).tags(tag).send().await.unwrap();
        (user, id)
    }

    /// The execution of a run of the rotation machine.
    pub(crate) fn execution(&self, run: &str) -> String {
        format!("{}:{run}", self.rotations.replacen(":stateMachine:", ":execution:", 1))
    }

    /// What a run of the rotation machine was started with.
    pub(crate) async fn input(&self, run: &str) -> Value {
        let arn = self.execution(run);
        let told = self.sfn.describe_execution().execution_arn(arn).send().await.unwrap();
        serde_json::from_str(told.input().unwrap()).unwrap()
    }

    /// Calls AWS once with the pair that the user's secret holds, as its consumer does.
    pub(crate) async fn consume(&self, user: &str) {
        let read = self.store.get_secret_value().secret_id(format!("cli/{user}")).send().await.unwrap();
        let value: Value = serde_json::from_str(read.secret_string().unwrap()).unwrap();
        let text = |field: &str| value[field].as_str().unwrap().to_owned();
        let pair = Credentials::new(text("AccessKeyId"), text("SecretAccessKey"), None, None, "Test");
        let provider = aws_credential_types::provider::SharedCredentialsProvider::new(pair);
        let config = self.config.clone().into_builder().credentials_provider(provider).build();
        let told = aws_sdk_sts::Client::new(&config).get_caller_identity().send().await.unwrap();
        assert!(told.arn().unwrap().ends_with(user));
    }

    /// Says that a key is so many days old: the emulator's are all of today.
    pub(crate) fn age(&self, key: &str, days: u64) {
        let (host, body) = (self.control.trim_start_matches("http://"), json!({ key: days }).to_string());
        let head = format!("POST /_keywheel/ages HTTP/1.1\r\nhost: {host}\r\nconnection: close");
        let mut stream = TcpStream::connect(host).unwrap();
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    }

    pub(crate) async fn is_active(&self, user: &str, key: &str) -> Option<bool> {
        let list = self.iam.list_access_keys().user_name(user).send().await.unwrap();
        let row = list.access_key_metadata().iter().find(|row| row.access_key_id() == Some(key))?;
        Some(row.status().unwrap().as_str() == "Active")
    }

    pub(crate) async fn current(&self, user: &str) -> String {
        let read = self.store.get_secret_value().secret_id(format!("cli/{user}")).send().await.unwrap();
        let value: Value = serde_json::from_str(read.secret_string().unwrap()).unwrap();
        value["AccessKeyId"].as_str().unwrap().to_owned()
    }

    /// GuardDuty finds something about the key.
    pub(crate) async fn finding(&self, key: &str, user: &str) {
        let details =
            json!({ "accessKeyId": key, "principalId": "AIDATEST", "userType": "IAMUser", "userName": user });
        let detail = json!({
            "schemaVersion": "2.0", "accountId": "111122223333", "region": "eu-west-1", "severity": 8,
            "type": "UnauthorizedAccess:IAMUser/MaliciousIPCaller.Custom", "title": "A finding of a test",
            "resource": { "resourceType": "AccessKey", "accessKeyDetails": details },
            "service": { "serviceName": "guardduty", "count": 2 },
        });
        let entry = aws_sdk_eventbridge::types::PutEventsRequestEntry::builder()
            .source("aws.guardduty")
            .detail_type("GuardDuty Finding")
            .detail(detail.to_string())
            .build();
        let sent = self.events.put_events().entries(entry).send().await.unwrap();
        assert_eq!(sent.failed_entry_count(), 0);
    }

    /// Thirty days cannot be waited for here: the record says that they have passed.
    pub(crate) async fn thirty_days_pass(&self, key: &str) {
        let name = format!("/keywheel/{}/incidents/{key}", self.stage);
        let read = self.ssm.get_parameter().name(&name).send().await.unwrap();
        let mut record: Value = serde_json::from_str(read.parameter().unwrap().value().unwrap()).unwrap();
        record["at"] = json!(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(31 * 24));
        let call = self.ssm.put_parameter().name(&name).value(record.to_string()).overwrite(true);
        call.r#type(aws_sdk_ssm::types::ParameterType::String).send().await.unwrap();
    }

    /// What runs under way know of freezes.
    pub(crate) async fn freezes(&self) -> Value {
        let name = format!("/keywheel/{}/freeze", self.stage);
        let read = self.ssm.get_parameter().name(name).send().await.unwrap();
        serde_json::from_str(read.parameter().unwrap().value().unwrap()).unwrap()
    }

    /// Somebody writes there.
    pub(crate) async fn set_freezes(&self, text: &str) {
        let name = format!("/keywheel/{}/freeze", self.stage);
        let call = self.ssm.put_parameter().name(name).value(text).overwrite(true);
        call.r#type(aws_sdk_ssm::types::ParameterType::String).send().await.unwrap();
    }

    /// The documents of the incidents about a key that have ended.
    pub(crate) async fn ended(&self, key: &str) -> Vec<Value> {
        let list = self.sfn.list_executions().state_machine_arn(&self.incidents).max_results(200);
        let mut ended = Vec::new();
        for execution in list.send().await.unwrap().executions() {
            let told = self.sfn.describe_execution().execution_arn(execution.execution_arn()).send();
            let told = told.await.unwrap();
            if told.input().is_some_and(|input| input.contains(key))
                && let Some(output) = told.output()
            {
                ended.push(serde_json::from_str(output).unwrap());
            }
        }
        ended
    }
}

/// Types a command. What it prints holds no secret, so it may be shown.
pub(crate) fn keywheel(args: &[&str]) -> Said {
    keywheel_given(args, "", &[])
}

/// The same, with something on its standard input and in its environment.
pub(crate) fn keywheel_given(args: &[&str], input: &str, env: &[(&str, &str)]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keywheel"));
    command.envs(env.iter().copied());
    typed(command, args, input)
}

/// Types a command with the credentials of somebody else.
pub(crate) fn keywheel_as((id, secret): (&str, &str), args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keywheel"));
    command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
    command.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_PROFILE");
    typed(command, args, "")
}

fn typed(mut command: Command, args: &[&str], input: &str) -> Said {
    command.arg("--json").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    // A command that reads nothing may be gone by now.
    let _ = running.stdin.take().unwrap().write_all(input.as_bytes());
    let ended = running.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    let json = out.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
    Said { code: ended.status.code(), json: json.unwrap_or_default(), text: format!("{out}{err}") }
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, holds: impl FnMut() -> F) {
    until_within(PATIENCE, what, holds).await;
}

pub(crate) async fn until_within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut holds: impl FnMut() -> F,
) {
    let end = Instant::now() + patience;
    while !holds().await {
        assert!(Instant::now() < end, "{what} does not come to pass");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

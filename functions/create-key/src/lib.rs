//! The `CreateKey` state: makes the new key and stores it as AWSPENDING, in one process.
//!
//! The secret never crosses an edge of the machine, so making and storing are one step. The gap between the two
//! calls is where a process may die; what it leaves then is a key that nobody stored. The step therefore looks
//! first: a key that appeared since the baseline is reused where this run had stored it, and otherwise handed to
//! attribution. A second key is never made beside one that appeared.

use std::time::Duration;

use aws_sdk_iam::config::retry::RetryConfig;
use aws_types::SdkConfig;
use facts::member::{self, Members};
use facts::secrets::{self, CURRENT, PENDING, Which};
use keywheel::decide::create::{self, Create};
use keywheel::notice::NoticeKind;
use keywheel::rotation::{CurrentVersion, NewKey, Phase, Why};
use keywheel::secret::{SecretAccessKey, SecretValue, for_store};
use keywheel::switch::Mode;
use keywheel::{AccessKeyId, Context, Rotation, SecretArn, Step, StepError, UserName, VersionId, aws};
use tracing::{info, warn};

/// How long this process keeps trying to store a key that only it knows.
const STORE_ATTEMPTS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(6), Duration::from_secs(10)];

/// The step.
pub struct CreateKey {
    config: SdkConfig,
    members: Option<Members>,
}

struct Clients {
    iam: aws_sdk_iam::Client,
    store: aws_sdk_secretsmanager::Client,
}

impl CreateKey {
    /// A step that calls AWS with `config`, and enters other accounts where there are `members`.
    pub fn new(config: SdkConfig, members: Option<Members>) -> Self {
        Self { config, members }
    }

    async fn clients(&self, doc: &Rotation) -> Result<Clients, StepError> {
        let config = aws::for_run(&self.config, doc.run);
        let config = member::of_rotation(self.members.as_ref(), &config, doc).await?;
        // CreateAccessKey has no idempotency token: with the SDK's retries, a lost reply makes up to three keys.
        // It is sent once; the machine tries again, and this step looks first. Reads go without
        // the SDK's retries here as well, which the machine makes up for.
        let once = aws_sdk_iam::config::Builder::from(&config).retry_config(RetryConfig::disabled()).build();
        let store = aws_sdk_secretsmanager::Client::new(&aws::in_region(&config, doc.secret()?.region()));
        Ok(Clients { iam: aws_sdk_iam::Client::from_conf(once), store })
    }
}

impl Step for CreateKey {
    const NAME: &'static str = "create-key";
    type Input = Rotation;
    type Output = Rotation;

    /// Run twice, it finds the key of its first run. Killed half way, it leaves a stored key (reused by the next
    /// attempt), or one that is not stored (attributed and cleared).
    async fn run(&self, mut doc: Rotation, ctx: &Context) -> Result<Rotation, StepError> {
        let clients = self.clients(&doc).await?;
        let secret = doc.secret()?.clone();
        let user = doc.baseline()?.user.name.clone();

        let keys = facts::iam::keys(&clients.iam, &user).await?;
        let mut current = secrets::value(&clients.store, &secret, Which::Label(CURRENT)).await?;
        let mode =
            facts::switch::mode(&aws_sdk_ssm::Client::new(&aws::for_run(&self.config, doc.run)), &ctx.stage)
                .await?;
        let first_adoption = doc.baseline()?.current.is_none();
        if first_adoption && current.is_none() && mode == Mode::Live {
            // The first version of a secret becomes AWSCURRENT whatever its labels. A placeholder takes that place,
            // so that the new key is current only once it was validated.
            store_placeholder(&clients.store, &secret, &doc.run.placeholder_version(), &user).await?;
            current = secrets::value(&clients.store, &secret, Which::Label(CURRENT)).await?;
        }
        let version = current.as_ref().map(|value| value.version.clone());
        if first_adoption && version.as_ref() == Some(&doc.run.placeholder_version()) {
            let placeholder = CurrentVersion { version: doc.run.placeholder_version(), key: None };
            doc.baseline = doc
                .baseline
                .map(|baseline| keywheel::rotation::Baseline { current: Some(placeholder), ..baseline });
        }

        let now = ctx.clock.now();
        match create::decide(doc.baseline()?, doc.request.reason, &keys, version.as_ref()) {
            Create::Appeared(suspects) => {
                let stored =
                    secrets::value(&clients.store, &secret, Which::Version(&doc.run.version())).await?;
                let stored =
                    stored.and_then(|value| SecretValue::parse(value.text.as_deref(), &user).ok()?.key());
                if let Some(key) = stored.filter(|key| suspects.iter().any(|suspect| suspect.key == *key)) {
                    info!(rotation.id = %doc.run, iam.user = %user, key.id = %key, "Key {key} of {user} was stored by an earlier attempt");
                    return Ok(made(doc, key, now));
                }
                warn!(rotation.id = %doc.run, iam.user = %user, "A key of {user} appeared that this run has not stored");
                doc.suspects = suspects;
                doc.phase = Phase::Clear;
                return Ok(doc);
            }
            Create::Conflict(text) => {
                let why = Why::new(
                    "Conflict",
                    format!("No key was made: {text}."),
                    "Start again; the run looks anew.",
                );
                doc.end_unpromoted(now, why);
                return Ok(doc);
            }
            Create::Yes => {}
        }
        if mode != Mode::Live {
            let why = Why::new(
                "Paused",
                format!("No key was made: the installation is {mode}."),
                "`keywheel mode live` lets it change things.",
            );
            doc.end_unpromoted(now, why);
            return Ok(doc);
        }
        // Without a value there is nothing to keep; the decision above has seen to it that the version is right.
        let value = SecretValue::parse(current.as_ref().and_then(|value| value.text.as_deref()), &user)
            .map_err(|error| StepError::Conflict(error.to_string()))?;

        let (key, pair) = match create_access_key(&clients.iam, &user).await {
            Ok(pair) => pair,
            Err(StepError::Refused(failure)) => {
                let (text, remedy) = if failure.code.starts_with("LimitExceeded") {
                    (
                        format!("No key was made: user {user} got a second key meanwhile."),
                        "Another run or a person was faster; look at the user's keys.",
                    )
                } else {
                    (format!("No key was made: {failure}."), "Mend what the message names, then start again.")
                };
                doc.end_unpromoted(now, Why::new(failure.code, text, remedy));
                return Ok(doc);
            }
            Err(other) => return Err(other),
        };
        info!(rotation.id = %doc.run, iam.user = %user, key.id = %key, "Made key {key} for {user}");
        let text = value.with_pair(&user, &key, &pair);
        drop(pair);
        match self.store(&clients.store, &secret, &doc, for_store(&text), ctx).await {
            Ok(()) => Ok(made(doc, key, ctx.clock.now())),
            Err(error) => {
                // Only this process knows the secret. What cannot be stored is of no use to anybody.
                warn!(rotation.id = %doc.run, iam.user = %user, key.id = %key, "Could not store key {key}: {error}");
                doc.new = Some(NewKey { key, version: None });
                doc.give_up(Why::new(
                    error.code().unwrap_or("NotStored"),
                    format!("The new key could not be stored: {error}."),
                    "Let the role of the CreateKey function write the secret and use its KMS key.",
                ));
                Ok(doc)
            }
        }
    }
}

impl CreateKey {
    async fn store(
        &self,
        store: &aws_sdk_secretsmanager::Client,
        secret: &SecretArn,
        doc: &Rotation,
        text: String,
        ctx: &Context,
    ) -> Result<(), StepError> {
        let mut pauses = STORE_ATTEMPTS.into_iter();
        loop {
            let result = store
                .put_secret_value()
                .secret_id(secret.as_str())
                .client_request_token(doc.run.to_string())
                .secret_string(text.clone())
                // Without this AWSCURRENT would move at once, to a key that nobody has validated.
                .version_stages(PENDING)
                .send()
                .await
                .map_err(|error| StepError::from_sdk("secretsmanager:PutSecretValue", &error));
            match (result, pauses.next()) {
                (Ok(_), _) => return Ok(()),
                (Err(StepError::Throttled(_) | StepError::Ambiguous(_)), Some(pause)) => {
                    ctx.clock.sleep(pause).await;
                }
                (Err(error), _) => return Err(error),
            }
        }
    }
}

fn made(mut doc: Rotation, key: AccessKeyId, now: jiff::Timestamp) -> Rotation {
    doc.new = Some(NewKey { key, version: Some(doc.run.version()) });
    doc.phase = Phase::Validate;
    doc.announce(now, NoticeKind::Created);
    doc
}

async fn create_access_key(
    iam: &aws_sdk_iam::Client,
    user: &UserName,
) -> Result<(AccessKeyId, SecretAccessKey), StepError> {
    let reply = iam
        .create_access_key()
        .user_name(user.as_str())
        .send()
        .await
        .map_err(|error| StepError::from_sdk("iam:CreateAccessKey", &error))?;
    // A reply without a key is one we could not read: it may have happened.
    let unreadable = || {
        StepError::Ambiguous(keywheel::error::Failure {
            call: "iam:CreateAccessKey",
            code: "UnreadableReply".into(),
            message: String::new(),
            request_id: None,
        })
    };
    let key = reply.access_key.ok_or_else(unreadable)?;
    let id = key.access_key_id.parse().map_err(|_| unreadable())?;
    if key.secret_access_key.is_empty() {
        return Err(unreadable());
    }
    Ok((id, SecretAccessKey::new(key.secret_access_key)))
}

/// What a placeholder is labelled, so that it takes no label from anybody.
const PLACEHOLDER: &str = "keywheel-placeholder";

async fn store_placeholder(
    store: &aws_sdk_secretsmanager::Client,
    secret: &SecretArn,
    version: &VersionId,
    user: &UserName,
) -> Result<(), StepError> {
    store
        .put_secret_value()
        .secret_id(secret.as_str())
        .client_request_token(version.as_str())
        .secret_string(SecretValue::placeholder(user))
        // AWSCURRENT falls to the first version by itself. Where somebody else was faster, it must not move, and
        // AWSPENDING must not either: it leads to the key that the other one is making.
        .version_stages(PLACEHOLDER)
        .send()
        .await
        .map(|_| ())
        .map_err(|error| StepError::from_sdk("secretsmanager:PutSecretValue", &error))
}

//! The `ValidateKey` state: calls STS with the new key until it answers as the right user, several times in a row.
//!
//! A new key needs 3 to 15 seconds to be known everywhere, and one success does not prove that it is. What this
//! shows is identity and propagation, not permission: `GetCallerIdentity` succeeds under an explicit deny.

use std::time::Duration;

use aws_types::SdkConfig;
use facts::member::{self, Members};
use facts::secrets::{self, Which};
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Phase, UserFacts};
use keywheel::secret::{SecretAccessKey, SecretValue};
use keywheel::{AccessKeyId, Context, Rotation, Step, StepError, aws};
use tracing::info;

/// How many answers in a row are asked for, and how far apart.
const IN_A_ROW: u32 = 3;
/// The time between two calls.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one run of this step keeps asking; the machine's retries add to it.
const PATIENCE: u32 = 20;

/// The step.
pub struct ValidateKey {
    config: SdkConfig,
    members: Option<Members>,
}

impl ValidateKey {
    /// A step that calls AWS with `config`, and enters other accounts where there are `members`.
    pub fn new(config: SdkConfig, members: Option<Members>) -> Self {
        Self { config, members }
    }
}

impl Step for ValidateKey {
    const NAME: &'static str = "validate-key";
    type Input = Rotation;
    type Output = Rotation;

    /// Changes nothing, so it may run any number of times.
    async fn run(&self, mut doc: Rotation, ctx: &Context) -> Result<Rotation, StepError> {
        let config = aws::for_run(&self.config, doc.run);
        let config = member::of_rotation(self.members.as_ref(), &config, &doc).await?;
        let secret = doc.secret()?;
        let user = doc.baseline()?.user.clone();
        if user.account() != secret.account() {
            let (user, account) = (&user.arn, secret.account());
            return Err(StepError::Conflict(format!("{user} is not of the secret's account, {account}")));
        }
        let new = doc.new_key()?.clone();
        let version = new.version.ok_or_else(|| StepError::BadInput("the new key is not stored".into()))?;
        let store = aws_sdk_secretsmanager::Client::new(&aws::in_region(&config, secret.region()));
        let value = secrets::value(&store, secret, Which::Version(&version))
            .await?
            .ok_or_else(|| StepError::Conflict(format!("version {version} of the secret is gone")))?;
        let value = SecretValue::parse(value.text.as_deref(), &user.name)
            .map_err(|error| StepError::Conflict(error.to_string()))?;
        let (id, pair) = value
            .pair()
            .filter(|(id, _)| *id == new.key)
            .ok_or_else(|| StepError::Conflict(format!("version {version} does not hold key {}", new.key)))?;
        let sts = client(&aws::in_region(&config, secret.region()), &id, &pair);
        answers(&sts, &user, &id, ctx).await?;
        info!(rotation.id = %doc.run, iam.user = %user.name, key.id = %id, "Key {id} of {} answers", user.name);
        doc.phase = Phase::Promote;
        doc.announce(ctx.clock.now(), NoticeKind::Validated);
        Ok(doc)
    }
}

/// An STS client that signs with the given pair.
pub fn client(config: &SdkConfig, id: &AccessKeyId, pair: &SecretAccessKey) -> aws_sdk_sts::Client {
    let credentials =
        aws_sdk_sts::config::Credentials::new(id.as_str(), pair.for_signing(), None, None, "KeyUnderTest");
    let config = aws_sdk_sts::config::Builder::from(config).credentials_provider(credentials).build();
    aws_sdk_sts::Client::from_conf(config)
}

/// Asks until the key has answered as `user`, in that user's account, several times in a row.
pub async fn answers(
    sts: &aws_sdk_sts::Client,
    user: &UserFacts,
    id: &AccessKeyId,
    ctx: &Context,
) -> Result<(), StepError> {
    let mut row = 0;
    for asked in 0..PATIENCE {
        if asked > 0 {
            ctx.clock.sleep(PAUSE).await;
        }
        match sts.get_caller_identity().send().await {
            Ok(reply)
                if reply.arn() == Some(&user.arn)
                    && reply.user_id() == Some(&user.id)
                    && reply.account() == Some(user.account()) =>
            {
                row += 1;
            }
            Ok(reply) => {
                // A user of the same name made anew is another user; so is one on another path.
                let (arn, id) = (reply.arn().unwrap_or_default(), reply.user_id().unwrap_or_default());
                let account = reply.account().unwrap_or_default();
                return Err(StepError::Conflict(format!(
                    "the key answers as {arn} ({id}, account {account:?}), not as {} ({})",
                    user.arn, user.id
                )));
            }
            Err(error) => {
                row = 0;
                match StepError::from_sdk("sts:GetCallerIdentity", &error) {
                    // What a key answers before it is known everywhere.
                    error
                        if error.is_refused(&[
                            "InvalidClientTokenId",
                            "InvalidAccessKeyId",
                            "SignatureDoesNotMatch",
                        ]) => {}
                    error @ StepError::Refused(_) => return Err(error),
                    _ => {}
                }
            }
        }
        if row == IN_A_ROW {
            return Ok(());
        }
    }
    Err(StepError::NotYetVisible(format!("key {id} has not answered {IN_A_ROW} times in a row")))
}

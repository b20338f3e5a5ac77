//! Other accounts, each entered through a role of its own that lets the installation's functions in.

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use keywheel::{Incident, Rotation, RunId, SecretArn, StepError};

/// How IAM says that the account does not let us in, or that it has no such role: to the caller it is the same.
const SHUT: [&str; 2] = ["AccessDenied", "AccessDeniedException"];

/// What an installation asks to be let into other accounts with.
#[derive(Clone, PartialEq, Eq)]
pub struct Members {
    /// The name of the role in each of them.
    pub role: String,
    /// The external id that the role asks for.
    pub external_id: String,
}

impl std::fmt::Debug for Members {
    // The external id is no secret, and is nobody's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("role", &self.role).finish_non_exhaustive()
    }
}

/// The ARN of a role of that name in `account`.
pub fn role_in(role: &str, partition: &str, account: &str) -> String {
    format!("arn:{partition}:iam::{account}:role/{role}")
}

impl Members {
    /// The ARN of the role in `account`.
    pub fn role_in(&self, partition: &str, account: &str) -> String {
        role_in(&self.role, partition, account)
    }

    /// The role of that name; `None` without an external id: then no other account is entered.
    pub fn new(role: String, external_id: Option<String>) -> Option<Self> {
        external_id.map(|external_id| Self { role, external_id })
    }

    /// The configuration whose calls are made in `account`, for 15 minutes, which is longer than any function runs.
    /// The session bears the run's id, and so does every record of CloudTrail there.
    pub async fn enter(
        &self,
        config: &SdkConfig,
        partition: &str,
        account: &str,
        run: RunId,
    ) -> Result<SdkConfig, StepError> {
        let reply = aws_sdk_sts::Client::new(config)
            .assume_role()
            .role_arn(self.role_in(partition, account))
            .role_session_name(run.to_string())
            .external_id(&self.external_id)
            .duration_seconds(900)
            .send()
            .await
            .map_err(|error| StepError::from_sdk("sts:AssumeRole", &error))?;
        let Some(session) = reply.credentials else {
            return Err(StepError::Conflict(format!(
                "sts:AssumeRole answered without credentials for {account}"
            )));
        };
        Ok(with_session(config, session))
    }
}

/// The same configuration, signing with the session that STS has given.
pub fn with_session(config: &SdkConfig, session: aws_sdk_sts::types::Credentials) -> SdkConfig {
    let credentials = Credentials::new(
        session.access_key_id,
        session.secret_access_key,
        Some(session.session_token),
        None,
        "AssumeRole",
    );
    let mut entered = config.clone().into_builder();
    entered.set_credentials_provider(Some(SharedCredentialsProvider::new(credentials)));
    entered.build()
}

/// The configuration for calls in the account that the incident's credential belongs to.
pub async fn config_for(
    members: Option<&Members>,
    config: &SdkConfig,
    doc: &Incident,
) -> Result<SdkConfig, StepError> {
    match (&doc.account, members) {
        (None, _) => Ok(config.clone()),
        (Some(account), Some(members)) => members.enter(config, doc.partition(), account, doc.id).await,
        (Some(account), None) => {
            Err(StepError::Conflict(format!("this installation does not enter account {account} any more")))
        }
    }
}

/// The configuration for calls about a secret and its user: those of the installation's own account are made without
/// another call, those of any other with a session of that account's role.
///
/// The region stays the machine's; whoever calls Secrets Manager takes that of the secret's ARN.
pub async fn of_secret(
    members: Option<&Members>,
    config: &SdkConfig,
    secret: &SecretArn,
    (own_account, run): (&str, RunId),
) -> Result<SdkConfig, StepError> {
    if secret.account() == own_account {
        return Ok(config.clone());
    }
    let Some(members) = members else {
        let account = secret.account();
        return Err(StepError::Conflict(format!(
            "the secret is of account {account}, and this installation enters no other account"
        )));
    };
    // On the heap: every step makes its calls after this one, and the compiler would nest one more in each.
    Box::pin(members.enter(config, secret.partition(), secret.account(), run)).await
}

/// The same for the secret of a rotation, once it is known.
pub async fn of_rotation(
    members: Option<&Members>,
    config: &SdkConfig,
    doc: &Rotation,
) -> Result<SdkConfig, StepError> {
    of_secret(members, config, doc.secret()?, (doc.own_account(), doc.run)).await
}

/// Whether the account does not let us in, which no further try changes.
pub fn is_shut(error: &StepError) -> bool {
    error.is_refused(&SHUT)
}

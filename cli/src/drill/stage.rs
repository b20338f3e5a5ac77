//! What a drill is played with: made for it, and removed after it whatever happened.

use std::time::{Duration, Instant};

use aws_sdk_iam::config::Credentials;
use aws_sdk_iam::types::Tag;
use keywheel::key::{self, KeyFacts};
use keywheel::{AccessKeyId, StepError, UserName};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::error::{Result, Trouble};
use crate::incident::read;
use crate::place::Place;

/// How long a new key may take to work everywhere.
const SETTLES: Duration = Duration::from_mins(1);
/// How often is tried to remove what was made: a run that is just being stopped may still hold it.
const ROUNDS: u32 = 5;

/// The names of what is made.
pub(super) struct Stage {
    /// The user's name, which is the secret's name too.
    pub(super) user: String,
    /// Whether anything may have been made.
    begun: bool,
    keys: Vec<AccessKeyId>,
}

/// What leaks.
pub(super) struct Scene {
    pub(super) key: AccessKeyId,
    secret: String,
    /// Secrets Manager as a session sees it that the key has minted. IAM itself refuses such a session without MFA.
    session: aws_sdk_secretsmanager::Client,
}

impl Stage {
    pub(super) fn new() -> Self {
        let id = keywheel::RunId::random().to_string();
        Self { user: format!("keywheel-drill-{}", &id[..8]), begun: false, keys: Vec::new() }
    }

    fn name(&self) -> std::result::Result<UserName, StepError> {
        self.user.parse().map_err(|error| StepError::BadInput(format!("{error}")))
    }

    /// Makes a managed user with a key that works, and a session minted from it.
    pub(super) async fn build(&mut self, place: &Place) -> Result<Scene> {
        let (iam, store) = (place.iam(), place.secrets(&place.region));
        let failed = |call: &'static str| {
            move |error: StepError| {
                Trouble::new(
                    format!("The drill cannot begin ({call}): {}", Trouble::from(error).text),
                    "It needs the rights to make and remove a user, its keys and policies, and a secret.",
                )
            }
        };
        self.begun = true;
        let made = iam.create_user().user_name(&self.user).path("/keywheel-drill/").send().await;
        made.map_err(|error| failed("iam:CreateUser")(StepError::from_sdk("iam:CreateUser", &error)))?;
        let made = iam.create_access_key().user_name(&self.user).send().await;
        let made = made.map_err(|error| {
            failed("iam:CreateAccessKey")(StepError::from_sdk("iam:CreateAccessKey", &error))
        })?;
        let pair =
            made.access_key().ok_or_else(|| Trouble::new("iam:CreateAccessKey returned no key.", ""))?;
        let key: AccessKeyId =
            pair.access_key_id().parse().map_err(|error| Trouble::new(format!("{error}"), ""))?;
        self.keys.push(key.clone());
        let secret = Zeroizing::new(pair.secret_access_key().to_owned());

        let value = Zeroizing::new(
            json!({ "UserName": self.user, "AccessKeyId": key, "SecretAccessKey": *secret }).to_string(),
        );
        let tag =
            aws_sdk_secretsmanager::types::Tag::builder().key("keywheel:user").value(&self.user).build();
        let stored =
            store.create_secret().name(&self.user).secret_string(value.as_str()).tags(tag).send().await;
        let stored = stored.map_err(|error| {
            failed("secretsmanager:CreateSecret")(StepError::from_sdk("secretsmanager:CreateSecret", &error))
        })?;
        let arn = stored.arn().unwrap_or_default().to_owned();
        // A call that it may make, so that a refusal means the deny and nothing else.
        let allow = json!({
            "Version": "2012-10-17",
            "Statement": { "Effect": "Allow", "Action": "secretsmanager:DescribeSecret", "Resource": arn },
        });
        let put = iam.put_user_policy().user_name(&self.user).policy_name("drill");
        let put = put.policy_document(allow.to_string()).send().await;
        put.map_err(|error| failed("iam:PutUserPolicy")(StepError::from_sdk("iam:PutUserPolicy", &error)))?;
        let tag = Tag::builder().key("keywheel:secret").value(&arn).build();
        let tag = tag.map_err(|error| Trouble::new(error.to_string(), ""))?;
        let tagged = iam.tag_user().user_name(&self.user).tags(tag).send().await;
        tagged.map_err(|error| failed("iam:TagUser")(StepError::from_sdk("iam:TagUser", &error)))?;

        let session = session(place, &key, &secret, &arn).await?;
        Ok(Scene { key, secret: arn, session })
    }

    /// Removes all that was made. What is left is told with its name. A call that was broken off may take effect after
    /// a look, so it is looked twice whatever the first one found.
    pub(super) async fn remove(&mut self, place: &Place) -> Vec<String> {
        if !self.begun {
            return Vec::new();
        }
        let (mut left, mut clean) = (Vec::new(), 0);
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            left = self.sweep(place).await;
            clean = if left.is_empty() { clean + 1 } else { 0 };
            if clean == 2 {
                break;
            }
        }
        left
    }

    async fn sweep(&mut self, place: &Place) -> Vec<String> {
        let mut left = Vec::new();
        // First what would make or write more.
        let executions = stop(place, &self.keys).await;
        left.extend(executions.err().map(|trouble| format!("executions about {}: {trouble}", self.user)));
        let store = place.secrets(&place.region);
        let gone =
            store.delete_secret().secret_id(&self.user).force_delete_without_recovery(true).send().await;
        if let Err(error) = gone {
            let error = StepError::from_sdk("secretsmanager:DeleteSecret", &error);
            if !error.is_refused(&["ResourceNotFoundException"]) {
                left.push(format!("secret {}: {error}", self.user));
            }
        }
        if let Err(error) = self.remove_user(place).await {
            left.push(format!("user {}: {error}", self.user));
        }
        for key in &self.keys {
            let name = keywheel::incident::Record::parameter(&place.stage, key);
            if let Err(error) = place.ssm().delete_parameter().name(&name).send().await {
                let error = StepError::from_sdk("ssm:DeleteParameter", &error);
                if !error.is_refused(&["ParameterNotFound"]) {
                    left.push(format!("parameter {name}: {error}"));
                }
            }
        }
        left
    }

    /// Whatever is gone already is no obstacle; the user itself counts as gone when IAM says so of the user.
    async fn remove_user(&mut self, place: &Place) -> std::result::Result<(), StepError> {
        let (iam, user) = (place.iam(), self.name()?);
        let keys = match facts::iam::keys(&iam, &user).await {
            Ok(keys) => keys,
            Err(error) if is_gone(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        for KeyFacts { id, .. } in keys {
            let gone =
                iam.delete_access_key().user_name(user.as_str()).access_key_id(id.as_str()).send().await;
            gone_or(gone.map_err(|error| StepError::from_sdk("iam:DeleteAccessKey", &error)))?;
        }
        let own = iam.list_user_policies().user_name(user.as_str()).send().await;
        let own = own.map_err(|error| StepError::from_sdk("iam:ListUserPolicies", &error));
        let names = match own {
            Ok(own) => own.policy_names().to_vec(),
            Err(error) if is_gone(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        for name in names {
            let gone = iam.delete_user_policy().user_name(user.as_str()).policy_name(name).send().await;
            gone_or(gone.map_err(|error| StepError::from_sdk("iam:DeleteUserPolicy", &error)))?;
        }
        let gone = iam.delete_user().user_name(user.as_str()).send().await;
        gone_or(gone.map_err(|error| StepError::from_sdk("iam:DeleteUser", &error)))
    }
}

fn is_gone(error: &StepError) -> bool {
    error.is_refused(&["NoSuchEntity", "NoSuchEntityException"])
}

fn gone_or<T>(done: std::result::Result<T, StepError>) -> std::result::Result<(), StepError> {
    match done {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Stops the incidents about these keys, and the rotations that they started.
async fn stop(place: &Place, keys: &[AccessKeyId]) -> Result<()> {
    for seen in read::running(place).await? {
        if !keys.iter().any(|key| seen.is_about(key)) {
            continue;
        }
        let run = seen.document.as_ref().and_then(|doc| doc.replacement.as_ref()?.run);
        let rotation = run.map(|run| place.execution(&run.to_string()));
        for arn in rotation.into_iter().chain([read::execution(place, &seen.id)]) {
            let stopped =
                place.sfn().stop_execution().execution_arn(&arn).cause("The drill is over.").send().await;
            if let Err(error) = stopped {
                let error = StepError::from_sdk("states:StopExecution", &error);
                let gone = ["ExecutionDoesNotExist", "ValidationException", "ExecutionNotRunning"];
                if !error.is_refused(&gone) {
                    return Err(error.into());
                }
            }
        }
    }
    Ok(())
}

/// How many answers in a row show that a new policy has arrived everywhere.
const STEADY: u32 = 3;

/// Secrets Manager as a session sees it, once it may do what its user may.
async fn session(
    place: &Place,
    key: &AccessKeyId,
    secret: &Zeroizing<String>,
    arn: &str,
) -> Result<aws_sdk_secretsmanager::Client> {
    let pair = Credentials::new(key.as_str(), secret.as_str(), None, None, "drill");
    let sts = aws_sdk_sts::Client::new(&place.acting_as(pair));
    let end = Instant::now() + SETTLES;
    let (mut session, mut answers) = (None, 0);
    loop {
        let asked = match &session {
            None => match sts.get_session_token().send().await {
                Ok(minted) => {
                    let minted = minted
                        .credentials()
                        .ok_or_else(|| Trouble::new("sts:GetSessionToken returned nothing.", ""))?;
                    let token = Some(minted.session_token().to_owned());
                    let (id, secret) = (minted.access_key_id(), minted.secret_access_key());
                    let credentials = Credentials::new(id, secret, token, None, "drill");
                    session = Some(aws_sdk_secretsmanager::Client::new(&place.acting_as(credentials)));
                    Ok(())
                }
                Err(error) => Err(StepError::from_sdk("sts:GetSessionToken", &error)),
            },
            Some(session) => {
                let told = session.describe_secret().secret_id(arn).send().await;
                told.map(|_| ()).map_err(|error| StepError::from_sdk("secretsmanager:DescribeSecret", &error))
            }
        };
        answers = if asked.is_ok() { answers + 1 } else { 0 };
        if answers > STEADY
            && let Some(session) = session
        {
            return Ok(session);
        }
        if let Err(error) = asked
            && Instant::now() > end
        {
            return Err(Trouble::new(
                format!("The new key does not work: {}", Trouble::from(error).text),
                "",
            ));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

impl Scene {
    /// Whether IAM shows the key as Inactive. An answer that fails is none.
    pub(super) async fn is_inactive(&self, place: &Place, user: &str) -> bool {
        let Ok(user) = user.parse::<UserName>() else { return false };
        let keys = facts::iam::keys(&place.iam(), &user).await.unwrap_or_default();
        key::find(&keys, &self.key).is_some_and(|key| !key.is_active())
    }

    /// Whether the session is refused what it was allowed: not an answer that fails for another reason.
    pub(super) async fn is_denied(&self) -> bool {
        match self.session.describe_secret().secret_id(&self.secret).send().await {
            Ok(_) => false,
            Err(error) => {
                let error = StepError::from_sdk("secretsmanager:DescribeSecret", &error);
                error.is_refused(&["AccessDenied", "AccessDeniedException"])
            }
        }
    }

    /// Whether the secret holds another key, and that one works.
    pub(super) async fn is_replaced(&self, place: &Place) -> bool {
        let read = place.secrets(&place.region).get_secret_value().secret_id(&self.secret).send().await;
        let Ok(read) = read else { return false };
        let Some(text) = read.secret_string() else { return false };
        let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
        let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (id, secret) = (field("AccessKeyId"), Zeroizing::new(field("SecretAccessKey")));
        if id.is_empty() || id == self.key.as_str() {
            return false;
        }
        let pair = Credentials::new(id, secret.as_str(), None, None, "drill");
        aws_sdk_sts::Client::new(&place.acting_as(pair)).get_caller_identity().send().await.is_ok()
    }
}

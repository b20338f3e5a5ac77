//! `keywheel restore`: makes a key Active again that was made Inactive because nobody used it.
//!
//! The run that would delete it is stopped first: whoever dies between the two leaves a key that is Inactive and that
//! nothing deletes. A key that leaked, and one that a secret holds, have ways back of their own.

use aws_sdk_iam::types::StatusType;
use facts::{executions, iam, secrets, switch};
use keywheel::key::{self, KeyFacts};
use keywheel::unused::Removed;
use keywheel::{AccessKeyId, SecretArn, StepError, UserName};
use serde_json::json;

use crate::args::Restore;
use crate::error::{Exit, Result, Trouble};
use crate::names;
use crate::output::Out;
use crate::place::{Place, execution_of};

/// The error that a stopped execution carries.
const STOPPED: &str = "Keywheel.Restored";

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &Restore) -> Result<Exit> {
    let key = names::key(&args.key)?;
    out.note(&place.line());
    refuse_leaked(place, &key).await?;
    let client = place.iam();
    let Some(user) = iam::owner(&client, &key).await? else {
        return Err(Trouble::new(
            format!("Account {} has no key {key}.", place.account),
            "Nothing was changed. A key that was deleted cannot be brought back.",
        ));
    };
    refuse_held(place, out, &user, &key).await?;
    let active = key::find(&iam::keys(&client, &user).await?, &key).is_some_and(KeyFacts::is_active);
    if active {
        out.line(&format!("Key {key} of {user} is Active."));
    } else {
        out.confirm(&format!("Make key {key} of {user} Active again?"), args.yes)?;
    }
    let stopped = match stop(place, &key).await {
        Ok(stopped) => stopped,
        Err(trouble) => {
            // A run that finds the key Active ends by itself, and deletes nothing.
            out.note(&format!("The run that removes it could not be stopped: {trouble}"));
            Vec::new()
        }
    };
    for run in &stopped {
        out.line(&format!("Stopped run {run}, which would have deleted it."));
    }
    if !active {
        let call = client.update_access_key().user_name(user.as_str()).access_key_id(key.as_str());
        let made = call.status(StatusType::Active).send().await;
        made.map_err(|error| StepError::from_sdk("iam:UpdateAccessKey", &error))?;
        out.line(&format!("Key {key} of {user} is Active again, and counts as used from today."));
    }
    out.json(&json!({ "key": key, "user": user, "restored": !active, "stopped": stopped }));
    Ok(Exit::Done)
}

async fn refuse_leaked(place: &Place, key: &AccessKeyId) -> Result<()> {
    if switch::leaked(&place.ssm(), &place.stage, key).await?.is_none() {
        return Ok(());
    }
    Err(Trouble::new(
        format!("Key {key} leaked: it stays Inactive, as evidence."),
        format!("If it has not, `keywheel incident {key} --false-alarm --reason …` makes it Active again."),
    ))
}

/// A key that a secret holds was never made Inactive for want of use.
async fn refuse_held(place: &Place, out: &Out, user: &UserName, key: &AccessKeyId) -> Result<()> {
    let found = iam::user(&place.iam(), user).await?;
    let Some(secret) = found.and_then(|user| user.secret?.parse::<SecretArn>().ok()) else { return Ok(()) };
    match secrets::keys_held(&place.secrets(secret.region()), &secret, user).await {
        Ok(held) if held.contains(key) => Err(Trouble::new(
            format!("Secret {secret} holds key {key}: it belongs to a rotation."),
            format!("`keywheel rollback --user {user}` brings a superseded key back."),
        )),
        Ok(_) => Ok(()),
        Err(error) => {
            out.note(&format!("Whether the secret of {user} holds the key could not be read: {error}."));
            Ok(())
        }
    }
}

/// Stops the runs that remove the key; their ids.
async fn stop(place: &Place, key: &AccessKeyId) -> Result<Vec<String>> {
    let sfn = place.sfn();
    let machine = place.removals();
    let mut stopped = Vec::new();
    for (arn, _) in executions::beside(&sfn, &execution_of(&machine, "restore")).await? {
        let reply = sfn.describe_execution().execution_arn(&arn).send().await;
        let reply = reply.map_err(|error| StepError::from_sdk("states:DescribeExecution", &error))?;
        if !is_about(reply.input().unwrap_or_default(), key) {
            continue;
        }
        let call = sfn.stop_execution().execution_arn(&arn).error(STOPPED);
        let ended = call.cause(format!("{} brought the key back.", place.caller)).send().await;
        ended.map_err(|error| StepError::from_sdk("states:StopExecution", &error))?;
        stopped.push(arn.rsplit_once(':').map_or(arn.as_str(), |(_, name)| name).to_owned());
    }
    Ok(stopped)
}

/// Whether an execution with that input removes the key.
fn is_about(input: &str, key: &AccessKeyId) -> bool {
    serde_json::from_str::<Removed>(input).is_ok_and(|removed| removed.key == *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_about_the_key_that_its_input_names() {
        let input = r#"{"account": "111122223333", "user": "svc-old", "user_id": "AIDAOLD", "key": "AKIAIOSFODNN7EXAMPLE",
            "unused": {"disable_after": "120d", "delete_after": "30d"}, "regions": ["eu-west-1"], "rule": "defaults",
            "campaign": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}"#;
        assert!(is_about(input, &"AKIAIOSFODNN7EXAMPLE".parse().unwrap()));
        assert!(!is_about(input, &"AKIAI44QH8DHBEXAMPLE".parse().unwrap()));
        assert!(!is_about("{}", &"AKIAIOSFODNN7EXAMPLE".parse().unwrap()));
    }
}

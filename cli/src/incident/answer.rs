//! Whether a key that is Active again works: with its pair, where the store of its user has it.

use facts::secrets::{self, CURRENT, PREVIOUS, Which};
use keywheel::clock::Clock;
use keywheel::secret::SecretValue;
use keywheel::{AccessKeyId, Context, SecretArn, StepError, UserName, aws};

use crate::place::Place;

/// What was found of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// STS knows it, several times in a row.
    Works,
    /// It does not answer; why.
    Silent(String),
    /// It could not be tried; why.
    Untried(String),
}

impl Answer {
    /// A sentence about the key.
    pub(super) fn sentence(&self, key: &AccessKeyId, user: &UserName) -> String {
        match self {
            Self::Works => format!("Key {key} of {user} is Active, and answers as {user}."),
            Self::Silent(why) => format!("Key {key} of {user} is Active, and DOES NOT ANSWER: {why}."),
            Self::Untried(why) => {
                format!("Key {key} of {user} is Active; whether it works was not tried: {why}.")
            }
        }
    }

    /// The word for programs.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Silent(_) => "silent",
            Self::Untried(_) => "untried",
        }
    }
}

/// Tries the key.
pub(super) async fn of(place: &Place, user: &UserName, key: &AccessKeyId) -> Answer {
    match tried(place, user, key).await {
        Ok(answer) => answer,
        Err(error) => Answer::Untried(error.to_string()),
    }
}

async fn tried(place: &Place, user: &UserName, key: &AccessKeyId) -> Result<Answer, StepError> {
    let untried = |why: &str| Ok(Answer::Untried(why.to_owned()));
    let Some(found) = facts::iam::user(&place.iam(), user).await? else {
        return untried("the user is gone");
    };
    let Some(secret) = found.secret.as_deref().and_then(|arn| arn.parse::<SecretArn>().ok()) else {
        return untried("nobody but its holder has its secret");
    };
    let store = place.secrets(secret.region());
    for label in [CURRENT, PREVIOUS] {
        let Some(value) = secrets::value(&store, &secret, Which::Label(label)).await? else { continue };
        let Ok(value) = SecretValue::parse(value.text.as_deref(), user) else { continue };
        let Some((id, pair)) = value.pair().filter(|(id, _)| id == key) else { continue };
        let sts = validate_key::client(&aws::in_region(place.config(), secret.region()), &id, &pair);
        let ctx = Context { clock: Clock::System, stage: place.stage.clone() };
        return Ok(match validate_key::answers(&sts, &found.facts, &id, &ctx).await {
            Ok(()) => Answer::Works,
            Err(error) => Answer::Silent(error.to_string()),
        });
    }
    untried("no version of its user's secret holds it")
}

#[cfg(test)]
mod tests {
    use super::super::samples::KEY;
    use super::*;

    #[test]
    fn what_was_not_tried_is_not_called_good() {
        let (key, user) = (KEY.parse().unwrap(), "svc-mail".parse().unwrap());
        let said = |answer: Answer| answer.sentence(&key, &user);
        assert!(said(Answer::Works).ends_with("answers as svc-mail."));
        assert!(said(Answer::Silent("refused".into())).contains("DOES NOT ANSWER: refused"));
        assert!(said(Answer::Untried("no secret".into())).contains("was not tried: no secret"));
    }
}

//! Whose the credential is, asked of IAM in the account that it belongs to.
//!
//! Its own account is asked first, unless the event speaks of another one: then STS is asked whose it is. What the
//! event says is believed only where nobody else answers, and IAM refuses a pair that does not match.

use std::time::Duration;

use aws_types::SdkConfig;
use facts::member;
use keywheel::decide::contain::Owner;
use keywheel::key::KeyFacts;
use keywheel::{Incident, StepError, UserName};
use tracing::warn;

use super::Tools;

/// What IAM tells of the credential's owner, and the error where it tells nothing.
pub(crate) struct Asked {
    pub(crate) owner: Owner,
    pub(crate) error: Option<StepError>,
    /// The user's keys, where they had to be listed to know.
    pub(crate) keys: Option<Vec<KeyFacts>>,
    /// IAM, in the account that was asked.
    pub(crate) iam: aws_sdk_iam::Client,
    /// The account that it belongs to, where that one could not be asked.
    pub(crate) not_entered: Option<String>,
    /// The account that was entered to ask.
    pub(crate) entered: Option<String>,
}

/// How long before an account that refuses to let us in is asked again: its role may have been made just now.
const KNOCK: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(6)];

/// Which account STS says that a credential belongs to.
enum Account {
    Is(String),
    /// STS knows no such credential.
    None,
    /// STS did not tell.
    Unread(StepError),
}

impl Account {
    fn known(&self) -> Option<&str> {
        if let Self::Is(account) = self { Some(account) } else { None }
    }
}

impl Tools<'_> {
    /// The owner as IAM tells it; of an event without a key, whether the user that it names exists.
    pub(crate) async fn owner(&self, doc: &Incident) -> Asked {
        let elsewhere = |account: &&str| *account != doc.own_account();
        let said = doc.target.account.as_deref().filter(elsewhere);
        let mut told = doc.account.clone().map(Account::Is);
        // Without a long-lived key a user of the same name would be taken for the one that is meant.
        if told.is_some() || said.is_some() && (self.members.is_some() || !doc.has_key()) {
            if told.is_none() {
                told = Some(self.account_of(doc).await);
            }
            let known = told.as_ref().and_then(Account::known);
            if let Some(account) = known.or(said.filter(|_| !doc.has_key())).filter(elsewhere) {
                return self.ask_in(doc, account).await;
            }
        }
        let asked = self.ask(&self.config, doc).await;
        if matches!(asked.owner, Owner::Is(_)) {
            return asked;
        }
        let told = match told {
            Some(told) => told,
            None => self.account_of(doc).await,
        };
        if let Some(account) = told.known().filter(elsewhere) {
            return self.ask_in(doc, account).await;
        }
        let Account::Unread(error) = told else { return asked };
        if self.members.is_none() || !matches!(asked.owner, Owner::None) {
            return asked;
        }
        // It is not here, and nobody tells where it is: the event's word is worth a question.
        if let Some(account) = said {
            let asked = self.ask_in(doc, account).await;
            if matches!(asked.owner, Owner::Is(_)) {
                return asked;
            }
        }
        let owner = Owner::Unreached(format!("which account it belongs to is not known: {error}"));
        Asked { owner, error: Some(error), ..asked }
    }

    /// Asks in another account, as far as it lets us in.
    async fn ask_in(&self, doc: &Incident, account: &str) -> Asked {
        let not_entered = |owner, error| Asked {
            owner,
            error,
            keys: None,
            iam: self.iam.clone(),
            not_entered: Some(account.to_owned()),
            entered: None,
        };
        let Some(members) = self.members else { return not_entered(Owner::None, None) };
        let mut pauses = KNOCK.into_iter();
        loop {
            let error = match members.enter(&self.config, doc.partition(), account, doc.id).await {
                Ok(config) => {
                    return Asked { entered: Some(account.to_owned()), ..self.ask(&config, doc).await };
                }
                Err(error) => error,
            };
            // One that was entered for this key is tried until it lets us in again: only what never did is another's.
            if !member::is_shut(&error) || doc.account.is_some() {
                return not_entered(Owner::Unreached(error.to_string()), Some(error));
            }
            let Some(pause) = pauses.next() else {
                warn!(rotation.id = %doc.id, "Account {account} does not let us in: {error}");
                return not_entered(Owner::None, Some(error));
            };
            self.ctx.clock.sleep(pause).await;
        }
    }

    async fn ask(&self, config: &SdkConfig, doc: &Incident) -> Asked {
        let iam = aws_sdk_iam::Client::new(config);
        let found = match (doc.target.key_id.as_ref().filter(|_| doc.has_key()), &doc.target.user) {
            (Some(key), _) => facts::iam::owner(&iam, key).await.map(|user| user.map(|user| (user, None))),
            (None, Some(user)) => {
                keys_of(&iam, user).await.map(|keys| keys.map(|keys| (user.clone(), Some(keys))))
            }
            (None, None) => Ok(None),
        };
        let (owner, keys, error) = match found {
            Ok(Some((user, keys))) => (Owner::Is(user), keys, None),
            Ok(None) => (Owner::None, None, None),
            Err(error) => (Owner::Unread(error.to_string()), None, Some(error)),
        };
        Asked { owner, error, keys, iam, not_entered: None, entered: None }
    }

    /// The account of the credential, which STS tells of any.
    async fn account_of(&self, doc: &Incident) -> Account {
        let Some(credential) = &doc.target.key_id else { return Account::None };
        match self.sts.get_access_key_info().access_key_id(credential.as_str()).send().await {
            Ok(reply) => reply.account.map_or(Account::None, Account::Is),
            Err(error) => match StepError::from_sdk("sts:GetAccessKeyInfo", &error) {
                error if error.is_refused(&["ValidationError"]) => Account::None,
                error => {
                    warn!(rotation.id = %doc.id, "{error}");
                    Account::Unread(error)
                }
            },
        }
    }
}

/// The keys of a user; `None` where there is no such user, or it has no key to be contained.
async fn keys_of(iam: &aws_sdk_iam::Client, user: &UserName) -> Result<Option<Vec<KeyFacts>>, StepError> {
    let keys = facts::iam::keys(iam, user).await?;
    Ok(Some(keys).filter(|keys| !keys.is_empty()))
}

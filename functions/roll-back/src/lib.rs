//! The `RollBack` state: undoes what is not promoted, clears orphans, or turns a promotion back.
//!
//! Three tasks under one name, told apart by the document's phase. Each is a file of its own; none of them
//! deletes a key that consumers hold.

mod backwards;
mod orphans;
mod undo;

use aws_sdk_iam::types::StatusType;
use aws_types::SdkConfig;
use facts::member::{self, Members};
use keywheel::key;
use keywheel::rotation::{Phase, Why};
use keywheel::switch::Mode;
use keywheel::{AccessKeyId, Context, Rotation, Step, StepError, UserName, aws};

/// The step.
pub struct RollBack {
    config: SdkConfig,
    members: Option<Members>,
    /// The role under which keys are made: what CloudTrail's record of an orphan must name.
    create_role: String,
}

/// What the three tasks work with.
pub(crate) struct Tools<'a> {
    /// For calls about the installation itself.
    config: SdkConfig,
    /// For calls in the secret's account.
    there: SdkConfig,
    iam: aws_sdk_iam::Client,
    store: aws_sdk_secretsmanager::Client,
    sfn: aws_sdk_sfn::Client,
    /// The role under which keys are made in that account.
    create_role: String,
    ctx: &'a Context,
}

impl RollBack {
    /// A step that calls AWS with `config`, enters other accounts where there are `members`, and takes keys made under
    /// `create_role` for ours, elsewhere those made under the role of the account.
    pub fn new(config: SdkConfig, members: Option<Members>, create_role: String) -> Self {
        Self { config, members, create_role }
    }

    /// The role under which keys are made in the secret's account.
    fn create_role(&self, doc: &Rotation) -> Result<String, StepError> {
        let secret = doc.secret()?;
        let elsewhere = self.members.as_ref().filter(|_| secret.account() != doc.own_account());
        Ok(elsewhere.map_or_else(
            || self.create_role.clone(),
            |members| members.role_in(secret.partition(), secret.account()),
        ))
    }
}

impl Step for RollBack {
    const NAME: &'static str = "roll-back";
    type Input = Rotation;
    type Output = Rotation;

    async fn run(&self, doc: Rotation, ctx: &Context) -> Result<Rotation, StepError> {
        let config = aws::for_run(&self.config, doc.run);
        let there = member::of_rotation(self.members.as_ref(), &config, &doc).await?;
        let tools = Tools {
            iam: aws_sdk_iam::Client::new(&there),
            store: aws_sdk_secretsmanager::Client::new(&aws::in_region(&there, doc.secret()?.region())),
            sfn: aws_sdk_sfn::Client::new(&config),
            create_role: self.create_role(&doc)?,
            config,
            there,
            ctx,
        };
        // Clearing an orphan and turning back begin something, so they obey the switch. An undo goes on whatever it
        // says: what is half done is worth less than what is finished, to the person who paused as well.
        let begins = match doc.phase {
            Phase::Clear => !doc.undoing,
            Phase::Backwards => true,
            _ => false,
        };
        let mode = if begins {
            facts::switch::mode(&aws_sdk_ssm::Client::new(&tools.config), &ctx.stage).await?
        } else {
            Mode::Live
        };
        if mode != Mode::Live && doc.phase == Phase::Clear && !tools.has_begun(&doc).await? {
            let mut doc = doc;
            let names: Vec<&str> = doc.suspects.iter().map(|suspect| suspect.key.as_str()).collect();
            let what =
                format!("Whose key {} is had not been found out, and it was left alone", names.join(", "));
            doc.suspects.clear();
            doc.end_unpromoted(ctx.clock.now(), paused(&what, mode));
            return Ok(doc);
        }
        // Boxed: the SDK's futures are deep, and the compiler counts their depth.
        match doc.phase {
            Phase::Clear => Box::pin(orphans::clear(&tools, doc)).await,
            Phase::Backwards => Box::pin(backwards::turn(&tools, doc, mode)).await,
            _ => Box::pin(undo::undo(&tools, doc)).await,
        }
    }
}

/// Why a run ends that the switch does not let begin.
pub(crate) fn paused(what: &str, mode: Mode) -> Why {
    Why::new(
        "Paused",
        format!("{what}: the installation is {mode}."),
        "`keywheel mode live` lets it change things.",
    )
}

impl Tools<'_> {
    /// Whether an attempt that died has begun to clear a key: then it is gone, or Inactive as it was not before, and
    /// what is half done is finished.
    async fn has_begun(&self, doc: &Rotation) -> Result<bool, StepError> {
        let baseline = doc.baseline()?;
        let keys = facts::iam::keys(&self.iam, &baseline.user.name).await?;
        let was_off = |key| key::find(&baseline.keys, key).is_some_and(|key| !key.is_active());
        Ok(doc.suspects.iter().any(|suspect| {
            let now = key::find(&keys, &suspect.key);
            now.is_none_or(|now| !now.is_active()) && !was_off(&suspect.key)
        }))
    }

    /// Makes a key Active or Inactive; a key that is gone is neither, and no error.
    async fn set(&self, user: &UserName, key: &AccessKeyId, status: StatusType) -> Result<(), StepError> {
        let reply = self
            .iam
            .update_access_key()
            .user_name(user.as_str())
            .access_key_id(key.as_str())
            .status(status)
            .send()
            .await;
        tolerate_gone(reply.map_err(|error| StepError::from_sdk("iam:UpdateAccessKey", &error)))
    }

    /// Deletes a key that nobody holds: Inactive first, so that a mistake would still show before it is final.
    async fn delete(&self, user: &UserName, key: &AccessKeyId) -> Result<(), StepError> {
        let reply =
            self.iam.delete_access_key().user_name(user.as_str()).access_key_id(key.as_str()).send().await;
        tolerate_gone(reply.map_err(|error| StepError::from_sdk("iam:DeleteAccessKey", &error)))
    }
}

fn tolerate_gone<T>(reply: Result<T, StepError>) -> Result<(), StepError> {
    match reply {
        Err(error) if !error.is_refused(&["NoSuchEntity", "NoSuchEntityException"]) => Err(error),
        _ => Ok(()),
    }
}

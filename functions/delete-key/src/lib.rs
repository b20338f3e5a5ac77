//! The `DeleteKey` state: deletes a superseded key at the end of its grace, and only then.

use aws_types::SdkConfig;
use facts::member::{self, Members};
use facts::{iam, replicas, secrets};
use keywheel::clock::wait_time;
use keywheel::decide::delete::{self, Delete};
use keywheel::fleet::freeze::Freezes;
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Outcome, Why};
use keywheel::switch::Mode;
use keywheel::{Context, Rotation, Step, StepError, UserName, aws};
use tracing::{error, info};

/// The step.
pub struct DeleteKey {
    config: SdkConfig,
    members: Option<Members>,
}

impl DeleteKey {
    /// A step that calls AWS with `config`, and enters other accounts where there are `members`.
    pub fn new(config: SdkConfig, members: Option<Members>) -> Self {
        Self { config, members }
    }
}

impl Step for DeleteKey {
    const NAME: &'static str = "delete-key";
    type Input = Rotation;
    type Output = Rotation;

    /// Run twice, it finds the key gone and says Completed.
    async fn run(&self, mut doc: Rotation, ctx: &Context) -> Result<Rotation, StepError> {
        let config = aws::for_run(&self.config, doc.run);
        let config = member::of_rotation(self.members.as_ref(), &config, &doc).await?;
        let client = aws_sdk_iam::Client::new(&config);
        let secret = doc.secret()?.clone();
        let user = doc.baseline()?.user.name.clone();
        let old = doc.old_key()?.key.clone();
        let new = doc.new_key()?.clone();
        let disabled_at =
            doc.disabled_at.ok_or_else(|| StepError::BadInput("the document has no disabled_at".into()))?;
        let store = aws_sdk_secretsmanager::Client::new(&aws::in_region(&config, secret.region()));

        let ssm = aws_sdk_ssm::Client::new(&aws::for_run(&self.config, doc.run));
        let (mode, freezes, leaked) = facts::switch::mode_freezes_and_leaked(&ssm, &ctx.stage, &old).await?;
        let (current, replication) = secrets::current_and_replication(&store, &secret).await?;
        let replicas = replicas::read(&config, &secret, replication).await;
        let last_use = match iam::last_use(&client, &old).await {
            Ok(last_use) => Some(last_use),
            Err(StepError::Refused(_)) => None,
            Err(error) => return Err(error),
        };
        // Last of all: any read may take a quarter of a minute, IAM deletes Active keys as well, and whoever makes the
        // old one so meanwhile must be seen.
        let keys = iam::keys(&client, &user).await?;
        let now = ctx.clock.now();
        let frozen = freezes.holding(now);
        if let Freezes::Unknown(why) = &freezes {
            error!(rotation.id = %doc.run, iam.user = %user, "No key is deleted: {why}");
        }
        let facts = delete::Facts { now, mode, frozen, current, keys, replicas, last_use, leaked };
        let run = delete::Run {
            version: new.version.as_ref(),
            new: &new.key,
            old: &old,
            disabled_at,
            grace: doc.policy.grace.get(),
        };
        match delete::decide(&facts, &run) {
            Delete::Yes => {
                let gone = client
                    .delete_access_key()
                    .user_name(user.as_str())
                    .access_key_id(old.as_str())
                    .send()
                    .await;
                if let Err(error) = gone {
                    let error = StepError::from_sdk("iam:DeleteAccessKey", &error);
                    if !error.is_refused(&["NoSuchEntity", "NoSuchEntityException"]) {
                        return Err(error);
                    }
                }
                info!(rotation.id = %doc.run, iam.user = %user, key.id = %old, "Deleted key {old} of {user}");
                completed(&mut doc, ctx.clock.now());
            }
            Delete::Gone => completed(&mut doc, now),
            Delete::StandDown => doc.stand_down(now, facts.current.as_ref()),
            Delete::Wait(until, why) => {
                info!(rotation.id = %doc.run, iam.user = %user, key.id = %old, "Key {old} stays until {until}: {why}");
                doc.wait_until = Some(wait_time(until));
            }
            Delete::Paused(text) => {
                let end = if facts.mode == Mode::Live {
                    "`keywheel policy push FILE` writes them anew"
                } else {
                    "`keywheel mode live` ends the pause"
                };
                let why = Why::new(
                    "Paused",
                    format!("The old key of {user} was not deleted: {text}, for a long time."),
                    format!("{end}, then `keywheel resume --user {user}` goes on."),
                );
                doc.end(now, Outcome::Held, why);
            }
            Delete::Behind(text) => doc.end(now, Outcome::Held, replica_behind(&user, &text)),
            Delete::Evidence(text) => {
                let why = Why::new(
                    "LeakedKeyKept",
                    format!("The old key of {user} was not deleted: {text}."),
                    format!("When everything was dealt with: `keywheel incident {old} --close`."),
                );
                doc.end(now, Outcome::Contained, why);
            }
            Delete::Held(text) => {
                let why = Why::new(
                    "UsedInGrace",
                    format!("The old key of {user} was not deleted: {text}."),
                    format!(
                        "Somebody needs it: `keywheel status --user {user}` shows the keys, `keywheel rollback --user {user}` goes back to it, `keywheel resume --user {user}` goes on."
                    ),
                );
                doc.end(now, Outcome::Held, why);
            }
        }
        Ok(doc)
    }
}

fn replica_behind(user: &UserName, behind: &str) -> Why {
    Why::new(
        "ReplicaBehind",
        format!("The old key of {user} was not deleted: {behind}."),
        format!(
            "Mend the replication to that region, or remove the replica from there when nobody reads it, then `keywheel resume --user {user}`."
        ),
    )
}

fn completed(doc: &mut Rotation, now: jiff::Timestamp) {
    doc.announce(now, NoticeKind::Deleted);
    let text = match (&doc.old, &doc.new) {
        (Some(old), Some(new)) => format!("Key {} replaced key {}, which is gone.", new.key, old.key),
        _ => "The old key is gone.".to_owned(),
    };
    doc.old_key_gone(now, "Completed", text);
}

//! The `DeleteUnused` state: deletes a key that nobody used, at the end of its grace, and only then.
//!
//! Until then it looks every day, so that whoever brings the key back ends the run the same day.

use aws_sdk_iam::Client;
use aws_types::SdkConfig;
use facts::unused::{Asked, look};
use keywheel::clock::wait_time;
use keywheel::decide::unused::{Delete, Run, Stay, delete};
use keywheel::notice::NoticeKind;
use keywheel::rotation::Why;
use keywheel::unused::{Outcome, Removed};
use keywheel::{Context, Step, StepError, Unused, aws};
use tracing::{error, info};

/// The step.
pub struct DeleteUnused {
    config: SdkConfig,
}

impl DeleteUnused {
    /// A step that calls AWS with `config`.
    pub fn new(config: SdkConfig) -> Self {
        Self { config }
    }
}

impl Step for DeleteUnused {
    const NAME: &'static str = "delete-unused";
    type Input = Unused;
    type Output = Unused;

    /// Run twice, it finds the key gone and says Removed.
    async fn run(&self, mut doc: Unused, ctx: &Context) -> Result<Unused, StepError> {
        let config = aws::for_run(&self.config, doc.run);
        let (over, quiet) = doc.grace()?;
        let Removed { user, key, user_id, unused, regions, .. } = doc.removed.clone();
        let asked = Asked { user: &user, key: &key, regions: &regions };
        let (facts, misread) = Box::pin(look(&config, &ctx.stage, asked, &ctx.clock)).await?;
        if let Some(why) = misread {
            error!(rotation.id = %doc.run, iam.user = %user, "No unused key is deleted: {why}");
        }
        let run = Run { key: &key, user_id: &user_id, unused };
        match delete(&facts, &run, over, quiet) {
            Delete::Yes => {
                let call = Client::new(&config).delete_access_key();
                let gone = call.user_name(user.as_str()).access_key_id(key.as_str()).send().await;
                if let Err(error) = gone {
                    let error = StepError::from_sdk("iam:DeleteAccessKey", &error);
                    if !error.is_refused(&["NoSuchEntity", "NoSuchEntityException"]) {
                        return Err(error);
                    }
                }
                info!(rotation.id = %doc.run, iam.user = %user, key.id = %key, "Deleted key {key} of {user}, which nobody used");
                doc.announce(ctx.clock.now(), NoticeKind::Deleted);
                let why = Why::new("Removed", format!("Key {key} of {user} is gone."), "");
                doc.end(ctx.clock.now(), Outcome::Removed, why);
            }
            // By an attempt whose reply was lost, or by somebody else.
            Delete::Gone => {
                doc.announce(facts.now, NoticeKind::Deleted);
                let why = Why::new("Gone", format!("Key {key} of {user} is gone."), "");
                doc.end(facts.now, Outcome::Removed, why);
            }
            Delete::Wait(until, why) => {
                info!(rotation.id = %doc.run, iam.user = %user, key.id = %key, "Key {key} stays until {until}: {why}");
                doc.wait_until = Some(wait_time(until));
            }
            Delete::Keep(Stay { code, text }) => {
                let text = format!("Key {key} of {user} is not deleted: {text}.");
                let remedy = if code == "Reactivated" { String::new() } else { doc.way_back() };
                doc.end(facts.now, Outcome::Kept, Why::new(code, text, remedy));
            }
        }
        Ok(doc)
    }
}

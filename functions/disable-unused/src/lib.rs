//! The `NominateUnused` and `DisableUnused` states: makes a key Inactive that nobody uses, and reads it back.
//!
//! The first only looks, and keeps what it saw: the key was Active, and quiet since then. The second looks again and
//! writes. So a key that the second finds Inactive was made so by an attempt of it whose reply was lost, or by somebody
//! in that moment; either way its grace begins when it was found so.

use aws_sdk_iam::Client;
use aws_types::SdkConfig;
use facts::iam;
use facts::unused::{Asked, look};
use jiff::Timestamp;
use keywheel::decide::unused::{Disable, Run, Stay, disable};
use keywheel::rotation::Why;
use keywheel::unused::{Begin, Outcome, Removed};
use keywheel::{Context, Step, StepError, Unused, aws};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{error, info};

/// The step.
pub struct DisableUnused {
    config: SdkConfig,
}

impl DisableUnused {
    /// A step that calls AWS with `config`.
    pub fn new(config: SdkConfig) -> Self {
        Self { config }
    }
}

/// What the two states hand it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Input {
    /// What the machine was started with: the key is looked at.
    Begin(Box<Begin>),
    /// The document of one that was found unused: the key is made Inactive.
    Found(Box<Unused>),
}

impl<'de> Deserialize<'de> for Input {
    /// Told apart by a field that the document alone has, so that a mistake is named by the type it was meant for.
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(input)?;
        let read = if value.get("removed").is_some() {
            serde_json::from_value(value).map(Self::Found)
        } else {
            serde_json::from_value(value).map(Self::Begin)
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl Step for DisableUnused {
    const NAME: &'static str = "disable-unused";
    type Input = Input;
    type Output = Unused;

    /// Run twice, it finds the key Inactive and goes on. Killed half way, it leaves the key Active or Inactive, both of
    /// which the next attempt understands.
    async fn run(&self, input: Input, ctx: &Context) -> Result<Unused, StepError> {
        let (mut doc, nominates) = match input {
            Input::Begin(begin) => (Unused::new(&begin)?, true),
            Input::Found(doc) => (*doc, false),
        };
        let config = aws::for_run(&self.config, doc.run);
        let Removed { user, key, user_id, unused, regions, .. } = doc.removed.clone();
        let asked = Asked { user: &user, key: &key, regions: &regions };
        let (facts, misread) = Box::pin(look(&config, &ctx.stage, asked, &ctx.clock)).await?;
        if let Some(why) = misread {
            error!(rotation.id = %doc.run, iam.user = %user, "No unused key is made Inactive: {why}");
        }
        match disable(&facts, &Run { key: &key, user_id: &user_id, unused }) {
            Disable::Yes(since) if nominates => doc.quiet_since = Some(since),
            Disable::Yes(_) => {
                iam::deactivate(&Client::new(&config), &user, &key, &ctx.clock).await?;
                info!(rotation.id = %doc.run, iam.user = %user, key.id = %key, "Deactivated key {key} of {user}, which nobody uses");
                doc.begin_grace(ctx.clock.now());
            }
            Disable::Inactive if nominates => {
                let stay = Stay { code: "AlreadyInactive", text: "somebody has made it Inactive".to_owned() };
                left(&mut doc, facts.now, stay);
            }
            Disable::Inactive => doc.begin_grace(facts.now),
            Disable::Leave(stay) => left(&mut doc, facts.now, stay),
        }
        Ok(doc)
    }
}

fn left(doc: &mut Unused, now: Timestamp, stay: Stay) {
    let Stay { code, text } = stay;
    let text = format!("Key {} of {} is left as it is: {text}.", doc.removed.key, doc.removed.user);
    doc.end(now, Outcome::Left, Why::new(code, text, ""));
}

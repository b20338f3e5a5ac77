//! The Lambdas, in this process: each with the credentials of its own role, each mortal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contain::Contain;
use create_key::CreateKey;
use deactivate_key::DeactivateKey;
use delete_key::DeleteKey;
use delete_unused::DeleteUnused;
use deny_sessions::DenySessions;
use disable_unused::DisableUnused;
use facts::member::Members;
use investigate::Investigate;
use keywheel::{Context, Step, StepError, serve};
use look::Look;
use notify::{Channels, Notify};
use promote_key::PromoteKey;
use replace::Replace;
use review::Review;
use roll_back::RollBack;
use scan::{Scan, Settings};
use serde_json::{Value, json};
use tokio::sync::Notify as Signal;
use triage::Triage;
use validate_key::ValidateKey;
use watch::Watch;

use crate::fake::{Fake, INVOCATION, Invocation};

/// Every function that the machines call.
pub const NAMES: [&str; 18] = [
    Look::NAME,
    CreateKey::NAME,
    ValidateKey::NAME,
    PromoteKey::NAME,
    DeactivateKey::NAME,
    DeleteKey::NAME,
    RollBack::NAME,
    Notify::NAME,
    Triage::NAME,
    Watch::NAME,
    Contain::NAME,
    DenySessions::NAME,
    Replace::NAME,
    Investigate::NAME,
    Scan::NAME,
    Review::NAME,
    DisableUnused::NAME,
    DeleteUnused::NAME,
];

/// The stage that the tests run in.
pub const STAGE: &str = "test";

/// The installation's bucket.
pub const BUCKET: &str = "keywheel-test-111122223333";

/// The role of another account that may contain, and the one that may read its records.
pub const MEMBER: &str = "member";
/// See [`MEMBER`].
pub const MEMBER_READS: &str = "member-reads";
/// The role of another account under which its users are rotated.
pub const MEMBER_ROTATES: &str = "member-rotates";
/// The functions that it lets in.
pub const ROTATING: [&str; 8] = [
    Look::NAME,
    CreateKey::NAME,
    ValidateKey::NAME,
    PromoteKey::NAME,
    DeactivateKey::NAME,
    DeleteKey::NAME,
    RollBack::NAME,
    Replace::NAME,
];

/// How a task failed, in Step Functions' words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The error's name.
    pub error: String,
    /// Its cause.
    pub cause: String,
}

/// The deployed functions.
pub struct Functions {
    fake: Fake,
    context: Context,
}

static INVOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The role that a function runs with.
pub fn role(function: &str) -> String {
    format!("keywheel-{STAGE}-{function}")
}

impl Functions {
    /// The functions, calling this fake.
    pub fn new(fake: &Fake) -> Self {
        let clock = fake.state().clock.clone();
        Self { fake: fake.clone(), context: Context { clock, stage: STAGE.into() } }
    }

    /// Invokes a function once, for a state. A fault may kill its process; all that it was about to do is then undone.
    pub async fn invoke(&self, state: &str, name: &str, payload: Value) -> Result<Value, Failure> {
        let kill = Arc::new(Signal::new());
        let number = INVOCATIONS.fetch_add(1, Ordering::Relaxed);
        let invocation = Invocation {
            function: name.to_owned(),
            state: state.to_owned(),
            number,
            kill: Arc::clone(&kill),
        };
        let result = tokio::select! {
            biased;
            () = kill.notified() => {
                return Err(Failure {
                    error: "Lambda.Unknown".into(),
                    cause: "RequestId: fake Error: Runtime exited with error: signal: killed".into(),
                });
            }
            result = INVOCATION.scope(invocation, Box::pin(self.dispatch(name, payload))) => result,
        };
        result.map_err(|error| Failure {
            error: error.name().into(),
            cause: json!({"errorType": error.name(), "errorMessage": error.to_string()}).to_string(),
        })
    }

    async fn dispatch(&self, name: &str, mut payload: Value) -> Result<Value, StepError> {
        let Some(broken) = self.fake.state().broken else { return self.step(name, payload).await };
        broken.before(&self.fake, name, &mut payload).await;
        let mut result = self.step(name, payload).await?;
        broken.after(&self.fake, name, &mut result).await;
        Ok(result)
    }

    async fn step(&self, name: &str, payload: Value) -> Result<Value, StepError> {
        let config = self.fake.config_of(&role(name));
        let (ctx, rotates) = (&self.context, self.members(MEMBER_ROTATES));
        match name {
            Look::NAME => serve::invoke(&Look::new(config, rotates), payload, ctx).await,
            CreateKey::NAME => serve::invoke(&CreateKey::new(config, rotates), payload, ctx).await,
            ValidateKey::NAME => serve::invoke(&ValidateKey::new(config, rotates), payload, ctx).await,
            PromoteKey::NAME => serve::invoke(&PromoteKey::new(config, rotates), payload, ctx).await,
            DeactivateKey::NAME => serve::invoke(&DeactivateKey::new(config, rotates), payload, ctx).await,
            DeleteKey::NAME => serve::invoke(&DeleteKey::new(config, rotates), payload, ctx).await,
            RollBack::NAME => {
                let create_role = self.fake.role_arn(&role(CreateKey::NAME));
                serve::invoke(&RollBack::new(config, rotates, create_role), payload, ctx).await
            }
            Notify::NAME => {
                let channels = Channels { bus: "keywheel-test".into(), topic: self.topic() };
                serve::invoke(&Notify::new(config, channels), payload, ctx).await
            }
            Triage::NAME => {
                let roles = [RollBack::NAME, DeactivateKey::NAME];
                let roles = roles.map(|name| self.fake.role_arn(&role(name))).to_vec();
                serve::invoke(&Triage::new(roles), payload, ctx).await
            }
            Watch::NAME => {
                let create_role = self.fake.role_arn(&role(CreateKey::NAME));
                let (members, rotates) = (self.members(MEMBER_READS), role(MEMBER_ROTATES));
                serve::invoke(&Watch::new(config, members, vec![create_role], rotates), payload, ctx).await
            }
            Contain::NAME => serve::invoke(&Contain::new(config, self.members(MEMBER)), payload, ctx).await,
            DenySessions::NAME => {
                serve::invoke(&DenySessions::new(config, self.members(MEMBER)), payload, ctx).await
            }
            Replace::NAME => {
                let rotation = self.fake.state().machine("rotation");
                serve::invoke(&Replace::new(config, rotates, rotation), payload, ctx).await
            }
            Investigate::NAME => {
                let members = self.members(MEMBER_READS);
                serve::invoke(&Investigate::new(config, members, BUCKET.into()), payload, ctx).await
            }
            Scan::NAME => {
                let (rotation, removals) = {
                    let state = self.fake.state();
                    (state.machine("rotation"), state.machine("unused"))
                };
                let create_role = self.fake.role_arn(&role(CreateKey::NAME));
                let settings = Settings { bucket: BUCKET.into(), rotation, create_role, removals };
                let scan = Scan::new(config, self.members(MEMBER_READS), settings);
                serve::invoke(&scan, payload, ctx).await
            }
            DisableUnused::NAME => serve::invoke(&DisableUnused::new(config), payload, ctx).await,
            DeleteUnused::NAME => serve::invoke(&DeleteUnused::new(config), payload, ctx).await,
            Review::NAME => {
                let rotation = self.fake.state().machine("rotation");
                serve::invoke(
                    &Review::new(config, self.members(MEMBER_READS), rotation, BUCKET.into()),
                    payload,
                    ctx,
                )
                .await
            }
            _ => panic!("no function is named {name}"),
        }
    }

    fn members(&self, name: &str) -> Option<Members> {
        let external_id = self.fake.state().external_id.clone()?;
        Some(Members { role: role(name), external_id })
    }

    fn topic(&self) -> String {
        let state = self.fake.state();
        format!("arn:{}:sns:{}:{}:keywheel-{STAGE}", state.partition, state.region, state.account)
    }
}

//! Runs a step under the Lambda Runtime API.
//!
//! The input is taken as plain JSON and read here, so that a document nobody can read surfaces as
//! `Keywheel.BadInput` and not under a Rust type's name. Step Functions sees the error's name in `errorType`.

use std::pin::Pin;
use std::time::Instant;

use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::Clock;
use crate::emf;
use crate::error::StepError;
use crate::step::{Context, Step};

/// What the runtime reports when it cannot start.
pub type Error = lambda_runtime::Error;

/// Writes logs as JSON. Other crates speak from `warn` on: the SDK's own `debug` and `trace`
/// levels print bodies, and no setting of the environment may switch that on.
pub fn init_tracing() {
    let filter = Targets::new().with_default(LevelFilter::WARN).with_targets(
        [
            "keywheel",
            "facts",
            "look",
            "create_key",
            "validate_key",
            "promote_key",
            "deactivate_key",
            "delete_key",
            "roll_back",
            "notify",
            "triage",
            "contain",
            "deny_sessions",
            "replace",
            "investigate",
            "watch",
            "scan",
            "review",
            "disable_unused",
            "delete_unused",
        ]
        .map(|name| (name, LevelFilter::INFO)),
    );
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false);
    tracing_subscriber::registry().with(lines).with(filter).init();
}

/// The setting `name` from the function's environment, where it is set.
pub fn optional_setting(name: &'static str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The setting `name` from the function's environment.
pub fn setting(name: &'static str) -> Result<String, Error> {
    optional_setting(name).ok_or_else(|| Error::from(format!("the environment variable {name} is not set")))
}

/// Serves invocations until the sandbox ends.
pub async fn run<S: Step>(step: S) -> Result<(), Error> {
    let ctx = Context { clock: Clock::System, stage: setting("KEYWHEEL_STAGE")? };
    let (step, ctx) = (&step, &ctx);
    lambda_runtime::run(service_fn(move |event: LambdaEvent<Value>| async move {
        let started = Instant::now();
        let undecided = emf::outcome(&event.payload).is_none();
        // Of no named type: the SDK's futures are nested deeply, and the compiler would count the runtime's on top.
        let invoked: Pin<Box<dyn Future<Output = _>>> = Box::pin(invoke(step, event.payload, ctx));
        let result = invoked.await;
        emf::step_ended(S::NAME, &ctx.stage, started.elapsed(), undecided, &result);
        result
    }))
    .await
}

/// One invocation: reads the input, runs the step, writes the output.
pub async fn invoke<S: Step>(step: &S, payload: Value, ctx: &Context) -> Result<Value, StepError> {
    let input = serde_json::from_value(payload)
        .map_err(|error| StepError::BadInput(format!("{}: the input is not understood: {error}", S::NAME)))?;
    let output = step.run(input, ctx).await?;
    serde_json::to_value(output)
        .map_err(|error| StepError::BadInput(format!("{}: the output cannot be written: {error}", S::NAME)))
}

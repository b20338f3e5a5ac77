//! What a step is: a struct that holds its clients and runs one state.

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::error::StepError;

/// What a step is given besides its input.
#[derive(Debug, Clone)]
pub struct Context {
    /// Tells the time and waits.
    pub clock: Clock,
    /// The stage of the installation, part of every name.
    pub stage: String,
}

/// One state of a machine.
///
/// Inside `run`: look, decide, act, report. Every step looks before it acts, because every step
/// will one day run twice.
pub trait Step {
    /// The function's name; the states that call it and the contract test look it up.
    const NAME: &'static str;
    /// What the state receives.
    type Input: DeserializeOwned;
    /// What the state hands on.
    type Output: Serialize;
    /// Runs the state once.
    fn run(
        &self,
        input: Self::Input,
        ctx: &Context,
    ) -> impl Future<Output = Result<Self::Output, StepError>> + Send;
}

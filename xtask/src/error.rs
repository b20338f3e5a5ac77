//! Errors of a program for the terminal: a sentence that says what was being done and what went wrong.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use keywheel::StepError;

/// Whatever stopped a task.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a task's parts return.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Puts what was being done before what went wrong.
pub(crate) trait Explain<T> {
    /// The error as a sentence that begins with `what`.
    fn explain(self, what: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> Explain<T> for std::result::Result<T, E> {
    fn explain(self, what: impl std::fmt::Display) -> Result<T> {
        self.map_err(|error| format!("{what}: {}", error.into()).into())
    }
}

/// A call's reply, or the call's name with AWS's code and words. The SDK's own error is dropped: it may
/// quote a reply that holds a secret.
pub(crate) fn aws<T, E>(
    call: &'static str,
    reply: std::result::Result<T, SdkError<E, HttpResponse>>,
) -> Result<T>
where
    E: ProvideErrorMetadata,
{
    reply.map_err(|error| StepError::from_sdk(call, &error).into())
}

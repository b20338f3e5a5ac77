//! Errors as part of the state machine: each variant answers what the caller may do next.
//!
//! Step Functions takes the name that [`StepError::name`] gives as the error's name, so the ASL's Retry and
//! Catch are written in these words. A contract test holds both sides together.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use lambda_runtime::Diagnostic;

/// What went wrong in a call, without anything of its bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The call, such as `iam:CreateAccessKey`.
    pub call: &'static str,
    /// AWS's code, or ours for what never reached AWS.
    pub code: String,
    /// AWS's words, where they cannot quote a secret.
    pub message: String,
    /// AWS's request id, for a support case.
    pub request_id: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.call, self.code)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Nothing happened; wait and try again.
    #[error("throttled: {0}")]
    Throttled(Failure),
    /// IAM has not caught up with us; ask again at a steady pace.
    #[error("not yet visible: {0}")]
    NotYetVisible(String),
    /// It may have happened; run the step again, it looks first.
    #[error("outcome unknown: {0}")]
    Ambiguous(Failure),
    /// The world is not what the document says; touch nothing.
    #[error("conflict: {0}")]
    Conflict(String),
    /// Asking again will not help.
    #[error("refused: {0}")]
    Refused(Failure),
    /// Our own contract is broken.
    #[error("bad input: {0}")]
    BadInput(String),
}

/// Codes that mean "slow down", whatever the service and status.
const THROTTLING: [&str; 10] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "PriorRequestNotComplete",
    "SlowDown",
];

/// Calls whose errors may quote what was sent, which includes the secret.
const QUOTING: [&str; 1] = ["secretsmanager:PutSecretValue"];

impl StepError {
    /// Every name that a step can end with; the ASL mentions exactly these.
    pub const NAMES: [&'static str; 6] = [
        "Keywheel.Throttled",
        "Keywheel.NotYetVisible",
        "Keywheel.Ambiguous",
        "Keywheel.Conflict",
        "Keywheel.Refused",
        "Keywheel.BadInput",
    ];

    /// The name that travels to the state machine.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Throttled(_) => Self::NAMES[0],
            Self::NotYetVisible(_) => Self::NAMES[1],
            Self::Ambiguous(_) => Self::NAMES[2],
            Self::Conflict(_) => Self::NAMES[3],
            Self::Refused(_) => Self::NAMES[4],
            Self::BadInput(_) => Self::NAMES[5],
        }
    }

    /// AWS's code, where a call failed.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Throttled(failure) | Self::Ambiguous(failure) | Self::Refused(failure) => {
                Some(&failure.code)
            }
            _ => None,
        }
    }

    /// Whether AWS answered that it will not do this.
    pub fn is_refused(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Refused(failure) if codes.contains(&failure.code.as_str()))
    }

    /// Classifies what the SDK reports, in one place. Throttling first; any other 4xx is a refusal with its
    /// code; everything else (5xx, time-out, a connection that broke, a reply that could not be read) may have
    /// happened. The `SdkError` itself is dropped: its Debug prints the response, which for `CreateAccessKey`
    /// holds the secret.
    pub fn from_sdk<E>(call: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata,
    {
        let request_id = error.raw_response().and_then(|response| {
            ["x-amzn-requestid", "x-amz-request-id"]
                .iter()
                .find_map(|name| response.headers().get(name))
                .map(str::to_owned)
        });
        let failure = |code: &str, message: &str| Failure {
            call,
            code: code.to_owned(),
            message: if QUOTING.contains(&call) {
                String::new()
            } else {
                message.chars().take(400).collect()
            },
            request_id: request_id.clone(),
        };
        match error {
            SdkError::ServiceError(service) => {
                let code = service.err().code().unwrap_or("Unknown");
                let failure = failure(code, service.err().message().unwrap_or_default());
                let status = service.raw().status().as_u16();
                if THROTTLING.contains(&code) || status == 429 {
                    Self::Throttled(failure)
                } else if (400..500).contains(&status) && status != 408 {
                    Self::Refused(failure)
                } else {
                    Self::Ambiguous(failure)
                }
            }
            // The request was never built, so nothing was sent: our own fault.
            SdkError::ConstructionFailure(_) => {
                Self::BadInput(format!("{call}: the request could not be built"))
            }
            SdkError::TimeoutError(_) => Self::Ambiguous(failure("Timeout", "")),
            SdkError::DispatchFailure(_) => Self::Ambiguous(failure("ConnectionFailed", "")),
            SdkError::ResponseError(_) => Self::Ambiguous(failure("UnreadableReply", "")),
            _ => Self::Ambiguous(failure("Unknown", "")),
        }
    }
}

impl From<StepError> for Diagnostic {
    fn from(error: StepError) -> Self {
        Self { error_type: error.name().to_owned(), error_message: error.to_string() }
    }
}

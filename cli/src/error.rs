//! What goes wrong, in words for somebody who is tired: one sentence that names what was wrong, and one that
//! says what to do. And the exit codes, which are the same for every command.

use std::fmt;

use keywheel::{Outcome, StepError, campaign};

/// Something that the command could not or would not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What was wrong.
    pub(crate) text: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

/// What every part of the command returns.
pub(crate) type Result<T> = std::result::Result<T, Trouble>;

impl Trouble {
    /// Trouble from its two sentences.
    pub(crate) fn new(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { text: text.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, " {}", self.remedy) }
    }
}

const DENIED: [&str; 5] =
    ["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized", "AccessDeniedFault"];
const EXPIRED: [&str; 4] =
    ["ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"];
const UNKNOWN_CREDENTIALS: [&str; 6] = [
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "AuthFailure",
];

impl From<StepError> for Trouble {
    fn from(error: StepError) -> Self {
        let failure = match &error {
            StepError::Throttled(failure) => {
                return Self::new(
                    format!("AWS asks to slow down ({}).", failure.call),
                    "Wait a minute and run the command again.",
                );
            }
            StepError::Refused(failure) | StepError::Ambiguous(failure) => failure,
            other => return Self::new(format!("{other}."), ""),
        };
        let code = failure.code.as_str();
        if DENIED.contains(&code) {
            return Self::new(
                format!(
                    "These credentials may not call {}: {}.",
                    failure.call,
                    failure.message.trim_end_matches('.')
                ),
                "Use a --profile that may, or ask for that permission.",
            );
        }
        if EXPIRED.contains(&code) {
            return Self::new(
                "The credentials have expired.",
                "Log in again, for example with `aws sso login`, and repeat the command.",
            );
        }
        if UNKNOWN_CREDENTIALS.contains(&code) {
            return Self::new(
                format!("AWS does not accept these credentials ({}: {code}).", failure.call),
                "Check --profile and the AWS_ variables of this shell; for a local cloud, its endpoint as well.",
            );
        }
        if matches!(error, StepError::Ambiguous(_)) && ["ConnectionFailed", "Timeout"].contains(&code) {
            return Self::new(
                format!("AWS gave no answer to {} ({code}).", failure.call),
                "Check the network, --region and AWS_ENDPOINT_URL, then run the command again: it looks first.",
            );
        }
        Self::new(format!("{failure}."), "")
    }
}

/// How the command ends. Of several runs, the highest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// What was asked for was done.
    Done = 0,
    /// An error, or the command refused.
    Refused = 1,
    /// A run was blocked: nothing was touched.
    Blocked = 3,
    /// A run turned itself back.
    RolledBack = 4,
    /// A run left the old key Active.
    Held = 5,
    /// A run failed, was aborted or timed out.
    Failed = 6,
}

/// The table in every command's help. Clap itself ends with 2.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done: it has happened, or the run was started (Completed, Contained; a campaign: Done, Planned)
  1  refused, or an error: nothing was started
  2  the command line is wrong
  3  Blocked: nothing was touched, the reason is shown (a campaign: Refused)
  4  RolledBack: the rotation failed and was undone, the old key is still current
  5  Held: the old key was left Active because it is still used
  6  the run failed, was aborted or timed out (a campaign: Stopped)
Of several runs the highest code counts. A dry run that was asked for and a rollback that succeeded end with 0.";

impl Exit {
    /// The code for a run's outcome.
    pub(crate) const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed | Outcome::Contained => Self::Done,
            Outcome::Blocked => Self::Blocked,
            Outcome::RolledBack => Self::RolledBack,
            Outcome::Held => Self::Held,
        }
    }

    /// The code for a campaign's outcome.
    pub(crate) const fn of_campaign(outcome: campaign::Outcome) -> Self {
        match outcome {
            campaign::Outcome::Done | campaign::Outcome::Planned => Self::Done,
            campaign::Outcome::Refused => Self::Blocked,
            campaign::Outcome::Stopped => Self::Failed,
        }
    }

    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keywheel::error::Failure;

    fn refused(code: &str) -> Trouble {
        Trouble::from(StepError::Refused(Failure {
            call: "iam:TagUser",
            code: code.into(),
            message: "no.".into(),
            request_id: None,
        }))
    }

    #[test]
    fn every_code_is_in_the_help_with_its_outcome() {
        let rotations = Outcome::ALL.map(|outcome| (Exit::of(outcome), outcome.name()));
        let campaigns = campaign::Outcome::ALL.map(|outcome| (Exit::of_campaign(outcome), outcome.name()));
        for (exit, name) in rotations.into_iter().chain(campaigns) {
            let code = exit.code();
            let line = EXIT_CODES.lines().find(|line| line.starts_with(&format!("  {code}  "))).unwrap();
            assert!(line.contains(name), "{name}: {line}");
        }
        assert_eq!(Exit::Failed.code(), 6);
        assert_eq!(Exit::Refused.code(), 1);
    }

    #[test]
    fn the_worst_of_several_counts() {
        let codes = [Exit::Done, Exit::Held, Exit::Refused];
        assert_eq!(codes.into_iter().max(), Some(Exit::Held));
    }

    #[test]
    fn common_refusals_say_what_to_do() {
        assert_eq!(refused("AccessDenied").text, "These credentials may not call iam:TagUser: no.");
        assert!(refused("ExpiredToken").remedy.contains("aws sso login"));
        assert!(refused("InvalidClientTokenId").remedy.contains("--profile"));
        assert!(refused("Odd").text.contains("iam:TagUser: Odd"));
    }
}

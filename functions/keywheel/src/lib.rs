//! The language of Keywheel: names, documents, decisions and errors that its Lambdas share.
//!
//! Nothing here talks to AWS. A Lambda gathers facts, hands them to a pure function of [`decide`],
//! makes the one call that the answer asks for, and reports in the machine's document ([`rotation::Rotation`]).
//! No service client is linked, so that a function carries only the clients it uses.

pub mod aws;
pub mod campaign;
pub mod clock;
pub mod decide;
pub mod emergency;
pub mod emf;
pub mod error;
pub mod fleet;
pub mod html;
pub mod ids;
pub mod incident;
pub mod key;
pub mod making;
pub mod notice;
pub mod package;
pub mod pattern;
pub mod policy;
pub mod replica;
pub mod rotation;
pub mod secret;
pub mod serve;
pub mod sessions;
pub mod step;
pub mod switch;
pub mod triage;
pub mod unused;

pub use campaign::Campaign;
pub use clock::Clock;
pub use error::StepError;
pub use ids::{AccessKeyId, RunId, SecretArn, UserName, VersionId};
pub use incident::{Alert, Incident};
pub use rotation::{Outcome, Phase, Rotation};
pub use step::{Context, Step};
pub use unused::Unused;

//! The reads that several steps share, each turned into plain facts of the shared library.
//!
//! Every list is read to its end. What a call could not tell is an error or an explicit `None`, never an
//! empty list: unknown means "in use", "not ours", "do not touch".

pub mod audit;
pub mod bucket;
pub mod estate;
pub mod executions;
pub mod fleet;
pub mod iam;
pub mod left;
pub mod member;
pub mod replicas;
pub mod secrets;
pub mod switch;
pub mod trail;
pub mod unused;

use aws_smithy_types::DateTime;
use jiff::Timestamp;

/// A time as the SDK gives it.
pub fn timestamp(at: &DateTime) -> Option<Timestamp> {
    Timestamp::from_millisecond(at.to_millis().ok()?).ok()
}

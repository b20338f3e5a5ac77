//! The decisions: pure functions over facts. A Lambda gathers the facts, asks here, and does what it is told.

use std::time::Duration;

pub mod advice;
pub mod ahead;
pub mod campaign;
pub mod contain;
pub mod create;
pub mod delete;
pub mod due;
pub mod entry;
pub mod gate;
pub mod making;
pub mod orphan;
pub mod replace;
pub mod unused;

/// A key that was just made Inactive still works for 3 to 4 seconds somewhere: a use within this time says nothing.
const DIES_LATE: Duration = Duration::from_secs(15);

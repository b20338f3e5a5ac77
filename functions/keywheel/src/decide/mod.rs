//! The decisions: pure functions over facts. A Lambda gathers the facts, asks here, and does what it is told.

pub mod contain;
pub mod create;
pub mod delete;
pub mod entry;
pub mod gate;
pub mod orphan;
pub mod replace;

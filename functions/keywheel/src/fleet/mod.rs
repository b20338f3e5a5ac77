//! The fleet: which keys are due, by whose rule, and what a run over all of them would do.
//!
//! The policy ([`policy::FleetPolicy`]) says how old a key may become and who is exempt; the facts of an account
//! ([`estate::Estate`]) are read with few calls, whatever its size; [`crate::decide::due`] puts the two together.

pub mod audit;
pub mod check;
pub mod estate;
pub mod freeze;
pub mod plan;
pub mod policy;
pub mod rules;
pub mod schema;
pub mod terraform;
pub mod warned;

pub use policy::FleetPolicy;

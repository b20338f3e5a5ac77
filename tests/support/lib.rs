//! What the tests of the whole system share: a fake AWS under the SDK's HTTP connector, a walker that runs
//! the machines' own definitions in this process, faults to throw at both, and the promises to hold them to.
//!
//! Time is tokio's, paused: the fake, the walker and the steps follow one clock, and a wait of weeks is over
//! at once.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "only tests run this; a panic with its place is what a failed test should show"
)]

/// A rotation in process is mostly small allocations; this takes a sixth off the searches.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod alarm;
mod beside;
pub mod broken;
pub mod campaign;
pub mod consumer;
pub mod estate;
pub mod fake;
pub mod faults;
pub mod figures;
pub mod functions;
pub mod hostile;
pub mod invariants;
pub mod logs;
pub mod place;
pub mod repository;
pub mod unused;
pub mod walker;
pub mod world;
pub mod woven;

//! The command against the local cloud: the compiled command, the real rules, machines, Lambdas and roles.
//! `cargo xtask test` starts the cloud; without one there is nothing to run against.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test, where a panic with its place is what should be seen, and what it left out"
)]

mod advise;
mod audit;
mod cloud;
mod credentials;
mod enrol;
mod install;
mod plan;
mod way_out;

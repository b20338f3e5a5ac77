//! What Keywheel promises, on the local cloud: the compiled Lambdas, the machine and the template as deployed.
//!
//! `cargo xtask test` starts the cloud and says through the environment where it is; without one every test
//! here skips itself. Each test makes users and secrets of its own, limits its faults to its own runs, and
//! reads what is true through the AWS API, never from what Keywheel says.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, where a panic with its place is what should be seen"
)]

#[path = "e2e/cloud.rs"]
mod cloud;
#[path = "e2e/proxy.rs"]
mod proxy;
#[path = "e2e/requests.rs"]
mod requests;
#[path = "e2e/run.rs"]
mod run;
#[path = "e2e/scene.rs"]
mod scene;
#[path = "e2e/watch.rs"]
mod watch;

#[path = "e2e/accounts.rs"]
mod accounts;
#[path = "e2e/adoption.rs"]
mod adoption;
#[path = "e2e/blocked.rs"]
mod blocked;
#[path = "e2e/consumer.rs"]
mod consumer;
#[path = "e2e/create.rs"]
mod create;
#[path = "e2e/emergency.rs"]
mod emergency;
#[path = "e2e/fleet.rs"]
mod fleet;
#[path = "e2e/gate.rs"]
mod gate;
#[path = "e2e/inbox.rs"]
mod inbox;
#[path = "e2e/killed.rs"]
mod killed;
#[path = "e2e/leaks.rs"]
mod leaks;
#[path = "e2e/notices.rs"]
mod notices;
#[path = "e2e/paths.rs"]
mod paths;
#[path = "e2e/privilege.rs"]
mod privilege;
#[path = "e2e/rollback.rs"]
mod rollback;
#[path = "e2e/slack.rs"]
mod slack;
#[path = "e2e/stopped.rs"]
mod stopped;
#[path = "e2e/switch.rs"]
mod switch;
#[path = "e2e/taken_over.rs"]
mod taken_over;
#[path = "e2e/together.rs"]
mod together;
#[path = "e2e/token.rs"]
mod token;
#[path = "e2e/whole.rs"]
mod whole;

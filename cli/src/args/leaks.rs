//! The commands about leaked keys.

use clap::{ArgGroup, Args, Subcommand};
use keywheel::policy::Span;
use keywheel::switch::Containment;

use super::{after, any_case};
use crate::drill::Family;

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel revoke AKIAIOSFODNN7EXAMPLE --wait
  keywheel revoke AKIAIOSFODNN7EXAMPLE --reason 'found in a public repository'

The key is made Inactive and never deleted, the sessions it has minted are denied, and a managed
user's application gets another key. A false alarm declared for this key is taken back first."))]
pub(crate) struct Revoke {
    /// The access key id
    #[arg(value_name = "KEYID")]
    pub(crate) key: String,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Wait until the key is Inactive, and say how long that took
    #[arg(long, short)]
    pub(crate) wait: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("decision").args(["false_alarm", "close"]).requires("id"))]
#[command(after_help = after("\
Examples:
  keywheel incident                                             all of them, the newest first
  keywheel incident AKIAIOSFODNN7EXAMPLE                        one, by its key or its id
  keywheel incident AKIAIOSFODNN7EXAMPLE --html leak.html       the same as a page
  keywheel incident AKIAIOSFODNN7EXAMPLE --false-alarm --reason 'our own scanner' --for 30d
  keywheel incident AKIAIOSFODNN7EXAMPLE --close

--false-alarm makes the key Active again and lifts what denies its sessions; until --for has
passed, reports of this key only page. Where the key was not contained yet, it is left Active.
--close says that everything was dealt with; with --yes, run after the 30 days of evidence, it deletes
the key of a user that is not managed. Run again after an interruption, both go on."))]
pub(crate) struct IncidentArgs {
    /// The incident's id or an access key id; without it, all are listed
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
    /// The key has not leaked
    #[arg(long, requires = "reason")]
    pub(crate) false_alarm: bool,
    /// Why it is a false alarm
    #[arg(long, value_name = "TEXT", requires = "false_alarm")]
    pub(crate) reason: Option<String>,
    /// How long reports of this key only page: 7d unless given, 90d at most
    #[arg(long = "for", value_name = "DURATION", requires = "false_alarm")]
    pub(crate) lasting: Option<Span>,
    /// Everything was dealt with
    #[arg(long)]
    pub(crate) close: bool,
    /// With --close: delete a key that nobody manages, once its evidence time is over
    #[arg(long, short, requires = "close")]
    pub(crate) yes: bool,
    /// Where the key is another account's: a role there that you may assume
    #[arg(long, value_name = "ARN", requires = "id")]
    pub(crate) role: Option<String>,
    /// Write the incident as a page for people
    #[arg(long, value_name = "FILE", requires = "id", conflicts_with = "decision")]
    pub(crate) html: Option<std::path::PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel containment         show it
  keywheel containment page    people are told of leaked keys, nothing is changed
  keywheel containment on      leaked keys are made Inactive
  keywheel containment off     nothing at all"))]
pub(crate) struct ContainmentArgs {
    /// off, page or on; without it, the switch is shown
    #[arg(value_name = "SWITCH", value_parser = any_case::<Containment>)]
    pub(crate) containment: Option<Containment>,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel emergency show
  keywheel emergency check emergency.json     names line and column of what is wrong; asks nobody
  keywheel emergency set emergency.json

{\"rules\": [
  {\"user\": \"prod-*\", \"then\": {\"replace_first\": 10}},
  {\"source\": \"securityhub\", \"below\": \"high\", \"then\": \"page\"}
]}

The first rule that fits decides. then: now, page, {\"after\": MINUTES} or {\"replace_first\": MINUTES}."))]
pub(crate) struct EmergencyArgs {
    #[command(subcommand)]
    pub(crate) action: EmergencyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EmergencyAction {
    /// Show the policy that holds
    Show,
    /// Check a policy without setting it
    Check {
        /// A file with the policy; - for standard input
        #[arg(value_name = "FILE")]
        file: std::path::PathBuf,
    },
    /// Set the policy
    Set {
        /// A file with the policy; - for standard input
        #[arg(value_name = "FILE")]
        file: std::path::PathBuf,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) const DOCTOR: &str = "\
Examples:
  keywheel doctor             what is wrong here, and what to do about it; which sources of leaks come here
  keywheel doctor --json      a line of JSON for each finding

Looked at are the switches, these credentials' rights, the machines and their version, the buses, who is told, the
alarms, the trail, the intake of every region in use, the tags of managed pairs, the pushed policy, the clock and the
last drill. Each line is good, or says what to do. Nothing is changed. Exit code 1 where a line is not good, or a
source is kept away.";

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel drill                      a report of our own, over the leak bus
  keywheel drill --bound 10s --yes    exit code 6 where the key is Inactive later than that, its
                                      session denied later than 15s, or no other key there in 5m

A throwaway user with a key, a secret and a session is made, the key is reported as leaked, and it is
measured when it is Inactive, its session denied and its application supplied with another one. All
that was made is removed, also after Ctrl-C. The result is kept in /keywheel/<stage>/drill. Subscribers
are told as in earnest: tell them before."))]
pub(crate) struct Drill {
    /// Who says that the key has leaked
    #[arg(long, value_enum, default_value_t = Family::Own)]
    pub(crate) family: Family,
    /// Within what time the key must be Inactive: 60s unless given, 5m at most; its session denied 5s later
    #[arg(long, value_name = "DURATION")]
    pub(crate) bound: Option<Span>,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

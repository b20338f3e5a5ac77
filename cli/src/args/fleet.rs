//! The arguments of what concerns all keys of an account.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::after;

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel plan                          with the careful defaults: keys of 90 days are due
  keywheel plan --policy fleet.yaml      by the rules of a policy
  keywheel plan --policy fleet.yaml --all
  keywheel plan --json | jq -r 'select(.action == \"rotate\").user'

Nothing is changed: IAM's credential report and the tagged secrets are read, and the users whose key may be due. With
--json a line of JSON for each user and finding. Exit code 1 where something could not be read; its users are skipped.
`keywheel rotate --policy fleet.yaml --user <name>` starts a run by the same rules."))]
pub(crate) struct PlanArgs {
    /// A file with the fleet's policy, in YAML or JSON; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// List the users that are left alone as well
    #[arg(long)]
    pub(crate) all: bool,
}

/// A policy with everything in it, as the help shows it.
pub(crate) const SAMPLE: &str =
    "  defaults: {frequency: 90d}             # or daily, weekly, monthly; single durations override it
  rules:                                 # the first that fits decides
    - name: mail
      match: {user: \"svc-mail-*\"}        # also path, account, and tags of the secret
      set: {frequency: monthly, wave: 0, owner: mail@example.com}
  exemptions:
    - {user: svc-sap, owner: sap@example.com, reason: the vendor is on leave, until: 2027-03-31}
  limits:
    keys_per_run: 50
    freeze:
      - {from: 2026-12-20T00:00:00Z, until: 2027-01-04T00:00:00Z, reason: year end}
  regions: [eu-west-1]                   # where managed secrets are
  unused_after: 90d";

#[derive(Debug, Args)]
#[command(after_help = after(&format!("\
Examples:
  keywheel policy check fleet.yaml
  keywheel policy explain --user svc-mail --policy fleet.yaml

A policy, of which every part may be left out:
{SAMPLE}")))]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) action: PolicyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyAction {
    /// Check a policy; what is wrong is said with its line
    Check {
        /// A file with the policy, in YAML or JSON; - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Say which rule decides about a user, and what it says
    Explain {
        /// The IAM user
        #[arg(long, value_name = "NAME")]
        user: String,
        /// A file with the policy; without it the careful defaults hold
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

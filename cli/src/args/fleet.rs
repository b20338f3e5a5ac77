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
  keywheel plan --pushed                 by the policy that campaigns follow
  keywheel plan --json | jq -r 'select(.action == \"rotate\").user'

Nothing is changed: IAM's credential report and the tagged secrets are read, and the users whose key may be due. With
--json a line of JSON for each user and finding. Exit code 1 where something could not be read; its users are skipped.
`keywheel rotate --policy fleet.yaml --user <name>` starts a run by the same rules."))]
pub(crate) struct PlanArgs {
    /// A file with the fleet's policy, in YAML or JSON; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Take the policy that was pushed
    #[arg(long, conflicts_with = "policy")]
    pub(crate) pushed: bool,
    /// List the users that are left alone as well
    #[arg(long)]
    pub(crate) all: bool,
}

/// A policy with everything in it, as the help shows it.
pub(crate) const SAMPLE: &str =
    "  defaults: {frequency: 90d, warn: 7d}   # or daily, weekly, monthly; single durations override it
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
  accounts: [\"444455556666\"]             # whose users are rotated beside those of this one
  unused_after: 90d";

#[derive(Debug, Args)]
#[command(after_help = after(&format!("\
Examples:
  keywheel policy check fleet.yaml
  keywheel policy explain --user svc-mail --policy fleet.yaml
  keywheel policy push fleet.yaml        shows what changes for whom, asks, and writes it into the bucket
  keywheel policy schema > fleet.schema.json

An editor that knows YAML completes and checks a policy whose first line names the schema:
  # yaml-language-server: $schema=fleet.schema.json

Campaigns follow the policy that was pushed last, and its freezes hold runs under way as well. A policy with a mistake
is not pushed. To see what one would change, leave --yes away and answer no.

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
        /// Take the policy that was pushed
        #[arg(long, conflicts_with = "policy")]
        pushed: bool,
    },
    /// Show what a policy changes for whom, and make it the one that campaigns follow
    Push {
        /// A file with the policy, in YAML or JSON; - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Print the JSON Schema of a policy, by which editors complete and check one
    Schema,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel fleet run                     rotate all keys that are due by the pushed policy, and follow
  keywheel fleet run --dry-run           make the plan and end
  keywheel fleet run --secret app/mail --secret app/search
  keywheel fleet status                  the campaigns that Step Functions remembers: 90 days
  keywheel fleet status 0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10
  keywheel fleet stop

A campaign makes its plan, then starts the rotations batch by batch, one wave after the other. It stops where more
of a wave fail than the policy's failure_tolerance_percent. Only one runs at a time. A schedule starts one as well.
Ending the command with Ctrl-C never ends a campaign."))]
pub(crate) struct FleetArgs {
    #[command(subcommand)]
    pub(crate) action: FleetAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FleetAction {
    /// Start a campaign and follow it to its end
    Run(FleetRun),
    /// Show campaigns, or one of them
    Status {
        /// The campaign's id; without it, the newest are listed
        #[arg(value_name = "ID")]
        id: Option<String>,
        /// List all that are remembered
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
    /// Stop a campaign; the rotations that it has started go on
    Stop {
        /// The campaign's id; without it, the one that runs
        #[arg(value_name = "ID")]
        id: Option<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FleetRun {
    /// A managed secret to be rotated whatever its key's age, by name or ARN; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<String>,
    /// Make the plan and say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The version of the pushed policy; the newest unless given
    #[arg(long, value_name = "VERSION")]
    pub(crate) policy_version: Option<String>,
    /// Do not follow it
    #[arg(long)]
    pub(crate) detach: bool,
}

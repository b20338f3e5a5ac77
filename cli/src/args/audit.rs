//! The arguments of what only looks.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::after;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("shown").multiple(true).args(["policy", "pushed", "csv", "html", "enroll_file"]))]
#[command(after_help = after("\
Examples:
  keywheel audit                              a line for every key, the worst first
  keywheel audit --html keys.html             the same as one page, to be passed on
  keywheel audit --policy fleet.yaml --csv    by the rules of a policy, for a spreadsheet
  keywheel audit --enroll-file keys.csv       the users that nobody manages, to be filled in and enrolled
  keywheel audit --print-policy               the IAM policy that this command and `keywheel key` need
  keywheel audit --json | jq -r 'select(.would == \"rotate\").key_id'

Nothing is changed, no secret's value is read, and nothing needs to be deployed. IAM's credential report names the
users; each that has keys is then asked for by name. With --json a line for each key (kind: key), for what concerns no
key (kind: finding), and last one that counts them (kind: summary). Exit code 1 where something could not be read: what
and why is said.

Terraform leaves no mark on what it makes: the column names a tag or a path that people use with it, and says maybe.

--enroll-file writes user,secret,owner,retire for `keywheel enroll --from`. Name each user's secret in its row, and in
`retire` a key that is to go; take the other rows out."))]
pub(crate) struct AuditArgs {
    /// A file with the fleet's policy, in YAML or JSON; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Take the policy that was pushed; needs an installation, and the right to read its bucket
    #[arg(long, conflicts_with = "policy")]
    pub(crate) pushed: bool,
    /// Write comma-separated values instead of a table
    #[arg(long)]
    pub(crate) csv: bool,
    /// Write a page for people as well
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the users that nobody manages, for `keywheel enroll --from`
    #[arg(long, value_name = "FILE")]
    pub(crate) enroll_file: Option<PathBuf>,
    /// Print the least IAM policy that this command and `keywheel key` need, and end
    #[arg(long, conflicts_with = "shown")]
    pub(crate) print_policy: bool,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel key AKIAIOSFODNN7EXAMPLE
  keywheel key svc-mail                 every key of a user
  keywheel key app/mail                 every key of the user that a secret is tagged for
  keywheel key AKIAIOSFODNN7EXAMPLE --json

Nothing is changed and no secret's value is read. Of a key that nobody manages, and where Keywheel is not deployed, it
says what IAM knows. Of an Inactive key it names the command that brings it back. Exit code 1 where something could not
be read, or the key is another account's."))]
pub(crate) struct KeyArgs {
    /// An access key id, a user or a secret
    #[arg(value_name = "KEYID|USER|SECRET")]
    pub(crate) what: String,
}

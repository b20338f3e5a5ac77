//! The arguments of the advice about keys that could go.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::after;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["who", "all"]))]
#[command(after_help = after("\
Examples:
  keywheel advise svc-mail
  keywheel advise AKIAIOSFODNN7EXAMPLE --in eu-west-1 --in us-east-1
  keywheel advise --all --ip-ranges ip-ranges.json
  keywheel advise --all --json | jq -r 'select(.way == \"oidc\").user'

Where all that a key was used for in 90 days shows one kind of caller, the way that it could take without a key is said:
a role (Lambda, ECS, EC2), a role for GitHub's tokens, IAM Roles Anywhere for a host with a fixed address. Nothing is
changed. Where several kinds use it, or too little is known, nothing is advised, and it is said why.

CloudTrail is asked two times a second at most in each region: a key takes a second or so. --ip-ranges takes AWS's list of
its addresses (the file ip-ranges.json that it publishes), which tells an instance from a host of your own.
Exit code 1 where something could not be read."))]
pub(crate) struct AdviseArgs {
    /// An IAM user, or an access key id
    #[arg(value_name = "USER|KEYID")]
    pub(crate) who: Option<String>,
    /// All Active keys of the account
    #[arg(long)]
    pub(crate) all: bool,
    /// A region whose history is read; may be given several times. All that are enabled unless given
    #[arg(long = "in", value_name = "REGION")]
    pub(crate) regions: Vec<String>,
    /// AWS's ip-ranges.json
    #[arg(long, value_name = "FILE")]
    pub(crate) ip_ranges: Option<PathBuf>,
}

//! The commands that put an installation there and take it away.

use clap::Args;

use super::after;

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel install --from dist --create-bucket
  keywheel install --from dist --parameter LogRetentionDays=30 --tag team=platform
  keywheel install --from dist --parameter SlackWebhookUrl=@webhook.txt
  keywheel install --print-policy > deployer-policy.json        what whoever installs must be allowed

Every file is held against its hash first. What CloudFormation would change is shown, and nothing of it is
done without a yes. Run again with a later release, it updates; parameters that are not given stay as they
are. A value @FILE is read from that file, so that it is on no command line."))]
pub(crate) struct Install {
    /// The release, unpacked
    #[arg(long, value_name = "DIR", default_value = "dist")]
    pub(crate) from: std::path::PathBuf,
    /// The bucket of this region for functions and templates: keywheel-artefacts-ACCOUNT-REGION unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// Make the bucket where it is missing: encrypted, private, with versions
    #[arg(long)]
    pub(crate) create_bucket: bool,
    /// The stack: keywheel-STAGE unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) stack: Option<String>,
    /// A parameter of the template; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) parameter: Vec<(String, String)>,
    /// A tag for everything in the stack; may be given several times. They take the place of those before
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) tag: Vec<(String, String)>,
    /// The role that CloudFormation works with, where it is not your own rights
    #[arg(long, value_name = "ARN")]
    pub(crate) role: Option<String>,
    /// Print what whoever installs must be allowed, and do nothing
    #[arg(long)]
    pub(crate) print_policy: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel uninstall               names what is still open, and does nothing while there is any
  keywheel uninstall --untag       takes our tags off users and secrets as well
  keywheel uninstall --leave       goes all the same, and says what is then left to be done by hand

Secrets, keys, the installation's bucket and the records of leaked keys stay. The machines and their roles,
which outlive the stack, are removed here, and so are denies of sessions that have all ended."))]
pub(crate) struct Uninstall {
    /// The stack: keywheel-STAGE unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) stack: Option<String>,
    /// Go although something is open. Runs under way end where they are
    #[arg(long)]
    pub(crate) leave: bool,
    /// Take the tags keywheel:… off users and secrets; another stage of this account loses them too
    #[arg(long)]
    pub(crate) untag: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// A name and a value.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it takes NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_parted_at_its_first_sign() {
        assert_eq!(pair("Stage=prod"), Ok(("Stage".into(), "prod".into())));
        assert_eq!(pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(pair("Empty="), Ok(("Empty".into(), String::new())));
        assert!(pair("Stage").is_err() && pair("=prod").is_err());
    }
}

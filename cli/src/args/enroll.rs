//! What the commands take that put keys under management, take them out of it, and hand them to programs.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use keywheel::policy::Span;

use super::after;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").required(true).args(["user", "from"]))]
#[command(after_help = after("\
Examples:
  keywheel enroll --user svc-mail --secret app/mail
  keywheel enroll --user svc-mail --secret app/mail --retire AKIAIOSFODNN7EXAMPLE
  keywheel enroll --user svc-mail --secret app/mail --create-secret        its first run makes the first key
  keywheel enroll --user svc-mail --secret app/mail --create-secret --import-profile mailer
  pass show aws/mailer | keywheel enroll --user svc-mail --secret app/mail --import-stdin --yes
  keywheel enroll --user svc-mail --secret app/mail --readers arn:aws:iam::<account>:role/mailer
  keywheel enroll --from users.csv                             its first line: user,secret,owner,retire
  keywheel enroll --user svc-mail --secret app/mail --yes      in scripts

Two tags are set: keywheel:secret on the user and keywheel:user on the secret. No key is touched.
Run again, it changes nothing. To see what it would do, leave --yes away and answer no.

An imported pair is taken as JSON (also that of `aws iam create-access-key`), as the CSV of the console, or as lines
like aws_access_key_id = …; it is stored once AWS has answered to it as this very user, and is never shown.

--readers writes the secret's resource policy: its value is then read by them, by Keywheel's roles, by the account's
root user and by whoever enrols. Nobody else reads it, whatever else allows it. Who may change the policy is as before."))]
pub(crate) struct Enroll {
    /// The IAM user
    #[arg(long, value_name = "NAME", requires = "secret")]
    pub(crate) user: Option<String>,
    /// The secret that holds the user's key: name or ARN
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    pub(crate) secret: Option<String>,
    /// A list of users in CSV, with the columns user, secret, owner and retire; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Make the secret if there is none: without a key, or with the imported one
    #[arg(long)]
    pub(crate) create_secret: bool,
    /// Store the pair that standard input holds
    #[arg(long, conflicts_with_all = ["import_profile", "from"])]
    pub(crate) import_stdin: bool,
    /// Store the pair of this profile of the AWS configuration
    #[arg(long, value_name = "PROFILE", conflicts_with = "from")]
    pub(crate) import_profile: Option<String>,
    /// A key of this user, not the one in the secret, that is to be retired as well
    #[arg(long, value_name = "KEYID", conflicts_with = "from")]
    pub(crate) retire: Option<String>,
    /// Whom to tell of this key: the secret's tag keywheel:owner
    #[arg(long, value_name = "OWNER", conflicts_with = "from")]
    pub(crate) owner: Option<String>,
    /// The roles and users that alone may read the secret's value
    #[arg(long, value_name = "ARN", num_args = 1.., conflicts_with = "from")]
    pub(crate) readers: Vec<String>,
    /// A Terraform state, in which the user's key is looked for
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub(crate) terraform_state: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel unenroll svc-mail
  keywheel unenroll app/mail --yes

Keywheel's tags are taken off the user and off the secret. Keys, the secret, its value and its resource policy stay as
they are. While a run is at work on the user it is refused: the run would be left half way."))]
pub(crate) struct Unenroll {
    /// The user, or the secret by name or ARN
    #[arg(value_name = "USER|SECRET")]
    pub(crate) what: String,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel credentials --secret app/mail --region eu-west-1
  keywheel --profile reader credentials --secret app/mail --session 1h

In ~/.aws/config, for any program that uses an AWS SDK or the AWS CLI:
  [profile mailer]
  credential_process = keywheel --profile reader credentials --secret app/mail --region eu-west-1

The profile named by --profile is one that may read the secret, never the one that is being defined; an empty profile
stands for the role of the instance or container. Nothing is kept in a file: the SDK keeps the pair in memory until it
expires, and then asks again.

The pair goes to standard output, which must not be a terminal; what goes wrong goes to standard error alone. boto3 and
the AWS CLI ask anew 15 minutes before the end: with a shorter --cache they would ask for every call."))]
pub(crate) struct Credentials {
    /// The secret, by name or ARN
    #[arg(long, value_name = "ID")]
    pub(crate) secret: String,
    /// How long the program may keep the pair; at most the hour that rotations reckon with by default
    #[arg(long, value_name = "DURATION", default_value = "30m", conflicts_with = "session")]
    pub(crate) cache: Span,
    /// Hand out a session of this length instead, so that the program never holds the long-lived key: 15m to 36h
    #[arg(long, value_name = "DURATION")]
    pub(crate) session: Option<Span>,
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("keywheel").chain(line.split_whitespace())).map(|cli| cli.command)
    }

    #[test]
    fn one_user_or_a_list_is_enrolled() {
        for right in [
            "enroll --user a --secret b",
            "enroll --user a --secret b --create-secret --import-stdin --yes",
            "enroll --user a --secret b --import-profile p --retire AKIAIOSFODNN7EXAMPLE --owner x",
            "enroll --user a --secret b --terraform-state terraform.tfstate",
            "enroll --from users.csv",
            "enroll --from - --create-secret --yes",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "enroll",
            "enroll --user a",
            "enroll --secret b",
            "enroll --from users.csv --user a --secret b",
            "enroll --from users.csv --secret b",
            "enroll --from users.csv --import-stdin",
            "enroll --from users.csv --readers arn:aws:iam::111122223333:role/a",
            "enroll --from users.csv --retire AKIAIOSFODNN7EXAMPLE",
            "enroll --user a --secret b --import-stdin --import-profile p",
            "enroll --user a --secret b --import-stdin AKIAIOSFODNN7EXAMPLE",
            "enroll --user a --secret b --readers",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let Command::Enroll(args) = parse("enroll --user a --secret b --readers x y --yes").unwrap() else {
            panic!("not enroll");
        };
        assert_eq!((args.readers, args.yes), (vec!["x".to_owned(), "y".to_owned()], true));
    }

    #[test]
    fn unenroll_names_one_thing_and_credentials_one_secret() {
        assert!(parse("unenroll svc-mail").is_ok() && parse("unenroll app/mail -y").is_ok());
        assert!(parse("unenroll").is_err() && parse("unenroll a b").is_err());
        let Command::Credentials(args) = parse("credentials --secret app/mail").unwrap() else {
            panic!("not credentials");
        };
        assert_eq!((args.cache.to_string(), args.session), ("30m".to_owned(), None));
        assert!(parse("credentials --secret a --session 1h").is_ok());
        assert!(parse("credentials --secret a --session 1h --cache 5m").is_err());
        assert!(parse("credentials a").is_err() && parse("credentials").is_err());
    }
}

//! The command line.

mod advise;
mod audit;
mod enroll;
mod fleet;
mod install;
mod leaks;
#[cfg(test)]
mod lines;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use keywheel::policy::{Policy, PolicyOverride, Span};
use keywheel::rotation::Reason;
use keywheel::switch::Mode;

use crate::error::{EXIT_CODES, Trouble};
pub(crate) use advise::AdviseArgs;
pub(crate) use audit::{AuditArgs, KeyArgs};
pub(crate) use enroll::{Credentials, Enroll, Unenroll};
#[cfg(test)]
pub(crate) use fleet::SAMPLE;
pub(crate) use fleet::{FleetAction, FleetArgs, FleetRun, PlanArgs, PolicyAction, PolicyArgs};
pub(crate) use install::{Install, Uninstall};
pub(crate) use leaks::{ContainmentArgs, Drill, EmergencyAction, EmergencyArgs, IncidentArgs, Revoke};

/// Rotates AWS IAM access keys without downtime.
///
/// Keywheel's state machines do the work; this command starts them, watches them and explains them. It uses
/// the ordinary AWS configuration: profiles, SSO, environment variables, endpoints.
#[derive(Debug, Parser)]
#[command(name = "keywheel", version, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Examples:
  keywheel status                                   every managed user, one line each
  keywheel status --user svc-mail                   where the rotation of one user is
  keywheel enroll --user svc-mail --secret app/mail put a user's key under management
  keywheel enroll --from users.csv                  the same for many
  keywheel unenroll svc-mail                        take it out of management
  keywheel credentials --secret app/mail            the current key, for a profile's credential_process
  keywheel rotate --user svc-mail --wait            make a new key and follow the run
  keywheel rollback --user svc-mail                 bring the old key back
  keywheel audit                                    every key of the account; needs read rights alone
  keywheel key AKIAIOSFODNN7EXAMPLE                 whose key this is, and how it is brought back
  keywheel plan                                     which keys are due, and why
  keywheel fleet run                                rotate all that are due, wave by wave
  keywheel resume --user svc-mail --wait 3d         give late users of the old key three more days
  keywheel revoke AKIAIOSFODNN7EXAMPLE --wait       a key has leaked: make it Inactive now
  keywheel incident                                 the keys that have leaked, and what was done
  keywheel triage finding.json                      what an event about a leaked key would set in motion

Every command takes --json. `keywheel help <command>` shows its examples and exit codes.";

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The AWS profile to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// The AWS region Keywheel is installed in
    #[arg(long, global = true, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// The installation, where an account has several
    #[arg(long, global = true, value_name = "STAGE", env = "KEYWHEEL_STAGE", default_value = "prod")]
    pub(crate) stage: String,
    /// Write JSON to stdout, one object or one per line, and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put a release of Keywheel into this account and region, or update the one that is there
    Install(Install),
    /// Take Keywheel away again, once nothing is open
    Uninstall(Uninstall),
    /// Put a user's key under management, or many
    Enroll(Enroll),
    /// Take a user's key out of management
    Unenroll(Unenroll),
    /// Hand the current key to an AWS SDK or the AWS CLI, as their `credential_process`
    Credentials(Credentials),
    /// Rotate keys: each user is a run of its own
    Rotate(Rotate),
    /// Show where rotations are, and what to do
    Status(Status),
    /// Decide about a run that was held, or take over one that was aborted
    Resume(Resume),
    /// Bring the superseded key back
    Rollback(Rollback),
    /// Make a key Active again that nobody had used
    Restore(Restore),
    /// Show or set whether Keywheel changes anything
    Mode(ModeArgs),
    /// Make a leaked key Inactive, and deny the sessions that it has minted
    Revoke(Revoke),
    /// Show leaked keys; call one a false alarm, or close it
    Incident(IncidentArgs),
    /// Show or set whether leaked keys are contained
    Containment(ContainmentArgs),
    /// Show, check or set the policy that decides about findings
    Emergency(EmergencyArgs),
    /// Show every key of the account and what Keywheel would do; needs nothing deployed
    Audit(AuditArgs),
    /// Show one key: whose it is, its state and use, its version and run, and how it is brought back
    Key(KeyArgs),
    /// Show which keys are due, and what a run over all of them would do
    Plan(PlanArgs),
    /// Check the fleet's policy, explain what it says about a user, push it, or print its schema
    Policy(PolicyArgs),
    /// Rotate all keys that are due: start a campaign, watch it, stop it
    Fleet(FleetArgs),
    /// Say which keys could go, because what uses them could have a role
    Advise(AdviseArgs),
    /// Show what is wrong with this installation and what to do, and which sources of leaks can reach it
    #[command(after_help = after(leaks::DOCTOR))]
    Doctor,
    /// Leak a throwaway key, and measure how long it lives
    Drill(Drill),
    /// Say what an event about a leaked key would set in motion
    Triage(TriageArgs),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("who").required(true).multiple(true).args(["user", "secret"]))]
#[command(after_help = after("\
Examples:
  keywheel rotate --user svc-mail
  keywheel rotate --user svc-mail --user svc-batch --secret app/search --wait
  keywheel rotate --user svc-mail --dry-run
  keywheel rotate --user svc-mail --reason leaked --wait

A rehearsal, for a test user:
  keywheel rotate --user test --overlap 30s --max-overlap 2m --quiet-window 10s --grace 30s --wait

Without --wait the command ends once the runs are started. Ending it with Ctrl-C never ends a run."))]
pub(crate) struct Rotate {
    /// A managed user; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Vec<String>,
    /// A managed secret, by name or ARN; may be given several times
    #[arg(long, value_name = "ID")]
    pub(crate) secret: Vec<String>,
    /// Follow the runs to their end
    #[arg(long, short)]
    pub(crate) wait: bool,
    /// Change nothing; wait for the run to say what it would do
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Why
    #[arg(long, value_enum, default_value_t = Why::Manual)]
    pub(crate) reason: Why,
    /// The fleet's policy, whose rules say how long a run of each user takes
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub(crate) durations: Durations,
}

/// Why a rotation is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Why {
    /// A person asked
    Manual,
    /// The key is due
    Scheduled,
    /// The current key is known to others: no overlap, the old key is kept Inactive as evidence
    Leaked,
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::Manual => Self::Manual,
            Why::Scheduled => Self::Scheduled,
            Why::Leaked => Self::Leaked,
        }
    }
}

/// Durations of this run that differ from the installation's.
#[derive(Debug, Args)]
pub(crate) struct Durations {
    /// How long both keys stay Active at least, such as 24h
    #[arg(long, value_name = "DURATION")]
    pub(crate) overlap: Option<Span>,
    /// How long to wait for the old key to fall quiet, such as 14d
    #[arg(long, value_name = "DURATION")]
    pub(crate) max_overlap: Option<Span>,
    /// How long after the changeover the last use is read; below 4h 15m only for rehearsals
    #[arg(long, value_name = "DURATION")]
    pub(crate) quiet_window: Option<Span>,
    /// How long the old key stays Inactive before it is deleted, such as 7d
    #[arg(long, value_name = "DURATION")]
    pub(crate) grace: Option<Span>,
}

impl Durations {
    /// The part of the run's policy that these set, unless they contradict each other.
    pub(crate) fn checked(&self) -> Result<PolicyOverride, Trouble> {
        let wish = PolicyOverride {
            overlap: self.overlap,
            max_overlap: self.max_overlap,
            quiet_window: self.quiet_window,
            grace: self.grace,
            ..PolicyOverride::default()
        };
        match Policy::default().with(&wish) {
            Ok(_) => Ok(wish),
            Err(why) => {
                Err(Trouble::new(format!("{why}."), "Make --max-overlap at least as long as --overlap."))
            }
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel status
  keywheel status --user svc-mail
  keywheel status --json | jq -r 'select(.user).user'"))]
pub(crate) struct Status {
    /// One managed user; without it, all of them
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("decision").required(true).args(["wait", "deactivate_anyway", "keep_old"]))]
#[command(after_help = after("\
Examples:
  keywheel resume --user svc-mail --wait 3d             wait three more days for the old key to fall quiet
  keywheel resume --user svc-mail --deactivate-anyway   make the old key Inactive though it is used
  keywheel resume --user svc-mail --keep-old            leave both keys as they are

A new run takes over where the old one ended. Late callers of the old key are shown first."))]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub(crate) struct Resume {
    /// The managed user
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    /// Start again and wait this long at most for the old key to fall quiet
    #[arg(long, value_name = "DURATION")]
    pub(crate) wait: Option<Span>,
    /// Start again and make the old key Inactive now, though it is still used
    #[arg(long)]
    pub(crate) deactivate_anyway: bool,
    /// Start nothing, and mark the old key as one to be kept
    #[arg(long)]
    pub(crate) keep_old: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Follow the new run to its end
    #[arg(long, conflicts_with = "keep_old")]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel rollback --user svc-mail
  keywheel rollback --user svc-mail --yes --wait

Possible until the old key is deleted. The secret names the old key again within seconds; the newer key is
then the superseded one, and goes through overlap, gate and grace before it is deleted."))]
pub(crate) struct Rollback {
    /// The managed user
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Follow the run to its end
    #[arg(long, short)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) durations: Durations,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel restore AKIAIOSFODNN7EXAMPLE
  keywheel restore AKIAIOSFODNN7EXAMPLE --yes

For a key that was made Inactive because nobody used it. Possible until it is deleted; the run that would
delete it is stopped, and the key counts as used from today. Run again, it changes nothing."))]
pub(crate) struct Restore {
    /// The access key id
    #[arg(value_name = "KEYID")]
    pub(crate) key: String,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel mode              show it
  keywheel mode dry-run      every run says what it would do, and changes nothing
  keywheel mode live         keys are rotated
  keywheel mode paused       nothing is changed; runs under way wait"))]
pub(crate) struct ModeArgs {
    /// dry-run, live or paused; without it, the mode is shown
    #[arg(value_name = "MODE", value_parser = any_case::<Mode>)]
    pub(crate) mode: Option<Mode>,
}

#[derive(Debug, Args)]
#[command(after_help = after("\
Examples:
  keywheel triage finding.json
  keywheel triage events/leaks/*.json
  aws guardduty get-findings … | jq .Findings[0] | keywheel triage -

One JSON object a line and file: class, targets, reason. Nothing is asked of AWS and nothing is changed. What is
no event gets the class REJECT; only a file that cannot be opened is an error."))]
pub(crate) struct TriageArgs {
    /// Files with one event each; - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<std::path::PathBuf>,
}

/// A switch, in whatever case.
fn any_case<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.to_lowercase().parse()
}

/// A command's examples with the exit codes below.
fn after(examples: &str) -> String {
    format!("{examples}\n\n{EXIT_CODES}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("keywheel").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples_and_exit_codes() {
        for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{}", command.get_name());
        }
    }

    #[test]
    fn several_users_and_secrets_are_taken_and_none_is_refused() {
        let Command::Rotate(rotate) = parse("rotate --user a --user b --secret c").unwrap().command else {
            panic!("not rotate");
        };
        assert_eq!((rotate.user.len(), rotate.secret.len()), (2, 1));
        assert!(parse("rotate").is_err());
        assert!(parse("rotate --user a --overlap soon").is_err());
    }

    #[test]
    fn resume_wants_exactly_one_decision() {
        assert!(parse("resume --user a").is_err());
        assert!(parse("resume --user a --wait 1d --keep-old").is_err());
        assert!(parse("resume --user a --wait 1d").is_ok());
        assert!(parse("resume --user a --keep-old --follow").is_err());
    }

    #[test]
    fn a_plan_goes_by_one_policy() {
        assert!(parse("plan").is_ok() && parse("plan --pushed --all").is_ok());
        assert!(parse("plan --pushed --policy fleet.yaml").is_err());
        assert!(parse("policy explain --user a --pushed").is_ok());
        assert!(parse("policy explain --user a --pushed --policy fleet.yaml").is_err());
        assert!(parse("policy push").is_err());
        let Command::Policy(args) = parse("policy push fleet.yaml --yes").unwrap().command else {
            panic!("not policy");
        };
        assert!(matches!(args.action, PolicyAction::Push { yes: true, .. }));
    }

    #[test]
    fn an_audit_has_one_form_and_a_policy_that_is_printed_goes_with_no_other_option() {
        for right in [
            "audit",
            "audit --json",
            "audit --csv --policy fleet.yaml",
            "audit --html keys.html --enroll-file keys.csv",
            "audit --print-policy",
            "key AKIAIOSFODNN7EXAMPLE",
            "key app/mail --json",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "audit --pushed --policy fleet.yaml",
            "audit --print-policy --csv",
            "audit --print-policy --html keys.html",
            "key",
            "key a b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_help_shows_how_an_editor_gets_the_schema() {
        let Command::Policy(args) = parse("policy schema").unwrap().command else { panic!("not policy") };
        assert!(matches!(args.action, PolicyAction::Schema));
        assert!(parse("policy schema fleet.yaml").is_err());
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("policy").unwrap().render_long_help().to_string();
        assert!(help.contains("keywheel policy schema > fleet.schema.json"), "{help}");
        assert!(help.contains("# yaml-language-server: $schema=fleet.schema.json"), "{help}");
    }

    #[test]
    fn a_campaign_is_over_all_that_is_due_or_over_the_secrets_that_are_named() {
        let run = |line: &str| match parse(line).unwrap().command {
            Command::Fleet(FleetArgs { action: FleetAction::Run(run) }) => run,
            other => panic!("{other:?}"),
        };
        let all = run("fleet run");
        assert!(all.secret.is_empty() && !all.dry_run && !all.detach && all.policy_version.is_none());
        let some = run("fleet run --secret a --secret b --dry-run --policy-version v1 --detach");
        assert_eq!((some.secret, some.policy_version), (vec!["a".into(), "b".into()], Some("v1".into())));
        assert!(some.dry_run && some.detach);
        for right in
            ["fleet status", "fleet status --all", "fleet status 0b5b", "fleet stop", "fleet stop 0b5b -y"]
        {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in ["fleet", "fleet run svc-mail", "fleet status 0b5b --all", "fleet stop a b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn advice_is_about_somebody_or_about_all() {
        assert!(parse("advise svc-mail --in eu-west-1 --in us-east-1").is_ok());
        assert!(parse("advise --all --ip-ranges ip-ranges.json").is_ok());
        assert!(parse("advise").is_err() && parse("advise svc-mail --all").is_err());
    }

    #[test]
    fn a_false_alarm_needs_an_incident_and_a_reason() {
        assert!(parse("incident").is_ok());
        assert!(parse("incident AKIA --false-alarm --reason tests --for 30d").is_ok());
        assert!(parse("incident AKIA --close").is_ok());
        for wrong in [
            "incident --close",
            "incident --false-alarm --reason tests",
            "incident AKIA --false-alarm",
            "incident AKIA --reason tests",
            "incident AKIA --for 3d",
            "incident AKIA --close --false-alarm --reason tests",
            "incident AKIA --close --for 3d",
            "incident --html x.html",
            "incident AKIA --close --html x.html",
            "revoke",
            "emergency",
            "emergency set",
            "containment maybe",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_installation_takes_parameters_and_tags_by_name() {
        let Command::Install(install) =
            parse("install --parameter A=1 --parameter B= --tag team=x --yes").unwrap().command
        else {
            panic!("not install");
        };
        assert_eq!((install.parameter.len(), install.tag.len(), install.yes), (2, 1, true));
        assert_eq!(install.from, std::path::PathBuf::from("dist"));
        assert!(parse("install --parameter A").is_err() && parse("install --tag =x").is_err());
        assert!(parse("uninstall --leave --untag -y").is_ok() && parse("uninstall keywheel-prod").is_err());
    }

    #[test]
    fn common_options_stand_before_or_after_the_command() {
        assert!(parse("status --json --region eu-west-1").unwrap().common.json);
        assert!(parse("--json status").unwrap().common.json);
        assert!(parse("mode alive").is_err());
        assert!(parse("mode Live").is_ok());
    }
}

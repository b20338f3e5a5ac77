//! Which keyless way fits a caller that needs no access key: a role, a CI system's OIDC tokens, IAM Roles Anywhere.
//!
//! It is advice, so nothing is done, and a wrong one costs a person an afternoon. Three goals pull apart: to speak where
//! somebody could get rid of a key; to be silent where two programs share it, as the second would be cut off; and not to
//! guess. The last two win: advice is given where every call that tells of a place tells of one kind of it, over a week
//! and more. What nobody documents is not recognised, so GitLab's or Jenkins' runners get no advice of their own: their
//! calls look like any program's.
//!
//! What is recognised, and who says so:
//!
//! - `exec-env/` in a User-Agent is the variable `AWS_EXECUTION_ENV`, which every AWS SDK sends along. Lambda sets it to
//!   `AWS_Lambda_<runtime>` (docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html), ECS to `AWS_ECS_FARGATE`
//!   or `AWS_ECS_EC2` (docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-environment-variables.html), and CodeBuild,
//!   as its logs show, to the same. `EC2` is what the Windows images of EC2 set, `CloudShell` is CloudShell's: both are
//!   seen, not documented.
//! - `aws-actions/configure-aws-credentials`, the way from a key to a GitHub workflow, calls STS first and names itself
//!   `configure-aws-credentials-for-github-actions` there. The programs that run after it in the same job do not, so the
//!   calls of its address count as its own.
//! - `vpcEndpointId` is there where a call came through a VPC's endpoint, and `sourceIPAddress` is a service's name where
//!   a service called with the caller's rights, or `AWS Internal`
//!   (docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html). What a service
//!   does in between tells nothing of the place, and is left out.
//! - AWS publishes the addresses of EC2, which are those of instances and NAT gateways
//!   (docs.aws.amazon.com/vpc/latest/userguide/aws-ip-ranges.html). Whoever has that file can hand it in.
//!
//! Terraform and the AWS CLI name themselves too, but they are programs and no places. And a User-Agent is written by the
//! caller: whoever lies in it fools this page and nothing else.
//!
//! CloudTrail's history has management events only. A key that reads objects and nothing else has none, and where IAM
//! says that the last use was of a service that the history does not show, nothing is advised.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::clock::after;
use crate::ids::RunId;
use crate::incident::findings::Gaps;

/// With fewer calls than this nothing is told: somebody may have tried the key once.
const FEWEST: u32 = 10;
/// A use that is seen for less long than this may be a migration, or a test.
const SHORTEST: Duration = Duration::from_hours(7 * 24);
/// How long one address is seen before it counts as a fixed one: a home's changes within days.
const FIXED: Duration = Duration::from_hours(14 * 24);
/// On how many different days it is seen then, at least.
const FIXED_DAYS: usize = 5;
/// The agent of the action that hands a key to a GitHub workflow.
const GITHUB: &str = "configure-aws-credentials-for-github-actions";

/// What a program says of where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    Lambda,
    Ecs,
    Ec2,
    CloudShell,
    GitHub,
    Nothing,
}

impl Sign {
    fn of(agent: &str) -> Self {
        let words = agent.split([' ', '[', ']']);
        for word in words {
            if word.starts_with(GITHUB) {
                return Self::GitHub;
            }
            match word.strip_prefix("exec-env/") {
                Some(place) if place.starts_with("AWS_Lambda_") => return Self::Lambda,
                Some("AWS_ECS_FARGATE" | "AWS_ECS_EC2") => return Self::Ecs,
                Some("EC2") => return Self::Ec2,
                Some("CloudShell") => return Self::CloudShell,
                _ => {}
            }
        }
        Self::Nothing
    }
}

/// Where a call came from, as CloudTrail saw it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Endpoint,
    Address(IpAddr),
    Unknown,
}

/// What a key was used for, call by call.
#[derive(Debug, Clone, Default)]
pub struct History {
    calls: u32,
    through: u32,
    span: Option<(Timestamp, Timestamp)>,
    days: BTreeSet<i64>,
    services: BTreeSet<String>,
    callers: BTreeMap<(Origin, Sign), u32>,
}

impl History {
    /// Counts one record of CloudTrail's. One that cannot be understood is a call from an unknown place.
    pub fn add(&mut self, record: &Value) {
        let text = |name: &str| record.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let agent = text("userAgent").unwrap_or_default();
        if RunId::from_user_agent(agent).is_some() {
            // Our own: a new key is tried before it is handed on, and that is nobody's use of it.
            return;
        }
        if let Some(service) = text("eventSource") {
            self.services.insert(service.split('.').next().unwrap_or(service).to_owned());
        }
        let invoked = record.pointer("/userIdentity/invokedBy").is_some_and(Value::is_string);
        let source = text("sourceIPAddress").unwrap_or_default();
        let address: Option<IpAddr> = source.parse().ok();
        if invoked || address.is_none() && is_service(source) {
            self.through = self.through.saturating_add(1);
            return;
        }
        self.calls = self.calls.saturating_add(1);
        if let Some(at) = text("eventTime").and_then(|at| at.parse::<Timestamp>().ok()) {
            let (first, last) = self.span.unwrap_or((at, at));
            self.span = Some((first.min(at), last.max(at)));
            self.days.insert(at.as_second().div_euclid(86_400));
        }
        let origin = match address {
            _ if text("vpcEndpointId").is_some() => Origin::Endpoint,
            Some(address) => Origin::Address(address),
            None => Origin::Unknown,
        };
        let calls = self.callers.entry((origin, Sign::of(agent))).or_default();
        *calls = calls.saturating_add(1);
    }

    /// How many calls tell of a place.
    pub fn calls(&self) -> u32 {
        self.calls
    }

    /// How many calls a service made with the key's rights, which tell of none.
    pub fn through_services(&self) -> u32 {
        self.through
    }

    /// The first call that tells of a place, and the last.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.span
    }

    fn lasts(&self, time: Duration) -> bool {
        self.span.is_some_and(|(first, last)| after(first, time) <= last)
    }

    /// The kinds of caller, and the addresses of those that are only known by one.
    fn kinds(&self, ranges: Option<&Ranges>) -> (BTreeSet<Kind>, BTreeSet<IpAddr>) {
        let runners: BTreeSet<&IpAddr> = self
            .callers
            .keys()
            .filter_map(|(origin, sign)| match (origin, sign) {
                (Origin::Address(address), Sign::GitHub) => Some(address),
                _ => None,
            })
            .collect();
        let (mut kinds, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (origin, sign) in self.callers.keys() {
            kinds.insert(match (sign, origin) {
                (Sign::Lambda, _) => Kind::Lambda,
                (Sign::Ecs, _) => Kind::Ecs,
                (Sign::Ec2, _) => Kind::Ec2,
                (Sign::CloudShell, _) => Kind::Person,
                (Sign::GitHub, _) => Kind::GitHub,
                (Sign::Nothing, Origin::Address(address)) if runners.contains(address) => Kind::GitHub,
                (Sign::Nothing, Origin::Endpoint) => Kind::Vpc,
                (Sign::Nothing, Origin::Address(address))
                    if ranges.is_some_and(|ranges| ranges.hold(*address)) =>
                {
                    Kind::Ec2
                }
                (Sign::Nothing, Origin::Address(address)) => {
                    addresses.insert(*address);
                    Kind::Host
                }
                (Sign::Nothing, Origin::Unknown) => Kind::Unknown,
            });
        }
        (kinds, addresses)
    }
}

/// Whether what stands in place of an address is a service: its name in DNS, or AWS's word for itself.
fn is_service(source: &str) -> bool {
    source == "AWS Internal" || source.split('.').any(|part| part == "amazonaws")
}

/// The addresses of EC2, from the file that AWS publishes.
#[derive(Debug, Clone)]
pub struct Ranges(Vec<(IpAddr, u32)>);

impl Ranges {
    /// Reads `ip-ranges.json`.
    pub fn read(text: &str) -> Result<Self, String> {
        let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut ranges = Vec::new();
        for (list, name) in [("prefixes", "ip_prefix"), ("ipv6_prefixes", "ipv6_prefix")] {
            for entry in document.get(list).and_then(Value::as_array).into_iter().flatten() {
                if entry.get("service").and_then(Value::as_str) == Some("EC2") {
                    let range = entry.get(name).and_then(Value::as_str).unwrap_or_default();
                    ranges
                        .push(range_of(range).ok_or_else(|| format!("{range:?} is no range of addresses"))?);
                }
            }
        }
        if ranges.is_empty() { Err("it names no range of EC2".to_owned()) } else { Ok(Self(ranges)) }
    }

    fn hold(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(network, length)| within(address, *network, *length))
    }
}

fn range_of(text: &str) -> Option<(IpAddr, u32)> {
    let (network, length) = text.split_once('/')?;
    let (network, length): (IpAddr, u32) = (network.parse().ok()?, length.parse().ok()?);
    let longest = if network.is_ipv4() { 32 } else { 128 };
    (length <= longest).then_some((network, length))
}

fn within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    // A shift by all bits has no result: nothing of the address counts then.
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u32::from(address) ^ u32::from(network)).checked_shr(32 - length).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            (u128::from(address) ^ u128::from(network)).checked_shr(128 - length).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// A kind of caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A Lambda function.
    Lambda,
    /// A task of ECS, or a build of CodeBuild.
    Ecs,
    /// An instance, or what is behind a NAT gateway.
    Ec2,
    /// Something in a VPC, or in a network that is connected with one.
    Vpc,
    /// A workflow of GitHub's.
    GitHub,
    /// A machine of which only the address is known.
    Host,
    /// A person with a shell in the console.
    Person,
    /// Nothing is known of it.
    Unknown,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Lambda => "Lambda",
            Self::Ecs => "ECS",
            Self::Ec2 => "EC2",
            Self::Vpc => "a VPC's endpoint",
            Self::GitHub => "GitHub Actions",
            Self::Host => "an address",
            Self::Person => "CloudShell",
            Self::Unknown => "an unknown place",
        }
    }
}

/// A way without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// A role that the place of the program has.
    Role,
    /// A role for the tokens of a CI system.
    Oidc,
    /// A role for a certificate.
    RolesAnywhere,
}

/// What somebody could do instead of keeping the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The way.
    pub way: Way,
    /// The only kind of caller that was seen.
    pub caller: Kind,
    /// What was seen.
    pub why: String,
    /// What to do.
    pub how: String,
}

/// Why nothing is advised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// Not all of its use could be read.
    Partial,
    /// It was hardly used.
    TooFewCalls,
    /// It was not seen for long.
    TooShort,
    /// Several kinds of caller use it, or one of an unknown kind.
    SeveralCallers,
    /// Its callers are known by addresses alone, of which there are several, or one for a short time.
    Wanders,
    /// A person works with it.
    Person,
    /// IAM knows of a use that the history does not show.
    Unseen,
}

/// What there is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// One way fits.
    Fits(Advice),
    /// Nothing is advised: why, in one word and in a sentence.
    Silent(Reason, String),
}

/// Which keyless way fits, from all that the key was used for; `last` is the service of its last use, where IAM knows it.
pub fn advise(history: &History, gaps: &Gaps, last: Option<&str>, ranges: Option<&Ranges>) -> Verdict {
    if !gaps.missing.is_empty() {
        let regions = gaps.missing.join(", ");
        return Verdict::Silent(Reason::Partial, format!("What it did in {regions} could not be read."));
    }
    let calls = history.calls;
    if calls < FEWEST {
        let why = format!("Its history shows {calls} calls; with fewer than {FEWEST} nothing is told.");
        return Verdict::Silent(Reason::TooFewCalls, why);
    }
    if !history.lasts(SHORTEST) {
        return Verdict::Silent(
            Reason::TooShort,
            format!("Its {calls} calls lie less than seven days apart."),
        );
    }
    if let Some(service) = last.filter(|service| !history.services.contains(*service)) {
        let why = format!(
            "Its last use was of {service}, which the history does not show: that has management events only."
        );
        return Verdict::Silent(Reason::Unseen, why);
    }
    let (kinds, addresses) = history.kinds(ranges);
    let kind = match kinds.iter().copied().collect::<Vec<Kind>>().as_slice() {
        [Kind::Unknown] | [] => {
            return Verdict::Silent(
                Reason::SeveralCallers,
                "Nothing tells where its callers are.".to_owned(),
            );
        }
        [kind] => *kind,
        several => {
            let names: Vec<&str> = several.iter().map(|kind| kind.name()).collect();
            let why = format!("Several kinds of caller use it: {}.", names.join(", "));
            return Verdict::Silent(Reason::SeveralCallers, why);
        }
    };
    if kind == Kind::Person {
        return Verdict::Silent(Reason::Person, "A person works with it in CloudShell.".to_owned());
    }
    if kind == Kind::Host && (addresses.len() > 1 || !history.lasts(FIXED) || history.days.len() < FIXED_DAYS)
    {
        let (count, days) = (addresses.len(), history.days.len());
        let why = format!("Its callers are known by {count} addresses alone, seen on {days} days.");
        return Verdict::Silent(Reason::Wanders, why);
    }
    let address = addresses.first().map(ToString::to_string).unwrap_or_default();
    let seen = if gaps.cut.is_empty() { "All" } else { "Of a history that was read in part, all" };
    let why = match kind {
        Kind::Host => format!("{seen} {calls} calls came from {address}, on {} days.", history.days.len()),
        _ => format!("{seen} {calls} calls came from {}.", kind.name()),
    };
    let (way, how) = way(kind, ranges.is_some());
    Verdict::Fits(Advice { way, caller: kind, why, how: how.to_owned() })
}

/// The way for a kind of caller, in words.
const fn way(kind: Kind, ranges: bool) -> (Way, &'static str) {
    match kind {
        Kind::Lambda => (
            Way::Role,
            "Give the function's execution role what the user may do, and take the key out of its configuration.",
        ),
        Kind::Ecs => (
            Way::Role,
            "Give the task a task role, or the CodeBuild project its service role, with these rights.",
        ),
        Kind::Ec2 => (
            Way::Role,
            "Give the instance a role by an instance profile; behind a NAT gateway may be Lambda or ECS, which have roles of their own.",
        ),
        Kind::Vpc => (
            Way::Role,
            "What runs in the VPC takes a role; a host that comes into it over VPN or Direct Connect takes IAM Roles Anywhere.",
        ),
        Kind::GitHub => (
            Way::Oidc,
            "Trust GitHub's OIDC provider in a role, for this repository alone, and give the action role-to-assume in place of the key.",
        ),
        // The last two never get here; a host is the careful reading of them.
        Kind::Host | Kind::Person | Kind::Unknown if ranges => (
            Way::RolesAnywhere,
            "The address is none of EC2's. Give the host a certificate and IAM Roles Anywhere, whose helper hands its programs sessions of a role.",
        ),
        Kind::Host | Kind::Person | Kind::Unknown => (
            Way::RolesAnywhere,
            "If the host is your own: a certificate and IAM Roles Anywhere. If the address is of an instance or a NAT gateway: a role. AWS's ip-ranges.json tells which.",
        ),
    }
}

#[cfg(test)]
mod tests;

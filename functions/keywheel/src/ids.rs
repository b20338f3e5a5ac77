//! Names that are easily swapped, each a type of its own that only accepts what AWS would.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A name that AWS would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {got:?} is not valid: {expected}")]
pub struct InvalidName {
    what: &'static str,
    got: String,
    expected: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as AWS writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    // A name can be anything somebody typed; keep the message readable.
                    let got = text.chars().take(64).collect();
                    Err(InvalidName { what: $what, got, expected: $expected })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// An access key id, long-term (`AKIA…`) or temporary (`ASIA…`). Not a secret.
    AccessKeyId,
    "access key id",
    "16 to 128 letters and digits",
    |text| (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
);

name!(
    /// An IAM user's name, without its path.
    UserName,
    "user name",
    "1 to 64 letters, digits or any of _+=,.@-",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
);

name!(
    /// The full ARN of a secret, with its six random characters.
    SecretArn,
    "secret ARN",
    "arn:<partition>:secretsmanager:<region>:<account>:secret:<name>",
    |text| {
        let parts: Vec<&str> = text.splitn(7, ':').collect();
        matches!(parts.as_slice(), ["arn", partition, "secretsmanager", region, account, "secret", name]
            if !partition.is_empty() && !region.is_empty() && !name.is_empty()
            && account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()))
    }
);

name!(
    /// The id of one version of a secret: the client request token of the call that wrote it.
    VersionId,
    "version id",
    "32 to 64 characters",
    |text| (32..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
);

impl AccessKeyId {
    /// Whether it is that of temporary credentials.
    pub fn is_temporary(&self) -> bool {
        self.0.starts_with("ASIA")
    }
}

impl SecretArn {
    /// The region the secret lives in.
    pub fn region(&self) -> &str {
        self.part(3)
    }
    /// The partition (`aws`, `aws-us-gov`, `aws-cn`).
    pub fn partition(&self) -> &str {
        self.part(1)
    }
    /// The account that owns the secret.
    pub fn account(&self) -> &str {
        self.part(4)
    }
    /// The secret's name with the random characters that AWS appends.
    pub fn resource(&self) -> &str {
        self.0.splitn(7, ':').nth(6).unwrap_or_default()
    }
    /// The same secret's ARN in another region: a replica's differs in nothing else.
    #[must_use]
    pub fn in_region(&self, region: &str) -> Self {
        Self(format!(
            "arn:{}:secretsmanager:{region}:{}:secret:{}",
            self.partition(),
            self.account(),
            self.resource()
        ))
    }
    fn part(&self, index: usize) -> &str {
        // The constructor has seen all seven parts.
        self.0.splitn(7, ':').nth(index).unwrap_or_default()
    }
}

/// The name of one execution, which is also the id of the secret version that the run writes and part of
/// its User-Agent: any version and any CloudTrail record leads to its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(Uuid);

/// What our User-Agent's `app/` token begins with; the run id follows.
const APP_PREFIX: &str = "keywheel-";

impl RunId {
    /// A new, random run id, for whoever starts an execution.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// An id for the document of an execution whose name is no run id. Such a run is refused at its first step;
    /// its notices still need an id of their own.
    pub fn standing_for(name: &str) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
    }

    /// The same for a key that a sender of ours has reported: a UUID of version 8, so that a list of executions tells
    /// how many of them are such reports.
    pub fn of_report(name: &str) -> Self {
        let derived = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
        Self(Uuid::new_v8(derived.into_bytes()))
    }

    /// Whether it was made by [`Self::of_report`].
    pub fn is_of_report(self) -> bool {
        self.0.get_version_num() == 8
    }

    /// The id of the run that this campaign starts for a secret: the same however often it is asked for.
    #[must_use]
    pub fn child(self, secret: &str) -> Self {
        Self(Uuid::new_v5(&self.0, secret.as_bytes()))
    }

    /// A number below `below` that is as good as drawn, and the same whenever it is asked for.
    pub fn spread(self, below: u8) -> u8 {
        self.0.as_bytes()[15] % below.max(1)
    }

    /// The version of the secret that this run writes.
    pub fn version(self) -> VersionId {
        VersionId(self.0.to_string())
    }

    /// The version that holds this run's placeholder, where a secret had no value at all.
    /// Derived, so that a step run twice writes it once.
    pub fn placeholder_version(self) -> VersionId {
        VersionId(Uuid::new_v5(&self.0, b"placeholder").to_string())
    }

    /// The application name that our calls carry in their User-Agent.
    pub fn app_name(self) -> String {
        format!("{APP_PREFIX}{}", self.0)
    }

    /// The staging label by which a run that took another one's work over can be found from the version it
    /// works on. It locks nothing: whether the run is at work is for its execution to say.
    pub fn label(self) -> String {
        self.app_name()
    }

    /// The run that a staging label names.
    pub fn from_label(label: &str) -> Option<Self> {
        label.strip_prefix(APP_PREFIX)?.parse().ok()
    }

    /// Reads a run id back from a CloudTrail record's User-Agent. The SDK writes it as `app/<name>`.
    pub fn from_user_agent(agent: &str) -> Option<Self> {
        agent
            .split(['/', ' '])
            .find_map(|word| word.strip_prefix(APP_PREFIX))
            .and_then(|id| id.trim_end_matches(']').parse().ok())
    }
}

impl FromStr for RunId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // Only the canonical form: what AWS stores as the version's id must read back as the same name.
        match Uuid::try_parse(text) {
            Ok(id) if id.to_string() == text => Ok(Self(id)),
            _ => Err(InvalidName {
                what: "run id",
                got: text.chars().take(80).collect(),
                expected: "a UUID in lower case, given as the execution's name",
            }),
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0.to_string()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_with_every_legal_mark_are_accepted() {
        for name in ["a", "svc+mail=eu,west.1@corp-x_y", &"n".repeat(64)] {
            assert_eq!(name.parse::<UserName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for name in ["", "a b", "a/b", "usér", &"n".repeat(65), "x\n"] {
            let error = name.parse::<UserName>().unwrap_err().to_string();
            assert!(error.contains("user name"), "{error}");
        }
        assert!("AKIA".parse::<AccessKeyId>().is_err());
        assert!(" AKIAIOSFODNN7EXAMPLE".parse::<AccessKeyId>().is_err());
        assert!("arn:aws:iam::111122223333:user/x".parse::<SecretArn>().is_err());
    }

    #[test]
    fn a_run_leads_to_its_version_and_back_from_its_user_agent() {
        let run: RunId = "0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10".parse().unwrap();
        assert_eq!(run.version().as_str(), run.to_string());
        assert_ne!(run.placeholder_version(), run.version());
        let agent = format!("aws-sdk-rust/1.3 ua/2.1 os/linux lang/rust/1.95 app/{}", run.app_name());
        assert_eq!(RunId::from_user_agent(&agent), Some(run));
        assert_eq!(RunId::from_user_agent("aws-cli/2.1 app/other"), None);
        assert_eq!(RunId::from_label(&run.label()), Some(run));
        assert_eq!(RunId::from_label("AWSCURRENT"), None);
    }

    #[test]
    fn a_run_id_is_a_canonical_uuid() {
        assert!("0B5B3C52-6D3E-4B6E-9D5C-0D9F5A3A7F10".parse::<RunId>().is_err());
        assert!("rotate-alice".parse::<RunId>().is_err());
    }

    #[test]
    fn an_arn_knows_its_place() {
        let arn: SecretArn =
            "arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:a/b:c-AbCdEf".parse().unwrap();
        assert_eq!((arn.partition(), arn.region()), ("aws-us-gov", "us-gov-west-1"));
        assert_eq!((arn.account(), arn.resource()), ("111122223333", "a/b:c-AbCdEf"));
        let there = arn.in_region("us-gov-east-1");
        assert_eq!((there.region(), there.in_region("us-gov-west-1")), ("us-gov-east-1", arn));
    }
}

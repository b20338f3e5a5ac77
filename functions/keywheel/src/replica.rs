//! A secret's replicas in other regions, and whether each of them has what the primary has.
//!
//! Secrets Manager copies a change of the primary by itself, a while later, or never where the replication has failed.
//! Whoever reads a replica lives on what AWSCURRENT names *there*: an old key goes only when every replica names the
//! version that was promoted. What a replica names is asked of the replica; the primary's word for it comes late.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::VersionId;

/// What is known of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its region.
    pub region: String,
    /// What it names.
    pub names: Names,
    /// Whether it follows its primary, as that one says.
    pub follows: Follows,
}

/// What AWSCURRENT names in a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// This version.
    Version(VersionId),
    /// None: the replica has no value, or is gone.
    Nothing,
    /// It could not be read; why.
    Unknown(String),
}

/// Whether a replica follows its primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follows {
    /// It has every change.
    InSync,
    /// A change is on its way: a label that was moved away and back may still arrive there once more.
    Copying,
    /// Its replication has failed; why.
    NoMore(String),
}

/// When the readers of all replicas could read the new version, where the looks tell: one that has come late is a
/// promotion of its own for those who read it there, and what they keep in memory is as old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// The last look has found a replica behind.
    NotYet,
    /// The first look that found none behind any more.
    By(Timestamp),
}

impl Reached {
    /// What is known after a look that found these replicas; `before` is what was known before it.
    pub fn seen(
        before: Option<Self>,
        replicas: &[Replica],
        version: Option<&VersionId>,
        now: Timestamp,
    ) -> Option<Self> {
        match before {
            // Nobody reads it anywhere else.
            _ if replicas.is_empty() => None,
            _ if behind(replicas, version).is_some() => Some(Self::NotYet),
            Some(Self::NotYet) => Some(Self::By(now)),
            before => before,
        }
    }

    /// The time, where it is known.
    pub const fn by(self) -> Option<Timestamp> {
        match self {
            Self::NotYet => None,
            Self::By(at) => Some(at),
        }
    }
}

/// How many replicas a sentence tells of; the rest are counted.
const TOLD: usize = 3;

/// Which replicas are not known to name `version` and to stay with it, each with the reason; `None` where all do.
pub fn behind(replicas: &[Replica], version: Option<&VersionId>) -> Option<String> {
    let behind: Vec<String> = replicas.iter().filter_map(|replica| told(replica, version)).collect();
    let more = behind.len().saturating_sub(TOLD);
    let all = behind[..behind.len() - more].join("; ");
    match behind.len() {
        0 => None,
        _ if more > 0 => Some(format!("{all}; and {more} more")),
        _ => Some(all),
    }
}

fn told(Replica { region, names, follows }: &Replica, version: Option<&VersionId>) -> Option<String> {
    let names = match names {
        Names::Version(id) if Some(id) == version => None,
        Names::Version(_) => Some("does not name the new version yet".to_owned()),
        Names::Nothing => Some("names no version".to_owned()),
        Names::Unknown(why) => Some(format!("could not be read ({why})")),
    };
    let what = match (names, follows) {
        (None, Follows::InSync) => return None,
        (None, Follows::Copying) => "is still being brought up to date".to_owned(),
        (None, Follows::NoMore(why)) => format!("follows its primary no more ({why})"),
        (Some(what), Follows::NoMore(why)) => format!("{what}, and follows its primary no more ({why})"),
        (Some(what), _) => what,
    };
    Some(format!("the replica in {region} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(digit: char) -> VersionId {
        digit.to_string().repeat(36).parse().unwrap()
    }

    fn replica(region: &str, names: Names) -> Replica {
        Replica { region: region.into(), names, follows: Follows::InSync }
    }

    #[test]
    fn all_must_name_the_new_version_and_a_secret_without_replicas_waits_for_none() {
        let new = version('1');
        let own = || replica("us-west-2", Names::Version(version('1')));
        assert_eq!(behind(&[], Some(&new)), None);
        assert_eq!(behind(&[own(), own()], Some(&new)), None);
        for names in [Names::Version(version('2')), Names::Nothing, Names::Unknown("denied".into())] {
            let text = behind(&[own(), replica("ap-south-1", names)], Some(&new)).unwrap();
            assert!(text.starts_with("the replica in ap-south-1 "), "{text}");
            assert!(!text.contains("us-west-2"), "{text}");
        }
        // A run that names no version is one that nothing is in step with.
        assert!(behind(&[own()], None).is_some());
    }

    #[test]
    fn a_replica_that_comes_late_is_reached_by_the_first_look_that_finds_it_so() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (new, old) = (version('1'), version('2'));
        let look = |before, names: &VersionId, second| {
            let one = replica("us-west-2", Names::Version(names.clone()));
            Reached::seen(before, &[one], Some(&new), at(second))
        };
        assert_eq!(look(None, &new, 1), None, "it was never seen behind");
        let late = look(None, &old, 1);
        assert_eq!((late, late.and_then(Reached::by)), (Some(Reached::NotYet), None));
        let there = look(late, &new, 5);
        assert_eq!(there.and_then(Reached::by), Some(at(5)));
        assert_eq!(look(there, &new, 9), there);
        assert_eq!(look(there, &old, 9), Some(Reached::NotYet));
        assert_eq!(Reached::seen(late, &[], Some(&new), at(9)), None, "it was taken away");
        assert_eq!(serde_json::to_string(&there).unwrap(), r#"{"by":"1970-01-01T00:00:05Z"}"#);
    }

    #[test]
    fn a_replica_that_may_yet_change_is_in_step_with_nothing() {
        for follows in [Follows::Copying, Follows::NoMore("the name is taken".into())] {
            let right = Replica { follows, ..replica("us-west-2", Names::Version(version('1'))) };
            assert!(behind(&[right], Some(&version('1'))).unwrap().contains("us-west-2"));
        }
    }

    #[test]
    fn what_failed_is_said_with_its_reason_and_a_long_list_is_cut() {
        let follows = Follows::NoMore("the name is taken".into());
        let failed = Replica { follows, ..replica("us-west-2", Names::Nothing) };
        assert_eq!(
            behind(&[failed], Some(&version('1'))).unwrap(),
            "the replica in us-west-2 names no version, and follows its primary no more (the name is taken)"
        );
        let many: Vec<Replica> = (1..=5).map(|n| replica(&format!("eu-west-{n}"), Names::Nothing)).collect();
        let text = behind(&many, Some(&version('1'))).unwrap();
        assert!(text.contains("eu-west-3") && !text.contains("eu-west-4") && text.ends_with("and 2 more"));
    }
}

//! A secret's replicas in other regions, and whether each of them has what the primary has.
//!
//! Secrets Manager copies a change of the primary by itself, a while later, or never where the replication has failed.
//! Whoever reads a replica lives on what AWSCURRENT names *there*: an old key goes only when every replica names the
//! version that was promoted. What a replica names is asked of the replica; the primary's word for it comes late.

use crate::ids::VersionId;

/// What is known of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its region.
    pub region: String,
    /// What it names.
    pub names: Names,
    /// Why it follows its primary no more, where the primary says so.
    pub failed: Option<String>,
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

/// How many replicas a sentence tells of; the rest are counted.
const TOLD: usize = 3;

/// Which replicas do not name `version`, each with the reason; `None` where all of them do. One that could not be read
/// does not.
pub fn behind(replicas: &[Replica], version: Option<&VersionId>) -> Option<String> {
    let lags = |replica: &&Replica| !matches!(&replica.names, Names::Version(id) if Some(id) == version);
    let behind: Vec<String> = replicas.iter().filter(lags).map(told).collect();
    let more = behind.len().saturating_sub(TOLD);
    let all = behind[..behind.len() - more].join("; ");
    match behind.len() {
        0 => None,
        _ if more > 0 => Some(format!("{all}; and {more} more")),
        _ => Some(all),
    }
}

fn told(Replica { region, names, failed }: &Replica) -> String {
    let what = match names {
        Names::Version(_) => "does not name the new version yet".to_owned(),
        Names::Nothing => "names no version".to_owned(),
        Names::Unknown(why) => format!("could not be read ({why})"),
    };
    match failed {
        Some(why) => format!("the replica in {region} {what}; its replication has failed ({why})"),
        None => format!("the replica in {region} {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(digit: char) -> VersionId {
        digit.to_string().repeat(36).parse().unwrap()
    }

    fn replica(region: &str, names: Names) -> Replica {
        Replica { region: region.into(), names, failed: None }
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
        assert!(behind(&[own(), replica("ap-south-1", Names::Nothing)], None).is_some());
    }

    #[test]
    fn what_failed_is_said_with_its_reason_and_a_long_list_is_cut() {
        let mut failed = replica("us-west-2", Names::Nothing);
        failed.failed = Some("the name is taken".into());
        assert_eq!(
            behind(&[failed], Some(&version('1'))).unwrap(),
            "the replica in us-west-2 names no version; its replication has failed (the name is taken)"
        );
        let many: Vec<Replica> = (1..=5).map(|n| replica(&format!("eu-west-{n}"), Names::Nothing)).collect();
        let text = behind(&many, Some(&version('1'))).unwrap();
        assert!(text.contains("eu-west-3") && !text.contains("eu-west-4") && text.ends_with("and 2 more"));
    }
}

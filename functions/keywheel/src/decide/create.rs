//! Whether `CreateKey` may make a key now, or has made one already.

use crate::ids::{AccessKeyId, VersionId};
use crate::key::{self, KeyFacts};
use crate::rotation::{Baseline, Reason, Suspect};

/// What `CreateKey` should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Create {
    /// Make a key.
    Yes,
    /// Keys appeared since the baseline: an earlier attempt of this run may have made one of them,
    /// stored or not, or somebody else did.
    Appeared(Vec<Suspect>),
    /// The world moved; touch nothing.
    Conflict(String),
}

/// Decides from the baseline, the keys now and the current version now.
pub fn decide(baseline: &Baseline, reason: Reason, keys: &[KeyFacts], current: Option<&VersionId>) -> Create {
    let appeared: Vec<Suspect> = keys
        .iter()
        .filter(|key| key::find(&baseline.keys, &key.id).is_none())
        .map(|key| Suspect { key: key.id.clone(), created: key.created, stored_by: None })
        .collect();
    if !appeared.is_empty() {
        return Create::Appeared(appeared);
    }
    let expected = baseline.current.as_ref();
    if expected.map(|current| &current.version) != current {
        return Create::Conflict("the secret was changed since the run began".into());
    }
    let current_key: Option<&AccessKeyId> = expected.and_then(|current| current.key.as_ref());
    if let Some(id) = current_key
        && reason != Reason::Leaked
        && !key::find(keys, id).is_some_and(KeyFacts::is_active)
    {
        return Create::Conflict(format!("the current key {id} is no longer Active"));
    }
    Create::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyStatus;
    use crate::rotation::{CurrentVersion, UserFacts};
    use jiff::Timestamp;

    fn key(id: &str, status: KeyStatus) -> KeyFacts {
        KeyFacts { id: id.parse().unwrap(), status, created: None }
    }

    const A: &str = "AKIAAAAAAAAAAAAAAAAA";
    const B: &str = "AKIABBBBBBBBBBBBBBBB";

    fn version(digit: char) -> VersionId {
        digit.to_string().repeat(36).parse().unwrap()
    }

    fn baseline() -> Baseline {
        Baseline {
            at: Timestamp::UNIX_EPOCH,
            secret_name: "s".into(),
            user: UserFacts { name: "u".parse().unwrap(), arn: String::new(), id: String::new() },
            current: Some(CurrentVersion { version: version('1'), key: Some(A.parse().unwrap()) }),
            keys: vec![key(A, KeyStatus::Active)],
        }
    }

    #[test]
    fn makes_a_key_only_in_the_world_of_the_baseline() {
        let keys = [key(A, KeyStatus::Active)];
        let decide = |keys: &[KeyFacts], current: Option<VersionId>, reason| {
            super::decide(&baseline(), reason, keys, current.as_ref())
        };
        assert_eq!(decide(&keys, Some(version('1')), Reason::Manual), Create::Yes);
        assert!(matches!(decide(&keys, Some(version('2')), Reason::Manual), Create::Conflict(_)));
        assert!(matches!(decide(&keys, None, Reason::Manual), Create::Conflict(_)));
        let off = [key(A, KeyStatus::Inactive)];
        assert!(matches!(decide(&off, Some(version('1')), Reason::Manual), Create::Conflict(_)));
        assert_eq!(decide(&off, Some(version('1')), Reason::Leaked), Create::Yes);
        assert!(matches!(decide(&[], Some(version('1')), Reason::Manual), Create::Conflict(_)));
    }

    #[test]
    fn a_key_that_appeared_is_never_answered_with_another_one() {
        let keys = [key(A, KeyStatus::Active), key(B, KeyStatus::Active)];
        let Create::Appeared(suspects) = decide(&baseline(), Reason::Manual, &keys, Some(&version('1')))
        else {
            panic!("made a key beside one that appeared");
        };
        assert_eq!(suspects[0].key.as_str(), B);
    }
}

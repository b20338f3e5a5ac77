//! How the application of a user whose key leaked gets a working key again.
//!
//! Nothing is deleted to make room, the leaked key least of all: it is the evidence. The first that applies: the key
//! that was superseded is brought back, a new one is made in the free slot, or a person is told the exact command.

use crate::ids::AccessKeyId;
use crate::incident::Way;
use crate::key::{self, KeyFacts};

/// What it is decided from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The keys that are known to others.
    pub leaked: &'a [AccessKeyId],
    /// The key that AWSCURRENT names.
    pub current: Option<AccessKeyId>,
    /// The key that AWSPREVIOUS names.
    pub previous: Option<AccessKeyId>,
    /// The key that AWSPENDING names, on a version that is neither of the two.
    pub pending: Option<AccessKeyId>,
    /// The user's keys.
    pub keys: &'a [KeyFacts],
}

/// Whether consumers of the secret hold a key that works and is known to nobody else.
pub fn is_working(facts: &Facts<'_>) -> bool {
    facts.current.as_ref().is_some_and(|id| {
        !facts.leaked.contains(id) && key::find(facts.keys, id).is_some_and(KeyFacts::is_active)
    })
}

/// The way.
pub fn way(facts: &Facts<'_>) -> Way {
    let Some(current) = facts.current.as_ref().filter(|current| facts.leaked.contains(current)) else {
        return Way::NotNeeded;
    };
    let others: Vec<&KeyFacts> = facts.keys.iter().filter(|key| key.id != *current).collect();
    match others.as_slice() {
        [] => Way::New,
        [other] if facts.leaked.contains(&other.id) => Way::Person,
        [other] if facts.previous.as_ref() == Some(&other.id) => Way::Back,
        [other] if facts.pending.as_ref() == Some(&other.id) => Way::UnderWay,
        _ => Way::Person,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyStatus;

    fn id(letter: char) -> AccessKeyId {
        format!("AKIA{}", letter.to_string().repeat(16)).parse().unwrap()
    }

    fn key(letter: char, active: bool) -> KeyFacts {
        let status = if active { KeyStatus::Active } else { KeyStatus::Inactive };
        KeyFacts { id: id(letter), status, created: None }
    }

    fn facts<'a>(leaked: &'a [AccessKeyId], keys: &'a [KeyFacts]) -> Facts<'a> {
        Facts { leaked, current: Some(id('A')), previous: None, pending: None, keys }
    }

    #[test]
    fn the_first_that_applies() {
        let leaked = [id('A')];
        let (one, two) = ([key('A', false)], [key('A', false), key('B', false)]);
        assert_eq!(way(&facts(&leaked, &one)), Way::New);
        assert_eq!(way(&facts(&leaked, &two)), Way::Person);
        assert_eq!(way(&Facts { previous: Some(id('B')), ..facts(&leaked, &two) }), Way::Back);
        assert_eq!(way(&Facts { pending: Some(id('B')), ..facts(&leaked, &two) }), Way::UnderWay);
        let both = [id('A'), id('B')];
        assert_eq!(way(&Facts { previous: Some(id('B')), ..facts(&both, &two) }), Way::Person);
        let three = [key('A', false), key('B', true), key('C', true)];
        assert_eq!(way(&Facts { previous: Some(id('B')), ..facts(&leaked, &three) }), Way::Person);
    }

    #[test]
    fn nothing_is_replaced_where_the_secret_names_another_key() {
        let keys = [key('A', true), key('B', false)];
        let leaked = [id('B')];
        assert_eq!(way(&facts(&leaked, &keys)), Way::NotNeeded);
        assert!(is_working(&facts(&leaked, &keys)));
        assert_eq!(way(&Facts { current: None, ..facts(&leaked, &keys) }), Way::NotNeeded);
    }

    #[test]
    fn a_key_works_if_it_is_active_and_not_leaked() {
        let leaked = [id('A')];
        assert!(!is_working(&facts(&leaked, &[key('A', true)])));
        let now = |active| {
            let keys = [key('A', false), key('B', active)];
            is_working(&Facts { current: Some(id('B')), ..facts(&leaked, &keys) })
        };
        assert!(now(true) && !now(false));
        assert!(!is_working(&Facts { current: Some(id('B')), ..facts(&leaked, &[key('A', false)]) }));
    }
}

//! Keys that leaked, as far as a status names them: they fill a slot until they are deleted.

use jiff::Timestamp;
use keywheel::incident::{Record, RecordState};
use keywheel::key::KeyFacts;

use crate::time;

/// The records of these keys that a status names.
pub(super) fn of<'a>(records: &'a [Record], keys: &[KeyFacts], now: Timestamp) -> Vec<&'a Record> {
    let is_there = |record: &Record| keys.iter().any(|key| key.id == record.key);
    let counts = |record: &Record| record.state != RecordState::Cleared || record.is_cleared(now);
    records.iter().filter(|record| is_there(record) && counts(record)).collect()
}

/// How many of them leaked.
pub(super) fn count(records: &[&Record]) -> usize {
    records.iter().filter(|record| record.state != RecordState::Cleared).count()
}

/// One key in words.
pub(super) fn words(record: &Record, keys: &[KeyFacts], now: Timestamp) -> String {
    let (key, incident) = (&record.key, record.incident);
    if record.is_cleared(now) {
        let until = record.until.map_or_else(String::new, time::at);
        return format!("{key} was called a false alarm, which holds until {until}: incident {incident}");
    }
    if keys.iter().any(|known| known.id == *key && known.is_active()) {
        return format!("{key} leaked and is ACTIVE: `keywheel revoke {key}`; incident {incident}");
    }
    let end = if record.state == RecordState::Closed {
        "closed, and kept as evidence".to_owned()
    } else {
        format!("`keywheel incident {key} --close` when it is dealt with")
    };
    format!(
        "{key} leaked, was made Inactive {} ago and fills one of the user's two slots: incident {incident}, {end}",
        time::short(time::between(record.at, now))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::samples::{KEY, OTHER, at, record};
    use keywheel::key::KeyStatus;

    fn keys(id: &str, status: KeyStatus) -> Vec<KeyFacts> {
        vec![KeyFacts { id: id.parse().unwrap(), status, created: None }]
    }

    #[test]
    fn a_leaked_key_is_named_with_the_slot_it_fills_and_its_incident() {
        let now = at("2026-03-04T09:00:02Z");
        let contained = record(RecordState::Contained);
        let inactive = keys(KEY, KeyStatus::Inactive);
        let text = words(&contained, &inactive, now);
        assert!(text.contains("2d ago and fills one of the user's two slots"), "{text}");
        assert!(text.contains(&contained.incident.to_string()) && text.contains("--close"), "{text}");
        assert!(words(&record(RecordState::Closed), &inactive, now).contains("closed"));
        assert!(words(&contained, &keys(KEY, KeyStatus::Active), now).contains("is ACTIVE"));
    }

    #[test]
    fn a_key_that_is_gone_and_a_clearance_that_has_ended_are_not_named() {
        let now = at("2026-03-04T09:00:02Z");
        let mut cleared = record(RecordState::Cleared);
        let named =
            |record: &Record, id| of(std::slice::from_ref(record), &keys(id, KeyStatus::Active), now).len();
        assert_eq!(named(&record(RecordState::Contained), KEY), 1);
        assert_eq!(named(&record(RecordState::Contained), OTHER), 0);
        cleared.until = Some(now);
        assert_eq!(named(&cleared, KEY), 0);
        cleared.until = Some(at("2026-03-09T09:00:00Z"));
        assert_eq!(named(&cleared, KEY), 1);
        assert_eq!(count(&of(&[cleared], &keys(KEY, KeyStatus::Active), now)), 0);
    }
}

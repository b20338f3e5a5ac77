//! How old the Active keys of an account are, in a few stretches of time.

use keywheel::fleet::audit::{Entry, Managed};

/// A stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) name: &'static str,
    /// How many Active keys are as old: of managed users, and of the others.
    pub(super) managed: usize,
    pub(super) others: usize,
}

impl Stretch {
    pub(super) const fn keys(&self) -> usize {
        self.managed + self.others
    }
}

/// Each stretch with the days at which it begins.
const STRETCHES: [(&str, i64); 7] = [
    ("under 30 days", 0),
    ("30 to 89 days", 30),
    ("90 to 179 days", 90),
    ("180 to 364 days", 180),
    ("1 to 2 years", 365),
    ("2 to 5 years", 730),
    ("5 years and more", 1826),
];

/// The stretches from the youngest on, and what has no known age where there is any.
pub(super) fn ages(entries: &[Entry]) -> Vec<Stretch> {
    let count = |name, holds: &dyn Fn(Option<i64>) -> bool| {
        let there = entries.iter().filter(|entry| entry.active && holds(entry.age_days));
        let (managed, others): (Vec<&Entry>, Vec<&Entry>) =
            there.partition(|entry| entry.managed == Managed::Yes);
        Stretch { name, managed: managed.len(), others: others.len() }
    };
    let mut stretches = Vec::new();
    for (index, (name, from)) in STRETCHES.iter().enumerate() {
        let until = STRETCHES.get(index + 1).map_or(i64::MAX, |(_, until)| *until);
        stretches.push(count(*name, &|age| age.is_some_and(|age| *from <= age && age < until)));
    }
    let unknown = count("age not known", &|age| age.is_none());
    stretches.extend((unknown.keys() > 0).then_some(unknown));
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::samples::entry;

    #[test]
    fn every_active_key_is_in_one_stretch_and_the_borders_belong_to_the_older() {
        let days = [0, 29, 30, 89, 90, 179, 180, 364, 365, 729, 730, 1825, 1826, 20_000];
        let mut entries: Vec<Entry> = days.map(|days| entry("a", Some(days))).to_vec();
        entries[0].managed = Managed::Yes;
        let told = ages(&entries);
        assert_eq!(told.iter().map(Stretch::keys).collect::<Vec<_>>(), [2; 7]);
        assert_eq!((told[0].managed, told[0].others), (1, 1));
        // Inactive ones open nothing; one without a date is not called young.
        entries[1].active = false;
        entries.push(entry("b", None));
        let told = ages(&entries);
        assert_eq!(told.len(), 8);
        assert_eq!((told[0].keys(), told[7].name, told[7].keys()), (1, "age not known", 1));
    }
}

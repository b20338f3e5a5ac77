//! A closer look at every user that has keys: its tags, its keys by their ids, and when each was used.
//!
//! The credential report names no key ids, and is up to four hours old. What it says of a use is taken over where one of
//! its slots is certainly the key's; of every other key IAM is asked. No secret's value is read.

use std::collections::BTreeMap;

use aws_sdk_iam::Client;
use aws_types::SdkConfig;
use keywheel::fleet::audit::Tags;
use keywheel::fleet::estate::{Blind, Close, Current, Estate, Look, Looks, Row, Slot, Used};
use keywheel::key::{KeyFacts, LastUse};
use keywheel::{StepError, UserName};
use tokio::task::JoinSet;

use crate::estate::AT_ONCE;
use crate::iam::{self, TAG_KEEP, TAG_RETIRE, TAG_SECRET};

/// What was seen of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Near {
    /// Its tags, and its keys with their last use, or why that could not be read.
    Seen {
        /// All its tags.
        tags: BTreeMap<String, String>,
        /// Its keys.
        keys: Vec<(KeyFacts, Result<LastUse, String>)>,
    },
    /// It is gone.
    Gone,
    /// It could not be read; why.
    Unread(String),
}

/// The closer looks, by user.
pub type Nears = BTreeMap<String, Near>;

/// Looks closer at every user that has keys, a few at a time.
pub async fn users(config: &SdkConfig, estate: &Estate) -> Nears {
    let rows: Vec<Row> = estate.users.iter().filter(|row| !row.keys.is_empty()).cloned().collect();
    // Only a bug breaks a look off; its user is then one that nobody has looked at.
    let nobody = || Near::Unread("nobody has looked at it".into());
    let mut nears: Nears = rows.iter().map(|row| (row.user.clone(), nobody())).collect();
    let (mut waiting, mut calls) = (rows.into_iter(), JoinSet::new());
    loop {
        while calls.len() < AT_ONCE
            && let Some(row) = waiting.next()
        {
            let client = Client::new(config);
            calls.spawn(async move {
                let near = near(&client, &row).await.unwrap_or_else(Near::Unread);
                (row.user, near)
            });
        }
        match calls.join_next().await {
            None => return nears,
            Some(Ok((user, near))) => {
                nears.insert(user, near);
            }
            Some(Err(_)) => {}
        }
    }
}

async fn near(client: &Client, row: &Row) -> Result<Near, String> {
    let said = |error: StepError| error.to_string();
    let name: UserName = row.user.parse().map_err(|error| format!("{error}"))?;
    let Some(tags) = iam::tags(client, &name).await.map_err(said)? else { return Ok(Near::Gone) };
    let listed = iam::keys(client, &name).await.map_err(said)?;
    let mut keys = Vec::new();
    for key in &listed {
        let last = match reported(row, &listed, key) {
            Some(last) => Ok(last),
            None => match iam::last_use(client, &key.id).await {
                // It was deleted since it was listed.
                Err(error) if error.is_refused(&["NoSuchEntity", "NoSuchEntityException"]) => continue,
                last => last.map_err(said),
            },
        };
        keys.push((key.clone(), last));
    }
    Ok(Near::Seen { tags, keys })
}

/// What the report says of a key's use, where it is certain which of its slots is the key's: it shows the second in
/// which the key was made, and no other does.
fn reported(row: &Row, listed: &[KeyFacts], key: &KeyFacts) -> Option<LastUse> {
    let created = key.created?;
    let slots: Vec<&Slot> = row.keys.iter().filter(|slot| slot.since == Some(created)).collect();
    let keys = listed.iter().filter(|other| other.created == Some(created)).count();
    let ([slot], 1) = (&slots[..], keys) else { return None };
    let at = match slot.used {
        Used::At(at) => Some(at),
        Used::Never => None,
        Used::Unknown => return None,
    };
    Some(LastUse { at, service: slot.service.clone(), region: slot.region.clone() })
}

/// Puts what was seen in the place of what the report says. Users that could not be read stay as the report has them, and
/// are named as such. Of a key whose last use could not be read, a sentence comes back.
pub fn refine(estate: &mut Estate, nears: &Nears) -> Vec<String> {
    let mut silent = Vec::new();
    for row in &mut estate.users {
        match nears.get(&row.user) {
            None => {}
            Some(Near::Gone) => row.keys.clear(),
            Some(Near::Unread(why)) => {
                estate.blind.push(Blind::User { user: row.user.clone(), why: why.clone() });
            }
            Some(Near::Seen { keys, .. }) => {
                let unread = |(key, last): &(KeyFacts, Result<LastUse, String>)| {
                    let why = last.as_ref().err()?;
                    Some(format!("{}: when key {} was used could not be read ({why}).", row.user, key.id))
                };
                silent.extend(keys.iter().filter_map(unread));
                row.keys = keys.iter().map(slot).collect();
            }
        }
    }
    silent
}

fn slot((key, last): &(KeyFacts, Result<LastUse, String>)) -> Slot {
    let (active, since, id) = (key.is_active(), key.created, Some(key.id.clone()));
    match last {
        Ok(LastUse { at, service, region }) => {
            let used = at.map_or(Used::Never, Used::At);
            Slot { active, since, used, service: service.clone(), region: region.clone(), id }
        }
        Err(_) => Slot { active, since, id, ..Slot::default() },
    }
}

/// The looks that a plan is made with. Which key a secret holds is in its value, which an audit leaves alone.
pub fn looks(nears: &Nears) -> Looks {
    let look = |near: &Near| match near {
        Near::Gone => Look::Gone,
        Near::Unread(why) => Look::Unread(why.clone()),
        Near::Seen { tags, keys } => {
            let key = |name: &str| tags.get(name).and_then(|id| id.parse().ok());
            Look::Seen(Close {
                secret: tags.get(TAG_SECRET).cloned(),
                retire: key(TAG_RETIRE),
                keep: key(TAG_KEEP),
                keys: keys.iter().map(|(key, _)| key.clone()).collect(),
                current: Current::Hidden("an audit reads no secret's value".into()),
                left: None,
            })
        }
    };
    nears.iter().map(|(user, near)| (user.clone(), look(near))).collect()
}

/// The tags of every user that could be read.
pub fn tags(nears: &Nears) -> BTreeMap<String, Tags> {
    let tags = |(user, near): (&String, &Near)| match near {
        Near::Seen { tags, .. } => {
            let tags = Tags { secret: tags.get(TAG_SECRET).cloned(), all: tags.clone() };
            Some((user.clone(), tags))
        }
        Near::Gone | Near::Unread(_) => None,
    };
    nears.iter().filter_map(tags).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use keywheel::key::KeyStatus;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key(number: usize, created: i64) -> KeyFacts {
        KeyFacts {
            id: format!("AKIAFAKE{number:012}").parse().unwrap(),
            status: KeyStatus::Active,
            created: Some(at(created)),
        }
    }

    fn row(slots: &[(i64, Used)]) -> Row {
        let slot = |(since, used): &(i64, Used)| Slot {
            active: true,
            since: Some(at(*since)),
            used: *used,
            service: Some("s3".into()),
            region: Some("eu-west-1".into()),
            id: None,
        };
        Row { user: "a".into(), path: "/".into(), keys: slots.iter().map(slot).collect() }
    }

    #[test]
    fn a_slot_is_taken_for_a_key_only_where_no_other_can_be_meant() {
        let (one, two) = (key(1, 100), key(2, 200));
        let both = [one.clone(), two.clone()];
        let used = |at: Option<LastUse>| at.map(|last| last.at);
        let report = row(&[(200, Used::Never), (100, Used::At(at(150)))]);
        // Whatever the order of the slots.
        assert_eq!(used(reported(&report, &both, &one)), Some(Some(at(150))));
        assert_eq!(used(reported(&report, &both, &two)), Some(None));
        assert_eq!(reported(&report, &both, &one).unwrap().service.as_deref(), Some("s3"));
        // A slot that shows a switch, a key that is younger than the report, and two of the same second.
        assert_eq!(reported(&row(&[(170, Used::Never)]), std::slice::from_ref(&one), &one), None);
        assert_eq!(reported(&row(&[(100, Used::Never)]), &both, &two), None);
        let twins = [one.clone(), key(3, 100)];
        assert_eq!(reported(&report, &twins, &one), None);
        assert_eq!(reported(&row(&[(100, Used::Never), (100, Used::Never)]), &both, &one), None);
        // What the report does not know is asked for.
        assert_eq!(reported(&row(&[(100, Used::Unknown)]), &both, &one), None);
    }

    #[test]
    fn what_was_seen_takes_the_reports_place_and_what_was_not_is_named() {
        let mut estate = Estate {
            account: "111122223333".into(),
            regions: Vec::new(),
            source: keywheel::fleet::estate::Source::Report(at(0)),
            users: ["a", "b", "c"].map(|user| Row { user: user.into(), ..row(&[(1, Used::Never)]) }).to_vec(),
            root_key: None,
            secrets: Vec::new(),
            running: None,
            blind: Vec::new(),
        };
        let keys = vec![(key(1, 100), Ok(LastUse { at: None, service: None, region: None }))];
        let deaf = vec![(key(2, 100), Err("denied".to_owned()))];
        let seen = |keys| Near::Seen { tags: BTreeMap::new(), keys };
        let nears = Nears::from([
            ("a".to_owned(), seen([keys, deaf].concat())),
            ("b".to_owned(), Near::Gone),
            ("c".to_owned(), Near::Unread("throttled".into())),
        ]);
        let silent = refine(&mut estate, &nears);
        assert_eq!(silent, [format!("a: when key {} was used could not be read (denied).", key(2, 0).id)]);
        let [a, b, c] = &estate.users[..] else { panic!("{:?}", estate.users) };
        assert_eq!(a.keys.iter().map(|slot| slot.used).collect::<Vec<_>>(), [Used::Never, Used::Unknown]);
        assert!(a.keys.iter().all(|slot| slot.id.is_some()) && b.keys.is_empty());
        assert_eq!(c.keys[0].since, Some(at(1)));
        assert_eq!(estate.blind, [Blind::User { user: "c".into(), why: "throttled".into() }]);
        // The plan sees no value, and the tags of those alone that were read.
        assert!(
            matches!(&looks(&nears)["a"], Look::Seen(close) if matches!(close.current, Current::Hidden(_)))
        );
        assert_eq!(tags(&nears).keys().collect::<Vec<_>>(), ["a"]);
    }
}

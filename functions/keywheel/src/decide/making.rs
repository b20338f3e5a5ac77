//! Whether the making of a key is odd.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::UserName;
use crate::making::Made;

/// How late CloudTrail's history may show a call.
pub const SHOWN_LATE: Duration = Duration::from_mins(15);
/// How many users a reason names.
const NAMED: usize = 10;

/// How many keys one principal makes that nobody needs to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Usual {
    more_than: u32,
    minutes: u32,
}

/// [`Usual`] as the policy writes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    more_than: u32,
    minutes: u32,
}

impl Default for Usual {
    fn default() -> Self {
        Self { more_than: 5, minutes: 10 }
    }
}

/// The longest span in which keys are counted, in minutes.
const LONGEST: u32 = 24 * 60;

impl TryFrom<Text> for Usual {
    type Error = String;
    fn try_from(text: Text) -> Result<Self, String> {
        if !(1..=LONGEST).contains(&text.minutes) {
            return Err(format!("keys are counted over 1 to {LONGEST} minutes, not over {}", text.minutes));
        }
        Ok(Self { more_than: text.more_than, minutes: text.minutes })
    }
}

impl From<Usual> for Text {
    fn from(usual: Usual) -> Self {
        Self { more_than: usual.more_than, minutes: usual.minutes }
    }
}

impl Usual {
    /// The span in which keys are counted.
    pub fn span(self) -> Duration {
        Duration::from_secs(u64::from(self.minutes) * 60)
    }
}

/// What is odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Odd {
    /// What it is, in words that are the same for all of its events: they lead to one incident.
    pub name: String,
    /// For people.
    pub reason: String,
}

/// Why nobody needs to look at the making of a key, where that is known without asking. `create_roles` make keys for
/// Keywheel: this installation's, in the key's account, and those of other stages.
///
/// CloudTrail itself names the role whose session asked, so nobody else can pass for ours; a User-Agent or the name
/// of a session anybody may choose.
pub fn usual(made: &Made, create_roles: &[String]) -> Option<&'static str> {
    let ours = create_roles.iter().any(|role| made.by.as_ref() == Some(role));
    ours.then_some("a run of ours has made it")
}

/// The account of a key that is not of the installation's own. Where it is not known, that is no reason to look away.
pub fn elsewhere<'m>(made: &'m Made, own_account: &str) -> Option<&'m str> {
    made.account.as_deref().filter(|account| *account != own_account)
}

/// A key of a managed user that no run of ours has made.
pub fn of_a_managed_user(made: &Made) -> Odd {
    let user = made.user.as_ref().map_or("(unknown)", UserName::as_str);
    Odd {
        name: made.key.to_string(),
        reason: format!(
            "Key {} of the managed user {user} was made by {} at {}, and not by Keywheel: it fills a slot that the next rotation needs, and may be what an intruder stays with.",
            made.key,
            made.by(),
            made.at
        ),
    }
}

/// Whether the key is one of more than is usual that its principal has made within the span.
///
/// All events of a burst see the same history by then, more or less, and call it by the same name.
pub fn burst(made: &Made, others: &[Made], usual: Usual) -> Option<Odd> {
    let by = made.by.as_deref()?;
    let mut own: Vec<&Made> = others.iter().filter(|other| other.by.as_deref() == Some(by)).collect();
    own.push(made);
    own.sort_by_key(|one| (one.at, one.key.to_string()));
    own.dedup_by_key(|one| one.key.clone());
    let most = own.iter().map(|first| within(&own, first.at, made, usual)).max_by_key(Vec::len)?;
    if most.len() <= usize::try_from(usual.more_than).unwrap_or(usize::MAX) {
        return None;
    }
    let users: BTreeSet<&str> =
        most.iter().filter_map(|one| one.user.as_ref()).map(UserName::as_str).collect();
    let named: Vec<&str> = users.iter().take(NAMED).copied().collect();
    let more = if users.len() > NAMED { format!(" and {} more", users.len() - NAMED) } else { String::new() };
    let minutes = i64::from(usual.minutes);
    Some(Odd {
        name: format!("{by}/{}", made.at.as_second().div_euclid(minutes * 60)),
        reason: format!(
            "{by} has made {} keys within {minutes} minutes, the first at {}; more than {} are odd. They are keys of {}{more}.",
            most.len(),
            most[0].at,
            usual.more_than,
            named.join(", ")
        ),
    })
}

/// The keys of the span that begins at `start`, where it holds the one that is asked about.
fn within<'m>(own: &[&'m Made], start: Timestamp, made: &Made, usual: Usual) -> Vec<&'m Made> {
    let span = SignedDuration::from_mins(i64::from(usual.minutes));
    let inside = |at: Timestamp| at >= start && at.duration_since(start) <= span;
    if !inside(made.at) {
        return Vec::new();
    }
    own.iter().filter(|one| inside(one.at)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::111122223333:role/keywheel-prod-create-key";
    const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";

    fn made(number: u32, seconds: i64, by: Option<&str>) -> Made {
        let start: Timestamp = "2026-03-02T09:00:00Z".parse().unwrap();
        Made {
            key: format!("AKIA2OGYBAH6QKEY{number:04}").parse().unwrap(),
            user: Some(format!("user-{number:02}").parse().unwrap()),
            account: Some("111122223333".into()),
            at: start + SignedDuration::from_secs(seconds),
            by: by.map(str::to_owned),
        }
    }

    #[test]
    fn only_the_role_itself_passes_for_ours() {
        let (prod, test) = (ROLE.to_owned(), ROLE.replace("prod", "test"));
        let roles = [prod, test.clone()];
        assert!(usual(&made(1, 0, Some(ROLE)), &roles).is_some());
        assert!(usual(&made(1, 0, Some(&test)), &roles).is_some());
        assert_eq!(usual(&made(1, 0, Some(&test)), &roles[..1]), None);
        let session = "arn:aws:sts::111122223333:assumed-role/keywheel-prod-create-key/x";
        for by in [Some(ADMIN), Some(session), None] {
            assert_eq!(usual(&made(1, 0, by), &roles), None, "{by:?}");
        }
    }

    #[test]
    fn a_key_of_another_account_is_told_from_one_of_which_that_is_not_known() {
        let own = "111122223333";
        let there = Made { account: Some("999988887777".into()), ..made(1, 0, Some(ADMIN)) };
        assert_eq!(elsewhere(&there, own), Some("999988887777"));
        assert_eq!(elsewhere(&made(1, 0, Some(ADMIN)), own), None);
        assert_eq!(elsewhere(&Made { account: None, ..there }, own), None);
    }

    #[test]
    fn more_than_is_usual_within_the_span_is_odd() {
        let usual = Usual { more_than: 3, minutes: 10 };
        let all: Vec<Made> =
            (0..4).map(|number| made(number, i64::from(number) * 200, Some(ADMIN))).collect();
        // 600 seconds from the first to the fourth: the span holds both ends.
        for one in &all {
            let odd = burst(one, &all, usual).unwrap();
            assert!(odd.reason.contains("has made 4 keys within 10 minutes"), "{}", odd.reason);
        }
        assert_eq!(burst(&all[0], &all[..3], usual), None, "three are usual");
        let late = made(4, 601, Some(ADMIN));
        assert_eq!(burst(&late, &[all[0].clone(), all[1].clone(), all[2].clone()], usual), None);
        // The one that is asked about counts where the history does not show it yet, and once where it does.
        assert!(burst(&all[3], &all[..3], usual).is_some());
        assert!(burst(&all[2], &[all[0].clone(), all[1].clone(), all[2].clone()], usual).is_none());
    }

    #[test]
    fn other_principals_do_not_count() {
        let usual = Usual { more_than: 1, minutes: 10 };
        let mine = made(0, 0, Some(ADMIN));
        let others = [made(1, 1, Some("arn:aws:iam::111122223333:role/other")), made(2, 2, None)];
        assert_eq!(burst(&mine, &others, usual), None);
        // Nobody can be counted whom nobody names.
        let unnamed: Vec<Made> = (0..9).map(|number| made(number, 0, None)).collect();
        assert_eq!(burst(&unnamed[0], &unnamed, usual), None);
    }

    #[test]
    fn a_burst_has_one_name_and_says_whose_keys_it_made() {
        let usual = Usual::default();
        let all: Vec<Made> = (0..20).map(|number| made(number, i64::from(number), Some(ADMIN))).collect();
        let odd: Vec<Odd> = all.iter().map(|one| burst(one, &all, usual).unwrap()).collect();
        assert!(odd.iter().all(|one| *one == odd[0]));
        assert!(odd[0].reason.ends_with("user-09 and 10 more."), "{}", odd[0].reason);
        // As many as are named: none is left over.
        let ten = burst(&all[0], &all[..10], usual).unwrap();
        assert!(ten.reason.ends_with("user-08, user-09."), "{}", ten.reason);
        let later = made(21, 24 * 3600, Some(ADMIN));
        let again: Vec<Made> =
            (0..6).map(|number| Made { at: later.at, ..made(number, 0, Some(ADMIN)) }).collect();
        assert_ne!(burst(&later, &again, usual).unwrap().name, odd[0].name);
    }

    #[test]
    fn a_span_that_cannot_be_is_refused() {
        let read = |text: &str| serde_json::from_str::<Usual>(text);
        assert_eq!(read(r#"{"more_than": 0, "minutes": 1440}"#).unwrap().span(), Duration::from_hours(24));
        for text in [
            r#"{"more_than": 5, "minutes": 0}"#,
            r#"{"more_than": 5, "minutes": 1441}"#,
            r#"{"more_than": -1, "minutes": 10}"#,
            r#"{"more_than": 5}"#,
            r#"{"more_than": 5, "minutes": 10, "hours": 1}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}

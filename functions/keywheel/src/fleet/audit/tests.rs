use jiff::SignedDuration;

use super::*;
use crate::decide::due;
use crate::fleet::FleetPolicy;
use crate::fleet::estate::{Close, Current, Look, Looks, Source};
use crate::key::{KeyFacts, KeyStatus};

fn now() -> Timestamp {
    "2026-06-30T12:00:00Z".parse().unwrap()
}

fn ago(days: i64) -> Timestamp {
    now() - SignedDuration::from_hours(24 * days)
}

fn id(number: usize) -> AccessKeyId {
    format!("AKIAFAKE{number:012}").parse().unwrap()
}

fn slot(number: usize, days: i64) -> Slot {
    Slot {
        active: true,
        since: Some(ago(days)),
        used: Used::At(ago(1)),
        service: Some("s3".into()),
        id: Some(id(number)),
        ..Slot::default()
    }
}

fn row(user: &str, keys: Vec<Slot>) -> Row {
    Row { user: user.into(), path: "/".into(), keys }
}

fn arn(user: &str) -> SecretArn {
    format!("arn:aws:secretsmanager:eu-west-1:111122223333:secret:{user}-AbCdEf").parse().unwrap()
}

fn secret(user: &str) -> Tagged {
    Tagged {
        arn: arn(user),
        user: user.into(),
        tags: BTreeMap::new(),
        changed: None,
        replica_of: None,
        runs: Vec::new(),
        pending: false,
    }
}

fn estate(users: Vec<Row>, secrets: Vec<Tagged>) -> Estate {
    Estate {
        account: "111122223333".into(),
        regions: vec!["eu-west-1".into()],
        source: Source::Report(now()),
        users,
        root_key: Some(false),
        secrets,
        running: None,
        blind: Vec::new(),
    }
}

fn tagged(pairs: &[(&str, &str)]) -> Tags {
    let all: BTreeMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Tags { secret: all.get("keywheel:secret").cloned(), all }
}

/// The book of an estate, where each user's own tags are these and what its secret holds is hidden.
fn read(estate: &Estate, tags: &[(&str, Tags)]) -> Book {
    let tags: BTreeMap<String, Tags> =
        tags.iter().map(|(user, tags)| ((*user).to_owned(), tags.clone())).collect();
    let close = |row: &Row| {
        let key = |slot: &Slot| KeyFacts {
            id: slot.id.clone().unwrap(),
            status: if slot.active { KeyStatus::Active } else { KeyStatus::Inactive },
            created: slot.since,
        };
        let own = tags.get(&row.user).and_then(|tags| tags.secret.clone());
        let keys = row.keys.iter().map(key).collect();
        let current = Current::Hidden("hidden".into());
        let close = Close { secret: own, retire: None, keep: None, keys, current, left: None };
        (row.user.clone(), Look::Seen(close))
    };
    let looks: Looks = estate.users.iter().map(close).collect();
    let plan = due::plan(&FleetPolicy::default(), estate, &looks, now());
    book(estate, &tags, &plan, &[], now())
}

#[test]
fn every_key_has_a_line_with_the_plans_word_and_the_worst_is_first() {
    let off = Slot { active: false, ..slot(6, 900) };
    let managed = |user: &str| tagged(&[("keywheel:secret", arn(user).as_str())]);
    let estate = estate(
        vec![
            row("due", vec![slot(1, 100)]),
            row("fine", vec![slot(2, 10)]),
            row("lonely", vec![slot(3, 400)]),
            row("young", vec![slot(4, 20), slot(5, 30)]),
            row("off", vec![off]),
            row("empty", Vec::new()),
        ],
        vec![secret("due"), secret("fine")],
    );
    let book = read(
        &estate,
        &[
            ("due", managed("due")),
            ("fine", managed("fine")),
            ("lonely", tagged(&[("Owner", "mail@example.com")])),
            ("young", Tags::default()),
            ("off", Tags::default()),
        ],
    );
    let told: Vec<(&str, &str, Managed)> =
        book.entries.iter().map(|entry| (entry.user.as_str(), entry.code, entry.managed)).collect();
    assert_eq!(
        told,
        [
            ("lonely", "NotManaged", Managed::No),
            ("due", "Due", Managed::Yes),
            ("young", "NotManaged", Managed::No),
            ("young", "NotManaged", Managed::No),
            ("fine", "NotDue", Managed::Yes),
            ("off", "NotManaged", Managed::No),
        ]
    );
    let [lonely, due, young, ..] = &book.entries[..] else { panic!("{:?}", book.entries) };
    assert_eq!((lonely.age_days, lonely.would, lonely.slots), (Some(400), Would::Leave, 1));
    assert_eq!(lonely.owner.as_deref(), Some("mail@example.com"));
    assert!(lonely.is_over_age() && lonely.findings[0].code == "OverAge", "{:?}", lonely.findings);
    assert_eq!((due.would, due.key_id.clone()), (Would::Rotate, Some(id(1))));
    assert_eq!(due.last_use.as_ref().and_then(|last| last.service.as_deref()), Some("s3"));
    // The older of the two, and what is said of both.
    assert_eq!((young.key_id.clone(), young.slots), (Some(id(5)), 2));
    assert_eq!(young.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["TwoActive"]);
    assert!(book.others.is_empty() && book.unread.is_empty(), "{book:?}");
}

#[test]
fn a_tag_of_one_side_is_half_and_what_was_not_read_is_not_known() {
    let users = ["both", "own", "theirs", "far", "dark", "no"];
    let rows = users.iter().enumerate().map(|(number, user)| row(user, vec![slot(number, 1)])).collect();
    let estate = estate(rows, vec![secret("both"), secret("theirs")]);
    let far = arn("far").as_str().replace("eu-west-1", "eu-north-1");
    let names = |arn: &str| tagged(&[("keywheel:secret", arn)]);
    let book = read(
        &estate,
        &[
            ("both", names(arn("both").as_str())),
            ("own", names(arn("own").as_str())),
            ("theirs", Tags::default()),
            ("far", names(&far)),
            ("no", Tags::default()),
        ],
    );
    let managed = |user: &str| book.entries.iter().find(|entry| entry.user == user).unwrap().managed;
    assert_eq!(
        users.map(managed),
        [Managed::Yes, Managed::Half, Managed::Half, Managed::Unknown, Managed::Unknown, Managed::No]
    );
    let why = |user: &str| book.entries.iter().find(|entry| entry.user == user).unwrap().why.clone();
    assert!(why("far").contains("in a region that was not read"), "{}", why("far"));
    assert!(why("dark").contains("tags could not be read"), "{}", why("dark"));
    assert!(why("own").contains("of the secrets in eu-west-1 none names it"), "{}", why("own"));
    assert!(why("theirs").contains("its tag names no secret"), "{}", why("theirs"));
    assert!(why("no").contains("keywheel enroll --user no"), "{}", why("no"));
}

#[test]
fn what_could_not_be_read_is_told_and_so_is_what_concerns_no_key() {
    let mut estate = estate(vec![row("a", vec![slot(1, 1)])], Vec::new());
    estate.root_key = Some(true);
    estate.blind = vec![
        Blind::Region { region: "eu-north-1".into(), why: "denied".into() },
        Blind::User { user: "a".into(), why: "throttled".into() },
    ];
    let book = read(&estate, &[("a", Tags::default())]);
    let codes: Vec<&str> = book.others.iter().map(|line| line.code).collect();
    assert!(codes.contains(&"RootKey") && codes.contains(&"RegionUnread"), "{codes:?}");
    assert_eq!(book.unread.len(), 2, "{:?}", book.unread);
    assert!(book.unread.iter().any(|why| why.starts_with("a: ")), "{:?}", book.unread);
    assert_eq!(book.entries[0].findings[0].code, "UserUnread");
}

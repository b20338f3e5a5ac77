use jiff::SignedDuration;

use super::*;
use crate::campaign::{self, Begin, Failed, Outcome, Request};
use crate::rotation::{Delivery, Why};

const ID: &str = "0b5b3c52-6d3e-4b6e-9d5c-0d9f5a3a7f10";
/// The longest input or output of a state, and the most that a call of `PutEvents` or a message carries.
const LARGEST: usize = 256 * 1024;

fn now() -> Timestamp {
    "2026-06-30T06:00:00Z".parse().unwrap()
}

fn document() -> Campaign {
    let begin = Begin { input: json!({}), name: ID.into(), execution: "e".into(), started: now() };
    Campaign::new(&begin, Request::default(), "bucket")
}

/// A key that is due in so many hours.
fn soon(user: &str, owner: Option<&str>, hours: i64) -> Soon {
    Soon {
        user: user.into(),
        account: "111122223333".into(),
        secret: format!("arn:aws:secretsmanager:eu-west-1:111122223333:secret:{user}").parse().unwrap(),
        owner: owner.map(str::to_owned),
        age_days: 83,
        due: now() + SignedDuration::from_hours(hours),
    }
}

/// A document that warns of these keys itself.
fn warned(all: &[Soon], held: Option<&str>) -> Campaign {
    let mut doc = document();
    let telling: Vec<(RunId, &Soon)> = all.iter().map(|soon| (doc.campaign, soon)).collect();
    doc.warn(now(), &telling, held);
    doc
}

/// What follows the campaign's id in the notices' ids.
fn ids(doc: &Campaign) -> Vec<&str> {
    doc.notices.iter().map(|notice| notice.id.strip_prefix(ID).unwrap()).collect()
}

#[test]
fn each_owner_is_told_of_its_keys_and_whose_are_due_first_comes_first() {
    let all = [
        soon("svc-c", Some("eve"), 30),
        soon("svc-a", None, 40),
        soon("svc-b", Some("eve"), 60),
        soon("svc-d", Some(" "), 70),
    ];
    let doc = warned(&all, None);
    assert_eq!(ids(&doc), ["/DueSoon/eve", "/DueSoon/nobody"]);
    assert_eq!(
        doc.notices[0].text,
        "2 keys of eve are due soon, and rotated by a campaign from that day on. What reads the secret gets the new key by itself; a copy kept elsewhere ends with the old one.\n- svc-c: 83 days old, due on 2026-07-01\n- svc-b: 83 days old, due on 2026-07-02"
    );
    assert!(doc.notices[1].text.starts_with("2 keys that nobody answers for are due soon, and"));
    assert_eq!(doc.carries, [doc.campaign]);
    assert_eq!((doc.counts.warned, doc.delivery), (4, Delivery::Pending));
    let [detail, nobody] = [0, 1].map(|index| doc.detail(&doc.notices[index]));
    let list = format!("s3://bucket/campaigns/{ID}/due-soon.jsonl");
    assert_eq!((&detail["owner"], &detail["list"]), (&json!("eve"), &json!(list)));
    assert_eq!((&detail["kind"], &nobody["owner"]), (&json!("DueSoon"), &Value::Null));
    assert_eq!(detail["title"], "[keywheel] Campaign DueSoon: keys of eve");
    assert_eq!(nobody["title"], "[keywheel] Campaign DueSoon: keys");
    assert_eq!(doc.detail_type(&doc.notices[0]), "Keywheel Campaign DueSoon");
}

#[test]
fn what_holds_keys_up_is_said_to_everybody() {
    let doc = warned(&[soon("svc-a", Some("eve"), 30)], Some("Nothing is rotated."));
    let text = &doc.notices[0].text;
    assert!(text.starts_with("1 key of eve is due soon, and"), "{text}");
    assert!(text.contains("the old one. Nothing is rotated.\n- svc-a: "), "{text}");
}

#[test]
fn warnings_of_a_campaign_before_carry_its_id() {
    let (mut doc, before) = (document(), RunId::standing_for("before"));
    let all = [soon("svc-a", Some("eve"), 30), soon("svc-b", Some("eve"), 40)];
    doc.warn(now(), &[(before, &all[0]), (doc.campaign, &all[1])], None);
    let told: Vec<&str> = doc.notices.iter().map(|notice| notice.id.as_str()).collect();
    assert_eq!(told, [format!("{before}/DueSoon/eve"), format!("{ID}/DueSoon/eve")]);
    assert_eq!(doc.carries.len(), 2);
    assert!(doc.carries.contains(&before) && doc.carries.contains(&doc.campaign));
    // Put in once more, they are there once.
    doc.warn(now(), &[(before, &all[0])], None);
    assert_eq!(doc.notices.len(), 2);
}

#[test]
fn where_nobody_is_to_be_told_nothing_is() {
    let doc = warned(&[], None);
    assert!(doc.notices.is_empty() && doc.carries.is_empty());
    assert_eq!(doc.counts.warned, 0);
}

#[test]
fn that_nobody_could_be_told_is_loud_and_carries_nothing() {
    let mut doc = document();
    doc.warn_nobody(now(), "conflict: odd");
    assert_eq!(ids(&doc), ["/DueSoon"]);
    let told = &doc.notices[0];
    assert!(told.text.starts_with("Owners of keys that are due soon were not told: conflict: odd."));
    assert_eq!((&doc.detail(told)["owner"], doc.carries.len()), (&Value::Null, 0));
    assert_eq!(doc.subject(told), "[keywheel] Campaign DueSoon: keys");
}

#[test]
fn an_owner_is_called_so_that_every_channel_takes_it() {
    let long = "x".repeat(300);
    for (owner, called, subject) in [
        ("Jürgen Groß", "Jürgen Groß", "J?rgen Gro?"),
        ("a\nb\u{7}c", "abc", "abc"),
        ("\u{feff}\u{fffe} ", "nobody", ""),
        ("nobody", "nobody", ""),
        (" mail@example.com ", "mail@example.com", "mail@example.com"),
        (long.as_str(), &long[..100], &long[..50]),
    ] {
        let doc = warned(&[soon("svc-a", Some(owner), 1)], None);
        assert_eq!(ids(&doc), [format!("/DueSoon/{called}")], "{owner:?}");
        let line = doc.subject(&doc.notices[0]);
        assert!(line.is_ascii() && line.len() < 100 && line.contains(subject), "{line}");
    }
    // Two names that are called alike are told together.
    let doc = warned(&[soon("svc-a", Some("nobody"), 1), soon("svc-b", None, 2)], None);
    assert_eq!((ids(&doc), doc.counts.warned), (vec!["/DueSoon/nobody"], 2));
}

#[test]
fn of_many_keys_a_hundred_are_named_and_the_rest_are_counted() {
    let of = |count: usize| {
        let all: Vec<Soon> =
            (0..count).map(|number| soon(&format!("svc-{number:03}"), Some("eve"), 1)).collect();
        let doc = warned(&all, None);
        assert_eq!(doc.notices.len(), 1);
        doc.notices[0].text.clone()
    };
    let text = of(100);
    assert!(text.ends_with("\n- svc-099: 83 days old, due on 2026-06-30"), "{text}");
    let text = of(103);
    let end = format!("\n- and 3 more: s3://bucket/campaigns/{ID}/due-soon.jsonl");
    assert!(text.starts_with("103 keys of eve") && text.ends_with(&end), "{text}");
    assert!(text.contains("svc-099") && !text.contains("svc-100"), "{text}");
}

/// A campaign that has failed as much as a document names.
fn ended(mut doc: Campaign) -> Campaign {
    let failed = |number: usize| Failed {
        run: doc.campaign,
        whom: "u".repeat(64),
        wave: 1,
        code: number.to_string(),
        text: "t".repeat(600),
    };
    doc.failed = (0..campaign::NAMED).map(failed).collect();
    doc.end(now(), Outcome::Stopped, Why::new("Code", "x".repeat(1000), "y"));
    doc
}

#[test]
fn five_thousand_warned_users_fit_into_a_state_an_event_and_a_message() {
    let long = |number: usize| format!("{number:04}{}", "n".repeat(60));
    for (owners, length) in [(0, 1), (1, 1), (6, 64), (250, 1), (250, 256), (5_000, 1), (5_000, 256)] {
        let owner = |number: usize| {
            let number = number.checked_rem(owners)?;
            Some(format!("{number:04}{}", "ö".repeat(length)))
        };
        let all: Vec<Soon> =
            (0..5_000).map(|number| soon(&long(number), owner(number).as_deref(), 1)).collect();
        let doc = ended(warned(&all, Some(&"h".repeat(250))));
        let case = format!("{owners} owners");
        // Every key is told of, by name or counted.
        let counts = doc.notices.iter().filter(|notice| notice.kind == NoticeKind::DueSoon);
        let told: usize =
            counts.filter_map(|notice| notice.text.split(' ').next()?.parse::<usize>().ok()).sum();
        assert_eq!((told, doc.counts.warned), (5_000, 5_000), "{case}");
        let first = &doc.notices[0];
        assert!(first.text.contains("\n- 0000nnn"), "{case}: {}", first.text);
        let size = serde_json::to_string(&doc).unwrap().len();
        assert!(size < LARGEST - 64 * 1024, "{case}: {size} bytes");
        let events: Vec<String> = doc.notices.iter().map(|notice| doc.detail(notice).to_string()).collect();
        for ten in events.chunks(10) {
            let size: usize = ten.iter().map(String::len).sum();
            assert!(size < LARGEST, "{case}: {size} bytes of events");
        }
        for notice in &doc.notices {
            let message = format!("{}\n\n{:#}\n", notice.text, doc.detail(notice));
            assert!(message.len() < LARGEST, "{case}: a message of {} bytes", message.len());
        }
    }
}

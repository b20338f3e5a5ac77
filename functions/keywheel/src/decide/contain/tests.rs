use std::time::Duration;

use super::*;
use crate::incident::RecordState;
use crate::key::KeyStatus;
use crate::rotation::Outcome;
use crate::triage::{Kind, Severity, Source, Target};
use crate::{Alert, RunId};

const KEY: &str = "AKIA2OGYBAH6QKEYWHEL";
const OWN: &str = "111122223333";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_772_442_000 + second).unwrap()
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

/// An incident of that class, as the event says it.
fn incident(class: Class) -> Incident {
    let execution = format!("arn:aws:states:eu-west-1:{OWN}:execution:keywheel-prod-emergency:e");
    let (kind, key) = match class {
        Class::UserSession => (Kind::UserSession, Some("ASIA2OGYBAH6QKEYWHEL")),
        Class::ResolveUserKeys => (Kind::User, None),
        _ => (Kind::LongTerm, Some(KEY)),
    };
    let target = Target {
        class,
        account: Some(OWN.into()),
        key_id: key.map(|key| key.parse().unwrap()),
        user: Some(user("svc")),
        kind,
        source: Source::GuardDuty,
        severity: Severity::High,
    };
    let alert = Alert::new(execution, at(0), class, String::new());
    Incident::open(&alert, target, String::new())
}

fn facts() -> Facts {
    Facts {
        now: at(1),
        switch: Kept::Is(Containment::On),
        emergency: Kept::None,
        record: Kept::None,
        owner: Owner::Is(user("owner")),
        account: None,
        replaced: false,
        lately: None,
    }
}

fn record(state: RecordState, until: Option<Timestamp>) -> Record {
    Record {
        schema: 1,
        key: KEY.parse().unwrap(),
        user: user("owner"),
        account: None,
        incident: RunId::random(),
        at: at(-100),
        state,
        until,
        note: Some("a test of the scanner".into()),
    }
}

fn policy(text: &str) -> Kept<Emergency> {
    Kept::Is(Emergency::parse(text).unwrap())
}

/// The code of a decision to leave things, and whether a person must look.
fn left(facts: &Facts, incident: &Incident) -> (String, bool) {
    match decide(facts, incident) {
        Decision::Leave(why, page) => {
            assert!(!why.text.is_empty(), "{why:?}");
            (why.code, page)
        }
        other => panic!("{other:?}"),
    }
}

fn leaves(facts: &Facts, incident: &Incident, code: &str, page: bool) {
    assert_eq!(left(facts, incident), (code.to_owned(), page));
}

#[test]
fn a_key_is_contained_as_its_owners_whatever_the_event_says() {
    assert_eq!(decide(&facts(), &incident(Class::RevokeUserKey)), Decision::Contain(user("owner")));
    assert!(unread(&facts()).is_empty());
}

#[test]
fn what_cannot_be_read_stops_nothing_and_is_said() {
    let unknown = || "throttled".to_owned();
    let facts = Facts {
        switch: Kept::Unread(unknown()),
        emergency: Kept::Unread(unknown()),
        record: Kept::Unread(unknown()),
        ..facts()
    };
    assert_eq!(decide(&facts, &incident(Class::RevokeUserKey)), Decision::Contain(user("owner")));
    let said = unread(&facts);
    assert_eq!(said.len(), 3);
    assert!(said.iter().all(|note| note.contains("throttled")), "{said:?}");
    // A mere suspicion is still one.
    leaves(&facts, &incident(Class::PolicyDecides), "ForAPerson", true);
}

#[test]
fn an_installation_that_is_not_switched_on_only_says_what_it_would_do() {
    let key = incident(Class::RevokeUserKey);
    for (switch, page) in [
        (Kept::Is(Containment::Off), false),
        (Kept::Is(Containment::Page), true),
        // A fresh installation.
        (Kept::None, true),
    ] {
        leaves(&Facts { switch, ..facts() }, &key, "NotSwitchedOn", page);
    }
    let off = Facts { switch: Kept::Is(Containment::Off), ..facts() };
    for (then, would) in [
        ("\"now\"", "make it Inactive and deny"),
        ("\"page\"", "tell people"),
        ("{\"after\": 7}", "after 7 minutes"),
        ("{\"replace_first\": 9}", "within 9 minutes"),
    ] {
        let emergency = policy(&format!("{{\"rules\": [{{\"then\": {then}}}]}}"));
        let Decision::Leave(why, _) = decide(&Facts { emergency, ..off.clone() }, &key) else { panic!() };
        assert!(why.text.contains(would), "{}", why.text);
    }
}

#[test]
fn a_clearance_holds_until_its_time_and_no_other_record_does() {
    let key = incident(Class::RevokeUserKey);
    let with = |record| Facts { record: Kept::Is(record), ..facts() };
    leaves(&with(record(RecordState::Cleared, Some(at(2)))), &key, "FalseAlarm", true);
    for spent in [
        record(RecordState::Cleared, Some(at(1))),
        record(RecordState::Cleared, None),
        record(RecordState::Contained, Some(at(9))),
        record(RecordState::Closed, Some(at(9))),
    ] {
        assert_eq!(decide(&with(spent), &key), Decision::Contain(user("owner")));
    }
}

#[test]
fn a_key_that_was_made_active_is_contained_if_it_is_known_to_have_leaked() {
    let key = incident(Class::RevokeAgainIfLeaked);
    let with = |record| Facts { record, ..facts() };
    leaves(&with(Kept::None), &key, "NotLeaked", false);
    // Asked again for as long as somebody may still read it.
    let unread = with(Kept::Unread("no".into()));
    let tried = |tries| Incident { tries, ..key.clone() };
    for tries in [0, ASK_FOR_RECORD - 1] {
        assert_eq!(decide(&unread, &tried(tries)), Decision::AskAgain("no".into()));
    }
    leaves(&unread, &tried(ASK_FOR_RECORD), "RecordUnreadable", true);
    // Called a false alarm, it never leaked, whether the clearance still holds or not.
    for until in [at(9), at(0)] {
        leaves(&with(Kept::Is(record(RecordState::Cleared, Some(until)))), &key, "NotLeaked", false);
    }
    let leaked = with(Kept::Is(record(RecordState::Contained, None)));
    assert_eq!(decide(&leaked, &key), Decision::Contain(user("owner")));
    // That it leaked is decided; no rule of the policy lets anybody wait.
    let paging = Facts { emergency: policy("{\"rules\": [{\"then\": \"page\"}]}"), ..leaked.clone() };
    assert_eq!(decide(&paging, &key), Decision::Contain(user("owner")));
    leaves(&Facts { switch: Kept::Is(Containment::Page), ..leaked }, &key, "NotSwitchedOn", true);
}

#[test]
fn where_iam_does_not_tell_the_owner_the_events_own_pair_is_tried() {
    let silent = Facts { owner: Owner::Unread("down".into()), ..facts() };
    let key = incident(Class::RevokeUserKey);
    let Decision::Try(who, note) = decide(&silent, &key) else { panic!() };
    assert_eq!(who, user("svc"));
    assert!(note.contains("down"), "{note}");
    let mut nameless = key;
    nameless.target.user = None;
    assert_eq!(decide(&silent, &nameless), Decision::AskAgain("down".into()));
    // Without a key there is no pair that IAM could refuse.
    let now = Facts { emergency: policy("{\"rules\": [{\"then\": \"now\"}]}"), ..silent.clone() };
    assert_eq!(decide(&now, &incident(Class::ResolveUserKeys)), Decision::AskAgain("down".into()));
    // Where a person decides anyway, nobody is waited for.
    leaves(&silent, &incident(Class::ResolveUserKeys), "ForAPerson", true);
}

#[test]
fn a_key_of_another_account_is_not_ours() {
    let key = incident(Class::RevokeUserKey);
    let nobody = Facts { owner: Owner::None, ..facts() };
    let theirs = Facts { account: Some("999988887777".into()), ..nobody.clone() };
    leaves(&theirs, &key, "ForeignAccount", true);
    leaves(&theirs, &incident(Class::ResolveUserKeys), "ForeignAccount", true);
    leaves(&nobody, &key, "KeyGone", true);
    // The event's word on the account is none of the facts.
    let mut said = key;
    said.target.account = Some("999988887777".into());
    leaves(&nobody, &said, "KeyGone", true);
    assert_eq!(decide(&facts(), &said), Decision::Contain(user("owner")));
    leaves(&Facts { owner: Owner::Unread("denied".into()), ..theirs }, &said, "ForeignAccount", true);
}

#[test]
fn an_account_that_cannot_be_entered_for_a_moment_is_tried_again() {
    let unreached = Facts {
        owner: Owner::Unreached("throttled".into()),
        account: Some("999988887777".into()),
        ..facts()
    };
    // Not by the event's pair: the same name may be another user's here.
    assert_eq!(decide(&unreached, &incident(Class::RevokeUserKey)), Decision::AskAgain("throttled".into()));
    let off = Facts { switch: Kept::Is(Containment::Off), ..unreached };
    leaves(&off, &incident(Class::RevokeUserKey), "NotSwitchedOn", false);
}

#[test]
fn what_only_names_a_user_is_for_a_person_unless_the_policy_says_otherwise() {
    let named = incident(Class::ResolveUserKeys);
    leaves(&facts(), &named, "ForAPerson", true);
    let now = Facts { emergency: policy("{\"rules\": [{\"then\": \"now\"}]}"), ..facts() };
    assert_eq!(decide(&now, &named), Decision::Contain(user("owner")));
}

#[test]
fn a_users_session_is_denied_and_there_is_no_key_to_switch_off() {
    assert_eq!(decide(&facts(), &incident(Class::UserSession)), Decision::DenySessions(user("owner")));
    // Nothing can replace a key that nobody knows, so nothing is waited for.
    let first = Facts { emergency: policy("{\"rules\": [{\"then\": {\"replace_first\": 5}}]}"), ..facts() };
    assert_eq!(decide(&first, &incident(Class::UserSession)), Decision::DenySessions(user("owner")));
}

#[test]
fn other_credentials_are_told_by_their_names() {
    for (class, code) in [
        (Class::Root, "Root"),
        (Class::SessionOnly, "RoleSession"),
        (Class::SessionResolve, "RoleSession"),
        (Class::NotifyOnly, "NothingToContain"),
        (Class::Ignore, "NothingToContain"),
    ] {
        leaves(&facts(), &incident(class), code, true);
    }
}

#[test]
fn a_bound_is_set_once_and_its_end_is_containment() {
    let after = Facts { emergency: policy("{\"rules\": [{\"then\": {\"after\": 10}}]}"), ..facts() };
    let mut key = incident(Class::RevokeUserKey);
    // From when the event arrived: a try that comes late gives nobody more time.
    assert_eq!(decide(&after, &key), Decision::Delay(at(600)));
    key.bound = Some(at(601));
    assert_eq!(decide(&Facts { now: at(600), ..after.clone() }, &key), Decision::Delay(at(601)));
    assert_eq!(decide(&Facts { now: at(601), ..after }, &key), Decision::Contain(user("owner")));

    let first = Facts { emergency: policy("{\"rules\": [{\"then\": {\"replace_first\": 10}}]}"), ..facts() };
    let mut key = incident(Class::RevokeUserKey);
    assert_eq!(decide(&first, &key), Decision::ReplaceFirst(at(600)));
    key.bound = Some(at(601));
    assert_eq!(decide(&Facts { now: at(300), ..first.clone() }, &key), Decision::ReplaceFirst(at(601)));
    for over in [Facts { replaced: true, now: at(300), ..first.clone() }, Facts { now: at(601), ..first }] {
        assert_eq!(decide(&over, &key), Decision::Contain(user("owner")));
    }
}

#[test]
fn a_rule_by_user_is_about_the_owner_and_not_about_whom_the_event_names() {
    let key = incident(Class::RevokeUserKey);
    let rule = |user: &str| policy(&format!("{{\"rules\": [{{\"user\": \"{user}\", \"then\": \"page\"}}]}}"));
    let with = |user, owner| Facts { emergency: rule(user), owner, ..facts() };
    leaves(&with("owner", Owner::Is(user("owner"))), &key, "ForAPerson", true);
    assert_eq!(decide(&with("svc", Owner::Is(user("owner"))), &key), Decision::Contain(user("owner")));
    // Where IAM does not tell, the pair that would be tried is the event's.
    leaves(&with("svc", Owner::Unread("down".into())), &key, "ForAPerson", true);
}

#[test]
fn what_a_person_asks_for_is_done_at_once() {
    let mut key = incident(Class::RevokeUserKey);
    let paging = Facts { emergency: policy("{\"rules\": [{\"then\": \"page\"}]}"), ..facts() };
    leaves(&paging, &key, "ForAPerson", true);
    key.target.source = Source::Keywheel;
    assert_eq!(decide(&paging, &key), Decision::Contain(user("owner")));
    key.reported = true;
    leaves(&Facts { lately: Some(1), ..paging }, &key, "ForAPerson", true);
}

#[test]
fn odd_key_making_is_told_and_contained_only_where_the_policy_says_so() {
    let odd = incident(Class::OddKeyMaking);
    leaves(&facts(), &odd, "OddKeyMaking", true);
    // Nothing would be done with the switch on either, so it is not the switch that kept the key Active.
    let with = |switch| Facts { switch: Kept::Is(switch), ..facts() };
    leaves(&with(Containment::Page), &odd, "OddKeyMaking", true);
    leaves(&with(Containment::Off), &odd, "OddKeyMaking", false);
    // What their owner wrote for leaks is not meant.
    for rule in [
        r#"{"then": {"after": 5}}"#,
        r#"{"user": "*", "then": {"replace_first": 10}}"#,
        r#"{"source": "cloudtrail", "then": "now"}"#,
    ] {
        let emergency = policy(&format!("{{\"rules\": [{rule}]}}"));
        leaves(&Facts { emergency, ..facts() }, &odd, "OddKeyMaking", true);
    }
    let emergency = policy(r#"{"rules": [{"class": "ODD_KEY_MAKING", "then": "now"}]}"#);
    let contain = Facts { emergency, ..facts() };
    assert_eq!(decide(&contain, &odd), Decision::Contain(user("owner")));
    let paged = Facts { switch: Kept::Is(Containment::Page), ..contain };
    leaves(&paged, &odd, "NotSwitchedOn", true);
    // Who made a key in an odd way has leaked none.
    let said = |incident: &Incident| match decide(&paged, incident) {
        Decision::Leave(why, _) => why.text,
        other => panic!("{other:?}"),
    };
    assert!(said(&odd).starts_with(&odd.reason) && !said(&odd).contains("leaked"), "{}", said(&odd));
    let leaked = incident(Class::RevokeUserKey);
    assert!(said(&leaked).contains("is reported as leaked"), "{}", said(&leaked));
}

#[test]
fn reports_over_the_bus_are_braked_and_nothing_else_is() {
    let mut reported = incident(Class::RevokeUserKey);
    let with = |lately| Facts { lately, ..facts() };
    assert_eq!(decide(&with(None), &reported), Decision::Contain(user("owner")));
    assert_eq!(decide(&with(Some(1_000)), &reported), Decision::Contain(user("owner")));
    reported.reported = true;
    assert_eq!(decide(&with(Some(25)), &reported), Decision::Contain(user("owner")));
    leaves(&with(Some(26)), &reported, "Braked", true);
    // Not knowing holds, as soon as it was asked for a while.
    let asked = |tries| Incident { tries, ..reported.clone() };
    for tries in [0, ASK_FOR_COUNT - 1] {
        assert!(matches!(decide(&with(None), &asked(tries)), Decision::AskAgain(_)));
    }
    leaves(&with(None), &asked(ASK_FOR_COUNT), "Braked", true);
    assert_eq!(decide(&with(Some(25)), &asked(ASK_FOR_COUNT)), Decision::Contain(user("owner")));
    // What was begun is gone through with.
    let begun = Incident { bound: Some(at(-1)), ..reported.clone() };
    assert_eq!(decide(&with(Some(26)), &begun), Decision::Contain(user("owner")));
    let denied = Incident { stop_gap: true, ..reported.clone() };
    assert_eq!(decide(&with(None), &denied), Decision::Contain(user("owner")));
    let more = Facts { emergency: policy("{\"max_contain\": 30}"), ..with(Some(26)) };
    assert_eq!(decide(&more, &reported), Decision::Contain(user("owner")));
}

fn key(id: &str, active: bool, created: Option<Timestamp>) -> KeyFacts {
    let status = if active { KeyStatus::Active } else { KeyStatus::Inactive };
    KeyFacts { id: id.parse().unwrap(), status, created }
}

/// An incident whose key was contained ten seconds after its event.
fn contained(managed: bool, ours: &[&str]) -> Incident {
    let mut incident = incident(Class::RevokeUserKey);
    incident.keys = vec![KEY.parse().unwrap()];
    incident.known = vec![KEY.parse().unwrap(), "AKIAKNOWN00000000000".parse().unwrap()];
    incident.contained_at = Some(at(10));
    let keys = ours.iter().map(|key| key.parse().unwrap()).collect();
    incident.ours = Some(crate::incident::Ours { managed, keys });
    incident
}

const OTHER: &str = "AKIAOTHER00000000000";

#[test]
fn a_key_that_was_made_while_the_leaked_one_could_be_used_is_part_of_the_leak() {
    let incident = contained(false, &[]);
    for second in [0, 10, 70] {
        assert_eq!(sibling(&incident, &key(OTHER, true, Some(at(second)))), Sibling::Minted, "{second}");
    }
    for outside in [Some(at(-1)), Some(at(71)), None] {
        assert_eq!(sibling(&incident, &key(OTHER, true, outside)), Sibling::Tell, "{outside:?}");
    }
    // IAM keeps whole seconds: made just after the event, it may seem to be made in the same second before it.
    let mut later = incident;
    later.started = at(0) + jiff::SignedDuration::from_millis(900);
    let other = key(OTHER, true, Some(at(0)));
    assert!(!was_there(&later, &other) && was_there(&later, &key(OTHER, true, Some(at(-1)))));
    assert_eq!(sibling(&later, &other), Sibling::Minted);
    // What people made of the time that the policy gave them is theirs.
    later.bound = Some(at(10));
    assert_eq!(sibling(&later, &other), Sibling::Tell);
}

#[test]
fn nothing_else_is() {
    let incident = contained(true, &[OTHER]);
    let minted = Some(at(12));
    assert_eq!(sibling(&incident, &key(KEY, true, None)), Sibling::Reactivated);
    assert_eq!(sibling(&incident, &key(KEY, false, None)), Sibling::Leave);
    assert_eq!(sibling(&incident, &key("AKIAKNOWN00000000000", true, minted)), Sibling::Leave);
    assert_eq!(sibling(&incident, &key(OTHER, true, minted)), Sibling::Leave);
    assert_eq!(sibling(&incident, &key("AKIANEW0000000000000", false, minted)), Sibling::Leave);
}

#[test]
fn of_a_managed_user_a_new_key_is_looked_at_twice() {
    let new = key(OTHER, true, Some(at(12)));
    let mut incident = contained(true, &[]);
    assert_eq!(sibling(&incident, &new), Sibling::LookSoon);
    incident.suspects = vec![OTHER.parse().unwrap()];
    assert_eq!(sibling(&incident, &new), Sibling::Minted);
    // Which keys are ours could not be read: nobody's key is taken on a guess.
    incident.ours = None;
    assert_eq!(sibling(&incident, &new), Sibling::Tell);
    incident.suspects.clear();
    assert_eq!(sibling(&incident, &new), Sibling::LookSoon);
    incident.suspects = vec![OTHER.parse().unwrap()];
    incident.contained_at = None;
    assert_eq!(sibling(&incident, &new), Sibling::Leave);
}

#[test]
fn the_rules_are_read_in_their_order() {
    let target = |source, severity, class| Target { source, severity, ..incident(class).target };
    let policy = Emergency::parse(
        r#"{"rules": [
            {"user": "prod-*", "then": {"replace_first": 10}},
            {"source": "securityhub", "below": "high", "then": "page"},
            {"class": "POLICY_DECIDES", "then": {"after": 5}},
            {"user": "*-ci-*", "then": "page"},
            {"user": "exact", "then": "page"}
        ]}"#,
    )
    .unwrap();
    let of = |source, severity, class, user| policy.response(&target(source, severity, class), user);
    let (hub, duty) = (Source::SecurityHub, Source::GuardDuty);
    let (low, high, none) = (Severity::Low, Severity::High, Severity::Unknown);
    let revoke = Class::RevokeUserKey;
    assert!(matches!(of(hub, low, revoke, Some("prod-mail")), Response::ReplaceFirst(_)));
    assert_eq!(of(hub, low, revoke, Some("test")), Response::Page);
    assert_eq!(of(hub, high, revoke, Some("test")), Response::Now);
    // A severity that nobody gave is not low.
    assert_eq!(of(hub, none, revoke, Some("test")), Response::Now);
    assert_eq!(of(duty, low, revoke, Some("test")), Response::Now);
    assert!(matches!(of(duty, low, Class::PolicyDecides, None), Response::After(_)));
    assert_eq!(of(duty, low, Class::ResolveUserKeys, None), Response::Page);
    assert_eq!(of(duty, low, revoke, None), Response::Now);
    for (name, paged) in [
        ("a-ci-b", true),
        ("a-ci", false),
        ("-ci-", true),
        ("exact", true),
        ("exactly", false),
        ("inexact", false),
    ] {
        assert_eq!(of(duty, low, revoke, Some(name)) == Response::Page, paged, "{name}");
    }
}

#[test]
fn a_policy_with_a_mistake_is_refused_with_its_place() {
    for (text, said) in [
        ("", "EOF"),
        ("{\"rules\": [{\"then\": \"later\"}]}", "later"),
        ("{\"rules\": [{\"then\": {\"after\": 0}}]}", "1 to 60"),
        ("{\"rules\": [{\"then\": {\"after\": 61}}]}", "1 to 60"),
        ("{\"rules\": [{\"then\": {\"replace_first\": 600}}]}", "1 to 60"),
        ("{\"rules\": [{\"users\": \"a\", \"then\": \"now\"}]}", "users"),
        ("{\"rules\": [{\"user\": \"a\"}]}", "then"),
        ("{\"rule\": []}", "rule"),
        ("{\"max_contain\": -1}", "-1"),
    ] {
        let error = Emergency::parse(text).unwrap_err();
        assert!(error.contains(said) && error.contains("line"), "{text}: {error}");
    }
    assert_eq!(Emergency::parse("{}").unwrap(), Emergency::default());
    assert_eq!(Emergency::default().max_contain, 25);
    let most = Emergency::parse("{\"rules\": [{\"then\": {\"after\": 60}}]}").unwrap();
    assert!(
        matches!(most.rules[0].then, Response::After(minutes) if minutes.get() == Duration::from_hours(1))
    );
}

#[test]
fn an_incidents_documents_read_back_and_its_name_follows_from_the_event() {
    let one = incident(Class::RevokeUserKey);
    assert_eq!(one.id, incident(Class::RevokeUserKey).id);
    assert_ne!(one.id, incident(Class::ResolveUserKeys).id);
    assert!(one.execution.ends_with(&format!(":keywheel-prod-incident:{}", one.id)), "{}", one.execution);
    let text = serde_json::to_string(&one).unwrap();
    // A thousand of them must fit into one state.
    assert!(text.len() < 500, "{}", text.len());
    assert_eq!(serde_json::from_str::<Incident>(&text).unwrap(), one);
    let mut ended = one;
    ended.end(at(3), Outcome::Blocked, Why::new("Code", "Text.", "Remedy."));
    assert_eq!(ended.notices[0].text, "Blocked: Text. Remedy.");
}

//! Warnings ahead: each owner once for a key's date, however many campaigns come, are missed, stopped or fail.

use std::collections::BTreeSet;

use keywheel::campaign::{Campaign, Outcome as Ended};
use keywheel::fleet::warned::{WARNINGS, Warnings};
use keywheel::notice::NoticeKind;
use keywheel::rotation::Delivery;
use serde_json::{Value, json};
use support::campaign::Campaigned;
use support::estate::days;
use support::fake::Object;
use support::faults::{Fault, Kind, Plan};
use support::figures::{everything, say};
use support::walker::Control;
use support::world::World;

use crate::all_due;

/// Tells the owner of these users a week ahead, and nobody else.
fn policy() -> Value {
    json!({"rules": [
        {"name": "team", "match": {"user": "team-*"}, "set": {"warn": "7d", "owner": "team@example.com"}},
    ]})
}

/// Users with one key each, of so many days. Nobody else's is due within the next ninety.
fn account(users: &[(&str, u64)]) -> World {
    let world = all_due(0);
    let key = world.current_key();
    world.fake.state().age_key(&key, 0);
    world.push_policy(policy());
    for (user, age) in users {
        world.managed(user, &[*age]);
    }
    world
}

/// What the schedule starts.
async fn scheduled(world: &World) -> Campaigned {
    world.campaign(json!({"reason": "scheduled"})).await
}

/// The warnings that the bus has, each by its id and its text.
fn told(world: &World) -> Vec<(String, String)> {
    let state = world.fake.state();
    let warnings = state.bus.iter().filter(|entry| entry["Detail"]["kind"] == "DueSoon");
    let text = |entry: &Value, field: &str| entry["Detail"][field].as_str().unwrap().to_owned();
    warnings.map(|entry| (text(entry, "id"), text(entry, "text"))).collect()
}

/// The ids of the notices that have told of a user.
fn told_of(world: &World, user: &str) -> Vec<String> {
    let line = format!("\n- {user}: ");
    told(world).into_iter().filter(|(_, text)| text.contains(&line)).map(|(id, _)| id).collect()
}

/// The id of a campaign's notice to an owner.
fn id(doc: &Campaign, owner: &str) -> String {
    format!("{}/DueSoon/{owner}", doc.campaign)
}

/// What is remembered.
fn remembered(world: &World) -> Option<Warnings> {
    let state = world.fake.state();
    state.object(WARNINGS).map(|text| serde_json::from_str(text).unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_owner_is_told_once_however_many_campaigns_follow() {
    let world = account(&[("team-a", 82), ("team-b", 80), ("other", 80)]);
    let (mut warned, mut ids) = (Vec::new(), Vec::new());
    // The first key is due on the eighth day, the others on the tenth.
    for _ in 0..8 {
        let done = scheduled(&world).await;
        let doc = done.expect(Ended::Done, "NothingDue").doc();
        warned.push(doc.counts.warned);
        ids.push(id(doc, "team@example.com"));
        world.fake.wait(days(1)).await;
    }
    assert_eq!(warned, [0, 1, 0, 1, 0, 0, 0, 0]);
    assert_eq!(told_of(&world, "team-a"), [ids[1].clone()]);
    assert_eq!(told_of(&world, "team-b"), [ids[3].clone()]);
    assert_eq!(told(&world).len(), 2);
    let kept = remembered(&world).unwrap();
    assert_eq!(kept.users.keys().collect::<Vec<_>>(), ["team-a", "team-b"]);
    // Each of them is known to have been told, and nobody is asked about it any more.
    assert_eq!(kept.carried.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_next_key_is_warned_of_when_its_own_day_comes() {
    let world = account(&[("team-a", 89)]);
    scheduled(&world).await.expect(Ended::Done, "NothingDue");
    let first = remembered(&world).unwrap().users["team-a"].clone();
    world.fake.wait(days(1)).await;
    // It is due, so that it is rotated, and nobody is told ahead.
    let rotated = scheduled(&world).await;
    assert_eq!(rotated.expect(Ended::Done, "AllBegun").doc().counts.warned, 0);
    world.fake.wait(days(70)).await;
    scheduled(&world).await.expect(Ended::Done, "NothingDue");
    assert_eq!(told_of(&world, "team-a").len(), 1);
    assert!(remembered(&world).unwrap().users.is_empty());
    world.fake.wait(days(6)).await;
    let again = scheduled(&world).await;
    let told = told_of(&world, "team-a");
    assert_eq!((told.len(), &told[1]), (2, &id(again.doc(), "team@example.com")));
    let second = remembered(&world).unwrap().users["team-a"].clone();
    assert!(second.due.duration_since(first.due).as_hours() / 24 >= 90, "{first:?}, {second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_warning_whose_day_was_missed_goes_out_late_and_once() {
    let world = account(&[("team-a", 80)]);
    scheduled(&world).await;
    assert_eq!(told(&world).len(), 0);
    // The stack is down while the day of the warning passes, and comes back two days before the key is due.
    world.fake.wait(days(8)).await;
    let late = scheduled(&world).await;
    assert_eq!(told_of(&world, "team-a"), [id(late.doc(), "team@example.com")]);
    world.fake.wait(days(1)).await;
    scheduled(&world).await.expect(Ended::Done, "NothingDue");
    assert_eq!(told(&world).len(), 1);
    // Where it comes back when the key is due, the key is rotated: there is nothing left to be told ahead.
    let world = account(&[("team-a", 80)]);
    world.fake.wait(days(11)).await;
    scheduled(&world).await.expect(Ended::Done, "AllBegun");
    assert_eq!(told(&world).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_holds_keys_up_holds_no_warning_back_and_is_told_with_it() {
    let mut frozen = policy();
    frozen["limits"] = json!({"freeze": [
        {"from": "2026-01-01T00:00:00Z", "until": "2026-01-06T00:00:00Z", "reason": "year end"}]});
    for (mode, policy, outcome, code, words) in [
        ("live", &frozen, Ended::Refused, "Frozen", "until 2026-01-06T00:00:00Z (year end)."),
        ("paused", &policy(), Ended::Refused, "Paused", "is paused: until it is live nothing is rotated."),
        ("dry-run", &policy(), Ended::Planned, "ModeIsDryRun", "is dry-run: until it is live nothing"),
    ] {
        let world = account(&[("team-a", 85)]);
        world.push_policy(policy.clone());
        world.mode(mode);
        let held = scheduled(&world).await;
        held.expect(outcome, code);
        let all = told(&world);
        let [(told_by, text)] = all.as_slice() else { panic!("{code}: {all:?}") };
        assert_eq!(*told_by, id(held.doc(), "team@example.com"), "{code}");
        assert!(text.contains(words), "{code}: {text}");
        world.mode("live");
        world.fake.wait(days(1)).await;
        scheduled(&world).await.expect(Ended::Done, "NothingDue");
        assert_eq!(told(&world), all, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_asks_for_warns_nobody_and_takes_no_warning_away() {
    for asked in [
        json!({}),
        json!({"reason": "manual"}),
        json!({"reason": "scheduled", "dry_run": true}),
        json!({"reason": "scheduled", "dry_run": true, "secrets": ["team-a"]}),
    ] {
        let world = account(&[("team-a", 85)]);
        let done = world.campaign(asked.clone()).await;
        assert_eq!((done.doc().counts.warned, told(&world).len()), (0, 0), "{asked}");
        assert_eq!(remembered(&world), None, "{asked}");
        scheduled(&world).await;
        assert_eq!(told_of(&world, "team-a").len(), 1, "{asked}");
    }
    // A secret that is named is rotated, whoever asks.
    let world = account(&[("team-a", 85), ("team-b", 85)]);
    world
        .campaign(json!({"reason": "scheduled", "secrets": ["team-a"]}))
        .await
        .expect(Ended::Done, "AllBegun");
    assert_eq!((told(&world).len(), remembered(&world)), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_warns_nobody_costs_no_call() {
    let world = account(&[("team-a", 85)]);
    world.push_policy(json!({}));
    scheduled(&world).await.expect(Ended::Done, "NothingDue");
    assert_eq!(told(&world).len(), 0);
    assert!(world.fake.state().calls.iter().all(|call| call.params["Key"] != WARNINGS));
}

#[tokio::test(start_paused = true)]
async fn each_owner_has_one_notice_with_its_keys() {
    let world = account(&[
        ("mail-a", 85),
        ("mail-b", 84),
        ("mail-exempt", 85),
        ("mail-young", 82),
        ("mail-due", 95),
        ("web-a", 86),
        ("lone-a", 85),
    ]);
    world.push_policy(json!({
        "defaults": {"warn": "7d"},
        "rules": [{"name": "mail", "match": {"user": "mail-*"}, "set": {"owner": "mail@example.com"}}],
        "exemptions": [{"user": "mail-exempt", "owner": "a", "reason": "a fair", "until": "2026-12-31"}],
    }));
    let owner = ("keywheel:owner".to_owned(), "web@example.com".to_owned());
    world.fake.state().secret_mut("web-a").tags.extend([owner]);
    let done = scheduled(&world).await;
    let doc = done.expect(Ended::Done, "AllBegun").doc();
    assert_eq!((doc.keys(), doc.counts.warned, doc.delivery), (1, 4, Delivery::Done));
    // What the campaign is about to do comes first.
    assert_eq!(doc.notices[0].kind, NoticeKind::Planned);
    let ids: BTreeSet<String> = told(&world).into_iter().map(|(id, _)| id).collect();
    let owners = ["mail@example.com", "web@example.com", "nobody"];
    assert_eq!(ids, owners.map(|owner| id(doc, owner)).into());
    for (user, owner) in [("mail-a", 0), ("mail-b", 0), ("web-a", 1), ("lone-a", 2)] {
        assert_eq!(told_of(&world, user), [id(doc, owners[owner])], "{user}");
    }
    for user in ["mail-exempt", "mail-young", "mail-due"] {
        assert_eq!(told_of(&world, user), [""; 0], "{user}");
    }
    let (_, text) = told(&world).into_iter().find(|(told, _)| *told == id(doc, owners[0])).unwrap();
    assert!(text.starts_with("2 keys of mail@example.com are due soon"), "{text}");
    assert!(text.contains("\n- mail-a: 85 days old, due on 2026-01-10"), "{text}");
    // For programs there is a list.
    let state = world.fake.state();
    let list = state.object(&doc.due_soon()).unwrap().lines();
    let list: Vec<Value> = list.map(|line| serde_json::from_str(line).unwrap()).collect();
    let users: Vec<&str> = list.iter().map(|line| line["user"].as_str().unwrap()).collect();
    assert_eq!(users, ["web-a", "lone-a", "mail-a", "mail-b"]);
    assert_eq!((&list[0]["owner"], &list[1]["owner"]), (&json!("web@example.com"), &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn of_250_users_those_that_are_due_soon_are_told_of_and_calls_do_not_grow_with_them() {
    let mut figures = Vec::new();
    for (every, soon) in [(5, 50), (1, 250)] {
        let world = account(&[]);
        world.fake.state().options.page = 37;
        for number in 0..250 {
            let age = if number % every == 0 { 85 } else { 30 };
            drop(world.managed_without_value(&format!("team-{number:03}"), &[age]));
        }
        let first = scheduled(&world).await;
        let doc = first.expect(Ended::Done, "NothingDue").doc();
        assert_eq!((doc.counts.users, doc.counts.warned), (251, soon));
        let all = told(&world);
        let [(_, text)] = all.as_slice() else { panic!("{} notices", all.len()) };
        assert!(text.starts_with(&format!("{soon} keys of team@example.com are due soon")), "{text}");
        // A hundred are named at most; all of them are in the list.
        let named = (0..250).filter(|number| text.contains(&format!("\n- team-{number:03}: "))).count();
        assert_eq!(named, soon.min(100));
        let more = format!("\n- and 150 more: s3://{}/{}", doc.bucket, doc.due_soon());
        assert_eq!(text.ends_with(&more), soon == 250, "{text}");
        let listed = world.fake.state().object(&doc.due_soon()).unwrap().lines().count();
        assert_eq!(listed, soon);
        let size = first.walk.output.to_string().len();
        assert!(size < 20_000, "{size}");
        // The report is asked for twice and fetched once; then come the other campaigns, the policy, the switch, the
        // plan and the outcome. Warnings take three calls: what is remembered is read and written, and the list is
        // written.
        let calls = world.calls_by_function()["scan"];
        assert_eq!(calls, 3 + 251_usize.div_ceil(37) + 5 + 3);
        // The next day nobody is told, and it is asked once whether the first campaign has told them.
        world.fake.wait(days(1)).await;
        scheduled(&world).await.expect(Ended::Done, "NothingDue");
        assert_eq!((told(&world), world.calls_by_function()["scan"]), (all, 2 * calls));
        figures.push(format!("{soon} warned: {calls} calls, a document of {size} bytes"));
    }
    say(&format!("fleet: of 250 users {}", figures.join("; ")));
}

const USERS: [(&str, u64); 2] = [("team-a", 85), ("team-b", 84)];

/// Fails the test unless each was told of, and under one id alone.
fn each_was_told_of_under_one_id(world: &World, case: &str) {
    for (user, _) in USERS {
        let ids: BTreeSet<String> = told_of(world, user).into_iter().collect();
        assert_eq!(ids.len(), 1, "{case}: {user} was told of by {ids:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_fails_anywhere_loses_no_warning_and_doubles_none() {
    let world = account(&USERS);
    scheduled(&world).await.expect(Ended::Done, "NothingDue");
    let calls = world.calls_by_function()["scan"];
    let (mut cases, mut late) = (0, 0);
    for kind in Kind::ALL {
        // On every change each call fails in a third of the ways, neighbours in others.
        for at in (0..calls).filter(|at| everything() || (at + kind as usize).is_multiple_of(3)) {
            for lasting in [false, true] {
                let world = account(&USERS);
                let fault = Fault::within("Scan", at, kind);
                world.fake.state().plan = Plan::new([if lasting { fault.for_good() } else { fault }]);
                scheduled(&world).await;
                let case = format!("{kind:?} at {at}, lasting: {lasting}");
                assert!(world.fake.state().plan.fired() > 0, "{case}");
                world.fake.state().plan = Plan::default();
                late += usize::from(told_of(&world, "team-a").is_empty());
                for _ in 0..2 {
                    world.fake.wait(days(1)).await;
                    scheduled(&world).await.expect(Ended::Done, "NothingDue");
                    each_was_told_of_under_one_id(&world, &case);
                }
                cases += 1;
            }
        }
    }
    say(&format!("fleet: of {cases} scans that fail {late} warn a day late, and none twice or never"));
    assert!(late > 0 && late < cases);
}

#[tokio::test(start_paused = true)]
async fn a_campaign_that_is_stopped_anywhere_loses_no_warning_and_doubles_none() {
    for (stopped_at, told_before) in
        [("Scan", false), ("NotifyPlanned", false), ("Course", true), ("NotifyOutcome", true)]
    {
        let world = account(&USERS);
        let stopped = world
            .campaign_watched(json!({"reason": "scheduled"}), &mut |_, state, _| {
                if state == stopped_at { Control::Stop } else { Control::Go }
            })
            .await;
        assert_eq!(stopped.walk.status, "ABORTED", "{stopped_at}");
        assert_eq!(told_of(&world, "team-a").len(), usize::from(told_before), "{stopped_at}");
        let mut carried = Vec::new();
        for _ in 0..2 {
            world.fake.wait(days(1)).await;
            let next = scheduled(&world).await;
            carried.push(next.expect(Ended::Done, "NothingDue").doc().carries.len());
            each_was_told_of_under_one_id(&world, stopped_at);
        }
        assert_eq!(carried, [1, 0], "{stopped_at}");
        if let Some(doc) = &stopped.doc {
            assert_eq!(told_of(&world, "team-a").pop(), Some(id(doc, "team@example.com")), "{stopped_at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_runs_twice_tells_once() {
    let world = account(&USERS);
    let done = world
        .campaign_watched(json!({"reason": "scheduled"}), &mut |_, state, _| {
            if state == "Scan" { Control::Twice } else { Control::Go }
        })
        .await;
    assert_eq!(done.expect(Ended::Done, "NothingDue").doc().counts.warned, 2);
    for (user, _) in USERS {
        assert_eq!(told_of(&world, user), [id(done.doc(), "team@example.com")]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_channel_took_for_a_day_is_told_by_the_next_campaign_under_the_same_id() {
    let world = account(&USERS);
    world.fake.state().plan = Plan::new([Fault::on("sns:Publish", Kind::Refused).for_good()]);
    let first = scheduled(&world).await;
    let told = id(first.doc(), "team@example.com");
    assert_eq!(first.expect(Ended::Done, "NothingDue").doc().delivery, Delivery::GaveUp);
    let on_topic = |world: &World| {
        let state = world.fake.state();
        state.topic.iter().filter(|message| message.to_string().contains(&told)).count()
    };
    assert_eq!(on_topic(&world), 0);
    world.fake.state().plan = Plan::default();
    for _ in 0..2 {
        world.fake.wait(days(1)).await;
        scheduled(&world).await.expect(Ended::Done, "NothingDue");
        assert_eq!(on_topic(&world), 1);
    }
    each_was_told_of_under_one_id(&world, "no topic");
}

/// Puts something else where it is remembered who was warned.
fn put_warnings(world: &World, text: &str) {
    let object = Object { key: WARNINGS.to_owned(), text: text.to_owned(), version: "odd".to_owned() };
    world.fake.state().objects.push(object);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_and_cannot_be_read_fails_no_campaign_and_is_loud() {
    for text in ["odd", "{}", "[]"] {
        let world = account(&[("team-a", 85), ("late", 100)]);
        put_warnings(&world, text);
        let done = scheduled(&world).await;
        let doc = done.expect(Ended::Done, "AllBegun").doc();
        assert_eq!((doc.done(), doc.counts.warned), ((1, 0), 0));
        let all = told(&world);
        let [(told_by, told)] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(*told_by, format!("{}/DueSoon", doc.campaign));
        assert!(told.contains("were not told") && told.contains("warnings.json is not understood"), "{told}");
    }
    // Mended, it is as if nothing had been.
    let world = account(&USERS);
    put_warnings(&world, "odd");
    scheduled(&world).await;
    put_warnings(&world, "{\"schema\": 1}");
    world.fake.wait(days(1)).await;
    scheduled(&world).await;
    each_was_told_of_under_one_id(&world, "mended");
}

#[tokio::test(start_paused = true)]
async fn users_that_could_not_be_read_for_a_day_are_not_told_of_again() {
    let world = account(&USERS);
    scheduled(&world).await;
    world.fake.wait(days(1)).await;
    world.fake.state().denied.insert("secretsmanager:ListSecrets".into());
    scheduled(&world).await.expect(Ended::Stopped, "Unread");
    assert_eq!(remembered(&world).unwrap().users.len(), 2);
    world.fake.state().denied.clear();
    world.fake.wait(days(1)).await;
    scheduled(&world).await.expect(Ended::Done, "NothingDue");
    assert_eq!(told(&world).len(), 1);
    // Whom no secret names any more is forgotten.
    world.untag("team-a", "secret");
    world.fake.wait(days(1)).await;
    scheduled(&world).await;
    assert_eq!(remembered(&world).unwrap().users.into_keys().collect::<Vec<_>>(), ["team-b"]);
}

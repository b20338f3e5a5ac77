//! What is made of events: each sample gets its class, and nothing that anybody can send does harm.

#![expect(clippy::unwrap_used, reason = "a test, where a panic with its place is what should be seen")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keywheel::triage::{Class, MOST_TARGETS, Verdict, triage};
use serde_json::{Value, json};
use support::fake::{Key, User};
use support::figures::say;
use support::hostile::{Hostile, KEY, inputs};
use support::world::{World, paused};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn name(class: Class) -> String {
    serde_json::to_value(class).unwrap().as_str().unwrap().to_owned()
}

/// Our own samples, with the classes that are expected of them.
fn samples() -> BTreeMap<String, (Vec<u8>, String)> {
    let folder = root().join("events/leaks");
    let classes = std::fs::read_to_string(folder.join("classes.json")).unwrap();
    let classes: BTreeMap<String, String> = serde_json::from_str(&classes).unwrap();
    let read = |(file, class): (String, String)| {
        let event = std::fs::read(folder.join(&file)).unwrap();
        (file, (event, class))
    };
    classes.into_iter().map(read).collect()
}

#[test]
fn every_sample_gets_its_class() {
    let samples = samples();
    let files = std::fs::read_dir(root().join("events/leaks")).unwrap().count();
    assert_eq!(samples.len() + 1, files, "events/leaks/classes.json names every sample");
    for (file, (event, expected)) in samples {
        let verdict = triage(&event);
        assert_eq!(name(verdict.class), expected, "{file}: {}", verdict.reason);
    }
}

/// The events that are collected beside the repository, where they are: real ones, and what is expected of each.
#[test]
fn every_collected_event_gets_its_class() {
    let folder = root().join("../shared/events");
    let Ok(manifest) = std::fs::read_to_string(folder.join("MANIFEST.tsv")) else {
        say("triage: ../shared/events is absent, so only events/leaks was judged");
        return;
    };
    let mut wrong = 0;
    let mut families: BTreeMap<&str, BTreeMap<String, u32>> = BTreeMap::new();
    for line in manifest.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let (file, family, expected) = (columns[0], columns[2], columns[6]);
        let got = name(triage(&std::fs::read(folder.join(file)).unwrap()).class);
        // Of classes joined by OR either will do. A key is revoked by its id whatever the event says of its user,
        // a refusal is what tells a person, and the reason of a verdict tells of the rest.
        let fits = format!("_OR_{expected}_OR_").contains(&format!("_OR_{got}_OR_"))
            || expected == format!("{got}_AND_NOTIFY")
            || got == "REVOKE_USER_KEY" && expected.ends_with("_OR_REVOKE_BY_KEY");
        wrong += u32::from(!fits);
        say(&format!("{} {file:<62} {expected:<36} {got}", if fits { "  " } else { "!!" }));
        *families.entry(family).or_default().entry(got).or_default() += 1;
    }
    for (family, classes) in families {
        let classes: Vec<String> =
            classes.into_iter().map(|(class, count)| format!("{count} {class}")).collect();
        say(&format!("triage: {family}: {}", classes.join(", ")));
    }
    assert_eq!(wrong, 0, "events that did not get their class");
}

/// Whatever came in, a target that comes out is one that IAM could be asked about.
fn is_sound(verdict: &Verdict) -> bool {
    let id = |id: &str| {
        (id.starts_with("AKIA") || id.starts_with("ASIA"))
            && (16..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    verdict.reason.len() < 1000
        && verdict.targets.len() <= MOST_TARGETS
        && verdict.targets.iter().all(|target| {
            let account = target.account.as_deref();
            target.key_id.as_ref().is_none_or(|key| id(key.as_str()))
                && account
                    .is_none_or(|text| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()))
        })
        && (verdict.class != Class::Reject || verdict.targets.is_empty())
}

#[test]
fn hostile_events_are_refused_and_hide_no_leak() {
    let inputs = inputs();
    assert!(inputs.len() >= 40);
    for Hostile { what, event, class: expected } in inputs {
        let verdict = triage(&event);
        assert_eq!(verdict.class, expected, "{what}: {}", verdict.reason);
        assert!(is_sound(&verdict), "{what}: {verdict:?}");
        assert!(!verdict.reason.is_empty(), "{what} is refused without a reason");
    }
}

/// The same through the machines: nothing is changed but the one key that is named, and its owner's policies.
#[test]
fn hostile_events_change_nothing_on_their_way_through_the_machines() {
    let mut walked = 0;
    for input in inputs() {
        // What is no JSON, or larger than EventBridge carries, gets no further than its door.
        let Some(mut event) = input.carried() else { continue };
        // Delivered by EventBridge, so that the brake holds for what is our own.
        event["id"] = json!("6f1b1f6e-5f0e-4c8e-9d43-0f3c2b1a0d9c");
        walked += 1;
        paused(walk(input.what, event, input.class));
    }
    say(&format!("triage: {walked} hostile events were walked"));
    assert!(walked >= 40, "only {walked} of them are events");
}

async fn walk(what: &str, event: Value, class: Class) {
    const OWNER: &str = "alice";
    let world = World::leaked();
    let made = world.stranger(OWNER);
    world.fake.state().key_mut(&made).id = KEY.into();
    world.leak(KEY);
    let before = world.fake.state().users.clone();
    let about = event.to_string().contains(KEY);
    let alarm = world.alarm(event).await;
    // Nothing that is written beside a leak hides it.
    let leaked = class == Class::RevokeUserKey && about;
    assert_eq!(world.is_active(KEY), !leaked, "{what}");
    let state = world.fake.state();
    for call in state.calls.iter().filter(|call| call.function.is_some()) {
        let reads = ["Get", "List", "Describe", "Lookup"];
        let (service, action) = call.name.split_once(':').unwrap();
        if reads.iter().any(|read| action.starts_with(read)) {
            continue;
        }
        // Of the writes, those that tell, that start what looks after the key, and that keep what is known of it.
        let told = ["sns:Publish", "events:PutEvents", "states:StartExecution"].contains(&&*call.name);
        let named = |field: &str| call.params.get(field).and_then(Value::as_str).unwrap_or_default();
        let kept = call.name == "ssm:PutParameter" && named("Name").ends_with(&format!("/incidents/{KEY}"))
            || call.name == "s3:PutObject" && named("Key").starts_with("incidents/");
        let owners = service == "iam"
            && named("UserName") == OWNER
            && (named("AccessKeyId") == KEY || named("PolicyName").ends_with(KEY));
        assert!(told || kept || owners, "{what}: {} {:?}", call.name, call.params);
    }
    for (name, user) in &state.users {
        let was = &before[name];
        let key = |key: &Key| (key.id.clone(), key.changes.clone(), key.deleted);
        let keys = |user: &User| user.keys.iter().map(key).collect::<Vec<_>>();
        let mine = |user: &User| (keys(user), user.inline.clone(), user.attached.clone());
        assert!(name == OWNER || mine(user) == mine(was), "{what}: {name} was changed");
    }
    for message in &state.topic {
        let text = message.to_string();
        let odd = |c: char| c.is_control() || ['\u{202e}', '\u{200b}', '\u{feff}'].contains(&c);
        assert!(!text.contains(odd), "{what}: {text:?}");
        assert!(!text.contains("\\u001b") && !text.contains("\\u0000"), "{what}: {text:?}");
    }
    // A failed one is loud: the rule on the execution's status tells people.
    assert!(matches!(alarm.walk.status, "SUCCEEDED" | "FAILED"), "{what}");
    assert!(alarm.walk.status == "SUCCEEDED" || !state.topic.is_empty(), "{what}: nobody was told");
}

#[test]
fn no_change_to_an_event_brings_it_down() {
    let samples: Vec<Vec<u8>> = samples().into_values().map(|(event, _)| event).collect();
    let pieces: [&[u8]; 10] =
        [b"null", b"{}", b"[]", b"\"\"", b"-1e400", b"\\u0000", b"\xff", b"\"Records\":", b"}}", b"true"];
    let mut rng = fastrand::Rng::with_seed(7);
    for round in 0..20_000 {
        let mut event = samples[rng.usize(..samples.len())].clone();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..event.len());
            match rng.u8(..4) {
                0 => event[at] = rng.u8(..),
                1 => event.truncate(at.max(1)),
                2 => drop(event.splice(at..at, pieces[rng.usize(..pieces.len())].iter().copied())),
                _ => {
                    let end = (at + rng.usize(1..40)).min(event.len());
                    event.drain(at..end);
                    if event.is_empty() {
                        event.push(b'{');
                    }
                }
            }
        }
        let verdict = triage(&event);
        assert!(is_sound(&verdict), "round {round}: {verdict:?}");
    }
}

/// A value in an event is replaced by one of another type: the shape holds, the meaning does not.
#[test]
fn a_field_of_another_type_is_never_a_guess() {
    for (file, (event, _)) in samples() {
        let whole: Value = serde_json::from_slice(&event).unwrap();
        let mut paths = Vec::new();
        fields(&whole, String::new(), &mut paths);
        for path in paths {
            for odd in [json!(null), json!(7), json!("\u{202e}"), json!([]), json!({}), json!(true)] {
                let mut event = whole.clone();
                *event.pointer_mut(&path).unwrap() = odd;
                let verdict = triage(event.to_string().as_bytes());
                assert!(is_sound(&verdict), "{file} {path}: {verdict:?}");
            }
        }
    }
}

fn fields(value: &Value, path: String, paths: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in inner {
        fields(value, format!("{path}/{name}"), paths);
    }
    paths.push(path);
}

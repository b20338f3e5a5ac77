//! An audit of an account: every key by its id, read through the SDK from the fake, with the plan's word.

use std::collections::BTreeSet;

use facts::audit;
use keywheel::StepError;
use keywheel::decide::due;
use keywheel::fleet::FleetPolicy;
use keywheel::fleet::audit::{Book, Entry, Managed, Would, book};
use keywheel::fleet::estate::Estate;
use keywheel::fleet::plan::Action;
use support::fake::{Fake, Maker};
use support::world::World;

use super::{of_250_users, plan, read, users};

/// Reads an account as the command does.
async fn audited(fake: &Fake) -> Result<Book, StepError> {
    let estate = read(fake).await?;
    Ok(closer(fake, estate).await)
}

async fn closer(fake: &Fake, mut estate: Estate) -> Book {
    let nears = audit::users(&fake.config_of("somebody"), &estate).await;
    let silent = audit::refine(&mut estate, &nears);
    let now = fake.state().now();
    let plan = due::plan(&FleetPolicy::default(), &estate, &audit::looks(&nears), now);
    book(&estate, &audit::tags(&nears), &plan, &silent, now)
}

fn of<'a>(book: &'a Book, user: &str) -> Vec<&'a Entry> {
    book.entries.iter().filter(|entry| entry.user == user).collect()
}

/// The ids of all keys of this account that are there.
fn all_keys(fake: &Fake) -> BTreeSet<String> {
    let state = fake.state();
    let here = state.users.values().filter(|user| user.account.is_none());
    here.flat_map(|user| user.keys.iter().filter(|key| key.exists()).map(|key| key.id.clone())).collect()
}

fn ids(book: &Book) -> BTreeSet<String> {
    book.entries.iter().filter_map(|entry| Some(entry.key_id.as_ref()?.as_str().to_owned())).collect()
}

fn would_rotate(book: &Book) -> BTreeSet<&str> {
    let rotated = book.entries.iter().filter(|entry| entry.would == Would::Rotate);
    rotated.map(|entry| entry.user.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_key_of_250_users_is_there_with_the_plans_word_and_no_secret_is_opened() {
    let world = of_250_users();
    let tags = [("ManagedBy", "terraform"), ("owner", "mail@example.com")];
    for (name, value) in tags {
        let mut state = world.fake.state();
        state.users.get_mut("svc-001").unwrap().tags.insert(name.into(), value.into());
    }
    let (_, planned) = plan(&world.fake, &FleetPolicy::default()).await.unwrap();
    let before = world.fake.state().calls.len();
    let book = audited(&world.fake).await.unwrap();
    let calls = world.fake.call_names()[before..].to_vec();
    assert!(calls.iter().all(|name| !name.ends_with("GetSecretValue")), "an audit opens no secret");
    assert_eq!(book.unread, [""; 0]);
    // Two users have two keys.
    assert_eq!((book.entries.len(), ids(&book)), (252, all_keys(&world.fake)));
    let due: BTreeSet<&str> = users(&planned, Action::Rotate).into_iter().collect();
    assert_eq!((would_rotate(&book), due.len()), (due, 39));
    let half = book.entries.iter().filter(|entry| entry.managed == Managed::Half);
    assert_eq!(
        half.map(|entry| entry.user.as_str()).collect::<BTreeSet<_>>(),
        BTreeSet::from(["svc-024", "svc-030"])
    );
    assert!(of(&book, "svc-024").iter().all(|entry| entry.code == "TagsDisagree"));
    assert!(of(&book, "svc-030")[0].findings.iter().any(|finding| finding.code == "OverAge"));
    let both = of(&book, "svc-012");
    assert!(both.len() == 2 && both.iter().all(|entry| entry.slots == 2 && entry.code == "TwoKeys"));
    assert_eq!(of(&book, "svc-001")[0].terraform, ["user tag ManagedBy=terraform"]);
    assert_eq!(of(&book, "svc-001")[0].owner.as_deref(), Some("mail@example.com"));
    for entry in book.entries.iter().filter(|entry| entry.user != "svc-mail") {
        let last = entry.last_use.as_ref().unwrap();
        assert!(last.at.is_some() && last.service.as_deref() == Some("s3"), "{entry:?}");
    }
    // Keys that no run would touch though they are past their age come first.
    assert_eq!(book.entries[0].user, "svc-030");

    // Without a report the users are listed, page by page, and the same is found.
    for call in ["iam:GenerateCredentialReport", "iam:GetCredentialReport"] {
        world.fake.state().denied.insert(call.into());
    }
    let listed = audited(&world.fake).await.unwrap();
    assert_eq!((ids(&listed), would_rotate(&listed)), (ids(&book), would_rotate(&book)));
    assert!(listed.entries.iter().all(|entry| entry.last_use.is_some()));
}

#[tokio::test(start_paused = true)]
async fn what_an_audit_cannot_read_is_told_and_is_not_called_unmanaged_or_unused() {
    let told = async |denied: &[&str]| {
        let world = World::new();
        world.managed("svc-a", &[120]);
        world.fake.state().denied.extend(denied.iter().map(|call| (*call).to_owned()));
        audited(&world.fake).await
    };
    for denied in ["iam:GetUser", "iam:ListAccessKeys"] {
        let book = told(&[denied]).await.unwrap();
        assert!(book.unread.len() >= 2, "{denied}: {:?}", book.unread);
        assert!(book.unread.iter().any(|why| why.starts_with("svc-a: ") && why.contains("AccessDenied")));
        let entry = of(&book, "svc-a")[0];
        assert_eq!((&entry.key_id, entry.managed, entry.would), (&None, Managed::Unknown, Would::Leave));
        assert_eq!(entry.age_days, Some(120), "the report's word stays");
    }
    // Where the report is denied as well, nothing tells when a key was used.
    let reports = ["iam:GenerateCredentialReport", "iam:GetCredentialReport"];
    let book = told(&[&reports[..], &["iam:GetAccessKeyLastUsed"]].concat()).await.unwrap();
    assert_eq!(book.unread.len(), 2, "{:?}", book.unread);
    assert!(book.unread.iter().all(|why| why.contains("was used could not be read")));
    assert!(book.entries.iter().all(|entry| entry.last_use.is_none() && !entry.is_unused()));
    let book = told(&["secretsmanager:ListSecrets"]).await.unwrap();
    assert_eq!((book.others[0].code, of(&book, "svc-a")[0].managed), ("RegionUnread", Managed::Unknown));
    assert_eq!(would_rotate(&book), BTreeSet::new());
    assert!(told(&["iam:ListUsers", "iam:GenerateCredentialReport"]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn keys_that_changed_since_the_report_are_as_they_are() {
    let world = World::new();
    for user in ["svc-a", "svc-b", "svc-c"] {
        drop(world.managed_without_value(user, &[10]));
    }
    let estate = read(&world.fake).await.unwrap();
    let (new, off) = {
        let mut state = world.fake.state();
        let new = state.add_key("svc-a", Maker::Owner);
        let off = state.users["svc-b"].keys[0].id.clone();
        let at = state.now();
        state.key_mut(&off).changes.push((at, false));
        state.users.remove("svc-c");
        (new, off)
    };
    let book = closer(&world.fake, estate).await;
    let a = of(&book, "svc-a");
    assert!(a.len() == 2 && a.iter().any(|entry| entry.key_id.as_ref().unwrap().as_str() == new), "{a:?}");
    let [b] = of(&book, "svc-b")[..] else { panic!("{:?}", book.entries) };
    assert_eq!((b.key_id.as_ref().unwrap().as_str(), b.active), (off.as_str(), false));
    assert!(of(&book, "svc-c").is_empty());
    assert_eq!(book.unread, [""; 0]);
}

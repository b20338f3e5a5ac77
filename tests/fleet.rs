//! The plan over a whole account, read through the SDK from the fake, decided, and held to what the runs then do; and
//! the campaigns of the fleet machine that carry it out.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic with its place is what should be seen"
)]

#[path = "fleet/accounts.rs"]
mod accounts;
#[path = "fleet/audit.rs"]
mod audit;
#[path = "fleet/campaign.rs"]
mod campaign;
#[path = "fleet/faults.rs"]
mod faults;
#[path = "fleet/left_alone.rs"]
mod left_alone;
#[path = "fleet/pushed.rs"]
mod pushed;
#[path = "fleet/regions.rs"]
mod regions;
#[path = "fleet/stopped.rs"]
mod stopped;
#[path = "fleet/taken_over.rs"]
mod taken_over;
#[path = "fleet/walker.rs"]
mod walker;
#[path = "fleet/warnings.rs"]
mod warnings;

use std::collections::BTreeSet;
use std::time::Instant;

use facts::estate::{self, Installation};
use keywheel::decide::due;
use keywheel::fleet::FleetPolicy;
use keywheel::fleet::estate::{Estate, Source};
use keywheel::fleet::plan::{Action, Plan};
use keywheel::{Outcome, StepError};
use serde_json::{Value, json};
use support::estate::days;
use support::fake::Fake;
use support::faults::{Fault, Kind, Plan as Faults};
use support::figures::say;
use support::functions::{STAGE, role};
use support::world::{World, hours};

async fn read(fake: &Fake) -> Result<Estate, StepError> {
    let (config, account, region, clock) = {
        let config = fake.config_of("somebody");
        let state = fake.state();
        (config, state.account.clone(), state.region.clone(), state.clock.clone())
    };
    estate::read(&config, Some(&installation(fake)), &account, &[region], &clock).await
}

/// The installation whose runs the plan looks for.
fn installation(fake: &Fake) -> Installation {
    let rotation = fake.state().machine("rotation");
    let create_role = Some(fake.role_arn(&role("create-key")));
    Installation { config: fake.config_of("somebody"), rotation, stage: STAGE.to_owned(), create_role }
}

async fn plan(fake: &Fake, policy: &FleetPolicy) -> Result<(Estate, Plan), StepError> {
    let estate = read(fake).await?;
    let now = fake.state().now();
    let (config, wanted) = (fake.config_of("somebody"), due::to_look_at(policy, &estate, now));
    let looks = estate::look(&config, &installation(fake), wanted, now).await;
    let plan = due::plan(policy, &estate, &looks, now);
    Ok((estate, plan))
}

fn policy(document: Value) -> FleetPolicy {
    FleetPolicy::read(document).unwrap()
}

fn users(plan: &Plan, action: Action) -> Vec<&str> {
    plan.with(action).map(|line| line.user.as_str()).collect()
}

fn code<'a>(plan: &'a Plan, user: &str) -> &'a str {
    plan.lines.iter().find(|line| line.user == user).map_or("", |line| line.code)
}

/// An account of 250 users, of whom 39 are due.
fn of_250_users() -> World {
    let world = World::new();
    // Odd numbers of pages, for users as for secrets.
    world.fake.state().options.page = 37;
    for number in 0..249 {
        // Every sixth is due; two of those have no room for a new key, one is tied to nothing.
        let age = if number % 6 == 0 { 120 } else { 30 };
        let ages: &[u64] = if number == 12 || number == 18 { &[200, age] } else { &[age] };
        world.managed(&format!("svc-{number:03}"), ages);
    }
    world.untag("svc-024", "user");
    world.untag("svc-030", "secret");
    world
}

/// An account of so many users who are all due, `svc-00` and so on, beside the world's own, who is not. Its policy says
/// nothing.
fn all_due(users: usize) -> World {
    let world = World::new();
    world.push_policy(json!({}));
    let key = world.current_key();
    world.fake.state().age_key(&key, 10);
    for number in 0..users {
        world.managed(&format!("svc-{number:02}"), &[120]);
    }
    world
}

#[tokio::test(start_paused = true)]
async fn of_250_users_exactly_the_due_are_planned_and_their_runs_do_what_the_plan_says() {
    let world = of_250_users();
    let (estate, plan) = plan(&world.fake, &FleetPolicy::default()).await.unwrap();
    assert_eq!((estate.users.len(), estate.secrets.len()), (250, 249));
    let due: BTreeSet<&str> = users(&plan, Action::Rotate).into_iter().collect();
    // 42 of these and the world's own, less the four odd ones.
    assert_eq!(due.len(), 39);
    for (user, why) in [("svc-012", "TwoKeys"), ("svc-018", "TwoKeys"), ("svc-024", "TagsDisagree")] {
        assert_eq!(code(&plan, user), why);
    }
    assert_eq!(code(&plan, "svc-030"), "OverAge");
    assert_eq!(plan.with(Action::Skip).count() + due.len(), 249);
    // What the plan says is what the machine then does, to the user.
    for line in plan.with(Action::Rotate) {
        let run = world.run(json!({"secret": line.secret, "reason": "scheduled"})).await;
        run.expect(Outcome::Completed);
        assert_eq!(run.doc().old.as_ref().map(|old| &old.key), line.key_id.as_ref());
    }
    for user in ["svc-012", "svc-024"] {
        world.run(json!({"secret": user})).await.expect(Outcome::Blocked);
    }
    world.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_hours_old_rotates_nothing_twice() {
    let world = World::new();
    let all = FleetPolicy::default();
    let (_, first) = plan(&world.fake, &all).await.unwrap();
    let [line] = &first.lines[..] else { panic!("{:?}", first.lines) };
    assert_eq!((line.action, line.age_days), (Action::Rotate, Some(100)));
    // The report that IAM hands out again still shows the old key, and no other.
    let kept = world.fake.state().report.clone();
    world.run(json!({"secret": line.secret})).await.expect(Outcome::Completed);
    let later = world.fake.state().now();
    world.fake.state().report = kept.map(|(_, text)| (later, text));
    let (estate, second) = plan(&world.fake, &all).await.unwrap();
    assert!(matches!(estate.source, Source::Report(_)));
    assert_eq!((second.lines[0].action, second.lines[0].code), (Action::Skip, "NotDue"));
}

#[tokio::test(start_paused = true)]
async fn users_of_an_account_that_gives_no_report_are_listed_to_the_last_page() {
    let world = World::new();
    world.fake.state().options.page = 7;
    for number in 0..30 {
        world.managed(&format!("svc-{number:02}"), &[if number < 4 { 91 } else { 89 }]);
    }
    let (_, by_report) = plan(&world.fake, &FleetPolicy::default()).await.unwrap();
    for call in ["iam:GenerateCredentialReport", "iam:GetCredentialReport"] {
        world.fake.state().denied.insert(call.into());
    }
    let (estate, by_lists) = plan(&world.fake, &FleetPolicy::default()).await.unwrap();
    assert!(matches!(&estate.source, Source::Lists(why) if why.contains("AccessDenied")));
    assert_eq!(estate.users.len(), 31);
    assert_eq!(users(&by_lists, Action::Rotate), users(&by_report, Action::Rotate));
    assert_eq!(users(&by_lists, Action::Rotate).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn iam_that_makes_no_report_is_asked_for_the_one_it_has_and_not_again_and_again() {
    let world = World::new();
    let fresh = read(&world.fake).await.unwrap();
    world.fake.state().options.report_refused = true;
    assert_eq!(read(&world.fake).await.unwrap().users, fresh.users);
    world.fake.wait(hours(5)).await;
    let before = world.fake.state().calls.len();
    let lists = read(&world.fake).await.unwrap();
    assert!(matches!(&lists.source, Source::Lists(why) if why.contains("LimitExceeded")));
    assert_eq!((lists.users.len(), lists.root_key), (1, Some(false)));
    let asked =
        world.fake.call_names()[before..].iter().filter(|name| name.ends_with("CredentialReport")).count();
    assert_eq!(asked, 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_switched_off_and_on_again_is_as_old_as_it_is() {
    let world = World::new();
    {
        // The report shows the day of the switch.
        let mut state = world.fake.state();
        let key = state.users["svc-mail"].keys[0].id.clone();
        let (off, on) = (state.ago(days(10)), state.ago(days(9)));
        state.key_mut(&key).changes.extend([(off, false), (on, true)]);
        let old = state.ago(days(100));
        state.secrets[0].versions[0].created = old;
    }
    let (estate, plan) = plan(&world.fake, &FleetPolicy::default()).await.unwrap();
    let shown = estate.users[0].keys[0].since.unwrap();
    assert!(shown > world.fake.state().ago(days(11)), "{shown}");
    assert_eq!((plan.lines[0].action, plan.lines[0].age_days), (Action::Rotate, Some(100)));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_never_rotated() {
    let policy = FleetPolicy::default();
    for (denied, code_then) in [
        ("iam:GetUser", "Unread"),
        ("iam:ListAccessKeys", "Unread"),
        ("secretsmanager:ListSecrets", "PerhapsUnmanaged"),
        ("secretsmanager:ListSecrets", "RegionUnread"),
    ] {
        let world = World::new();
        world.fake.state().denied.insert(denied.into());
        let (_, plan) = plan(&world.fake, &policy).await.unwrap();
        assert_eq!(users(&plan, Action::Rotate), [""; 0], "{denied}");
        assert!(plan.lines.iter().any(|line| line.code == code_then), "{denied}: {:?}", plan.lines);
    }
    // Which key a secret holds may be hidden from whoever plans: a user with one key is planned for all the same.
    let world = World::new();
    world.fake.state().denied.insert("secretsmanager:GetSecretValue".into());
    let (_, hidden) = plan(&world.fake, &policy).await.unwrap();
    assert_eq!(users(&hidden, Action::Rotate).len(), 1);
    assert!(hidden.lines[0].why.contains("could not be read"), "{}", hidden.lines[0].why);
    // Without the list of users there is no plan at all.
    let world = World::new();
    for call in ["iam:GenerateCredentialReport", "iam:ListUsers"] {
        world.fake.state().denied.insert(call.into());
    }
    assert!(matches!(read(&world.fake).await, Err(StepError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn a_fault_at_any_call_leaves_the_same_plan_or_one_that_rotates_less() {
    let world = World::new();
    world.fake.state().options.page = 2;
    for number in 0..5 {
        world.managed(&format!("svc-{number}"), &[100]);
    }
    let (_, right) = plan(&world.fake, &FleetPolicy::default()).await.unwrap();
    let calls = world.fake.state().calls.len();
    let right: BTreeSet<&str> = users(&right, Action::Rotate).into_iter().collect();
    assert_eq!(right.len(), 6);
    let (mut less, mut same, mut none) = (0, 0, 0);
    for kind in Kind::ALL {
        for at in 0..calls {
            world.fake.state().report = None;
            world.fake.state().plan = Faults::new([Fault::at(at, kind).for_good()]);
            let Ok((_, struck)) = plan(&world.fake, &FleetPolicy::default()).await else {
                none += 1;
                continue;
            };
            let struck: BTreeSet<&str> = users(&struck, Action::Rotate).into_iter().collect();
            assert!(struck.is_subset(&right), "{kind:?} at {at}: {struck:?}");
            if struck.len() < right.len() { less += 1 } else { same += 1 }
        }
    }
    say(&format!(
        "fleet: of {} faults {same} changed nothing, {less} rotate less, {none} give no plan",
        less + same + none
    ));
    assert!(same > 0 && less > 0);
}

#[tokio::test(start_paused = true)]
async fn calls_grow_with_what_is_due_and_not_with_the_users() {
    let mut figures = Vec::new();
    for count in [100_u64, 1_000, 5_000] {
        let world = World::new();
        for number in 0..count - 1 {
            // One in fifty is due. The promises are looked at after every call: without values that is soon done.
            let (name, due) = (format!("svc-{number:04}"), number % 50 == 0);
            if due { world.managed(&name, &[91]) } else { drop(world.managed_without_value(&name, &[5])) }
        }
        let began = Instant::now();
        let (estate, plan) =
            plan(&world.fake, &policy(json!({"limits": {"keys_per_run": 1000}}))).await.unwrap();
        let took = began.elapsed();
        assert_eq!(estate.users.len() as u64, count);
        let due = plan.with(Action::Rotate).count() as u64;
        assert_eq!(due, count / 50 + 1);
        let calls = world.fake.state().calls.len() as u64;
        // The report is asked for twice and fetched once; of a user that may be due its tags, its keys and what its
        // secret holds are read.
        assert_eq!(calls, 3 + count.div_ceil(100) + 3 * due);
        figures.push(format!("{count} users: {calls} calls, {due} due, {:.0} ms", took.as_secs_f64() * 1e3));
    }
    say(&format!("fleet: {}", figures.join("; ")));
}

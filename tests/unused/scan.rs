//! What a campaign starts, and what it leaves alone.

use keywheel::campaign;
use keywheel::unused::Outcome;
use serde_json::json;
use support::estate::days;
use support::faults::{Fault, Kind, Plan};
use support::walker::Control;

use crate::{OLD, codes, exists, policy, scheduled, world};

#[tokio::test(start_paused = true)]
async fn a_key_that_a_secret_holds_is_never_taken() {
    let (world, _) = world(10);
    let mut policy = policy();
    policy["defaults"]["max_age"] = json!("360d");
    world.push_policy(policy);
    // One current, one superseded, and nobody uses either.
    world.managed("svc-idle", &[300, 200]);
    world.allow_removal("svc-idle");
    let keys: Vec<String> =
        world.fake.state().users["svc-idle"].keys.iter().map(|key| key.id.clone()).collect();
    for key in &keys {
        world.fake.state().key_mut(key).uses.clear();
    }
    let done = scheduled(&world).await;
    assert_eq!(done.removals.len(), 0);
    let left = codes(&world, &done, "svc-idle").into_iter().filter(|code| code == "UnusedLeft");
    assert_eq!(left.count(), 2);
    for key in &keys {
        world.removal(&world.removed("svc-idle", key)).await.expect(Outcome::Left, "InSecret");
        assert!(world.is_active(key));
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_only_another_secret_of_the_user_holds_is_not_taken_either() {
    let (world, key) = world(200);
    // A secret names the user, and the user does not name it.
    world.managed("svc-half", &[1]);
    {
        let mut state = world.fake.state();
        state.secret_mut("svc-half").tags.insert("keywheel:user".into(), OLD.into());
        let secret = state.key(&key).unwrap().1.secret.clone();
        let text = json!({"UserName": OLD, "AccessKeyId": key, "SecretAccessKey": secret}).to_string();
        state.put_current("svc-half", &text);
    }
    assert_eq!(scheduled(&world).await.removals.len(), 0);
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_key_under_a_field_of_somebodys_own_is_held_as_well() {
    let (world, key) = world(200);
    world.managed("svc-half", &[1]);
    {
        let mut state = world.fake.state();
        state.secret_mut("svc-half").tags.insert("keywheel:user".into(), OLD.into());
        // Twice, so that AWSPREVIOUS does not name the value of another user.
        for _ in 0..2 {
            state.put_current("svc-half", &json!({"UserName": OLD, "aws_access_key_id": key}).to_string());
        }
    }
    assert_eq!(scheduled(&world).await.removals.len(), 0);
    world.removal(&world.removed(OLD, &key)).await.expect(Outcome::Left, "InSecret");
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_its_owner_wants_kept_is_kept_whatever_stands_beside_it() {
    let (world, key) = world(200);
    let said = format!("{} until May", key.to_ascii_lowercase());
    world.fake.state().users.get_mut(OLD).unwrap().tags.insert("keywheel:keep".into(), said);
    assert_eq!(scheduled(&world).await.removals.len(), 0);
    world.removal(&world.removed(OLD, &key)).await.expect(Outcome::Left, "Spared");
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_user_in_use_loses_only_the_key_that_nobody_uses() {
    let (world, key) = world(300);
    let busy = world.unused_key(OLD, 200);
    {
        let mut state = world.fake.state();
        let at = state.ago(days(2));
        state.use_key(&busy, "s3", at);
    }
    scheduled(&world).await.removals[0].expect(Outcome::Removed, "Removed");
    assert!(!exists(&world, &key) && world.is_active(&busy));
}

#[tokio::test(start_paused = true)]
async fn a_last_use_that_cannot_be_read_counts_as_use() {
    let (world, key) = world(200);
    world.fake.state().denied.insert("iam:GetAccessKeyLastUsed".into());
    let done = scheduled(&world).await;
    assert_eq!(done.removals.len(), 0);
    assert!(codes(&world, &done, OLD).contains(&"UnusedUnread".to_owned()));
    assert_eq!(done.doc().counts.unread, 1);
    world.removal(&world.removed(OLD, &key)).await.expect(Outcome::Left, "UseUnknown");
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn without_a_report_nobody_is_nominated() {
    let (world, key) = world(200);
    world.fake.state().denied.insert("iam:GenerateCredentialReport".into());
    assert_eq!(scheduled(&world).await.removals.len(), 0);
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_made_active_again_since_the_report_is_not_taken_for_another_one() {
    let (world, back) = world(300);
    world.unused_key(OLD, 200);
    world.switch_key(&back, false);
    // IAM makes its report, and hands it out for four hours.
    world.campaign(json!({})).await;
    world.switch_key(&back, true);
    let done = scheduled(&world).await;
    assert_eq!(done.removals.len(), 0);
    assert!(codes(&world, &done, OLD).contains(&"UnusedLeft".to_owned()));
    // By the next report it counts from that day.
    world.days_pass(1).await;
    scheduled(&world).await;
    assert!(world.is_active(&back));
}

#[tokio::test(start_paused = true)]
async fn exempt_users_and_other_rules_are_left_alone() {
    let mut exempt = policy();
    exempt["exemptions"] = json!([{"user": "svc-*", "owner": "a", "reason": "b", "until": "2026-12-31"}]);
    let elsewhere = json!({"rules": [
        {"name": "a", "match": {"user": "other"}, "set": {"unused": {"disable_after": "30d"}}},
    ]});
    for policy in [exempt, elsewhere, json!({})] {
        let (world, key) = world(300);
        world.push_policy(policy);
        assert_eq!(scheduled(&world).await.removals.len(), 0);
        assert!(world.is_active(&key));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_a_pause_and_a_freeze_take_nothing_and_say_what_they_would() {
    for mode in ["dry-run", "paused"] {
        let (world, key) = world(200);
        world.mode(mode);
        let done = scheduled(&world).await;
        assert_eq!(done.removals.len(), 0);
        assert!(codes(&world, &done, OLD).contains(&"UnusedLeft".to_owned()));
        let removal = world.removal(&world.removed(OLD, &key)).await;
        removal.expect(Outcome::Left, "NotNow");
        let why = removal.doc.as_ref().unwrap().why.clone().unwrap().text;
        assert!(
            why.contains(&format!("the installation is {mode}; else it would be made Inactive")),
            "{why}"
        );
        assert!(world.is_active(&key));
    }
    let (world, key) = world(200);
    let mut frozen = policy();
    frozen["limits"] = json!({"freeze": [
        {"from": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00Z", "reason": "a move"},
    ]});
    world.push_policy(frozen);
    let done = scheduled(&world).await;
    done.expect(campaign::Outcome::Refused, "Frozen");
    assert_eq!(done.removals.len(), 0);
    world.removal(&world.removed(OLD, &key)).await.expect(Outcome::Left, "NotNow");
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_only_the_policy_says_starts_none_either() {
    let (world, key) = world(200);
    let mut frozen = policy();
    frozen["limits"] = json!({"freeze": [
        {"from": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00Z", "reason": "a move"},
    ]});
    world.push_policy(frozen);
    // Somebody has written the object by hand.
    world.freeze("[]");
    let done = scheduled(&world).await;
    done.expect(campaign::Outcome::Refused, "Frozen");
    assert_eq!((done.removals.len(), done.doc().counts.unused), (0, 0));
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn what_a_person_asks_for_by_hand_starts_none_and_says_so() {
    for input in [json!({}), json!({"reason": "scheduled", "dry_run": true})] {
        let (world, key) = world(200);
        let done = world.campaign(input).await;
        assert_eq!(done.removals.len(), 0);
        assert!(codes(&world, &done, OLD).contains(&"UnusedDue".to_owned()));
        assert!(world.is_active(&key));
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_runs_twice_starts_one_run_of_a_key() {
    let (world, key) = world(200);
    let mut twice = |machine: &str, state: &str, _: &serde_json::Value| {
        if (machine, state) == ("fleet", "Scan") { Control::Twice } else { Control::Go }
    };
    let done = world.campaign_watched(json!({"reason": "scheduled"}), &mut twice).await;
    let [removal] = &done.removals[..] else { panic!("{:?}", done.removals) };
    removal.expect(Outcome::Removed, "Removed");
    assert!(!exists(&world, &key));
}

#[tokio::test(start_paused = true)]
async fn a_campaign_takes_up_no_more_than_its_policy_allows() {
    let (world, _) = world(200);
    let mut policy = policy();
    policy["limits"] = json!({"keys_per_run": 2});
    world.push_policy(policy);
    for name in ["svc-older", "svc-oldest"] {
        world.unmanaged(name);
        world.allow_removal(name);
        world.unused_key(name, 300);
    }
    let first = scheduled(&world).await;
    assert_eq!((first.removals.len(), first.doc().counts.unused), (2, 2));
    assert_eq!(scheduled(&world).await.removals.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn users_for_whom_there_is_no_time_are_for_a_later_campaign_and_fail_none() {
    let (world, key) = world(200);
    let names: Vec<String> = (0..40).map(|number| format!("svc-silent-{number}")).collect();
    for name in &names {
        world.unmanaged(name);
        world.unused_key(name, 300);
    }
    // No answer comes to any question about one of them, and each is asked for a quarter of a minute.
    world.fake.state().plan = Plan::new([Fault::on("iam:GetUser", Kind::TimeoutBefore).for_good()]);
    let done = scheduled(&world).await;
    assert_eq!((done.walk.status, done.removals.len()), ("SUCCEEDED", 0));
    let with = |code: &str| {
        names.iter().filter(|name| codes(&world, &done, name).iter().any(|one| one == code)).count()
    };
    let (asked, later) = (with("UnusedUnread"), with("UnusedLimit"));
    assert!(asked > 0 && later > 20 && asked + later == names.len(), "{asked} {later}");
    assert!(world.is_active(&key));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_started_fails_no_campaign_and_is_for_the_next() {
    let (world, key) = world(200);
    world.fake.state().plan = Plan::new([Fault::on("states:StartExecution", Kind::Refused).for_good()]);
    let done = scheduled(&world).await;
    assert_eq!((done.walk.status, done.removals.len(), done.doc().counts.unused), ("SUCCEEDED", 0, 0));
    assert!(world.is_active(&key));
    world.fake.state().plan = Plan::default();
    scheduled(&world).await.removals[0].expect(Outcome::Removed, "Removed");
}

#[tokio::test(start_paused = true)]
async fn another_user_of_the_same_name_and_an_input_that_no_policy_says_are_refused() {
    let (world, key) = world(200);
    let removed = world.removed(OLD, &key);
    world.fake.state().users.get_mut(OLD).unwrap().id = "AIDAANOTHER".into();
    world.removal(&removed).await.expect(Outcome::Left, "AnotherUser");
    world.days_pass(1).await;
    let mut short = removed;
    short.unused.disable_after = keywheel::policy::Span::days(1);
    let removal = world.removal(&short).await;
    let error = removal.walk.error.as_ref().map(|failure| failure.error.as_str());
    assert_eq!((removal.walk.status, error), ("FAILED", Some("Keywheel.NotNominated")));
    assert!(world.is_active(&key));
}

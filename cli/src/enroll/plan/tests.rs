use std::collections::BTreeMap;

use keywheel::key::KeyStatus;
use keywheel::rotation::UserFacts;

use super::*;

const ARN: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/mail-AbCdEf";
const OTHER: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/else-AbCdEf";
const A: &str = "AKIAAAAAAAAAAAAAAAAA";
const B: &str = "AKIABBBBBBBBBBBBBBBB";

struct World {
    user: User,
    secret: Secret,
    rivals: Vec<SecretArn>,
    keys: Vec<KeyFacts>,
    held: Held,
    retire: Option<AccessKeyId>,
    owner: Option<String>,
    /// The pair that is given, and whether the secret holds it.
    offered: Option<(AccessKeyId, bool)>,
}

impl World {
    fn plan(&self) -> Result<Plan, Trouble> {
        self.checked().map_err(Trouble::from)
    }

    fn checked(&self) -> Checked<Plan> {
        plan(&Known {
            user: &self.user,
            secret: &self.secret,
            rivals: &self.rivals,
            keys: &self.keys,
            held: &self.held,
            retire: self.retire.as_ref(),
            owner: self.owner.as_deref(),
            offered: self.offered.as_ref().map(|(id, stored)| Offered { id, stored: *stored }),
        })
    }
}

fn id(id: &str) -> AccessKeyId {
    id.parse().unwrap()
}

fn key(name: &str) -> KeyFacts {
    KeyFacts { id: id(name), status: KeyStatus::Active, created: None }
}

fn fresh() -> World {
    let facts = UserFacts { name: "svc-mail".parse().unwrap(), arn: String::new(), id: String::new() };
    World {
        user: User { facts, secret: None, retire: None, keep: None, unused: false, tags: BTreeMap::new() },
        secret: Secret {
            arn: ARN.parse().unwrap(),
            name: "app/mail".into(),
            deleted: false,
            primary_region: None,
            replication: Vec::new(),
            user: None,
            tags: BTreeMap::new(),
            versions: BTreeMap::new(),
        },
        rivals: Vec::new(),
        keys: vec![key(A)],
        held: Held::Key(id(A)),
        retire: None,
        owner: None,
        offered: None,
    }
}

fn enrolled() -> World {
    let mut world = fresh();
    world.user.secret = Some(ARN.into());
    world.secret.user = Some("svc-mail".into());
    world
}

#[test]
fn both_tags_are_set_and_a_second_time_nothing_is() {
    let plan = fresh().plan().unwrap();
    assert_eq!(plan.user_tags, [(TAG_SECRET, ARN.to_owned())]);
    assert_eq!(plan.secret_tags, [(TAG_USER, "svc-mail".to_owned())]);
    assert!(!plan.is_empty() && plan.warnings.is_empty());
    assert!(enrolled().plan().unwrap().is_empty());
}

#[test]
fn half_an_enrolment_is_finished() {
    let mut world = enrolled();
    world.user.secret = None;
    let plan = world.plan().unwrap();
    assert!(plan.secret_tags.is_empty() && plan.user_tags.len() == 1);
}

#[test]
fn whatever_is_tied_elsewhere_is_refused() {
    let refuse = |change: fn(&mut World)| {
        let mut world = fresh();
        change(&mut world);
        world.plan().unwrap_err().text
    };
    assert!(refuse(|world| world.user.secret = Some(OTHER.into())).contains(OTHER));
    assert!(refuse(|world| world.secret.user = Some("eve".into())).contains("eve"));
    assert!(refuse(|world| world.rivals = vec![OTHER.parse().unwrap()]).contains(OTHER));
    assert!(refuse(|world| world.secret.deleted = true).contains("deletion"));
    assert!(refuse(|world| world.secret.primary_region = Some("us-east-1".into())).contains("us-east-1"));
    assert!(refuse(|world| world.held = Held::Key(id(B))).contains("not a key of user"));
    assert!(refuse(|world| world.held = Held::Unfit(Trouble::new("no JSON", ""))).contains("no JSON"));
}

#[test]
fn a_key_is_retired_only_if_it_is_the_users_other_one() {
    let mut world = fresh();
    world.retire = Some(id(A));
    assert!(world.plan().unwrap_err().text.contains("the one in the secret"));
    world.retire = Some(id(B));
    assert!(world.plan().unwrap_err().text.contains("not a key of user"));
    world.keys.push(key(B));
    let plan = world.plan().unwrap();
    assert!(plan.user_tags.contains(&(TAG_RETIRE, B.to_owned())));
    assert!(plan.consequences.iter().any(|line| line.starts_with(B) && line.contains("retired")));
    world.held = Held::Unreadable(Trouble::new("denied.", ""));
    assert!(world.plan().unwrap_err().text.contains("could not be read"));
}

#[test]
fn retiring_a_kept_key_ends_the_keeping() {
    let mut world = enrolled();
    world.keys.push(key(B));
    world.user.keep = Some(id(B));
    world.retire = Some(id(B));
    let plan = world.plan().unwrap();
    assert_eq!(plan.user_untag, [TAG_KEEP]);
    world.user.keep = None;
    world.user.retire = Some(id(B));
    assert!(world.plan().unwrap().is_empty());
}

#[test]
fn a_stranger_in_the_second_slot_is_left_alone_and_warned_of() {
    let mut world = fresh();
    world.keys.push(key(B));
    let plan = world.plan().unwrap();
    assert!(plan.consequences.contains(&format!("{B} is left alone.")));
    assert!(plan.warnings[0].contains(&format!("--retire {B}")));
    let mut world = enrolled();
    world.keys.push(key(B));
    assert!(world.plan().unwrap().warnings.is_empty(), "a run of ours may have made it");
}

#[test]
fn an_unreadable_or_inactive_current_key_is_warned_of() {
    let mut world = fresh();
    world.held = Held::Unreadable(Trouble::new("denied.", ""));
    assert!(world.plan().unwrap().warnings[0].contains("could not be read"));
    world.held = Held::Key(id(A));
    world.keys[0].status = KeyStatus::Inactive;
    assert!(world.plan().unwrap().warnings[0].contains("Inactive"));
    world.held = Held::Nothing;
    assert!(world.plan().unwrap().consequences[0].contains("no key yet"));
}

#[test]
fn a_pair_is_stored_where_none_is_and_never_over_another() {
    let mut world = fresh();
    world.offered = Some((id(A), false));
    world.held = Held::Nothing;
    let plan = world.plan().unwrap();
    assert!(plan.store && plan.warnings.is_empty());
    assert!(plan.consequences.iter().any(|line| line.starts_with(A) && line.contains("current")));
    assert!(!plan.consequences.iter().any(|line| line.contains("no key yet")));
    // Stored already, and enrolled: nothing is left to do.
    let mut world = enrolled();
    world.offered = Some((id(A), true));
    assert!(world.plan().unwrap().is_empty());
    // The id with another secret access key.
    world.offered = Some((id(A), false));
    let plan = world.plan().unwrap();
    assert!(plan.store && !plan.is_empty() && plan.warnings[0].contains("replaced"));
    // Another key is in use.
    world.keys.push(key(B));
    world.offered = Some((id(B), false));
    let refusal = world.checked().unwrap_err();
    assert_eq!(refusal.field, "secret");
    assert!(refusal.trouble.text.contains("not put over it"), "{}", refusal.trouble);
    world.held = Held::Unreadable(Trouble::new("denied.", ""));
    assert!(world.plan().unwrap_err().text.contains("whether another pair is there"));
}

#[test]
fn the_key_that_is_stored_is_not_retired_and_the_other_one_is() {
    let mut world = fresh();
    world.keys.push(key(B));
    world.held = Held::Nothing;
    world.offered = Some((id(A), false));
    world.retire = Some(id(A));
    assert_eq!(world.checked().unwrap_err().field, "retire");
    world.retire = Some(id(B));
    let plan = world.plan().unwrap();
    assert!(plan.user_tags.contains(&(TAG_RETIRE, B.to_owned())) && plan.warnings.is_empty());
}

#[test]
fn an_owner_is_written_once_and_only_as_a_tag_can_hold_it() {
    let mut world = enrolled();
    world.owner = Some("mail@example.com".into());
    let plan = world.plan().unwrap();
    assert_eq!(plan.secret_tags, [(TAG_OWNER, "mail@example.com".to_owned())]);
    world.secret.tags.insert(TAG_OWNER.into(), "mail@example.com".into());
    assert!(world.plan().unwrap().is_empty());
    for wrong in ["", "a;b", "x\ny"] {
        world.owner = Some(wrong.into());
        assert_eq!(world.checked().unwrap_err().field, "owner", "{wrong:?}");
    }
}

#[test]
fn a_refusal_names_the_column_that_it_is_about() {
    let field = |change: fn(&mut World)| {
        let mut world = fresh();
        change(&mut world);
        world.checked().unwrap_err().field
    };
    assert_eq!(field(|world| world.user.secret = Some(OTHER.into())), "user");
    assert_eq!(field(|world| world.rivals = vec![OTHER.parse().unwrap()]), "user");
    assert_eq!(field(|world| world.secret.user = Some("eve".into())), "secret");
    assert_eq!(field(|world| world.secret.deleted = true), "secret");
    assert_eq!(field(|world| world.held = Held::Key(id(B))), "secret");
    assert_eq!(field(|world| world.retire = Some(id(B))), "retire");
}

//! Each role may do what its function was seen to do, and nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keywheel::RunId;
use keywheel::campaign::{Item, POLICY};
use serde_json::{Value, json};
use support::alarm::{finding, made, report};
use support::fake::{Maker, Object};
use support::faults::{Fault, Kind, Plan};
use support::functions::{MEMBER, MEMBER_READS, MEMBER_ROTATES, STAGE, role};
use support::repository::{member, template};
use support::walker::Control;
use support::world::{SECRET, USER, World, hours, request};

use crate::template::functions;

/// The other account.
const ACCOUNT: &str = "444455556666";

type Seen = BTreeMap<String, BTreeSet<String>>;

/// Rights that are no calls: who may not list a bucket is refused an object that is not there.
const NO_CALL: [(&str, &str); 1] = [("scan", "s3:ListBucket")];

/// Notes the calls of a world by their functions; those made in another account by that account's role.
fn note_calls(seen: &mut Seen, world: &World) {
    let state = world.fake.state();
    for call in &state.calls {
        // The identity test is signed with the key under test and needs no permission.
        let Some(function) = call.function.clone().filter(|_| call.name != "sts:GetCallerIdentity") else {
            continue;
        };
        let role = match state.account_of_signer(&call.signer) {
            Some(_) => {
                let (arn, begin) = (&state.role_of(&call.signer).unwrap().arn, role(""));
                arn.rsplit_once(begin.as_str()).unwrap().1.to_owned()
            }
            None => function,
        };
        // A version of an object is read with a right of its own.
        let version = call.name == "s3:GetObject" && !call.params["VersionId"].is_null();
        let right = if version { "s3:GetObjectVersion".to_owned() } else { call.name.clone() };
        seen.entry(role).or_default().insert(right);
    }
}

/// Runs the first step of a campaign with this input.
async fn scan(world: &World, input: Value) -> Value {
    let (name, started) = (RunId::random(), world.fake.state().now());
    let machine = world.fake.state().machine("fleet");
    let execution = format!("{}:{name}", machine.replacen(":stateMachine:", ":execution:", 1));
    let begin = json!({ "input": input, "name": name, "execution": execution, "started": started });
    world.functions.invoke("Scan", "scan", begin).await.unwrap()
}

/// The calls of the fleet's functions: over all that is due, over what is named and over what is due soon, by the
/// newest policy and by a version of it, with IAM's report and without.
async fn seen_in_campaigns(seen: &mut Seen) {
    // Nobody has pushed a policy, or one that names another account, and the batch is looked at while its rotation runs.
    for there in [false, true] {
        let world = here_or_there(there);
        world.consumer();
        let campaign = scan(&world, json!({})).await;
        let batch = world.fake.state().object(campaign["batch"]["key"].as_str().unwrap()).unwrap().to_owned();
        let items: Vec<Item> = serde_json::from_str(&batch).unwrap();
        let [item] = items.as_slice() else { panic!("{items:?}") };
        let work = async {
            tokio::time::sleep(hours(1)).await;
            world.functions.invoke("Review", "review", campaign).await.unwrap()
        };
        let asked = json!({"secret": item.secret, "policy": item.policy});
        let reviewed = world.beside(item.run, asked, work).await;
        assert_eq!((&reviewed["outcome"], &reviewed["waves"][0]["promoted"]), (&json!("Done"), &json!(1)));
        note_calls(seen, &world);
    }
    // The batch is looked at while its rotation waits for a key that works.
    let world = World::new();
    world.fake.state().options.valid_after = hours(1);
    let campaign = scan(&world, json!({})).await;
    let batch = world.fake.state().object(campaign["batch"]["key"].as_str().unwrap()).unwrap().to_owned();
    let items: Vec<Item> = serde_json::from_str(&batch).unwrap();
    let work = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.functions.invoke("Review", "review", campaign).await.unwrap()
    };
    let input = json!({"secret": items[0].secret, "policy": items[0].policy});
    assert_eq!(world.beside(items[0].run, input, work).await["phase"], "settle");
    note_calls(seen, &world);
    // A secret that is named, and a version of the policy.
    for there in [false, true] {
        let world = here_or_there(there);
        let policy = Object { key: POLICY.to_owned(), text: "{}".to_owned(), version: "first".to_owned() };
        world.fake.state().objects.push(policy);
        let asked = json!({"secrets": [world.secret_arn()], "policy_version": "first"});
        assert_eq!(scan(&world, asked).await["policy_version"], "first");
        note_calls(seen, &world);
    }
    // Owners are told ahead, and the campaign that was to tell them is asked for.
    let world = World::new();
    let key = world.current_key();
    world.fake.state().age_key(&key, 85);
    world.push_policy(json!({"defaults": {"warn": "7d"}}));
    for _ in 0..2 {
        let campaign = scan(&world, json!({"reason": "scheduled"})).await;
        assert_eq!(campaign["counts"]["warned"], 1);
    }
    note_calls(seen, &world);
    // Keys that nobody uses go, beside one that a secret holds.
    let world = World::new();
    world.unused_key(USER, 200);
    world.allow_removal(USER);
    world.push_policy(json!({"defaults": {"unused": {"disable_after": "120d", "delete_after": "30d"}}}));
    let campaign = scan(&world, json!({"reason": "scheduled"})).await;
    assert_eq!(campaign["counts"]["unused"], 1);
    let removals = world.removals().await;
    let [removal] = removals.as_slice() else { panic!("one is started") };
    removal.expect(keywheel::unused::Outcome::Removed, "Removed");
    note_calls(seen, &world);
    // A second key, of which no version of the secret knows.
    let world = World::new();
    world.fake.state().add_key(USER, Maker::Stranger);
    world.fake.wait(hours(1)).await;
    scan(&world, json!({"dry_run": true})).await;
    note_calls(seen, &world);
    // IAM makes no report, and users are listed.
    for there in [false, true] {
        let world = here_or_there(there);
        world.fake.state().denied.insert("iam:GenerateCredentialReport".to_owned());
        scan(&world, json!({"dry_run": true})).await;
        note_calls(seen, &world);
    }
}

/// The managed user here, or in another account that the policy names.
fn here_or_there(there: bool) -> World {
    if !there {
        return World::new();
    }
    let world = World::elsewhere(ACCOUNT);
    world.push_policy(json!({"accounts": [ACCOUNT]}));
    world
}

/// The calls in another account, over incidents that go every way there is.
async fn seen_in_members(seen: &mut Seen) {
    for (attached, full) in [(0, false), (0, true), (10, true)] {
        let world = World::leaked();
        world.emergency_policy(&json!({ "role_sessions": "deny" }));
        let key = world.member(ACCOUNT, "vendor");
        world.leak(&key);
        let role = format!("arn:aws:iam::{ACCOUNT}:role/deploy");
        world.fake.state().trail_assumed(&key, &role, "thief");
        world.fake.state().their_roles.insert(format!("{ACCOUNT}/deploy"), [].into());
        if full {
            let kept = format!("{ACCOUNT}/vendor");
            world.fake.state().fill_inline(&kept, 100);
            let theirs = (0..attached).map(|number| format!("arn:aws:iam::aws:policy/theirs-{number}"));
            world.fake.state().users.get_mut(&kept).unwrap().attached.extend(theirs);
        }
        world.alarm(finding(&key, "vendor")).await;
        note_calls(seen, &world);
    }
    let world = World::leaked();
    let key = world.member(ACCOUNT, "vendor");
    world.leak(&key);
    world.fake.state().standing = Plan::new([Fault::on("iam:UpdateAccessKey", Kind::Refused).times(30)]);
    world.alarm(finding(&key, "vendor")).await;
    note_calls(seen, &world);
    // Somebody makes a key of a managed user.
    let world = World::elsewhere(ACCOUNT);
    let key = world.fake.state().add_key(&format!("{ACCOUNT}/{USER}"), Maker::Stranger);
    let by = json!({"type": "IAMUser", "arn": format!("arn:aws:iam::{ACCOUNT}:user/admin")});
    world.fake.state().trail_made_by(&key, &by, "console");
    world.alarm(made(&world, &key)).await;
    note_calls(seen, &world);
    // A rotation that clears an orphan of its own on the way.
    let world = World::elsewhere(ACCOUNT);
    world.consumer();
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
    world.run(json!({"secret": world.secret_arn()})).await;
    note_calls(seen, &world);
}

/// The calls of the emergency's functions, over incidents that go every way there is.
async fn seen_in_emergencies(seen: &mut Seen) {
    // A managed user's current key, replaced by a new one, and deleted when all is over.
    let world = World::leaked();
    let key = world.current_key();
    world.emergency_policy(&json!({ "role_sessions": "deny" }));
    world.fake.state().trail_assumed(&key, "arn:aws:iam::111122223333:role/deploy", "thief");
    world.fake.state().their_roles.insert("deploy".into(), [].into());
    world.alarm(finding(&key, USER)).await;
    world.close(&key);
    tokio::time::sleep(hours(31 * 24)).await;
    // The plan finds it as well, and that its evidence time is over.
    scan(&world, json!({"dry_run": true})).await;
    world.run(request()).await;
    note_calls(seen, &world);
    // One whose superseded key comes back.
    let world = World::new();
    world.consumer();
    world.containment("on");
    let work = async {
        tokio::time::sleep(hours(2)).await;
        let new = world.current_key();
        world.leak(&new);
        world.alarm(finding(&new, USER)).await;
    };
    world.beside(RunId::random(), request(), work).await;
    note_calls(seen, &world);
    // One whose replacement comes to nothing.
    let world = World::leaked();
    world.mode("paused");
    world.alarm(finding(&world.current_key(), USER)).await;
    note_calls(seen, &world);
    // A report over the bus, about a key that is not here.
    let world = World::leaked();
    world.alarm(report(["AKIAELSEWHERE0000000"])).await;
    note_calls(seen, &world);
    // Somebody makes a key of nobody's, which may be one of many.
    let world = World::leaked();
    let key = world.stranger("somebody");
    let by = json!({"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/admin"});
    world.fake.state().trail_made_by(&key, &by, "console");
    world.alarm(made(&world, &key)).await;
    note_calls(seen, &world);
    // A key that cannot be made Inactive for a while.
    let world = World::leaked();
    world.fake.state().standing = Plan::new([Fault::on("iam:UpdateAccessKey", Kind::Refused).times(30)]);
    world.alarm(finding(&world.current_key(), USER)).await;
    note_calls(seen, &world);
    // A user whose inline policies are full, and then one whose managed policies are full too.
    for attached in [0, 10] {
        let world = World::leaked();
        let filler = format!("{{\"Statement\":[{{\"Sid\":\"{}\"}}]}}", "x".repeat(2_000));
        {
            let mut state = world.fake.state();
            let user = state.users.get_mut(USER).unwrap();
            user.inline.insert("theirs".into(), filler);
            user.attached
                .extend((0..attached).map(|number| format!("arn:aws:iam::aws:policy/theirs-{number}")));
        }
        world.alarm(finding(&world.current_key(), USER)).await;
        note_calls(seen, &world);
    }
}

/// The calls of every function, over runs that go every way there is.
async fn seen() -> Seen {
    let mut seen = Seen::new();
    seen_in_emergencies(&mut seen).await;
    seen_in_members(&mut seen).await;
    seen_in_campaigns(&mut seen).await;
    let mut note = |world: &World| note_calls(&mut seen, world);
    let back = || json!({"secret": SECRET, "roll_back": true});
    // An undisturbed one, with a fleet waiting.
    let world = World::new();
    world.consumer();
    let token = world.task_token();
    world.run(json!({"secret": SECRET, "on_promoted": token})).await;
    note(&world);
    // A first adoption, with an orphan on the way.
    let world = World::without_value();
    world.fake.state().plan = Plan::new([Fault::on("iam:CreateAccessKey", Kind::LostAfter)]);
    world.run(request()).await;
    note(&world);
    // A promotion that is turned back, beside the run that made it, and a key that stays in use.
    let world = World::new();
    world.consumer();
    let work = async {
        tokio::time::sleep(hours(2)).await;
        let key = world.current_key();
        world.fake.state().keep_using(&key, "s3", hours(1), hours(24 * 20));
        world.run(back()).await;
        world.run(request()).await;
    };
    world.beside(RunId::random(), request(), work).await;
    note(&world);
    // One that fails, with a fleet waiting, and loses a move's reply.
    for fault in [
        Fault::on("sts:GetCallerIdentity", Kind::Refused).for_good(),
        Fault::on("secretsmanager:UpdateSecretVersionStage", Kind::LostAfter),
        Fault::on("secretsmanager:UpdateSecretVersionStage", Kind::Refused).for_good(),
    ] {
        let world = World::new();
        let token = world.task_token();
        world.fake.state().plan = Plan::new([fault]);
        world.run(json!({"secret": SECRET, "on_promoted": token})).await;
        note(&world);
    }
    // One that promotes the key of a run that was stopped before it did.
    let world = World::new();
    let mut stop = |state: &str, _: &Value| if state == "PromoteKey" { Control::Stop } else { Control::Go };
    world.run_watched(RunId::random(), request(), &mut stop).await;
    world.run(request()).await;
    note(&world);
    // One that finds another at work.
    let world = World::new();
    world.consumer();
    let work = async {
        tokio::time::sleep(hours(2)).await;
        world.run(request()).await;
    };
    world.beside(RunId::random(), request(), work).await;
    note(&world);
    seen
}

fn actions(role: &Value) -> BTreeSet<String> {
    let mut actions = BTreeSet::new();
    support::repository::walk(&role["Properties"]["Policies"], &mut |value| {
        if value["Effect"] == "Allow" {
            let list = value["Action"].as_array().cloned().unwrap_or_else(|| vec![value["Action"].clone()]);
            actions.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
        }
    });
    // The platform's: logs, traces, and the key that encrypts.
    actions.retain(|action| !["logs:", "xray:", "kms:"].iter().any(|platform| action.starts_with(platform)));
    actions
}

#[tokio::test(start_paused = true)]
async fn every_role_may_do_exactly_what_its_function_does() {
    let (template, member, seen) = (template(), member(), seen().await);
    let mut wrong = Vec::new();
    let hub = functions(&template).into_iter().map(|(name, function)| {
        let role = function["Properties"]["Role"]["!GetAtt"].as_str().unwrap().split('.').next().unwrap();
        (name, actions(&template["Resources"][role]))
    });
    let members =
        [(MEMBER, "MemberRole"), (MEMBER_READS, "MemberReadsRole"), (MEMBER_ROTATES, "MemberRotatesRole")];
    let members = members.map(|(name, role)| (name.to_owned(), actions(&member["Resources"][role])));
    for (name, mut may) in hub.chain(members) {
        let does = seen.get(&name).cloned().unwrap_or_default();
        for (_, right) in NO_CALL.into_iter().filter(|(function, _)| *function == name) {
            assert!(may.remove(right), "{name} lacks {right}");
        }
        let lacks: Vec<_> = does.difference(&may).collect();
        let spare: Vec<_> = may.difference(&does).collect();
        if !lacks.is_empty() || !spare.is_empty() {
            wrong.push(format!("{name} lacks {lacks:?} and never uses {spare:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The fake knows no resources. In AWS one parameter that a role may not read refuses the whole call.
#[tokio::test(start_paused = true)]
async fn every_parameter_that_a_rotation_asks_for_is_one_that_its_role_may_read() {
    let (template, world) = (template(), World::new());
    world.run(request()).await;
    let (functions, state) = (functions(&template), world.fake.state());
    let mut asked = 0;
    for call in state.calls.iter().filter(|call| call.name.starts_with("ssm:")) {
        let function = functions[call.function.as_deref().unwrap()];
        let own = function["Properties"]["Role"]["!GetAtt"].as_str().unwrap().split('.').next().unwrap();
        let mut may = Vec::new();
        support::repository::walk(&template["Resources"][own]["Properties"]["Policies"], &mut |value| {
            if value["Action"] == call.name.as_str() {
                support::repository::walk(&value["Resource"], &mut |resource| may.extend(resource.as_str()));
            }
        });
        let names = match &call.params["Names"] {
            Value::Array(names) => names.clone(),
            _ => vec![call.params["Name"].clone()],
        };
        for name in names.iter().map(|name| name.as_str().unwrap()) {
            let fits = may.iter().any(|arn| {
                let arn = arn.replace("${Stage}", STAGE);
                let path = arn.split_once(":parameter").map_or("", |(_, path)| path);
                path == name || path.strip_suffix('*').is_some_and(|begin| name.starts_with(begin))
            });
            assert!(fits, "{own} may not ask for {name}: {may:?}");
            asked += 1;
        }
    }
    // The switch five times, the freezes twice, and what is on record of a key once.
    assert_eq!(asked, 8);
}

#[test]
fn iam_writes_are_allowed_on_users_only_whose_tag_asks_for_them() {
    let both = [template(), member()].map(|template| template["Resources"].clone());
    let writes = ["iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey"];
    let (mut found, mut contain, mut removals) = (0, 0, 0);
    support::repository::walk(&Value::from(both.to_vec()), &mut |value| {
        let text = value["Action"].to_string();
        if value["Effect"] == "Allow" && writes.iter().any(|write| text.contains(write)) {
            found += 1;
            let condition = value["Condition"].to_string();
            let managed = condition.contains("aws:ResourceTag/keywheel:secret");
            // One write each, on users whose own tag lets their unused keys go.
            let unused = json!({ "StringEquals": { "aws:ResourceTag/keywheel:unused": "remove" } });
            let removal = value["Condition"] == unused
                && match value["Sid"].as_str().unwrap() {
                    "DisableUnusedKeys" => value["Action"] == "iam:UpdateAccessKey",
                    "DeleteUnusedKeys" => value["Action"] == "iam:DeleteAccessKey",
                    _ => false,
                };
            removals += u32::from(removal);
            // Whose key leaked is not known before; containment reaches every user, and can do nothing but this.
            let containment = value["Sid"] == "SwitchOff" && value["Action"] == "iam:UpdateAccessKey";
            assert!(managed || removal || containment, "{value}");
            contain += u32::from(containment);
        }
    });
    assert!(found >= 6, "{found}");
    // One function contains, through one role elsewhere; and two remove what nobody uses.
    assert_eq!((contain, removals), (2, 2));
}

#[test]
fn a_member_account_lets_in_only_roles_of_the_hub_that_know_its_external_id() {
    let (template, member) = (template(), member());
    for (role, parameter, output) in [
        ("MemberRole", "ContainRoles", "MemberContainRoles"),
        ("MemberReadsRole", "ReadRoles", "MemberReadRoles"),
        ("MemberRotatesRole", "RotateRoles", "MemberRotateRoles"),
    ] {
        let role = &member["Resources"][role]["Properties"];
        let [trust] = role["AssumeRolePolicyDocument"]["Statement"].as_array().unwrap().as_slice() else {
            panic!("{role}")
        };
        let root = json!({ "AWS": { "!Sub": "arn:${AWS::Partition}:iam::${HubAccountId}:root" } });
        let condition = json!({
            "StringEquals": { "sts:ExternalId": { "!Ref": "ExternalId" } },
            "ArnEquals": { "aws:PrincipalArn": { "!Ref": parameter } },
        });
        assert_eq!((&trust["Principal"], &trust["Condition"]), (&root, &condition));
        // The roles that may ask are those that have the right to ask for this very role.
        let asking = template["Outputs"][output]["Value"].to_string();
        let name = role["RoleName"]["!Sub"].as_str().unwrap();
        for (function, one) in functions(&template) {
            let own = one["Properties"]["Role"]["!GetAtt"].as_str().unwrap();
            let policies = template["Resources"][own.split('.').next().unwrap()].to_string();
            assert_eq!(policies.contains(&format!(":role/{name}\"")), asking.contains(own), "{function}");
        }
    }
}

/// A tag on a secret alone lets nobody obtain a user's key, and neither does a secret without it.
#[test]
fn values_of_secrets_are_touched_only_where_they_carry_our_tag() {
    let both = [template(), member()].map(|template| template["Resources"].clone());
    let touching = ["GetSecretValue", "PutSecretValue", "UpdateSecretVersionStage"];
    let mut found = 0;
    support::repository::walk(&Value::from(both.to_vec()), &mut |value| {
        let text = value["Action"].to_string();
        if value["Effect"] == "Allow" && touching.iter().any(|action| text.contains(action)) {
            found += 1;
            let condition = json!({"StringLike": {"secretsmanager:ResourceTag/keywheel:user": "?*"}});
            assert_eq!(value["Condition"], condition, "{value}");
        }
    });
    assert!(found >= 6, "{found}");
}

#[test]
fn only_accounts_of_the_organization_forward_and_only_what_aws_says() {
    let policy = &template()["Resources"]["IntakePolicy"];
    assert_eq!(policy["Condition"], "HasOrganization");
    let condition = json!({
        "StringEquals": { "aws:PrincipalOrgID": { "!Ref": "OrganizationId" } },
        "StringLike": { "events:source": "aws.*" },
    });
    let statement = &policy["Properties"]["Statement"];
    assert_eq!((&statement["Action"], &statement["Condition"]), (&json!("events:PutEvents"), &condition));
}

#[test]
fn nothing_may_do_everything() {
    let both = [template(), member()].map(|template| template["Resources"].clone());
    support::repository::walk(&Value::from(both.to_vec()), &mut |value| {
        if value["Effect"] == "Allow" {
            let list = value["Action"].as_array().cloned().unwrap_or_else(|| vec![value["Action"].clone()]);
            for action in list.iter().filter_map(Value::as_str) {
                assert!(!action.contains('*'), "{value}");
            }
        }
    });
}

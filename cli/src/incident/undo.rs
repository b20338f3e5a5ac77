//! What undoes a containment: planned from what is there, done, and planned anew until nothing is left to do.
//!
//! The word of the person is written first. From then on every step of the machine that reads it leaves the key
//! alone, and whatever dies here is finished by the same command. The machine is stopped last: as long as it runs,
//! it lifts its deny by itself, should we not come so far. A Lambda that was at work while its machine was stopped
//! may still write, so what is there is looked at once more.

use std::time::Duration;

use keywheel::incident::Record;
use keywheel::key::{self, KeyFacts};
use keywheel::{AccessKeyId, StepError, UserName, sessions};

use super::read::{self, Seen, Subject};
use crate::error::{Result, Trouble};
use crate::output::Out;
use crate::place::Place;

/// How IAM says that there is none.
const NONE: [&str; 2] = ["NoSuchEntity", "NoSuchEntityException"];
/// How often what is there is looked at, and the pause before: IAM shows a change some seconds late.
const ROUNDS: u32 = 8;
const PAUSE: Duration = Duration::from_secs(2);

/// What is to be brought about.
#[derive(Debug, Clone)]
pub(super) struct Aim<'a> {
    pub(super) user: &'a UserName,
    /// What is to be on record, for each key.
    pub(super) records: &'a [Record],
    pub(super) subject: &'a Subject,
}

/// What is there.
#[derive(Debug, Clone, Default)]
struct World {
    records: Vec<Record>,
    keys: Vec<KeyFacts>,
    /// Inline policies of ours on the user.
    inline: Vec<String>,
    /// Managed ones.
    managed: Vec<String>,
    /// Policies of ours on roles: the role's name and the policy's.
    roles: Vec<(String, String)>,
    /// Executions that must not go on.
    running: Vec<String>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Keep the person's word on record.
    Keep(Record),
    /// Make the key Active.
    Activate(AccessKeyId),
    /// Take an inline policy off the user.
    TakeOff(String),
    /// Take a managed policy off the user, and delete it.
    TakeOffManaged(String),
    /// Take an inline policy off a role.
    TakeOffRole(String, String),
    /// Stop the incident's machine.
    Stop(String),
}

impl Act {
    /// That it was done.
    fn done(&self) -> String {
        match self {
            Self::Keep(record) => format!("Kept on record that key {} has not leaked.", record.key),
            Self::Activate(key) => format!("Made key {key} Active."),
            Self::TakeOff(policy) | Self::TakeOffManaged(policy) => format!("Took off the policy {policy}."),
            Self::TakeOffRole(role, policy) => format!("Took off the policy {policy} of role {role}."),
            Self::Stop(id) => format!("Stopped the machine of incident {id}."),
        }
    }
}

/// What is left to do, in the order in which it must be done.
fn plan(wanted: &[Record], world: &World) -> Vec<Act> {
    let kept = |record: &&Record| !world.records.contains(record);
    let off = |key: &AccessKeyId| key::find(&world.keys, key).is_some_and(|key| !key.is_active());
    let mut acts: Vec<Act> = wanted.iter().filter(kept).cloned().map(Act::Keep).collect();
    acts.extend(wanted.iter().map(|record| &record.key).filter(|key| off(key)).cloned().map(Act::Activate));
    acts.extend(world.inline.iter().cloned().map(Act::TakeOff));
    acts.extend(world.managed.iter().cloned().map(Act::TakeOffManaged));
    let role = |(role, policy): &(String, String)| Act::TakeOffRole(role.clone(), policy.clone());
    acts.extend(world.roles.iter().map(role));
    acts.extend(world.running.iter().cloned().map(Act::Stop));
    acts
}

/// Whether the machine must be stopped. Before containment it reads the clearance and ends by itself; where no key
/// is named it can read none.
fn must_stop(seen: &Seen, whole: bool) -> bool {
    let goes_on =
        seen.document.as_ref().is_none_or(|doc| doc.contained_at.is_some() || doc.target.key_id.is_none());
    seen.is_running() && whole && goes_on
}

/// Brings it about. Returns what was done.
pub(super) async fn run(place: &Place, out: &Out, aim: &Aim<'_>) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let mut left = Vec::new();
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let mut world = world(place, out, aim, round == 0).await?;
        if round == 0 {
            // Detached, and not yet deleted: only the document still names it.
            let named = aim.subject.document().and_then(|doc| doc.deny.as_ref()?.arn.clone());
            let new = |arn: &String| aim.subject.is_whole() && !world.managed.contains(arn);
            let named = named.filter(new);
            world.managed.extend(named);
        }
        left = plan(aim.records, &world);
        if left.is_empty() && round > 0 {
            return Ok(done);
        }
        for one in &left {
            act(place, aim.user, one).await.map_err(|error| unfinished(&done, error))?;
            if !done.contains(&one.done()) {
                out.line(&one.done());
                done.push(one.done());
            }
        }
    }
    let left: Vec<String> = left.iter().map(Act::done).collect();
    Err(Trouble::new(
        format!("It does not come to rest; done again and again: {}", left.join(" ")),
        "Look who else changes the user, then run the same command again: it goes on.",
    ))
}

fn unfinished(done: &[String], error: StepError) -> Trouble {
    let trouble = Trouble::from(error);
    let so_far = if done.is_empty() {
        "Nothing was changed.".to_owned()
    } else {
        format!("Done so far: {} Run the same command again: it goes on.", done.join(" "))
    };
    Trouble::new(trouble.text, format!("{} {so_far}", trouble.remedy).trim().to_owned())
}

async fn world(place: &Place, out: &Out, aim: &Aim<'_>, first: bool) -> Result<World> {
    let iam = place.iam();
    let keys = &aim.subject.keys;
    let (records, _) = read::records_of(place, keys).await?;
    let mut world = World { records, keys: facts::iam::keys(&iam, aim.user).await?, ..World::default() };
    for key in keys {
        let deny = sessions::policy_name(key);
        match inline(&iam, aim.user, &deny).await? {
            Some(document) if sessions::cut_off_of(&document).is_some() => world.inline.push(deny),
            Some(_) if first => {
                out.note(&format!("The policy {deny} is not as Keywheel wrote it: it stays."));
            }
            _ => {}
        }
        world.inline.extend(stop_gaps(&iam, aim.user, key).await?);
    }
    world.managed = managed(&iam, aim.user, keys).await?;
    // A part of a leak is cleared alone: what denies sessions of roles was written for the whole.
    let roles = aim.subject.document().filter(|_| aim.subject.is_whole()).map_or(&[][..], |doc| &doc.roles);
    for deny in roles {
        let call = iam.get_role_policy().role_name(&deny.role).policy_name(&deny.policy);
        match call.send().await.map_err(|error| StepError::from_sdk("iam:GetRolePolicy", &error)) {
            Ok(reply) if sessions::is_ours_on_a_role(reply.policy_document()) => {
                world.roles.push((deny.role.clone(), deny.policy.clone()));
            }
            Err(error) if !error.is_refused(&NONE) => return Err(error.into()),
            _ => {}
        }
    }
    for seen in &aim.subject.running {
        let seen = read::incident(place, &seen.id).await?;
        world.running.extend(seen.filter(|seen| must_stop(seen, aim.subject.is_whole())).map(|seen| seen.id));
    }
    Ok(world)
}

/// The policies that deny the user everything because of this key, whichever incident wrote them.
async fn stop_gaps(
    iam: &aws_sdk_iam::Client,
    user: &UserName,
    key: &AccessKeyId,
) -> std::result::Result<Vec<String>, StepError> {
    let mut pages = iam.list_user_policies().user_name(user.as_str()).into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("iam:ListUserPolicies", &error))?;
        let own = sessions::stop_gap_names(key);
        names.extend(page.policy_names().iter().filter(|name| name.starts_with(&own)).cloned());
    }
    Ok(names)
}

/// The document of an inline policy, or `None` where there is none of that name.
async fn inline(
    iam: &aws_sdk_iam::Client,
    user: &UserName,
    name: &str,
) -> std::result::Result<Option<String>, StepError> {
    match iam.get_user_policy().user_name(user.as_str()).policy_name(name).send().await {
        Ok(reply) => Ok(Some(reply.policy_document().to_owned())),
        Err(error) => {
            let error = StepError::from_sdk("iam:GetUserPolicy", &error);
            if error.is_refused(&NONE) { Ok(None) } else { Err(error) }
        }
    }
}

/// The managed policies that deny the sessions of these keys: attached to the user, and called as ours are.
async fn managed(
    iam: &aws_sdk_iam::Client,
    user: &UserName,
    keys: &[AccessKeyId],
) -> std::result::Result<Vec<String>, StepError> {
    let mut pages = iam.list_attached_user_policies().user_name(user.as_str()).into_paginator().send();
    let mut arns = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("iam:ListAttachedUserPolicies", &error))?;
        for policy in page.attached_policies() {
            let name = policy.policy_name().unwrap_or_default();
            if keys.iter().any(|key| is_ours(name, key)) {
                arns.extend(policy.policy_arn().map(str::to_owned));
            }
        }
    }
    Ok(arns)
}

/// Whether a managed policy is called after this key and a cut-off.
fn is_ours(name: &str, key: &AccessKeyId) -> bool {
    let rest = name.strip_prefix(&sessions::policy_name(key)).and_then(|rest| rest.strip_prefix('-'));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

async fn act(place: &Place, user: &UserName, act: &Act) -> std::result::Result<(), StepError> {
    let iam = place.iam();
    let gone = |error: StepError| if error.is_refused(&NONE) { Ok(()) } else { Err(error) };
    match act {
        Act::Keep(record) => facts::switch::keep(&place.ssm(), &place.stage, record).await,
        Act::Activate(key) => {
            let call = iam.update_access_key().user_name(user.as_str()).access_key_id(key.as_str());
            let sent = call.status(aws_sdk_iam::types::StatusType::Active).send().await;
            sent.map(|_| ()).map_err(|error| StepError::from_sdk("iam:UpdateAccessKey", &error))
        }
        Act::TakeOff(name) => {
            let sent = iam.delete_user_policy().user_name(user.as_str()).policy_name(name).send().await;
            sent.map(|_| ()).or_else(|error| gone(StepError::from_sdk("iam:DeleteUserPolicy", &error)))
        }
        Act::TakeOffManaged(arn) => {
            let sent = iam.detach_user_policy().user_name(user.as_str()).policy_arn(arn).send().await;
            sent.map(|_| ()).or_else(|error| gone(StepError::from_sdk("iam:DetachUserPolicy", &error)))?;
            let sent = iam.delete_policy().policy_arn(arn).send().await;
            sent.map(|_| ()).or_else(|error| gone(StepError::from_sdk("iam:DeletePolicy", &error)))
        }
        Act::TakeOffRole(role, policy) => {
            let sent = iam.delete_role_policy().role_name(role).policy_name(policy).send().await;
            sent.map(|_| ()).or_else(|error| gone(StepError::from_sdk("iam:DeleteRolePolicy", &error)))
        }
        Act::Stop(id) => {
            let call = place.sfn().stop_execution().execution_arn(read::execution(place, id));
            let sent =
                call.error("Keywheel.FalseAlarm").cause("A person called it a false alarm.").send().await;
            let Err(error) = sent else { return Ok(()) };
            let error = StepError::from_sdk("states:StopExecution", &error);
            if error.is_refused(&["ExecutionDoesNotExist"]) { Ok(()) } else { Err(error) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{KEY, OTHER, at, document, record, seen};
    use super::*;
    use keywheel::incident::RecordState;
    use keywheel::key::KeyStatus;

    fn cleared() -> Record {
        let until = Some(at("2026-03-09T09:00:00Z"));
        Record { until, note: Some("me: ours".into()), ..record(RecordState::Cleared) }
    }

    fn facts(id: &str, status: KeyStatus) -> KeyFacts {
        KeyFacts { id: id.parse().unwrap(), status, created: None }
    }

    #[test]
    fn the_word_comes_first_and_the_machine_is_stopped_last() {
        let world = World {
            records: vec![record(RecordState::Contained)],
            keys: vec![facts(KEY, KeyStatus::Inactive), facts(OTHER, KeyStatus::Inactive)],
            inline: vec!["deny".into()],
            managed: vec!["arn".into()],
            roles: vec![("deploy".into(), "deny".into())],
            running: vec!["run".into()],
        };
        let key: AccessKeyId = KEY.parse().unwrap();
        // The user's other key is nobody's business here.
        let expected = [
            Act::Keep(cleared()),
            Act::Activate(key),
            Act::TakeOff("deny".into()),
            Act::TakeOffManaged("arn".into()),
            Act::TakeOffRole("deploy".into(), "deny".into()),
            Act::Stop("run".into()),
        ];
        assert_eq!(plan(&[cleared()], &world), expected);
    }

    #[test]
    fn it_goes_on_where_it_died_and_ends() {
        let mut world = World {
            records: vec![cleared()],
            keys: vec![facts(KEY, KeyStatus::Active)],
            inline: vec!["deny".into()],
            ..World::default()
        };
        assert_eq!(plan(&[cleared()], &world), [Act::TakeOff("deny".into())]);
        world.inline.clear();
        assert_eq!(plan(&[cleared()], &world), []);
        // The machine was quicker, and has written what it knew: the word is written again.
        world.records = vec![record(RecordState::Contained)];
        assert_eq!(plan(&[cleared()], &world), [Act::Keep(cleared())]);
    }

    #[test]
    fn a_machine_that_has_not_contained_yet_reads_the_clearance_itself() {
        let mut seen = seen(document());
        assert!(!must_stop(&seen, true));
        seen.document.as_mut().unwrap().contained_at = Some(at("2026-03-02T09:00:02Z"));
        assert!(must_stop(&seen, true));
        assert!(!must_stop(&seen, false));
        seen.document.as_mut().unwrap().contained_at = None;
        seen.document.as_mut().unwrap().target.key_id = None;
        assert!(must_stop(&seen, true));
        seen.document = None;
        assert!(must_stop(&seen, true));
        seen.status = aws_sdk_sfn::types::ExecutionStatus::Succeeded;
        assert!(!must_stop(&seen, true));
    }

    #[test]
    fn only_a_policy_named_after_the_key_is_ours() {
        let key: AccessKeyId = KEY.parse().unwrap();
        let name = sessions::policy_name(&key);
        assert!(is_ours(&format!("{name}-1772442061"), &key));
        for other in [name.clone(), format!("{name}-"), format!("{name}-x1"), "AdministratorAccess".into()] {
            assert!(!is_ours(&other, &key), "{other}");
        }
        assert!(!is_ours(&format!("{name}-1"), &OTHER.parse().unwrap()));
    }
}

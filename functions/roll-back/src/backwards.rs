//! Turns a promotion back: a rotation backwards. The old key works again before AWSCURRENT names it, and the new
//! one, which consumers hold, is then superseded like any other: overlap, gate, grace, delete.

use std::time::Duration;

use aws_sdk_iam::types::StatusType;
use facts::executions::{sibling, state_of};
use facts::secrets::{self, CURRENT, PREVIOUS, Which};
use keywheel::decide::entry::RunState;
use keywheel::key::{self, KeyFacts};
use keywheel::notice::NoticeKind;
use keywheel::rotation::{NewKey, OldKey, Outcome, Why};
use keywheel::secret::SecretValue;
use keywheel::{AccessKeyId, Rotation, RunId, StepError, UserName};
use tracing::info;

use crate::Tools;

/// A step of the stopped run may still be in flight; this is longer than its calls take.
const IN_FLIGHT: Duration = Duration::from_secs(5);
/// How often the old key is looked at after AWSCURRENT has moved.
const LOOKS: u32 = 3;

/// Run twice, it finds AWSCURRENT moved and goes on from there.
pub(crate) async fn turn(tools: &Tools<'_>, mut doc: Rotation) -> Result<Rotation, StepError> {
    let user = doc.baseline()?.user.clone();
    let secret = doc.secret()?.clone();
    // Look has found: `new` is current, `old` is the one before. Their roles are swapped below.
    let (abandoned, back) = (doc.new_key()?.clone(), doc.old_key()?.key.clone());
    let from = abandoned
        .version
        .clone()
        .ok_or_else(|| StepError::BadInput("the current key is not stored".into()))?;

    let labels = secrets::describe(&tools.store, secret.as_str()).await?;
    let now_current = labels.labelled(CURRENT);
    // Where a first attempt has moved the labels already, the version to go back to carries AWSCURRENT.
    let moved = now_current.as_ref() != Some(&from);
    let to = if moved { now_current } else { labels.labelled(PREVIOUS) };
    let to = to.ok_or_else(|| StepError::Conflict("AWSPREVIOUS names no version".into()))?;
    let value = secrets::value(&tools.store, &secret, Which::Version(&to)).await?;
    let value = value.ok_or_else(|| StepError::Conflict(format!("version {to} is gone")))?;
    let value = SecretValue::parse(value.text.as_deref(), &user.name)
        .map_err(|error| StepError::Conflict(error.to_string()))?;
    let Some((id, pair)) = value.pair().filter(|(id, _)| *id == back) else {
        let why = Why::new(
            "CurrentMoved",
            "The secret was changed meanwhile; nothing was turned back.",
            "Look at it, then start again.",
        );
        doc.end(tools.ctx.clock.now(), Outcome::Held, why);
        return Ok(doc);
    };

    let mut runs = labels.runs_on(&from);
    runs.extend(labels.runs_on(&to));
    let ended = stop(tools, &doc, &runs).await?;
    // From here on the version leads to this run, which answers for what becomes of the other key.
    secrets::claim(&tools.store, &labels, &to, doc.run, &ended).await?;
    tools.set(&user.name, &back, StatusType::Active).await?;
    let sts = validate_key::client(&keywheel::aws::in_region(&tools.config, secret.region()), &id, &pair);
    validate_key::answers(&sts, &user, &id, tools.ctx).await?;
    if !moved {
        promote_key::swap(&tools.store, &secret, &from, &to).await?;
    }
    keep_active(tools, &user.name, &back).await?;

    info!(rotation.id = %doc.run, iam.user = %user.name, key.id = %back, "AWSCURRENT names key {back} of {} again", user.name);
    doc.new = Some(NewKey { key: back, version: Some(to) });
    doc.old = Some(OldKey { key: abandoned.key, was_current: true });
    let now = tools.ctx.clock.now();
    doc.begin_overlap(now);
    doc.announce(now, NoticeKind::TurnedBack);
    Ok(doc)
}

/// Stops the runs that are at work on these versions; says which of them have ended.
async fn stop(tools: &Tools<'_>, doc: &Rotation, runs: &[RunId]) -> Result<Vec<RunId>, StepError> {
    let of = (doc.secret()?, doc.baseline()?.secret_name.as_str());
    let mut ended = Vec::new();
    for run in runs.iter().copied().filter(|run| *run != doc.run) {
        match state_of(&tools.sfn, &doc.execution, run, of).await? {
            RunState::NotOurs => continue,
            RunState::Ended(_) | RunState::EndedLeaked(_) => {}
            RunState::Running(_) => {
                tools
                    .sfn
                    .stop_execution()
                    .set_execution_arn(sibling(&doc.execution, run))
                    .error("Keywheel.RolledBack")
                    .cause(format!("turned back by run {}", doc.run))
                    .send()
                    .await
                    .map_err(|error| StepError::from_sdk("states:StopExecution", &error))?;
                info!(rotation.id = %doc.run, "Stopped run {run}");
            }
        }
        ended.push(run);
    }
    Ok(ended)
}

/// A step that was in flight when its run was stopped may still make the old key Inactive.
async fn keep_active(tools: &Tools<'_>, user: &UserName, back: &AccessKeyId) -> Result<(), StepError> {
    let mut looks = 0;
    while looks < LOOKS {
        tools.ctx.clock.sleep(IN_FLIGHT / LOOKS).await;
        let keys = facts::iam::keys(&tools.iam, user).await?;
        match key::find(&keys, back) {
            Some(key) if KeyFacts::is_active(key) => looks += 1,
            Some(_) => {
                tools.set(user, back, StatusType::Active).await?;
                looks = 0;
            }
            None => {
                return Err(StepError::Conflict(format!("key {back} was deleted while it was brought back")));
            }
        }
    }
    Ok(())
}

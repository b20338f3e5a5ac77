//! Undoes a run that failed before its promotion: the new key Inactive, AWSCURRENT looked at once more,
//! the key deleted, AWSPENDING taken off.

use std::time::Duration;

use aws_sdk_iam::types::StatusType;
use facts::executions;
use facts::secrets::{self, CURRENT, PENDING, PREVIOUS, Which};
use jiff::Timestamp;
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Outcome, Phase, Suspect, Why};
use keywheel::secret::SecretValue;
use keywheel::{AccessKeyId, Rotation, RunId, StepError, UserName, VersionId, key};
use tracing::info;

use crate::Tools;

/// Run twice, it finds less to do. Killed half way, the next attempt or the next run goes on.
pub(crate) async fn undo(tools: &Tools<'_>, mut doc: Rotation) -> Result<Rotation, StepError> {
    let now = tools.ctx.clock.now();
    let user = doc.baseline()?.user.name.clone();
    if doc.why.is_none() {
        doc.why = Some(caught(&doc));
    }
    let Some(mut found) = labels(tools, &doc).await? else {
        // The secret is gone; nothing names the new key any more.
        return remove(tools, doc, None, now).await;
    };
    let version = doc.new.as_ref().and_then(|new| new.version.clone()).unwrap_or_else(|| doc.run.version());
    if doc.phase == Phase::TakeOver {
        // Nothing was begun but the claim: the ended run's work waits for the next one, which must find it.
        executions::leave((&tools.sfn, &doc.execution), &tools.store, &found, &version, doc.run).await?;
        let why = doc.why.take().unwrap_or_else(|| caught(&doc));
        doc.end(now, Outcome::Blocked, why);
        return Ok(doc);
    }
    let taken_over = version != doc.run.version();
    if taken_over && !found.carries(&version, &doc.run.label()) {
        // Another run may be about to promote this key. Each leaves its label first and looks then, so that at
        // least one of them sees the other and leaves.
        secrets::claim(&tools.store, &found, &version, doc.run, &[]).await?;
        found = secrets::describe(&tools.store, doc.secret()?.as_str()).await?;
    }
    let labels = found;
    if taken_over && let Some(rival) = rival(tools, &doc, &labels, &version).await? {
        // Another run took the same version over: what becomes of its key is that run's matter.
        executions::leave((&tools.sfn, &doc.execution), &tools.store, &labels, &version, doc.run).await?;
        let why = Why::new(
            "RunInProgress",
            format!("Run {rival} is at work on user {user}."),
            format!("`keywheel status --user {user}` shows where it is."),
        );
        doc.end(now, Outcome::Blocked, why);
        return Ok(doc);
    }
    if labels.labelled(CURRENT).as_ref() == Some(&version) {
        if taken_over {
            secrets::claim(&tools.store, &labels, &version, doc.run, &[]).await?;
        }
        if let Some(new) = &doc.new {
            // An earlier attempt may have made it Inactive before the promotion showed.
            tools.set(&user, &new.key, StatusType::Active).await?;
        }
        return Ok(found_promoted(doc, now));
    }
    if labels.carries(&version, PREVIOUS) || edited_since(tools, &doc, &labels).await? {
        // It was current, and somebody has moved the label on since: consumers may hold the key.
        doc.announce(now, NoticeKind::Promoted);
        doc.stand_down(now, labels.labelled(CURRENT).as_ref());
        return Ok(doc);
    }
    // A step that died may have stored a key that its document never came to name.
    let secret = doc.secret()?.clone();
    let stored = secrets::value(&tools.store, &secret, Which::Version(&version)).await;
    let stored = match stored {
        Ok(value) => value.and_then(|value| SecretValue::parse(value.text.as_deref(), &user).ok()?.key()),
        // What cannot be read (a KMS key that denies) names no key that we could know of.
        Err(StepError::Refused(_)) => None,
        Err(error) => return Err(error),
    };
    if doc.new.is_none()
        && let Some(key) = stored
    {
        doc.new = Some(keywheel::rotation::NewKey { key, version: Some(version.clone()) });
    }
    let claimed = labels.carries(&version, &doc.run.label()).then(|| version.clone());
    let pending = (labels.labelled(PENDING).as_ref() == Some(&version)).then_some(version);
    let doc = remove(tools, doc, pending, now).await?;
    if let Some(version) = claimed.filter(|_| doc.phase == Phase::Ended) {
        secrets::disclaim(&tools.store, &secret, &version, doc.run).await?;
    }
    Ok(doc)
}

/// Another run that is at work on a version which this one took over.
async fn rival(
    tools: &Tools<'_>,
    doc: &Rotation,
    labels: &secrets::Secret,
    version: &VersionId,
) -> Result<Option<RunId>, StepError> {
    let runs: Vec<RunId> = labels.runs_on(version).into_iter().filter(|run| *run != doc.run).collect();
    let of = (doc.secret()?, labels.name.as_str());
    let at_work = facts::executions::at_work(&tools.sfn, &doc.execution, &runs, of).await?;
    Ok(at_work.running())
}

async fn labels(tools: &Tools<'_>, doc: &Rotation) -> Result<Option<secrets::Secret>, StepError> {
    match secrets::describe(&tools.store, doc.secret()?.as_str()).await {
        Ok(secret) if secret.deleted => Ok(None),
        Ok(secret) => Ok(Some(secret)),
        Err(error) if error.is_refused(&["ResourceNotFoundException"]) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether AWSCURRENT names a version that is neither the baseline's nor this run's and holds this run's key, or
/// might: somebody has edited the secret after a promotion whose reply was lost.
async fn edited_since(
    tools: &Tools<'_>,
    doc: &Rotation,
    labels: &secrets::Secret,
) -> Result<bool, StepError> {
    let baseline = doc.baseline()?;
    let before = baseline.current.as_ref().map(|current| &current.version);
    let current = labels.labelled(CURRENT);
    let (Some(new), Some(current)) = (&doc.new, current.filter(|current| Some(current) != before)) else {
        return Ok(false);
    };
    if new.version.as_ref() == Some(&current) {
        return Ok(false);
    }
    match secrets::value(&tools.store, doc.secret()?, Which::Version(&current)).await {
        Ok(Some(value)) => match SecretValue::parse(value.text.as_deref(), &baseline.user.name) {
            Ok(value) => Ok(value.key().as_ref() == Some(&new.key)),
            Err(_) => Ok(true),
        },
        Ok(None) => Ok(false),
        Err(StepError::Refused(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The promotion took effect although its step failed: consumers hold the new key, so the run goes on.
fn found_promoted(mut doc: Rotation, now: Timestamp) -> Rotation {
    info!(rotation.id = %doc.run, "AWSCURRENT names this run's version: the promotion had taken effect");
    doc.undoing = false;
    doc.why = None;
    doc.error = None;
    promote_key::promoted(&mut doc, now);
    doc
}

async fn remove(
    tools: &Tools<'_>,
    mut doc: Rotation,
    pending: Option<VersionId>,
    now: Timestamp,
) -> Result<Rotation, StepError> {
    let user = doc.baseline()?.user.name.clone();
    let keys = facts::iam::keys(&tools.iam, &user).await?;
    // The pair that AWSCURRENT holds is never this run's to remove, whatever a document says.
    let current = doc.baseline()?.current.as_ref().and_then(|current| current.key.clone());
    let mine: Option<AccessKeyId> =
        doc.new.as_ref().map(|new| new.key.clone()).filter(|key| Some(key) != current.as_ref());
    if let Some(id) = mine.as_ref()
        && switch_off(tools, &user, id).await?
    {
        // A move of AWSCURRENT whose reply was lost may land late. Nothing is deleted that it could have named.
        if let Some(labels) = labels(tools, &doc).await?
            && doc
                .new
                .as_ref()
                .and_then(|new| new.version.as_ref())
                .is_some_and(|version| labels.labelled(CURRENT).as_ref() == Some(version))
        {
            tools.set(&user, id, StatusType::Active).await?;
            return Ok(found_promoted(doc, now));
        }
        tools.delete(&user, id).await?;
        info!(rotation.id = %doc.run, iam.user = %user, key.id = %id, "Deleted key {id} of {user}, which was never current");
    }
    if let Some(version) = pending {
        take_off_pending(tools, &doc, &version).await?;
    }
    // Keys that appeared while this run was making one, and that nothing stored names.
    let known = |id: &AccessKeyId| {
        Some(id) == mine.as_ref()
            || key::find(&doc.baseline.as_ref().map(|b| b.keys.clone()).unwrap_or_default(), id).is_some()
    };
    if doc.phase == Phase::Create && doc.suspects.is_empty() {
        doc.suspects = keys
            .iter()
            .filter(|key| !known(&key.id))
            .map(|key| Suspect { key: key.id.clone(), created: key.created, stored_by: None })
            .collect();
        if !doc.suspects.is_empty() {
            doc.undoing = true;
            doc.phase = Phase::Clear;
            return Box::pin(crate::orphans::clear(tools, doc)).await;
        }
    }
    Ok(finish(doc, now))
}

/// How long a key that IAM does not know, in any of its answers, is asked for again before it counts as gone.
const LAG: [Duration; 4] =
    [Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(16)];

/// Makes a key Inactive; false where it is gone. Neither the list nor the first refusal of a key that was just made
/// says that it is: IAM shows it seconds later, and nobody would ever take it back.
async fn switch_off(tools: &Tools<'_>, user: &UserName, id: &AccessKeyId) -> Result<bool, StepError> {
    let mut pauses = LAG.into_iter();
    loop {
        let reply = tools
            .iam
            .update_access_key()
            .user_name(user.as_str())
            .access_key_id(id.as_str())
            .status(StatusType::Inactive)
            .send()
            .await;
        match reply.map_err(|error| StepError::from_sdk("iam:UpdateAccessKey", &error)) {
            Ok(_) => return Ok(true),
            Err(error) if error.is_refused(&["NoSuchEntity", "NoSuchEntityException"]) => match pauses.next()
            {
                Some(pause) => tools.ctx.clock.sleep(pause).await,
                None => break,
            },
            Err(error) => return Err(error),
        }
    }
    let keys = facts::iam::keys(&tools.iam, user).await?;
    match key::find(&keys, id) {
        // The list may as well be behind with a key that somebody deleted; the machine asks again.
        Some(_) => {
            Err(StepError::NotYetVisible(format!("key {id} is listed, and cannot be made Inactive yet")))
        }
        None => Ok(false),
    }
}

/// Ends a run that has undone all it did.
pub(crate) fn finish(mut doc: Rotation, now: Timestamp) -> Rotation {
    let why = doc.why.take().unwrap_or_else(|| caught(&doc));
    doc.end_unpromoted(now, why);
    doc
}

fn caught(doc: &Rotation) -> Why {
    match &doc.error {
        Some(error) => Why::new(
            error.error.clone(),
            format!("The new key was not promoted: {}.", error.message()),
            "Mend what the message names, then start again.",
        ),
        None => Why::new("Undone", "The new key was not promoted.", "Start again."),
    }
}

pub(crate) async fn take_off_pending(
    tools: &Tools<'_>,
    doc: &Rotation,
    version: &VersionId,
) -> Result<(), StepError> {
    let reply = tools
        .store
        .update_secret_version_stage()
        .secret_id(doc.secret()?.as_str())
        .version_stage(PENDING)
        .remove_from_version_id(version.as_str())
        .send()
        .await;
    match reply.map_err(|error| StepError::from_sdk("secretsmanager:UpdateSecretVersionStage", &error)) {
        // The label has moved on, or the secret is gone: nothing of ours is pending.
        Err(error)
            if !error.is_refused(&[
                "InvalidParameterException",
                "InvalidRequestException",
                "ResourceNotFoundException",
            ]) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

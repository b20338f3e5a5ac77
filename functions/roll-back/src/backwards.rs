//! Turns a promotion back: a rotation backwards. The old key works again before AWSCURRENT names it, and the new
//! one, which consumers hold, is then superseded like any other: overlap, gate, grace, delete.

use std::time::Duration;

use aws_sdk_iam::types::StatusType;
use facts::executions::{has_ended, sibling, state_of};
use facts::secrets::{self, CURRENT, PENDING, PREVIOUS, Secret, Which};
use jiff::Timestamp;
use keywheel::clock::{after, wait_time};
use keywheel::decide::entry::RunState;
use keywheel::decide::gate;
use keywheel::key::{self, KeyFacts};
use keywheel::notice::NoticeKind;
use keywheel::rotation::{NewKey, OldKey, Outcome, Why};
use keywheel::secret::SecretValue;
use keywheel::switch::Mode;
use keywheel::{AccessKeyId, Rotation, RunId, StepError, UserName, VersionId};
use tracing::info;

use crate::{Tools, paused, undo};

/// A step of the stopped run may still be in flight, and so may the one call that takes the old key away. This is
/// longer than that call takes with all of the SDK's attempts, of five seconds each, and the pauses between them.
/// A step that dawdles for longer is met by the looks at the beginning of the overlap.
const IN_FLIGHT: Duration = Duration::from_secs(20);
/// How long the old key must stay Active before AWSCURRENT names it.
const STEADY: Duration = Duration::from_secs(5);
/// How often it is looked at in that time.
const LOOKS: u32 = 3;
/// How often at most; then the machine's retry goes on.
const MOST_LOOKS: u32 = 15;

/// Run twice, it finds AWSCURRENT moved and goes on from there.
pub(crate) async fn turn(tools: &Tools<'_>, mut doc: Rotation, mode: Mode) -> Result<Rotation, StepError> {
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
        return Ok(overtaken(doc, &labels, back, abandoned, tools.ctx.clock.now()));
    };

    if mode != Mode::Live && !moved && !labels.carries(&to, &doc.run.label()) {
        // Once an attempt has left its label, a run may have been stopped: then it goes on.
        doc.end(tools.ctx.clock.now(), Outcome::Blocked, paused("Nothing was turned back", mode));
        return Ok(doc);
    }
    let mut runs = labels.runs_on(&from);
    runs.extend(labels.runs_on(&to));
    let ended = stop(tools, &doc, &runs).await?;
    // From here on the version leads to this run, which answers for what becomes of the other key.
    secrets::claim(&tools.store, &labels, &to, doc.run, &ended).await?;
    // First of all, so that no call made for an Inactive key hits one that works, or that AWSCURRENT names.
    tools.ctx.clock.sleep(IN_FLIGHT).await;
    if key::find(&facts::iam::keys(&tools.iam, &user.name).await?, &back).is_none() {
        let why = Why::new(
            "OldKeyGone",
            format!("Key {back} was deleted before its run could be stopped; nothing was turned back."),
            "After the delete there is no way back; rotate again for a new key.",
        );
        doc.end(tools.ctx.clock.now(), Outcome::Held, why);
        return Ok(doc);
    }
    // Look has asked; it may have leaked since, and what is contained must not come back.
    if facts::switch::leaked(&aws_sdk_ssm::Client::new(&tools.config), &tools.ctx.stage, &back)
        .await?
        .is_some()
    {
        let why = Why::new(
            "LeakedKeyKept",
            format!(
                "Key {back} leaked meanwhile and stays Inactive; {}.",
                if moved { "AWSCURRENT names it already" } else { "nothing was turned back" }
            ),
            format!("`keywheel incident {back}` shows what is known of it."),
        );
        doc.end(tools.ctx.clock.now(), Outcome::Held, why);
        return Ok(doc);
    }
    tools.set(&user.name, &back, StatusType::Active).await?;
    keep_active(tools, &user.name, &back).await?;
    // After the looks: IAM's list may lag behind what somebody did to the key a moment ago.
    let sts = validate_key::client(&keywheel::aws::in_region(&tools.there, secret.region()), &id, &pair);
    validate_key::answers(&sts, &user, &id, tools.ctx).await?;
    if !moved {
        still_claimed(tools, &doc, &to).await?;
        promote_key::swap(&tools.store, &secret, &from, &to).await?;
    }
    // Not before, and never off `to`: two runs that turn back at once stop each other, and each would take the other's
    // label off. Whichever version AWSCURRENT is left on, a label must lead from it to a run.
    secrets::let_go(&tools.store, &labels, &ended, Some(&to)).await?;
    if labels.carries(&from, PENDING) {
        // The version may lose AWSPREVIOUS to somebody's edit, and must not look as if it had never been current.
        undo::take_off_pending(tools, &doc, &from).await?;
    }

    info!(rotation.id = %doc.run, iam.user = %user.name, key.id = %back, "AWSCURRENT names key {back} of {} again", user.name);
    doc.new = Some(NewKey { key: back, version: Some(to) });
    doc.old = Some(OldKey { key: abandoned.key, was_current: true });
    let now = tools.ctx.clock.now();
    doc.begin_overlap(now);
    let first_look = wait_time(after(now, gate::LOOK_BACK));
    doc.wait_until = doc.wait_until.map(|until| until.min(first_look));
    doc.announce(now, NoticeKind::TurnedBack);
    Ok(doc)
}

/// Somebody has changed the secret: AWSCURRENT names neither key, and what becomes of them is for a person.
fn overtaken(
    mut doc: Rotation,
    labels: &Secret,
    back: AccessKeyId,
    abandoned: NewKey,
    now: Timestamp,
) -> Rotation {
    // What AWSCURRENT has named last, AWSPREVIOUS names: an earlier attempt, whose reply was lost, had moved it.
    let own = |version: &VersionId| labels.carries(version, &doc.run.label());
    if let Some(version) = labels.labelled(PREVIOUS).filter(own) {
        let text = format!("AWSCURRENT named key {back} again, and then somebody changed the secret.");
        doc.new = Some(NewKey { key: back, version: Some(version) });
        doc.old = Some(OldKey { key: abandoned.key, was_current: true });
        doc.announce(now, NoticeKind::TurnedBack);
        doc.end(now, Outcome::Held, Why::new("CurrentMoved", text, "Look at which keys are needed."));
        return doc;
    }
    // An earlier attempt that left its label may have stopped a run.
    let begun = labels.claims().iter().any(|(_, run)| *run == doc.run);
    let why = Why::new(
        "CurrentMoved",
        "The secret was changed meanwhile; nothing was turned back.",
        "Look at it, then start again.",
    );
    doc.end(now, if begun { Outcome::Held } else { Outcome::Blocked }, why);
    doc
}

/// Fails where another run has taken this one's work over: this execution was stopped, and only its last step is
/// still in flight. Moving AWSCURRENT under the other one would leave a key that no run answers for.
async fn still_claimed(tools: &Tools<'_>, doc: &Rotation, to: &VersionId) -> Result<(), StepError> {
    let labels = secrets::describe(&tools.store, doc.secret()?.as_str()).await?;
    if labels.carries(to, &doc.run.label()) {
        return Ok(());
    }
    Err(StepError::Conflict("another run has taken this one's work over; nothing was turned back".into()))
}

/// Stops the runs that are at work on these versions; says which of them have ended.
async fn stop(tools: &Tools<'_>, doc: &Rotation, runs: &[RunId]) -> Result<Vec<RunId>, StepError> {
    let of = (doc.secret()?, doc.baseline()?.secret_name.as_str());
    let mut ended = Vec::new();
    for run in runs.iter().copied().filter(|run| *run != doc.run) {
        match state_of(&tools.sfn, &doc.execution, run, of).await? {
            RunState::NotOurs => continue,
            RunState::Ended(_) | RunState::EndedLeaked(_) => {}
            RunState::Running(_) | RunState::RunningLeaked(_) => {
                let stopped = tools
                    .sfn
                    .stop_execution()
                    .set_execution_arn(sibling(&doc.execution, run))
                    .error("Keywheel.RolledBack")
                    .cause(format!("turned back by run {}", doc.run))
                    .send()
                    .await
                    .map_err(|error| StepError::from_sdk("states:StopExecution", &error));
                // Refused: it may have come to its end by itself between the two calls, which is as good.
                if let Err(error) = stopped
                    && !(matches!(error, StepError::Refused(_))
                        && has_ended(&tools.sfn, &doc.execution, run).await?)
                {
                    return Err(error);
                }
                info!(rotation.id = %doc.run, "Run {run} is stopped");
            }
        }
        ended.push(run);
    }
    Ok(ended)
}

/// A step that answers later than any should may still make the old key Inactive.
async fn keep_active(tools: &Tools<'_>, user: &UserName, back: &AccessKeyId) -> Result<(), StepError> {
    let mut looks = 0;
    for _ in 0..MOST_LOOKS {
        if looks == LOOKS {
            return Ok(());
        }
        tools.ctx.clock.sleep(STEADY / LOOKS).await;
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
    Err(StepError::NotYetVisible(format!("key {back} does not stay Active")))
}

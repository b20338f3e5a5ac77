//! Clears keys that a lost process of ours made and never stored, and nobody else's.

use aws_sdk_iam::types::StatusType;
use facts::left;
use facts::secrets::{self, CURRENT, PENDING, PREVIOUS};
use keywheel::clock::wait_time;
use keywheel::decide::orphan::{self, Attribution};
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Phase, Suspect, Why};
use keywheel::{Rotation, StepError};
use tracing::info;

use crate::{Tools, undo};

/// How often one run clears an orphan and makes a key again, before it calls it a failure.
const ATTEMPTS: u32 = 2;

/// Run twice, it finds the cleared keys gone.
pub(crate) async fn clear(tools: &Tools<'_>, mut doc: Rotation) -> Result<Rotation, StepError> {
    let now = tools.ctx.clock.now();
    let user = doc.baseline()?.user.name.clone();
    let keys = facts::iam::keys(&tools.iam, &user).await?;
    let mut waiting: Vec<Suspect> = Vec::new();
    let suspects = std::mem::take(&mut doc.suspects);
    for (index, suspect) in suspects.iter().enumerate() {
        if keywheel::key::find(&keys, &suspect.key).is_none() {
            // An attempt that died, or whose last reply was lost, may have cleared it: then the run has not
            // left everything untouched.
            doc.cleared += 1;
            continue;
        }
        match attribute(tools, &doc, suspect).await? {
            Attribution::Ours => {
                tools.set(&user, &suspect.key, StatusType::Inactive).await?;
                tools.delete(&user, &suspect.key).await?;
                info!(rotation.id = %doc.run, iam.user = %user, key.id = %suspect.key, "Cleared the orphan {} of {user}", suspect.key);
                doc.cleared += 1;
            }
            Attribution::Wait(until) => {
                waiting.extend_from_slice(&suspects[index..]);
                doc.wait_until = Some(wait_time(until));
                break;
            }
            Attribution::AtWork(run) if !doc.undoing => {
                let why = Why::new(
                    "RunInProgress",
                    format!("Run {run} is making a key for {user}; this one has made none."),
                    format!("`keywheel status --user {user}` shows where it is."),
                );
                doc.end_unpromoted(now, why);
                return Ok(doc);
            }
            Attribution::NotOurs(text) if !doc.undoing => {
                let why = Why::new(
                    "SlotsFull",
                    format!(
                        "User {user} has {} keys, and Keywheel did not make all of them: {text}. It was left alone.",
                        keys.len()
                    ),
                    format!(
                        "If nobody needs it: `keywheel enroll --user {user} --secret {} --retire {}`, or delete it yourself.",
                        doc.request.secret, suspect.key
                    ),
                );
                doc.end_unpromoted(now, why);
                return Ok(doc);
            }
            // A run that failed has nothing more to do with a key that is not its own.
            Attribution::AtWork(_) | Attribution::NotOurs(_) => {}
        }
    }
    if !waiting.is_empty() {
        doc.suspects = waiting;
        doc.phase = Phase::Clear;
        return Ok(doc);
    }
    if doc.undoing {
        return Ok(undo::finish(doc, now));
    }
    if doc.cleared >= ATTEMPTS {
        doc.give_up(Why::new(
            "CreateKeepsFailing",
            format!("Two keys of {user} were made and lost on the way, and cleared again."),
            "The replies of IAM get lost; start again when it answers.",
        ));
        return Ok(undo::finish(doc, now));
    }
    if doc.cleared > 0 {
        doc.announce(now, NoticeKind::OrphanCleared);
    }
    doc.phase = Phase::Create;
    doc.wait_until = None;
    Ok(doc)
}

/// A key that a version of the secret names is no orphan, and the version's id tells whose it is; only for the
/// others CloudTrail is asked.
async fn attribute(tools: &Tools<'_>, doc: &Rotation, suspect: &Suspect) -> Result<Attribution, StepError> {
    let arn = doc.secret()?;
    let secret = secrets::describe(&tools.store, arn.as_str()).await?;
    for label in [CURRENT, PENDING, PREVIOUS] {
        let Some(version) = secret.labelled(label) else { continue };
        let before = doc.baseline()?.current.as_ref().map(|current| &current.version);
        if Some(&version) == before || version == doc.run.version() {
            continue;
        }
        let of = (arn, secret.name.as_str());
        let at_work =
            facts::executions::at_work(&tools.sfn, &doc.execution, &secret.runs_on(&version), of).await?;
        if let Some(run) = at_work.running() {
            return Ok(Attribution::AtWork(run));
        }
    }
    let now = tools.ctx.clock.now();
    if suspect.stored_by.is_some() {
        return Ok(orphan::decide(suspect, None, &tools.create_role, |_| true, now));
    }
    let user = &doc.baseline()?.user.name;
    let (runs, of) = ((&tools.sfn, doc.execution.as_str()), (&tools.store, arn, user));
    Box::pin(left::whose(&tools.there, runs, of, (suspect, &tools.create_role), now)).await
}

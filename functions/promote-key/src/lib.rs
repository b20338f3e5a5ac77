//! The `PromoteKey` state: moves AWSCURRENT to the new version by compare-and-swap, or takes over where an
//! ended run has done so.
//!
//! `RemoveFromVersionId` names the baseline's version, so the move fails where anybody else has moved the label
//! meanwhile. On any error the labels are read again: ours is current means it was done and the reply got lost.

use aws_types::SdkConfig;
use facts::executions;
use facts::secrets::{self, CURRENT};
use keywheel::decide::entry::RunState;
use keywheel::key::KeyFacts;
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Outcome, Phase, Reason, Why};
use keywheel::switch::Mode;
use keywheel::{Context, Rotation, RunId, Step, StepError, VersionId, aws, key};
use tracing::info;

/// The step.
pub struct PromoteKey {
    config: SdkConfig,
}

impl PromoteKey {
    /// A step that calls AWS with `config`.
    pub fn new(config: SdkConfig) -> Self {
        Self { config }
    }
}

impl Step for PromoteKey {
    const NAME: &'static str = "promote-key";
    type Input = Rotation;
    type Output = Rotation;

    /// Run twice, the second move is refused by Secrets Manager, and the labels tell that it was done.
    async fn run(&self, mut doc: Rotation, ctx: &Context) -> Result<Rotation, StepError> {
        let config = aws::for_run(&self.config, doc.run);
        let secret = doc.secret()?.clone();
        let new = doc
            .new_key()?
            .version
            .clone()
            .ok_or_else(|| StepError::BadInput("the new key is not stored".into()))?;
        let store = aws_sdk_secretsmanager::Client::new(&aws::in_region(&config, secret.region()));
        let mode =
            facts::switch::mode(&aws_sdk_ssm::Client::new(&aws::for_run(&self.config, doc.run)), &ctx.stage)
                .await?;
        if doc.phase == Phase::TakeOver {
            if mode != Mode::Live {
                let text = format!("Nothing was changed: the installation is {mode}.");
                let remedy = "`keywheel mode live` lets it change things.";
                doc.end(ctx.clock.now(), Outcome::Blocked, Why::new("Paused", text, remedy));
                return Ok(doc);
            }
            take_over(&store, &aws_sdk_sfn::Client::new(&config), &mut doc, &new, ctx).await?;
            return Ok(doc);
        }
        let expected = doc.baseline()?.current.as_ref().map(|current| current.version.clone());
        let expected =
            expected.ok_or_else(|| StepError::BadInput("the document has no current version".into()))?;
        if mode != Mode::Live && secrets::current(&store, &secret).await?.as_ref() != Some(&new) {
            doc.give_up(Why::new(
                "Paused",
                format!("The new key was not promoted: the installation is {mode}."),
                "`keywheel mode live` lets it change things.",
            ));
            return Ok(doc);
        }
        swap(&store, &secret, &expected, &new).await?;
        info!(rotation.id = %doc.run, iam.user = doc.user_name(), "AWSCURRENT names version {new}");
        promoted(&mut doc, ctx.clock.now());
        Ok(doc)
    }
}

/// Makes this run findable from the version it works on, and begins where the ended run stopped. When its clock
/// started is not known here, so it starts anew.
///
/// Of two runs that take over at once, both leave their label first and look then: the one with the smaller id
/// goes on, and the other one leaves.
async fn take_over(
    store: &aws_sdk_secretsmanager::Client,
    sfn: &aws_sdk_sfn::Client,
    doc: &mut Rotation,
    version: &VersionId,
    ctx: &Context,
) -> Result<(), StepError> {
    let mut ended: Vec<RunId> = Vec::new();
    for round in 0..2 {
        let secret = secrets::describe(store, doc.secret()?.as_str()).await?;
        if secret.labelled(CURRENT).as_ref() != Some(version) {
            let text = "AWSCURRENT was moved since the run began; this run has changed nothing.";
            doc.end(
                ctx.clock.now(),
                Outcome::Blocked,
                Why::new("Conflict", text, "Start again; the run looks anew."),
            );
            return Ok(());
        }
        let of = (&secret.arn, secret.name.as_str());
        for run in secret.claims().into_iter().map(|(_, run)| run).filter(|run| *run != doc.run) {
            match executions::state_of(sfn, &doc.execution, run, of).await? {
                RunState::Running(rival) if round == 0 || rival < doc.run => {
                    secrets::disclaim(store, &secret.arn, version, doc.run).await?;
                    let text = format!("Run {rival} is at work on user {}.", doc.user_name());
                    let remedy = format!("`keywheel status --user {}` shows where it is.", doc.user_name());
                    doc.end(ctx.clock.now(), Outcome::Blocked, Why::new("RunInProgress", text, remedy));
                    return Ok(());
                }
                RunState::Ended(run) | RunState::EndedLeaked(run) => ended.push(run),
                _ => {}
            }
        }
        if round == 0 {
            secrets::claim(store, &secret, version, doc.run, &ended).await?;
        }
    }
    let now = ctx.clock.now();
    let old = doc.old_key()?.key.clone();
    if key::find(&doc.baseline()?.keys, &old).is_some_and(KeyFacts::is_active) {
        doc.begin_overlap(now);
    } else {
        doc.begin_grace(now);
    }
    Ok(())
}

/// Moves AWSCURRENT from `from` to `to`, and succeeds only where `to` is current afterwards.
pub async fn swap(
    store: &aws_sdk_secretsmanager::Client,
    secret: &keywheel::SecretArn,
    from: &VersionId,
    to: &VersionId,
) -> Result<(), StepError> {
    let moved = store
        .update_secret_version_stage()
        .secret_id(secret.as_str())
        .version_stage(CURRENT)
        .remove_from_version_id(from.as_str())
        .move_to_version_id(to.as_str())
        .send()
        .await;
    let Err(error) = moved else { return Ok(()) };
    let error = StepError::from_sdk("secretsmanager:UpdateSecretVersionStage", &error);
    match secrets::current(store, secret).await? {
        Some(now) if now == *to => Ok(()),
        Some(now) if now == *from => Err(error),
        other => {
            let other = other.map_or_else(|| "nothing".to_owned(), |version| version.to_string());
            Err(StepError::Conflict(format!(
                "AWSCURRENT names {other}, not {from}: the secret was changed meanwhile"
            )))
        }
    }
}

/// What follows once AWSCURRENT names the new key.
pub fn promoted(doc: &mut Rotation, now: jiff::Timestamp) {
    let old = doc.old.clone();
    let gone_or_off = |doc: &Rotation, id| {
        let keys = doc.baseline.as_ref().map(|baseline| baseline.keys.as_slice()).unwrap_or_default();
        !key::find(keys, id).is_some_and(key::KeyFacts::is_active)
    };
    match old {
        Some(old) if doc.request.reason == Reason::Leaked && gone_or_off(doc, &old.key) => {
            doc.promoted_at = Some(now);
            doc.announce(now, NoticeKind::Promoted);
            let why = Why::new(
                "Contained",
                format!("The leaked key {} is Inactive and kept as evidence.", old.key),
                "",
            );
            doc.end(now, Outcome::Contained, why);
        }
        Some(_) => {
            doc.begin_overlap(now);
            doc.announce(now, NoticeKind::Promoted);
        }
        None => {
            doc.promoted_at = Some(now);
            doc.announce(now, NoticeKind::Promoted);
            doc.end(now, Outcome::Completed, adopted(doc));
        }
    }
}

/// The reason of a run that had no key to retire, with what to do about a key that was left alone.
fn adopted(doc: &Rotation) -> Why {
    let user = doc.user_name();
    let keys = doc.baseline.as_ref().map(|baseline| baseline.keys.as_slice()).unwrap_or_default();
    let new = doc.new.as_ref().map(|new| &new.key);
    match keys.iter().find(|key| Some(&key.id) != new) {
        Some(stranger) => Why::new(
            "Adopted",
            format!(
                "The secret of {user} has its first key. Key {} was there before and was left alone.",
                stranger.id
            ),
            format!(
                "If it is no longer needed: `keywheel enroll --user {user} --secret {} --retire {}`.",
                doc.request.secret, stranger.id
            ),
        ),
        None => Why::new("Adopted", format!("The secret of {user} has its first key."), ""),
    }
}

//! The `PromoteKey` state: moves AWSCURRENT to the new version by compare-and-swap, or takes over where an
//! ended run has done so.
//!
//! `RemoveFromVersionId` names the baseline's version, so the move fails where anybody else has moved the label
//! meanwhile. On any error the labels are read again: ours is current means it was done and the reply got lost.

use std::time::Duration;

use aws_types::SdkConfig;
use facts::executions;
use facts::iam;
use facts::member::{self, Members};
use facts::secrets::{self, CURRENT, PENDING};
use keywheel::key::KeyFacts;
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Outcome, Phase, Reason, Why};
use keywheel::switch::Mode;
use keywheel::{Context, Rotation, RunId, Step, StepError, VersionId, aws, key};
use tracing::info;

/// How long a validation stands for the key it was made with. An undisturbed run promotes within it.
const FRESH: Duration = Duration::from_secs(15);

/// The step.
pub struct PromoteKey {
    config: SdkConfig,
    members: Option<Members>,
}

impl PromoteKey {
    /// A step that calls AWS with `config`, and enters other accounts where there are `members`.
    pub fn new(config: SdkConfig, members: Option<Members>) -> Self {
        Self { config, members }
    }
}

impl Step for PromoteKey {
    const NAME: &'static str = "promote-key";
    type Input = Rotation;
    type Output = Rotation;

    /// Run twice, the second move is refused by Secrets Manager, and the labels tell that it was done.
    async fn run(&self, mut doc: Rotation, ctx: &Context) -> Result<Rotation, StepError> {
        let config = aws::for_run(&self.config, doc.run);
        let there = member::of_rotation(self.members.as_ref(), &config, &doc).await?;
        let secret = doc.secret()?.clone();
        let new = doc
            .new_key()?
            .version
            .clone()
            .ok_or_else(|| StepError::BadInput("the new key is not stored".into()))?;
        let store = aws_sdk_secretsmanager::Client::new(&aws::in_region(&there, secret.region()));
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
            let sfn = aws_sdk_sfn::Client::new(&config);
            if claim(&store, &sfn, &mut doc, &new, &[&new], ctx).await? {
                take_over(&mut doc, ctx.clock.now())?;
            }
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
        let taken_over = new != doc.run.version();
        if taken_over {
            // An ended run had stored this key: its version does not lead to this run by itself.
            let sfn = aws_sdk_sfn::Client::new(&config);
            if !claim(&store, &sfn, &mut doc, &new, &[&expected, &new], ctx).await? {
                return Ok(doc);
            }
        }
        if taken_over || !is_fresh(&doc, ctx.clock.now()) {
            still_works(&aws_sdk_iam::Client::new(&there), &store, &doc, &new).await?;
        }
        swap(&store, &secret, &expected, &new).await?;
        info!(rotation.id = %doc.run, iam.user = doc.user_name(), "AWSCURRENT names version {new}");
        promoted(&mut doc, ctx.clock.now());
        Ok(doc)
    }
}

/// Whether the new key was validated a moment ago.
fn is_fresh(doc: &Rotation, now: jiff::Timestamp) -> bool {
    let validated = doc.notices.iter().find(|notice| notice.kind == NoticeKind::Validated);
    validated.is_some_and(|notice| {
        Duration::try_from(now.duration_since(notice.at)).is_ok_and(|since| since <= FRESH)
    })
}

/// Fails unless IAM lists the new key as Active: after a wait, or for a key of an ended run, somebody may have
/// taken it away since it was validated. A move that was made already is not judged here.
async fn still_works(
    iam: &aws_sdk_iam::Client,
    store: &aws_sdk_secretsmanager::Client,
    doc: &Rotation,
    version: &VersionId,
) -> Result<(), StepError> {
    let new = &doc.new_key()?.key;
    let keys = iam::keys(iam, &doc.baseline()?.user.name).await?;
    let error = match key::find(&keys, new) {
        Some(found) if found.is_active() => return Ok(()),
        Some(_) => StepError::Conflict(format!("the new key {new} was made Inactive before it was promoted")),
        // Deleted, or made too lately for this list to show it.
        None => StepError::NotYetVisible(format!("the new key {new} is not listed")),
    };
    let moved = secrets::current(store, doc.secret()?).await?.as_ref() == Some(version);
    if moved { Ok(()) } else { Err(error) }
}

/// Makes this run findable from the version it works on. False where the run has ended, because AWSCURRENT names
/// none of `expected` or another run is at work.
///
/// Of two runs that take over at once, both leave their label first and look then, so that at least one sees the
/// other and leaves. Where both do, the next run goes on; a rule of which one stays would let both stay, where
/// one of them looked before the other's label was there.
async fn claim(
    store: &aws_sdk_secretsmanager::Client,
    sfn: &aws_sdk_sfn::Client,
    doc: &mut Rotation,
    version: &VersionId,
    expected: &[&VersionId],
    ctx: &Context,
) -> Result<bool, StepError> {
    for round in 0..2 {
        let (mut ended, mut in_flight): (Vec<RunId>, Vec<RunId>) = (Vec::new(), Vec::new());
        let secret = secrets::describe(store, doc.secret()?.as_str()).await?;
        if !secret.labelled(CURRENT).is_some_and(|current| expected.contains(&&current)) {
            if doc.phase != Phase::TakeOver {
                // The pending key is for RollBack to take back.
                return Err(StepError::Conflict("the secret was changed meanwhile".into()));
            }
            executions::leave((sfn, &doc.execution), store, &secret, version, doc.run).await?;
            let text = "AWSCURRENT was moved since the run began; this run has changed nothing.";
            doc.end(
                ctx.clock.now(),
                Outcome::Blocked,
                Why::new("Conflict", text, "Start again; the run looks anew."),
            );
            return Ok(false);
        }
        let is_at = |label| secret.labelled(label).as_ref() == Some(version);
        if doc.phase != Phase::TakeOver && !is_at(CURRENT) && !is_at(PENDING) {
            // Another run that took it over has undone it and is gone, its label with it: what it did last before it
            // took that off was to take AWSPENDING away. IAM may list the key for seconds more.
            return Err(StepError::Conflict(format!(
                "another run has taken version {version} back: it is not pending any more"
            )));
        }
        // A retry that finds AWSCURRENT moved has looked before, and whoever came since gives way.
        let moved =
            doc.phase != Phase::TakeOver && is_at(CURRENT) && secret.carries(version, &doc.run.label());
        let of = (&secret.arn, secret.name.as_str());
        for (on, run) in secret.claims().into_iter().filter(|(_, run)| *run != doc.run) {
            let known = executions::known(sfn, &doc.execution, run, of).await?;
            let state = known.state;
            if let Some(rival) = state.running().filter(|_| !moved) {
                executions::leave((sfn, &doc.execution), store, &secret, version, doc.run).await?;
                let text = format!("Run {rival} is at work on user {}.", doc.user_name());
                let remedy = format!("`keywheel status --user {}` shows where it is.", doc.user_name());
                doc.end(ctx.clock.now(), Outcome::Blocked, Why::new("RunInProgress", text, remedy));
                return Ok(false);
            }
            // That the key before this version leaked is known from these labels only.
            if state.ended().is_some() && !(state.leaked() && on == *version) {
                ended.push(run);
            }
            // It may yet move AWSCURRENT to the version that its label, and nothing else, leads from.
            if on != *version && known.may_be_in_flight(ctx.clock.now()) {
                in_flight.push(run);
            }
        }
        ended.retain(|run| !in_flight.contains(run));
        if round == 0 {
            secrets::claim(store, &secret, version, doc.run, &ended).await?;
        } else {
            secrets::let_go(store, &secret, &ended, None).await?;
        }
    }
    Ok(true)
}

/// Begins where the ended run stopped. When its clock started is not known here, so it starts anew.
fn take_over(doc: &mut Rotation, now: jiff::Timestamp) -> Result<(), StepError> {
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

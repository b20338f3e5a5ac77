//! The `DeactivateKey` state: the gate. Makes the old key Inactive once it is quiet, and reads it back.
//!
//! What the gate asks is decided in `keywheel::decide::gate`; anything that could not be read keeps it shut, and so does
//! a freeze of the fleet's policy.

use aws_sdk_iam::types::StatusType;
use aws_types::SdkConfig;
use facts::member::{self, Members};
use facts::{iam, replicas, secrets, trail};
use jiff::Timestamp;
use keywheel::clock::{after, wait_time};
use keywheel::decide::gate::{self, Gate};
use keywheel::fleet::freeze::Freezes;
use keywheel::key::{self, KeyFacts, LastUse};
use keywheel::notice::NoticeKind;
use keywheel::replica::Reached;
use keywheel::rotation::{Caller, GateReport, Outcome, Phase, Reason, Why};
use keywheel::{AccessKeyId, Context, Rotation, Step, StepError, UserName, aws, replica};
use tracing::{error, info, warn};

/// The step.
pub struct DeactivateKey {
    config: SdkConfig,
    members: Option<Members>,
}

impl DeactivateKey {
    /// A step that calls AWS with `config`, and enters other accounts where there are `members`.
    pub fn new(config: SdkConfig, members: Option<Members>) -> Self {
        Self { config, members }
    }
}

impl Step for DeactivateKey {
    const NAME: &'static str = "deactivate-key";
    type Input = Rotation;
    type Output = Rotation;

    /// Run twice, it finds the key Inactive and goes on. Killed half way, it leaves the key Active or Inactive,
    /// both of which the next attempt understands.
    async fn run(&self, mut doc: Rotation, ctx: &Context) -> Result<Rotation, StepError> {
        let config = aws::for_run(&self.config, doc.run);
        let config = member::of_rotation(self.members.as_ref(), &config, &doc).await?;
        let client = aws_sdk_iam::Client::new(&config);
        let secret = doc.secret()?.clone();
        let user = doc.baseline()?.user.name.clone();
        let (new, old) = (doc.new_key()?.clone(), doc.old_key()?.clone());
        let promoted_at =
            doc.promoted_at.ok_or_else(|| StepError::BadInput("the document has no promoted_at".into()))?;
        let store = aws_sdk_secretsmanager::Client::new(&aws::in_region(&config, secret.region()));

        let ssm = aws_sdk_ssm::Client::new(&aws::for_run(&self.config, doc.run));
        let (mode, freezes) = facts::switch::mode_and_freezes(&ssm, &ctx.stage).await?;
        let (current, replication) = secrets::current_and_replication(&store, &secret).await?;
        let keys = iam::keys(&client, &user).await?;
        let in_flight = doc.request.roll_back && ctx.clock.now() < after(promoted_at, gate::IN_FLIGHT);
        let look_back = wait_time(after(ctx.clock.now(), gate::LOOK_BACK));
        if in_flight
            && current == new.version
            && key::find(&keys, &new.key).is_some_and(|key| !KeyFacts::is_active(key))
        {
            // A step of the run that this one stopped was still at work, and took the key that was brought back for
            // the superseded one. Later than that, whoever made it Inactive meant it.
            warn!(rotation.id = %doc.run, iam.user = %user, key.id = %new.key, "Key {} is made Active again", new.key);
            client
                .update_access_key()
                .user_name(user.as_str())
                .access_key_id(new.key.as_str())
                .status(StatusType::Active)
                .send()
                .await
                .map_err(|error| StepError::from_sdk("iam:UpdateAccessKey", &error))?;
            doc.wait_until = Some(look_back);
            return Ok(doc);
        }
        let now = ctx.clock.now();
        let frozen = freezes.holding(now);
        if let Freezes::Unknown(why) = &freezes {
            error!(rotation.id = %doc.run, iam.user = %user, "No key that has not leaked is made Inactive: {why}");
        }
        let leaked = doc.request.reason == Reason::Leaked;
        let (rivals, last_use, replicas) = (None, None, Vec::new());
        let mut facts = gate::Facts { now, mode, frozen, current, keys, rivals, replicas, last_use };
        // The reads of the gate proper are of use only while there is something to decide.
        if facts.current == new.version && key::find(&facts.keys, &old.key).is_some_and(KeyFacts::is_active) {
            facts.rivals = known(secrets::rivals(&store, &user, &secret).await)?;
            facts.last_use = known(iam::last_use(&client, &old.key).await)?;
            if !leaked {
                facts.replicas = replicas::read(&config, &secret, replication).await;
                doc.reached = Reached::seen(doc.reached, &facts.replicas, new.version.as_ref(), now);
            }
        }
        let reached = doc.reached.and_then(Reached::by);
        let run = gate::Run { new: &new, old: &old, promoted_at, reached, policy: &doc.policy, leaked };
        let (decision, begun) = (gate::decide(&facts, &run), run.begun());
        match decision {
            Gate::Open => {
                report(&mut doc, now, facts.last_use, None, Vec::new());
                iam::deactivate(&client, &user, &old.key, &ctx.clock).await?;
                info!(rotation.id = %doc.run, iam.user = %user, key.id = %old.key, "Deactivated key {} of {user}", old.key);
                inactive(&mut doc, &old.key, ctx.clock.now());
            }
            Gate::AlreadyInactive => inactive(&mut doc, &old.key, now),
            Gate::Gone => {
                let text = format!("The old key {} of {user} is gone already.", old.key);
                doc.old_key_gone(now, "OldKeyGone", text);
            }
            Gate::StandDown => {
                // An attempt whose last answers were lost may have switched it off before somebody moved AWSCURRENT.
                if key::find(&facts.keys, &old.key).is_some_and(|key| !key.is_active()) {
                    doc.announce(now, NoticeKind::Deactivated);
                }
                doc.stand_down(now, facts.current.as_ref());
            }
            Gate::Wait(until, shut) => {
                let late = used_late(&doc, begun, facts.last_use.as_ref());
                let callers = if late { callers(&config, &doc, &old.key, begun).await } else { Vec::new() };
                info!(rotation.id = %doc.run, iam.user = %user, key.id = %old.key, "Key {} stays Active until {until}: {shut}", old.key);
                report(&mut doc, now, facts.last_use, Some(shut), callers);
                doc.phase = Phase::Overlap;
                doc.wait_until = Some(wait_time(until));
                if in_flight {
                    doc.wait_until = doc.wait_until.map(|until| until.min(look_back));
                }
                if late {
                    doc.announce(now, NoticeKind::StillInUse);
                }
            }
            Gate::Held(shut) => {
                let callers = callers(&config, &doc, &old.key, begun).await;
                let behind = replica::behind(&facts.replicas, new.version.as_ref());
                let why = if behind.as_ref() == Some(&shut) {
                    replica_behind(&user, &old.key, &shut)
                } else {
                    held(&user, &old.key, &shut, &callers)
                };
                report(&mut doc, now, facts.last_use, Some(shut), callers);
                doc.end(now, Outcome::Held, why);
            }
        }
        Ok(doc)
    }
}

/// A read that AWS refuses is unknown; one that may succeed later is an error, and the machine asks again.
fn known<T>(read: Result<T, StepError>) -> Result<Option<T>, StepError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error @ (StepError::Refused(_) | StepError::Conflict(_))) => {
            warn!("The gate stays shut: {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn used_late(doc: &Rotation, promoted_at: Timestamp, last_use: Option<&LastUse>) -> bool {
    last_use.and_then(|last| last.at).is_some_and(|at| at > after(promoted_at, doc.policy.settling()))
}

fn report(
    doc: &mut Rotation,
    at: Timestamp,
    last_use: Option<LastUse>,
    shut: Option<String>,
    callers: Vec<Caller>,
) {
    let last_use = last_use.unwrap_or(LastUse { at: None, service: None, region: None });
    doc.gate = Some(GateReport { at, last_use, shut, callers });
}

fn inactive(doc: &mut Rotation, old: &AccessKeyId, now: Timestamp) {
    if doc.request.reason == Reason::Leaked {
        let why =
            Why::new("Contained", format!("The leaked key {old} is Inactive and kept as evidence."), "");
        doc.end(now, Outcome::Contained, why);
        return;
    }
    doc.begin_grace(now);
    doc.announce(now, NoticeKind::Deactivated);
}

/// Who still uses the key, for people. CloudTrail may not know, or not be readable: no reason to fail.
async fn callers(
    config: &SdkConfig,
    doc: &Rotation,
    key: &AccessKeyId,
    promoted_at: Timestamp,
) -> Vec<Caller> {
    let client = aws_sdk_cloudtrail::Client::new(config);
    let since = after(promoted_at, doc.policy.settling());
    trail::callers(&client, key, since).await.unwrap_or_else(|error| {
        warn!("Who uses key {key} could not be read: {error}");
        Vec::new()
    })
}

fn held(user: &UserName, old: &AccessKeyId, shut: &str, callers: &[Caller]) -> Why {
    let seen: Vec<String> = callers
        .iter()
        .take(3)
        .map(|caller| {
            format!("{} ({}) for {} in {}", caller.address, caller.agent, caller.service, caller.region)
        })
        .collect();
    let seen = if seen.is_empty() { String::new() } else { format!(" Seen: {}.", seen.join("; ")) };
    Why::new(
        "StillInUse",
        format!("The old key {old} of {user} is left Active: {shut}.{seen}"),
        format!(
            "Change these callers over, then `keywheel resume --user {user} --wait 24h` (or --deactivate-anyway, --keep-old); `keywheel rollback --user {user}` goes back."
        ),
    )
}

/// Why a run ends Held that a replica has kept waiting. Nobody's call is meant, so no word of an owner helps.
fn replica_behind(user: &UserName, old: &AccessKeyId, behind: &str) -> Why {
    Why::new(
        "ReplicaBehind",
        format!(
            "The old key {old} of {user} is left Active: {behind}. Whoever reads the secret there needs it."
        ),
        format!(
            "Mend the replication to that region, or remove the replica from there when nobody reads it, then `keywheel resume --user {user}`; `keywheel rollback --user {user}` goes back."
        ),
    )
}

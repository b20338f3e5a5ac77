//! Keys that nobody uses: which of them the policy lets go, and a run of its own for each.
//!
//! The credential report names the users, and what a run would find is asked for before it is started: three calls for a
//! user whose tag does not let its keys go, some ten for another. Nothing of it can fail a campaign, nor take the time that
//! its rotations need: where there are too many, each campaign begins with another one of them.
//!
//! A run is named after the key and the day, so that one that is started twice runs once. None is started while another
//! has the key in its grace: the key is then Inactive, or was made Active again and counts from that day.
//!
//! Runs are for keys of the installation's own account alone. What nobody uses in another one is said.

use std::time::Duration;

use aws_sdk_iam::Client;
use aws_types::SdkConfig;
use facts::iam;
use facts::unused::{Asked, look};
use jiff::Timestamp;
use keywheel::campaign::Campaign;
use keywheel::decide::due::{self, Quiet};
use keywheel::decide::unused::{Disable, Run, disable};
use keywheel::fleet::FleetPolicy;
use keywheel::fleet::estate::{Estate, Used};
use keywheel::fleet::plan::Line;
use keywheel::key::KeyFacts;
use keywheel::rotation::Reason;
use keywheel::unused::{REMOVE, Removed, TAG};
use keywheel::{Context, StepError, UserName};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

/// How long users are asked for: the step has 15 minutes, and most of them are for what is due.
const LOOKING: Duration = Duration::from_mins(2);

/// What is found of one user.
type Found = Vec<(KeyFacts, Result<Removed, Line>)>;

/// Why nothing is: a code and a sentence.
type Unfound = (&'static str, String);

/// The keys for which a run is to be started; the first account is the installation's own. What there is to say goes into
/// `lines`.
pub(crate) async fn find(
    config: &SdkConfig,
    doc: &Campaign,
    (policy, estates): (&FleetPolicy, &[&Estate]),
    lines: &mut Vec<Line>,
    ctx: &Context,
) -> Vec<Removed> {
    let (mut removed, mut before) = (Vec::new(), 0);
    let Some((estate, others)) = estates.split_first() else { return removed };
    let allowed = usize::try_from(policy.limits.keys_per_run).unwrap_or(usize::MAX);
    // What a person asks for by hand starts none; nor does one in a freeze of its policy, whatever the parameter says.
    let frozen = policy.limits.frozen(ctx.clock.now()).is_some();
    let starts = doc.request.reason == Reason::Scheduled && !doc.request.dry_run && !frozen;
    let mut all = due::quiet(policy, estate, ctx.clock.now());
    // Else those at the end would never have their turn.
    let first = all.len() * usize::from(doc.campaign.spread(u8::MAX)) / usize::from(u8::MAX);
    all.rotate_left(first);
    let end = Instant::now() + LOOKING;
    for quiet in all {
        let found = match in_time(end, config, doc, &quiet, (estate, ctx)).await {
            Ok(found) => found,
            Err((code, why)) => {
                lines.push(quiet.line(None, code, why));
                continue;
            }
        };
        for (key, found) in found {
            match found {
                Err(line) => lines.push(line),
                Ok(one) if before < allowed => {
                    let what = if starts { "a run of its own makes" } else { "the scheduled campaign makes" };
                    let why = format!("Nobody uses key {}: {what} it {}.", key.id, quiet.unused);
                    lines.push(quiet.line(Some(&key), "UnusedDue", why));
                    before += 1;
                    removed.extend(starts.then_some(one));
                }
                Ok(_) => {
                    let why = format!(
                        "Nobody uses key {}. A campaign takes up {allowed}; this one is for the next.",
                        key.id
                    );
                    lines.push(quiet.line(Some(&key), "UnusedLimit", why));
                }
            }
        }
    }
    for quiet in others.iter().flat_map(|other| due::quiet(policy, other, ctx.clock.now())) {
        let why = format!(
            "Nobody uses an Active key of it. By the policy it is made {}, which campaigns do in the installation's own account alone.",
            quiet.unused
        );
        lines.push(quiet.line(None, "UnusedElsewhere", why));
    }
    removed
}

/// The same as [`of_user`], unless there is no time left.
async fn in_time(
    end: Instant,
    config: &SdkConfig,
    doc: &Campaign,
    quiet: &Quiet,
    (estate, ctx): (&Estate, &Context),
) -> Result<Found, Unfound> {
    // On the heap: as one future, all that it reads is deeper than the compiler follows.
    if Instant::now() < end
        && let Ok(found) = timeout_at(end, Box::pin(of_user(config, doc, quiet, estate, ctx))).await
    {
        return found;
    }
    let why = "Nobody uses an Active key of it. A campaign has no more time for such users; this one is for a later one.";
    Err(("UnusedLimit", why.to_owned()))
}

/// What a run would find of each of a user's keys that nobody uses.
async fn of_user(
    config: &SdkConfig,
    doc: &Campaign,
    quiet: &Quiet,
    estate: &Estate,
    ctx: &Context,
) -> Result<Found, Unfound> {
    let said =
        |error: StepError| ("UnusedUnread", format!("Whether its keys may go could not be read: {error}."));
    let client = Client::new(config);
    let name: UserName = quiet.user.parse().map_err(|error| ("UnusedUnread", format!("{error}.")))?;
    let Some(user) = iam::user(&client, &name).await.map_err(said)? else { return Ok(Found::new()) };
    let keys = iam::keys(&client, &name).await.map_err(said)?;
    if !quiet.is_of(&keys) {
        let why = "A key of it was made Active again, or deleted, since IAM made its report: the next campaign looks at its keys.";
        return Err(("UnusedLeft", why.to_owned()));
    }
    let mut found = Found::new();
    for key in keys {
        let last_use = if key.is_active() {
            iam::used(&client, &name, &key.id).await.map_err(said)?
        } else {
            Used::Unknown
        };
        if !quiet.means(&key, last_use) {
            continue;
        }
        if !user.unused {
            let why = format!(
                "Nobody uses key {}. By the policy it is made {}, where the user carries the tag {TAG} = {REMOVE}: `aws iam tag-user --user-name {name} --tags Key={TAG},Value={REMOVE}` allows it.",
                key.id, quiet.unused
            );
            let line = quiet.line(Some(&key), "UnusedNotAllowed", why);
            found.push((key, Err(line)));
            continue;
        }
        let asked = Asked { user: &name, key: &key.id, regions: &estate.regions };
        let (facts, _) = Box::pin(look(config, &ctx.stage, asked, &ctx.clock)).await.map_err(said)?;
        let run = Run { key: &key.id, user_id: &user.facts.id, unused: quiet.unused };
        let one = match disable(&facts, &run) {
            Disable::Yes(_) => Ok(Removed {
                account: estate.account.clone(),
                user: name.clone(),
                user_id: user.facts.id.clone(),
                key: key.id.clone(),
                unused: quiet.unused,
                regions: estate.regions.clone(),
                rule: quiet.rule.clone(),
                owner: quiet.owner.clone(),
                campaign: doc.campaign,
            }),
            Disable::Inactive => continue,
            Disable::Leave(stay) => {
                let why = format!("Nobody uses key {}, and it is left as it is: {}.", key.id, stay.text);
                Err(quiet.line(Some(&key), "UnusedLeft", why))
            }
        };
        found.push((key, one));
    }
    Ok(found)
}

/// Starts a run for each; how many were. One that could not be started is taken up by the next campaign.
pub(crate) async fn start(config: &SdkConfig, machine: &str, removed: &[Removed], now: Timestamp) -> usize {
    let sfn = aws_sdk_sfn::Client::new(config);
    let mut started = 0;
    for one in removed {
        let (run, key) = (one.run(now), &one.key);
        let Ok(input) = serde_json::to_string(one) else { continue };
        let call = sfn.start_execution().state_machine_arn(machine).name(run.to_string()).input(input);
        match call.send().await.map_err(|error| StepError::from_sdk("states:StartExecution", &error)) {
            Ok(_) => {
                info!(rotation.id = %run, key.id = %key, "Started the removal of key {key} of {}", one.user);
                started += 1;
            }
            // Earlier today: by this campaign, whose answer was lost, or by one before it.
            Err(error) if error.is_refused(&["ExecutionAlreadyExists"]) => {}
            Err(error) => warn!(key.id = %key, "The removal of key {key} was not started: {error}"),
        }
    }
    started
}

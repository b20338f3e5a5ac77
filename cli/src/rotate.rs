//! `keywheel rotate`: starts one run for each user, and follows them where that is asked for.

use keywheel::fleet::FleetPolicy;
use keywheel::policy::{Policy, PolicyOverride};
use keywheel::rotation::Request;

use crate::args::Rotate;
use crate::error::{Exit, Result, Trouble};
use crate::fleet;
use crate::follow::{self, Followed};
use crate::managed::{self, Managed};
use crate::output::Out;
use crate::place::Place;
use crate::run;
use crate::switches::Switches;

/// Runs the command. A name that leads nowhere is reported, and stops no other.
pub(crate) async fn run(place: &Place, out: &Out, args: &Rotate) -> Result<Exit> {
    out.note(&place.line());
    let given = args.durations.checked()?;
    let fleet = args.policy.as_deref().map(fleet::file).transpose()?;
    caution(place, out, args.dry_run).await;
    let mut worst = Exit::Done;
    let mut started: Vec<Followed> = Vec::new();
    let users = args.user.iter().map(|typed| (typed, true));
    for (typed, is_user) in users.chain(args.secret.iter().map(|typed| (typed, false))) {
        let found = if is_user {
            managed::by_user(place, typed).await
        } else {
            managed::by_secret(place, typed).await
        };
        let run = match found {
            Ok(managed) if started.iter().any(|other| other.user == managed.name()) => {
                out.note(&format!(
                    "{typed}: its user {} was named before; one run is enough.",
                    managed.name()
                ));
                continue;
            }
            Ok(managed) => match wish(place, &managed, fleet.as_ref(), &given).await {
                Ok(policy) => start(place, &managed, args, policy).await,
                Err(trouble) => Err(trouble),
            },
            Err(trouble) => Err(trouble),
        };
        match run {
            Ok(followed) => started.push(followed),
            Err(trouble) => {
                out.trouble(Some(typed), &trouble);
                worst = worst.max(Exit::Refused);
            }
        }
    }
    // A dry run is asked for its answer.
    if args.wait || args.dry_run {
        worst = worst.max(follow::follow(place, out, started).await?);
    } else {
        follow::started(out, &started);
    }
    Ok(worst)
}

/// What the fleet's policy says about this user's run, and over it what the command line says.
async fn wish(
    place: &Place,
    managed: &Managed,
    fleet: Option<&FleetPolicy>,
    given: &PolicyOverride,
) -> Result<PolicyOverride> {
    let Some(fleet) = fleet else { return Ok(given.clone()) };
    let ruled = fleet::wish(place, managed, fleet).await?;
    let wish = PolicyOverride {
        overlap: given.overlap.or(ruled.overlap),
        max_overlap: given.max_overlap.or(ruled.max_overlap),
        quiet_window: given.quiet_window.or(ruled.quiet_window),
        grace: given.grace.or(ruled.grace),
        cache: given.cache.or(ruled.cache),
        when_still_in_use: given.when_still_in_use.or(ruled.when_still_in_use),
    };
    match Policy::default().with(&wish) {
        Ok(_) => Ok(wish),
        Err(why) => Err(Trouble::new(format!("{why}."), "Give both durations, or neither.")),
    }
}

async fn start(place: &Place, managed: &Managed, args: &Rotate, policy: PolicyOverride) -> Result<Followed> {
    let request = Request {
        secret: managed.secret.arn.as_str().to_owned(),
        reason: args.reason.into(),
        policy,
        dry_run: args.dry_run,
        roll_back: false,
        on_promoted: None,
    };
    run::start(place, &request).await.map(|run| Followed::new(managed, run))
}

/// Says beforehand what the installation's mode will make of a run. A mode that cannot be read is no reason to
/// start nothing: every step of the run reads it anew.
pub(crate) async fn caution(place: &Place, out: &Out, dry_run: bool) {
    match Switches::read(place).await {
        Ok(switches) if !dry_run => switches.caution().into_iter().for_each(|text| out.note(&text)),
        Ok(_) => {}
        Err(trouble) => out.note(&format!("The mode could not be read here: {trouble}")),
    }
}

//! `keywheel rotate`: starts one run for each user, and follows them where that is asked for.

use keywheel::policy::PolicyOverride;
use keywheel::rotation::Request;

use crate::args::Rotate;
use crate::error::{Exit, Result};
use crate::follow::{self, Followed};
use crate::managed::{self, Managed};
use crate::output::Out;
use crate::place::Place;
use crate::run;
use crate::switches::Switches;

/// Runs the command. A name that leads nowhere is reported, and stops no other.
pub(crate) async fn run(place: &Place, out: &Out, args: &Rotate) -> Result<Exit> {
    out.note(&place.line());
    let policy = args.durations.checked()?;
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
            Ok(managed) => start(place, &managed, args, &policy).await,
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

async fn start(place: &Place, managed: &Managed, args: &Rotate, policy: &PolicyOverride) -> Result<Followed> {
    let request = Request {
        secret: managed.secret.arn.as_str().to_owned(),
        reason: args.reason.into(),
        policy: policy.clone(),
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

//! `keywheel incident`: the keys that have leaked, what was done about them, and the two words of a person that
//! end it.

mod alarm;
mod answer;
mod close;
mod list;
pub(crate) mod read;
mod show;
mod undo;

#[cfg(test)]
pub(crate) mod samples;

pub(crate) use show::took;

use crate::args::IncidentArgs;
use crate::error::{Exit, Result, Trouble};
use crate::output::Out;
use crate::place::Place;

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &IncidentArgs) -> Result<Exit> {
    let Some(id) = &args.id else { return list::run(place, out).await };
    let typed = read::typed(id)?;
    // What a person asks for is checked before anything is read.
    let clearance = match (args.false_alarm, &args.reason) {
        (true, Some(reason)) => Some(alarm::Clearance::checked(reason, args.lasting)?),
        _ => None,
    };
    out.note(&place.line());
    let subject = read::subject(place, &typed).await?;
    for name in &subject.odd {
        out.note(&format!("The record {name} cannot be understood: it counts as none."));
    }
    // A key that was never contained can be cleared all the same.
    let of_key = matches!(typed, read::Typed::Key(_));
    if subject.is_unknown() && !(of_key && clearance.is_some()) {
        return Err(unknown(place, &typed));
    }
    let entered = enter(place, &subject, args).await?;
    let place = &entered;
    match clearance {
        Some(clearance) => alarm::run(place, out, &subject, &clearance).await,
        None if args.close => close::run(place, out, &subject, args.yes).await,
        None => {
            let exit = show::run(place, out, &subject).await?;
            if let Some(file) = &args.html {
                show::write_page(out, &subject, file)?;
            }
            Ok(exit)
        }
    }
}

/// The place whose IAM is that of the credential's account.
async fn enter(place: &Place, subject: &read::Subject, args: &IncidentArgs) -> Result<Place> {
    match (subject.account(), &args.role) {
        (None, None) => Ok(place.clone()),
        (None, Some(_)) => Err(Trouble::new(
            "No other account is known of this incident, so no role is needed to enter one.",
            "Nothing was changed. Leave --role away.",
        )),
        (Some(account), Some(role)) => place.enter(account, role).await,
        // What is only looked at says "unknown" instead.
        (Some(_), None) if !args.false_alarm && !args.close => Ok(place.without_iam()),
        (Some(account), None) => Err(Trouble::new(
            format!("The key belongs to account {account}, which these credentials do not reach."),
            format!(
                "Nothing was changed. Give --role arn:{}:iam::{account}:role/NAME, a role there that you may assume.",
                place.partition
            ),
        )),
    }
}

fn unknown(place: &Place, typed: &read::Typed) -> Trouble {
    match typed {
        read::Typed::Incident(id) => Trouble::new(
            format!("There is no incident {id} in {} of account {}.", place.region, place.account),
            "`keywheel incident` lists them; one that contained nothing is forgotten after 90 days.",
        ),
        read::Typed::Key(key) => Trouble::new(
            format!("No incident of key {key} is known in {} of account {}.", place.region, place.account),
            format!("If it has leaked: `keywheel revoke {key}`."),
        ),
    }
}

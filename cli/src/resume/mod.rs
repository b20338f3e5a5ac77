//! `keywheel resume`: a person decides about the old key of a run that was held or broke off.

mod choice;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use aws_sdk_sfn::types::ExecutionStatus;
use facts::iam::{TAG_KEEP, TAG_RETIRE};
use jiff::Timestamp;
use keywheel::clock::after;
use keywheel::decide::gate;
use keywheel::policy::{Policy, Span};
use keywheel::rotation::Caller;
use serde_json::json;

use crate::args::Resume;
use crate::error::{Exit, Result, Trouble};
use crate::follow::{self, Followed};
use crate::keys;
use crate::managed::{self, Managed};
use crate::output::{Out, table};
use crate::place::Place;
use crate::{enroll, find, rotate, run, story, time};
use choice::{Decision, Stopped};

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &Resume) -> Result<Exit> {
    out.note(&place.line());
    let decision = match args.wait {
        Some(longest) => Decision::Wait(longest),
        None if args.keep_old => Decision::KeepOld,
        None => Decision::DeactivateAnyway,
    };
    let managed = managed::by_user(place, &args.user).await?;
    let user = managed.name();
    let found = find::of(place, &managed.secret).await?;
    let stopped = choice::stopped(found.run.as_ref(), user)?;
    let (keys, remarks) = keys::all(place, &managed).await?;
    out.notes(&remarks);
    choice::still_open(&stopped, &keys, managed.user.keep.as_ref(), decision, user)?;
    let story = story::tell(stopped.run, user);
    out.note(&format!("Run {} of {user}: {}. {}", stopped.run.id, stopped.run.word(), story.what));
    if stopped.run.status == ExecutionStatus::Running {
        out.note("Its last notice is still being sent: until that has ended, a new run may be Blocked.");
    }
    let callers = late_callers(place, out, &stopped).await;
    match choice::policy(stopped.document, decision) {
        None => keep(place, out, &managed, &stopped, &callers).await,
        Some(policy) => {
            let bounded = stopped.document.policy.with(&policy).unwrap_or_default();
            explain(out, &stopped, decision, &bounded);
            rotate::caution(place, out, false).await;
            if decision == Decision::DeactivateAnyway {
                out.confirm("Make it Inactive?", args.yes)?;
            }
            let request = choice::request(managed.secret.arn.as_str(), policy);
            let followed = vec![Followed::new(&managed, run::start(place, &request).await?)];
            if args.follow {
                return follow::follow(place, out, followed).await;
            }
            follow::started(out, &followed);
            Ok(Exit::Done)
        }
    }
}

fn explain(out: &Out, stopped: &Stopped<'_>, decision: Decision, policy: &Policy) {
    let now = Timestamp::now();
    let (earliest, last) = gate::window(now, policy);
    let old = stopped.old;
    out.note(&match decision {
        Decision::Wait(longest) => format!(
            "The clock of the overlap starts anew. The gate is looked at from {} on{}; if {old} is still used then, the run is held again.",
            time::at(earliest),
            if last > earliest { format!(", until {}", time::at(last)) } else { too_short(longest) },
        ),
        _ => format!(
            "Key {old} is made Inactive within minutes, whoever still uses it: those callers fail from then on. \
             It can be brought back with `keywheel rollback` until it is deleted, {} later.",
            time::short(policy.grace.get())
        ),
    });
}

fn too_short(longest: Span) -> String {
    format!(" and not sooner, for {longest} is too short to tell whether it is quiet")
}

async fn keep(
    place: &Place,
    out: &Out,
    managed: &Managed,
    stopped: &Stopped<'_>,
    callers: &[Caller],
) -> Result<Exit> {
    let (user, old) = (managed.name(), stopped.old);
    let kept = managed.user.keep.as_ref() == Some(old);
    if !kept {
        enroll::set_user_tags(place, user, &[(TAG_KEEP, old.to_string())]).await?;
    }
    if managed.user.retire.as_ref() == Some(old) {
        enroll::take_off_user(place, user, TAG_RETIRE).await?;
    }
    out.line(&format!(
        "Key {old} of {user} is {} as one to be kept. No run was started.",
        if kept { "marked already" } else { "now marked" }
    ));
    out.line(&format!("While it stays, there is no room for a new key: rotations of {user} end Blocked."));
    out.line(&format!(
        "To let go of it: `keywheel enroll --user {user} --secret {} --retire {old}`.",
        managed.secret.name
    ));
    out.json(&json!({ "user": user, "kept": old, "changed": !kept, "callers": callers }));
    Ok(Exit::Done)
}

/// Who still calls with the old key: what the gate saw, and what CloudTrail knows now.
async fn late_callers(place: &Place, out: &Out, stopped: &Stopped<'_>) -> Vec<Caller> {
    let gate = stopped.document.gate.as_ref();
    let seen = gate.map_or(&[][..], |gate| &gate.callers);
    let mut regions: BTreeSet<&str> = seen.iter().map(|caller| caller.region.as_str()).collect();
    regions.extend(gate.and_then(|gate| gate.last_use.region.as_deref()));
    regions.insert(&place.region);
    regions.extend(facts::trail::iam_region(&place.partition));
    // A record can name a region that is none, such as "unknown".
    regions.retain(|region| crate::names::region(region).is_ok());
    let mut callers: Vec<Caller> = Vec::new();
    for region in &regions {
        match facts::trail::callers(&place.trail(region), stopped.old, since(stopped)).await {
            Ok(found) => callers.extend(found),
            Err(error) => {
                out.note(&format!("CloudTrail of {region} could not be read: {}", Trouble::from(error)));
            }
        }
    }
    for caller in seen {
        let same = |known: &Caller| {
            (&known.address, &known.agent, &known.service)
                == (&caller.address, &caller.agent, &caller.service)
        };
        if !callers.iter().any(same) {
            callers.push(caller.clone());
        }
    }
    callers.sort_by_key(|caller| Reverse(caller.last));
    if callers.is_empty() {
        let regions: Vec<&str> = regions.into_iter().collect();
        out.note(&format!(
            "CloudTrail of {} names no late caller of {}; data events are not in it.",
            regions.join(" and "),
            stopped.old
        ));
    } else {
        out.note(&format!(
            "Callers of the old key {} after its users should have changed over:",
            stopped.old
        ));
        out.notes(&table(&story::callers(&callers)));
    }
    callers
}

/// From when on a use of the old key is a late one; CloudTrail's look-up reaches back 90 days.
fn since(stopped: &Stopped<'_>) -> Timestamp {
    let promoted = stopped.document.promoted_at.unwrap_or(stopped.run.started);
    let settled = after(promoted, stopped.document.policy.settling());
    let reach = Timestamp::from_second(Timestamp::now().as_second() - 89 * 86_400).unwrap_or(settled);
    settled.max(reach)
}

//! `keywheel fleet run`: starts a campaign and follows it to its end.

use jiff::Timestamp;
use keywheel::RunId;
use keywheel::campaign::Request;
use keywheel::rotation::Reason;
use keywheel::switch::Mode;
use serde_json::json;

use super::read::{self, Seen};
use super::told;
use crate::args::FleetRun;
use crate::error::{Exit, Result, Trouble};
use crate::follow::{PATIENCE, UNSEEN, pause};
use crate::output::{Out, Screen};
use crate::place::Place;
use crate::switches::Switches;
use crate::{names, run, time};

/// Runs the command.
pub(super) async fn run(place: &Place, out: &Out, args: &FleetRun) -> Result<Exit> {
    let request = request(args)?;
    // A mode that cannot be read is no reason to start nothing: the machine reads it anew.
    match Switches::read(place).await {
        Ok(switches) if !request.dry_run => out.notes(&caution(&switches).into_iter().collect::<Vec<_>>()),
        Ok(_) => {}
        Err(trouble) => out.note(&format!("The mode could not be read here: {trouble}")),
    }
    let input = serde_json::to_string(&request)
        .map_err(|error| Trouble::new(format!("The request could not be written: {error}."), ""))?;
    let id = RunId::random();
    run::begin(place, &place.fleet, id, input, "keywheel fleet status").await?;
    if args.detach {
        out.line(&format!("Started campaign {id}."));
        out.line(&format!("  `keywheel fleet status {id}` shows it."));
        out.json(&json!({ "started": id }));
        return Ok(Exit::Done);
    }
    out.note(&format!("Campaign {id} was started. Ctrl-C ends this display, not the campaign."));
    let seen = follow(place, out, &id.to_string()).await?;
    report(out, &seen);
    Ok(seen.exit())
}

/// What the machine is asked for.
fn request(args: &FleetRun) -> Result<Request> {
    let secrets = args.secret.iter().map(|typed| names::secret(typed).map(|secret| secret.id));
    let secrets = secrets.collect::<Result<Vec<String>>>()?;
    let policy_version = args.policy_version.as_deref().map(str::trim).map(str::to_owned);
    if policy_version.as_deref() == Some("") {
        return Err(Trouble::new(
            "The policy's version is empty.",
            "Leave --policy-version away, or name one that `keywheel policy push` has told.",
        ));
    }
    Ok(Request { reason: Reason::Manual, secrets, dry_run: args.dry_run, policy_version })
}

/// What a campaign would do under this mode; nothing where it would simply rotate.
fn caution(switches: &Switches) -> Option<String> {
    match switches.mode.value.parse() {
        Ok(Mode::Live) => None,
        Ok(Mode::Paused) => Some(
            "Rotation is paused: the campaign ends Refused and starts nothing. `keywheel mode live` ends the pause.".into(),
        ),
        _ => Some(
            "The mode is dry-run: the campaign ends Planned and starts nothing. `keywheel mode live` changes that."
                .into(),
        ),
    }
}

async fn follow(place: &Place, out: &Out, id: &str) -> Result<Seen> {
    let begin = Timestamp::now();
    let mut screen = Screen::new(out);
    let (mut failures, mut last) = (0, None);
    loop {
        match read::campaign(place, id).await {
            Ok(seen) => {
                failures = 0;
                // One that was seen does not vanish.
                last = seen.or(last);
            }
            Err(_) if failures < PATIENCE => failures += 1,
            Err(trouble) => return Err(trouble),
        }
        screen.show(told::progress(last.as_ref()));
        let now = Timestamp::now();
        let following = time::between(begin, now);
        match last.take() {
            Some(seen) if !seen.is_under_way() => return Ok(seen),
            None if following > UNSEEN => {
                return Err(Trouble::new(
                    format!("Campaign {id} was started, yet Step Functions does not know it."),
                    format!("Look with `keywheel fleet status {id}`."),
                ));
            }
            seen => last = seen,
        }
        let next = last.as_ref().and_then(|seen| seen.document.as_ref()).and_then(|doc| doc.wait_until);
        tokio::time::sleep(pause(following, next.map(|next| time::between(now, next)))).await;
    }
}

fn report(out: &Out, seen: &Seen) {
    out.json(&seen.json());
    out.line(&format!("Campaign {}: {}", seen.id, seen.word()));
    out.lines(&told::progress(Some(seen)));
    out.lines(&told::failures(seen));
    if let Some(doc) = seen.document.as_ref().filter(|doc| !doc.waves.is_empty()) {
        out.line(&format!("The plan: s3://{}/{}", doc.bucket, doc.plan()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(secret: &[&str], version: Option<&str>) -> FleetRun {
        FleetRun {
            secret: secret.iter().map(|&secret| secret.to_owned()).collect(),
            dry_run: true,
            policy_version: version.map(str::to_owned),
            detach: false,
        }
    }

    #[test]
    fn the_machine_is_asked_in_its_own_words() {
        let arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/mail-AbCdEf";
        let asked = request(&args(&[" app/mail ", arn], Some("v1"))).unwrap();
        assert_eq!(
            serde_json::to_value(&asked).unwrap(),
            json!({ "reason": "manual", "secrets": ["app/mail", arn], "dry_run": true, "policy_version": "v1" })
        );
        let all = request(&FleetRun { dry_run: false, ..args(&[], None) }).unwrap();
        assert_eq!(serde_json::to_value(&all).unwrap(), json!({ "reason": "manual", "dry_run": false }));
        assert!(request(&args(&[""], None)).is_err());
        assert!(request(&args(&["arn:aws:iam::111122223333:user/x"], None)).is_err());
        assert!(request(&args(&[], Some(" "))).is_err());
    }

    #[test]
    fn a_mode_that_starts_nothing_is_told_before() {
        let of = |mode| caution(&Switches::of_values(mode, "on"));
        assert_eq!(of("live"), None);
        assert!(of("paused").unwrap().contains("ends Refused"));
        assert!(of("dry-run").unwrap().contains("ends Planned"));
        assert!(of("nonsense").unwrap().contains("ends Planned"));
    }
}

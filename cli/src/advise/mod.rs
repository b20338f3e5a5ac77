//! `keywheel advise`: which keys could go, because what uses them could have a role.
//!
//! A command of its own and not a part of `plan` or of the scan: CloudTrail's history allows two look-ups a second in
//! each region, which investigations and gates need as well. So a key takes a second or so, and a thousand keys a
//! quarter of an hour and more.

mod read;

use keywheel::decide::advice::{self, Advice, Ranges, Verdict};
use keywheel::incident::findings::Gaps;
use keywheel::key::KeyFacts;
use keywheel::{AccessKeyId, StepError, UserName};
use serde_json::{Value, json};

use crate::args::AdviseArgs;
use crate::error::{Exit, Result, Trouble};
use crate::names::{self, TypedUser};
use crate::output::Out;
use crate::place::Place;
use crate::{managed, regions};

/// A key that is judged, and whose it is.
type Owned = (UserName, AccessKeyId);

/// What is said of a key that IAM has seen no use of.
const NEVER: &str = "IAM has seen no use of it: it wants to be removed, not replaced.";

/// Runs the command. A key that cannot be judged keeps no other from it.
pub(crate) async fn run(place: &Place, out: &Out, args: &AdviseArgs) -> Result<Exit> {
    out.note(&place.line());
    let ranges = args.ip_ranges.as_deref().map(ranges).transpose()?;
    let (regions, guessed) = regions(place, out, &args.regions).await?;
    let (keys, mut exit) = match &args.who {
        Some(typed) => (of_one(place, typed).await?, Exit::Done),
        None => of_all(place, out).await?,
    };
    if keys.is_empty() {
        out.line("There is no Active key.");
    }
    let mut fits = 0;
    for (number, key) in keys.iter().enumerate() {
        if number > 0 {
            tokio::time::sleep(read::PAUSE).await;
        }
        match judge(place, out, key, &regions, guessed, ranges.as_ref()).await {
            Ok(Some(whole)) => {
                fits += usize::from(whole.fits);
                exit = exit.max(if whole.read { Exit::Done } else { Exit::Refused });
            }
            Ok(None) => {}
            Err(trouble) => {
                out.trouble(Some(key.1.as_str()), &trouble);
                exit = Exit::Refused;
            }
        }
    }
    out.note(&format!(
        "{} keys, {fits} of which have a way without one. CloudTrail's history has management events of 90 days: who reads objects, items or messages alone is not in it.",
        keys.len()
    ));
    Ok(exit)
}

/// How a look at one key ended.
struct Judged {
    fits: bool,
    read: bool,
}

/// Judges a key, and says what comes of it; `None` where it was never used.
async fn judge(
    place: &Place,
    out: &Out,
    (user, key): &Owned,
    regions: &[String],
    guessed: bool,
    ranges: Option<&Ranges>,
) -> Result<Option<Judged>> {
    let last = facts::iam::last_use(&place.iam(), key).await?;
    if last.at.is_none() {
        out.line(&format!("{user} {key}: {NEVER}"));
        out.json(&json!({ "user": user, "key_id": key, "silent": "NeverUsed", "why": NEVER }));
        return Ok(None);
    }
    let mut read = read::history(place, key, regions).await;
    if guessed {
        read.gaps.missing.push("the regions that nobody named".to_owned());
    }
    for (region, error) in &read.errors {
        out.note(&format!("{key} in {region}: {}", Trouble::from(error.clone())));
    }
    let verdict = advice::advise(&read.history, &read.gaps, last.service.as_deref(), ranges);
    show(out, user, key, &verdict);
    out.json(&line(user, key, &verdict, &read));
    Ok(Some(Judged { fits: matches!(verdict, Verdict::Fits(_)), read: read.gaps.missing.is_empty() }))
}

fn show(out: &Out, user: &UserName, key: &AccessKeyId, verdict: &Verdict) {
    match verdict {
        Verdict::Fits(Advice { why, how, .. }) => {
            out.line(&format!("{user} {key}: {why}"));
            out.line(&format!("     {how}"));
        }
        Verdict::Silent(_, why) => out.line(&format!("{user} {key}: no advice. {why}")),
    }
}

fn line(user: &UserName, key: &AccessKeyId, verdict: &Verdict, read: &read::Read) -> Value {
    let Gaps { missing, cut, .. } = &read.gaps;
    let (history, span) = (&read.history, read.history.span());
    let mut line = json!({
        "user": user,
        "key_id": key,
        "calls": history.calls(),
        "through_services": history.through_services(),
        "first": span.map(|(first, _)| first),
        "last": span.map(|(_, last)| last),
        "regions": read.gaps.read,
        "missing": missing,
        "cut": cut,
    });
    let more = match verdict {
        Verdict::Fits(advice) => json!(advice),
        Verdict::Silent(reason, why) => json!({ "silent": reason, "why": why }),
    };
    if let (Some(fields), Value::Object(more)) = (line.as_object_mut(), more) {
        fields.extend(more);
    }
    line
}

/// The regions that are read, and whether there may be others.
async fn regions(place: &Place, out: &Out, given: &[String]) -> Result<(Vec<String>, bool)> {
    if !given.is_empty() {
        for region in given {
            names::region(region)?;
        }
        return Ok((given.to_vec(), false));
    }
    match regions::enabled(place).await {
        Ok(regions) => Ok((regions, false)),
        Err(error) => {
            let known = regions::known(place);
            out.note(&format!(
                "Which regions the account has could not be read ({error}): {} are, and nothing is advised. --in names regions.",
                known.join(", ")
            ));
            Ok((known, true))
        }
    }
}

fn ranges(file: &std::path::Path) -> Result<Ranges> {
    let remedy = "It is the file ip-ranges.json that AWS publishes: \"AWS IP address ranges\" in the VPC user guide names its address.";
    let text = std::fs::read_to_string(file)
        .map_err(|error| Trouble::new(format!("{} cannot be read: {error}.", file.display()), remedy))?;
    Ranges::read(&text)
        .map_err(|why| Trouble::new(format!("{} has no addresses of AWS: {why}.", file.display()), remedy))
}

/// The key that was named, or the Active keys of the user that was.
async fn of_one(place: &Place, typed: &str) -> Result<Vec<Owned>> {
    match names::user(typed)? {
        TypedUser::Key(key) => match facts::iam::owner(&place.iam(), &key).await? {
            Some(user) => Ok(vec![(user, key)]),
            None => Err(Trouble::new(
                format!("No user of account {} has a key {key}.", place.account),
                "Check the key id, and with --profile the account.",
            )),
        },
        TypedUser::Name(..) => {
            let user = managed::user(place, typed).await?.facts.name;
            let keys = facts::iam::keys(&place.iam(), &user).await?;
            Ok(active(&user, keys))
        }
    }
}

fn active(user: &UserName, keys: Vec<KeyFacts>) -> Vec<Owned> {
    keys.into_iter().filter(KeyFacts::is_active).map(|key| (user.clone(), key.id)).collect()
}

/// The Active keys of every user. One that cannot be read is said, and makes the exit code 1.
async fn of_all(place: &Place, out: &Out) -> Result<(Vec<Owned>, Exit)> {
    let (mut keys, mut exit) = (Vec::new(), Exit::Done);
    let mut pages = place.iam().list_users().into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| StepError::from_sdk("iam:ListUsers", &error))?;
        for user in page.users() {
            let name = user.user_name();
            match of_user(place, name).await {
                Ok(found) => keys.extend(found),
                Err(trouble) => {
                    out.trouble(Some(name), &trouble);
                    exit = Exit::Refused;
                }
            }
        }
    }
    Ok((keys, exit))
}

async fn of_user(place: &Place, name: &str) -> Result<Vec<Owned>> {
    let user: UserName = name.parse().map_err(|error| Trouble::new(format!("{error}."), ""))?;
    let keys = facts::iam::keys(&place.iam(), &user).await?;
    Ok(active(&user, keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keywheel::decide::advice::History;

    fn read(gaps: Gaps) -> read::Read {
        let mut history = History::default();
        for day in 1..=20 {
            history.add(&json!({
                "eventTime": format!("2026-03-{day:02}T10:00:00Z"), "eventSource": "sqs.amazonaws.com",
                "eventName": "ListQueues", "sourceIPAddress": "203.0.113.9",
                "userAgent": "Boto3/1.34.0 exec-env/AWS_Lambda_python3.12",
            }));
        }
        read::Read { history, gaps, errors: Vec::new() }
    }

    #[test]
    fn a_line_has_the_advice_or_why_there_is_none() {
        let (user, key) = ("svc-mail".parse().unwrap(), "AKIAIOSFODNN7EXAMPLE".parse().unwrap());
        let line_of = |gaps: Gaps| {
            let read = read(gaps);
            line(&user, &key, &advice::advise(&read.history, &read.gaps, Some("sqs"), None), &read)
        };
        let told = line_of(Gaps { read: 17, ..Gaps::default() });
        assert_eq!((&told["way"], &told["caller"]), (&json!("role"), &json!("lambda")));
        assert_eq!((&told["calls"], &told["regions"]), (&json!(20), &json!(17)));
        assert_eq!(told["first"], "2026-03-01T10:00:00Z");
        let silent = line_of(Gaps { missing: vec!["us-east-1".into()], ..Gaps::default() });
        assert_eq!((&silent["silent"], &silent["missing"]), (&json!("Partial"), &json!(["us-east-1"])));
        assert!(silent.get("way").is_none(), "{silent}");
    }
}

//! The status of every managed user, one line each.

use aws_sdk_sfn::types::ExecutionStatus;
use jiff::Timestamp;
use keywheel::Outcome;
use keywheel::incident::Record;
use keywheel::key::KeyFacts;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{leaked, merged};
use crate::error::{Exit, Result, Trouble};
use crate::find;
use crate::incident::read;
use crate::managed::{self, Managed};
use crate::output::{Out, table};
use crate::place::Place;
use crate::run::{End, Run};
use crate::{story, time};

/// One line of the list.
#[derive(Debug)]
struct Entry {
    managed: Managed,
    keys: Vec<KeyFacts>,
    runs: Vec<Run>,
}

impl Entry {
    fn is_of(&self, run: &Run) -> bool {
        run.names(&self.managed.secret.arn, &self.managed.secret.name)
    }
}

/// How many users are looked at in the same moment.
const AT_ONCE: usize = 6;

/// Shows all. A user that cannot be read gets a line of its own, and makes the exit code 1.
pub(super) async fn show(place: &Place, out: &Out, head: &Value) -> Result<Exit> {
    let arns = managed::all(place).await?;
    if arns.is_empty() {
        out.line("No user is managed here. `keywheel enroll --user <name> --secret <secret>` begins.");
        out.json(&merged(head, json!({ "managed": 0 })));
        return Ok(Exit::Done);
    }
    let (mut entries, broken) = entries(place, arns).await;
    let mut exit = if broken.is_empty() { Exit::Done } else { Exit::Refused };
    if let Err(trouble) = add_others(place, out, &mut entries).await {
        exit = Exit::Refused;
        out.trouble(Some("runs"), &trouble);
    }
    let records = match read::records(place).await {
        Ok((records, odd)) => {
            for name in &odd {
                out.note(&format!("The record {name} cannot be understood."));
            }
            records
        }
        Err(trouble) => {
            exit = Exit::Refused;
            out.trouble(Some("leaked keys"), &trouble);
            Vec::new()
        }
    };
    entries.sort_by(|a, b| a.managed.name().cmp(b.managed.name()));
    let now = Timestamp::now();
    let mut rows =
        vec![["USER", "SECRET", "KEYS", "NEWEST", "WHERE", "SINCE", "NEXT"].map(str::to_owned).to_vec()];
    let mut words = Vec::new();
    for mut entry in entries {
        let found = find::choose(place, std::mem::take(&mut entry.runs), false).await?;
        let leaked = leaked::of(&records, &entry.keys, now);
        out.json(&merged(head, entry_json(&entry, found.run.as_ref(), &leaked)));
        rows.push(row(&entry, found.run.as_ref(), leaked::count(&leaked), now));
        let told = |record: &&Record| leaked::words(record, &entry.keys, now);
        words.extend(leaked.iter().map(told).map(|text| format!("{}: key {text}", entry.managed.name())));
    }
    out.lines(&table(&rows));
    out.lines(&words);
    for (arn, trouble) in broken {
        out.trouble(Some(&arn), &trouble);
    }
    Ok(exit)
}

async fn entries(place: &Place, arns: Vec<String>) -> (Vec<Entry>, Vec<(String, Trouble)>) {
    let (mut entries, mut broken) = (Vec::new(), Vec::new());
    let mut waiting = arns.into_iter();
    let mut calls = JoinSet::new();
    loop {
        while calls.len() < AT_ONCE
            && let Some(arn) = waiting.next()
        {
            let place = place.clone();
            calls.spawn(async move { entry(&place, &arn).await.map_err(|trouble| (arn, trouble)) });
        }
        match calls.join_next().await {
            None => return (entries, broken),
            Some(Ok(Ok(entry))) => entries.push(entry),
            Some(Ok(Err(trouble))) => broken.push(trouble),
            Some(Err(error)) => {
                broken.push(("a look-up".into(), Trouble::new(format!("It broke off: {error}."), "")));
            }
        }
    }
}

async fn entry(place: &Place, arn: &str) -> Result<Entry> {
    let managed = managed::by_secret(place, arn).await?;
    let keys = facts::iam::keys(&place.iam(), &managed.user.facts.name).await?;
    let runs = find::by_version(place, &managed.secret).await?;
    Ok(Entry { managed, keys, runs })
}

/// Adds the runs that no version names: those under way, and for users whose last known run settled nothing,
/// or who have none, those started since.
async fn add_others(place: &Place, out: &Out, entries: &mut [Entry]) -> Result<()> {
    let mut others = find::running(place).await?;
    let unsettled = entries
        .iter()
        .filter(|entry| entry.runs.iter().all(|run| run.status != ExecutionStatus::Running))
        .flat_map(|entry| &entry.runs)
        .filter(|run| {
            !matches!(run.end(), None | Some(End::Outcome(Outcome::Completed | Outcome::Contained)))
        });
    let since = unsettled.map(|run| run.started).min();
    let without =
        entries.iter().any(|entry| entry.runs.is_empty() && !others.iter().any(|run| entry.is_of(run)));
    if since.is_some() || without {
        let since = since.filter(|_| !without);
        let (later, partial) = find::ended_since(place, since, None).await?;
        others.extend(later);
        if partial {
            out.note("There are many runs, and not all of them were looked through for later ones.");
        }
    }
    for entry in entries {
        let more: Vec<Run> = others.iter().filter(|run| entry.is_of(run)).cloned().collect();
        entry.runs.extend(more);
    }
    Ok(())
}

/// The creation of the newest key, which is the current one unless a person made another.
fn newest(keys: &[KeyFacts]) -> Option<Timestamp> {
    keys.iter().filter_map(|key| key.created).max()
}

fn row(entry: &Entry, run: Option<&Run>, leaked: usize, now: Timestamp) -> Vec<String> {
    let user = entry.managed.name();
    let story = run.map(|run| story::tell(run, user));
    let next = story.as_ref().map_or_else(String::new, |story| match &story.next {
        Some((at, what)) => format!("{what} in {}", time::short(time::between(now, *at))),
        None => String::new(),
    });
    vec![
        user.to_owned(),
        entry.managed.secret.name.clone(),
        match leaked {
            0 => entry.keys.len().to_string(),
            leaked => format!("{}, {leaked} leaked", entry.keys.len()),
        },
        newest(&entry.keys)
            .map_or_else(|| "unknown".into(), |created| time::short(time::between(created, now))),
        story.as_ref().map_or_else(|| "no run known".into(), |story| story.place.clone()),
        story.as_ref().map_or_else(String::new, |story| time::short(time::between(story.since, now))),
        next,
    ]
}

fn entry_json(entry: &Entry, run: Option<&Run>, leaked: &[&Record]) -> Value {
    json!({
        "user": entry.managed.name(),
        "secret": entry.managed.secret.arn,
        "keys": entry.keys,
        "leaked": leaked,
        "run": run.map(|run| story::json(run, &story::tell(run, entry.managed.name()))),
    })
}

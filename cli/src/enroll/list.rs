//! `keywheel enroll --from`: a list of users. It is looked at whole, shown as a table and agreed to once; then one row
//! after another is done, and what is wrong with one keeps none of the others.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::look::{self, Seen, Wish};
use super::plan::{Checked, Plan, Refusal};
use super::store;
use crate::args::Enroll;
use crate::error::{Exit, Result, Trouble};
use crate::output::{Out, table};
use crate::place::Place;
use crate::{input, names};

/// The most that is read: ten thousand users with long ARNs.
const LONGEST: usize = 4 * 1024 * 1024;
/// The columns that a list may have; the first two it must.
const COLUMNS: [&str; 4] = ["user", "secret", "owner", "retire"];
const SHAPE: &str = "a list in CSV whose first line is user,secret,owner,retire";
/// How many users are looked at, and written, in the same moment: IAM slows down whoever asks for more.
const LOOKS: usize = 4;
const WRITES: usize = 2;

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    line: u64,
    user: String,
    secret: String,
    wish: Checked<Wish>,
}

/// What is to become of a row, or has.
enum State {
    Refused(Refusal),
    Same,
    Change(Box<(Wish, Seen, Plan)>),
    Done,
}

/// A row that was looked at.
struct Job {
    line: u64,
    user: String,
    secret: String,
    state: State,
}

/// Runs the command. Run again it changes nothing, and takes up what has failed.
pub(super) async fn run(place: &Place, out: &Out, file: &Path, args: &Enroll) -> Result<Exit> {
    out.note(&place.line());
    let rows = rows(&input::text(file, LONGEST, SHAPE)?, args.create_secret)?;
    let mut jobs = each(rows, LOOKS, |row| looked(place.clone(), row)).await?;
    refuse_doubles(&mut jobs);
    out.lines(&table(&words(&jobs)));
    for job in &jobs {
        out.json(&job.json());
        if let State::Change(change) = &job.state {
            for warning in &change.2.warnings {
                out.note(&format!("{}:{}: warning: {warning}", file.display(), job.line));
            }
        }
    }
    tell_refused(out, file, jobs.iter());
    let changing = jobs.iter().filter(|job| matches!(job.state, State::Change(_))).count();
    if changing > 0 {
        out.confirm(&format!("Enrol {changing} of {} rows?", jobs.len()), args.yes)?;
        let before: Vec<u64> = refused(&jobs).collect();
        jobs = each(jobs, WRITES, |job| done(place.clone(), job)).await?;
        let is_new = |job: &&Job| !matches!(job.state, State::Same) && !before.contains(&job.line);
        let tried: Vec<&Job> = jobs.iter().filter(is_new).collect();
        for job in &tried {
            out.json(&job.json());
        }
        tell_refused(out, file, tried.into_iter());
    }
    Ok(sum_up(out, &jobs))
}

fn refused(jobs: &[Job]) -> impl Iterator<Item = u64> {
    jobs.iter().filter(|job| matches!(job.state, State::Refused(_))).map(|job| job.line)
}

fn sum_up(out: &Out, jobs: &[Job]) -> Exit {
    let failed = refused(jobs).count();
    let done = jobs.iter().filter(|job| matches!(job.state, State::Done)).count();
    let same = jobs.len() - failed - done;
    out.line(&format!("{done} enrolled, {same} as they were, {failed} not enrolled."));
    out.json(&json!({ "rows": jobs.len(), "done": done, "unchanged": same, "failed": failed }));
    if failed == 0 { Exit::Done } else { Exit::Refused }
}

fn tell_refused<'a>(out: &Out, file: &Path, jobs: impl Iterator<Item = &'a Job>) {
    for job in jobs {
        if let State::Refused(refusal) = &job.state {
            out.note(&format!("{}:{}: {}: {}", file.display(), job.line, refusal.field, refusal.trouble));
        }
    }
}

/// Reads the list. A row that is wrong is one; a head that is wrong is all of them.
fn rows(text: &str, create: bool) -> Result<Vec<Row>> {
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let unread = |error: csv::Error| Trouble::new(format!("The list is no CSV: {error}."), "");
    let head: Vec<String> = reader.headers().map_err(unread)?.iter().map(str::to_lowercase).collect();
    let at = |name: &str| head.iter().position(|has| has == name);
    let unknown = head.iter().find(|name| !COLUMNS.contains(&name.as_str()));
    let double = head.iter().enumerate().find(|(index, name)| at(name) != Some(*index));
    let (Some(user), Some(secret), None, None) = (at("user"), at("secret"), unknown, double) else {
        return Err(Trouble::new(
            format!("The list's first line is {:?}.", head.join(",")),
            format!("Give {SHAPE}; the last two columns may be left out."),
        ));
    };
    let (owner, retire) = (at("owner"), at("retire"));
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(unread)?;
        let cell = |column: usize| record.get(column).unwrap_or_default().to_owned();
        let given = |column: Option<usize>| column.map(cell).filter(|text| !text.is_empty());
        let line = record.position().map_or(0, |position| line(text, position));
        let (user, secret) = (cell(user), cell(secret));
        let wish = if record.len() == head.len() {
            wish(&user, &secret, given(owner), given(retire).as_deref(), create)
        } else {
            let text = format!("There are {} cells in it, and {} columns.", record.len(), head.len());
            Err(Refusal::new("row", Trouble::new(text, "A cell with a comma stands in quotes.")))
        };
        rows.push(Row { line, user, secret, wish });
    }
    if rows.is_empty() {
        return Err(Trouble::new("The list names nobody.", format!("Give {SHAPE}, and a user a line.")));
    }
    Ok(rows)
}

/// The line that a row begins on: what the reader calls its position is before the blank lines above it.
fn line(text: &str, position: &csv::Position) -> u64 {
    let from = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    let above = rest.iter().take_while(|byte| matches!(**byte, b'\r' | b'\n')).filter(|byte| **byte == b'\n');
    position.line() + above.count() as u64
}

fn wish(
    user: &str,
    secret: &str,
    owner: Option<String>,
    retire: Option<&str>,
    create: bool,
) -> Checked<Wish> {
    for (field, text) in [("user", user), ("secret", secret)] {
        if text.is_empty() {
            return Err(Refusal::new(
                field,
                Trouble::new("The cell is empty.", "Fill it, or take the row out."),
            ));
        }
    }
    let retire = retire.map(names::key).transpose().map_err(|trouble| Refusal::new("retire", trouble))?;
    Ok(Wish { user: user.to_owned(), secret: secret.to_owned(), owner, retire, create })
}

async fn looked(place: Place, row: Row) -> Job {
    let state = match row.wish {
        Err(refusal) => State::Refused(refusal),
        Ok(wish) => match planned(&place, &wish).await {
            Err(refusal) => State::Refused(refusal),
            Ok((seen, plan)) if seen.exists && plan.is_empty() => State::Same,
            Ok((seen, plan)) => State::Change(Box::new((wish, seen, plan))),
        },
    };
    Job { line: row.line, user: row.user, secret: row.secret, state }
}

async fn planned(place: &Place, wish: &Wish) -> Checked<(Seen, Plan)> {
    let seen = look::look(place, wish).await?;
    let plan = seen.plan(wish, None)?;
    Ok((seen, plan))
}

/// Refuses what stands twice, as nobody knows which row is right. The first one is kept.
fn refuse_doubles(jobs: &mut [Job]) {
    let (mut users, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for job in jobs {
        let State::Change(change) = &job.state else { continue };
        let seen = &change.1;
        // IAM's names differ by more than case.
        let user = seen.user.facts.name.as_str().to_lowercase();
        let secret = seen.secret.arn.as_str().to_owned();
        let twice = |field: &'static str, first: u64| {
            let text = format!("The same {field} stands in line {first}.");
            Refusal::new(field, Trouble::new(text, "Take one of the rows out."))
        };
        if let Some(first) = users.get(&user) {
            job.state = State::Refused(twice("user", *first));
        } else if let Some(first) = secrets.get(&secret) {
            job.state = State::Refused(twice("secret", *first));
        } else {
            users.insert(user, job.line);
            secrets.insert(secret, job.line);
        }
    }
}

async fn done(place: Place, job: Job) -> Job {
    let Job { line, user, secret, state } = job;
    let state = match state {
        State::Change(change) => {
            let (wish, seen, plan) = *change;
            match store::apply(&place, &wish, &seen, plan, None, None).await {
                Ok(_) => State::Done,
                Err(trouble) => State::Refused(Refusal::new("user", trouble)),
            }
        }
        other => other,
    };
    Job { line, user, secret, state }
}

/// Does the work of all items, some at a time, and gives the results in their order.
async fn each<I, O, W>(items: Vec<I>, at_once: usize, work: impl Fn(I) -> W) -> Result<Vec<O>>
where
    O: Send + 'static,
    W: Future<Output = O> + Send + 'static,
{
    let mut waiting = items.into_iter().enumerate();
    let (mut calls, mut done) = (JoinSet::new(), Vec::new());
    loop {
        while calls.len() < at_once
            && let Some((index, item)) = waiting.next()
        {
            let work = work(item);
            calls.spawn(async move { (index, work.await) });
        }
        match calls.join_next().await {
            None => break,
            Some(Ok(one)) => done.push(one),
            // Only a bug breaks one off; what has become of its row is then not known.
            Some(Err(error)) => {
                return Err(Trouble::new(
                    format!("A row broke off: {error}."),
                    "Run the command again: it looks first.",
                ));
            }
        }
    }
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, one)| one).collect())
}

/// What would be changed for a row, in a few words.
fn changes(seen: &Seen, plan: &Plan) -> Vec<String> {
    let mut words = Vec::new();
    if !seen.exists {
        words.push("make the secret".to_owned());
    }
    let tags = |whose: &str, tags: &[(&'static str, String)]| -> Vec<String> {
        let tag = |(name, value): &(&'static str, String)| match *name {
            facts::iam::TAG_RETIRE => format!("retire {value}"),
            name => format!("tag the {whose}: {name}"),
        };
        tags.iter().map(tag).collect()
    };
    words.extend(tags("user", &plan.user_tags));
    words.extend(plan.user_untag.iter().map(|tag| format!("take off the user: {tag}")));
    words.extend(tags("secret", &plan.secret_tags));
    words
}

fn words(jobs: &[Job]) -> Vec<Vec<String>> {
    let mut rows = vec![["LINE", "USER", "SECRET", "WHAT"].map(str::to_owned).to_vec()];
    for job in jobs {
        let what = match &job.state {
            State::Refused(refusal) => format!("NOT POSSIBLE ({})", refusal.field),
            State::Same => "nothing: it is so already".to_owned(),
            State::Change(change) => changes(&change.1, &change.2).join(", "),
            State::Done => "done".to_owned(),
        };
        rows.push(vec![job.line.to_string(), job.user.clone(), job.secret.clone(), what]);
    }
    rows
}

impl Job {
    fn json(&self) -> Value {
        let mut value = json!({ "line": self.line, "user": self.user, "secret": self.secret });
        let more = match &self.state {
            State::Refused(refusal) => json!({
                "action": "refused", "field": refusal.field,
                "error": refusal.trouble.text, "remedy": refusal.trouble.remedy,
            }),
            State::Same => json!({ "action": "nothing" }),
            State::Change(change) => json!({
                "action": "enrol", "changes": changes(&change.1, &change.2), "warnings": change.2.warnings,
            }),
            State::Done => json!({ "action": "done" }),
        };
        if let (Some(fields), Value::Object(more)) = (value.as_object_mut(), more) {
            fields.extend(more);
        }
        value
    }
}

#[cfg(test)]
mod tests;

//! `keywheel uninstall`: takes an installation away, once nothing is open.
//!
//! What keeps a user safe stays for as long as it is needed: a run that would delete a superseded key, a deny of
//! sessions that still live. Secrets, keys, the bucket with its evidence and the records of leaked keys stay for good.
//! Run again after an interruption, it goes on: everything is looked for where it is, and the stack is only one place.

mod holdings;
mod open;
mod remove;

use jiff::Timestamp;
use serde_json::json;

use crate::args::Uninstall;
use crate::error::{Exit, Result, Trouble};
use crate::output::Out;
use crate::place::Place;
use crate::stack;
use holdings::Holdings;
use open::Open;

/// Runs the command.
pub(crate) async fn run(place: &Place, out: &Out, args: &Uninstall) -> Result<Exit> {
    out.note(&place.line());
    let name = stack::name(place, args.stack.as_ref());
    let found = stack::find(place, &name).await?;
    if let Some(stack) = found.as_ref().filter(|stack| stack.is_under_way()) {
        return Err(Trouble::new(
            format!("CloudFormation is at work on the stack: it is {}.", stack.status),
            "Wait until it has ended, then run the same command again.",
        ));
    }
    look(place, out, args.leave).await?;
    let there = found.as_ref().map_or("what is left of it", |_| "its stack");
    let untag = if args.untag { ", and take our tags off users and secrets" } else { "" };
    let question = format!("Remove {name}: {there}, its machines and their roles{untag}?");
    out.confirm(&question, args.yes)?;
    // A person may have thought it over for long. What is to be left was said already.
    let holdings = if args.leave { Holdings::read(place).await? } else { look(place, out, false).await? };
    remove::denies(place, out, &holdings, Timestamp::now()).await?;
    if args.untag {
        remove::tags(place, out, &holdings).await?;
    }
    let kept = remove::stack(place, out, found.as_ref()).await?;
    remove::machines(place, out).await?;
    remove::roles(place, out, &name).await?;
    remove::switches(place, out).await?;
    let remains = remove::remains(place, &name, args.untag).await?;
    told(place, out, &kept, &remains)
}

/// Looks for what is open, and refuses while there is any, unless it is to be left.
async fn look(place: &Place, out: &Out, leave: bool) -> Result<Holdings> {
    let holdings = Holdings::read(place).await?;
    let open = open::read(place, &holdings, Timestamp::now()).await?;
    for one in &open {
        out.line(&format!("open: {}", one.what));
        let (word, text) = if leave { ("by hand", &one.by_hand) } else { ("ends", &one.ends) };
        out.line(&format!("      {word}: {text}"));
        out.json(&one.json());
    }
    refused(&open, leave).map_or(Ok(holdings), Err)
}

/// Why nothing is removed yet.
fn refused(open: &[Open], leave: bool) -> Option<Trouble> {
    (!open.is_empty() && !leave).then(|| {
        Trouble::new(
            format!("Not uninstalled: {} still open.", counted(open.len())),
            "Wait for what ends them, or give --leave and see to the rest by hand.",
        )
    })
}

fn counted(count: usize) -> String {
    if count == 1 { "one thing is".to_owned() } else { format!("{count} things are") }
}

/// Says what stays, and what should not have.
fn told(place: &Place, out: &Out, kept: &[String], remains: &[String]) -> Result<Exit> {
    for one in kept {
        out.line(&format!("stays: {one}"));
    }
    let path = format!("/keywheel/{}/", place.stage);
    out.line(&format!(
        "stays: secrets and keys; the parameters {path}incidents, {path}emergency and {path}freeze"
    ));
    out.line("Not looked at: stacks of intake.yaml in other regions and of member.yaml in other accounts.");
    out.json(&json!({ "removed": remains.is_empty(), "stays": kept, "remains": remains }));
    if remains.is_empty() {
        out.line("Nothing else of Keywheel's is here: no role, no rule, no policy, no deny.");
        return Ok(Exit::Done);
    }
    Err(Trouble::new(
        format!("Still there: {}.", remains.join("; ")),
        "Run the same command again; it goes on with what is left. What --leave has left is named above.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_stops_it_unless_it_is_to_be_left() {
        let open = Open { what: "a run".into(), ends: "time".into(), by_hand: "nothing".into() };
        assert_eq!(refused(&[], false), None);
        assert_eq!(refused(std::slice::from_ref(&open), true), None);
        let one = refused(std::slice::from_ref(&open), false).unwrap();
        assert!(one.text.contains("one thing is still open") && one.remedy.contains("--leave"), "{one}");
        assert!(refused(&[open.clone(), open], false).unwrap().text.contains("2 things are"));
    }
}

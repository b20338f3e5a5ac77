//! `keywheel rollback`: turns the last promotion back.

use facts::secrets::PENDING;
use keywheel::rotation::Request;

use crate::args::Rollback;
use crate::error::{Exit, Result, Trouble};
use crate::follow::{self, Followed};
use crate::managed::{self, KeyRow, Label, Managed};
use crate::output::Out;
use crate::place::Place;
use crate::run::{self, Run};
use crate::{find, rotate};

/// Runs the command. The machine itself stops the run that is under way.
pub(crate) async fn run(place: &Place, out: &Out, args: &Rollback) -> Result<Exit> {
    out.note(&place.line());
    let managed = managed::by_user(place, &args.user).await?;
    let (keys, remarks) = managed::keys(place, &managed).await?;
    out.notes(&remarks);
    let found = find::of(place, &managed.secret).await?;
    let under_way = found.run.as_ref().filter(|run| run.is_under_way());
    refuse_unpromoted(&managed, under_way)?;
    let words = explain(&managed, &keys, under_way, !remarks.is_empty())?;
    out.notes(&words);
    rotate::caution(place, out, false).await;
    out.confirm("Turn the promotion back?", args.yes)?;
    let request = Request {
        secret: managed.secret.arn.as_str().to_owned(),
        reason: keywheel::rotation::Reason::Manual,
        policy: keywheel::policy::PolicyOverride::default(),
        dry_run: false,
        roll_back: true,
        on_promoted: None,
    };
    let followed = vec![Followed::new(&managed, run::start(place, &request).await?)];
    if args.wait {
        return follow::follow(place, out, followed).await;
    }
    follow::started(out, &followed);
    Ok(Exit::Done)
}

/// A run that is about to promote would promote after the rollback: it must not be raced.
fn refuse_unpromoted(managed: &Managed, under_way: Option<&Run>) -> Result<()> {
    let Some(run) = under_way else { return Ok(()) };
    let turning_back = run.request.as_ref().is_some_and(|request| request.roll_back);
    if turning_back && run.document.as_ref().is_none_or(|document| document.promoted_at.is_none()) {
        return Err(Trouble::new(
            format!("Run {} is turning the promotion of {} back already.", run.id, managed.name()),
            format!("`keywheel status --user {}` shows where it is.", managed.name()),
        ));
    }
    let pending = managed.secret.labelled(PENDING).is_some_and(|version| version.as_str() == run.id);
    let promoted = run.document.as_ref().is_some_and(|document| document.promoted_at.is_some());
    if promoted || (run.document.is_none() && !pending) {
        return Ok(());
    }
    Err(Trouble::new(
        format!(
            "Run {} for {} has not promoted its key yet: nothing has changed for its users.",
            run.id,
            managed.name()
        ),
        "If it fails it undoes itself. Wait until it has promoted, then roll back.",
    ))
}

/// What will happen, or why it cannot.
fn explain(managed: &Managed, keys: &[KeyRow], under_way: Option<&Run>, unsure: bool) -> Result<Vec<String>> {
    let user = managed.name();
    let with = |label: Label| keys.iter().find(|row| row.label == label);
    let mut words = Vec::new();
    match (with(Label::Previous), with(Label::Current)) {
        (Some(back), current) => {
            let state = if back.key.is_active() {
                "is still Active"
            } else {
                "is Inactive and will be made Active again"
            };
            words.push(format!(
                "{user}: key {} {state}, is called until it answers, and becomes current again.",
                back.key.id
            ));
            if let Some(current) = current {
                words.push(format!(
                    "{user}: key {} is then superseded: overlap, gate, grace, and in the end it is deleted.",
                    current.key.id
                ));
            }
        }
        // Without the right to read the secret, the run must find out itself.
        (None, _) if unsure => {
            words.push(format!("{user}: the run finds out itself which key AWSPREVIOUS names."));
        }
        (None, _) => {
            return Err(Trouble::new(
                format!(
                    "There is nothing to roll back for {user}: AWSPREVIOUS names no key that the user still has."
                ),
                format!(
                    "After the delete there is no way back; `keywheel rotate --user {user}` makes a new key."
                ),
            ));
        }
    }
    if let Some(run) = under_way {
        words.push(format!("{user}: run {} is under way and is stopped first.", run.id));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managed::tests::managed;
    use crate::run::tests::{document, run};
    use aws_sdk_sfn::types::ExecutionStatus;
    use jiff::Timestamp;
    use keywheel::key::{KeyFacts, KeyStatus};

    fn row(id: &str, status: KeyStatus, label: Label) -> KeyRow {
        KeyRow { key: KeyFacts { id: id.parse().unwrap(), status, created: None }, label, last_use: None }
    }

    #[test]
    fn it_says_which_key_comes_back_and_which_goes() {
        let keys = [
            row("AKIANNNNNNNNNNNNNNNN", KeyStatus::Active, Label::Current),
            row("AKIAOOOOOOOOOOOOOOOO", KeyStatus::Inactive, Label::Previous),
        ];
        let under_way = run(ExecutionStatus::Running, Some(document()));
        let words = explain(&managed(), &keys, Some(&under_way), false).unwrap().join("\n");
        assert!(words.contains("AKIAOOOOOOOOOOOOOOOO is Inactive and will be made Active again"), "{words}");
        assert!(words.contains("AKIANNNNNNNNNNNNNNNN is then superseded"), "{words}");
        assert!(words.contains(&under_way.id), "{words}");
    }

    #[test]
    fn without_a_previous_key_there_is_nothing_to_roll_back() {
        let keys = [row("AKIANNNNNNNNNNNNNNNN", KeyStatus::Active, Label::Current)];
        assert!(explain(&managed(), &keys, None, false).unwrap_err().text.contains("nothing to roll back"));
        assert!(explain(&managed(), &keys, None, true).is_ok());
    }

    #[test]
    fn a_run_before_its_promotion_is_not_raced() {
        let mut under_way = run(ExecutionStatus::Running, Some(document()));
        assert!(refuse_unpromoted(&managed(), Some(&under_way)).is_err());
        under_way.document.as_mut().unwrap().promoted_at = Some(Timestamp::UNIX_EPOCH);
        assert!(refuse_unpromoted(&managed(), Some(&under_way)).is_ok());
        assert!(refuse_unpromoted(&managed(), None).is_ok());
    }
}

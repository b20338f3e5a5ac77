//! `keywheel rollback`: turns the last promotion back.

use keywheel::rotation::{Reason, Request};

use crate::args::Rollback;
use crate::error::{Exit, Result, Trouble};
use crate::follow::{self, Followed};
use crate::keys::{self, KeyRow, Label};
use crate::managed::{self, Managed};
use crate::output::Out;
use crate::place::Place;
use crate::run::{self, Run};
use crate::{find, rotate};

/// Runs the command. The machine itself stops the run that is under way.
pub(crate) async fn run(place: &Place, out: &Out, args: &Rollback) -> Result<Exit> {
    out.note(&place.line());
    let managed = managed::by_user(place, &args.user).await?;
    let (keys, remarks) = keys::all(place, &managed).await?;
    out.notes(&remarks);
    // Whoever rolls back is in a hurry, and the machine looks for itself: runs that cannot be read stop nobody.
    let run = match find::of(place, &managed.secret).await {
        Ok(found) => found.run,
        Err(trouble) => {
            out.note(&format!("The runs could not be read here: {trouble}"));
            None
        }
    };
    refuse_leaked(&managed, run.as_ref())?;
    let under_way = run.as_ref().filter(|run| run.is_under_way());
    refuse_unpromoted(&managed, under_way)?;
    let words = explain(&managed, &keys, under_way, !remarks.is_empty())?;
    out.notes(&words);
    rotate::caution(place, out, false).await;
    out.confirm("Turn the promotion back?", args.yes)?;
    let request = Request {
        secret: managed.secret.arn.as_str().to_owned(),
        reason: Reason::Manual,
        policy: args.durations.checked()?,
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

/// A leaked key must not come back into service.
fn refuse_leaked(managed: &Managed, run: Option<&Run>) -> Result<()> {
    let document = run.and_then(|run| run.document.as_ref());
    let Some(document) = document.filter(|document| document.request.reason == Reason::Leaked) else {
        return Ok(());
    };
    let old = document.old.as_ref().map_or("the old key", |old| old.key.as_str());
    Err(Trouble::new(
        format!(
            "Run {} replaced {old} of {} because it leaked: a rollback would put it back into service.",
            document.run,
            managed.name()
        ),
        "Repair what does not work with the new key; the leaked one stays Inactive, as evidence.",
    ))
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
    if run.document.as_ref().is_some_and(|document| document.promoted_at.is_some()) {
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
        let claims = managed.secret.claims();
        let named = managed.secret.versions.contains_key(&run.id)
            || claims.iter().any(|(_, claimant)| claimant.to_string() == run.id);
        let end = if named { "is stopped first" } else { "ends itself when it finds the secret changed" };
        words.push(format!("{user}: run {} is under way and {end}.", run.id));
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
        assert!(words.contains(&under_way.id) && words.contains("ends itself"), "{words}");
        let mut managed = managed();
        managed.secret.versions.insert(under_way.id.clone(), Vec::new());
        let words = explain(&managed, &keys, Some(&under_way), false).unwrap().join("\n");
        assert!(words.contains("is stopped first"), "{words}");
    }

    #[test]
    fn without_a_previous_key_there_is_nothing_to_roll_back() {
        let keys = [row("AKIANNNNNNNNNNNNNNNN", KeyStatus::Active, Label::Current)];
        assert!(explain(&managed(), &keys, None, false).unwrap_err().text.contains("nothing to roll back"));
        assert!(explain(&managed(), &keys, None, true).is_ok());
    }

    #[test]
    fn a_leaked_key_does_not_come_back() {
        let mut last = run(ExecutionStatus::Running, Some(document()));
        assert!(refuse_leaked(&managed(), Some(&last)).is_ok());
        last.document.as_mut().unwrap().request.reason = Reason::Leaked;
        assert!(refuse_leaked(&managed(), Some(&last)).unwrap_err().text.contains("leaked"));
        assert!(refuse_leaked(&managed(), None).is_ok());
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

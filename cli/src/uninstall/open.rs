//! What is still open: runs under way, keys on their way out, denies of sessions that still live. Each with what ends it.

use aws_sdk_sfn::types::ExecutionStatus;
use jiff::Timestamp;
use keywheel::key::KeyFacts;
use keywheel::{StepError, UserName};
use serde_json::{Value, json};

use super::holdings::{Deny, Holdings, On};
use crate::error::{Result, Trouble};
use crate::place::Place;
use crate::time;

/// One thing that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Open {
    /// What it is.
    pub(super) what: String,
    /// What ends it.
    pub(super) ends: String,
    /// What is to be done by hand where nobody waits for that.
    pub(super) by_hand: String,
}

impl Open {
    pub(super) fn json(&self) -> Value {
        json!({ "open": self.what, "ends": self.ends, "by_hand": self.by_hand })
    }
}

/// All that is open. A machine that is not there runs nothing; whatever else cannot be read stops the command.
pub(super) async fn read(place: &Place, holdings: &Holdings, now: Timestamp) -> Result<Vec<Open>> {
    let mut open = Vec::new();
    for machine in place.own_machines() {
        open.extend(running(place, &machine).await?.iter().map(|run| run_open(&machine, run)));
    }
    for tagged in &holdings.users {
        let name: UserName = tagged.user.parse().map_err(|error| {
            Trouble::new(format!("IAM names a user {:?}: {error}.", tagged.user), "Nothing was changed.")
        })?;
        open.extend(keys_open(&name, &facts::iam::keys(&place.iam(), &name).await?));
    }
    open.extend(holdings.denies.iter().filter(|deny| !deny.is_over(now)).map(|deny| deny_open(deny, now)));
    Ok(open)
}

/// The names of a machine's executions that run.
async fn running(place: &Place, machine: &str) -> Result<Vec<String>> {
    let call = place.sfn().list_executions().state_machine_arn(machine);
    let mut pages = call.status_filter(ExecutionStatus::Running).into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = match page.map_err(|error| StepError::from_sdk("states:ListExecutions", &error)) {
            Err(error) if error.is_refused(&["StateMachineDoesNotExist"]) => return Ok(Vec::new()),
            page => page?,
        };
        names.extend(page.executions().iter().map(|row| row.name().to_owned()));
    }
    Ok(names)
}

fn run_open(machine: &str, run: &str) -> Open {
    let kind = machine.rsplit('-').next().unwrap_or(machine);
    let ends = match kind {
        "rotation" => {
            "it ends by itself when overlap and grace have passed; `keywheel status` shows where it is"
        }
        "fleet" => "`keywheel fleet stop`, or the end of its last batch",
        "incident" => {
            "it ends by itself once the sessions that it denies have ended, or as a false alarm: `keywheel incident`"
        }
        _ => "it ends by itself within minutes",
    };
    Open {
        what: format!("run {run} of the {kind} machine"),
        ends: ends.to_owned(),
        by_hand: match kind {
            "rotation" => "it stops where it is: see to the old key of its user, below",
            "incident" => "it stops where it is: the denies that it would have lifted are below",
            _ => "nothing: it stops where it is",
        }
        .to_owned(),
    }
}

/// A managed user with more than one key, or with one that is Inactive, has a key on its way out.
fn keys_open(user: &UserName, keys: &[KeyFacts]) -> Option<Open> {
    if keys.len() < 2 && keys.iter().all(KeyFacts::is_active) {
        return None;
    }
    let word =
        |key: &KeyFacts| format!("{} ({})", key.id, if key.is_active() { "Active" } else { "Inactive" });
    let words: Vec<String> = keys.iter().map(word).collect();
    Some(Open {
        what: format!("keys of user {user}: {}", words.join(", ")),
        ends: format!(
            "the run that superseded one of them deletes it when its grace is over; `keywheel status --user {user}` says which, and what else to do"
        ),
        by_hand: format!(
            "once nobody uses it: `aws iam delete-access-key --user-name {user} --access-key-id KEY`, of the key that the secret does not name"
        ),
    })
}

fn deny_open(deny: &Deny, now: Timestamp) -> Open {
    let ends = match deny.until {
        Some(until) => format!("the last session that it denies ends {}", time::at_and_away(until, now)),
        None => {
            "`keywheel incident` shows whose it is; it does not say itself until when it is needed".to_owned()
        }
    };
    let name = &deny.name;
    let by_hand = match (&deny.on, &deny.arn) {
        (On::User(user), None) => {
            format!("`aws iam delete-user-policy --user-name {user} --policy-name {name}`")
        }
        (On::Role(role), _) => {
            format!("`aws iam delete-role-policy --role-name {role} --policy-name {name}`")
        }
        (On::User(user), Some(arn)) => format!(
            "`aws iam detach-user-policy --user-name {user} --policy-arn {arn}`, then `aws iam delete-policy --policy-arn {arn}`"
        ),
        (On::Nobody, arn) => {
            format!("`aws iam delete-policy --policy-arn {}`", arn.as_deref().unwrap_or_default())
        }
    };
    Open { what: deny.words(), ends, by_hand: format!("when that time has come: {by_hand}") }
}

#[cfg(test)]
mod tests {
    use super::super::holdings::tests::{KEY, at};
    use super::*;
    use keywheel::key::KeyStatus;

    fn key(id: &str, status: KeyStatus) -> KeyFacts {
        KeyFacts { id: id.parse().unwrap(), status, created: None }
    }

    #[test]
    fn one_active_key_is_as_it_should_be_and_anything_else_is_open() {
        let user: UserName = "svc-mail".parse().unwrap();
        let active = key(KEY, KeyStatus::Active);
        let other = "AKIAI44QH8DHBEXAMPLE";
        assert_eq!(keys_open(&user, &[]), None);
        assert_eq!(keys_open(&user, std::slice::from_ref(&active)), None);
        let inactive = keys_open(&user, &[key(KEY, KeyStatus::Inactive)]).unwrap();
        assert!(inactive.what.contains(&format!("{KEY} (Inactive)")), "{}", inactive.what);
        let two = keys_open(&user, &[active, key(other, KeyStatus::Active)]).unwrap();
        assert!(two.what.contains(KEY) && two.what.contains(other), "{}", two.what);
        assert!(two.ends.contains("keywheel status --user svc-mail"), "{}", two.ends);
    }

    #[test]
    fn each_run_is_named_with_its_machine_and_what_ends_it() {
        let machine =
            |kind: &str| format!("arn:aws:states:eu-west-1:111122223333:stateMachine:keywheel-prod-{kind}");
        let told = |kind: &str| run_open(&machine(kind), "r");
        assert_eq!(told("rotation").what, "run r of the rotation machine");
        assert!(told("fleet").ends.contains("keywheel fleet stop"));
        assert!(told("incident").ends.contains("keywheel incident"));
        assert!(told("emergency").ends.contains("by itself"));
    }

    #[test]
    fn a_deny_is_named_with_its_end_and_the_command_that_takes_it_off() {
        let now = at("2026-03-02T09:00:00Z");
        let deny = |on, arn: Option<&str>, until| {
            deny_open(&Deny { on, name: "deny".into(), arn: arn.map(str::to_owned), until }, now)
        };
        let user = || On::User("svc-mail".into());
        let open = deny(user(), None, Some(at("2026-03-02T11:00:00Z")));
        assert!(open.ends.contains("in 2h"), "{}", open.ends);
        assert!(open.by_hand.contains("delete-user-policy --user-name svc-mail --policy-name deny"));
        assert!(deny(user(), None, None).ends.contains("keywheel incident"));
        assert!(deny(user(), Some("arn"), None).by_hand.contains("detach-user-policy"));
        assert!(deny(On::Role("deploy".into()), None, None).by_hand.contains("delete-role-policy"));
        assert!(deny(On::Nobody, Some("arn"), None).by_hand.contains("delete-policy --policy-arn arn"));
    }
}

//! What is done about a credential that an event calls leaked, and about keys that appear meanwhile.
//!
//! Two goals pull apart. A leaked key must end Inactive whatever fails (P3), and nothing of a stranger's may be
//! touched (P2). So what delays or prevents containment must be known for certain: a switch, a policy or a
//! clearance that cannot be read does not exist. What widens it beyond the key that was named must be known for
//! certain too: a sibling is part of the leak only if it was made while the leaked one could still be used, and is
//! no key of a run of ours.

use jiff::Timestamp;

use crate::clock::{after, wait_time};
use crate::emergency::{Emergency, Response};
use crate::ids::UserName;
use crate::incident::{Incident, Record, RecordState, SETTLES};
use crate::key::KeyFacts;
use crate::rotation::Why;
use crate::switch::Containment;
use crate::triage::{Class, Source};

/// Something kept in the parameter store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept<T> {
    /// It is there.
    Is(T),
    /// There is none.
    None,
    /// It could not be read, or not understood: why.
    Unread(String),
}

impl<T> Kept<T> {
    /// The value, where it is known.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            _ => None,
        }
    }
}

/// Whose the key is, as IAM tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This user's.
    Is(UserName),
    /// There is no such key in the account that was asked.
    None,
    /// IAM did not tell: why.
    Unread(String),
    /// The account that it belongs to could not be entered to ask, for now: why.
    Unreached(String),
}

/// The facts that the first look gathers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The time.
    pub now: Timestamp,
    /// The switch.
    pub switch: Kept<Containment>,
    /// The emergency policy.
    pub emergency: Kept<Emergency>,
    /// What is kept of this key.
    pub record: Kept<Record>,
    /// The key's owner; of an event without a key, the user that it names.
    pub owner: Owner,
    /// The account that the credential belongs to, where that one could not be asked.
    pub account: Option<String>,
    /// Whether the replacement that comes first is in place.
    pub replaced: bool,
    /// How many reports there were lately, where one is braked by that; `None` where it is not known.
    pub lately: Option<u32>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Make it Inactive: it is this user's.
    Contain(UserName),
    /// Make it Inactive as this user's, which the event says and IAM has not: it refuses a pair that does not match.
    Try(UserName, String),
    /// There is no key to make Inactive: deny the sessions of this user.
    DenySessions(UserName),
    /// The policy lets people come first.
    Delay(Timestamp),
    /// The policy lets the replacement come first.
    ReplaceFirst(Timestamp),
    /// Nothing is changed; `true` where a person must look at it.
    Leave(Why, bool),
    /// IAM did not tell enough: ask again.
    AskAgain(String),
}

/// How often the count of incidents is asked for, before a report is held for want of it.
pub const ASK_FOR_COUNT: u32 = 3;
/// How often a record that cannot be read is asked for in all: with the machine's pauses, over some hours.
pub const ASK_FOR_RECORD: u32 = 20;

/// What of the facts could not be read though it might have spoken against containment; the incident says so.
pub fn unread(facts: &Facts) -> Vec<String> {
    let mut notes = Vec::new();
    if let Kept::Unread(why) = &facts.switch {
        notes.push(format!("the switch: {why}"));
    }
    if let Kept::Unread(why) = &facts.emergency {
        notes.push(format!("the emergency policy: {why}"));
    }
    if let Kept::Unread(why) = &facts.record {
        notes.push(format!("the record of this key: {why}"));
    }
    notes
}

/// What is done about the incident's credential.
pub fn decide(facts: &Facts, incident: &Incident) -> Decision {
    let (class, target) = (incident.target.class, &incident.target);
    let leave = |why: Why, page| Decision::Leave(why, page);
    match class {
        Class::RevokeUserKey
        | Class::PolicyDecides
        | Class::OddKeyMaking
        | Class::ResolveUserKeys
        | Class::UserSession => {}
        Class::RevokeAgainIfLeaked => match &facts.record {
            Kept::Is(record) if record.state != RecordState::Cleared => {}
            // A person has called it a false alarm, or nobody ever called it a leak.
            Kept::Is(_) | Kept::None => return leave(not_known_as_leaked(incident), false),
            // Whether it leaked is not known, and whoever has it wanted it Active: asked again, and people are told. Only
            // what nobody will ever read is left to them.
            Kept::Unread(why) if incident.tries < ASK_FOR_RECORD => return Decision::AskAgain(why.clone()),
            Kept::Unread(why) => return leave(unread_record(incident, why), true),
        },
        class => return leave(not_a_users_key(class), true),
    }
    if let Some(record) = facts.record.known().filter(|record| record.is_cleared(facts.now)) {
        return leave(cleared(incident, record), true);
    }
    // A switch that is not there is that of a fresh installation; one that cannot be read stops nothing.
    let switch = match facts.switch {
        Kept::Is(switch) => switch,
        Kept::None => Containment::Page,
        Kept::Unread(_) => Containment::On,
    };
    if class == Class::OddKeyMaking {
        let user = if let Owner::Is(user) = &facts.owner { Some(user) } else { target.user.as_ref() };
        let policy = facts.emergency.known().map_or_else(Emergency::default, Emergency::clone);
        // Nothing would be done with the switch on either. What was made is told, whether or not it is still there.
        if policy.response(target, user.map(UserName::as_str)) == Response::Page {
            return leave(odd_making(incident), switch != Containment::Off);
        }
    }
    let known = matches!(facts.owner, Owner::Is(_) | Owner::Unreached(_));
    if let Some(account) = facts.account.as_deref().filter(|_| !known) {
        return leave(foreign(incident, account), true);
    }
    let owner = match (&facts.owner, &target.user) {
        (Owner::Is(user), _) => Decision::Contain(user.clone()),
        (Owner::None, _) => return leave(no_such_key(incident), true),
        (Owner::Unread(why), Some(user)) if incident.has_key() => {
            Decision::Try(user.clone(), format!("IAM did not tell the owner: {why}"))
        }
        (Owner::Unread(why) | Owner::Unreached(why), _) => Decision::AskAgain(why.clone()),
    };
    let user = match &owner {
        Decision::Contain(user) | Decision::Try(user, _) => Some(user.as_str()),
        _ => None,
    };
    let response = match &facts.emergency {
        // A person asks for this very key, and has decided.
        _ if target.source == Source::Keywheel && !incident.reported => Response::Now,
        Kept::Is(policy) => policy.response(target, user),
        // What was there to delay it, where it cannot be read, is not known; a mere suspicion is still one.
        Kept::None | Kept::Unread(_) => Emergency::default().response(target, user),
    };
    if switch != Containment::On {
        return leave(switched_off(incident, switch, response), switch == Containment::Page);
    }
    if class == Class::RevokeAgainIfLeaked {
        return owner;
    }
    let most =
        facts.emergency.known().map_or_else(|| Emergency::default().max_contain, |policy| policy.max_contain);
    if incident.is_braked_yet() {
        match facts.lately {
            Some(lately) if lately <= most => {}
            // It may be that the key is Inactive already, and only the answer was lost: asked again for a while.
            None if incident.tries < ASK_FOR_COUNT => {
                return Decision::AskAgain("how many incidents there were could not be read".to_owned());
            }
            // A sender that floods may flood what counts as well: not knowing holds.
            lately => return leave(braked(incident, lately, most), true),
        }
    }
    let open = incident.bound.is_none_or(|bound| facts.now < bound);
    match response {
        Response::Page => return leave(paged(incident), true),
        Response::After(minutes) if open => {
            let bound = incident.bound.unwrap_or_else(|| wait_time(after(incident.started, minutes.get())));
            return Decision::Delay(bound);
        }
        Response::ReplaceFirst(minutes) if open && !facts.replaced && incident.has_key() => {
            let bound = incident.bound.unwrap_or_else(|| wait_time(after(incident.started, minutes.get())));
            return Decision::ReplaceFirst(bound);
        }
        _ => {}
    }
    match (class, owner) {
        (Class::UserSession, Decision::Contain(user)) => Decision::DenySessions(user),
        (_, owner) => owner,
    }
}

fn not_known_as_leaked(incident: &Incident) -> Why {
    Why::new(
        "NotLeaked",
        format!("Key {} was made Active and is not known to have leaked.", incident.credential()),
        "",
    )
}

fn unread_record(incident: &Incident, why: &str) -> Why {
    let key = incident.credential();
    Why::new(
        "RecordUnreadable",
        format!("Key {key} was made Active, and whether it had leaked could not be read: {why}."),
        format!("If it leaked: `keywheel revoke {key}`."),
    )
}

fn cleared(incident: &Incident, record: &Record) -> Why {
    let until = record.until.map_or_else(String::new, |until| until.to_string());
    let note = record.note.as_deref().unwrap_or("no reason was given");
    Why::new(
        "FalseAlarm",
        format!(
            "Key {} of {} was reported again and stays as it is: it was called a false alarm until {until} ({note}).",
            incident.credential(),
            record.user
        ),
        format!("If it has leaked after all: `keywheel revoke {}`.", incident.credential()),
    )
}

/// The account does not let us in, or there is none but ours.
fn foreign(incident: &Incident, account: &str) -> Why {
    Why::new(
        "ForeignAccount",
        format!(
            "{} belongs to account {account}, which does not let this installation in.",
            incident.credential()
        ),
        "Contain it there, or tell its owner. infra/member.yaml, deployed there, lets this installation do it.",
    )
}

fn no_such_key(incident: &Incident) -> Why {
    let account = incident.its_account();
    let (text, remedy) = if incident.has_key() {
        (
            format!("There is no such key in account {account}; it was deleted, or never was."),
            "Look at who deleted it, and when.",
        )
    } else {
        (format!("The event names no user of account {account}."), "Look at the event.")
    };
    Why::new("KeyGone", format!("{}: {text}", incident.credential()), remedy)
}

fn switched_off(incident: &Incident, switch: Containment, response: Response) -> Why {
    let would = match response {
        Response::Now => "make it Inactive and deny its sessions".to_owned(),
        Response::Page => "tell people, and change nothing".to_owned(),
        Response::After(minutes) => {
            format!("make it Inactive after {} minutes, unless somebody stops it", u64::from(minutes))
        }
        Response::ReplaceFirst(minutes) => {
            format!("replace it, and make it Inactive within {} minutes", u64::from(minutes))
        }
    };
    let key = incident.credential();
    let reported = if incident.target.class == Class::OddKeyMaking {
        incident.reason.clone()
    } else {
        format!("{key} of {} is reported as leaked.", incident.user_name())
    };
    Why::new(
        "NotSwitchedOn",
        format!(
            "{reported} Containment is {switch}, so nothing was changed; switched on, Keywheel would {would}."
        ),
        format!("`keywheel containment on` switches it on; `keywheel revoke {key}` contains this one then."),
    )
}

fn paged(incident: &Incident) -> Why {
    let (what, key) = match (&incident.target.key_id, incident.target.class) {
        (Some(key), Class::PolicyDecides) => (format!("{key} may have leaked"), key.as_str()),
        (Some(key), _) => (format!("{key} is reported as leaked"), key.as_str()),
        (None, _) => (
            format!("A key of {} has leaked, and the event does not say which", incident.user_name()),
            "KEYID",
        ),
    };
    Why::new(
        "ForAPerson",
        format!("{what}. By the policy a person decides; nothing was changed."),
        format!("`keywheel revoke {key}` contains it."),
    )
}

fn odd_making(incident: &Incident) -> Why {
    Why::new(
        "OddKeyMaking",
        format!("{} Nothing was changed: a person decides.", incident.reason),
        format!(
            "If it should not be there: `keywheel revoke {}` makes it Inactive. Then look at who made it.",
            incident.credential()
        ),
    )
}

fn braked(incident: &Incident, lately: Option<u32>, most: u32) -> Why {
    let key = incident.credential();
    let lately = lately.map_or_else(
        || "how many others there were could not be read".to_owned(),
        |lately| format!("it is one of {lately} in ten minutes, of which {most} are acted on"),
    );
    Why::new(
        "Braked",
        format!("{key} was reported over the bus, and {lately}: nothing was changed."),
        format!("If the reports are genuine: `keywheel revoke {key}`, for each."),
    )
}

fn not_a_users_key(class: Class) -> Why {
    let (code, text, remedy) = match class {
        Class::Root => (
            "Root",
            "The credential is the root's, which is never changed here.",
            "Sign in as root: delete its keys, change its password, look at its MFA.",
        ),
        Class::SessionOnly | Class::SessionResolve => (
            "RoleSession",
            "Temporary credentials of a role: no key can be made Inactive, and they live until they expire.",
            "In IAM's console: the role, «Revoke sessions».",
        ),
        _ => ("NothingToContain", "The event names no credential of a user of ours.", "Look at the event."),
    };
    Why::new(code, text, remedy)
}

/// What is done about a key that was not there, or was Inactive, when the leaked one was contained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sibling {
    /// It is no concern of the incident.
    Leave,
    /// It is known to have leaked and is Active again.
    Reactivated,
    /// It was made while the leaked key could still be used: part of the leak.
    Minted,
    /// It was made meanwhile, maybe by a run of ours that has not stored it yet: look again soon.
    LookSoon,
    /// It appeared later, or when is not known: a person looks at it.
    Tell,
}

/// Whether a key was there when the event arrived. One that was not may be part of the leak, also where containment
/// took its time. IAM keeps the second, so a key may seem to be older than the event by less than one.
pub fn was_there(incident: &Incident, key: &KeyFacts) -> bool {
    key.created.is_none_or(|created| created.as_second() < incident.started.as_second())
}

/// Judges one key of the user at a look after containment.
///
/// A run of ours stores a key some moments after it has made it. So a key of a managed user that its secret does not
/// name is looked at twice before it is taken for minted; of a user that is not managed, no run makes keys. Where the
/// policy gave people time, a key made meanwhile may be what they made of it.
pub fn sibling(incident: &Incident, key: &KeyFacts) -> Sibling {
    if !key.is_active() {
        return Sibling::Leave;
    }
    if incident.keys.contains(&key.id) {
        return Sibling::Reactivated;
    }
    let ours = incident.ours.as_ref();
    if incident.known.contains(&key.id) || ours.is_some_and(|ours| ours.keys.contains(&key.id)) {
        return Sibling::Leave;
    }
    if ours.is_none_or(|ours| ours.managed) && !incident.suspects.contains(&key.id) {
        return Sibling::LookSoon;
    }
    let Some(contained) = incident.contained_at else { return Sibling::Leave };
    match key.created {
        Some(created)
            if ours.is_some()
                && incident.bound.is_none()
                && !was_there(incident, key)
                && created <= after(contained, SETTLES) =>
        {
            Sibling::Minted
        }
        _ => Sibling::Tell,
    }
}

#[cfg(test)]
mod tests;

//! What runs say of a user's keys: which version holds one, what superseded it, and where its run is.

use std::collections::BTreeSet;

use facts::iam::User;
use facts::secrets::{PREVIOUS, Secret};
use jiff::Timestamp;
use keywheel::rotation::Reason;
use keywheel::{AccessKeyId, Outcome, Rotation, RunId, VersionId};

use crate::error::Result;
use crate::place::Place;
use crate::run::{self, End, Run};
use crate::{find, managed, names};

/// How a user stands to Keywheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Management {
    /// User and secret name each other.
    Managed(Box<Secret>),
    /// The user has no tag that names a secret.
    None,
    /// Its tag names a secret that names another user, or nobody.
    Half(String),
    /// The secret that its tag names could not be read.
    Unknown(String),
}

/// All that is known of a user's runs.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) management: Management,
    /// The runs, the latest first.
    runs: Vec<Run>,
    /// Whether they could be read.
    runs_read: bool,
    /// What is left out, and is no failure.
    pub(super) notes: Vec<String>,
}

/// What runs say of one key.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace<'a> {
    /// The version that holds it, with its labels.
    pub(super) version: Option<(VersionId, Vec<String>)>,
    /// The latest run that had to do with it.
    pub(super) run: Option<&'a Run>,
    /// The run that made it.
    pub(super) made_by: Option<&'a Run>,
    pub(super) superseded: Option<Superseded<'a>>,
    pub(super) runs_read: bool,
}

/// That another key took a key's place.
#[derive(Debug, Clone)]
pub(super) struct Superseded<'a> {
    pub(super) by: Option<&'a AccessKeyId>,
    pub(super) at: Timestamp,
    /// When it was made Inactive.
    pub(super) disabled_at: Option<Timestamp>,
    /// Whether because it leaked.
    pub(super) leaked: bool,
    /// Whether it is what a rollback brings back.
    pub(super) comes_back: bool,
}

/// Reads the secret and the runs of a user.
pub(super) async fn of(place: &Place, user: &User, remarks: &mut Vec<String>) -> Known {
    let management = management(place, user).await;
    let mut known = Known { management, runs: Vec::new(), runs_read: true, notes: Vec::new() };
    match &known.management {
        Management::Managed(secret) => match runs(place, secret).await {
            Ok((runs, partial)) => {
                known.runs = runs;
                known.notes.extend(partial.then(|| {
                    "There are many runs, and not all of them were looked through for a later one.".to_owned()
                }));
            }
            // With nothing deployed there is no run to be read: that is told, and no failure.
            Err(trouble) if trouble == run::no_machine(place, &place.machine) => {
                known.runs_read = false;
                known.notes.push(format!("Runs are not known. {}", trouble.text));
            }
            Err(trouble) => {
                known.runs_read = false;
                remarks.push(format!("The runs could not be read: {trouble}"));
            }
        },
        Management::Unknown(why) => remarks.push(why.clone()),
        Management::None | Management::Half(_) => {}
    }
    known
}

async fn management(place: &Place, user: &User) -> Management {
    let Some(arn) = &user.secret else { return Management::None };
    if names::secret(arn).is_err() {
        return Management::Half(format!("its tag names {arn}, which is no secret"));
    }
    let secret = match managed::secret(place, arn).await {
        Ok(secret) => secret,
        Err(trouble) => {
            return Management::Unknown(format!(
                "The secret that the user's tag names could not be read: {trouble}"
            ));
        }
    };
    if secret.user.as_deref() == Some(user.facts.name.as_str()) && secret.arn.as_str() == arn {
        return Management::Managed(Box::new(secret));
    }
    let named = secret.user.as_deref().unwrap_or("nobody");
    Management::Half(format!("its tag names secret {}, and that one's tag names {named}", secret.name))
}

/// The runs that the secret's versions and labels name, and the ones that neither does; and whether some were left
/// unread.
async fn runs(place: &Place, secret: &Secret) -> Result<(Vec<Run>, bool)> {
    let found = find::of(place, secret).await?;
    let mut runs: Vec<Run> = [found.run, found.attempt].into_iter().flatten().collect();
    let mut seen: BTreeSet<String> = runs.iter().map(|run| run.id.clone()).collect();
    for run in find::by_version(place, secret).await? {
        add(place, &mut runs, &mut seen, run).await?;
    }
    // What was current before is what people ask about.
    if let Some(previous) = secret.labelled(PREVIOUS)
        && !seen.contains(previous.as_str())
        && previous.as_str().parse::<RunId>().is_ok()
        && let Some(run) = run::describe(place, previous.as_str()).await?
        && run.names(&secret.arn, &secret.name)
    {
        add(place, &mut runs, &mut seen, run).await?;
    }
    runs.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.id.cmp(&b.id)));
    Ok((runs, found.partial))
}

async fn add(place: &Place, runs: &mut Vec<Run>, seen: &mut BTreeSet<String>, mut run: Run) -> Result<()> {
    if seen.insert(run.id.clone()) {
        run::complete(place, &mut run).await?;
        runs.push(run);
    }
    Ok(())
}

impl Known {
    /// What the runs say of a key.
    pub(super) fn trace(&self, key: &AccessKeyId) -> Trace<'_> {
        let mut trace = Trace { runs_read: self.runs_read, ..Trace::default() };
        let Management::Managed(secret) = &self.management else { return trace };
        let told = self.runs.iter().filter_map(|run| Some((run, run.document.as_ref()?)));
        let mut version = None;
        for (run, doc) in told {
            let new = doc.new.as_ref().filter(|new| new.key == *key);
            let old = doc.old.as_ref().filter(|old| old.key == *key);
            let before = doc.baseline.as_ref().and_then(|baseline| baseline.current.as_ref());
            let before = before.filter(|before| before.key.as_ref() == Some(key));
            if new.is_none() && old.is_none() && before.is_none() {
                continue;
            }
            let of_new = new.and_then(|new| new.version.clone());
            version = version.or(of_new).or_else(|| before.map(|before| before.version.clone()));
            if run.touched_nothing() {
                continue;
            }
            // A rollback brings its new key back and makes none.
            let made = new.is_some() && !doc.request.roll_back;
            trace.made_by = trace.made_by.or(made.then_some(run));
            // The latest run has the last word: a key that came back is superseded no more.
            if trace.run.is_none() && (new.is_some() || old.is_some()) {
                trace.run = Some(run);
                trace.superseded = old.and_then(|_| superseded(run, doc));
            }
        }
        trace.version = version.map(|version| {
            let labels = secret.versions.get(version.as_str()).cloned().unwrap_or_default();
            (version, labels.into_iter().filter(|label| label.starts_with("AWS")).collect())
        });
        if let (Some(superseded), Some((_, labels))) = (&mut trace.superseded, &trace.version) {
            superseded.comes_back = labels.iter().any(|label| label == PREVIOUS) && !superseded.leaked;
        }
        trace
    }
}

/// How a run superseded its old key; nothing where it has promoted none, or turned back.
fn superseded<'a>(run: &Run, doc: &'a Rotation) -> Option<Superseded<'a>> {
    let turned_back = run.end() == Some(End::Outcome(Outcome::RolledBack)) && !doc.request.roll_back;
    let at = doc.promoted_at.filter(|_| !turned_back)?;
    Some(Superseded {
        by: doc.new.as_ref().map(|new| &new.key),
        at,
        disabled_at: doc.disabled_at,
        leaked: doc.request.reason == Reason::Leaked,
        comes_back: false,
    })
}

#[cfg(test)]
mod tests;

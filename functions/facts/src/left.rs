//! What earlier runs have left of a secret: the version on its way, the one before, whether a run is at work on either, and
//! whose a key is that no version names.
//!
//! A run asks it at its beginning, and the plan over an account before it starts one: both by this file, so that the plan
//! says what the run then finds.

use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_types::SdkConfig;
use jiff::Timestamp;
use keywheel::clock::after;
use keywheel::decide::entry::{Evidence, Pending, RunState};
use keywheel::decide::orphan::{self, Attribution};
use keywheel::incident::RecordState;
use keywheel::key::{self, KeyFacts};
use keywheel::rotation::{CurrentVersion, Suspect, Why};
use keywheel::secret::SecretValue;
use keywheel::{AccessKeyId, RunId, SecretArn, StepError, UserName, aws};

use crate::executions;
use crate::secrets::{self, CURRENT, PREVIOUS, Secret, Which};
use crate::trail;

/// How long a key that was stored may be missing in IAM's list.
const SHOWN_LATE: Duration = Duration::from_mins(1);

/// What AWSCURRENT names.
pub struct Current {
    /// The version and its key; `None` where the secret has no value.
    pub version: Option<CurrentVersion>,
    /// When it was written.
    pub written: Option<Timestamp>,
    /// The value; an empty one where there is none.
    pub value: SecretValue,
}

impl Current {
    /// The key that it holds.
    pub fn key(&self) -> Option<&AccessKeyId> {
        self.version.as_ref().and_then(|current| current.key.as_ref())
    }
}

/// What the versions beside the current one tell.
#[derive(Debug)]
pub struct Versions {
    /// The version on its way.
    pub pending: Option<Pending>,
    /// The key that AWSPREVIOUS holds. Read only where the user has another key than the current one.
    pub previous_key: Option<AccessKeyId>,
    /// The run that the current version leads to. Asked for only there.
    pub current_run: RunState,
    /// The last run on it that has ended.
    pub last: Option<RunId>,
    /// What that one said, where it has left the other key to a person.
    pub held: Option<Why>,
}

/// Reads the versions of a secret, and asks Step Functions for the runs that they name: those of the machine that
/// `execution` belongs to.
pub async fn versions(
    store: &Client,
    (sfn, execution): (&aws_sdk_sfn::Client, &str),
    (secret, user): (&Secret, &UserName),
    current: &Current,
    (keys, now): (&[KeyFacts], Timestamp),
) -> Result<Versions, StepError> {
    let of = (&secret.arn, secret.name.as_str());
    let mut found = Versions {
        pending: None,
        previous_key: None,
        current_run: RunState::NotOurs,
        last: None,
        held: None,
    };
    // A promoted version keeps AWSPENDING until the next one takes it. Where it also is the current or the previous
    // one, the label says nothing.
    if let Some(version) = secret.on_its_way() {
        let stored = secrets::value(store, &secret.arn, Which::Version(&version)).await?;
        // Older than what is current, it is no work on its way: it was current once and its label stayed.
        let newer = stored
            .as_ref()
            .is_some_and(|stored| current.version.is_none() || stored.created >= current.written);
        let parsed = shown(stored, user, keys, now)?;
        let run = executions::at_work(sfn, execution, &secret.runs_on(&version), of).await?;
        found.pending = newer.then_some(Pending {
            run,
            key: parsed.as_ref().and_then(SecretValue::key),
            same_fields: parsed.is_some_and(|parsed| {
                current.version.is_none() || current.value.same_but_credentials(&parsed)
            }),
            version,
        });
    }
    // The version before and the run of the current one matter only where another key is there.
    let Some(version) = current.version.as_ref().map(|current| &current.version) else { return Ok(found) };
    if keys.iter().all(|key| Some(&key.id) == current.key()) {
        return Ok(found);
    }
    let stored = secrets::value(store, &secret.arn, Which::Label(PREVIOUS)).await?;
    // A pair that is newer than the current one was stored by a person who then went back, unless a run of ours wrote
    // it and was turned back: only the latter is superseded.
    let newer = stored.as_ref().is_some_and(|stored| stored.created > current.written);
    let theirs = match stored.as_ref().filter(|_| newer).map(|stored| secret.runs_on(&stored.version)) {
        Some(runs) => executions::at_work(sfn, execution, &runs, of).await? == RunState::NotOurs,
        None => false,
    };
    found.previous_key = stored
        .and_then(|stored| SecretValue::parse(stored.text.as_deref(), user).ok())
        .and_then(|value| value.key());
    if !theirs {
        let runs = Box::pin(executions::all(sfn, execution, &secret.runs_on(version), of)).await?;
        found.current_run = executions::together(&runs);
        let last = executions::last_ended(&runs);
        found.last = last.and_then(|last| last.state.ended());
        found.held = last.and_then(|last| last.held.clone());
    }
    Ok(found)
}

/// What a version on its way holds. A key that it has named for less than a minute may not be in IAM's list yet: taken
/// for gone, it would fill a slot that nobody answers for.
fn shown(
    stored: Option<secrets::Value>,
    user: &UserName,
    keys: &[KeyFacts],
    now: Timestamp,
) -> Result<Option<SecretValue>, StepError> {
    let Some(stored) = stored else { return Ok(None) };
    let Ok(value) = SecretValue::parse(stored.text.as_deref(), user) else { return Ok(None) };
    let just_now = stored.created.is_some_and(|at| now < after(at, SHOWN_LATE));
    match value.key().filter(|id| just_now && key::find(keys, id).is_none()) {
        Some(id) => Err(StepError::NotYetVisible(format!(
            "key {id}, which was stored just now, is not in IAM's list yet"
        ))),
        None => Ok(Some(value)),
    }
}

/// What is on record of the key beside the current one, if it was contained as leaked and no person has said since
/// that it had not leaked.
pub async fn evidence(
    (iam, ssm, stage): (&aws_sdk_iam::Client, &aws_sdk_ssm::Client, &str),
    keys: &[KeyFacts],
    current: Option<&AccessKeyId>,
) -> Result<Option<Evidence>, StepError> {
    let others: Vec<&KeyFacts> = keys.iter().filter(|key| Some(&key.id) != current).collect();
    let [other] = others[..] else { return Ok(None) };
    let Some(record) = crate::switch::leaked(ssm, stage, &other.id).await? else { return Ok(None) };
    let last_use = match record.state {
        RecordState::Closed => Some(crate::iam::last_use(iam, &other.id).await?),
        _ => None,
    };
    Ok(Some(Evidence { record, last_use }))
}

/// Whose a key is that no version of the secret names: what CloudTrail's record of its making says, of a key made under
/// `our_role`.
pub async fn whose(
    config: &SdkConfig,
    (sfn, execution): (&aws_sdk_sfn::Client, &str),
    (store, secret, user): (&Client, &SecretArn, &UserName),
    (suspect, our_role): (&Suspect, &str),
    now: Timestamp,
) -> Result<Attribution, StepError> {
    let config = trail::iam_region(secret.partition())
        .map_or_else(|| config.clone(), |region| aws::in_region(config, region));
    let record = match trail::create_record(&aws_sdk_cloudtrail::Client::new(&config), suspect).await {
        Ok(record) => record,
        // A trail that may not be read is a record that is missing.
        Err(StepError::Refused(_)) => None,
        Err(error) => return Err(error),
    };
    let mut ended = false;
    if let Some(run) = record.as_ref().and_then(|record| record.run) {
        // Asked first: a run that has ended stores nothing more, one that runs may do so between two questions.
        ended = executions::has_ended(sfn, execution, run).await?;
        // An orphan is a key that nobody stored. One that its run did store may have been current since,
        // wherever the labels have moved: it is for the gate, never for this.
        if was_stored((store, secret, user), run, suspect).await? {
            return Ok(Attribution::NotOurs(format!(
                "key {} was stored by run {run} and may be in use",
                suspect.key
            )));
        }
    }
    Ok(orphan::decide(suspect, record.as_ref(), our_role, |_| ended, now))
}

async fn was_stored(
    (store, secret, user): (&Client, &SecretArn, &UserName),
    run: RunId,
    suspect: &Suspect,
) -> Result<bool, StepError> {
    match secrets::value(store, secret, Which::Version(&run.version())).await {
        Ok(None) => Ok(false),
        Ok(Some(value)) => match SecretValue::parse(value.text.as_deref(), user) {
            Ok(value) => Ok(value.key().as_ref() == Some(&suspect.key)),
            // A version under this run's id that cannot be understood might hold anything.
            Err(_) => Ok(true),
        },
        Err(StepError::Refused(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Reads what AWSCURRENT names; an error of the value's own where it is none that a run could work with.
pub async fn current(
    store: &Client,
    secret: &SecretArn,
    user: &UserName,
) -> Result<Result<Current, keywheel::secret::ValueError>, StepError> {
    let Some(stored) = secrets::value(store, secret, Which::Label(CURRENT)).await? else {
        return Ok(Ok(Current { version: None, written: None, value: SecretValue::empty() }));
    };
    Ok(SecretValue::parse(stored.text.as_deref(), user).map(|value| Current {
        version: Some(CurrentVersion { version: stored.version, key: value.key() }),
        written: stored.created,
        value,
    }))
}

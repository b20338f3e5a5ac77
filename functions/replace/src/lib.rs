//! The `Replace` and `CheckReplacement` states: the application of a user whose key leaked gets a working key again.
//!
//! It does nothing itself: it starts a rotation, which knows how to make a key or to bring one back, and looks how
//! far that is. It also reads which keys are Keywheel's own business, so that the look after containment does not
//! take a replacement for a key that somebody minted.

use aws_sdk_sfn::types::ExecutionStatus;
use aws_types::SdkConfig;
use facts::member::{self, Members};
use facts::secrets::{self, CURRENT, PENDING, PREVIOUS, Secret, Which};
use keywheel::decide::replace::{Facts, is_working, way};
use keywheel::incident::{Ours, Phase, Replacement, Way};
use keywheel::key;
use keywheel::notice::NoticeKind;
use keywheel::secret::SecretValue;
use keywheel::{AccessKeyId, Context, Incident, Rotation, RunId, SecretArn, Step, StepError, UserName, aws};
use serde_json::json;
use tracing::{info, warn};

/// The step.
pub struct Replace {
    config: SdkConfig,
    members: Option<Members>,
    rotation: String,
}

/// What is known of a user's secret.
struct Known {
    secret: Secret,
    current: Option<AccessKeyId>,
    previous: Option<AccessKeyId>,
    pending: Option<AccessKeyId>,
}

impl Replace {
    /// A step that calls AWS with `config`, enters other accounts where there are `members`, and starts executions of the
    /// machine `rotation`.
    pub fn new(config: SdkConfig, members: Option<Members>, rotation: String) -> Self {
        Self { config, members, rotation }
    }

    /// The configuration for calls in the user's account; `None` where that lets no rotation in: then nothing there is
    /// Keywheel's.
    async fn enter(&self, config: &SdkConfig, doc: &Incident) -> Result<Option<SdkConfig>, StepError> {
        let Some(account) = &doc.account else { return Ok(Some(config.clone())) };
        let Some(members) = &self.members else { return Ok(None) };
        match members.enter(config, doc.partition(), account, doc.id).await {
            Ok(config) => Ok(Some(config)),
            Err(error) if member::is_shut(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The ARN of a rotation's execution.
    fn execution(&self, run: RunId) -> String {
        format!("{}:{run}", self.rotation.replacen(":stateMachine:", ":execution:", 1))
    }
}

impl Step for Replace {
    const NAME: &'static str = "replace";
    type Input = Incident;
    type Output = Incident;

    /// Run twice, it starts the same rotation once: the run's id follows from the incident.
    async fn run(&self, mut doc: Incident, ctx: &Context) -> Result<Incident, StepError> {
        doc.merge();
        doc.take_error("the last step");
        if doc.contained_at.is_none() && doc.phase != Phase::ReplaceFirst {
            // Nothing has lost its key.
            return Ok(doc);
        }
        let config = aws::for_run(&self.config, doc.id);
        let Some(user) = doc.user.clone().or_else(|| doc.target.user.clone()) else {
            return Ok(not_needed(doc, "Whose key it is, is not known."));
        };
        let Some(there) = self.enter(&config, &doc).await? else {
            let account = doc.its_account();
            let help = format!("The user is of account {account}: whoever uses the key must be told.");
            return Ok(nobodys(doc, &help));
        };
        let iam = aws_sdk_iam::Client::new(&there);
        let managed = facts::iam::user(&iam, &user).await?.and_then(|user| user.secret);
        let managed = managed.and_then(|arn| arn.parse::<SecretArn>().ok());
        let Some(arn) = managed.filter(|arn| arn.account() == doc.its_account()) else {
            return Ok(nobodys(
                doc,
                "The user is not managed by Keywheel: whoever uses the key must be told.",
            ));
        };
        let store = aws_sdk_secretsmanager::Client::new(&aws::in_region(&there, arn.region()));
        let Some(known) = read(&store, &arn, &user).await? else {
            return Ok(nobodys(
                doc,
                "The user's secret does not name the user back: it is not managed by Keywheel.",
            ));
        };
        let keys = facts::iam::keys(&iam, &user).await?;
        let named = [&known.current, &known.previous, &known.pending].into_iter().flatten().cloned();
        doc.ours = Some(Ours { managed: true, keys: named.collect() });
        let mut leaked = doc.keys.clone();
        leaked.extend(doc.target.key_id.clone());
        if let Some(previous) = known.previous.as_ref().filter(|previous| !leaked.contains(previous))
            && key::find(&keys, previous).is_some()
        {
            // An earlier incident's key is not brought back for this one's. Not knowing it is worth another try.
            let ssm = aws_sdk_ssm::Client::new(&config);
            let recorded = facts::switch::leaked(&ssm, &ctx.stage, previous).await?;
            leaked.extend(recorded.map(|record| record.key));
        }
        let facts = Facts {
            leaked: &leaked,
            current: known.current,
            previous: known.previous,
            pending: known.pending,
            keys: &keys,
        };
        let working = is_working(&facts);
        let sfn = aws_sdk_sfn::Client::new(&config);
        let mut replacement = match doc.replacement.clone().filter(|before| before.way != Way::NotNeeded) {
            Some(before) => before,
            None => Replacement {
                way: way(&facts),
                run: None,
                secret: Some(known.secret.name.clone()),
                working,
                help: String::new(),
            },
        };
        replacement.working = working;
        replacement.help = match (replacement.way, replacement.run) {
            (Way::NotNeeded, _) => "The secret names another key.".to_owned(),
            _ if working => "AWSCURRENT names a key that works; consumers find it in the secret.".to_owned(),
            (Way::Person, _) => by_hand(&doc, &user, &known.secret, &facts),
            (Way::UnderWay, _) => "A rotation that is at work brings a new key.".to_owned(),
            (way, None) => {
                let run = run_of(&doc, "replacement");
                self.start(&sfn, run, &arn, way).await?;
                replacement.run = Some(run);
                info!(rotation.id = %doc.id, iam.user = %user, "Started run {run} for {user}");
                format!("Run {run} is at work.")
            }
            (_, Some(run)) => match self.ended(&sfn, run).await? {
                None => format!("Run {run} is at work."),
                Some(why) => {
                    warn!(rotation.id = %doc.id, iam.user = %user, "Run {run} brought no working key: {why}");
                    replacement.way = Way::Person;
                    format!("Run {run} brought none: {why} {}", by_hand(&doc, &user, &known.secret, &facts))
                }
            },
        };
        let told = (replacement.working, replacement.way);
        doc.replacement = Some(replacement);
        let now = ctx.clock.now();
        match told {
            (_, Way::NotNeeded) => {}
            (true, _) => doc.announce_again(now, NoticeKind::Replacement, "/working"),
            (false, Way::Person) => doc.announce_again(now, NoticeKind::Replacement, "/person"),
            // By the second look a replacement should have come.
            (false, _) if doc.looks > 0 => doc.announce_again(now, NoticeKind::Replacement, "/not-yet"),
            (false, _) => {}
        }
        if doc.phase == Phase::ReplaceFirst && working {
            doc.wait_until = Some(keywheel::clock::wait_time(now));
        }
        Ok(doc)
    }
}

/// The run that an incident starts for a purpose.
fn run_of(doc: &Incident, purpose: &str) -> RunId {
    RunId::standing_for(&format!("{}/{purpose}", doc.id))
}

fn not_needed(mut doc: Incident, help: &str) -> Incident {
    doc.replacement = Some(Replacement {
        way: Way::NotNeeded,
        run: None,
        secret: None,
        working: false,
        help: help.to_owned(),
    });
    doc
}

/// The same for a user of whom Keywheel has no key.
fn nobodys(mut doc: Incident, help: &str) -> Incident {
    doc.ours = Some(Ours { managed: false, keys: Vec::new() });
    not_needed(doc, help)
}

/// The user's secret and the keys that its labels name; `None` where it does not name the user back.
async fn read(
    store: &aws_sdk_secretsmanager::Client,
    arn: &SecretArn,
    user: &UserName,
) -> Result<Option<Known>, StepError> {
    let secret = match secrets::describe(store, arn.as_str()).await {
        Ok(secret) => secret,
        Err(error) if error.is_refused(&["ResourceNotFoundException"]) => return Ok(None),
        Err(error) => return Err(error),
    };
    if secret.deleted || secret.user.as_deref() != Some(user.as_str()) {
        return Ok(None);
    }
    let current = key_of(store, arn, &secret, CURRENT, user).await?;
    let previous = key_of(store, arn, &secret, PREVIOUS, user).await?;
    let pending = match secret.labelled(PENDING) {
        Some(id) if !secret.carries(&id, CURRENT) && !secret.carries(&id, PREVIOUS) => {
            key_of(store, arn, &secret, PENDING, user).await?
        }
        _ => None,
    };
    Ok(Some(Known { secret, current, previous, pending }))
}

async fn key_of(
    store: &aws_sdk_secretsmanager::Client,
    arn: &SecretArn,
    secret: &Secret,
    label: &str,
    user: &UserName,
) -> Result<Option<AccessKeyId>, StepError> {
    if secret.labelled(label).is_none() {
        return Ok(None);
    }
    let value = secrets::value(store, arn, Which::Label(label)).await?;
    Ok(value.and_then(|value| SecretValue::parse(value.text.as_deref(), user).ok()?.key()))
}

impl Replace {
    /// Starts the rotation. That it was started before is as good.
    async fn start(
        &self,
        sfn: &aws_sdk_sfn::Client,
        run: RunId,
        secret: &SecretArn,
        way: Way,
    ) -> Result<(), StepError> {
        let mut input = json!({"secret": secret, "reason": "leaked"});
        if way == Way::Back {
            input["roll_back"] = json!(true);
        }
        let call = sfn.start_execution().state_machine_arn(&self.rotation).name(run.to_string());
        match call.input(input.to_string()).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = StepError::from_sdk("states:StartExecution", &error);
                if error.is_refused(&["ExecutionAlreadyExists"]) { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Why a run that has ended brought nothing; `None` while it is at work.
    async fn ended(&self, sfn: &aws_sdk_sfn::Client, run: RunId) -> Result<Option<String>, StepError> {
        let reply = sfn.describe_execution().execution_arn(self.execution(run)).send().await;
        let reply = reply.map_err(|error| StepError::from_sdk("states:DescribeExecution", &error))?;
        if matches!(reply.status(), ExecutionStatus::Running | ExecutionStatus::PendingRedrive) {
            return Ok(None);
        }
        let doc: Option<Rotation> = reply.output().and_then(|output| serde_json::from_str(output).ok());
        Ok(Some(match doc.and_then(|doc| doc.why) {
            Some(why) => format!("{}: {}", why.code, why.text),
            None => format!("it ended {}.", reply.status()),
        }))
    }
}

/// What a person can do, to the letter.
fn by_hand(doc: &Incident, user: &UserName, secret: &Secret, facts: &Facts<'_>) -> String {
    let others = facts.keys.iter().filter(|key| !facts.leaked.contains(&key.id));
    let others: Vec<&str> = others.map(|key| key.id.as_str()).collect();
    let rotate = if doc.account.is_none() {
        format!("`keywheel rotate --user {user} --reason leaked`")
    } else {
        let input = json!({"secret": secret.arn, "reason": "leaked"});
        format!("an execution of the rotation machine with the input `{input}`")
    };
    match others.as_slice() {
        [] => format!("Once a slot of {user} is free: {rotate}."),
        [other, ..] => format!(
            "Both slots of {user} are taken. If nobody needs key {other}: `aws iam delete-access-key --user-name {user} --access-key-id {other}`, then {rotate}. If the application may use it: store its pair in {}.",
            secret.name
        ),
    }
}

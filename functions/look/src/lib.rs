//! The `Look` state: reads the facts once and tells where the run enters.
//!
//! Changes nothing. Whatever stands against a run ends it here as Blocked, with the reason and what to do;
//! only what may pass by itself (throttling, a service that does not answer) is an error that the machine retries.

use aws_types::SdkConfig;
use jiff::Timestamp;
use keywheel::decide::entry::{self, Entry, Start};
use keywheel::replica::Follows;
use keywheel::rotation::{Baseline, Caught, Outcome, Reason, Request, Rotation, Why};
use keywheel::{Context, RunId, SecretArn, Step, StepError, UserName, aws};
use serde_json::Value;
use tracing::info;

use facts::iam::User;
use facts::left::{self, Versions};
use facts::member::{self, Members};
use facts::secrets::{self, Secret};

/// What the machine hands its first step.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Begin {
    /// The machine's input as it came; read here, so that a mistake in it gets a clear answer.
    pub input: Value,
    /// The execution's name.
    pub run: String,
    /// The execution's ARN.
    pub execution: String,
    /// When the execution started.
    pub started: Timestamp,
    /// The error after which the machine stopped asking for facts; then none are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<Caught>,
}

/// Why gathering stopped.
enum Stop {
    Blocked(Why),
    Error(StepError),
}

impl From<StepError> for Stop {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Refused(ref failure) => Self::Blocked(Why::new(
                failure.code.clone(),
                format!("Nothing was changed: {failure}."),
                "Give the role of the Look function this right, or mend what the message names.",
            )),
            StepError::Conflict(text) => {
                Self::Blocked(Why::new("Conflict", format!("Nothing was changed: {text}."), ""))
            }
            StepError::BadInput(text) => Self::Blocked(Why::new("BadInput", text, "")),
            passing => Self::Error(passing),
        }
    }
}

fn blocked(code: &str, text: String, remedy: impl Into<String>) -> Stop {
    Stop::Blocked(Why::new(code, text, remedy))
}

/// The step.
pub struct Look {
    config: SdkConfig,
    members: Option<Members>,
}

impl Look {
    /// A step that calls AWS with `config`, and enters other accounts where there are `members`.
    pub fn new(config: SdkConfig, members: Option<Members>) -> Self {
        Self { config, members }
    }

    /// The configuration for calls in the secret's account and region; a name is one of the installation's own.
    async fn enter(&self, doc: &Rotation) -> Result<SdkConfig, Stop> {
        let config = aws::for_run(&self.config, doc.run);
        let Ok(secret) = doc.request.secret.parse::<SecretArn>() else { return Ok(config) };
        let members = self.members.as_ref();
        match member::of_secret(members, &config, &secret, (doc.own_account(), doc.run)).await {
            Ok(config) => Ok(aws::in_region(&config, secret.region())),
            Err(error) if member::is_shut(&error) || matches!(error, StepError::Conflict(_)) => Err(blocked(
                "AccountNotEntered",
                format!("Nothing was changed in account {}: {error}.", secret.account()),
                "Deploy infra/member.yaml there, with the outputs and the external id of the hub's stack.",
            )),
            Err(error) => Err(error.into()),
        }
    }

    async fn gather(&self, doc: &mut Rotation, ctx: &Context) -> Result<Entry, Stop> {
        let config = self.enter(doc).await?;
        let iam = aws_sdk_iam::Client::new(&config);
        let store = aws_sdk_secretsmanager::Client::new(&config);
        let ssm = aws_sdk_ssm::Client::new(&aws::for_run(&self.config, doc.run));
        let mode = facts::switch::mode(&ssm, &ctx.stage).await?;

        let secret = describe(&store, &doc.request.secret).await?;
        doc.secret = Some(secret.arn.clone());
        let user = managed_user(&iam, &secret).await?;
        let name = user.facts.name.clone();
        let keys = facts::iam::keys(&iam, &name).await?;
        let current = left::current(&store, &secret.arn, &name).await.map_err(unreadable)?;
        let current = current.map_err(|error| {
            blocked(
                error.code(),
                format!("{}: {error}.", secret.name),
                "Put the value right; Keywheel keeps every other field of it.",
            )
        })?;
        doc.baseline = Some(Baseline {
            at: ctx.clock.now(),
            secret_name: secret.name.clone(),
            user: user.facts.clone(),
            current: current.version.clone(),
            keys: keys.clone(),
        });
        let rivals = secrets::rivals(&store, &name, &secret.arn).await?;

        let sfn = aws_sdk_sfn::Client::new(&aws::for_run(&self.config, doc.run));
        let runs = (&sfn, doc.execution.as_str());
        let found = (&keys[..], ctx.clock.now());
        let Versions { pending, previous_key, current_run, .. } =
            // On the heap: the SDK's futures are deep, and the compiler counts their depth.
            Box::pin(left::versions(&store, runs, (&secret, &name), &current, found))
                .await
                .map_err(unreadable)?;
        let facts = entry::Facts {
            now: ctx.clock.now(),
            evidence: left::evidence((&iam, &ssm, &ctx.stage), &keys, current.key()).await?,
            reason: doc.request.reason,
            roll_back: doc.request.roll_back,
            dry_run: doc.request.dry_run,
            mode,
            rivals,
            current: current.version,
            current_run,
            previous_key,
            pending,
            keys,
            retire: user.retire,
            keep: user.keep,
        };
        let entry = entry::decide(&facts, name.as_str());
        // What leaked, and what goes back, waits for no region; whoever goes on with the first of them neither.
        let is_leaked =
            matches!(&entry, Entry::At(start) if start.leaked) || doc.request.reason == Reason::Leaked;
        let failed = replica_failed(&secret).filter(|_| !is_leaked && !doc.request.roll_back);
        failed.map_or(Ok(entry), Err)
    }
}

impl Step for Look {
    const NAME: &'static str = "look";
    type Input = Begin;
    type Output = Rotation;

    async fn run(&self, begin: Begin, ctx: &Context) -> Result<Rotation, StepError> {
        let (mut doc, refusal) = document(&begin);
        let now = ctx.clock.now();
        let refusal = refusal.or_else(|| {
            begin.given_up.map(|error| {
                Why::new(
                    error.error.clone(),
                    format!("Nothing was changed: the facts could not be read: {}.", error.message()),
                    "Start again when the service answers.",
                )
            })
        });
        let entry = match refusal {
            Some(why) => Entry::Blocked(why),
            None => match self.gather(&mut doc, ctx).await {
                Ok(entry) => entry,
                Err(Stop::Blocked(why)) => Entry::Blocked(why),
                Err(Stop::Error(error)) => return Err(error),
            },
        };
        match entry {
            Entry::Blocked(why) => {
                info!(rotation.id = %doc.run, iam.user = doc.user_name(), why = why.code, "Blocked: {}", why.text);
                doc.end(now, Outcome::Blocked, why);
            }
            Entry::At(start) => {
                info!(rotation.id = %doc.run, iam.user = doc.user_name(), "This run will {}", start.plan);
                enter(&mut doc, start);
            }
        }
        Ok(doc)
    }
}

fn enter(doc: &mut Rotation, start: Start) {
    doc.new = start.new;
    doc.old = start.old;
    doc.suspects = start.suspects;
    doc.phase = start.phase;
    if start.leaked {
        doc.request.reason = Reason::Leaked;
    }
}

/// The document at its beginning, and why it must not go further, where the input says so itself.
fn document(begin: &Begin) -> (Rotation, Option<Why>) {
    let mut input = begin.input.clone();
    if begin.given_up.is_some()
        && let Some(fields) = input.as_object_mut()
    {
        // The machine has put the error it caught beside the fields.
        fields.remove("error");
    }
    let mut refusal = None;
    let mut refuse = |text: String| {
        let remedy = r#"The input is {"secret": "<name or ARN>"}, with reason, policy, dry_run, roll_back and on_promoted as you like."#;
        refusal = Some(Why::new("BadInput", text, remedy));
    };
    let given = input.get("secret").and_then(Value::as_str).unwrap_or_default().to_owned();
    // Somebody who waits on a token is told even when the rest of the input is nonsense.
    let token = input.get("on_promoted").and_then(Value::as_str).map(str::to_owned);
    let request = serde_json::from_value::<Request>(input).unwrap_or_else(|error| {
        refuse(format!("Nothing was changed: the input is not understood: {error}."));
        Request {
            secret: given,
            reason: Reason::default(),
            policy: keywheel::policy::PolicyOverride::default(),
            dry_run: false,
            roll_back: false,
            on_promoted: token,
        }
    });
    let policy = keywheel::policy::Policy::default();
    let policy = policy.with(&request.policy).unwrap_or_else(|error| {
        refuse(format!("Nothing was changed: {error}."));
        policy
    });
    if request.secret.trim().is_empty() {
        refuse("Nothing was changed: the input names no secret.".into());
    }
    let run = begin.run.parse::<RunId>().unwrap_or_else(|error| {
        refuse(format!("Nothing was changed: {error}."));
        RunId::standing_for(&begin.execution)
    });
    (Rotation::new(run, begin.execution.clone(), begin.started, request, policy), refusal)
}

async fn describe(store: &aws_sdk_secretsmanager::Client, asked: &str) -> Result<Secret, Stop> {
    let secret = match secrets::describe(store, asked).await {
        Ok(secret) => secret,
        Err(error) if error.is_refused(&["ResourceNotFoundException"]) => {
            return Err(blocked(
                "NoSuchSecret",
                format!("There is no secret {asked:?} in this account and region."),
                "Check the name; a secret of another region is named by its ARN.",
            ));
        }
        Err(error) => return Err(error.into()),
    };
    if secret.deleted {
        return Err(blocked(
            "SecretPendingDeletion",
            format!("The secret {} is scheduled for deletion.", secret.name),
            "Restore it, or enrol the user with another secret.",
        ));
    }
    if let Some(region) = &secret.primary_region {
        return Err(blocked(
            "SecretIsReplica",
            format!("The secret {} is a replica; its primary lives in {region}.", secret.name),
            format!("Rotate the primary, {}; replicas follow it.", secret.arn.in_region(region)),
        ));
    }
    Ok(secret)
}

/// Why nothing is begun that would make the old key stay, for those who read the secret there, however long.
fn replica_failed(secret: &Secret) -> Option<Stop> {
    secret.replication.iter().find_map(|there| match &there.follows {
        Follows::NoMore(why) => Some(blocked(
            "ReplicaFailed",
            format!("The replica of secret {} in {} follows it no more: {why}.", secret.name, there.region),
            "Mend the replication, or remove the replica from that region when nobody reads it there.",
        )),
        _ => None,
    })
}

/// The user that the secret names, and that names the secret back. Either tag alone proves nothing:
/// whoever may create secrets could otherwise obtain any user's key.
async fn managed_user(iam: &aws_sdk_iam::Client, secret: &Secret) -> Result<User, Stop> {
    let enroll = "`keywheel enroll --user <name> --secret <secret>` sets both tags.";
    let Some(name) = &secret.user else {
        return Err(blocked(
            "NotManaged",
            format!("The secret {} has no tag keywheel:user.", secret.name),
            enroll,
        ));
    };
    let name: UserName = name.parse().map_err(|error| {
        blocked(
            "NotManaged",
            format!("The tag keywheel:user of the secret {}: {error}.", secret.name),
            enroll,
        )
    })?;
    let Some(user) = facts::iam::user(iam, &name).await? else {
        return Err(blocked(
            "NoSuchUser",
            format!("There is no IAM user {name}, whom the secret {} names.", secret.name),
            enroll,
        ));
    };
    match &user.secret {
        Some(arn) if arn == secret.arn.as_str() => Ok(user),
        other => {
            let names = other.as_deref().unwrap_or("no secret");
            Err(blocked(
                "NotMutual",
                format!(
                    "The secret {} names user {name}, but that user's tag keywheel:secret names {names}.",
                    secret.name
                ),
                enroll,
            ))
        }
    }
}

fn unreadable(error: StepError) -> Stop {
    match error {
        StepError::Refused(failure) if failure.call == "secretsmanager:GetSecretValue" => blocked(
            "SecretUnreadable",
            format!("The secret's value could not be read: {failure}."),
            "Let the role of the Look function read the secret and use its KMS key.",
        ),
        other => other.into(),
    }
}

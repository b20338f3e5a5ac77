//! The `Scan` state: the plan of a campaign, written where the machine's Map reads it.
//!
//! It changes nothing but the objects that are named after the campaign, and what is remembered of warnings, and starts
//! a run for each key that nobody uses, where the policy says so. Whatever could not be read is skipped and said, never
//! rotated; a policy with a mistake starts nothing at all. What runs that have ended have left of a user is planned
//! beside what is due: its rotation goes on where they stopped.

mod ahead;
mod elsewhere;
mod unused;

use ahead::Ahead;
use aws_types::SdkConfig;
use elsewhere::{Elsewhere, Reading};
use facts::bucket::{Bucket, Deleted, keep_outcome};
use facts::estate::{self, Installation};
use facts::member::Members;
use facts::{executions, secrets};
use jiff::Timestamp;
use keywheel::campaign::{
    Begin, Campaign, Counts, Failed, Item, NAMED, Outcome, POLICY, Request, outcome_of,
};
use keywheel::decide::ahead::held;
use keywheel::decide::campaign::{self, Next};
use keywheel::decide::due::{self, Calendar};
use keywheel::fleet::FleetPolicy;
use keywheel::fleet::estate::{Estate, Looks};
use keywheel::fleet::plan::{Action, Line};
use keywheel::fleet::policy::{Exemption, Terms};
use keywheel::fleet::rules::{DEFAULTS, Standing, Subject};
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Reason, Why};
use keywheel::unused::Removed;
use keywheel::{Context, RunId, SecretArn, Step, StepError, UserName, aws};
use serde_json::Value;
use tracing::info;

/// The most secrets that a request may name: they travel in the document.
const NAMES: usize = 200;

/// What of the installation a campaign is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bucket that its plan is kept in.
    pub bucket: String,
    /// The machine whose rotations it starts.
    pub rotation: String,
    /// The role under which they make keys: what CloudTrail's record of an orphan must name.
    pub create_role: String,
    /// The machine on which it starts removals of unused keys.
    pub removals: String,
}

/// The step.
pub struct Scan {
    config: SdkConfig,
    members: Option<Members>,
    settings: Settings,
}

impl Scan {
    /// A step that calls AWS with `config`, and reads other accounts where there are `members`.
    pub fn new(config: SdkConfig, members: Option<Members>, settings: Settings) -> Self {
        Self { config, members, settings }
    }
}

impl Step for Scan {
    const NAME: &'static str = "scan";
    type Input = Begin;
    type Output = Campaign;

    /// Run twice, it makes the plan anew and writes it into a folder of its own: however late an attempt comes, the batches
    /// that its document names are those that it has planned. Whom the first one has warned it warns again, in the same
    /// notices, and nobody else.
    async fn run(&self, begin: Begin, ctx: &Context) -> Result<Campaign, StepError> {
        let Settings { bucket, rotation, create_role, removals } = &self.settings;
        let mut doc = Campaign::new(&begin, asked(&begin.input)?, bucket);
        doc.attempt = Some(RunId::random());
        let config = aws::for_run(&self.config, doc.campaign);
        let bucket = Bucket::new(&config, bucket);
        let (region, account) = place(&doc.execution)?;
        let installation = Installation {
            config: config.clone(),
            rotation: rotation.clone(),
            stage: ctx.stage.clone(),
            create_role: Some(create_role.clone()),
        };
        let elsewhere = Elsewhere::new(self.members.as_ref(), &installation, (account, region), &doc);
        // On the heap: as one future, all that it reads is deeper than the compiler follows.
        let ahead = Box::pin(prepare(&elsewhere, (&bucket, removals.as_str()), &mut doc, ctx)).await?;
        if doc.outcome.is_some() {
            keep_outcome(&bucket, &doc).await?;
        }
        // Last of all: what is remembered here the document is to tell, and nothing may fail between the two.
        if let Some(ahead) = ahead {
            Box::pin(ahead.tell(&config, &bucket, &mut doc, ctx.clock.now())).await;
        }
        Ok(doc)
    }
}

/// What is asked. A word that would mean more than its writer can have meant is refused.
fn asked(input: &Value) -> Result<Request, StepError> {
    let wrong = |what: &str| Err(StepError::BadInput(format!("a campaign's input {what}")));
    // A list would pass for a request that leaves everything out.
    if !input.is_object() {
        return wrong("is an object");
    }
    let request: Request = serde_json::from_value(input.clone())
        .map_err(|error| StepError::BadInput(format!("a campaign's input is not understood: {error}")))?;
    if request.secrets.is_empty() && input.get("secrets").is_some() {
        return wrong("names no secret in `secrets`; leave it out where all that is due is meant");
    }
    if request.reason == Reason::Leaked {
        return wrong("cannot say `leaked`: a leaked key is one user's (`keywheel rotate --reason leaked`)");
    }
    Ok(request)
}

/// Makes the plan, and begins its first batch or ends the campaign. What it returns is to be told ahead.
async fn prepare(
    elsewhere: &Elsewhere<'_>,
    (bucket, removals): (&Bucket, &str),
    doc: &mut Campaign,
    ctx: &Context,
) -> Result<Option<Ahead>, StepError> {
    let (config, now) = (elsewhere.config, ctx.clock.now());
    if let Some(why) = other(config, bucket, doc).await? {
        doc.end(now, Outcome::Refused, why);
        return Ok(None);
    }
    let policy = match policy(bucket, doc).await? {
        Ok(policy) => policy,
        Err(why) => {
            doc.end(now, Outcome::Refused, why);
            return Ok(None);
        }
    };
    doc.tolerance = policy.limits.failure_tolerance_percent;
    doc.freeze = policy.limits.freezes_left(now);

    let Whole { planned: (lines, mut items), calendar, removed } = if doc.request.secrets.is_empty() {
        Box::pin(due_now(elsewhere, doc, &policy, ctx)).await?
    } else {
        let allowed = usize::try_from(policy.limits.keys_per_run).unwrap_or(NAMES).min(NAMES);
        let asked = doc.request.secrets.len();
        if asked > allowed {
            let text = format!("{asked} secrets are named, and {allowed} may be.");
            let remedy = "Name fewer: `keys_per_run` of the policy is the limit, and 200 in any case.";
            doc.end(now, Outcome::Refused, Why::new("Limit", text, remedy));
            return Ok(None);
        }
        let planned = Box::pin(named(elsewhere, doc, &policy, now)).await?;
        Whole { planned, calendar: None, removed: Vec::new() }
    };
    items.sort_by_key(|(wave, _)| *wave);
    let batches = doc.divide(items);
    write_plan(bucket, doc, &lines, &batches).await?;

    let mode = facts::switch::mode(&aws_sdk_ssm::Client::new(config), &ctx.stage).await?;
    doc.counts.unused = unused::start(config, removals, &removed, ctx.clock.now()).await;
    info!(rotation.id = %doc.campaign, "Planned {} keys in {} batches", doc.keys(), batches.len());
    let now = ctx.clock.now();
    match campaign::begin(doc, mode, now) {
        Next::Go => {
            doc.announce(now, NoticeKind::Planned);
            doc.begin_batch(now);
        }
        Next::End(outcome, why) => doc.end(now, outcome, why),
    }
    let held = held(mode, policy.limits.frozen(now));
    Ok(calendar.map(|calendar| Ahead { calendar, held }))
}

/// Why this campaign must not run: another one does, which began before it.
async fn other(config: &SdkConfig, bucket: &Bucket, doc: &Campaign) -> Result<Option<Why>, StepError> {
    let others = executions::beside(&aws_sdk_sfn::Client::new(config), &doc.execution).await?;
    let own = (doc.started, doc.execution.as_str());
    for (arn, _) in others.iter().filter(|(arn, started)| (*started, arn.as_str()) < own) {
        // One that has its outcome only tries to tell it, which may take a day and rotates nothing.
        if bucket.read(&outcome_of(arn), None).await?.is_none() {
            return Ok(Some(Why::new(
                "CampaignInProgress",
                format!("Another campaign runs: {arn}."),
                "Wait for its end, or stop it (`keywheel fleet stop`); the next one takes up what is still due.",
            )));
        }
    }
    Ok(None)
}

/// The policy that holds, or why there is none. What nobody has pushed is the careful default.
async fn policy(bucket: &Bucket, doc: &mut Campaign) -> Result<Result<FleetPolicy, Why>, StepError> {
    let asked = doc.request.policy_version.clone();
    let found = match bucket.read_kept(POLICY, asked.as_deref()).await? {
        Ok(found) => found,
        Err(Deleted) => {
            return Ok(Err(Why::new(
                "PolicyDeleted",
                format!("A policy was pushed, and {} has been deleted since.", bucket.address(POLICY)),
                "Push one again (`keywheel policy push FILE`), or take the delete marker off: nothing runs by the defaults where somebody had decided otherwise.",
            )));
        }
    };
    let Some(stored) = found else {
        return Ok(match asked {
            None => Ok(FleetPolicy::default()),
            Some(version) => Err(Why::new(
                "NoSuchPolicy",
                format!("The policy has no version {version}."),
                "Leave policy_version out, or name one that `keywheel policy push` has told.",
            )),
        });
    };
    // S3's own word for the one version of a bucket that keeps no others.
    doc.policy_version = Some(stored.version.unwrap_or_else(|| "null".to_owned()));
    let remedy =
        "Mend it (`keywheel policy check FILE`) and push it; nothing runs on a policy with a mistake.";
    let document: Value = match serde_json::from_str(&stored.text) {
        Ok(document) => document,
        Err(error) => {
            return Ok(Err(Why::new("BadPolicy", format!("The policy is no JSON: {error}."), remedy)));
        }
    };
    Ok(FleetPolicy::read(document).map_err(|mistakes| {
        let first: Vec<String> = mistakes.iter().take(5).map(ToString::to_string).collect();
        let text = format!("The policy has {} mistakes: {}.", mistakes.len(), first.join("; "));
        Why::new("BadPolicy", text, remedy)
    }))
}

/// The lines of a plan, and its rotations, each with its wave.
type Planned = (Vec<Line>, Vec<(u32, Item)>);

/// What a campaign over whole accounts does.
struct Whole {
    planned: Planned,
    /// When its keys are due, where owners are told ahead.
    calendar: Option<Calendar>,
    /// The keys that nobody uses, and for which a run of their own is started.
    removed: Vec<Removed>,
}

/// The plan over the installation's whole account and the others that the policy names.
async fn due_now(
    elsewhere: &Elsewhere<'_>,
    doc: &mut Campaign,
    policy: &FleetPolicy,
    ctx: &Context,
) -> Result<Whole, StepError> {
    // The machine's own account and region are where managed secrets are, unless the policy names more.
    let (config, installation, (own, region)) = (elsewhere.config, elsewhere.installation, &elsewhere.own);
    let regions = if policy.regions.is_empty() { vec![region.clone()] } else { policy.regions.clone() };
    // On the heap, as all that reads much: the compiler counts how deep the futures of a function are.
    let estate = Box::pin(estate::read(config, Some(installation), own, &regions, &ctx.clock)).await?;
    let looks =
        Box::pin(estate::look_until_full(config, installation, (policy, &estate), ctx.clock.now())).await;
    let mut all: Vec<Reading> = vec![(estate, looks)];
    all.extend(Box::pin(elsewhere.read(policy, &regions, &ctx.clock)).await);
    let now = ctx.clock.now();
    let all: Vec<(&Estate, &Looks)> = all.iter().map(|one| (&one.0, &one.1)).collect();
    let estates: Vec<&Estate> = all.iter().map(|(estate, _)| *estate).collect();
    let mut plan = due::plan_over(policy, &all, now);
    let removed = Box::pin(unused::find(config, doc, (policy, &estates), &mut plan.lines, ctx)).await;
    // What a person asks for by hand warns nobody.
    let warns = policy.warns() && doc.request.reason == Reason::Scheduled && !doc.request.dry_run;
    let calendar = warns.then(|| due::calendar_of_all(policy, &estates, now));
    let item = |line: &Line| {
        let (wave, secret, terms) = (line.wave?, line.secret.as_ref()?, line.terms.as_ref()?);
        let item = Item::new(doc.campaign, secret.as_str(), Some(&line.user), doc.request.reason, terms);
        Some((wave, Item { only_retires: line.only_retires(), ..item }))
    };
    let items: Vec<(u32, Item)> = plan.with(Action::Rotate).filter_map(item).collect();
    doc.counts = Counts {
        users: estates.iter().map(|estate| estate.users.len()).sum(),
        rotate: items.len(),
        skip: plan.with(Action::Skip).count(),
        find: plan.with(Action::Find).count(),
        unread: plan.lines.iter().filter(|line| line.is_unread()).count(),
        warned: 0,
        unused: 0,
    };
    Ok(Whole { planned: (plan.lines, items), calendar, removed })
}

/// The region and the account of an execution.
fn place(execution: &str) -> Result<(String, String), StepError> {
    let parts: Vec<&str> = execution.splitn(6, ':').collect();
    match parts[..] {
        [_, _, _, region, account, _] => Ok((region.to_owned(), account.to_owned())),
        _ => Err(StepError::BadInput(format!("{execution} is no execution's ARN"))),
    }
}

/// The secrets that the request names, each by the terms that hold for it. One that cannot be read gets its run all the
/// same, by the policy's defaults: that run says what is wrong, and stops no other. An exemption holds here too.
async fn named(
    elsewhere: &Elsewhere<'_>,
    doc: &mut Campaign,
    policy: &FleetPolicy,
    now: Timestamp,
) -> Result<Planned, StepError> {
    let (mut lines, mut items) = (Vec::new(), Vec::new());
    let mut skipped = Vec::new();
    for asked in &doc.request.secrets {
        let named = Box::pin(look_up(elsewhere, policy, asked, now)).await?;
        let account = named.secret.as_ref().map_or(elsewhere.own.0.as_str(), SecretArn::account).to_owned();
        let secret = named.secret.as_ref().map_or(asked.as_str(), SecretArn::as_str);
        let item = Item::new(doc.campaign, secret, named.user.as_deref(), doc.request.reason, &named.terms);
        // Named twice, by its name and by its ARN, it is rotated once.
        if items.iter().any(|(_, other): &(u32, Item)| other.run == item.run) {
            continue;
        }
        let wave = named.terms.wave;
        let (action, code, why) = match named.against {
            Some((code, why)) => (Action::Skip, code, why),
            None => (Action::Rotate, "Asked", "The request names its secret.".to_owned()),
        };
        let whom = item.whom().to_owned();
        if action == Action::Skip {
            skipped.push(Failed {
                run: item.run,
                whom: whom.clone(),
                wave,
                code: code.into(),
                text: why.clone(),
            });
        } else {
            items.push((wave, item));
        }
        lines.push(Line {
            user: whom,
            account,
            key_id: None,
            age_days: None,
            rule: Some(named.rule),
            wave: (action == Action::Rotate).then_some(wave),
            action,
            code,
            why,
            secret: named.secret,
            owner: named.terms.owner.clone(),
            terms: (action == Action::Rotate).then_some(named.terms),
        });
    }
    let unread = lines.iter().filter(|line| line.is_unread()).count();
    doc.counts = Counts { rotate: items.len(), skip: skipped.len(), unread, ..Counts::default() };
    skipped.truncate(NAMED);
    doc.failed = skipped;
    Ok((lines, items))
}

/// A secret that the request names, as far as it could be read.
struct Named {
    secret: Option<SecretArn>,
    user: Option<String>,
    rule: String,
    terms: Terms,
    /// What stands against its rotation.
    against: Option<(&'static str, String)>,
}

async fn look_up(
    elsewhere: &Elsewhere<'_>,
    policy: &FleetPolicy,
    asked: &str,
    now: Timestamp,
) -> Result<Named, StepError> {
    let (rule, terms) = (DEFAULTS.to_owned(), policy.usual());
    let mut named = Named { secret: None, user: None, rule, terms, against: None };
    let arn = asked.parse::<SecretArn>();
    // What may pass by itself is asked again by the machine: of the installation's own account, for which all wait.
    let is_own = match &arn {
        Ok(arn) => arn.account() == elsewhere.own.0,
        Err(_) => true,
    };
    let config = match arn {
        Ok(arn) => match elsewhere.config_for(&arn).await {
            Ok(config) => aws::in_region(&config, arn.region()),
            // Nothing of an account that lets nobody in is known, and no other waits for it.
            Err(error) => return Ok(unread(Named { secret: Some(arn), ..named }, &error)),
        },
        Err(_) => elsewhere.config.clone(),
    };
    let store = aws_sdk_secretsmanager::Client::new(&config);
    let secret = match secrets::describe(&store, asked).await {
        Ok(secret) => secret,
        Err(error @ (StepError::Throttled(_) | StepError::NotYetVisible(_))) if is_own => return Err(error),
        // Its run says so.
        Err(error) if error.is_refused(&["ResourceNotFoundException"]) => return Ok(named),
        // Whom it belongs to is not known, and so not whether an exemption holds.
        Err(error) => return Ok(unread(named, &error)),
    };
    named.secret = Some(secret.arn.clone());
    let Some(name) = secret.user.as_deref() else { return Ok(named) };
    named.user = Some(name.to_owned());
    let path = match name.parse::<UserName>() {
        Ok(user) => match facts::iam::user(&aws_sdk_iam::Client::new(&config), &user).await {
            Ok(user) => user.map(|user| estate::path(&user.facts.arn, name)),
            Err(error @ (StepError::Throttled(_) | StepError::NotYetVisible(_))) if is_own => {
                return Err(error);
            }
            Err(error) => return Ok(unread(named, &error)),
        },
        Err(_) => None,
    };
    let subject = Subject {
        account: secret.arn.account(),
        user: name,
        path: path.as_deref().unwrap_or("/"),
        tags: Some(&secret.tags),
    };
    match policy.decide(&subject) {
        Ok(decided) => (named.rule, named.terms) = (decided.rule, decided.terms),
        Err(why) => named.against = Some(("NoSuchRule", format!("No rule decides: {why}."))),
    }
    if let Some((exemption, Standing::Holds)) = policy.exemption(&subject, now) {
        let Exemption { until, owner, reason, .. } = exemption;
        named.against = Some(("Exempt", format!("Exempt until {until} ({owner}: {reason}).")));
    }
    Ok(named)
}

/// What cannot be read is left alone.
fn unread(named: Named, error: &StepError) -> Named {
    Named { against: Some(("Unread", format!("It could not be read: {error}."))), ..named }
}

/// Writes the plan and the batches.
async fn write_plan(
    bucket: &Bucket,
    doc: &Campaign,
    lines: &[Line],
    batches: &[Vec<Item>],
) -> Result<(), StepError> {
    let unwritten =
        |error: serde_json::Error| StepError::BadInput(format!("the plan cannot be written: {error}"));
    let mut plan = String::new();
    for line in lines {
        plan += &serde_json::to_string(line).map_err(unwritten)?;
        plan.push('\n');
    }
    bucket.write(&doc.plan(), "application/jsonl", plan).await?;
    for (index, batch) in batches.iter().enumerate() {
        let text = serde_json::to_string(batch).map_err(unwritten)?;
        bucket.write(&doc.items(index + 1), "application/json", text).await?;
    }
    Ok(())
}

//! The `Contain` and `LookAgain` states: a leaked key is made Inactive and read back, and looked at again.
//!
//! What is done is decided in `keywheel::decide::contain`. On the way to Inactive stand two calls, one for the owner
//! and one to switch the key off; what may speak against it is read beside the first. Nothing that comes after, a
//! read back or a record, can undo it.

mod ask;
mod look;

use std::time::Duration;

use aws_sdk_iam::types::StatusType;
use aws_types::SdkConfig;
use facts::member::{self, Members};
use facts::switch::{self, Standing};
use keywheel::decide::contain::{self as decision, Decision, Facts, Kept, Owner};
use keywheel::emergency::{BRAKE_SPAN, RoleSessions};
use keywheel::incident::{Phase, Record, RecordState, SCHEMA};
use keywheel::key::{self, KeyFacts};
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Outcome, Why};
use keywheel::triage::{Class, Source};
use keywheel::{AccessKeyId, Context, Incident, RunId, Step, StepError, UserName, aws};
use tracing::{info, warn};

/// IAM is read back until it shows what was done.
const READ_BACK: [Duration; 5] = [
    Duration::from_secs(0),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// How a record that could not be kept is noted.
const RECORD: &str = "record";

/// How long before a record that could not be read is asked for again.
const ASK_FOR_RECORD: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];

/// How long is waited for what may speak against containment.
const IN_TIME: Duration = Duration::from_secs(3);

/// How many seconds after an event others are counted with it: those of one flood wait for each other's start.
const BRAKE_AFTER: i64 = 60;

/// How many pages of incidents, of a thousand each, are read for that.
const MOST_PAGES: usize = 5;

/// How often a replacement that comes first is asked about.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// The step.
pub struct Contain {
    config: SdkConfig,
    members: Option<Members>,
}

/// The clients of one invocation.
struct Tools<'a> {
    config: SdkConfig,
    members: Option<&'a Members>,
    /// IAM in the account that the credential belongs to, as soon as that is known.
    iam: aws_sdk_iam::Client,
    ssm: aws_sdk_ssm::Client,
    sts: aws_sdk_sts::Client,
    sfn: aws_sdk_sfn::Client,
    ctx: &'a Context,
}

impl Contain {
    /// A step that calls AWS with `config`, and enters other accounts where there are `members`.
    pub fn new(config: SdkConfig, members: Option<Members>) -> Self {
        Self { config, members }
    }
}

impl Step for Contain {
    const NAME: &'static str = "contain";
    type Input = Incident;
    type Output = Incident;

    /// Run twice, it finds the key Inactive and says the same. Killed half way, it leaves the key Active or
    /// Inactive, both of which the next attempt understands.
    async fn run(&self, mut doc: Incident, ctx: &Context) -> Result<Incident, StepError> {
        let config = aws::for_run(&self.config, doc.id);
        let mut tools = Tools {
            iam: aws_sdk_iam::Client::new(&config),
            members: self.members.as_ref(),
            ssm: aws_sdk_ssm::Client::new(&config),
            sts: aws_sdk_sts::Client::new(&config),
            sfn: aws_sdk_sfn::Client::new(&config),
            config,
            ctx,
        };
        doc.merge();
        doc.take_error(if doc.phase == Phase::Contain { "contain" } else { "the last step" });
        // On the heap: a step's future holds those of all its calls.
        if doc.contained_at.is_some() {
            let config = match member::config_for(tools.members, &tools.config, &doc).await {
                Err(error) if member::is_shut(&error) => return Ok(tools.cannot_look(doc, &error)),
                config => config?,
            };
            tools.iam = aws_sdk_iam::Client::new(&config);
            Box::pin(tools.look(doc)).await
        } else {
            Box::pin(tools.contain(doc)).await
        }
    }
}

impl Tools<'_> {
    async fn contain(&mut self, mut doc: Incident) -> Result<Incident, StepError> {
        if doc.outcome.is_some() {
            // It was decided to contain nothing; what remains is for the other steps.
            return Ok(doc);
        }
        let key = doc.target.key_id.clone();
        let standing = self.standing(key.as_ref());
        let (standing, asked, lately) = tokio::join!(standing, self.owner(&doc), self.lately(&doc));
        let standing = self.insist(&doc, standing).await;
        let Standing { switch, emergency, record } = standing;
        let now = self.ctx.clock.now();
        let replaced = doc.replacement.as_ref().is_some_and(|replacement| replacement.working);
        self.iam = asked.iam;
        doc.account = asked.entered.or(doc.account);
        let (owner, account) = (asked.owner, asked.not_entered);
        // Of one report, others may not have been started yet, or not show in the list.
        let lately = lately.map(|lately| lately.max(doc.beside));
        let facts = Facts { now, switch, emergency, record, owner, account, replaced, lately };
        if let Owner::Is(user) = &facts.owner {
            doc.user = Some(user.clone());
        }
        doc.containment = facts.switch.known().copied().or(doc.containment);
        let roles = facts.emergency.known().map(|policy| policy.role_sessions);
        doc.deny_roles = roles.map_or(doc.deny_roles, |roles| roles == RoleSessions::Deny);
        for note in decision::unread(&facts) {
            doc.note_failure("read", &note);
        }
        let decided = match decision::decide(&facts, &doc) {
            // Where the emergency itself tries again, it knows nothing of its earlier tries: a bound that has passed is
            // no delay. That people had time is kept.
            Decision::Delay(bound) | Decision::ReplaceFirst(bound) if bound <= now => {
                doc.bound = Some(bound);
                decision::decide(&facts, &doc)
            }
            decided => decided,
        };
        match decided {
            Decision::Contain(user) => {
                let keys = self.to_contain(&doc, &user, asked.keys).await?;
                // Not knowing whether there is anything left to do, it is done; and a stop-gap is left to take off.
                if !doc.may_be_stopped() && self.is_repeat(&facts.record, &doc, &user).await.unwrap_or(false)
                {
                    return Ok(already(doc, user, now));
                }
                self.switch_off(doc, user, keys).await
            }
            Decision::Try(user, note) => {
                let keys: Vec<AccessKeyId> = key.into_iter().collect();
                doc.note_failure("read", &note);
                let tried = self.switch_off(doc, user, keys).await;
                // IAM refuses a pair that does not match; then what the owner is stays unknown, and why.
                tried.map_err(|error| {
                    asked.error.filter(|_| error.is_refused(&["NoSuchEntity"])).unwrap_or(error)
                })
            }
            Decision::DenySessions(user) => Ok(self.sessions_only(doc, user, asked.keys.unwrap_or_default())),
            Decision::Delay(bound) => {
                (doc.phase, doc.bound, doc.wait_until) = (Phase::Delayed, Some(bound), Some(bound));
                doc.announce(now, NoticeKind::Delayed);
                Ok(doc)
            }
            Decision::ReplaceFirst(bound) => {
                let ask = keywheel::clock::wait_time(keywheel::clock::after(now, ASK_AGAIN)).min(bound);
                (doc.phase, doc.bound, doc.wait_until) = (Phase::ReplaceFirst, Some(bound), Some(ask));
                doc.announce(now, NoticeKind::Delayed);
                Ok(doc)
            }
            Decision::Leave(why, page) => {
                info!(rotation.id = %doc.id, iam.user = doc.user_name(), why = why.code, "Left: {}", why.text);
                doc.end(now, Outcome::Blocked, why);
                if !page {
                    doc.notices.retain(|notice| notice.kind != NoticeKind::Ended);
                }
                if doc.has_key() && doc.may_be_stopped() {
                    // Decided otherwise since: what the user is denied for it must go first.
                    doc.phase = Phase::Deny;
                }
                Ok(doc)
            }
            Decision::AskAgain(why) => Err(asked.error.unwrap_or(StepError::NotYetVisible(why))),
        }
    }

    /// What may speak against containment, as far as it is told in time: silence does not delay it.
    async fn standing(&self, key: Option<&AccessKeyId>) -> Standing {
        let read = switch::standing(&self.ssm, &self.ctx.stage, key);
        tokio::time::timeout(IN_TIME, read)
            .await
            .unwrap_or_else(|_| Standing::unread("no answer came in time"))
    }

    /// Whether a key that somebody made Active had leaked is known from its record alone: it is worth some seconds.
    async fn insist(&self, doc: &Incident, mut standing: Standing) -> Standing {
        for pause in ASK_FOR_RECORD {
            let unread = matches!(standing.record, Kept::Unread(_));
            if doc.target.class != Class::RevokeAgainIfLeaked || !unread {
                break;
            }
            self.ctx.clock.sleep(pause).await;
            standing = self.standing(doc.target.key_id.as_ref()).await;
        }
        standing
    }

    /// How many reports of our senders were begun in the ten minutes before this one's event and in the minute after it,
    /// this one among them; only a report that can be braked is worth the call. Whenever it is asked, the answer is
    /// the same: what was begun later is no reason to let go of it. What else is an incident does not count, or
    /// whoever holds a leaked key could have it left alone by making noise.
    async fn lately(&self, doc: &Incident) -> Option<u32> {
        if !doc.is_braked_yet() {
            return None;
        }
        let machine = doc.execution.rsplit_once(':')?.0.replacen(":execution:", ":stateMachine:", 1);
        let started = doc.started.as_second();
        let span = started - i64::try_from(BRAKE_SPAN.as_secs()).ok()?..=started + BRAKE_AFTER;
        let mut pages =
            self.sfn.list_executions().state_machine_arn(machine).max_results(1000).into_paginator().send();
        let mut reports = 0_u32;
        // The newest come first. What no page of these reaches is unknown, and nobody's brake is set so high.
        for _ in 0..MOST_PAGES {
            let list = match pages.next().await {
                None => return Some(reports),
                Some(Ok(list)) => list,
                Some(Err(error)) => {
                    warn!(rotation.id = %doc.id, "{}", StepError::from_sdk("states:ListExecutions", &error));
                    return None;
                }
            };
            let is_report = |name: &str| name.parse::<RunId>().is_ok_and(RunId::is_of_report);
            let within = list.executions().iter().filter(|one| span.contains(&one.start_date().secs()));
            let counted = within.filter(|one| is_report(one.name())).count();
            reports = reports.saturating_add(u32::try_from(counted).unwrap_or(u32::MAX));
            if list.executions().last().is_some_and(|one| one.start_date().secs() < *span.start()) {
                return Some(reports);
            }
        }
        None
    }

    /// The keys to be made Inactive: the one that is named, or all Active ones where the policy says so.
    async fn to_contain(
        &self,
        doc: &Incident,
        user: &UserName,
        listed: Option<Vec<KeyFacts>>,
    ) -> Result<Vec<AccessKeyId>, StepError> {
        if let Some(key) = doc.target.key_id.clone().filter(|_| doc.has_key()) {
            return Ok(vec![key]);
        }
        let listed = match listed {
            Some(listed) => listed,
            None => facts::iam::keys(&self.iam, user).await?,
        };
        Ok(listed.into_iter().filter(KeyFacts::is_active).map(|key| key.id).collect())
    }

    /// Whether this very key was contained before and still is: then there is nothing left to do.
    async fn is_repeat(
        &self,
        record: &Kept<Record>,
        doc: &Incident,
        user: &UserName,
    ) -> Result<bool, StepError> {
        let Some(record) = record.known().filter(|record| record.state != RecordState::Cleared) else {
            return Ok(false);
        };
        if record.incident == doc.id {
            return Ok(false);
        }
        if record.state == RecordState::Closed && doc.target.source == Source::Keywheel && !doc.reported {
            // A person has found something new: the evidence time begins anew, and the sessions are denied.
            return Ok(false);
        }
        let keys = facts::iam::keys(&self.iam, user).await?;
        Ok(key::find(&keys, &record.key).is_some_and(|key| !key.is_active()))
    }

    async fn set_inactive(&self, user: &UserName, key: &AccessKeyId) -> Result<(), StepError> {
        let call = self.iam.update_access_key().user_name(user.as_str()).access_key_id(key.as_str());
        let sent = call.status(StatusType::Inactive).send().await;
        sent.map(|_| ()).map_err(|error| StepError::from_sdk("iam:UpdateAccessKey", &error))
    }

    /// Makes the keys Inactive, reads them back, and keeps it on record.
    async fn switch_off(
        &self,
        mut doc: Incident,
        user: UserName,
        keys: Vec<AccessKeyId>,
    ) -> Result<Incident, StepError> {
        let listed = self.make_inactive(&user, &keys).await?;
        let now = self.ctx.clock.now();
        for key in &keys {
            info!(rotation.id = %doc.id, iam.user = %user, key.id = %key, "Contained key {key} of {user}");
        }
        doc.known = there(&doc, listed);
        doc.user = Some(user);
        doc.keys = keys;
        doc.contained_at = Some(now);
        doc.phase = Phase::Deny;
        self.keep(&mut doc).await;
        Ok(doc)
    }

    /// Makes the keys Inactive and reads all keys of the user back.
    async fn make_inactive(&self, user: &UserName, keys: &[AccessKeyId]) -> Result<Vec<KeyFacts>, StepError> {
        let mut failed = None;
        for key in keys {
            // One that fails keeps no other from being tried.
            let tried = self.set_inactive(user, key).await;
            failed = failed.or(tried.err());
        }
        let Some(failed) = failed else { return self.read_back(user, keys).await };
        // Where the reply was lost, it has happened: what IAM shows is what counts.
        match facts::iam::keys(&self.iam, user).await {
            Ok(listed) if still_on(&listed, keys).is_none() => Ok(listed),
            _ => Err(failed),
        }
    }

    /// All keys of the user, once IAM shows these as Inactive.
    async fn read_back(&self, user: &UserName, keys: &[AccessKeyId]) -> Result<Vec<KeyFacts>, StepError> {
        let mut on = None;
        for pause in READ_BACK {
            self.ctx.clock.sleep(pause).await;
            let listed = facts::iam::keys(&self.iam, user).await?;
            on = still_on(&listed, keys).cloned();
            if on.is_none() {
                return Ok(listed);
            }
        }
        let on = on.map_or_else(String::new, |key| key.to_string());
        Err(StepError::NotYetVisible(format!("key {on} of {user} does not show as Inactive yet")))
    }

    /// Keeps on record that the keys leaked. The looks that follow do it again where it fails here.
    async fn keep(&self, doc: &mut Incident) {
        let (Some(user), Some(at)) = (doc.user.clone(), doc.contained_at) else { return };
        for key in doc.keys.clone() {
            let record = Record {
                schema: SCHEMA,
                key,
                user: user.clone(),
                account: doc.account.clone(),
                incident: doc.id,
                at,
                state: RecordState::Contained,
                until: None,
                note: None,
            };
            if let Err(error) = switch::keep(&self.ssm, &self.ctx.stage, &record).await {
                warn!(rotation.id = %doc.id, "{error}");
                doc.note_failure(RECORD, &error.to_string());
            }
        }
    }

    /// A session leaked and no key is named: what it was minted with is for a person to find out.
    fn sessions_only(&self, mut doc: Incident, user: UserName, listed: Vec<KeyFacts>) -> Incident {
        let active: Vec<String> = listed
            .iter()
            .filter(|key| key.is_active())
            .map(|key| format!("`keywheel revoke {}`", key.id))
            .collect();
        doc.known = there(&doc, listed);
        doc.user = Some(user);
        doc.contained_at = Some(self.ctx.clock.now());
        doc.phase = Phase::Deny;
        doc.why = Some(Why::new(
            "SessionDenied",
            format!("A session of {} leaked; a key of that user has minted it.", doc.user_name()),
            format!("Find out which key it was, and contain it: {}.", active.join(" or ")),
        ));
        doc
    }
}

/// The keys that need no look afterwards.
fn there(doc: &Incident, listed: Vec<KeyFacts>) -> Vec<AccessKeyId> {
    listed.into_iter().filter(|key| decision::was_there(doc, key)).map(|key| key.id).collect()
}

/// The first of these that IAM does not show as Inactive.
fn still_on<'k>(listed: &[KeyFacts], keys: &'k [AccessKeyId]) -> Option<&'k AccessKeyId> {
    keys.iter().find(|id| key::find(listed, id).is_none_or(KeyFacts::is_active))
}

/// The end of an incident about a key that is contained already.
fn already(mut doc: Incident, user: UserName, now: jiff::Timestamp) -> Incident {
    doc.user = Some(user);
    doc.keys = doc.target.key_id.iter().cloned().collect();
    let text = format!(
        "Key {} of {} was reported again; it is contained already.",
        doc.credential(),
        doc.user_name()
    );
    doc.end(now, Outcome::Contained, Why::new("AlreadyContained", text, ""));
    if doc.target.class == Class::RevokeAgainIfLeaked {
        // Switched on and off again before this came to look: nothing to tell.
        doc.notices.retain(|notice| notice.kind != NoticeKind::Ended);
    }
    doc
}

//! The `DenySessions`, `StopGap` and `LiftDeny` states: what a leaked key has minted is denied, and the deny is
//! taken off again.
//!
//! A key that is Inactive mints no more sessions, but those it has minted live on for up to 36 hours. A policy of
//! the user's own denies every session issued before the cut-off. It is one policy for each credential, so two leaks
//! of one user do not lift each other's. A permissions boundary would do too, and is never touched: it may be what
//! keeps the user in bounds.
//!
//! Which of the three is meant follows from the document: nothing is contained yet, nothing is denied yet, or the
//! longest session has ended. Where it was decided meanwhile to contain nothing, what was denied until then is freed.

mod managed;
mod roles;

use std::time::Duration;

use aws_types::SdkConfig;
use facts::member::{self, Members};
use keywheel::clock::{after, wait_time};
use keywheel::incident::{Deny, LONGEST_SESSION, Phase};
use keywheel::notice::NoticeKind;
use keywheel::rotation::{Outcome, Why};
use keywheel::{AccessKeyId, Context, Incident, Step, StepError, UserName, aws, sessions};
use tracing::{info, warn};

/// How IAM says that a user's policies are full.
const FULL: [&str; 2] = ["LimitExceeded", "LimitExceededException"];
/// How IAM says that there is none.
const NONE: [&str; 2] = ["NoSuchEntity", "NoSuchEntityException"];
/// The first and the longest pause between two tries at what keeps failing.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(15));

/// The step.
pub struct DenySessions {
    config: SdkConfig,
    members: Option<Members>,
}

struct Tools<'a> {
    iam: aws_sdk_iam::Client,
    config: SdkConfig,
    members: Option<&'a Members>,
    ctx: &'a Context,
}

impl DenySessions {
    /// A step that calls AWS with `config`, and enters other accounts where there are `members`.
    pub fn new(config: SdkConfig, members: Option<Members>) -> Self {
        Self { config, members }
    }
}

impl Step for DenySessions {
    const NAME: &'static str = "deny-sessions";
    type Input = Incident;
    type Output = Incident;

    /// Run twice, it writes the same policy, or finds it gone. Killed half way, it leaves a policy that denies what
    /// it should, and the next attempt finds it.
    async fn run(&self, mut doc: Incident, ctx: &Context) -> Result<Incident, StepError> {
        doc.merge();
        let config = aws::for_run(&self.config, doc.id);
        let iam = match member::config_for(self.members.as_ref(), &config, &doc).await {
            Ok(config) => aws_sdk_iam::Client::new(&config),
            // What failed before is told, and tried again, whether or not the account can be entered now.
            Err(error) if doc.contained_at.is_none() && doc.outcome.is_none() => {
                return Ok(not_contained(doc, ctx, Some(&error)));
            }
            Err(error) if doc.contained_at.is_none() => return Ok(not_free(doc, ctx, &error)),
            Err(error) => return Err(error),
        };
        let mut tools = Tools { iam, config, members: self.members.as_ref(), ctx };
        match (&doc.deny, doc.contained_at) {
            (_, None) if doc.outcome.is_some() => {
                doc.take_error("the last step");
                Box::pin(tools.give_up(doc)).await
            }
            (_, None) => Box::pin(tools.stop_gap(doc)).await,
            (None, Some(_)) => {
                doc.take_error("deny-sessions");
                Box::pin(tools.deny(doc)).await
            }
            (Some(deny), Some(_)) if ctx.clock.now() < deny.until && !doc.undenied_roles().is_empty() => {
                doc.take_error("the last step");
                Box::pin(tools.deny_roles(doc)).await
            }
            (Some(_), Some(_)) => Box::pin(tools.lift(doc)).await,
        }
    }
}

/// The credential that the policies are named after: the event's, or the first of the user's that was contained.
fn credential(doc: &Incident) -> Result<AccessKeyId, StepError> {
    let key = doc.target.key_id.as_ref().or(doc.keys.first());
    key.cloned().ok_or_else(|| StepError::BadInput("the incident names no credential".into()))
}

/// What the user is denied could not be taken off: it is tried again, and people are told where that is not enough.
fn not_free(mut doc: Incident, ctx: &Context, error: &StepError) -> Incident {
    let now = ctx.clock.now();
    doc.note_failure("stop-gap", &error.to_string());
    let again = doc.wait_until.is_some();
    if again {
        doc.announce(now, NoticeKind::Stuck);
    }
    doc.wait_until = Some(wait_time(after(now, if again { TRY_AGAIN.1 } else { TRY_AGAIN.0 })));
    doc
}

/// The key is as it was: people are told, and it is tried again after a while.
fn not_contained(mut doc: Incident, ctx: &Context, error: Option<&StepError>) -> Incident {
    doc.take_error("contain");
    if let Some(error) = error {
        doc.note_failure("stop-gap", &error.to_string());
    }
    let now = ctx.clock.now();
    doc.announce_again(now, NoticeKind::NotContained, if doc.denied { "/denied" } else { "" });
    let pause = TRY_AGAIN.0.saturating_mul(1 << doc.tries.min(10)).min(TRY_AGAIN.1);
    doc.tries += 1;
    doc.phase = Phase::Contain;
    doc.wait_until = Some(wait_time(after(now, pause)));
    doc
}

impl Tools<'_> {
    /// Containment has failed for good, for now. Where it was decided and IAM refused to switch the key off, the
    /// user is denied everything until it can be.
    async fn stop_gap(&mut self, mut doc: Incident) -> Result<Incident, StepError> {
        // Only a step that has decided to contain makes this call; what failed before it may have decided otherwise.
        let decided = doc.error.as_ref().is_some_and(|error| error.message().contains("iam:UpdateAccessKey"));
        doc.take_error("contain");
        if decided && doc.has_key() {
            let key = credential(&doc)?;
            // An attempt that died may have put it, and an answer that is lost says nothing.
            doc.stop_gap = true;
            // What Contain had entered is not in the document that it failed with.
            if doc.account.is_none() {
                doc.account = self.enter_account_of(&doc, &key).await;
            }
            // Never by the event's word: a deny of everything is an outage for whomever it hits.
            match facts::iam::owner(&self.iam, &key).await {
                Ok(Some(user)) => {
                    let put =
                        self.put(&user, &sessions::stop_gap_name(&key, doc.id), &sessions::deny_all()).await;
                    match put {
                        Ok(()) => {
                            warn!(rotation.id = %doc.id, iam.user = %user, key.id = %key, "Denied {user} everything until key {key} is Inactive");
                            doc.denied = true;
                        }
                        Err(error) => doc.note_failure("stop-gap", &error.to_string()),
                    }
                    doc.user = Some(user);
                }
                Ok(None) => doc.note_failure("stop-gap", "there is no such key"),
                Err(error) => doc.note_failure("stop-gap", &error.to_string()),
            }
        }
        Ok(not_contained(doc, self.ctx, None))
    }

    /// The key's account, entered, where STS or, failing it, the event says that it is another one.
    async fn enter_account_of(&mut self, doc: &Incident, key: &AccessKeyId) -> Option<String> {
        let members = self.members?;
        let sts = aws_sdk_sts::Client::new(&self.config);
        let account = match sts.get_access_key_info().access_key_id(key.as_str()).send().await {
            Ok(reply) => reply.account,
            Err(error) => {
                warn!("{}", StepError::from_sdk("sts:GetAccessKeyInfo", &error));
                doc.target.account.clone()
            }
        };
        let account = account.filter(|account| account != doc.own_account())?;
        match members.enter(&self.config, doc.partition(), &account, doc.id).await {
            Ok(config) => {
                self.iam = aws_sdk_iam::Client::new(&config);
                Some(account)
            }
            Err(error) => {
                warn!(rotation.id = %doc.id, "{error}");
                None
            }
        }
    }

    /// It was decided meanwhile that nothing is contained: then nobody is denied anything for it. Where that cannot be
    /// undone, people are told, and it is tried again: nothing else must go on as if the key were contained.
    async fn give_up(&self, mut doc: Incident) -> Result<Incident, StepError> {
        let key = credential(&doc)?;
        match self.free(&mut doc, &key).await {
            Ok(()) => doc.phase = Phase::Ended,
            Err(error) => doc = not_free(doc, self.ctx, &error),
        }
        Ok(doc)
    }

    async fn free(&self, doc: &mut Incident, key: &AccessKeyId) -> Result<(), StepError> {
        let owner = match doc.user.clone() {
            Some(user) => Some(user),
            None => facts::iam::owner(&self.iam, key).await?,
        };
        match owner {
            Some(user) => self.end_stop_gap(doc, &user, key).await,
            // A key that is gone has no user to be denied anything.
            None => Ok(()),
        }
    }

    async fn end_stop_gap(
        &self,
        doc: &mut Incident,
        user: &UserName,
        key: &AccessKeyId,
    ) -> Result<(), StepError> {
        if doc.may_be_stopped() {
            self.delete(user, &sessions::stop_gap_name(key, doc.id)).await?;
            (doc.stop_gap, doc.denied) = (false, false);
        }
        Ok(())
    }

    async fn deny(&self, mut doc: Incident) -> Result<Incident, StepError> {
        let (user, key) = (doc.owner()?.clone(), credential(&doc)?);
        let cut_off = doc.cut_off().ok_or_else(|| StepError::BadInput("nothing is contained".into()))?;
        let now = self.ctx.clock.now();
        if now >= after(cut_off, LONGEST_SESSION) {
            // Nothing is left to deny.
            self.lift_roles(&doc).await?;
            self.end_stop_gap(&mut doc, &user, &key).await?;
            doc.phase = Phase::Ended;
            return Ok(doc);
        }
        let name = sessions::policy_name(&key);
        let denied = match self.cut_off(&user, &name).await {
            // A later leak of the same credential has denied more.
            Ok(Some(theirs)) if theirs >= cut_off => Ok(deny(&name, None, theirs)),
            Ok(_) => match self.put(&user, &name, &sessions::deny_before(cut_off)).await {
                Ok(()) => Ok(deny(&name, None, cut_off)),
                Err(error) if error.is_refused(&FULL) => self.deny_managed(&doc, &user, &key, cut_off).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match denied {
            Ok(denied) => {
                info!(rotation.id = %doc.id, iam.user = %user, "Denied sessions of {user} issued before {}", denied.cut_off);
                doc.deny = Some(denied);
            }
            Err(error) if error.is_refused(&NONE) => {
                let text = format!("User {user} is gone, and its keys and sessions with it.");
                doc.end(now, Outcome::Contained, Why::new("UserGone", text, ""));
                return Ok(doc);
            }
            Err(error) if error.is_refused(&FULL) => {
                doc.note_failure("deny-sessions", &error.to_string());
                doc.announce(now, NoticeKind::SessionsNotDenied);
                doc.wait_until = Some(wait_time(after(now, TRY_AGAIN.1)));
            }
            Err(error) => return Err(error),
        }
        // The key reads Inactive, so the user's other key may work again.
        self.end_stop_gap(&mut doc, &user, &key).await?;
        doc.announce(now, NoticeKind::Contained);
        if doc.phase == Phase::Deny {
            doc.phase = Phase::Look;
        }
        Ok(doc)
    }

    /// Takes the deny off, if it is still the one that this incident wrote.
    async fn lift(&self, mut doc: Incident) -> Result<Incident, StepError> {
        let user = doc.owner()?.clone();
        let denied = doc.deny.clone().ok_or_else(|| StepError::BadInput("nothing is denied".into()))?;
        let now = self.ctx.clock.now();
        if now < denied.until {
            doc.wait_until = Some(wait_time(denied.until));
            return Ok(doc);
        }
        self.lift_roles(&doc).await?;
        let lifted = match &denied.arn {
            Some(arn) => self.lift_managed(&user, arn).await,
            None => match self.cut_off(&user, &denied.policy).await {
                Ok(Some(cut_off)) if cut_off == denied.cut_off => self.delete(&user, &denied.policy).await,
                // Gone, or somebody's: a newer incident's, which lifts it in its time, or a person's.
                Ok(_) => {
                    doc.phase = Phase::Ended;
                    return Ok(doc);
                }
                Err(error) => Err(error),
            },
        };
        match lifted {
            Err(error) if !error.is_refused(&NONE) => Err(error),
            _ => {
                info!(rotation.id = %doc.id, iam.user = %user, "Took the deny {} off {user}", denied.policy);
                doc.phase = Phase::Ended;
                doc.announce(now, NoticeKind::SessionsFree);
                Ok(doc)
            }
        }
    }

    /// The cut-off of the user's policy of that name; `None` where there is none, or it is not ours.
    async fn cut_off(&self, user: &UserName, name: &str) -> Result<Option<jiff::Timestamp>, StepError> {
        match self.iam.get_user_policy().user_name(user.as_str()).policy_name(name).send().await {
            Ok(reply) => Ok(sessions::cut_off_of(reply.policy_document())),
            Err(error) => {
                let error = StepError::from_sdk("iam:GetUserPolicy", &error);
                if error.is_refused(&NONE) { Ok(None) } else { Err(error) }
            }
        }
    }

    async fn put(&self, user: &UserName, name: &str, document: &str) -> Result<(), StepError> {
        let call = self.iam.put_user_policy().user_name(user.as_str()).policy_name(name);
        let put = call.policy_document(document).send().await;
        put.map(|_| ()).map_err(|error| StepError::from_sdk("iam:PutUserPolicy", &error))
    }

    async fn delete(&self, user: &UserName, name: &str) -> Result<(), StepError> {
        match self.iam.delete_user_policy().user_name(user.as_str()).policy_name(name).send().await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = StepError::from_sdk("iam:DeleteUserPolicy", &error);
                if error.is_refused(&NONE) { Ok(()) } else { Err(error) }
            }
        }
    }
}

fn deny(policy: &str, arn: Option<String>, cut_off: jiff::Timestamp) -> Deny {
    Deny { policy: policy.to_owned(), arn, cut_off, until: wait_time(after(cut_off, LONGEST_SESSION)) }
}

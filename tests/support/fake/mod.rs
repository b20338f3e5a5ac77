//! A stateful fake AWS under the SDK's HTTP connector.
//!
//! It sits below the SDK, so the SDK's own retries, time-outs and parsing stay in the test: with default retries
//! a `CreateAccessKey` whose reply is lost is sent three times, and no mock of a client would show it. It does what
//! AWS does, the awkward parts included; what it does not know it refuses loudly.
//!
//! Every call is recorded, may be hit by a fault, and is followed by a look at the promises.

mod account;
mod events;
mod iam;
mod integration;
mod objects;
mod policies;
mod replicas;
mod report;
mod secrets;
mod state;
mod states;
mod trail;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_types::SdkConfig;
use aws_types::region::Region;
use keywheel::Clock;
use tokio::sync::Notify;

pub use account::{
    Call, Execution, Key, Maker, Object, Options, Role, Secret, TaskAnswer, TrailRecord, Use, User, Version,
};
pub use replicas::Replica;
pub use state::{State, random_secret};
pub use wire::{Answer, Body, Refusal, Request, refuse, refuse_with};

use crate::faults::Kind;
use crate::invariants;

/// One invocation of a Lambda: calls made inside it are known to be its own, and it can be killed.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The function's name.
    pub function: String,
    /// The state that runs it.
    pub state: String,
    /// Its number in the whole test.
    pub number: u64,
    /// Told when the process is to die.
    pub kill: Arc<Notify>,
}

tokio::task_local! {
    /// The invocation that the current task runs.
    pub static INVOCATION: Invocation;
}

/// A handle on the fake; clones share it.
#[derive(Clone)]
pub struct Fake(Arc<Mutex<State>>);

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

#[derive(Debug)]
struct FakeTime(Clock);

impl TimeSource for FakeTime {
    fn now(&self) -> SystemTime {
        self.0.now().into()
    }
}

enum Effect {
    Reply(Box<HttpResponse>),
    Drop,
    Hang,
}

impl Effect {
    /// What the caller gets, where it gets anything.
    fn arrive(self) -> Result<HttpResponse, ConnectorError> {
        match self {
            Self::Reply(response) => Ok(*response),
            Self::Drop | Self::Hang => {
                let error = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection broke");
                Err(ConnectorError::io(error.into()))
            }
        }
    }
}

impl Fake {
    /// An account without anything in it, whose time is the clock's.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Mutex::new(State::new(clock))))
    }

    /// The state, to look at or to meddle with; its consumers have done until now what they do.
    pub fn state(&self) -> MutexGuard<'_, State> {
        // A test that failed while it held the state wants its story told.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.let_consumers_live();
        state
    }

    /// The configuration of a Lambda whose role is named `role`; the role is made on first use.
    pub fn config_of(&self, role: &str) -> SdkConfig {
        let (role, clock, region) = {
            let mut state = self.state();
            (state.role(role), state.clock.clone(), state.region.clone())
        };
        let credentials = Credentials::new(role.key, role.secret, Some(role.token), None, "fake");
        keywheel::aws::base(SharedHttpClient::new(self.clone()), credentials)
            .into_builder()
            .time_source(SharedTimeSource::new(FakeTime(clock)))
            .region(Region::new(region))
            .build()
    }

    /// The ARN of the role of that name.
    pub fn role_arn(&self, role: &str) -> String {
        self.state().role(role).arn
    }

    /// The calls made so far, as `service:Action`.
    pub fn call_names(&self) -> Vec<String> {
        self.state().calls.iter().map(|call| call.name.clone()).collect()
    }

    /// Waits on the fake's clock.
    pub async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn take(&self, request: &Request) -> Effect {
        let mut state = self.state();
        let state_broken = state.broken;
        let altered = state_broken.map(|broken| broken.request(request.clone()));
        let request = altered.as_ref().unwrap_or(request);
        let invocation = INVOCATION.try_with(Clone::clone).ok();
        let before = invariants::Before::of(&state);
        let state_name = invocation.as_ref().map(|invocation| invocation.state.as_str());
        let name = request.name();
        let fault = state.plan.strike(&name, state_name).or_else(|| state.standing.strike(&name, state_name));
        let index = state.calls.len();
        let id = format!("request-{index}");
        let call = state.record(request, invocation.as_ref(), fault);
        let reply = |response| Effect::Reply(Box::new(response));
        let misread =
            |answered: Option<&Answer>| state_broken.and_then(|broken| broken.answer(request, answered));
        let effect = match fault {
            _ if state_broken.is_some_and(|broken| broken.pretends(request)) => {
                state.calls[index].status = 200;
                reply(wire::write(request, &misread(None).unwrap(), &id))
            }
            Some(_) if misread(None).is_some() => reply(wire::write(request, &misread(None).unwrap(), &id)),
            Some(Kind::Refused) => reply(wire::write(request, &denied(request), &id)),
            Some(Kind::Throttled) => reply(wire::write(request, &throttled(request), &id)),
            Some(Kind::ErrorBefore) => {
                reply(wire::reply(500, "<Internal>the fake's own failure</Internal>".into(), &id))
            }
            Some(Kind::LostBefore) => Effect::Drop,
            Some(Kind::TimeoutBefore) => Effect::Hang,
            Some(Kind::KilledBefore) => {
                kill(invocation.as_ref());
                Effect::Hang
            }
            after => {
                let answer = state.answer(request);
                state.calls[index].status = answer.as_ref().map_or_else(|refusal| refusal.status, |_| 200);
                state.calls[index].truncated = wire::has_more(&answer);
                state.calls[index].code = answer.as_ref().err().map(|refusal| refusal.code.clone());
                match after {
                    Some(Kind::LostAfter) => Effect::Drop,
                    Some(Kind::TimeoutAfter) => Effect::Hang,
                    Some(Kind::GarbledAfter) => reply(wire::reply(200, "<<this is no reply".into(), &id)),
                    Some(Kind::KilledAfter) => {
                        kill(invocation.as_ref());
                        Effect::Hang
                    }
                    _ => reply(wire::write(request, &misread(Some(&answer)).unwrap_or(answer), &id)),
                }
            }
        };
        invariants::after_call(&mut state, request, &call, &before);
        effect
    }
}

fn kill(invocation: Option<&Invocation>) {
    if let Some(invocation) = invocation {
        invocation.kill.notify_one();
    }
}

/// The service's own way to say that the caller may not.
fn denied(request: &Request) -> Answer {
    let message = format!("User is not authorized to perform: {}", request.name());
    if wire::is_query(&request.service) || request.service == "s3" {
        let code = if request.service == "sns" { "AuthorizationError" } else { "AccessDenied" };
        refuse_with(403, code, message)
    } else {
        refuse("AccessDeniedException", message)
    }
}

/// The service's own way to say "slow down".
fn throttled(request: &Request) -> Answer {
    if request.service == "s3" {
        refuse_with(503, "SlowDown", "Please reduce your request rate.")
    } else if wire::is_query(&request.service) {
        refuse("Throttling", "Rate exceeded")
    } else {
        refuse("ThrottlingException", "Rate exceeded")
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        if let Some(refusal) = self.unfit_signature(request) {
            return refusal;
        }
        if self.is_denied(request) {
            return denied(request);
        }
        let answer = match request.service.as_str() {
            "iam" => self.iam_of_the_callers_account(request),
            "sts" => self.sts(request),
            "secretsmanager" => self.secrets_manager(request),
            "states" => self.step_functions(request),
            "ssm" => self.ssm(request),
            "cloudtrail" => self.cloudtrail(request),
            "account" => self.account_service(request),
            "s3" => self.s3(request),
            "events" => self.event_bus(request),
            "sns" => self.sns(request),
            _ => self.unknown(request),
        };
        self.leave_a_trail(request, &answer);
        answer
    }

    /// Whether a call is denied, everywhere or in its region.
    fn is_denied(&self, request: &Request) -> bool {
        let name = request.name();
        self.denied.contains(&name) || self.denied.contains(&format!("{name}@{}", request.region))
    }

    fn unfit_signature(&mut self, request: &Request) -> Option<Answer> {
        let secret = match self.role_of(&request.signer) {
            Some(role) => role.secret.clone(),
            // A user's own key: only the identity test uses one.
            None => match self.key(&request.signer) {
                Some((_, key)) if self.key_works(key) => key.secret.clone(),
                _ => {
                    let message = "The security token included in the request is invalid.";
                    return Some(refuse_with(403, "InvalidClientTokenId", message));
                }
            },
        };
        (!request.is_signed_with(&secret)).then(|| {
            let message = "The request signature we calculated does not match the signature you provided.";
            refuse_with(403, "SignatureDoesNotMatch", message)
        })
    }

    /// A call the fake does not know must not look like one that AWS refused.
    pub(crate) fn unknown(&mut self, request: &Request) -> Answer {
        self.violations.push(format!("the fake does not know {}", request.name()));
        refuse("UnknownOperationException", request.name())
    }
}

impl HttpConnector for Fake {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = Request::read(&request);
        let Some((way_there, way_back)) = self.state().latency() else {
            let effect = self.take(&request);
            return if matches!(effect, Effect::Hang) {
                HttpConnectorFuture::new(std::future::pending())
            } else {
                HttpConnectorFuture::ready(effect.arrive())
            };
        };
        let fake = self.clone();
        HttpConnectorFuture::new(async move {
            tokio::time::sleep(way_there).await;
            let effect = fake.take(&request);
            if matches!(effect, Effect::Hang) {
                return std::future::pending().await;
            }
            tokio::time::sleep(way_back).await;
            effect.arrive()
        })
    }
}

impl HttpClient for Fake {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

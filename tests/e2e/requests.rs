//! The cloud's own log of requests: what arrived, whoever sent it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;

use crate::cloud::{Cloud, Pair};

/// One request. There is no `Debug`: the reply of `CreateAccessKey` holds the secret.
#[derive(Clone, Deserialize)]
pub(crate) struct Request {
    /// Its place in the log.
    pub(crate) seq: u64,
    /// When it came.
    pub(crate) time: Timestamp,
    service: String,
    /// The action.
    pub(crate) action: String,
    /// The key that signed it.
    pub(crate) key_id: String,
    principal: Option<String>,
    /// The reply's status; 0 where the reply was dropped.
    pub(crate) status: u16,
    code: Option<String>,
    app: Option<String>,
    reply: Option<Reply>,
}

#[derive(Clone, Deserialize)]
struct Reply {
    access_key_id: String,
    secret_access_key: String,
}

/// Which budget a call of a run counts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A change of a key or a secret.
    Write,
    /// Any other call.
    Read,
    /// A look at the gate.
    Gate,
    /// A notice, or the answer to a task token.
    Notice,
    /// The installation's switch.
    Switch,
}

impl Request {
    /// Which budget it counts to.
    pub(crate) fn kind(&self) -> Kind {
        let gate = self.principal.as_ref().is_some_and(|role| role.contains("DeactivateKey"));
        match (self.service.as_str(), self.action.as_str()) {
            ("iam", "GetAccessKeyLastUsed") => Kind::Gate,
            ("secretsmanager", "ListSecrets") if gate => Kind::Gate,
            ("ssm", "GetParameter" | "GetParameters") => Kind::Switch,
            ("events", "PutEvents") | ("sns", "Publish") => Kind::Notice,
            ("states", action) if action.starts_with("SendTask") => Kind::Notice,
            (_, action)
                if ["Get", "List", "Describe", "Lookup"].iter().any(|read| action.starts_with(read)) =>
            {
                Kind::Read
            }
            _ => Kind::Write,
        }
    }

    /// `service:Action`.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.service, self.action)
    }

    /// The ARN of who signed it, where it was a session of a role.
    pub(crate) fn principal(&self) -> &str {
        self.principal.as_deref().unwrap_or_default()
    }

    /// Whether its signer had no right to it. SNS has a word of its own for that.
    pub(crate) fn refused(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        ["AccessDenied", "AuthorizationError"].iter().any(|denied| code.starts_with(denied))
    }

    /// Whether `app` made it.
    pub(crate) fn is_of(&self, app: &str) -> bool {
        self.app.as_deref() == Some(app)
    }

    /// Whether a Lambda of ours made it without saying for which run.
    pub(crate) fn forgot_its_run(&self) -> bool {
        self.principal.as_ref().is_some_and(|principal| principal.contains(":assumed-role/keywheel-"))
            && !self.app.as_ref().is_some_and(|app| app.starts_with("keywheel-"))
    }

    /// The pair that `CreateAccessKey` gave out.
    pub(crate) fn made(&self) -> Option<Pair> {
        let reply = self.reply.as_ref()?;
        Some(Pair { id: reply.access_key_id.clone(), secret: reply.secret_access_key.clone() })
    }
}

/// The names of some requests, for messages.
pub(crate) fn names(requests: &[Request]) -> Vec<String> {
    requests.iter().map(Request::name).collect()
}

impl Cloud {
    /// All requests since the test began, by the time of their arrival.
    pub(crate) async fn requests(&self) -> Vec<Request> {
        self.requests_after(self.mark).await
    }

    /// All requests after the one numbered `seq`. It is logged when it is answered, so a slow one comes late. Read in
    /// pages: while the cloud writes one, it answers nobody else.
    pub(crate) async fn requests_after(&self, seq: u64) -> Vec<Request> {
        const PAGE: usize = 4_000;
        let (mut log, mut after): (Vec<Request>, u64) = (Vec::new(), seq);
        loop {
            let page = self.get(&format!("/_keywheel/requests?after={after}&limit={PAGE}")).await;
            let page: Vec<Request> = serde_json::from_value(page).unwrap();
            let whole = page.len() == PAGE;
            after = page.last().map_or(after, |last| last.seq);
            log.extend(page);
            if !whole {
                break;
            }
        }
        log.sort_by_key(|request| (request.time, request.seq));
        log
    }

    /// The number of the last request so far. The log only tells what comes after a number; halving finds the
    /// end without reading it all.
    pub(crate) async fn last_request(&self) -> u64 {
        let (mut known, mut beyond) = (0, 1 << 40);
        while beyond - known > 1 {
            let middle = known + (beyond - known) / 2;
            let page = self.get(&format!("/_keywheel/requests?after={middle}&limit=1")).await;
            match page.get(0).and_then(|request| request.get("seq")?.as_u64()) {
                Some(seq) => known = seq.max(middle),
                None => beyond = middle,
            }
        }
        known
    }

    /// Every secret access key that the cloud has given out so far, to whomever.
    pub(crate) async fn secrets_given_out(&self) -> BTreeSet<String> {
        let log = self.get("/_keywheel/requests?after=0&made=1").await;
        let log: Vec<Request> = serde_json::from_value(log).unwrap();
        log.iter().filter_map(Request::made).map(|pair| pair.secret).collect()
    }
}

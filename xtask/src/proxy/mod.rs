//! A proxy between the Lambdas and the emulator, which spoils what passes through it as a test has planned.
//!
//! The Lambdas' endpoint is this proxy, the tests' own is the emulator: consumers and watchers see the truth. It
//! speaks HTTP on bare connections, one request on each, because the connection itself is what it breaks: closed
//! before or after the effect, cut within a reply, kept waiting, or gone with the process at its other end.
//!
//! `POST /_proxy/plans` plans faults for the calls of one run, `GET /_proxy/plans?run=RUN` tells what they met.
//! Calls without a plan pass as they are.

mod peer;
mod plan;
mod reply;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use self::plan::{Kind, Plan, Planned, Strike};
use crate::error::{Error, Explain, Result};

/// Longer than the SDK waits for an attempt.
const TOO_LATE: Duration = Duration::from_secs(6);
/// The longest request: the parameters of one call.
const LARGEST: usize = 1 << 20;

/// The proxy; it ends with this value.
pub(crate) struct Proxy {
    /// Its URL.
    pub(crate) url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    here: SocketAddr,
    upstream: OnceLock<String>,
    plans: Mutex<BTreeMap<String, Plan>>,
}

/// One request, word for word.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Proxy {
    /// Begins to listen, on a port of its own. Until it knows where to, it forwards nothing.
    pub(crate) async fn start() -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.explain("starting the fault proxy")?;
        let here = listener.local_addr()?;
        let shared = Arc::new(Shared { here, upstream: OnceLock::new(), plans: Mutex::default() });
        let served = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let Ok((connection, peer)) = listener.accept().await else { continue };
                let shared = Arc::clone(&served);
                // Whoever hangs up has had enough; nobody else is concerned.
                tokio::spawn(async move { shared.serve(connection, peer).await });
            }
        });
        Ok(Self { url: format!("http://{here}"), shared, task })
    }

    /// Forwards to the emulator at `url` from now on.
    pub(crate) fn forward_to(&self, url: &str) -> Result<()> {
        let address = url.strip_prefix("http://").unwrap_or(url).to_owned();
        self.shared.upstream.set(address).map_err(|_| Error::from("the fault proxy forwards already"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn serve(&self, mut connection: TcpStream, peer: SocketAddr) -> Result<()> {
        // A connection that was opened ahead and never used says nothing.
        let Some(request) = Request::read(&mut connection).await? else { return Ok(()) };
        if let Some(path) = request.path().strip_prefix("/_proxy/") {
            let (status, text) = self.control(path, &request);
            return send(&mut connection, &reply::json(status, &text)).await;
        }
        let call = request.call();
        let strike = call.as_ref().and_then(|call| self.strike(call));
        match strike {
            None => {
                let reply = self.forward(&request).await?;
                send(&mut connection, &reply).await
            }
            Some(strike) => self.spoil(&strike, &request, connection, peer).await,
        }
    }

    fn plans(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strike(&self, (run, call): &(String, String)) -> Option<Strike> {
        self.plans().get_mut(run)?.strike(run, call)
    }

    async fn spoil(
        &self,
        strike: &Strike,
        request: &Request,
        mut connection: TcpStream,
        peer: SocketAddr,
    ) -> Result<()> {
        if !strike.kind.has_effect() {
            return match strike.kind {
                Kind::Refused | Kind::Throttled | Kind::ErrorBefore => {
                    send(&mut connection, &reply::error(strike.kind, request.is_json())).await
                }
                Kind::TimeoutBefore => {
                    tokio::time::sleep(TOO_LATE).await;
                    Ok(())
                }
                Kind::KilledBefore => {
                    self.kill(strike, peer);
                    Ok(())
                }
                // Closed without a word.
                _ => Ok(()),
            };
        }
        let reply = self.forward(request).await?;
        match strike.kind {
            Kind::Late => {
                tokio::time::sleep(strike.pause).await;
                send(&mut connection, &reply).await
            }
            Kind::TimeoutAfter => {
                tokio::time::sleep(TOO_LATE).await;
                send(&mut connection, &reply).await
            }
            Kind::ErrorAfter => {
                send(&mut connection, &reply::error(Kind::ErrorAfter, request.is_json())).await
            }
            Kind::GarbledAfter => send(&mut connection, &reply::garbled(request.is_json())).await,
            Kind::CutAfter => send(&mut connection, &reply[..reply.len() / 2]).await,
            Kind::KilledAfter => {
                self.kill(strike, peer);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Kills the Lambda that waits for this very call, and notes which it was.
    fn kill(&self, strike: &Strike, peer: SocketAddr) {
        let killed = peer::kill_lambda(peer, self.here);
        if let Some(plan) = self.plans().get_mut(&strike.run) {
            plan.killed(strike.number, killed);
        }
    }

    async fn forward(&self, request: &Request) -> Result<Vec<u8>> {
        let upstream = self.upstream.get().ok_or("the fault proxy does not know the emulator yet")?;
        let mut connection = TcpStream::connect(upstream).await?;
        connection.write_all(&request.closing()).await?;
        let mut reply = Vec::new();
        connection.read_to_end(&mut reply).await?;
        Ok(reply)
    }

    fn control(&self, path: &str, request: &Request) -> (u16, String) {
        if request.head.starts_with("POST ") && path == "plans" {
            return match serde_json::from_slice::<Planned>(&request.body) {
                Ok(planned) => {
                    self.plans().insert(planned.run.clone(), Plan::new(planned));
                    (200, json!({}).to_string())
                }
                Err(error) => (400, json!({ "error": error.to_string() }).to_string()),
            };
        }
        match path.strip_prefix("plans?run=").map(|run| self.plans().get(run).map(Plan::told)) {
            Some(Some(told)) => (200, told.to_string()),
            _ => (404, json!({ "error": "no such plan" }).to_string()),
        }
    }
}

impl Request {
    async fn read(connection: &mut TcpStream) -> Result<Option<Self>> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if bytes.len() > LARGEST {
                return Err("a request without an end".into());
            }
            if connection.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        };
        let mut body = bytes.split_off(end);
        let head = String::from_utf8(bytes)?;
        let mut request = Self { head, body: Vec::new() };
        let length: usize = request.header("content-length").unwrap_or("0").parse()?;
        if length > LARGEST || request.header("transfer-encoding").is_some() {
            return Err("a request that the fault proxy does not know how to read".into());
        }
        while body.len() < length {
            if connection.read_buf(&mut body).await? == 0 {
                return Ok(None);
            }
        }
        request.body = body;
        Ok(Some(request))
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    }

    fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    fn is_json(&self) -> bool {
        self.header("x-amz-target").is_some()
    }

    /// The run and the call, such as `iam:CreateAccessKey`, where a Lambda of ours makes it.
    fn call(&self) -> Option<(String, String)> {
        let agents = [self.header("user-agent"), self.header("x-amz-user-agent")];
        let run = agents.into_iter().flatten().find_map(|agent| {
            let rest = agent.split_once("app/keywheel-")?.1;
            rest.split_whitespace().next().map(str::to_owned)
        })?;
        let scope = self.header("authorization")?.split_once("Credential=")?.1;
        let service = scope.split(',').next()?.split('/').nth(3)?;
        let action = if let Some(target) = self.header("x-amz-target") {
            target.rsplit('.').next()?.to_owned()
        } else {
            let body = std::str::from_utf8(&self.body).ok()?;
            body.split('&').find_map(|field| field.strip_prefix("Action="))?.to_owned()
        };
        Some((run, format!("{service}:{action}")))
    }

    /// The same request on a connection that ends with its reply. The field is no part of the signature.
    fn closing(&self) -> Vec<u8> {
        let (first, rest) = self.head.split_once("\r\n").unwrap_or((&self.head, "\r\n"));
        let mut bytes = format!("{first}\r\nconnection: close\r\n").into_bytes();
        for line in rest.split_inclusive("\r\n") {
            if !line.to_ascii_lowercase().starts_with("connection:") {
                bytes.extend(line.as_bytes());
            }
        }
        bytes.extend(&self.body);
        bytes
    }
}

async fn send(connection: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    connection.write_all(bytes).await?;
    connection.shutdown().await?;
    Ok(())
}

#[cfg(test)]
mod tests;

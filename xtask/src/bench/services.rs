//! AWS's services over TLS on loopback: one address each, because in AWS each has a name of its own and no
//! connection to one serves another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::tls::Tls;
use super::world::{Call, Reply, World};
use crate::error::{Explain, Result};

/// The environment variables that lead every SDK to a service's address; the first is for whoever has none.
const ENDPOINTS: [&str; 11] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_ACCOUNT",
    "AWS_ENDPOINT_URL_CLOUDTRAIL",
    "AWS_ENDPOINT_URL_EVENTBRIDGE",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "AWS_ENDPOINT_URL_SFN",
    "AWS_ENDPOINT_URL_SNS",
    "AWS_ENDPOINT_URL_SSM",
    "AWS_ENDPOINT_URL_STS",
];

/// The version of every object that is read.
const OBJECT_VERSION: &str = "3HL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY";

#[derive(Default)]
struct State {
    world: Option<World>,
    calls: Vec<String>,
    handshakes: usize,
}

/// What one process asked of the services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// The calls in their order, as policies write them.
    pub(crate) calls: Vec<String>,
    /// How many TLS connections it made for them.
    pub(crate) handshakes: usize,
}

/// The services.
pub(crate) struct Services {
    state: Arc<Mutex<State>>,
    addresses: BTreeMap<&'static str, SocketAddr>,
    // The listeners and their connections end with this value.
    _tasks: JoinSet<()>,
}

impl Services {
    /// Listens.
    pub(crate) async fn start(tls: &Tls) -> Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let mut tasks = JoinSet::new();
        let mut addresses = BTreeMap::new();
        for name in ENDPOINTS {
            let listener = TcpListener::bind("127.0.0.1:0").await.explain("listening on loopback")?;
            addresses.insert(name, listener.local_addr()?);
            tasks.spawn(serve(listener, tls.acceptor.clone(), Arc::clone(&state)));
        }
        Ok(Self { state, addresses, _tasks: tasks })
    }

    /// The settings that lead a process here.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.addresses.iter().map(|(name, address)| (*name, format!("https://{address}")))
    }

    /// Begins anew with this world.
    pub(crate) fn reset(&self, world: World) {
        *lock(&self.state) = State { world: Some(world), ..State::default() };
    }

    /// What was asked since.
    pub(crate) fn traffic(&self) -> Traffic {
        let state = lock(&self.state);
        Traffic { calls: state.calls.clone(), handshakes: state.handshakes }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        connections.spawn(async move {
            // A client that does not trust us, or is killed, breaks off; its own answer tells.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            lock(&state).handshakes += 1;
            let service = service_fn(move |request| respond(Arc::clone(&state), request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut call = read(&head.headers, &body);
    if call.service == "s3" {
        // An object has a method, and a path that begins with its bucket.
        call.action = String::from(if head.method == http::Method::PUT { "PutObject" } else { "GetObject" });
        let key = head.uri.path().splitn(3, '/').nth(2).unwrap_or_default();
        call.params.insert("Key".to_owned(), json!(key));
    } else if call.action.is_empty() {
        // The Account service names its action in the path: `/listRegions`.
        let path = head.uri.path().trim_start_matches('/');
        call.action = path[..1.min(path.len())].to_uppercase() + path.get(1..).unwrap_or_default();
    }
    let mut state = lock(&state);
    state.calls.push(call.name());
    let reply = state.world.as_mut().and_then(|world| world.answer(&call));
    Ok(write(&call, reply)?)
}

/// What a request asks for: the service from the scope it is signed for, the action from its protocol.
fn read(headers: &HeaderMap, body: &[u8]) -> Call {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scope = header("authorization").split([' ', ',']).find_map(|word| word.strip_prefix("Credential="));
    let service = scope.and_then(|scope| scope.split('/').nth(3)).unwrap_or("unsigned").to_owned();
    if let Some((_, action)) = header("x-amz-target").rsplit_once('.') {
        let params = serde_json::from_slice(body).unwrap_or_default();
        return Call { service, action: action.to_owned(), params };
    }
    let fields = form_urlencoded::parse(body);
    let params: Map<String, Value> = fields.map(|(name, value)| (name.into_owned(), json!(value))).collect();
    let action = params.get("Action").and_then(Value::as_str).unwrap_or_default().to_owned();
    Call { service, action, params }
}

fn write(call: &Call, reply: Option<Reply>) -> std::result::Result<Response<Full<Bytes>>, http::Error> {
    let action = &call.action;
    let version = matches!(reply, Some(Reply::Object(_))).then_some(("x-amz-version-id", OBJECT_VERSION));
    let (status, kind, body) = match reply {
        Some(Reply::Xml(inside)) => (
            StatusCode::OK,
            "text/xml",
            format!(
                "<{action}Response><{action}Result>{inside}</{action}Result><ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>",
                id = uuid::Uuid::new_v4()
            ),
        ),
        Some(Reply::Object(text)) => (StatusCode::OK, "application/json", text),
        Some(Reply::Empty) => (StatusCode::OK, "application/xml", String::new()),
        Some(Reply::Json(value)) => (StatusCode::OK, "application/x-amz-json-1.1", value.to_string()),
        None => (
            StatusCode::BAD_REQUEST,
            "application/x-amz-json-1.1",
            json!({"__type": "UnknownOperationException", "message": call.name()}).to_string(),
        ),
    };
    let mut response = Response::builder()
        .status(status)
        .header("content-type", kind)
        .header("x-amzn-requestid", uuid::Uuid::new_v4().to_string());
    if let Some((name, value)) = version {
        response = response.header(name, value);
    }
    response.body(Full::new(Bytes::from(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(service: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=ASIAX/20260102/eu-west-1/{service}/aws4_request, SignedHeaders=host"
        );
        headers.insert("authorization", scope.parse().unwrap());
        headers
    }

    #[test]
    fn both_protocols_are_read() {
        let call = read(&signed("iam"), b"Action=ListAccessKeys&UserName=a%2Bb&Version=2010-05-08");
        assert_eq!(call.name(), "iam:ListAccessKeys");
        assert_eq!(call.params["UserName"], "a+b");
        let mut headers = signed("secretsmanager");
        headers.insert("x-amz-target", "secretsmanager.GetSecretValue".parse().unwrap());
        let call = read(&headers, br#"{"SecretId":"app"}"#);
        assert_eq!(call.name(), "secretsmanager:GetSecretValue");
        assert_eq!(call.params["SecretId"], "app");
        assert_eq!(read(&HeaderMap::new(), b"").name(), "unsigned:");
    }

    #[test]
    fn what_nobody_can_answer_is_refused() {
        let call = read(&signed("ec2"), b"Action=RunInstances");
        assert_eq!(write(&call, None).unwrap().status(), StatusCode::BAD_REQUEST);
    }
}

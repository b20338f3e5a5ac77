//! The Lambda Runtime API as far as one invocation needs it: hands out one event, takes its answer, and notes
//! when that came.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::error::{Explain, Result};

/// What a function answered, and when the answer had arrived.
#[derive(Debug)]
pub(crate) struct Answer {
    /// When.
    pub(crate) at: Instant,
    /// The document, or what the function reported in its place.
    pub(crate) result: std::result::Result<Value, String>,
}

/// The API for one process.
pub(crate) struct Runtime {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    answer: oneshot::Receiver<Answer>,
    // The connections end with this value.
    _tasks: JoinSet<()>,
}

struct State {
    event: Option<String>,
    answer: Option<oneshot::Sender<Answer>>,
}

/// The version that every runtime speaks.
const BASE: &str = "/2018-06-01/runtime/";
/// How long the function may take, as it is told.
const TIME_OUT: Duration = Duration::from_mins(1);

impl Runtime {
    /// An API that has this event for the first who asks.
    pub(crate) async fn start(event: &Value) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.explain("listening on loopback")?;
        let address = listener.local_addr()?;
        let (sender, answer) = oneshot::channel();
        let state = Arc::new(Mutex::new(State { event: Some(event.to_string()), answer: Some(sender) }));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let state = Arc::clone(&state);
                let service = service_fn(move |request| respond(Arc::clone(&state), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    // A process that is killed breaks its connection off.
                    let _ = connection.await;
                });
            }
        });
        Ok(Self { address, answer, _tasks: tasks })
    }

    /// Waits for the first answer.
    pub(crate) async fn answer(&mut self) -> Result<Answer> {
        (&mut self.answer).await.explain("the Runtime API has ended")
    }
}

type Reply = Response<Full<Bytes>>;

async fn respond(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Reply> {
    let path = request.uri().path().strip_prefix(BASE).unwrap_or_default().to_owned();
    if request.method() == Method::GET && path == "invocation/next" {
        let event = lock(&state).event.take();
        return match event {
            Some(event) => invocation(event),
            // The next one never comes: the process waits, as between two invocations, until it is killed.
            None => std::future::pending().await,
        };
    }
    let body = request.into_body().collect().await?.to_bytes();
    let at = Instant::now();
    let text = || String::from_utf8_lossy(&body).into_owned();
    let result = match path.rsplit_once('/').map_or(path.as_str(), |(_, last)| last) {
        "response" => serde_json::from_slice(&body).map_err(|error| format!("{error} in {}", text())),
        "error" => Err(text()),
        _ => return Ok(empty(StatusCode::NOT_FOUND)),
    };
    if let Some(sender) = lock(&state).answer.take() {
        // Nobody may be listening any more; then nobody asks.
        let _ = sender.send(Answer { at, result });
    }
    Ok(empty(StatusCode::ACCEPTED))
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn invocation(event: String) -> Result<Reply> {
    let deadline = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + TIME_OUT;
    let reply = Response::builder()
        .header("content-type", "application/json")
        .header("lambda-runtime-aws-request-id", uuid::Uuid::new_v4().to_string())
        .header("lambda-runtime-deadline-ms", deadline.as_millis().to_string())
        .header(
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:eu-west-1:111122223333:function:bench:live",
        )
        .header("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000;Sampled=0")
        .body(Full::new(Bytes::from(event)))?;
    Ok(reply)
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::new()));
    *reply.status_mut() = status;
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use serde_json::json;

    async fn call(address: SocketAddr, method: Method, path: &str, body: &str) -> (StatusCode, String) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{BASE}{path}"))
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let reply = client.request(request).await.unwrap();
        let status = reply.status();
        let bytes = reply.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn one_event_is_handed_out_and_its_answer_taken() {
        let mut api = Runtime::start(&json!({"a": 1})).await.unwrap();
        let (status, event) = call(api.address, Method::GET, "invocation/next", "").await;
        assert_eq!((status, event.as_str()), (StatusCode::OK, r#"{"a":1}"#));
        let next = call(api.address, Method::GET, "invocation/next", "");
        assert!(tokio::time::timeout(Duration::from_millis(200), next).await.is_err(), "there is no second");
        let (status, _) = call(api.address, Method::POST, "invocation/x/response", r#"{"b":2}"#).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(api.answer().await.unwrap().result.unwrap(), json!({"b": 2}));
    }

    #[tokio::test]
    async fn a_reported_error_is_no_answer() {
        for path in ["init/error", "invocation/x/error"] {
            let mut api = Runtime::start(&json!({})).await.unwrap();
            call(api.address, Method::POST, path, r#"{"errorType":"Keywheel.Refused"}"#).await;
            let said = api.answer().await.unwrap().result.unwrap_err();
            assert!(said.contains("Keywheel.Refused"), "{path}: {said}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_no_json_is_none() {
        let mut api = Runtime::start(&json!({})).await.unwrap();
        call(api.address, Method::POST, "invocation/x/response", "None").await;
        assert!(api.answer().await.unwrap().result.is_err());
        let (status, _) = call(api.address, Method::POST, "invocation/x/elsewhere", "").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
}

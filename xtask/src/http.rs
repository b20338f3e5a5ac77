//! Plain HTTP to the emulator: its control endpoints, and signed calls whose raw reply is wanted.
//!
//! The raw reply matters where something is looked for in all of it: the SDK's types would leave out what
//! they do not know.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::cloud::{REGION, ROOT_KEY};
use crate::error::{Explain, Result};

type Body = Full<std::io::Cursor<Vec<u8>>>;

/// How long one reply may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client for one emulator.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Body>,
    base: String,
}

impl Http {
    /// A client for the emulator at `base`.
    pub(crate) fn new(base: &str) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), base: base.to_owned() }
    }

    /// Reads a control endpoint.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let request = Request::get(format!("{}{path}", self.base)).body(body(""))?;
        self.json(request).await
    }

    /// Posts to a control endpoint.
    pub(crate) async fn post(&self, path: &str, value: &Value) -> Result<Value> {
        let request = Request::post(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .body(body(&value.to_string()))?;
        self.json(request).await
    }

    /// Calls an AWS action of the JSON protocol as the account's root, and returns the reply's text.
    pub(crate) async fn call(&self, service: &str, target: &str, input: &Value) -> Result<String> {
        let (url, input) = (format!("{}/", self.base), input.to_string());
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
        let mut request = Request::builder().method(Method::POST).uri(&url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body(&input))?;
        let identity: Identity = Credentials::new(ROOT_KEY, ROOT_KEY, None, None, "Emulator").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let signable =
            SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(input.as_bytes()))?;
        let (instructions, _) = sign(signable, &params)?.into_parts();
        instructions.apply_to_request_http1x(&mut request);
        self.text(request).await.explain(target)
    }

    async fn json(&self, request: Request<Body>) -> Result<Value> {
        let path = request.uri().path().to_owned();
        let text = self.text(request).await?;
        serde_json::from_str(&text).explain(format_args!("the reply of {path}"))
    }

    async fn text(&self, request: Request<Body>) -> Result<String> {
        let path = request.uri().path().to_owned();
        let exchange = async {
            let reply = self.client.request(request).await?;
            let status = reply.status();
            let bytes = reply.into_body().collect().await?.to_bytes();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if status.is_success() {
                Ok(text)
            } else {
                Err(format!("status {status}: {}", text.chars().take(400).collect::<String>()).into())
            }
        };
        let reply: Result<String> = tokio::time::timeout(PATIENCE, exchange).await.explain(&path)?;
        reply.explain(&path)
    }
}

fn body(text: &str) -> Body {
    Full::new(std::io::Cursor::new(text.as_bytes().to_vec()))
}

//! The wire: what a request asks for, who signed it, and how each protocol writes its answers.
//!
//! The service is read from the signing scope, the action from the query, the target header or the path. Signatures are
//! recomputed, so that a pair of which one half is wrong is refused here as AWS would refuse it.

use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use hmac::{Hmac, KeyInit, Mac};
use keywheel::RunId;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::objects::{MARKED, entity_tag};

/// One request, read.
#[derive(Debug, Clone)]
pub struct Request {
    /// The service, as policies name it: `iam`, `secretsmanager`, `states`, ….
    pub service: String,
    /// The action, such as `CreateAccessKey`.
    pub action: String,
    /// The parameters: the query's as text, or the JSON body.
    pub params: Value,
    /// The id of the key that signed.
    pub signer: String,
    /// The region of the signing scope.
    pub region: String,
    /// The User-Agent.
    pub agent: String,
    /// The run that the User-Agent names.
    pub run: Option<RunId>,
    /// Address, headers and body as sent, for the search for secrets.
    pub raw: String,
    /// What the signature is computed from.
    signing: Signing,
}

#[derive(Debug, Clone)]
struct Signing {
    canonical: String,
    date: String,
    scope: String,
    signature: String,
}

/// An answer's body.
#[derive(Debug, Clone)]
pub enum Body {
    /// The inside of `<ActionResult>`.
    Xml(String),
    /// A JSON object.
    Json(Value),
    /// An object of S3, and its version.
    Object(String, String),
}

/// An error that the service answers with.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The code.
    pub code: String,
    /// The words.
    pub message: String,
}

/// What a service answers.
pub type Answer = Result<Body, Refusal>;

/// A refusal with status 400.
pub fn refuse<T>(code: &str, message: impl Into<String>) -> Result<T, Refusal> {
    refuse_with(400, code, message)
}

/// A refusal with the given status.
pub fn refuse_with<T>(status: u16, code: &str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { status, code: code.to_owned(), message: message.into() })
}

impl Request {
    /// What a machine asks of a service itself: nobody signs it, and no run's User-Agent is on it.
    pub(super) fn of_machine(service: &str, action: &str, params: Value) -> Self {
        let nothing = || String::new();
        Self {
            service: service.to_owned(),
            action: action.to_owned(),
            raw: params.to_string(),
            params,
            signer: "states".into(),
            region: nothing(),
            agent: nothing(),
            run: None,
            signing: Signing {
                canonical: nothing(),
                date: nothing(),
                scope: nothing(),
                signature: nothing(),
            },
        }
    }

    /// Reads a request.
    pub fn read(request: &HttpRequest) -> Self {
        let header = |name: &str| request.headers().get(name).unwrap_or_default().to_owned();
        let body = request
            .body()
            .bytes()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .unwrap_or_default();
        let authorization = header("authorization");
        let part = |name: &str| {
            authorization
                .split([' ', ','])
                .find_map(|word| word.strip_prefix(name))
                .unwrap_or_default()
                .to_owned()
        };
        let credential = part("Credential=");
        let (signer, scope) = credential.split_once('/').unwrap_or(("", ""));
        let mut words = scope.split('/').skip(1);
        let region = words.next().unwrap_or_default().to_owned();
        let service = words.next().unwrap_or_default().to_owned();
        let target = header("x-amz-target");
        let (action, params) = if service == "s3" {
            object_call(request, &body)
        } else if service == "account" {
            // REST: the action is the path, and begins with a small letter there.
            let action = request.uri().rsplit('/').next().unwrap_or_default();
            let action = action.get(..1).map(|first| first.to_uppercase() + &action[1..]);
            (action.unwrap_or_default(), serde_json::from_str(&body).unwrap_or_default())
        } else if target.is_empty() {
            let fields: Map<String, Value> = form_urlencoded::parse(body.as_bytes())
                .map(|(name, value)| (name.into_owned(), json!(value)))
                .collect();
            (
                fields.get("Action").and_then(Value::as_str).unwrap_or_default().to_owned(),
                Value::Object(fields),
            )
        } else {
            let action = target.rsplit_once('.').map(|(_, action)| action.to_owned()).unwrap_or_default();
            (action, serde_json::from_str(&body).unwrap_or_default())
        };
        let agent = header("user-agent");
        let url = request.uri().to_owned();
        let headers: Vec<String> =
            request.headers().iter().map(|(name, value)| format!("{name}: {value}")).collect();
        Self {
            run: RunId::from_user_agent(&agent),
            signing: Signing {
                canonical: canonical(request, &url, &body, &part("SignedHeaders=")),
                date: header("x-amz-date"),
                scope: scope.to_owned(),
                signature: part("Signature="),
            },
            raw: format!("{url}\n{}\n{body}", headers.join("\n")),
            signer: signer.to_owned(),
            region,
            service,
            action,
            params,
            agent,
        }
    }

    /// The call's name as policies write it, such as `iam:CreateAccessKey`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.service, self.action)
    }

    /// The host that it was sent to; empty where nobody sent it.
    pub fn host(&self) -> &str {
        let rest = self.raw.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?', '\n']).next().unwrap_or_default()
    }

    /// A text parameter; empty where it is absent.
    pub fn text(&self, name: &str) -> &str {
        self.params.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the request was signed with `secret`.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let Signing { canonical, date, scope, signature } = &self.signing;
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
        let key = scope
            .split('/')
            .fold(format!("AWS4{secret}").into_bytes(), |key, word| keyed(&key, word.as_bytes()));
        hex(&keyed(&key, to_sign.as_bytes())) == *signature
    }
}

fn canonical(request: &HttpRequest, url: &str, body: &str, signed: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let headers = signed.split(';').fold(String::new(), |list, name| {
        let value = request.headers().get(name).unwrap_or(if name == "host" { host } else { "" });
        list + name + ":" + value.trim() + "\n"
    });
    let mut query: Vec<&str> = query.split('&').collect();
    query.sort_unstable();
    let query = query.join("&");
    let hash = hex(&Sha256::digest(body.as_bytes()));
    format!("{}\n{path}\n{query}\n{headers}\n{signed}\n{hash}", request.method())
}

/// What a call of S3 asks for: it has no action, only a method, a bucket in the host or the path, and a key.
fn object_call(request: &HttpRequest, body: &str) -> (String, Value) {
    let url = request.uri();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (bucket, key) = match host.split_once(".s3.") {
        Some((bucket, _)) => (bucket, path),
        None => path.split_once('/').unwrap_or((path, "")),
    };
    let action = match request.method() {
        "PUT" => "PutObject",
        "GET" => "GetObject",
        other => other,
    };
    let version = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "versionId");
    let version = version.map(|(_, version)| version.into_owned());
    let (is, none) = (request.headers().get("if-match"), request.headers().get("if-none-match"));
    let params = json!({
        "Bucket": bucket, "Key": key, "VersionId": version, "IfMatch": is, "IfNoneMatch": none, "Body": body,
    });
    (action.into(), params)
}

fn keyed(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether an answer is one page of more.
pub(super) fn has_more(answer: &Answer) -> bool {
    match answer {
        Ok(Body::Xml(text)) => text.contains("<IsTruncated>true<"),
        Ok(Body::Json(value)) => ["NextToken", "nextToken"].iter().any(|token| value.get(token).is_some()),
        Ok(Body::Object(..)) | Err(_) => false,
    }
}

/// Text as XML writes it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// An XML element.
pub(super) fn tag(name: &str, text: impl std::fmt::Display) -> String {
    format!("<{name}>{}</{name}>", escape(&text.to_string()))
}

/// Writes the answer as its service does.
pub(super) fn write(request: &Request, answer: &Answer, id: &str) -> HttpResponse {
    let action = &request.action;
    let (status, body) = match answer {
        Ok(Body::Xml(inside)) => (
            200,
            format!(
                "<{action}Response><{action}Result>{inside}</{action}Result><ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
            ),
        ),
        Ok(Body::Json(value)) => (200, value.to_string()),
        Ok(Body::Object(text, version)) => {
            let mut response = reply(200, text.clone(), id);
            response.headers_mut().insert("x-amz-version-id", version.clone());
            response.headers_mut().insert("etag", entity_tag(text));
            return response;
        }
        Err(refusal) if request.service == "s3" => (
            refusal.status,
            format!(
                "<Error>{}{}<RequestId>{id}</RequestId></Error>",
                tag("Code", &refusal.code),
                tag("Message", &refusal.message)
            ),
        ),
        Err(refusal) if is_query(&request.service) => (
            refusal.status,
            format!(
                "<ErrorResponse><Error><Type>Sender</Type>{}{}</Error><RequestId>{id}</RequestId></ErrorResponse>",
                tag("Code", &refusal.code),
                tag("Message", &refusal.message)
            ),
        ),
        Err(refusal) => {
            (refusal.status, json!({"__type": refusal.code, "message": refusal.message}).to_string())
        }
    };
    let mut response = reply(status, body, id);
    if matches!(answer, Err(refusal) if refusal.message == MARKED) {
        response.headers_mut().insert("x-amz-delete-marker", "true");
    }
    response
}

/// A response with a body.
pub(super) fn reply(status: u16, body: String, id: &str) -> HttpResponse {
    let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
    response.headers_mut().insert("x-amzn-requestid", id.to_owned());
    response
}

/// Whether a service speaks the query protocol.
pub(super) fn is_query(service: &str) -> bool {
    matches!(service, "iam" | "sts" | "sns")
}

//! What somebody might send who wishes us harm: one list for triage alone, for the machines in process, and for the
//! buses of the local cloud.

use indexmap::IndexMap;
use keywheel::triage::{Class, LONGEST, MOST_TARGETS};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The one good key that some of them name.
pub const KEY: &str = "AKIA2OGYBAH6QKEYWHEL";
/// The user that a malformed key is said to be of.
pub const USER: &str = "svc";

/// The most bytes of an event that `EventBridge` carries.
const CARRIED: usize = 256 * 1024;

/// One of them.
#[derive(Debug, Clone)]
pub struct Hostile {
    /// What is wrong with it.
    pub what: &'static str,
    /// Its bytes.
    pub event: Vec<u8>,
    /// What it is to be taken for: whether the one good key in it, where there is one, is still to be contained.
    pub class: Class,
}

/// What `PutEvents` is given for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its source.
    pub source: String,
    /// Its detail-type.
    pub kind: String,
    /// Its detail, word for word: a field that is there twice still is.
    pub detail: String,
}

impl Hostile {
    /// The event as a target of `EventBridge` would be given it; `None` where it is no JSON object, or larger than is
    /// carried.
    pub fn carried(&self) -> Option<Value> {
        let event: Value = serde_json::from_slice(&self.event).ok()?;
        (event.is_object() && event.to_string().len() <= CARRIED).then_some(event)
    }

    /// How it is put on a bus; `None` where `PutEvents` takes nothing like it.
    pub fn entry(&self) -> Option<Entry> {
        self.carried()?;
        let event = std::str::from_utf8(&self.event).ok()?;
        let fields: IndexMap<String, Box<RawValue>> = serde_json::from_str(event).ok()?;
        let text = |name: &str| serde_json::from_str::<String>(fields.get(name)?.get()).ok();
        let detail = fields.get("detail")?.get();
        let entry = Entry { source: text("source")?, kind: text("detail-type")?, detail: detail.to_owned() };
        detail.starts_with('{').then_some(entry)
    }
}

fn leak(detail: &Value) -> Value {
    json!({"source": "keywheel.leak", "detail-type": "Leaked Access Key", "detail": detail})
}

fn finding(details: &Value) -> Value {
    json!({
        "source": "aws.guardduty", "detail-type": "GuardDuty Finding",
        "detail": {
            "accountId": "111122223333", "type": "UnauthorizedAccess:IAMUser/TorIPCaller",
            "resource": {"resourceType": "AccessKey", "accessKeyDetails": details},
        },
    })
}

/// All of them.
pub fn inputs() -> Vec<Hostile> {
    table().into_iter().map(|(what, event, class)| Hostile { what, event, class }).collect()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<(&'static str, Vec<u8>, Class)> {
    use Class::{Ignore, Reject, RevokeUserKey};
    let text = |text: &str| text.as_bytes().to_vec();
    let of = |value: Value| value.to_string().into_bytes();
    let keys = |count: usize| -> Vec<Value> {
        (0..count).map(|number| json!({"key_id": format!("AKIA2OGYBAH6{number:08}")})).collect()
    };
    let user =
        |name: &str| of(finding(&json!({"accessKeyId": KEY, "userName": name, "userType": "IAMUser"})));
    let key = |id: &str| of(finding(&json!({"accessKeyId": id, "userName": USER, "userType": "IAMUser"})));
    let detail = |detail: Value| {
        of(json!({"source": "aws.health", "detail-type": "AWS Health Event", "detail": detail}))
    };
    vec![
        ("nothing", text(""), Reject),
        ("blanks", text(" \t\r\n"), Reject),
        ("a mark of byte order alone", vec![0xef, 0xbb, 0xbf], Reject),
        ("broken UTF-8", vec![b'"', 0xff, 0xfe, b'"'], Reject),
        ("UTF-16", vec![0xff, 0xfe, b'{', 0, b'}', 0], Reject),
        ("a NUL", text("{\"a\": \"\0\"}"), Reject),
        ("a number", text("1e999999"), Reject),
        ("NaN", text("{\"severity\": NaN}"), Reject),
        ("a comment", text("/* {} */"), Reject),
        ("two documents", text("{}{}"), Reject),
        ("an open brace", text("{"), Reject),
        ("thousands of open braces", text(&"{\"a\":".repeat(50_000)), Reject),
        ("thousands of open brackets", text(&"[".repeat(100_000)), Reject),
        ("a list", text("[{\"source\": \"aws.guardduty\"}]"), Reject),
        ("too many bytes", vec![b' '; LONGEST + 1], Reject),
        ("no detail", of(json!({"source": "aws.guardduty", "detail-type": "GuardDuty Finding"})), Reject),
        ("a detail that is text", detail(json!("{}")), Reject),
        ("a detail that is a list", detail(json!([])), Reject),
        ("a source that is a number", of(json!({"source": 7, "detail-type": "x", "detail": {}})), Reject),
        (
            "a source that is nobody's",
            of(json!({"source": "../aws.guardduty", "detail-type": "x", "detail": {}})),
            Ignore,
        ),
        ("a code that is an object", detail(json!({"eventTypeCode": {"$ne": ""}})), Reject),
        (
            "entities that are an object",
            detail(json!({"eventTypeCode": "AWS_RISK_CREDENTIALS_EXPOSED", "affectedEntities": {"0": KEY}})),
            Class::NotifyResolve,
        ),
        ("a key with a query", key("AKIA2OGYBAH6QKEYWHEL' OR '1'='1"), Reject),
        ("a key with a path", key("AKIA2OGYBAH6QKEY/../../"), Reject),
        ("a key with a line break inside", key("AKIA2OGYBAH6\nQKEYWHEL"), Reject),
        ("a key in small letters", key("akia2ogybah6qkeywhel"), Reject),
        ("a key in look-alike letters", key("АKIA2OGYBAH6QKEYWHEL"), Reject),
        ("a key of a thousand letters", key(&format!("AKIA{}", "A".repeat(1000))), Reject),
        ("an id of a user", key("AIDA2OGYBAH6QKEYWHEL"), Reject),
        (
            "a key that is a list",
            of(finding(&json!({"accessKeyId": [KEY], "userName": 7, "userType": {}}))),
            Reject,
        ),
        ("blanks around a key", key(&format!(" {KEY}\n")), RevokeUserKey),
        ("a user with a shell in the name", user("$(aws iam delete-user)"), RevokeUserKey),
        ("a user with another one's policy in the name", user("svc\",\"Effect\":\"Allow\""), RevokeUserKey),
        ("a user written backwards", user("\u{202e}cvs"), RevokeUserKey),
        ("a user of a megabyte", user(&"a".repeat(1 << 20)), RevokeUserKey),
        ("a user that is a placeholder of the machine", user("$.Execution.Id"), RevokeUserKey),
        ("a user that is a template", user("{{resolve:secretsmanager:x}}"), RevokeUserKey),
        (
            "the same field twice",
            text(&format!(
                "{{\"source\":\"keywheel.leak\",\"source\":\"keywheel.leak\",\"detail-type\":\"Leaked Access Key\",\"detail\":{{\"schema\":1,\"keys\":[{{\"key_id\":\"nonsense\",\"key_id\":\"{KEY}\"}}]}}}}"
            )),
            RevokeUserKey,
        ),
        (
            "more keys than a machine should act on",
            of(leak(&json!({"schema": 1, "keys": keys(MOST_TARGETS + 1)}))),
            Reject,
        ),
        (
            "as many keys as it may",
            of(leak(&json!({"schema": 1, "keys": keys(MOST_TARGETS)}))),
            RevokeUserKey,
        ),
        (
            "our own event in a service's name",
            of(
                json!({"source": "aws.keywheel.leak", "detail-type": "Leaked Access Key", "detail": {"schema": 1, "keys": [{"key_id": KEY}]}}),
            ),
            Ignore,
        ),
        (
            "our own event with a schema as text",
            of(leak(&json!({"schema": "1", "keys": [{"key_id": KEY}]}))),
            Reject,
        ),
        (
            "our own event with a negative schema",
            of(leak(&json!({"schema": -1, "keys": [{"key_id": KEY}]}))),
            Reject,
        ),
        (
            "our own event with a secret beside the key",
            of(leak(&json!({"schema": 1, "keys": [{"key_id": KEY, "secret": "x"}]}))),
            RevokeUserKey,
        ),
        ("records without messages", of(json!({"Records": [{}, 7, null]})), Reject),
        ("no records", of(json!({"Records": []})), Reject),
        (
            "a step that is none",
            of(json!({"Step": "dropSecret", "SecretId": "x", "ClientRequestToken": "y"})),
            Reject,
        ),
        ("a step without a token", of(json!({"Step": "createSecret", "SecretId": "x"})), Reject),
        ("a user with a NUL", user("svc\u{0}admin"), RevokeUserKey),
        ("a user with marks that nobody sees", user("s\u{200b}v\u{feff}c"), RevokeUserKey),
        ("a user with a terminal's commands", user("\u{1b}[2J\u{7}svc"), RevokeUserKey),
        ("a user with a page's", user("<img src=x onerror=alert(1)>"), RevokeUserKey),
        ("a user with a message's", user("<!channel> *pay* <https://x|here>"), RevokeUserKey),
        ("a user with a format's", user("%s%n{0}{}${jndi:x}"), RevokeUserKey),
        ("a user that is a star", user("*"), RevokeUserKey),
        ("a user with a path", user("../../role/admin"), RevokeUserKey),
        ("a key of the state language", key("States.Format('{}', $)"), Reject),
    ]
}

//! Replies that the emulator did not give, in the protocol that the request was sent in.

use super::plan::Kind;

/// A reply with this JSON.
pub(super) fn json(status: u16, text: &str) -> Vec<u8> {
    reply(status, "application/json", text)
}

/// A refusal or a failure.
pub(super) fn error(kind: Kind, is_json: bool) -> Vec<u8> {
    let (status, code) = match (kind, is_json) {
        (Kind::Refused, true) => (400, "AccessDeniedException"),
        (Kind::Refused, false) => (403, "AccessDenied"),
        (Kind::Throttled, true) => (400, "ThrottlingException"),
        (Kind::Throttled, false) => (400, "Throttling"),
        _ => (500, "InternalFailure"),
    };
    let message = "By a planned fault.";
    if is_json {
        let text = serde_json::json!({ "__type": code, "message": message });
        return reply(status, "application/x-amz-json-1.1", &text.to_string());
    }
    let side = if status < 500 { "Sender" } else { "Receiver" };
    let text = format!(
        "<ErrorResponse><Error><Type>{side}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
         <RequestId>fault</RequestId></ErrorResponse>"
    );
    reply(status, "text/xml", &text)
}

/// A success that nobody can read.
pub(super) fn garbled(is_json: bool) -> Vec<u8> {
    if is_json { reply(200, "application/x-amz-json-1.1", "{\"A") } else { reply(200, "text/xml", "<A") }
}

fn reply(status: u16, kind: &str, text: &str) -> Vec<u8> {
    let length = text.len();
    format!(
        "HTTP/1.1 {status} Fault\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{text}"
    )
    .into_bytes()
}

"""Around the emulator's gateway: a log of every signed call, faults, last use and CloudTrail.

`GET /_keywheel/requests?after=SEQ` lists calls (`&limit=N` the first of them,
`&made=1` only those that made a key), `DELETE` empties the list;
`GET` and `POST /_keywheel/faults` show and plan faults; `POST /_keywheel/ages`
makes keys older. All answer only to this machine's tests: they are not signed
and not part of any AWS interface.
"""

import asyncio
import collections
import itertools
import json
import re
import time
from datetime import datetime, timezone
from urllib.parse import parse_qs

from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.http_stream import HTTPStream
from ministack import app
from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id

from overlay import cloudtrail, faults, iam, patching, stepfunctions
from overlay.call import Call, parse, principal_arn, set_current

KEPT_CALLS = 200_000
_DROP = "keywheel.drop"

_XML_CODE = re.compile(rb"<Code>([^<]*)</Code>")
_XML_MESSAGE = re.compile(rb"<Message>([^<]*)</Message>")
_XML_NEW_KEY = re.compile(rb"<AccessKeyId>([^<]+)</AccessKeyId>\s*<SecretAccessKey>([^<]+)</SecretAccessKey>")

_calls: collections.deque[dict] = collections.deque(maxlen=KEPT_CALLS)
_sequence = itertools.count(1)


class _Dropped(Exception):
    """The connection of the request being served is to be closed without a reply."""


def _error_of(status: int, headers: dict, body) -> tuple[str | None, str | None]:
    """The AWS error code and message of a reply."""
    if status < 400 or not isinstance(body, bytes):
        return None, None
    if body[:1] == b"{":
        try:
            document = json.loads(body)
        except ValueError:
            document = {}
        code = document.get("__type") or headers.get("x-amzn-errortype") or str(status)
        return str(code).rpartition("#")[2].partition(":")[0], document.get("message") or document.get("Message")
    code, message = _XML_CODE.search(body), _XML_MESSAGE.search(body)
    return (code.group(1).decode() if code else headers.get("x-amzn-errortype") or str(status),
            message.group(1).decode() if message else None)


def _log(call: Call, principal: str | None, arrived: float, status: int, code: str | None, body,
         fault: faults.Fault | None) -> None:
    entry = {
        "seq": next(_sequence),
        "time": datetime.fromtimestamp(arrived, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "service": call.service, "action": call.action, "key_id": call.key_id, "principal": principal,
        "status": status, "code": code, "agent": call.agent, "app": call.app, "target": call.target,
        "account": get_account_id(), "region": call.region,
    }
    if fault is not None:
        entry["fault"] = fault.when
    if call.service == "iam" and call.action == "CreateAccessKey" and isinstance(body, bytes):
        made = _XML_NEW_KEY.search(body)
        if made:
            entry["reply"] = {"access_key_id": made.group(1).decode(), "secret_access_key": made.group(2).decode()}
    _calls.append(entry)


async def _dispatch(method: str, path: str, headers: dict, body: bytes, query_params: dict, request_id: str):
    """Serve one request; the emulator's own dispatch does the work."""
    call = parse(method, path, headers, body, query_params)
    set_current(call)
    if call is None:
        return await _original["dispatch"](method, path, headers, body, query_params, request_id)
    arrived, account = time.time(), get_account_id()
    principal = principal_arn(call.key_id, account)
    fault = faults.take(call, principal) if faults.pending() else None
    if fault is not None and fault.when == "before":
        if fault.delay_ms:
            await asyncio.sleep(fault.delay_ms / 1000)
        if fault.drop or fault.status is not None:
            return _spoilt(fault, call, headers, principal, arrived, None)
    status, reply_headers, reply = await _original["dispatch"](method, path, headers, body, query_params, request_id)
    code, message = _error_of(status, reply_headers, reply)
    genuine = iam_evaluator._verified_key.get() == call.key_id or iam_evaluator.is_root_access_key(call.key_id)
    if genuine:
        iam.record_use(call.key_id, account, call.service, call.region)
        cloudtrail.record(call, status, code, message, reply_headers, reply if isinstance(reply, bytes) else b"",
                          request_id)
    if fault is not None and fault.when == "after":
        if fault.delay_ms:
            await asyncio.sleep(fault.delay_ms / 1000)
        if fault.drop or fault.status is not None:
            return _spoilt(fault, call, headers, principal, arrived, reply)
    _log(call, principal, arrived, status, code, reply, fault)
    return status, reply_headers, reply


def _spoilt(fault: faults.Fault, call: Call, headers: dict, principal: str | None, arrived: float, reply):
    """Answer as the fault says. What the service did reply is logged: it took effect."""
    if fault.drop:
        _log(call, principal, arrived, 0, None, reply, fault)
        raise _Dropped
    answer = faults.reply(fault, call, headers)
    _log(call, principal, arrived, answer[0], fault.code, reply, fault)
    return answer


# -- what tests talk to -----------------------------------------------------

def _requests_after(query: dict) -> list[dict]:
    after = int((query.get("after") or ["0"])[0] or 0)
    limit = int((query.get("limit") or ["0"])[0] or 0) or KEPT_CALLS
    if not _calls:
        return []
    start = max(0, after + 1 - _calls[0]["seq"])
    if query.get("made"):
        # Few among very many: whoever looks for pairs that were given out need not be sent all the rest.
        return [call for call in itertools.islice(_calls, start, None) if call.get("reply")][:limit]
    return list(itertools.islice(_calls, start, start + limit))


def _admin(method: str, path: str, query: dict, body: bytes) -> tuple[int, object]:
    if path == "/_keywheel/requests":
        if method == "GET":
            return 200, _requests_after(query)
        if method == "DELETE":
            _calls.clear()
            return 200, {}
    if path == "/_keywheel/faults":
        if method == "GET":
            return 200, faults.remaining()
        if method == "DELETE":
            faults.plan([])
            return 200, []
        if method == "POST":
            try:
                reason = faults.plan(json.loads(body or b"[]"))
            except (ValueError, TypeError) as error:
                reason = str(error)
            return (400, {"error": reason}) if reason else (200, faults.remaining())
    if (method, path) == ("POST", "/_keywheel/ages"):
        reason = iam.set_ages(json.loads(body or b"{}"))
        return (400, {"error": reason}) if reason else (200, {})
    return 404, {"error": f"nothing at {method} {path}"}


async def _asgi(scope, receive, send):
    """The server's entry: answers /_keywheel/, closes dropped connections, hands on the rest."""
    if scope["type"] != "http":
        await _original["app"](scope, receive, send)
        return
    path = scope["path"]
    if path.startswith("/_keywheel/"):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                break
        query = parse_qs(scope.get("query_string", b"").decode())
        try:
            status, document = _admin(scope["method"], path, query, body)
        except ValueError as error:
            status, document = 400, {"error": str(error)}
        payload = json.dumps(document).encode()
        await send({"type": "http.response.start", "status": status, "headers": [
            (b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode())]})
        await send({"type": "http.response.body", "body": payload})
        return
    if path == "/_ministack/reset":
        _calls.clear()
        faults.plan([])
        stepfunctions.stop_all()
    try:
        await _original["app"](scope, receive, send)
    except _Dropped:
        scope[_DROP] = True


async def _stream_send(self, message) -> None:
    """Close the connection of a dropped request instead of answering it with a 500."""
    if message is None and not self.closed and self.scope.get(_DROP):
        await self.send(StreamClosed(stream_id=self.stream_id))
        return
    await _original["stream_send"](self, message)


_original: dict = {}


def apply() -> None:
    """Put the gateway's wrappers in place."""
    _original["dispatch"] = patching.replace(app, "_dispatch_service_request", _dispatch, "17e5ef6dcfa0")
    _original["app"] = patching.replace(app, "app", _asgi, "ab1297bd6cd5")
    _original["stream_send"] = HTTPStream.app_send
    HTTPStream.app_send = _stream_send
    patching.relies_on(iam_evaluator, "authenticate", "42c3660c401b")

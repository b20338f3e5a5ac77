"""Refusals, delays and lost replies on demand.

A test posts a list of faults; each call is compared with them in order and the
first that fits is used up once. `before` answers instead of the service;
`after` lets the call take effect and then spoils the reply.
"""

import json
from dataclasses import dataclass, fields
from typing import Any
from xml.sax.saxutils import escape

from ministack.core.responses import new_uuid

from overlay.call import Call

_XML_NAMESPACES = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
    "sns": "http://sns.amazonaws.com/doc/2010-03-31/",
    "cloudformation": "http://cloudformation.amazonaws.com/doc/2010-05-15/",
    "monitoring": "http://monitoring.amazonaws.com/doc/2010-08-01/",
}


@dataclass(slots=True)
class Fault:
    """One planned fault. A field left at None fits every call."""

    service: str | None = None
    action: str | None = None
    key_id: str | None = None
    principal_contains: str | None = None
    app_contains: str | None = None
    target: str | None = None
    region: str | None = None
    skip: int = 0
    times: int | None = 1  # None: for ever
    when: str = "before"
    status: int | None = None
    code: str = "InternalFailure"
    message: str = "Refused by a planned fault."
    delay_ms: int = 0
    drop: bool = False

    def fits(self, call: Call, principal: str | None) -> bool:
        """Whether this fault is meant for the call."""
        return (
            self.service in (None, "*", call.service)
            and self.action in (None, "*", call.action)
            and self.key_id in (None, call.key_id)
            and self.target in (None, call.target)
            and self.region in (None, call.region)
            and (self.principal_contains is None or self.principal_contains in (principal or ""))
            and (self.app_contains is None or self.app_contains in (call.app or ""))
        )


_NAMES = {item.name for item in fields(Fault)}
_planned: list[Fault] = []


def plan(documents: Any) -> str | None:
    """Replace the list of faults; the reason when it cannot be read."""
    if not isinstance(documents, list) or not all(isinstance(item, dict) for item in documents):
        return "a list of objects is expected"
    planned = []
    for document in documents:
        unknown = set(document) - _NAMES
        if unknown:
            return f"unknown field: {', '.join(sorted(unknown))}"
        fault = Fault(**document)
        if fault.when not in ("before", "after"):
            return "when: 'before' or 'after'"
        if fault.status is None and not fault.drop and not fault.delay_ms:
            return "one of status, delay_ms and drop is needed"
        planned.append(fault)
    _planned[:] = planned
    return None


def remaining() -> list[dict]:
    """The faults that have not been used up."""
    return [{name: getattr(fault, name) for name in sorted(_NAMES)} for fault in _planned]


def pending() -> bool:
    """Whether there is anything to compare a call with."""
    return bool(_planned)


def take(call: Call, principal: str | None) -> Fault | None:
    """The fault for this call, counted as used."""
    for fault in _planned:
        if not fault.fits(call, principal):
            continue
        if fault.skip > 0:
            fault.skip -= 1
            return None
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                _planned.remove(fault)
        return fault
    return None


def reply(fault: Fault, call: Call, headers: dict) -> tuple[int, dict, bytes]:
    """The refusal in the protocol the request was sent in."""
    status, request_id = fault.status or 500, new_uuid()
    side = "Sender" if status < 500 else "Receiver"
    common = {"x-amzn-requestid": request_id, "x-amz-request-id": request_id}
    content_type = headers.get("content-type", "")
    if headers.get("x-amz-target") or "json" in content_type or call.service == "lambda":
        body = json.dumps({"__type": fault.code, "message": fault.message, "Message": fault.message}).encode()
        return status, {"Content-Type": content_type or "application/json", "x-amzn-errortype": fault.code,
                        **common}, body
    if call.service == "s3":
        body = (f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{escape(fault.code)}</Code>'
                f"<Message>{escape(fault.message)}</Message><RequestId>{request_id}</RequestId></Error>").encode()
        return status, {"Content-Type": "application/xml", **common}, body
    namespace = _XML_NAMESPACES.get(call.service, "https://iam.amazonaws.com/doc/2010-05-08/")
    body = (f'<ErrorResponse xmlns="{namespace}"><Error><Type>{side}</Type><Code>{escape(fault.code)}</Code>'
            f"<Message>{escape(fault.message)}</Message></Error><RequestId>{request_id}</RequestId>"
            "</ErrorResponse>").encode()
    return status, {"Content-Type": "text/xml", **common}, body

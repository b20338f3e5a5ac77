"""One signed request as the gateway sees it, and who made it."""

import contextvars
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from ministack import app
from ministack.services import iam, sts

_SCOPE = re.compile(r"Credential=([^/,\s]+)/[^/]*/([^/]*)/([^/,\s]*)")
_APP = re.compile(r"(?:^|\s)app/(\S+)")
_RPC_OPERATION = re.compile(r"/service/[^/]+/operation/([A-Za-z0-9]+)")
# Larger bodies are uploads; nothing in them is worth parsing.
_PARSED_BODY_LIMIT = 1 << 20
# What a call is about, by the first parameter of these that it carries.
_TARGETS = ("SecretId", "UserName", "AccessKeyId", "RoleArn", "RoleName", "executionArn", "stateMachineArn",
            "Name", "TopicArn", "QueueUrl", "PolicyArn", "StackName", "logGroupName", "FunctionName")

_current: contextvars.ContextVar["Call | None"] = contextvars.ContextVar("keywheel_call", default=None)


@dataclass(slots=True)
class Call:
    """What is known of a request before it is answered."""

    service: str
    action: str
    key_id: str
    region: str
    agent: str
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def app(self) -> str | None:
        """The application name in the SDK's user agent."""
        found = _APP.search(self.agent)
        return found.group(1) if found else None

    @property
    def target(self) -> str | None:
        """The user, secret, key or other resource the call names."""
        for name in _TARGETS:
            value = self.params.get(name)
            if isinstance(value, str) and value:
                return value
        return None


def current_call() -> Call | None:
    """The request being served."""
    return _current.get()


def set_current(call: Call | None) -> None:
    """Remember the request being served, for handlers that need its caller."""
    _current.set(call)


def parse(method: str, path: str, headers: dict, body: bytes, query: dict) -> Call | None:
    """The signed request as a Call, or None when it carries no SigV4 header."""
    scope = _SCOPE.search(headers.get("authorization", ""))
    if scope is None:
        return None
    key_id, region, service = scope.groups()
    params: dict[str, Any] = {name: values[0] for name, values in query.items() if values}
    content_type = headers.get("content-type", "")
    if body and len(body) <= _PARSED_BODY_LIMIT and service != "s3":
        if "json" in content_type:
            try:
                document = json.loads(body)
            except ValueError:
                document = None
            if isinstance(document, dict):
                params.update(document)
        elif "form" in content_type:
            form = parse_qs(body.decode("utf-8", errors="replace"), keep_blank_values=True)
            params.update({name: values[0] for name, values in form.items()})
    action = params.get("Action") if "json" not in content_type else None
    if not action:
        operation = _RPC_OPERATION.search(path)
        action = operation.group(1) if operation else app._ct_event_name(service, method, path, headers, query)
    return Call(service, str(action), key_id, region, headers.get("user-agent", ""), params)


def session_of(key_id: str) -> dict | None:
    """The record of a temporary credential."""
    return sts._sessions.get(key_id)


def principal_arn(key_id: str, account: str) -> str | None:
    """The ARN behind a key, or None for a key that does not exist."""
    session = session_of(key_id)
    if session is not None:
        return session.get("Arn")
    key = iam._access_keys.get_scoped(account, None, key_id)
    if key is not None:
        user = iam._users.get_scoped(account, None, key["UserName"]) or {}
        return user.get("Arn") or f"arn:aws:iam::{account}:user/{key['UserName']}"
    from ministack.core.iam_evaluator import is_root_access_key

    return f"arn:aws:iam::{account}:root" if is_root_access_key(key_id) else None

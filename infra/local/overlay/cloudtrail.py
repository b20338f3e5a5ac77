"""CloudTrail: records as AWS writes them, findable, and sent to the default event bus.

Restored: the event's name is the action, whatever protocol carried it; who
called, with the role behind a session; parameters and reply without secrets;
denied calls with their error; LookupEvents by attribute, with an index and
paging; changes raise `AWS API Call via CloudTrail` events on the default bus.
IAM's records are kept in us-east-1, as those of every global service.
"""

import base64
import json
import time
from collections import defaultdict
from typing import Any
from xml.etree import ElementTree

from ministack.core.responses import get_account_id, get_request_client_ip, new_uuid, request_scope
from ministack.services import cloudtrail, iam

from overlay import eventbridge, patching
from overlay.call import Call, principal_arn, session_of

KEPT_RECORDS = 200_000
PAGE = 50

# What CloudTrail does not record as a management event: calls on data, and its own read side.
_UNRECORDED_SERVICES = frozenset({"cloudtrail", "monitoring", "logs", "xray", "s3"})
_UNRECORDED_ACTIONS = frozenset({
    ("lambda", "Invoke"), ("sns", "Publish"), ("sns", "PublishBatch"), ("events", "PutEvents"),
    ("sqs", "SendMessage"), ("sqs", "SendMessageBatch"), ("sqs", "ReceiveMessage"), ("sqs", "DeleteMessage"),
    ("sqs", "DeleteMessageBatch"), ("states", "SendTaskHeartbeat"),
    ("dynamodb", "GetItem"), ("dynamodb", "PutItem"), ("dynamodb", "UpdateItem"), ("dynamodb", "DeleteItem"),
    ("dynamodb", "Query"), ("dynamodb", "Scan"), ("dynamodb", "BatchGetItem"), ("dynamodb", "BatchWriteItem"),
})
_READ_PREFIXES = ("Get", "List", "Describe", "Head", "Lookup", "Simulate", "Batch")
_READ_ONLY = frozenset({"GenerateCredentialReport", "AssumeRole", "DecodeAuthorizationMessage", "ValidateResourcePolicy"})
# Compared in lower case; what AWS hides from its records, or replaces there.
_HIDDEN = frozenset({"secretaccesskey", "secretstring", "secretbinary", "sessiontoken", "password", "newpassword",
                     "oldpassword", "secretvalues", "authtoken", "value"})
_PROTOCOL_FIELDS = frozenset({"Action", "Version"})
_SOURCES = {"states": "states", "email": "ses"}


class _Trail:
    """One account's records in one region, oldest first, with an index by attribute."""

    def __init__(self) -> None:
        self.first = 0  # the sequence number of records[0]
        self.records: list[dict] = []
        self.index: dict[tuple[str, str], list[int]] = defaultdict(list)

    def append(self, record: dict, keys: list[tuple[str, str]]) -> None:
        sequence = self.first + len(self.records)
        self.records.append({**record, "_keys": keys})
        for key in keys:
            self.index[key].append(sequence)
        if len(self.records) > KEPT_RECORDS:
            self._halve()

    def _halve(self) -> None:
        kept = self.records[len(self.records) // 2:]
        self.first += len(self.records) - len(kept)
        self.records = kept
        self.index = defaultdict(list)
        for offset, record in enumerate(kept):
            for key in record["_keys"]:
                self.index[key].append(self.first + offset)

    def newest_first(self, key: tuple[str, str] | None, before: int):
        """Sequence and record of those that carry `key`, starting below `before`."""
        if key is None:
            sequences = range(self.first, self.first + len(self.records))
        else:
            sequences = self.index.get(key, [])
        for sequence in reversed(sequences):
            if sequence < before:
                yield sequence, self.records[sequence - self.first]


_trails: dict[tuple[str, str], _Trail] = defaultdict(_Trail)


# -- shape of a record ------------------------------------------------------

def _camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def _clean(value: Any) -> Any:
    """Names in CloudTrail's spelling, secrets left out, at any depth."""
    if isinstance(value, dict):
        return {_camel(name): _clean(item) for name, item in value.items()
                if name.lower() not in _HIDDEN and name not in _PROTOCOL_FIELDS}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _parameters(call: Call) -> dict | None:
    """Request parameters; the query protocol's numbered members are folded into lists."""
    folded: dict[str, Any] = {}
    for name, value in call.params.items():
        head, dot, rest = name.partition(".member.")
        if not dot:
            folded[name] = value
            continue
        position, _, leaf = rest.partition(".")
        members = folded.setdefault(head, {})
        if leaf:
            members.setdefault(position, {})[leaf] = value
        else:
            members[position] = value
    for name, value in folded.items():
        if isinstance(value, dict) and value and all(part.isdigit() for part in value):
            folded[name] = [value[part] for part in sorted(value, key=int)]
    return _clean(folded) or None


def _from_xml(element: ElementTree.Element) -> Any:
    children = list(element)
    if not children:
        return element.text or ""
    names = [child.tag.rpartition("}")[2] for child in children]
    if set(names) == {"member"}:
        return [_from_xml(child) for child in children]
    return {name: _from_xml(child) for name, child in zip(names, children, strict=True)}


def _elements(body: bytes, content_type: str) -> dict | None:
    """What a successful change replied, without the protocol's wrapping."""
    if not body or len(body) > 1 << 18:
        return None
    try:
        if "json" in content_type:
            reply = json.loads(body)
        else:
            root = ElementTree.fromstring(body)
            result = next((child for child in root if child.tag.endswith("Result")), None)
            reply = _from_xml(result) if result is not None else None
    except (ValueError, ElementTree.ParseError):
        return None
    return _clean(reply) or None if isinstance(reply, dict) else None


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _identity(call: Call, account: str) -> tuple[dict, str]:
    """userIdentity, and the name that LookupEvents finds the caller by."""
    arn = principal_arn(call.key_id, account) or ""
    identity: dict[str, Any] = {"type": "Root", "principalId": account, "arn": arn, "accountId": account,
                                "accessKeyId": call.key_id}
    session = session_of(call.key_id)
    if session is not None:
        identity["principalId"] = session.get("UserId", "")
        context = {"attributes": {"creationDate": _stamp(session.get("IssuedAt") or time.time()),
                                  "mfaAuthenticated": "false"}}
        if ":assumed-role/" in arn:
            role_name = arn.split("/")[1]
            role = iam._roles.get_scoped(account, None, role_name) or {}
            identity["type"] = "AssumedRole"
            # The emulator names Lambda's own sessions by the role's name; AWS by its id.
            identity["principalId"] = f"{role.get('RoleId', role_name)}:{arn.rsplit('/', 1)[-1]}"
            context = {"sessionIssuer": {
                "type": "Role", "principalId": role.get("RoleId", ""), "accountId": account, "userName": role_name,
                "arn": role.get("Arn") or f"arn:aws:iam::{account}:role/{role_name}"}, **context}
        elif ":federated-user/" in arn:
            identity["type"] = "FederatedUser"
            source = session.get("SourcePrincipalArn", "")
            context = {"sessionIssuer": {"type": "IAMUser", "arn": source, "accountId": account,
                                         "userName": source.rsplit("/", 1)[-1]}, **context}
        elif ":user/" in arn:
            identity["type"], identity["userName"] = "IAMUser", arn.rsplit("/", 1)[-1]
        identity["sessionContext"] = context
        return identity, arn.rsplit("/", 1)[-1].rpartition(":")[2]
    key = iam._access_keys.get_scoped(account, None, call.key_id)
    if key is not None:
        user = iam._users.get_scoped(account, None, key["UserName"]) or {}
        identity.update(type="IAMUser", principalId=user.get("UserId", ""), userName=key["UserName"])
        return identity, key["UserName"]
    return identity, "root"


def _resources(call: Call, elements: dict | None) -> list[dict]:
    """The resources LookupEvents finds the record by."""
    found: list[tuple[str, str]] = []
    params = call.params
    if call.service == "iam":
        made = (elements or {}).get("accessKey") or {}
        for key_id in (params.get("AccessKeyId"), made.get("accessKeyId")):
            if key_id:
                found.append(("AWS::IAM::AccessKey", key_id))
        for parameter, kind in (("UserName", "AWS::IAM::User"), ("RoleName", "AWS::IAM::Role"),
                                ("PolicyArn", "AWS::IAM::Policy"), ("GroupName", "AWS::IAM::Group")):
            if params.get(parameter):
                found.append((kind, params[parameter]))
        if made.get("userName") and not params.get("UserName"):
            found.append(("AWS::IAM::User", made["userName"]))
    elif call.service == "sts":
        if params.get("RoleArn"):
            found.append(("AWS::IAM::Role", params["RoleArn"]))
        issued = ((elements or {}).get("credentials") or {}).get("accessKeyId")
        if issued:
            found.append(("AWS::IAM::AccessKey", issued))
    elif call.service == "secretsmanager":
        for name in dict.fromkeys((params.get("SecretId"), params.get("Name"), (elements or {}).get("aRN"))):
            if isinstance(name, str):
                found.append(("AWS::SecretsManager::Secret", name))
    elif call.target:
        found.append((f"AWS::{call.service}", call.target))
    return [{"ResourceType": kind, "ResourceName": name} for kind, name in found]


# -- recording --------------------------------------------------------------

def record(call: Call, status: int, code: str | None, message: str | None, headers: dict, body: bytes,
           request_id: str) -> None:
    """Write the record of an answered call, and send changes to the default bus."""
    if not cloudtrail._recording_enabled or call.service in _UNRECORDED_SERVICES:
        return
    if (call.service, call.action) in _UNRECORDED_ACTIONS:
        return
    account = get_account_id()
    region = "us-east-1" if call.service in ("iam", "organizations") else call.region
    read_only = call.action.startswith(_READ_PREFIXES) or call.action in _READ_ONLY
    now = time.time()
    identity, username = _identity(call, account)
    elements = None
    if status < 400 and (not read_only or call.action == "AssumeRole"):
        content_type = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
        elements = _elements(body, content_type)
    resources = _resources(call, elements)
    if call.service == "secretsmanager" and elements:
        # The reply's own spelling there: {"arn", "name", "versionId"}.
        elements = {"arn" if name == "aRN" else name: value for name, value in elements.items()}
    source = f"{_SOURCES.get(call.service, call.service)}.amazonaws.com"
    event = {
        "eventVersion": "1.11", "userIdentity": identity, "eventTime": _stamp(now), "eventSource": source,
        "eventName": call.action, "awsRegion": region, "sourceIPAddress": get_request_client_ip(),
        "userAgent": call.agent, "requestParameters": _parameters(call), "responseElements": elements,
        "requestID": request_id, "eventID": new_uuid(), "readOnly": read_only, "eventType": "AwsApiCall",
        "managementEvent": True, "recipientAccountId": account, "eventCategory": "Management",
    }
    if code:
        event["errorCode"], event["errorMessage"] = code, message or ""
    keys = [("EventName", call.action), ("Username", username), ("AccessKeyId", call.key_id),
            ("EventSource", source), ("EventId", event["eventID"]), ("ReadOnly", str(read_only).lower())]
    for resource in resources:
        keys += [("ResourceName", resource["ResourceName"]), ("ResourceType", resource["ResourceType"])]
    _trails[account, region].append({
        "EventId": event["eventID"], "EventName": call.action, "EventSource": source, "EventTime": round(now, 3),
        "Username": username, "AccessKeyId": call.key_id, "ReadOnly": str(read_only).lower(),
        "Resources": resources, "CloudTrailEvent": json.dumps(event),
    }, list(dict.fromkeys(keys)))
    if not read_only:
        with request_scope(account, region):
            eventbridge.publish(f"aws.{source.partition('.')[0]}", "AWS API Call via CloudTrail", event)


# -- LookupEvents -----------------------------------------------------------

def _lookup_events(body: dict) -> tuple:
    """Newest first, fifty a page, by at most one attribute, as AWS allows."""
    attributes = body.get("LookupAttributes") or []
    if len(attributes) > 1:
        return cloudtrail._err("InvalidLookupAttributesException",
                               "You can currently specify only one lookup attribute.")
    limit = body.get("MaxResults", PAGE)
    if not isinstance(limit, int) or not 1 <= limit <= PAGE:
        return cloudtrail._err("InvalidMaxResultsException", "A max results value of 1 to 50 is allowed.")
    start, end = float(body.get("StartTime") or 0), float(body.get("EndTime") or "inf")
    if start > end:
        return cloudtrail._err("InvalidTimeRangeException", "The start time must not be after the end time.")
    query = json.dumps([attributes, body.get("StartTime"), body.get("EndTime")], sort_keys=True)
    before = 1 << 62
    if body.get("NextToken"):
        try:
            before, asked = json.loads(base64.b64decode(body["NextToken"], validate=True))
        except ValueError:
            asked = None
        if asked != query:
            return cloudtrail._err("InvalidNextTokenException", "The NextToken is invalid.")
    key = (attributes[0]["AttributeKey"], attributes[0]["AttributeValue"]) if attributes else None
    trail = _trails[get_account_id(), cloudtrail.get_region()]
    events: list[dict] = []
    reply: dict[str, Any] = {"Events": events}
    last = before
    for sequence, entry in trail.newest_first(key, before):
        if not start <= entry["EventTime"] <= end:
            continue
        if len(events) == limit:
            reply["NextToken"] = base64.b64encode(json.dumps([last, query]).encode()).decode()
            break
        events.append({name: value for name, value in entry.items() if name != "_keys"})
        last = sequence
    return cloudtrail._ok(reply)


def _reset() -> None:
    _original["reset"]()
    _trails.clear()


def _record_nothing(*_arguments, **_named) -> None:
    """The gateway's own recording, which knows neither caller nor reply."""


_original: dict = {}


def apply() -> None:
    """Put the functions above in place."""
    from ministack import app

    patching.replace(cloudtrail, "_lookup_events", _lookup_events, "95a231827046", cloudtrail._DISPATCH, "LookupEvents")
    _original["reset"] = patching.replace(cloudtrail, "reset", _reset, "4666130008e2")
    patching.replace(app, "_maybe_record_cloudtrail", _record_nothing, "9bad8a7596f9")

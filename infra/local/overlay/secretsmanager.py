"""Secrets Manager's versions, labels and rotation as AWS keeps them.

Restored: the request token is the version's id, and repeating it is either a
no-op or refused; a label is on one version at a time; the first version becomes
AWSCURRENT whatever labels were asked for; labels move by compare-and-swap;
versions without a label stay readable by id; filters and paging of ListSecrets;
RotateSecret runs the rotation function's four steps.
"""

import base64
import json
import re
import threading
import time

from ministack.core.concurrency import spawn_background
from ministack.core.responses import error_response_json, get_account_id, get_region, json_response, new_uuid
from ministack.services import secretsmanager as sm

from overlay import eventbridge, patching

CURRENT, PENDING, PREVIOUS = "AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"
# AWS removes unlabelled versions above this number, but none of the last day.
KEPT_VERSIONS = 100
ROTATION_STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")

# Rotation steps run in threads of their own; the handlers run on the event
# loop. What follows reads and writes one secret's versions in several moves.
_lock = threading.RLock()


# -- refusals ---------------------------------------------------------------

def _refuse(code: str, message: str) -> tuple:
    return error_response_json(code, message, 400)


def _missing(what: str = "secret.") -> tuple:
    return _refuse("ResourceNotFoundException", f"Secrets Manager can't find the specified {what}")


def _usable(data: dict, *, write: bool = True) -> tuple[dict | None, tuple | None]:
    """The secret a call names, unless it is unknown, scheduled for deletion or a replica."""
    _, secret = sm._resolve(data.get("SecretId"))
    if not secret:
        return None, _missing()
    if secret.get("DeletedDate"):
        return None, _refuse("InvalidRequestException",
                             "You can't perform this operation on the secret because it was marked for deletion.")
    if write and sm._is_replica(secret):
        return None, sm._replica_mutation_error()
    return secret, None


def _token(data: dict) -> tuple[str, tuple | None]:
    token = data.get("ClientRequestToken")
    if token is None:
        return new_uuid(), None
    if not isinstance(token, str) or not 32 <= len(token) <= 64:
        return "", _refuse("InvalidParameterException",
                           "ClientRequestToken must be 32-64 characters long.")
    return token, None


# -- versions and labels ----------------------------------------------------

def _now() -> float:
    return round(time.time(), 3)


def _has_value(version: dict) -> bool:
    return version.get("SecretString") is not None or version.get("SecretBinary") is not None


def _value_of(data: dict) -> dict:
    return {"SecretString": data.get("SecretString"), "SecretBinary": data.get("SecretBinary")}


def _attach(secret: dict, version_id: str, label: str) -> None:
    """Move a label. Moving AWSCURRENT leaves AWSPREVIOUS on the version that lost it."""
    holder, _ = sm._find_stage_version(secret, label)
    sm._remove_stage_everywhere(secret, label, except_version_id=version_id)
    sm._add_stage(secret, version_id, label)
    if label == CURRENT and holder and holder != version_id:
        sm._remove_stage_everywhere(secret, PREVIOUS)
        sm._add_stage(secret, holder, PREVIOUS)
    if holder != version_id and label not in (PENDING, PREVIOUS):
        sm._emit_secret_label_updated(secret, label, version_id)


def _prune(secret: dict) -> None:
    versions = secret["Versions"]
    surplus = len(versions) - KEPT_VERSIONS
    for version_id in list(versions):
        if surplus <= 0:
            return
        version = versions[version_id]
        if not version["Stages"] and time.time() - version["CreatedDate"] > 86_400:
            del versions[version_id]
            surplus -= 1


def _store(secret: dict, token: str, data: dict, labels: list[str]) -> tuple | None:
    """Write one version under its token; a refusal when the token holds other data."""
    versions = secret["Versions"]
    held = versions.get(token)
    if held is not None and _has_value(held):
        if {name: held.get(name) for name in ("SecretString", "SecretBinary")} == _value_of(data):
            return None  # the same request again: nothing changes, no label moves
        return _refuse("ResourceExistsException",
                       f"The operation failed because the version {token} already exists with different data.")
    if held is None:
        versions[token] = {**_value_of(data), "CreatedDate": _now(), "Stages": []}
    else:
        held.update(_value_of(data))  # the empty version a rotation began with
    for label in labels:
        _attach(secret, token, label)
    if sm._find_stage_version(secret, CURRENT)[0] is None:
        _attach(secret, token, CURRENT)
    secret["LastChangedDate"] = _now()
    _prune(secret)
    sm._sync_replicas(secret)
    return None


def _apply_current_promotion(secret: dict, new_version_id: str) -> None:
    """Make a version current, for the emulator's own callers; other labels stay where they are."""
    _attach(secret, new_version_id, CURRENT)


# -- calls ------------------------------------------------------------------

def _create_secret(data: dict) -> tuple:
    """The token is the first version's id; no value means no version."""
    name = data.get("Name")
    if not name:
        return _refuse("InvalidParameterException", "You must provide a value for the Name parameter.")
    token, refusal = _token(data)
    if refusal:
        return refusal
    existing = sm._secrets.get(name)
    if existing is not None:
        if existing.get("DeletedDate"):
            return _refuse("InvalidRequestException", "You can't create this secret because a secret with this "
                           "name is already scheduled for deletion.")
        held = existing["Versions"].get(token)
        if held is not None and {key: held.get(key) for key in ("SecretString", "SecretBinary")} == _value_of(data):
            return json_response({"ARN": existing["ARN"], "Name": name, "VersionId": token})
        return _refuse("ResourceExistsException",
                       f"The operation failed because the secret {name} already exists.")
    arn, _ = sm._store_new_secret(
        name, description=data.get("Description", ""), tags=data.get("Tags"), kms_key_id=data.get("KmsKeyId"))
    secret = sm._secrets[name]
    secret["Versions"] = {}
    reply = {"ARN": arn, "Name": name}
    if _has_value(data):
        _store(secret, token, data, [CURRENT])
        reply["VersionId"] = token
    return json_response(reply)


def _get_secret_value(data: dict) -> tuple:
    """A secret, version or label without a value is a ResourceNotFoundException."""
    secret, refusal = _usable(data, write=False)
    if refusal:
        return refusal
    version_id, label = data.get("VersionId"), data.get("VersionStage")
    if version_id:
        version, where = secret["Versions"].get(version_id), f"VersionId: {version_id}"
        if version is not None and label and label not in version["Stages"]:
            return _refuse("InvalidRequestException", "You provided a VersionStage that is not associated to the "
                           "provided VersionId.")
    else:
        version_id, version = sm._find_stage_version(secret, label or CURRENT)
        where = f"staging label: {label or CURRENT}"
    if version is None or not _has_value(version):
        return _missing(f"secret value for {where}")
    secret["LastAccessedDate"] = int(time.time()) // 86_400 * 86_400
    reply = {"ARN": secret["ARN"], "Name": secret["Name"], "VersionId": version_id,
             "VersionStages": list(version["Stages"]), "CreatedDate": version["CreatedDate"]}
    reply.update({name: value for name in ("SecretString", "SecretBinary")
                  if (value := version.get(name)) is not None})
    return json_response(reply)


def _put_secret_value(data: dict) -> tuple:
    """Idempotent by token; labels asked for move here, the first version becomes current."""
    secret, refusal = _usable(data)
    if refusal:
        return refusal
    if not _has_value(data):
        return _refuse("InvalidRequestException",
                       "You must provide either SecretString or SecretBinary.")
    token, refusal = _token(data)
    if refusal:
        return refusal
    with _lock:
        refusal = _store(secret, token, data, data.get("VersionStages") or [CURRENT])
        if refusal:
            return refusal
        return json_response({"ARN": secret["ARN"], "Name": secret["Name"], "VersionId": token,
                              "VersionStages": list(secret["Versions"][token]["Stages"])})


def _update_secret(data: dict) -> tuple:
    """A new value is a new current version under the request's token."""
    secret, refusal = _usable(data)
    if refusal:
        return refusal
    token, refusal = _token(data)
    if refusal:
        return refusal
    reply = {"ARN": secret["ARN"], "Name": secret["Name"]}
    with _lock:
        if _has_value(data):
            refusal = _store(secret, token, data, [CURRENT])
            if refusal:
                return refusal
            reply["VersionId"] = token
        for name in ("Description", "KmsKeyId"):
            if name in data:
                secret[name] = data[name]
        secret["LastChangedDate"] = _now()
        sm._sync_replicas(secret)
    return json_response(reply)


def _update_secret_version_stage(data: dict) -> tuple:
    """Compare-and-swap: RemoveFromVersionId must hold the label, and is needed when another version does."""
    secret, refusal = _usable(data)
    if refusal:
        return refusal
    label, target, source = (data.get(name) for name in ("VersionStage", "MoveToVersionId", "RemoveFromVersionId"))
    if not label:
        return _refuse("InvalidParameterException", "You must provide a value for the VersionStage parameter.")
    if not target and not source:
        return _refuse("InvalidParameterException",
                       "You must provide a value for MoveToVersionId or RemoveFromVersionId.")
    with _lock:
        for version_id in filter(None, (target, source)):
            if version_id not in secret["Versions"]:
                return _missing(f"secret version: {version_id}.")
        holder, _ = sm._find_stage_version(secret, label)
        if source and source != holder:
            return _refuse("InvalidParameterException",
                           f"The parameter RemoveFromVersionId can't be {source}: staging label {label} is "
                           + (f"attached to version {holder}." if holder else "not attached to any version."))
        if target and holder and holder != target and not source:
            return _refuse("InvalidParameterException",
                           f"The parameter RemoveFromVersionId can't be empty. Staging label {label} is currently "
                           f"attached to version {holder}, so you must explicitly reference that version in "
                           "RemoveFromVersionId.")
        if label == CURRENT and not target:
            return _refuse("InvalidParameterException",
                           f"You can only move staging label {CURRENT} to a different secret version. It can't be "
                           "completely removed.")
        if target:
            _attach(secret, target, label)
        else:
            sm._remove_stage(secret, source, label)
        secret["LastChangedDate"] = _now()
        sm._sync_replicas(secret)
    return json_response({"ARN": secret["ARN"], "Name": secret["Name"]})


def _list_secret_version_ids(data: dict) -> tuple:
    """Unlabelled versions only with IncludeDeprecated."""
    _, secret = sm._resolve(data.get("SecretId"))
    if not secret:
        return _missing()
    versions = [
        {"VersionId": version_id, "CreatedDate": version["CreatedDate"],
         **({"VersionStages": list(version["Stages"])} if version["Stages"] else {})}
        for version_id, version in sorted(secret["Versions"].items(),
                                          key=lambda item: (item[1]["CreatedDate"], item[0]))
        if version["Stages"] or data.get("IncludeDeprecated")
    ]
    page, following, refusal = _page(data, versions, lambda version: version["VersionId"])
    if refusal:
        return refusal
    return json_response({"ARN": secret["ARN"], "Name": secret["Name"], "Versions": page, **following})


def _describe_secret(data: dict) -> tuple:
    """Also when it last rotated; absent dates are left out, not null."""
    status, headers, body = _original["describe"](data)
    if status != 200:
        return status, headers, body
    _, secret = sm._resolve(data.get("SecretId"))
    reply = {name: value for name, value in json.loads(body).items() if value is not None}
    if secret.get("LastRotatedDate"):
        reply["LastRotatedDate"] = secret["LastRotatedDate"]
    if not reply.get("VersionIdsToStages"):
        reply.pop("VersionIdsToStages", None)
    return json_response(reply)


# -- lists ------------------------------------------------------------------

def _page(data: dict, items: list, name_of) -> tuple[list, dict, tuple | None]:
    """One page; the token names the last item, so that a changing list is neither repeated nor skipped."""
    size = data.get("MaxResults", 100)
    if not isinstance(size, int) or not 1 <= size <= 100:
        return [], {}, _refuse("InvalidParameterException", "MaxResults must be between 1 and 100.")
    start, token = 0, data.get("NextToken")
    if token:
        try:
            position, last = base64.b64decode(token, validate=True).decode().split("\n", 1)
            start = int(position)
        except ValueError:
            return [], {}, _refuse("InvalidNextTokenException", "The NextToken value is invalid.")
        for index, item in enumerate(items):
            if name_of(item) == last:
                start = index + 1
                break
    end = start + size
    page = items[start:end]
    if end >= len(items):
        return page, {}, None
    return page, {"NextToken": base64.b64encode(f"{end}\n{name_of(page[-1])}".encode()).decode()}, None


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^0-9A-Za-z]+", text.lower()) if word]


def _filter_texts(secret: dict, key: str) -> list[str]:
    tags = secret.get("Tags") or []
    return {
        "name": [secret["Name"]],
        "description": [(secret.get("Description") or "").lower()],
        "tag-key": [tag.get("Key", "") for tag in tags],
        "tag-value": [tag.get("Value", "") for tag in tags],
        "primary-region": [secret.get("_PrimaryRegion") or ""],
        "owning-service": [secret.get("OwningService") or ""],
    }.get(key, [])


def _matches(secret: dict, key: str, value: str) -> bool:
    """One value of one filter: a prefix, case-sensitive except for descriptions; `!` negates."""
    if value.startswith("!"):
        return not _matches(secret, key, value[1:])
    if key == "all":
        texts = [secret["Name"], secret.get("Description") or ""]
        texts += [text for tag in secret.get("Tags") or [] for text in tag.values()]
        words = [word for text in texts for word in _words(text)]
        return all(any(word.startswith(part) for word in words) for part in _words(value))
    if key == "description":
        value = value.lower()
    return any(text.startswith(value) for text in _filter_texts(secret, key))


def _filter_secret_names(names: list[str], filters: list[dict]) -> list[str]:
    """All filters must match; of one filter's values, any."""
    return [name for name in names
            if all(any(_matches(sm._secrets[name], item.get("Key", "all"), value) for value in item.get("Values", []))
                   for item in filters)]


def _list_secrets(data: dict) -> tuple:
    """Paged by name, absent fields left out."""
    names = _filter_secret_names(
        sorted(name for name, secret in sm._secrets.items()
               if data.get("IncludePlannedDeletion") or not secret.get("DeletedDate")),
        data.get("Filters") or [])
    page, following, refusal = _page(data, names, str)
    if refusal:
        return refusal
    fields = ("ARN", "Name", "Description", "KmsKeyId", "CreatedDate", "LastChangedDate", "LastAccessedDate",
              "LastRotatedDate", "DeletedDate", "Tags", "RotationEnabled", "RotationLambdaARN", "RotationRules")
    entries = []
    for name in page:
        secret = sm._secrets[name]
        entry = {key: secret[key] for key in fields if secret.get(key) not in (None, "", [])}
        if stages := sm._vid_to_stages(secret):
            entry["SecretVersionsToStages"] = stages
        entries.append(entry)
    return json_response({"SecretList": entries, **following})


# -- rotation ---------------------------------------------------------------

def _rotate_secret(data: dict) -> tuple:
    """Begin an empty AWSPENDING version under the token and call the function's four steps."""
    secret, refusal = _usable(data)
    if refusal:
        return refusal
    function = data.get("RotationLambdaARN") or secret.get("RotationLambdaARN")
    if not function:
        return _refuse("InvalidRequestException",
                       "No Lambda rotation function ARN is associated with this secret.")
    from ministack.services import lambda_svc

    record, config, _ = lambda_svc._get_func_record_for_ref(function)
    if not record or not config:
        return _refuse("ResourceNotFoundException", "Secrets Manager can't find the specified Lambda function.")
    if not _may_invoke(record):
        return error_response_json(
            "AccessDeniedException", "Secrets Manager cannot invoke the specified Lambda function. Ensure that the "
            "function policy grants access to the principal secretsmanager.amazonaws.com.", 400)
    token, refusal = _token(data)
    if refusal:
        return refusal
    with _lock:
        pending, _ = sm._find_stage_version(secret, PENDING)
        current, _ = sm._find_stage_version(secret, CURRENT)
        if pending and pending not in (token, current):
            return _refuse("InvalidRequestException",
                           "A previous rotation isn't complete. That rotation will be reattempted.")
        secret["RotationLambdaARN"], secret["RotationEnabled"] = function, True
        if data.get("RotationRules"):
            secret["RotationRules"] = data["RotationRules"]
        reply = {"ARN": secret["ARN"], "Name": secret["Name"]}
        if data.get("RotateImmediately", True):
            if token not in secret["Versions"]:
                secret["Versions"][token] = {"SecretString": None, "SecretBinary": None, "CreatedDate": _now(),
                                             "Stages": []}
                _attach(secret, token, PENDING)
            steps = ROTATION_STEPS
            reply["VersionId"] = token
        else:
            steps = ("testSecret",)  # AWS tries the function out with this step alone
    spawn_background(_run_rotation, secret, function, token, steps, thread_name="secret-rotation")
    return json_response(reply)


def _may_invoke(record: dict) -> bool:
    """Whether the function's resource policy, of any qualifier, names Secrets Manager."""
    policies = [record.get("policy") or {}, *(record.get("alias_policies") or {}).values(),
                *(record.get("qualifier_policies") or {}).values()]
    return "secretsmanager.amazonaws.com" in json.dumps(policies, default=str)


def _run_rotation(secret: dict, function: str, token: str, steps: tuple[str, ...]) -> None:
    """Call the steps in order and stop at the first that fails, as AWS does."""
    from ministack.services import lambda_svc

    _announce("RotationStarted", secret, token)
    for step in steps:
        record, config, _ = lambda_svc._get_func_record_for_ref(function)
        if not record or not config:
            _announce("RotationFailed", secret, token)
            return
        result = lambda_svc._execute_function_with_config_scope(
            lambda_svc._execution_record_for_config(record, config),
            {"Step": step, "SecretId": secret["ARN"], "ClientRequestToken": token})
        if result.get("error") or result.get("throttle"):
            _announce("RotationFailed", secret, token)
            return
    with _lock:
        done = CURRENT in (secret["Versions"].get(token) or {"Stages": []})["Stages"]
        if done:
            secret["LastRotatedDate"] = _now()
            sm._remove_stage(secret, token, PENDING)
    _announce("RotationSucceeded" if done else "RotationFailed", secret, token)


def _announce(name: str, secret: dict, token: str) -> None:
    """Rotation is told as a service event, with the secret in additionalEventData."""
    eventbridge.publish("aws.secretsmanager", "AWS Service Event via CloudTrail", {
        "eventVersion": "1.08",
        "userIdentity": {"accountId": get_account_id(), "invokedBy": "secretsmanager.amazonaws.com"},
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "eventSource": "secretsmanager.amazonaws.com",
        "eventName": name,
        "awsRegion": get_region(),
        "sourceIPAddress": "secretsmanager.amazonaws.com",
        "userAgent": "secretsmanager.amazonaws.com",
        "requestParameters": None,
        "responseElements": None,
        "additionalEventData": {"SecretId": secret["ARN"], "ClientRequestToken": token},
        "eventID": new_uuid(),
        "readOnly": False,
        "eventType": "AwsServiceEvent",
        "recipientAccountId": get_account_id(),
        "eventCategory": "Management",
    })


_original: dict = {}


def apply() -> None:
    """Put the functions above in place; the emulator looks its handlers up by name at each request."""
    for name, new, expected in (
        ("_create_secret", _create_secret, "d3de7fac76ba"),
        ("_get_secret_value", _get_secret_value, "faa3eb333a8b"),
        ("_put_secret_value", _put_secret_value, "d09b0557e169"),
        ("_update_secret", _update_secret, "4227455f1f1e"),
        ("_update_secret_version_stage", _update_secret_version_stage, "5a7abaa73ec2"),
        ("_list_secret_version_ids", _list_secret_version_ids, "96a51e09a659"),
        ("_list_secrets", _list_secrets, "0a5470f7350e"),
        ("_filter_secret_names", _filter_secret_names, "76562cdda7f5"),
        ("_rotate_secret", _rotate_secret, "29b4ea743fc3"),
        ("_apply_current_promotion", _apply_current_promotion, "a67d43924947"),
    ):
        patching.replace(sm, name, new, expected)
    _original["describe"] = patching.replace(sm, "_describe_secret", _describe_secret, "f50d96905ad3")
    patching.relies_on(sm, "handle_request", "e1909f662da6")
    patching.relies_on(sm, "_store_new_secret", "e1f750dbc602")
    patching.relies_on(sm, "_find_stage_version", "4e730b49d7d0")

"""IAM as AWS answers it, where the emulator is more lenient.

Restored: at most two access keys a user; paging of the lists Keywheel reads;
last use of a key, also in the credential report; the pair of user and key is
checked by every call that takes it; a call without UserName means the caller's
own user; quotas of a user's inline and managed policies.
"""

import base64
import csv
import io
from datetime import datetime, timedelta, timezone
from xml.sax.saxutils import escape

from ministack.core.responses import get_account_id
from ministack.services import iam

from overlay import patching
from overlay.call import current_call

KEYS_PER_USER = 2
INLINE_CHARACTERS_PER_USER = 2048
MANAGED_POLICIES_PER_USER = 10
PAGE_DEFAULT = 100
PAGE_MAXIMUM = 1000

# What AWS attaches to a user whose key it found in public. Abridged: the
# statements a rotation can run into, not the whole published list.
_QUARANTINE_POLICY = """{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":[
"cloudtrail:LookupEvents","ec2:RequestSpotInstances","ec2:RunInstances","ec2:StartInstances",
"iam:AddUserToGroup","iam:AttachGroupPolicy","iam:AttachRolePolicy","iam:AttachUserPolicy",
"iam:ChangePassword","iam:CreateAccessKey","iam:CreateInstanceProfile","iam:CreateLoginProfile",
"iam:CreatePolicyVersion","iam:CreateRole","iam:CreateUser","iam:DetachUserPolicy",
"iam:PassRole","iam:PutGroupPolicy","iam:PutRolePolicy","iam:PutUserPermissionsBoundary",
"iam:PutUserPolicy","iam:SetDefaultPolicyVersion","iam:UpdateAccessKey","iam:UpdateAccountPasswordPolicy",
"iam:UpdateAssumeRolePolicy","iam:UpdateLoginProfile","iam:UpdateUser","lambda:AddLayerVersionPermission",
"lambda:AddPermission","lambda:CreateFunction","lambda:GetPolicy","lambda:ListTags","lambda:PutProvisionedConcurrencyConfig",
"lambda:TagResource","lambda:UntagResource","lambda:UpdateFunctionCode","lightsail:Create*","lightsail:Delete*",
"lightsail:DownloadDefaultKeyPair","lightsail:GetInstanceAccessDetails","lightsail:Start*","lightsail:Update*",
"organizations:CreateAccount","organizations:CreateOrganization","organizations:InviteAccountToOrganization",
"s3:DeleteBucket","s3:DeleteObject","s3:PutBucketAcl","s3:PutBucketOwnershipControls","s3:PutBucketPolicy",
"s3:PutObjectAcl"],"Resource":["*"]}]}"""
_QUARANTINE_NAMES = ("AWSCompromisedKeyQuarantine", "AWSCompromisedKeyQuarantineV2",
                     "AWSCompromisedKeyQuarantineV3")


# -- helpers ----------------------------------------------------------------

def _no_such_user(name: str) -> tuple:
    return iam._error(404, "NoSuchEntity", f"The user with name {escape(name)} cannot be found.")


def _no_such_key(key_id: str) -> tuple:
    return iam._error(404, "NoSuchEntity", f"The Access Key with id {escape(key_id)} cannot be found.")


def _limit_exceeded(message: str) -> tuple:
    return iam._error(409, "LimitExceeded", message)


def _named_user(params: dict) -> tuple[str, tuple | None]:
    """The user a call is about: the one it names, else the caller's own."""
    name = iam._p(params, "UserName")
    if name:
        return (name, None) if name in iam._users else (name, _no_such_user(name))
    call = current_call()
    own = iam._access_keys.get(call.key_id) if call else None
    if own is not None:
        return own["UserName"], None
    if call is None or call.key_id.startswith("ASIA"):
        return "", iam._error(400, "ValidationError",
                              "Must specify userName when calling with non-User credentials")
    return "default", None  # the emulator's name for the root user's own keys


def _keys_of(user: str) -> list[dict]:
    """A user's keys, oldest first: the order of creation is the order of the store."""
    return [key for key in iam._access_keys.values() if key["UserName"] == user]


def _page(params: dict, items: list, name_of) -> tuple[list, str, tuple | None]:
    """One page of `items`, and the XML that tells whether more follow.

    The marker names the last item handed out, so that a list that changes
    between two pages neither repeats nor skips what was there all along.
    """
    raw = iam._p(params, "MaxItems") or str(PAGE_DEFAULT)
    if not raw.isdigit() or not 1 <= int(raw) <= PAGE_MAXIMUM:
        return [], "", iam._error(400, "ValidationError",
                                  f"1 validation error detected: Value '{escape(raw)}' at 'maxItems' failed to "
                                  "satisfy constraint: Member must have value between 1 and 1000")
    marker = iam._p(params, "Marker")
    start = 0
    if marker:
        try:
            position, last = base64.urlsafe_b64decode(marker.encode()).decode().split("\n", 1)
            start = int(position)
        except ValueError:
            return [], "", iam._error(400, "ValidationError", "Invalid Marker.")
        for index, item in enumerate(items):
            if name_of(item) == last:
                start = index + 1
                break
    end = start + int(raw)
    page = items[start:end]
    if end >= len(items):
        return page, "<IsTruncated>false</IsTruncated>", None
    following = base64.urlsafe_b64encode(f"{end}\n{name_of(page[-1])}".encode()).decode()
    return page, f"<IsTruncated>true</IsTruncated><Marker>{following}</Marker>", None


# -- access keys ------------------------------------------------------------

def _create_access_key(params: dict) -> tuple:
    """A third key is refused, whether the two are Active or not."""
    user, refusal = _named_user(params)
    if refusal:
        return refusal
    if len(_keys_of(user)) >= KEYS_PER_USER:
        return _limit_exceeded(f"Cannot exceed quota for AccessKeysPerUser: {KEYS_PER_USER}")
    return _original["create"]({**params, "UserName": [user]})


def _list_access_keys(params: dict) -> tuple:
    """MaxItems, Marker and IsTruncated; an unknown user is an error, not an empty list."""
    user, refusal = _named_user(params)
    if refusal:
        return refusal
    page, more, refusal = _page(params, _keys_of(user), lambda key: key["AccessKeyId"])
    if refusal:
        return refusal
    members = "".join(
        f"<member><UserName>{escape(user)}</UserName><AccessKeyId>{key['AccessKeyId']}</AccessKeyId>"
        f"<Status>{key['Status']}</Status><CreateDate>{key['CreateDate']}</CreateDate></member>"
        for key in page)
    return iam._xml(200, "ListAccessKeysResponse",
                    f"<ListAccessKeysResult><AccessKeyMetadata>{members}</AccessKeyMetadata>{more}"
                    "</ListAccessKeysResult>")


def _owned_key(params: dict) -> tuple[dict | None, tuple | None]:
    """The key a call names, if it belongs to the user the call names."""
    user, refusal = _named_user(params)
    if refusal:
        return None, refusal
    key_id = iam._p(params, "AccessKeyId")
    key = iam._access_keys.get(key_id)
    if key is None or key["UserName"] != user:
        return None, _no_such_key(key_id)
    return key, None


def _update_access_key(params: dict) -> tuple:
    """Only Active and Inactive can be asked for, and only for the owner's key."""
    status = iam._p(params, "Status")
    if status not in ("Active", "Inactive"):
        return iam._error(400, "ValidationError",
                          f"1 validation error detected: Value '{escape(status)}' at 'status' failed to satisfy "
                          "constraint: Member must satisfy enum value set: [Active, Inactive]")
    key, refusal = _owned_key(params)
    if refusal:
        return refusal
    key["Status"] = status
    return iam._xml(200, "UpdateAccessKeyResponse", "")


def _delete_access_key(params: dict) -> tuple:
    """A pair of user and key that does not match is refused."""
    key, refusal = _owned_key(params)
    if refusal:
        return refusal
    del iam._access_keys[key["AccessKeyId"]]
    return iam._xml(200, "DeleteAccessKeyResponse", "")


def record_use(key_id: str, account: str, service: str, region: str) -> None:
    """Remember a signed call that a user's key made and the endpoint accepted as genuine.

    As in AWS a call that a policy then denies counts: the key was used.
    """
    key = iam._access_keys.get_scoped(account, None, key_id)
    if key is not None:
        key["LastUsed"] = {"date": iam._now(), "service": service, "region": region}


def _get_access_key_last_used(params: dict) -> tuple:
    """Time, service and region of the last signed call, and the owner's name.

    A key never used has no LastUsedDate, and N/A for the other two.
    """
    key_id = iam._p(params, "AccessKeyId")
    key = iam._access_keys.get(key_id)
    if key is None:
        return _no_such_key(key_id)
    used = key.get("LastUsed")
    date = f"<LastUsedDate>{used['date']}</LastUsedDate>" if used else ""
    used = used or {"service": "N/A", "region": "N/A"}
    return iam._xml(200, "GetAccessKeyLastUsedResponse",
                    f"<GetAccessKeyLastUsedResult><UserName>{escape(key['UserName'])}</UserName>"
                    f"<AccessKeyLastUsed>{date}<ServiceName>{used['service']}</ServiceName>"
                    f"<Region>{used['region']}</Region></AccessKeyLastUsed></GetAccessKeyLastUsedResult>")


# -- users ------------------------------------------------------------------

def _get_user(params: dict) -> tuple:
    """Without UserName: the caller's own user. Tags and names are escaped."""
    if not iam._p(params, "UserName"):
        call = current_call()
        own = iam._access_keys.get(call.key_id) if call else None
        if own is not None and own["UserName"] in iam._users:
            params = {**params, "UserName": [own["UserName"]]}
    return _original["get_user"](params)


def _user_xml(name: str, boundary: bool = True) -> str:
    """A user as XML, with tag values that hold & or < escaped."""
    user = iam._users[name]
    escaped = {**user, "Tags": [{"Key": escape(tag["Key"]), "Value": escape(tag["Value"])}
                                for tag in user.get("Tags") or []]}
    iam._users[name] = escaped
    try:
        return _original["user_xml"](name, boundary)
    finally:
        iam._users[name] = user


def _list_users(params: dict) -> tuple:
    """Paged, sorted by name, and without tags, as AWS lists users."""
    prefix = iam._p(params, "PathPrefix") or "/"
    users = sorted((user for user in iam._users.values() if user.get("Path", "/").startswith(prefix)),
                   key=lambda user: user["UserName"])
    page, more, refusal = _page(params, users, lambda user: user["UserName"])
    if refusal:
        return refusal
    members = "".join(
        f"<member><UserName>{escape(user['UserName'])}</UserName><UserId>{user['UserId']}</UserId>"
        f"<Arn>{escape(user['Arn'])}</Arn><Path>{escape(user['Path'])}</Path>"
        f"<CreateDate>{user['CreateDate']}</CreateDate></member>"
        for user in page)
    return iam._xml(200, "ListUsersResponse",
                    f"<ListUsersResult><Users>{members}</Users>{more}</ListUsersResult>")


def _list_user_tags(params: dict) -> tuple:
    """Paged, with values escaped."""
    user = iam._users.get(iam._p(params, "UserName"))
    if not user:
        return _no_such_user(iam._p(params, "UserName"))
    page, more, refusal = _page(params, user["Tags"], lambda tag: tag["Key"])
    if refusal:
        return refusal
    members = "".join(f"<member><Key>{escape(tag['Key'])}</Key><Value>{escape(tag['Value'])}</Value></member>"
                      for tag in page)
    return iam._xml(200, "ListUserTagsResponse",
                    f"<ListUserTagsResult><Tags>{members}</Tags>{more}</ListUserTagsResult>")


# -- policy quotas ----------------------------------------------------------

def _characters(document) -> int:
    """A policy's size as IAM counts it: white space is free."""
    return sum(1 for character in str(document) if not character.isspace())


def _put_user_policy(params: dict) -> tuple:
    """All inline policies of a user together hold at most 2,048 characters."""
    user, name = iam._p(params, "UserName"), iam._p(params, "PolicyName")
    kept = {key: document for key, document in (iam._user_inline_policies.get(user) or {}).items() if key != name}
    size = sum(map(_characters, kept.values())) + _characters(iam._p(params, "PolicyDocument"))
    if user in iam._users and size > INLINE_CHARACTERS_PER_USER:
        return _limit_exceeded(f"Maximum policy size of {INLINE_CHARACTERS_PER_USER} bytes exceeded "
                               f"for user {escape(user)}")
    return _original["put_user_policy"](params)


def _attach_user_policy(params: dict) -> tuple:
    """At most ten managed policies a user, and only ones that exist."""
    user, arn = iam._users.get(iam._p(params, "UserName")), iam._p(params, "PolicyArn")
    if user is not None and arn not in user["AttachedPolicies"]:
        if not iam.policy_known(arn, get_account_id()):
            return iam._error(404, "NoSuchEntity",
                              f"Policy {escape(arn)} does not exist or is not attachable.")
        if len(user["AttachedPolicies"]) >= MANAGED_POLICIES_PER_USER:
            return _limit_exceeded(f"Cannot exceed quota for PoliciesPerUser: {MANAGED_POLICIES_PER_USER}")
    return _original["attach_user_policy"](params)


def _seed_managed_policies() -> None:
    """The quarantine policies AWS attaches to a user with an exposed key."""
    _original["seed"]()
    for name in _QUARANTINE_NAMES:
        record = iam._make_aws_managed_record(name, _QUARANTINE_POLICY)
        iam._aws_managed_policies[iam._AWS_MANAGED_POLICY_PREFIX + name] = record


# -- credential report ------------------------------------------------------

def _report_date(stamp: str) -> str:
    return stamp.replace("Z", "+00:00")


def set_ages(days_by_key: dict) -> str | None:
    """Make keys so many days old; the reason when one of them is not there, and then nothing is changed.

    Nobody can wait for a key to become due.
    """
    # Of whatever account: no two of them have a key of one id.
    keys = {key_id: key for (_, key_id), key in iam._access_keys._data.items()}
    unknown = [key_id for key_id in days_by_key if key_id not in keys]
    if unknown:
        return f"there is no key {unknown[0]}"
    for key_id, days in days_by_key.items():
        created = datetime.now(timezone.utc) - timedelta(days=days)
        keys[key_id]["CreateDate"] = created.strftime("%Y-%m-%dT%H:%M:%SZ")
    return None


def _csv_row(columns: list) -> str:
    """Quoted where it must be: a user's name may hold a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(columns)
    return line.getvalue()


def _build_credential_report() -> str:
    """With the last use of each key, and dates spelled as the real report spells them."""
    account, now = get_account_id(), _report_date(iam._now())
    root = [f"<root_account>,arn:aws:iam::{account}:root,{now}", "not_supported", "not_supported",
            "not_supported", "not_supported", "false"]
    unused_key = ["false", "N/A", "N/A", "N/A", "N/A"]
    certificates = ["false", "N/A", "false", "N/A"]
    rows = [iam._CRED_REPORT_HEADER, ",".join(root + unused_key + unused_key + certificates)]
    with_mfa = {device.get("User") for device in iam._mfa_devices.values()}
    keys_of: dict[str, list[dict]] = {}
    for key in iam._access_keys.values():
        keys_of.setdefault(key["UserName"], []).append(key)
    for name, user in iam._users.items():
        columns = [name, user["Arn"], _report_date(user["CreateDate"])]
        has_password = name in iam._login_profiles
        columns += ["true" if has_password else "false", "no_information" if has_password else "N/A",
                    "N/A", "N/A", "true" if name in with_mfa else "false"]
        # Two columns for two keys: a third, were there one, is not in the report.
        for slot in range(2):
            keys = keys_of.get(name, [])
            if slot >= len(keys):
                columns += unused_key
                continue
            key, used = keys[slot], keys[slot].get("LastUsed")
            columns += ["true" if key["Status"] == "Active" else "false", _report_date(key["CreateDate"])]
            columns += [_report_date(used["date"]), used["region"], used["service"]] if used else ["N/A"] * 3
        rows.append(_csv_row(columns + certificates))
    return "\n".join(rows)


_original: dict = {}


def apply() -> None:
    """Put the functions above in place."""
    handlers = iam._IAM_HANDLERS
    for label, name, new, expected, action in (
        ("create", "_create_access_key", _create_access_key, "c0743d260009", "CreateAccessKey"),
        ("list", "_list_access_keys", _list_access_keys, "7076b37692fa", "ListAccessKeys"),
        ("update", "_update_access_key", _update_access_key, "03ee32dc38ad", "UpdateAccessKey"),
        ("delete", "_delete_access_key", _delete_access_key, "5b3a5d4080de", "DeleteAccessKey"),
        ("last_used", "_get_access_key_last_used", _get_access_key_last_used, "a02492c50e83", "GetAccessKeyLastUsed"),
        ("get_user", "_get_user", _get_user, "d0f7a3106899", "GetUser"),
        ("list_users", "_list_users", _list_users, "489dde534684", "ListUsers"),
        ("list_user_tags", "_list_user_tags", _list_user_tags, "424d8ba300a2", "ListUserTags"),
        ("put_user_policy", "_put_user_policy", _put_user_policy, "8e7b519ea324", "PutUserPolicy"),
        ("attach_user_policy", "_attach_user_policy", _attach_user_policy, "d003b8311788", "AttachUserPolicy"),
        ("user_xml", "_user_xml", _user_xml, "579bb4b7e7c3", None),
        ("report", "_build_credential_report", _build_credential_report, "607757d22c9c", None),
        ("seed", "_seed_aws_managed_policies", _seed_managed_policies, "4992803c5980", None),
    ):
        _original[label] = patching.replace(iam, name, new, expected, handlers if action else None, action)
    iam._seed_aws_managed_policies()

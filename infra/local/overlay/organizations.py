"""Organizations: an account has none until it creates one, and new accounts can be entered.

Restored: CreateOrganization; AWSOrganizationsNotInUseException before it; a
member sees its organization; the role that lets the management account into a
member account. A 12-digit access key of the emulator is that account's root.
"""

import json
from collections.abc import Callable

from ministack.core.responses import error_response_json, get_account_id, get_region, new_uuid, request_scope
from ministack.services import iam, organizations

from overlay import patching

DEFAULT_ROLE = "OrganizationAccountAccessRole"


def _management_account() -> str | None:
    """The management account of the caller's organization."""
    own = get_account_id()
    if "self" in organizations._orgs:
        return own
    for master, account_id in organizations._accounts.to_dict():
        if account_id == own:
            return master
    return None


def _create_organization(_payload: dict) -> tuple:
    if _management_account() is not None:
        return error_response_json("AlreadyInOrganizationException",
                                   "The AWS account is already a member of an organization.", 400)
    organizations._ensure_org()
    return organizations._describe_organization({})


def _inside(function: Callable, members: bool) -> Callable:
    """Only in an organization; read-only descriptions also from a member account."""
    def answer(payload: dict) -> tuple:
        master = _management_account()
        if master is None:
            return error_response_json("AWSOrganizationsNotInUseException",
                                       "Your account is not a member of an organization.", 400)
        if master == get_account_id():
            return function(payload)
        if not members:
            return error_response_json("AccessDeniedException", "You don't have permissions to access this "
                                       "resource.", 400)
        with request_scope(master, get_region()):
            return function(payload)
    return answer


def _create_account(payload: dict) -> tuple:
    """Leave the access role in the new account."""
    status, headers, body = _original["create_account"](payload)
    if status == 200:
        account = json.loads(body)["CreateAccountStatus"]["AccountId"]
        _make_role(account, payload.get("RoleName") or DEFAULT_ROLE, get_account_id())
    return status, headers, body


def _make_role(account: str, name: str, trusted: str) -> None:
    with request_scope(account, get_region()):
        iam._roles[name] = {
            "RoleName": name,
            "Arn": f"arn:aws:iam::{account}:role/{name}",
            "RoleId": "AROA" + new_uuid().replace("-", "")[:17].upper(),
            "CreateDate": iam._now(),
            "Path": "/",
            "AssumeRolePolicyDocument": json.dumps({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{trusted}:root"},
                "Action": "sts:AssumeRole"}]}),
            "Description": "",
            "MaxSessionDuration": 3600,
            "AttachedPolicies": [],
            "InlinePolicies": {"AdministratorAccess": json.dumps({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Action": "*", "Resource": "*"}]})},
            "Tags": [],
        }


_original: dict = {}
_MEMBER_CALLS = {"DescribeOrganization"}


def apply() -> None:
    """Put the functions above in place."""
    dispatch = organizations._DISPATCH
    _original["create_account"] = patching.replace(
        organizations, "_create_account", _create_account, "292c6faea83b", dispatch, "CreateAccount")
    patching.relies_on(organizations, "_ensure_org", "fd160827da97")
    patching.relies_on(organizations, "handle_request", "2d0af4ea21d9")
    for name, function in list(dispatch.items()):
        dispatch[name] = _inside(function, name in _MEMBER_CALLS)
    dispatch["CreateOrganization"] = _create_organization

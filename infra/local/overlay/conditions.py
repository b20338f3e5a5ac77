"""Policy conditions and resources that Keywheel's roles are written with.

The emulator names an IAM user by its bare name and reads tags only under
`aws:ResourceTag`. AWS uses the user's full ARN, path included, and also knows
the services' own keys. Restored here: the ARN of the user (or of a key's owner)
as the resource of IAM calls, and that of a managed policy; `aws:ResourceTag/…`,
`iam:ResourceTag/…` and `secretsmanager:ResourceTag/…`; `iam:PolicyARN`; Secrets
Manager's request keys; each parameter of ssm:GetParameters as a resource of its
own; `aws:PrincipalArn` of a role's session as the role's. A denial by
Secrets Manager is an HTTP 400, like every error of its protocol.
"""

from ministack.core import iam_actions, iam_evaluator
from ministack.core.responses import get_account_id
from ministack.services import iam, secretsmanager

from overlay import patching
from overlay.call import current_call


def _extract_resource_arn(service: str, method: str, path: str, headers: dict, body: bytes, query_params: dict,
                          region: str, account_id: str) -> str:
    """IAM calls about a user or one of its keys are checked on that user's ARN."""
    if service == "iam":
        role = iam._roles.get(iam_actions._query_param(query_params, "RoleName"))
        if role is not None:
            return role["Arn"]
        name = iam_actions._query_param(query_params, "UserName")
        if not name:
            key = iam._access_keys.get(iam_actions._query_param(query_params, "AccessKeyId"))
            name = key["UserName"] if key else ""
        user = iam._users.get(name) if name else None
        if user is not None:
            return user["Arn"]
        policy = _policy_arn(query_params)
        if policy:
            return policy
    return _original["resource_arn"](service, method, path, headers, body, query_params, region, account_id)


def _policy_arn(query_params: dict) -> str:
    """The managed policy that a call is about, by its ARN, or by the name it is made under."""
    arn = iam_actions._query_param(query_params, "PolicyArn")
    name = iam_actions._query_param(query_params, "PolicyName")
    if arn or not name:
        return arn or ""
    path = iam_actions._query_param(query_params, "Path") or "/"
    return f"arn:aws:iam::{get_account_id()}:policy{path}{name}"


def _tags_of(service: str, resource_arn: str) -> list[dict]:
    """The tags of the user, role or secret a call is checked on; looked up directly, not by scanning."""
    name = resource_arn.rsplit("/", 1)[-1]
    if service == "iam":
        store = iam._roles if ":role/" in resource_arn else iam._users
        return (store.get(name) or {}).get("Tags") or []
    _, secret = secretsmanager._resolve(resource_arn, use_arn_scope=True)
    return (secret or {}).get("Tags") or []


def _enforce(access_key_id: str, iam_action: str, service: str, region: str, resource_arn: str = "*",
             service_context: dict | None = None):
    """Add the resource's tags and Secrets Manager's request keys to what conditions can see."""
    call = current_call()
    names = call.params.get("Names") if call is not None and iam_action == "ssm:GetParameters" else None
    if isinstance(names, list) and names:
        # Each parameter that is asked for must be allowed; the emulator asks for all there are.
        for name in names:
            arn = f"arn:aws:ssm:{region}:{get_account_id()}:parameter/{str(name).lstrip('/')}"
            refused = _original["enforce"](access_key_id, iam_action, service, region, arn, service_context)
            if refused is not None:
                return refused
        return None
    if service in ("iam", "secretsmanager"):
        context = dict(service_context or {})
        for tag in _tags_of(service, resource_arn):
            context[f"aws:resourcetag/{tag['Key']}".lower()] = tag["Value"]
            context[f"{service}:resourcetag/{tag['Key']}".lower()] = tag["Value"]
        if service == "iam" and call is not None and call.params.get("PolicyArn"):
            context["iam:policyarn"] = str(call.params["PolicyArn"])
        if service == "secretsmanager" and call is not None:
            for parameter in ("Name", "VersionId", "VersionStage", "KmsKeyId", "RecoveryWindowInDays",
                              "ForceDeleteWithoutRecovery"):
                if parameter in call.params:
                    value = call.params[parameter]
                    context[f"secretsmanager:{parameter}".lower()] = str(value).lower() if isinstance(
                        value, bool) else str(value)
            if resource_arn.startswith("arn:"):
                context["secretsmanager:secretid"] = resource_arn
        service_context = context
    return _original["enforce"](access_key_id, iam_action, service, region, resource_arn, service_context)


def _resolve_condition_key(key: str, context: iam_evaluator.EvalContext):
    """Of a role's session `aws:PrincipalArn` is the role's ARN, path included; every call came over TLS.

    The local cloud is reached by plain HTTP on loopback, where AWS is reached by TLS only: a bucket that
    refuses anything else would refuse everything here.
    """
    if key.lower() == "aws:securetransport":
        return "true"
    arn = context.principal_arn or ""
    if key.lower() != "aws:principalarn" or ":assumed-role/" not in arn:
        return _original["condition_key"](key, context)
    account, name = arn.split(":")[4], arn.split(":assumed-role/", 1)[1].split("/", 1)[0]
    role = iam._roles.get_scoped(account, None, name)
    return role["Arn"] if role else f"arn:aws:iam::{account}:role/{name}"


def _access_denied_response(service: str, action: str, principal_arn: str, request_id: str, **options) -> tuple:
    """Name the resource, and answer 400 where the protocol's errors are 400."""
    resource = options.get("resource_arn", "*")
    if service in ("iam", "secretsmanager") and not options.get("error_code") and not options.get("message"):
        options["message"] = iam_actions.identity_denial_message(
            action, principal_arn, resource, options.get("explicit_deny", False))
    status, headers, body = _original["denied"](service, action, principal_arn, request_id, **options)
    if service == "secretsmanager" and status == 403:
        status = 400
    return status, headers, body


_original: dict = {}


def apply() -> None:
    """Put the functions above in place; the gateway imports them at each request."""
    _original["resource_arn"] = patching.replace(iam_actions, "extract_resource_arn", _extract_resource_arn, "82f51700695c")
    _original["denied"] = patching.replace(iam_actions, "access_denied_response", _access_denied_response, "3cc2e315f91f")
    _original["enforce"] = patching.replace(iam_evaluator, "enforce", _enforce, "cf64b1ee5b09")
    _original["condition_key"] = patching.replace(
        iam_evaluator, "_resolve_condition_key", _resolve_condition_key, "15e26964cd38")

"""CloudFormation: resource types the emulator does not know, so that whole templates deploy.

Types with a meaning here are made through their service; those that only a real
account acts on (a composite alarm, a rotation schedule) are recorded and stay
without effect. A secret declared without a value gets no version, as in AWS.
"""

import json

from ministack.services import eventbridge, secretsmanager, stepfunctions
from ministack.services.cloudformation import provisioners

from overlay import patching

# Accepted and recorded, nothing more.
PLACEHOLDERS = ("AWS::CloudWatch::CompositeAlarm", "AWS::Logs::QueryDefinition", "AWS::ResourceGroups::Group",
                "AWS::SecretsManager::RotationSchedule")


def _checked(reply: tuple) -> dict:
    status, _, body = reply
    document = json.loads(body) if body else {}
    if status >= 400:
        raise ValueError(document.get("message") or document.get("__type") or f"HTTP {status}")
    return document


def _placeholder(logical_id: str, _props: dict, stack: str) -> tuple[str, dict]:
    name = f"{stack}-{logical_id}"
    return name, {"Arn": name, "Id": name}


def _nothing(_physical_id: str, _props: dict) -> None:
    """There is nothing to remove."""


def _bus_policy(logical_id: str, props: dict, _stack: str) -> tuple[str, dict]:
    bus, name = props.get("EventBusName") or "default", props.get("StatementId") or logical_id
    statement = props.get("Statement") or {}
    _checked(eventbridge._put_permission({
        "EventBusName": bus, "StatementId": name, "Principal": statement.get("Principal") or props.get("Principal"),
        "Action": statement.get("Action") or props.get("Action"),
        "Condition": statement.get("Condition") or props.get("Condition")}))
    return f"{bus}|{name}", {}


def _drop_bus_policy(physical_id: str, _props: dict) -> None:
    bus, _, name = physical_id.partition("|")
    eventbridge._remove_permission({"EventBusName": bus, "StatementId": name})


def _secret_policy(_logical_id: str, props: dict, _stack: str) -> tuple[str, dict]:
    policy = props.get("ResourcePolicy") or {}
    reply = _checked(secretsmanager._put_resource_policy({
        "SecretId": props.get("SecretId"),
        "ResourcePolicy": policy if isinstance(policy, str) else json.dumps(policy)}))
    return reply["ARN"], {"Id": reply["ARN"]}


def _drop_secret_policy(physical_id: str, _props: dict) -> None:
    secretsmanager._delete_resource_policy({"SecretId": physical_id})


def _machine_version(_logical_id: str, props: dict, _stack: str) -> tuple[str, dict]:
    arn = _checked(stepfunctions._publish_state_machine_version({
        "stateMachineArn": props.get("StateMachineArn"), "description": props.get("Description", ""),
    }))["stateMachineVersionArn"]
    return arn, {"Arn": arn}


def _drop_machine_version(physical_id: str, _props: dict) -> None:
    stepfunctions._delete_state_machine_version({"stateMachineVersionArn": physical_id})


def _secret(logical_id: str, props: dict, stack: str) -> tuple[str, dict]:
    name, attributes = _original["secret"](logical_id, props, stack)
    if "SecretString" not in props and "GenerateSecretString" not in props:
        secretsmanager._secrets[name]["Versions"] = {}
    return name, attributes


_original: dict = {}


def apply() -> None:
    """Register the types above next to the emulator's own."""
    handlers = provisioners._RESOURCE_HANDLERS
    for kind in PLACEHOLDERS:
        handlers.setdefault(kind, {"create": _placeholder, "delete": _nothing})
    for kind, create, delete in (
        ("AWS::Events::EventBusPolicy", _bus_policy, _drop_bus_policy),
        ("AWS::SecretsManager::ResourcePolicy", _secret_policy, _drop_secret_policy),
        ("AWS::StepFunctions::StateMachineVersion", _machine_version, _drop_machine_version),
    ):
        handlers.setdefault(kind, {"create": create, "delete": delete})
    _original["secret"] = patching.replace(provisioners, "_sm_secret_create", _secret, "0bae0110fce2")
    handlers["AWS::SecretsManager::Secret"]["create"] = _secret
    patching.relies_on(provisioners, "_provision_resource", "3b8f01fb1871")

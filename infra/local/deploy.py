"""Deploy a SAM template with compiled Lambdas into the local cloud.

The template stays as it is for AWS. Here each function's `CodeUri:
…/functions/<crate>` becomes a zip of the given executable, a state machine's
`DefinitionUri` is read and inlined, the result is translated as SAM does it in
AWS, and CloudFormation in the emulator creates or updates the stack. Uploads
are named by their content, so a second run without a change does nothing.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import boto3
import botocore.config
from botocore.exceptions import ClientError
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

FUNCTION = "AWS::Serverless::Function"
STATE_MACHINE = "AWS::Serverless::StateMachine"
FAILED = ("CREATE_FAILED", "UPDATE_FAILED", "DELETE_FAILED")
COMPLETE = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
POLL_SECONDS = 0.3
TEMPLATE_BODY_LIMIT = 51_200  # larger templates are passed by their place in S3


class DeployError(Exception):
    """What to tell the person who ran this."""


# -- packages ---------------------------------------------------------------

def zip_bootstrap(executable: Path) -> bytes:
    """The executable as `bootstrap`, the same bytes for the same executable."""
    entry = zipfile.ZipInfo("bootstrap", date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # Unix, so that the mode below counts
    entry.external_attr = 0o100755 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, executable.read_bytes(), compresslevel=1)
    return buffer.getvalue()


def upload(s3, bucket: str, crate: str, executable: Path) -> str:
    """Put the package under its content's hash, unless it is there. Returns its URI."""
    # The executable's hash, not the zip's: compressing is the slow part, and
    # what is already there need not be compressed again.
    digest = hashlib.sha256(executable.read_bytes()).hexdigest()
    key = f"{crate}/{digest}.zip"
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError:
        s3.put_object(Bucket=bucket, Key=key, Body=zip_bootstrap(executable))
    return f"s3://{bucket}/{key}"


def make_bucket(s3, name: str, region: str) -> None:
    """The bucket for packages, if it is missing."""
    try:
        s3.head_bucket(Bucket=name)
    except ClientError:
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **place)


# -- template ---------------------------------------------------------------

def crate_of(code_uri: Any) -> str | None:
    """`create-key` of `../functions/create-key`."""
    if not isinstance(code_uri, str):
        return None
    parts = Path(code_uri.rstrip("/")).parts
    return parts[-1] if len(parts) >= 2 and parts[-2] == "functions" else None


def localise(template: dict, folder: Path, package) -> dict:
    """Point functions at their uploaded packages and inline the machines' definitions."""
    shared = ((template.get("Globals") or {}).get("Function") or {}).get("CodeUri")
    for name, resource in (template.get("Resources") or {}).items():
        properties = resource.setdefault("Properties", {})
        if resource.get("Type") == FUNCTION:
            crate = crate_of(properties.get("CodeUri", shared))
            if crate is None:
                continue
            properties["CodeUri"] = package(name, crate)
            # Build instructions (cargo-lambda's) mean nothing to CloudFormation.
            metadata = {key: value for key, value in (resource.get("Metadata") or {}).items()
                        if not key.startswith("Build")}
            resource.pop("Metadata", None)
            if metadata:
                resource["Metadata"] = metadata
        elif resource.get("Type") == STATE_MACHINE and isinstance(properties.get("DefinitionUri"), str):
            path = folder / properties.pop("DefinitionUri")
            try:
                properties["Definition"] = yaml_parse(path.read_text())
            except OSError as error:
                raise DeployError(f"{name}: {error.strerror}: {path}") from error
    return template


def translate(template: dict, parameters: dict[str, str], region: str) -> dict:
    """SAM to CloudFormation, without asking AWS for its managed policies."""
    # The translator asks the SDK's default session for the region.
    os.environ["AWS_DEFAULT_REGION"] = region
    from samtranslator.model.exceptions import InvalidDocumentException

    class NoManagedPolicies:
        def load(self) -> dict[str, str]:
            return {}

    try:
        return transform(template, parameters, NoManagedPolicies())
    except InvalidDocumentException as error:
        reasons = "\n  ".join(cause.message for cause in error.causes)
        raise DeployError(f"the template does not translate:\n  {reasons}") from error


# -- stack ------------------------------------------------------------------

def describe(cloudformation, stack: str) -> dict | None:
    """The stack, if there is one that was not deleted."""
    try:
        found = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in error.response["Error"].get("Message", ""):
            return None
        raise
    return None if found["StackStatus"] == "DELETE_COMPLETE" else found


def events_after(cloudformation, stack: str, seen: set[str]) -> list[dict]:
    """Events not told yet, oldest first."""
    found = []
    for page in cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack):
        found += [event for event in page["StackEvents"] if event["EventId"] not in seen]
    found.reverse()
    seen.update(event["EventId"] for event in found)
    return found


def changed_resources(before: dict, after: dict, parameters: list[dict], earlier: list[dict]) -> set[str]:
    """Logical ids whose definition differs, or which name a parameter with a new value."""
    def values(items: list[dict]) -> dict[str, str]:
        return {item["ParameterKey"]: item["ParameterValue"] for item in items}

    old, new = before.get("Resources", {}), after.get("Resources", {})
    moved = {key for key in set(values(earlier)) | set(values(parameters))
             if values(earlier).get(key) != values(parameters).get(key)}
    changed = {name for name in set(old) | set(new) if old.get(name) != new.get(name)}
    for name, resource in new.items():
        text = json.dumps(resource)
        if any(f'"{key}"' in text or f"${{{key}}}" in text for key in moved):
            changed.add(name)
    return changed


def wait(cloudformation, stack: str, seen: set[str], limit: float, changed: set[str] | None) -> dict:
    """Tell each changed resource's end until the stack's own; raise with the reasons if it failed.

    The emulator reports an update of every resource; only those in `changed`
    (all, if None) and failures are told.
    """
    deadline, reasons = time.monotonic() + limit, []
    while True:
        found = describe(cloudformation, stack)
        for event in events_after(cloudformation, stack, seen):
            status, name = event["ResourceStatus"], event["LogicalResourceId"]
            if name == stack or status.endswith("_IN_PROGRESS"):
                continue
            reason = event.get("ResourceStatusReason", "")
            failed = status in FAILED
            if failed:
                reasons.append(f"{name} ({event['ResourceType']}): {reason or status}")
            if not failed and changed is not None and name not in changed:
                continue
            print(f"{status.lower().replace('_', ' '):<18} {event['ResourceType']:<34} {name}"
                  + (f": {reason}" if failed and reason else ""), flush=True)
        status = found["StackStatus"] if found else "GONE"
        if not status.endswith("_IN_PROGRESS"):
            break
        if time.monotonic() > deadline:
            raise DeployError(f"stack {stack} is still {status} after {limit:.0f} s")
        time.sleep(POLL_SECONDS)
    if status not in COMPLETE:
        reasons = reasons or [(found or {}).get("StackStatusReason") or status]
        raise DeployError(f"stack {stack}: {status}\n  " + "\n  ".join(reasons))
    return found


def fingerprint(template: str, parameters: list[dict]) -> str:
    """One hash for what the stack was asked to be."""
    return hashlib.sha256(json.dumps([template, parameters], sort_keys=True).encode()).hexdigest()


def apply(cloudformation, s3, bucket: str, stack: str, template: dict, parameters: dict[str, str],
          limit: float) -> dict:
    """Create or update the stack, or leave it when nothing changed."""
    body = json.dumps(template, sort_keys=True)
    known = set(template.get("Parameters") or {})
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in sorted(parameters.items())
             if key in known]
    wanted = fingerprint(body, given)
    found = describe(cloudformation, stack)
    if found is not None and found["StackStatus"] in ("ROLLBACK_COMPLETE", "CREATE_FAILED", "ROLLBACK_FAILED"):
        # A stack whose creation failed can only be removed, as in AWS.
        cloudformation.delete_stack(StackName=stack)
        while describe(cloudformation, stack) is not None:
            time.sleep(POLL_SECONDS)
        found = None
    last = _deployed(s3, bucket, stack) if found is not None else None
    if last is not None and last["fingerprint"] == wanted and found["StackStatus"] in COMPLETE:
        print(f"stack {stack}: nothing changed", flush=True)
        return found
    changed = changed_resources(last["template"], template, given, last["parameters"]) if last else None
    marker = f"stacks/{stack}/{wanted}.json"
    s3.put_object(Bucket=bucket, Key=marker, Body=body.encode())
    request = {"StackName": stack, "Parameters": given, "TemplateURL": f"{s3.meta.endpoint_url}/{bucket}/{marker}",
               "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]}
    if len(body) <= TEMPLATE_BODY_LIMIT:
        request.pop("TemplateURL")
        request["TemplateBody"] = body
    seen: set[str] = set()
    if found is not None:
        events_after(cloudformation, stack, seen)
    try:
        if found is None:
            cloudformation.create_stack(**request)
        else:
            cloudformation.update_stack(**request)
    except ClientError as error:
        if "No updates are to be performed" not in error.response["Error"].get("Message", ""):
            raise
        print(f"stack {stack}: nothing changed", flush=True)
        return found
    done = wait(cloudformation, stack, seen, limit, changed)
    deployed = {"fingerprint": wanted, "template": template, "parameters": given}
    s3.put_object(Bucket=bucket, Key=f"stacks/{stack}/deployed.json", Body=json.dumps(deployed).encode())
    return done


def _deployed(s3, bucket: str, stack: str) -> dict | None:
    """What the last successful run deployed."""
    try:
        return json.loads(s3.get_object(Bucket=bucket, Key=f"stacks/{stack}/deployed.json")["Body"].read())
    except ClientError:
        return None


def run(arguments: argparse.Namespace) -> None:
    """The whole deployment."""
    def client(service: str):
        return boto3.client(
            service, region_name=arguments.region, endpoint_url=arguments.endpoint,
            aws_access_key_id=arguments.account or "test", aws_secret_access_key="test",
            config=botocore.config.Config(s3={"addressing_style": "path"}))

    s3, cloudformation = client("s3"), client("cloudformation")
    account = client("sts").get_caller_identity()["Account"]
    bucket = f"deploy-{account}-{arguments.region}"
    make_bucket(s3, bucket, arguments.region)
    template_path, uploaded = Path(arguments.template), {}

    def package(function: str, crate: str) -> str:
        if crate not in uploaded:
            executable = Path(arguments.bootstraps) / crate
            if not executable.is_file():
                raise DeployError(f"{function}: no executable {executable}")
            uploaded[crate] = upload(s3, bucket, crate, executable)
        return uploaded[crate]

    parameters = dict(arguments.parameter)
    template = localise(yaml_parse(template_path.read_text()), template_path.resolve().parent, package)
    template = translate(template, parameters, arguments.region)
    stack = apply(cloudformation, s3, bucket, arguments.stack, template, parameters, arguments.timeout)
    outputs = {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs") or []}
    Path(arguments.outputs).write_text(json.dumps(outputs, indent=2, sort_keys=True) + "\n")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return key, value


def main() -> int:
    """Parse the command line and deploy."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--endpoint", required=True, help="address of the local cloud")
    parser.add_argument("--template", required=True, help="the SAM template")
    parser.add_argument("--bootstraps", required=True, help="folder with one executable per Lambda crate")
    parser.add_argument("--stack", required=True, help="name of the stack")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--account", default=None, help="12-digit account to deploy into; the default one if absent")
    parser.add_argument("--outputs", required=True, help="where to write the stack's outputs as JSON")
    parser.add_argument("--parameter", action="append", type=_pair, default=[], metavar="NAME=VALUE")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for the stack")
    try:
        run(parser.parse_args())
    except (DeployError, ClientError, OSError) as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Starts one patched emulator for the whole test run, on a free port."""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
import uuid
from pathlib import Path

import boto3
import botocore.config
from botocore.exceptions import ClientError

ACCOUNT = "111122223333"
REGION = "us-east-1"
LOCAL = Path(__file__).resolve().parent.parent

_endpoint: str | None = None
_session = boto3.session.Session()  # one: it keeps the parsed service models


def endpoint() -> str:
    """The emulator's address; the first caller starts it."""
    global _endpoint
    if _endpoint is not None:
        return _endpoint
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MINISTACK"))}
    environment.update(GATEWAY_PORT=str(port), AUTH="true", BIND_HOST="127.0.0.1", CLOUDTRAIL_RECORDING="1",
                       MINISTACK_ACCOUNT_ID=ACCOUNT, AWS_ENDPOINT_URL=address, LOG_LEVEL="WARNING",
                       PYTHONDONTWRITEBYTECODE="1")
    log = tempfile.NamedTemporaryFile("wb", prefix="overlay-", suffix=".log", delete=False)
    process = subprocess.Popen([sys.executable, "-m", "overlay"], cwd=LOCAL, env=environment, stdout=log,
                               stderr=subprocess.STDOUT)

    def stop() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()
        os.unlink(log.name)

    atexit.register(stop)
    deadline = time.monotonic() + 30
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"the emulator ended at once:\n{Path(log.name).read_text()[-4000:]}")
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError("the emulator did not start") from None
            time.sleep(0.05)
    _endpoint = address
    return address


def client(service: str, key: dict | None = None, *, region: str = REGION, app: str | None = None,
           account: str | None = None):
    """An SDK client with a key (or the root key), one attempt a call."""
    if account is not None:
        identity = {"aws_access_key_id": account, "aws_secret_access_key": "test"}
    elif key is None:
        identity = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    else:
        identity = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        if key.get("SessionToken"):
            identity["aws_session_token"] = key["SessionToken"]
    config = botocore.config.Config(retries={"total_max_attempts": 1}, user_agent_appid=app, read_timeout=20)
    return _session.client(service, region_name=region, endpoint_url=endpoint(), config=config, **identity)


def admin(method: str, path: str, document=None):
    """A call to the overlay's own interface."""
    request = urllib.request.Request(endpoint() + path, method=method,
                                     data=None if document is None else json.dumps(document).encode(),
                                     headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def fresh(prefix: str) -> str:
    """A name no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def wait_for(what, seconds: float = 10.0):
    """The first true value of `what()`."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.05)


class Case(unittest.TestCase):
    """With the assertion that most of these tests end in."""

    maxDiff = None

    def assertRefused(self, code: str, call, *arguments, status: int | None = None, **named):
        """The call fails with this AWS error code, and HTTP status if given."""
        with self.assertRaises(ClientError) as caught:
            call(*arguments, **named)
        error = caught.exception.response
        self.assertEqual(code, error["Error"]["Code"], error["Error"].get("Message"))
        if status is not None:
            self.assertEqual(status, error["ResponseMetadata"]["HTTPStatusCode"])
        return error

    def make_user(self, *, path: str = "/", tags: dict | None = None, policy: dict | list | None = None) -> str:
        """A user, with a policy if one is given."""
        iam = client("iam")
        name = fresh("user")
        iam.create_user(UserName=name, Path=path, Tags=[{"Key": k, "Value": v} for k, v in (tags or {}).items()])
        if policy is not None:
            statements = policy if isinstance(policy, list) else [policy]
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(
                {"Version": "2012-10-17", "Statement": statements}))
        return name

    def make_key(self, user: str) -> dict:
        """An access key of that user."""
        return client("iam").create_access_key(UserName=user)["AccessKey"]

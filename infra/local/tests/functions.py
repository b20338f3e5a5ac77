"""Python Lambdas for tests that need one inline."""

import io
import json
import zipfile

from emulator import client, fresh


def make_role(statements: list[dict] | None = None, service: str = "lambda.amazonaws.com") -> str:
    """A role a service can assume, allowed everything unless told otherwise. Returns its ARN."""
    iam, name = client("iam"), fresh("role")
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({
        "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": service},
                                                "Action": "sts:AssumeRole"}]}))["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps({
        "Version": "2012-10-17",
        "Statement": statements or [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}))
    return arn


def make_function(filename: str, source: str, *, runtime: str = "python3.12", handler: str | None = None,
                  timeout: int = 10, statements: list[dict] | None = None) -> str:
    """A function from one source file. Returns its ARN."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(filename)
        entry.create_system, entry.external_attr = 3, 0o100755 << 16
        archive.writestr(entry, source)
    return client("lambda").create_function(
        FunctionName=fresh("function"), Runtime=runtime, Role=make_role(statements), Timeout=timeout,
        Handler=handler or f"{filename.removesuffix('.py')}.handler",
        Code={"ZipFile": buffer.getvalue()})["FunctionArn"]

"""ValidateKey: calls STS with the new key until it answers three times in a row."""

import json
import time

import boto3
import rotation
from botocore.exceptions import ClientError

secrets = boto3.client("secretsmanager")

NOT_YET = ("InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch")


def handler(doc, context):
    user = doc["baseline"]["user"]
    value = secrets.get_secret_value(SecretId=doc["secret"], VersionId=doc["new"]["version"])
    pair = json.loads(value["SecretString"])
    if pair["AccessKeyId"] != doc["new"]["key"]:
        raise rotation.Conflict("the version does not hold the new key")
    sts = boto3.client(
        "sts",
        aws_access_key_id=pair["AccessKeyId"],
        aws_secret_access_key=pair["SecretAccessKey"],
        # Without this the session token of the function's role would be sent beside the user's key.
        aws_session_token="",
    )
    row = 0
    for asked in range(20):
        if asked:
            time.sleep(1)
        try:
            identity = sts.get_caller_identity()
        except ClientError as error:
            if error.response["Error"]["Code"] not in NOT_YET:
                raise
            row = 0
            continue
        if identity["Arn"] != user["arn"] or identity["UserId"] != user["id"]:
            raise rotation.Conflict(f"the key answers as {identity['Arn']}")
        row += 1
        if row == 3:
            break
    else:
        raise TimeoutError("the key has not answered three times in a row")
    doc["phase"] = "promote"
    rotation.announce(doc, "Validated", f"The new key {pair['AccessKeyId']} of {user['name']} answers.")
    rotation.log(doc, f"Key {pair['AccessKeyId']} of {user['name']} answers")
    return doc

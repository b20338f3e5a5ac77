"""CreateKey: makes the new key and stores it as AWSPENDING."""

import json

import boto3
import rotation
from botocore.config import Config

# A lost reply must not make a second key.
iam = boto3.client("iam", config=Config(retries={"total_max_attempts": 1}))
secrets = boto3.client("secretsmanager")
ssm = boto3.client("ssm")


def handler(doc, context):
    user, arn = doc["baseline"]["user"]["name"], doc["secret"]
    keys = rotation.keys(iam, user)
    value = secrets.get_secret_value(SecretId=arn, VersionStage="AWSCURRENT")
    if rotation.mode(ssm) != "live":
        return rotation.end(doc, "Blocked", "Paused", "No key was made.")
    if value["VersionId"] != doc["baseline"]["current"]["version"] or len(keys) != len(doc["baseline"]["keys"]):
        return rotation.end(doc, "Blocked", "Conflict", "No key was made: something changed meanwhile.")
    key = iam.create_access_key(UserName=user)["AccessKey"]
    content = json.loads(value["SecretString"])
    content["UserName"] = user
    content["AccessKeyId"] = key["AccessKeyId"]
    content["SecretAccessKey"] = key["SecretAccessKey"]
    secrets.put_secret_value(
        SecretId=arn,
        ClientRequestToken=doc["run"],
        SecretString=json.dumps(content),
        VersionStages=["AWSPENDING"],
    )
    doc["new"] = {"key": key["AccessKeyId"], "version": doc["run"]}
    doc["phase"] = "validate"
    rotation.announce(doc, "Created", f"A new key {key['AccessKeyId']} was made for {user}.")
    rotation.log(doc, f"Made key {key['AccessKeyId']} for {user}")
    return doc

"""Secrets Manager: tokens, labels, filters, pages, deletion, rotation."""

import uuid

from emulator import ACCOUNT, Case, client, fresh


def token() -> str:
    return str(uuid.uuid4())


class Versions(Case):
    def setUp(self):
        self.sm = client("secretsmanager")

    def make(self, value: str | None = "first", **named) -> tuple[str, str | None]:
        if value is not None:
            named["SecretString"] = value
        reply = self.sm.create_secret(Name=fresh("secret"), **named)
        return reply["ARN"], reply.get("VersionId")

    def labels(self, secret: str) -> dict[str, list[str]]:
        return {version: sorted(stages) for version, stages in
                self.sm.describe_secret(SecretId=secret).get("VersionIdsToStages", {}).items()}

    def test_the_token_of_create_is_the_versions_id(self):
        wanted = token()
        secret, version = self.make(ClientRequestToken=wanted)
        self.assertEqual(wanted, version)
        self.assertEqual({wanted: ["AWSCURRENT"]}, self.labels(secret))

    def test_a_secret_without_value_has_no_version(self):
        secret, version = self.make(None)
        self.assertIsNone(version)
        self.assertEqual({}, self.labels(secret))
        self.assertRefused("ResourceNotFoundException", self.sm.get_secret_value, SecretId=secret)

    def test_the_first_version_becomes_current_whatever_its_labels(self):
        secret, _ = self.make(None)
        first = token()
        self.sm.put_secret_value(SecretId=secret, SecretString="x", ClientRequestToken=first,
                                 VersionStages=["AWSPENDING"])
        self.assertEqual({first: ["AWSCURRENT", "AWSPENDING"]}, self.labels(secret))

    def test_a_repeated_token_is_a_no_op_or_a_refusal(self):
        secret, first = self.make()
        mine = token()
        put = {"SecretId": secret, "ClientRequestToken": mine, "VersionStages": ["AWSPENDING"]}
        self.sm.put_secret_value(SecretString="second", **put)
        self.sm.update_secret_version_stage(SecretId=secret, VersionStage="AWSCURRENT", MoveToVersionId=mine,
                                            RemoveFromVersionId=first)
        before = self.labels(secret)
        self.assertEqual(mine, self.sm.put_secret_value(SecretString="second", **put)["VersionId"])
        self.assertEqual(before, self.labels(secret))
        self.assertRefused("ResourceExistsException", self.sm.put_secret_value, SecretString="other", **put)

    def test_one_version_is_pending_at_a_time(self):
        secret, first = self.make()
        one, two = token(), token()
        for version in (one, two):
            self.sm.put_secret_value(SecretId=secret, SecretString=version, ClientRequestToken=version,
                                     VersionStages=["AWSPENDING"])
        self.assertEqual({first: ["AWSCURRENT"], two: ["AWSPENDING"]}, self.labels(secret))
        # The other one has lost its label, not its value.
        self.assertEqual(one, self.sm.get_secret_value(SecretId=secret, VersionId=one)["SecretString"])
        listed = self.sm.list_secret_version_ids(SecretId=secret, IncludeDeprecated=True)["Versions"]
        self.assertEqual({first, one, two}, {version["VersionId"] for version in listed})

    def test_a_version_put_without_labels_becomes_current(self):
        secret, first = self.make()
        second = self.sm.put_secret_value(SecretId=secret, SecretString="second")["VersionId"]
        self.assertEqual({first: ["AWSPREVIOUS"], second: ["AWSCURRENT"]}, self.labels(secret))

    def test_labels_move_by_compare_and_swap(self):
        secret, first = self.make()
        second, third = token(), token()
        for version in (second, third):
            self.sm.put_secret_value(SecretId=secret, SecretString=version, ClientRequestToken=version,
                                     VersionStages=["AWSPENDING"])
        move = {"SecretId": secret, "VersionStage": "AWSCURRENT"}
        self.sm.update_secret_version_stage(**move, MoveToVersionId=second, RemoveFromVersionId=first)
        self.assertEqual({first: ["AWSPREVIOUS"], second: ["AWSCURRENT"], third: ["AWSPENDING"]}, self.labels(secret))
        before = self.labels(secret)
        for stale in ({"MoveToVersionId": third, "RemoveFromVersionId": first}, {"MoveToVersionId": third},
                      {"MoveToVersionId": second, "RemoveFromVersionId": first},
                      {"RemoveFromVersionId": first}, {"RemoveFromVersionId": second}):
            self.assertRefused("InvalidParameterException", self.sm.update_secret_version_stage, **move, **stale)
        self.assertEqual(before, self.labels(secret))
        self.sm.update_secret_version_stage(**move, MoveToVersionId=third, RemoveFromVersionId=second)
        self.assertEqual({second: ["AWSPREVIOUS"], third: ["AWSCURRENT", "AWSPENDING"]}, self.labels(secret))
        self.sm.update_secret_version_stage(SecretId=secret, VersionStage="AWSPENDING", RemoveFromVersionId=third)
        self.assertEqual({second: ["AWSPREVIOUS"], third: ["AWSCURRENT"]}, self.labels(secret))

    def test_a_secret_scheduled_for_deletion_cannot_be_used(self):
        secret, first = self.make()
        self.sm.delete_secret(SecretId=secret, RecoveryWindowInDays=7)
        self.assertIn("DeletedDate", self.sm.describe_secret(SecretId=secret))
        for call, named in ((self.sm.get_secret_value, {}), (self.sm.put_secret_value, {"SecretString": "x"}),
                            (self.sm.update_secret_version_stage,
                             {"VersionStage": "x", "MoveToVersionId": first}),
                            (self.sm.tag_resource, {"Tags": [{"Key": "a", "Value": "b"}]}),
                            (self.sm.rotate_secret, {})):
            self.assertRefused("InvalidRequestException", call, SecretId=secret, **named)
        self.sm.restore_secret(SecretId=secret)
        self.sm.get_secret_value(SecretId=secret)


class Lists(Case):
    def test_tags_filter_by_case_sensitive_prefix_and_in_pages(self):
        sm, mark = client("secretsmanager"), fresh("keywheel")
        made = []
        for number in range(5):
            made.append(sm.create_secret(Name=fresh("listed"), SecretString="x", Tags=[
                {"Key": f"{mark}:user", "Value": f"Robot-{number}"}])["Name"])
        sm.create_secret(Name=fresh("listed"), SecretString="x", Tags=[{"Key": f"{mark.upper()}:user", "Value": "r"}])

        def names(*filters) -> list[str]:
            pages = sm.get_paginator("list_secrets").paginate(
                Filters=[{"Key": key, "Values": values} for key, values in filters],
                PaginationConfig={"PageSize": 2})
            return [secret["Name"] for page in pages for secret in page["SecretList"]]

        self.assertEqual(sorted(made), names(("tag-key", [mark])))
        self.assertEqual(sorted(made), names(("tag-key", [f"{mark}:user"])))
        self.assertEqual([], names(("tag-key", ["eywheel"]), ("name", ["listed"])))
        self.assertEqual([made[3]], names(("tag-key", [mark]), ("tag-value", ["Robot-3"])))
        self.assertEqual([], names(("tag-key", [mark]), ("tag-value", ["robot-3"])))
        self.assertRefused("InvalidNextTokenException", sm.list_secrets, NextToken="???")


class Rotation(Case):
    def test_without_a_function_there_is_no_rotation(self):
        sm = client("secretsmanager")
        secret = sm.create_secret(Name=fresh("secret"), SecretString="x")["ARN"]
        self.assertRefused("InvalidRequestException", sm.rotate_secret, SecretId=secret)
        arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{fresh('none')}"
        self.assertRefused("ResourceNotFoundException", sm.rotate_secret, SecretId=secret, RotationLambdaARN=arn)

    def test_the_four_steps_are_called_with_the_token(self):
        from functions import make_function
        from emulator import wait_for

        sm, lam = client("secretsmanager"), client("lambda")
        function = make_function("rotation.py", """
import boto3
def handler(event, context):
    sm = boto3.client("secretsmanager")
    call = {"SecretId": event["SecretId"]}
    token, step = event["ClientRequestToken"], event["Step"]
    print("step", step, flush=True)
    if step == "createSecret":
        try:
            sm.get_secret_value(VersionId=token, VersionStage="AWSPENDING", **call)
        except sm.exceptions.ResourceNotFoundException:
            sm.put_secret_value(ClientRequestToken=token, SecretString="new", VersionStages=["AWSPENDING"], **call)
    if step == "finishSecret":
        stages = sm.describe_secret(**call)["VersionIdsToStages"]
        current = next(version for version, labels in stages.items() if "AWSCURRENT" in labels)
        sm.update_secret_version_stage(VersionStage="AWSCURRENT", MoveToVersionId=token,
                                       RemoveFromVersionId=current, **call)
""")
        secret = sm.create_secret(Name=fresh("secret"), SecretString="old")
        mine = token()
        rotate = {"SecretId": secret["ARN"], "ClientRequestToken": mine, "RotationLambdaARN": function}
        self.assertRefused("AccessDeniedException", sm.rotate_secret, **rotate)
        lam.add_permission(FunctionName=function, StatementId="rotate", Action="lambda:InvokeFunction",
                           Principal="secretsmanager.amazonaws.com")
        self.assertEqual(mine, sm.rotate_secret(**rotate)["VersionId"])
        wait_for(lambda: "LastRotatedDate" in sm.describe_secret(SecretId=secret["ARN"]))
        stages = sm.describe_secret(SecretId=secret["ARN"])["VersionIdsToStages"]
        self.assertEqual({mine: ["AWSCURRENT"], secret["VersionId"]: ["AWSPREVIOUS"]}, stages)
        self.assertEqual("new", sm.get_secret_value(SecretId=secret["ARN"])["SecretString"])
        logs = client("logs").filter_log_events(logGroupName=f"/aws/lambda/{function.rsplit(':', 1)[-1]}")
        steps = [line["message"].split()[1] for line in logs["events"] if line["message"].startswith("step ")]
        self.assertEqual(["createSecret", "setSecret", "testSecret", "finishSecret"], steps)

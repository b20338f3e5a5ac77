"""IAM: key quota, paging, last use, pairs, quotas, conditions, refusals of dead keys."""

import csv
import io
import json
import time
import urllib.error
from datetime import datetime, timezone

from emulator import ACCOUNT, Case, admin, client, fresh

EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}


class Keys(Case):
    def test_a_third_key_is_refused_whatever_the_status_of_the_two(self):
        iam, user = client("iam"), self.make_user()
        first = self.make_key(user)
        self.make_key(user)
        iam.update_access_key(UserName=user, AccessKeyId=first["AccessKeyId"], Status="Inactive")
        error = self.assertRefused("LimitExceeded", iam.create_access_key, UserName=user, status=409)
        self.assertEqual("Cannot exceed quota for AccessKeysPerUser: 2", error["Error"]["Message"])
        iam.delete_access_key(UserName=user, AccessKeyId=first["AccessKeyId"])
        self.make_key(user)

    def test_keys_are_listed_in_pages(self):
        iam, user = client("iam"), self.make_user()
        made = [self.make_key(user)["AccessKeyId"] for _ in range(2)]
        first = iam.list_access_keys(UserName=user, MaxItems=1)
        self.assertTrue(first["IsTruncated"])
        second = iam.list_access_keys(UserName=user, MaxItems=1, Marker=first["Marker"])
        self.assertFalse(second["IsTruncated"])
        self.assertEqual(made, [page["AccessKeyMetadata"][0]["AccessKeyId"] for page in (first, second)])
        self.assertRefused("NoSuchEntity", iam.list_access_keys, UserName="nobody-here", status=404)

    def test_users_are_listed_in_pages(self):
        iam = client("iam")
        made = {self.make_user(path="/paged/") for _ in range(5)}
        pages = iam.get_paginator("list_users").paginate(PathPrefix="/paged/", PaginationConfig={"PageSize": 2})
        self.assertEqual(made, {user["UserName"] for page in pages for user in page["Users"]})

    def test_a_key_never_used_has_no_date(self):
        user = self.make_user()
        key = self.make_key(user)
        reply = client("iam").get_access_key_last_used(AccessKeyId=key["AccessKeyId"])
        self.assertEqual(user, reply["UserName"])
        self.assertEqual({"ServiceName": "N/A", "Region": "N/A"}, reply["AccessKeyLastUsed"])

    def test_last_use_is_service_region_and_time_of_the_last_genuine_call(self):
        user = self.make_user()
        key = self.make_key(user)
        client("sts", key, region="eu-west-1").get_caller_identity()
        used = client("iam").get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
        self.assertEqual(("sts", "eu-west-1"), (used["ServiceName"], used["Region"]))
        self.assertLess(abs((datetime.now(timezone.utc) - used["LastUsedDate"]).total_seconds()), 5)
        # Denied by policy, and yet used.
        self.assertRefused("AccessDeniedException", client("secretsmanager", key).list_secrets)
        used = client("iam").get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
        self.assertEqual("secretsmanager", used["ServiceName"])
        # A wrong signature is nobody's use.
        wrong = {**key, "SecretAccessKey": "x" * 40}
        self.assertRefused("SignatureDoesNotMatch", client("sts", wrong).get_caller_identity)
        after = client("iam").get_access_key_last_used(AccessKeyId=key["AccessKeyId"])["AccessKeyLastUsed"]
        self.assertEqual(used, after)

    def test_the_pair_of_user_and_key_must_match(self):
        iam, one, two = client("iam"), self.make_user(), self.make_user()
        key = self.make_key(one)["AccessKeyId"]
        self.assertRefused("NoSuchEntity", iam.delete_access_key, UserName=two, AccessKeyId=key)
        self.assertRefused("NoSuchEntity", iam.update_access_key, UserName=two, AccessKeyId=key, Status="Inactive")
        self.assertEqual(1, len(iam.list_access_keys(UserName=one)["AccessKeyMetadata"]))

    def test_without_a_user_name_the_caller_is_meant(self):
        user = self.make_user(policy=EVERYTHING)
        key = self.make_key(user)
        own = client("iam", key)
        self.assertEqual(user, own.list_access_keys()["AccessKeyMetadata"][0]["UserName"])
        self.assertEqual(user, own.create_access_key()["AccessKey"]["UserName"])
        self.assertEqual(user, own.get_user()["User"]["UserName"])

    def test_a_dead_key_is_refused_everywhere(self):
        iam, user = client("iam"), self.make_user(policy=EVERYTHING)
        key = self.make_key(user)
        client("sts", key).get_caller_identity()
        iam.update_access_key(UserName=user, AccessKeyId=key["AccessKeyId"], Status="Inactive")
        for _ in range(2):
            self.assertRefused("InvalidClientTokenId", client("sts", key).get_caller_identity, status=403)
            self.assertRefused("InvalidClientTokenId", client("iam", key).get_user, status=403)
            self.assertRefused("UnrecognizedClientException", client("secretsmanager", key).list_secrets)
            self.assertRefused("InvalidAccessKeyId", client("s3", key).list_buckets, status=403)
            if iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
                iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])

    def test_caller_identity_names_the_user_with_path_and_unique_id(self):
        user = self.make_user(path="/robots/")
        unique = client("iam").get_user(UserName=user)["User"]["UserId"]
        reply = client("sts", self.make_key(user)).get_caller_identity()
        self.assertEqual((ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/robots/{user}", unique),
                         (reply["Account"], reply["Arn"], reply["UserId"]))
        self.assertTrue(unique.startswith("AIDA"))

    def test_get_user_returns_its_tags(self):
        user = self.make_user(tags={"keywheel:secret": "a&b<c"})
        self.assertEqual([{"Key": "keywheel:secret", "Value": "a&b<c"}],
                         client("iam").get_user(UserName=user)["User"]["Tags"])

    def test_the_credential_report_tells_last_use(self):
        iam, user = client("iam"), self.make_user()
        used, unused = self.make_key(user), self.make_key(user)
        client("sts", used).get_caller_identity()
        iam.update_access_key(UserName=user, AccessKeyId=unused["AccessKeyId"], Status="Inactive")
        iam.generate_credential_report()
        rows = csv.DictReader(io.StringIO(iam.get_credential_report()["Content"].decode()))
        row = next(row for row in rows if row["user"] == user)
        self.assertEqual(("true", "sts", "us-east-1"), (row["access_key_1_active"], row["access_key_1_last_used_service"],
                                                       row["access_key_1_last_used_region"]))
        self.assertIsNotNone(datetime.fromisoformat(row["access_key_1_last_used_date"]).tzinfo)
        self.assertEqual(("false", "N/A"), (row["access_key_2_active"], row["access_key_2_last_used_date"]))

    def test_a_key_can_be_made_older_and_a_comma_in_a_name_is_quoted(self):
        iam, user = client("iam"), fresh("one,two")
        iam.create_user(UserName=user)
        key = self.make_key(user)["AccessKeyId"]
        admin("POST", "/_keywheel/ages", {key: 100})
        listed = iam.list_access_keys(UserName=user)["AccessKeyMetadata"][0]["CreateDate"]
        self.assertEqual(100, (datetime.now(timezone.utc) - listed).days)
        iam.generate_credential_report()
        rows = csv.DictReader(io.StringIO(iam.get_credential_report()["Content"].decode()))
        row = next(row for row in rows if row["user"] == user)
        self.assertEqual(listed, datetime.fromisoformat(row["access_key_1_last_rotated"]))
        with self.assertRaises(urllib.error.HTTPError):
            admin("POST", "/_keywheel/ages", {key: 1, "AKIANOBODY": 1})
        self.assertEqual(listed, iam.list_access_keys(UserName=user)["AccessKeyMetadata"][0]["CreateDate"])


class Quotas(Case):
    def test_inline_policies_hold_2048_characters_together(self):
        iam, user = client("iam"), self.make_user()

        def document(length: int) -> str:
            empty = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": ""}]}
            bare = len(json.dumps(empty, separators=(",", ":")))
            empty["Statement"][0]["Resource"] = "arn:aws:s3:::" + "b" * (length - bare - 13)
            return json.dumps(empty, indent=4)  # white space is free

        iam.put_user_policy(UserName=user, PolicyName="one", PolicyDocument=document(1024))
        iam.put_user_policy(UserName=user, PolicyName="two", PolicyDocument=document(1024))
        iam.put_user_policy(UserName=user, PolicyName="two", PolicyDocument=document(1000))
        self.assertRefused("LimitExceeded", iam.put_user_policy, UserName=user, PolicyName="two",
                           PolicyDocument=document(1025), status=409)

    def test_ten_managed_policies_and_no_unknown_one(self):
        iam, user = client("iam"), self.make_user()
        body = json.dumps({"Version": "2012-10-17", "Statement": [EVERYTHING]})
        arns = [iam.create_policy(PolicyName=f"{user}-{number}", PolicyDocument=body)["Policy"]["Arn"]
                for number in range(11)]
        for arn in arns[:10]:
            iam.attach_user_policy(UserName=user, PolicyArn=arn)
        iam.attach_user_policy(UserName=user, PolicyArn=arns[0])
        self.assertRefused("LimitExceeded", iam.attach_user_policy, UserName=user, PolicyArn=arns[10], status=409)
        self.assertRefused("NoSuchEntity", iam.attach_user_policy, UserName=self.make_user(), PolicyArn=arns[0] + "x")

    def test_the_quarantine_policy_blocks_a_self_rotating_user(self):
        user = self.make_user(policy=EVERYTHING)
        key = self.make_key(user)
        client("iam").attach_user_policy(UserName=user,
                                         PolicyArn="arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3")
        self.assertRefused("AccessDenied", client("iam", key).create_access_key, UserName=user, status=403)


class Conditions(Case):
    def test_user_writes_are_bound_to_a_tag(self):
        caller = self.make_user(policy={
            "Effect": "Allow", "Action": ["iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey"],
            "Resource": f"arn:aws:iam::{ACCOUNT}:user/robots/*",
            "Condition": {"StringLike": {"aws:ResourceTag/keywheel:secret": "*"}}})
        iam = client("iam", self.make_key(caller))
        tagged = self.make_user(path="/robots/", tags={"keywheel:secret": "x"})
        untagged = self.make_user(path="/robots/")
        elsewhere = self.make_user(tags={"keywheel:secret": "x"})
        made = iam.create_access_key(UserName=tagged)["AccessKey"]
        for user in (untagged, elsewhere):
            self.assertRefused("AccessDenied", iam.create_access_key, UserName=user, status=403)
        iam.update_access_key(UserName=tagged, AccessKeyId=made["AccessKeyId"], Status="Inactive")
        iam.delete_access_key(UserName=tagged, AccessKeyId=made["AccessKeyId"])

    def test_last_use_is_checked_on_the_owner(self):
        caller = self.make_user(policy={"Effect": "Allow", "Action": "iam:GetAccessKeyLastUsed",
                                        "Resource": f"arn:aws:iam::{ACCOUNT}:user/*"})
        key = self.make_key(self.make_user())
        client("iam", self.make_key(caller)).get_access_key_last_used(AccessKeyId=key["AccessKeyId"])

    def test_each_parameter_that_is_asked_for_must_be_allowed(self):
        caller = self.make_user(policy={
            "Effect": "Allow", "Action": "ssm:GetParameters",
            "Resource": [f"arn:aws:ssm:*:{ACCOUNT}:parameter/keywheel/test/mode",
                         f"arn:aws:ssm:*:{ACCOUNT}:parameter/keywheel/test/incidents/*"]})
        client("ssm").put_parameter(Name="/keywheel/test/mode", Value="live", Type="String", Overwrite=True)
        own = client("ssm", self.make_key(caller))
        found = own.get_parameters(Names=["/keywheel/test/mode", "/keywheel/test/incidents/none"])
        self.assertEqual(["live"], [row["Value"] for row in found["Parameters"]])
        self.assertEqual(["/keywheel/test/incidents/none"], found["InvalidParameters"])
        self.assertRefused("AccessDeniedException", own.get_parameters,
                           Names=["/keywheel/test/mode", "/keywheel/test/other"], status=400)

    def test_managed_policies_are_bound_by_their_arn(self):
        user = self.make_user()
        mine = f"arn:aws:iam::{ACCOUNT}:policy/deny-*"
        caller = self.make_user(policy=[
            {"Effect": "Allow", "Action": ["iam:CreatePolicy", "iam:DeletePolicy"], "Resource": mine},
            {"Effect": "Allow", "Action": ["iam:AttachUserPolicy", "iam:DetachUserPolicy"], "Resource": "*",
             "Condition": {"ArnLike": {"iam:PolicyARN": mine}}}])
        root, own = client("iam"), client("iam", self.make_key(caller))
        document = json.dumps({"Version": "2012-10-17", "Statement": [EVERYTHING]})
        theirs = root.create_policy(PolicyName=f"theirs-{user}", PolicyDocument=document)["Policy"]["Arn"]
        self.assertRefused("AccessDenied", own.create_policy, PolicyName=f"other-{user}", PolicyDocument=document,
                           status=403)
        self.assertRefused("AccessDenied", own.attach_user_policy, UserName=user, PolicyArn=theirs, status=403)
        self.assertRefused("AccessDenied", own.delete_policy, PolicyArn=theirs, status=403)
        made = own.create_policy(PolicyName=f"deny-{user}", PolicyDocument=document)["Policy"]["Arn"]
        own.attach_user_policy(UserName=user, PolicyArn=made)
        own.detach_user_policy(UserName=user, PolicyArn=made)
        own.delete_policy(PolicyArn=made)

    def test_secrets_are_bound_to_a_tag_by_either_key(self):
        root, secrets = client("secretsmanager"), {}
        for label, tags in (("tagged", [{"Key": "keywheel:user", "Value": "u"}]), ("untagged", [])):
            secrets[label] = root.create_secret(Name=self.make_user(), SecretString="{}", Tags=tags)["ARN"]
        for prefix in ("aws", "secretsmanager"):
            caller = self.make_user(policy={
                "Effect": "Allow", "Action": "secretsmanager:DescribeSecret", "Resource": "*",
                "Condition": {"Null": {f"{prefix}:ResourceTag/keywheel:user": "false"}}})
            own = client("secretsmanager", self.make_key(caller))
            own.describe_secret(SecretId=secrets["tagged"])
            self.assertRefused("AccessDeniedException", own.describe_secret, SecretId=secrets["untagged"], status=400)

    def test_sessions_of_a_user_are_denied_by_their_issue_time(self):
        user = self.make_user(policy=EVERYTHING)
        key = self.make_key(user)
        session = client("sts", key).get_session_token()["Credentials"]
        client("iam", session).list_users()
        later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        client("iam").put_user_policy(UserName=user, PolicyName="deny", PolicyDocument=json.dumps({
            "Version": "2012-10-17", "Statement": [{
                "Effect": "Deny", "Action": "*", "Resource": "*",
                "Condition": {"DateLessThan": {"aws:TokenIssueTime": later}}}]}))
        self.assertRefused("AccessDenied", client("iam", session).list_users, status=403)
        client("iam", key).list_users()

    def test_parameters_follow_a_roles_policy(self):
        iam, name = client("iam"), self.make_user()
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({
            "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {
                "AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}))["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps({
            "Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Action": ["ssm:GetParameter", "ssm:PutParameter"],
                "Resource": f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/{name}/*"}]}))
        session = client("sts").assume_role(RoleArn=role, RoleSessionName="run")["Credentials"]
        ssm = client("ssm", session)
        ssm.put_parameter(Name=f"/{name}/mode", Value="live", Type="String")
        self.assertEqual("live", ssm.get_parameter(Name=f"/{name}/mode")["Parameter"]["Value"])
        self.assertRefused("AccessDeniedException", ssm.get_parameter, Name="/other/mode")

    def test_a_bucket_for_tls_only_takes_calls_over_loopback(self):
        s3, bucket, user = client("s3"), fresh("bucket"), self.make_user()
        s3.create_bucket(Bucket=bucket)
        client("iam").put_user_policy(UserName=user, PolicyName="own", PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [EVERYTHING]}))
        holder, own = client("s3", self.make_key(user)), f"arn:aws:s3:::{bucket}/*"
        for secure, refused in (("false", False), ("true", True)):
            s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [{
                "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": own,
                "Condition": {"Bool": {"aws:SecureTransport": secure}}}]}))
            if refused:
                self.assertRefused("AccessDenied", holder.put_object, Bucket=bucket, Key="a", Body=b"b", status=403)
            else:
                holder.put_object(Bucket=bucket, Key="a", Body=b"b")

    def test_a_roles_session_is_known_by_the_roles_arn(self):
        name, other = fresh("hub"), "444455550000"
        trust = json.dumps({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
        hub = client("iam").create_role(RoleName=name, Path="/app/", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        client("iam").put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps({
            "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}))
        session = client("sts").assume_role(RoleArn=hub, RoleSessionName="run")["Credentials"]
        for arn, word, enters in ((hub, "a-word", True), (hub, "another", False), (hub + "x", "a-word", False)):
            role = client("iam", account=other).create_role(
                RoleName=fresh("member"), AssumeRolePolicyDocument=json.dumps({
                    "Version": "2012-10-17", "Statement": [{
                        "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
                        "Action": "sts:AssumeRole", "Condition": {
                            "StringEquals": {"sts:ExternalId": "a-word"},
                            "ArnEquals": {"aws:PrincipalArn": [arn]}}}]}))["Role"]["Arn"]
            ask = {"RoleArn": role, "RoleSessionName": "in", "ExternalId": word}
            if enters:
                inside = client("sts", session).assume_role(**ask)["Credentials"]
                self.assertEqual(other, client("sts", inside).get_caller_identity()["Account"])
            else:
                self.assertRefused("AccessDenied", client("sts", session).assume_role, **ask)

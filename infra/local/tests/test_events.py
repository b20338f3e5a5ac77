"""EventBridge, CloudTrail, Organizations: what reaches the bus and the records."""

import json
from datetime import datetime, timedelta, timezone

from emulator import ACCOUNT, Case, admin, client, fresh, wait_for


def listen(pattern: dict, bus: str = "default"):
    """A queue that gets the matching events; returns a function that reads them."""
    sqs, events = client("sqs"), client("events")
    url = sqs.create_queue(QueueName=fresh("queue"))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule = fresh("rule")
    events.put_rule(Name=rule, EventBusName=bus, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=rule, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
    read: list[dict] = []

    def received() -> list[dict]:
        for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
            read.append(json.loads(message["Body"]))
        return read

    return received


class Bus(Case):
    def test_service_sources_pass_on_the_default_bus_only(self):
        events, own, mark = client("events"), fresh("bus"), fresh("mark")
        received = listen({"source": ["aws.health"], "detail": {"mark": [mark]}})
        events.create_event_bus(Name=own)
        entry = {"Source": "aws.health", "DetailType": "AWS Health Event", "Detail": json.dumps({"mark": mark})}
        reply = events.put_events(Entries=[entry, {**entry, "EventBusName": own}, {**entry, "Source": "mine"}])
        self.assertEqual(1, reply["FailedEntryCount"])
        self.assertEqual("NotAuthorizedForSourceException", reply["Entries"][1]["ErrorCode"])
        self.assertEqual("aws.health", wait_for(received)[0]["source"])

    def test_iam_changes_reach_the_bus(self):
        user = self.make_user()
        received = listen({"source": ["aws.iam"], "detail-type": ["AWS API Call via CloudTrail"],
                           "detail": {"eventName": ["CreateAccessKey"],
                                      "requestParameters": {"userName": [user]}}})
        key = self.make_key(user)
        event = wait_for(received)[0]
        self.assertEqual("us-east-1", event["region"])
        self.assertEqual(key["AccessKeyId"], event["detail"]["responseElements"]["accessKey"]["accessKeyId"])
        self.assertNotIn(key["SecretAccessKey"], json.dumps(event))


class Trail(Case):
    def lookup(self, attribute: str, value: str, **named) -> list[dict]:
        pages = client("cloudtrail").get_paginator("lookup_events").paginate(
            LookupAttributes=[{"AttributeKey": attribute, "AttributeValue": value}], **named)
        return [event for page in pages for event in page["Events"]]

    def test_a_new_key_is_found_by_every_attribute_and_names_its_maker(self):
        user, role = self.make_user(), fresh("role")
        iam = client("iam")
        arn = iam.create_role(RoleName=role, Path="/keywheel/", AssumeRolePolicyDocument=json.dumps({
            "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {
                "AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}]}))["Role"]["Arn"]
        iam.put_role_policy(RoleName=role, PolicyName="own", PolicyDocument=json.dumps({
            "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:CreateAccessKey",
                                                    "Resource": "*"}]}))
        session_name = fresh("run")
        session = client("sts").assume_role(RoleArn=arn, RoleSessionName=session_name)["Credentials"]
        key = client("iam", session, app=session_name).create_access_key(UserName=user)["AccessKey"]
        for attribute, value in (("ResourceName", key["AccessKeyId"]), ("ResourceName", user),
                                 ("Username", session_name), ("AccessKeyId", session["AccessKeyId"])):
            found = [event for event in self.lookup(attribute, value) if event["EventName"] == "CreateAccessKey"]
            self.assertEqual(1, len(found), attribute)
        event, record = found[0], json.loads(found[0]["CloudTrailEvent"])
        self.assertEqual((session_name, session["AccessKeyId"], "iam.amazonaws.com", "false"),
                         (event["Username"], event["AccessKeyId"], event["EventSource"], event["ReadOnly"]))
        self.assertEqual({"userName": user}, record["requestParameters"])
        self.assertEqual((key["AccessKeyId"], user, "Active"), tuple(
            record["responseElements"]["accessKey"][name] for name in ("accessKeyId", "userName", "status")))
        identity = record["userIdentity"]
        self.assertEqual(("AssumedRole", f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{session_name}"),
                         (identity["type"], identity["arn"]))
        self.assertEqual(arn, identity["sessionContext"]["sessionIssuer"]["arn"])
        self.assertIn(f"app/{session_name}", record["userAgent"])
        self.assertEqual(("us-east-1", "127.0.0.1"), (record["awsRegion"], record["sourceIPAddress"]))
        self.assertNotIn(key["SecretAccessKey"], json.dumps(found, default=str))

    def test_a_denied_call_is_recorded_with_its_error(self):
        user = self.make_user()
        key = self.make_key(user)
        self.assertRefused("AccessDenied", client("iam", key).create_access_key, UserName=user)
        record = json.loads(self.lookup("AccessKeyId", key["AccessKeyId"])[0]["CloudTrailEvent"])
        self.assertEqual(("CreateAccessKey", "AccessDenied", None),
                         (record["eventName"], record["errorCode"], record["responseElements"]))

    def test_secret_values_are_not_in_the_records(self):
        sm, name, value = client("secretsmanager"), fresh("secret"), fresh("value")
        arn = sm.create_secret(Name=name, SecretString=value)["ARN"]
        sm.put_secret_value(SecretId=arn, SecretString=value + "2", VersionStages=["AWSPENDING"])
        sm.get_secret_value(SecretId=arn)
        found = self.lookup("ResourceName", arn)
        self.assertEqual({"CreateSecret", "PutSecretValue", "GetSecretValue"}, {event["EventName"] for event in found})
        self.assertNotIn(value, json.dumps(found, default=str))

    def test_fifty_a_page_newest_first_within_the_time_asked_for(self):
        user = self.make_user()
        key = self.make_key(user)
        sts = client("sts", key)
        for _ in range(60):
            sts.get_caller_identity()
        trail = client("cloudtrail")
        asked = {"LookupAttributes": [{"AttributeKey": "AccessKeyId", "AttributeValue": key["AccessKeyId"]}]}
        first = trail.lookup_events(**asked)
        self.assertEqual(50, len(first["Events"]))
        second = trail.lookup_events(**asked, NextToken=first["NextToken"])
        self.assertEqual(10, len(second["Events"]))
        self.assertNotIn("NextToken", second)
        both = first["Events"] + second["Events"]
        self.assertEqual(60, len({event["EventId"] for event in both}))
        self.assertEqual(sorted((event["EventTime"] for event in both), reverse=True),
                         [event["EventTime"] for event in both])
        later = datetime.now(timezone.utc) + timedelta(minutes=1)
        self.assertEqual([], trail.lookup_events(**asked, StartTime=later)["Events"])
        self.assertRefused("InvalidNextTokenException", trail.lookup_events, NextToken="bm9uZQ==")


class Organization(Case):
    def test_an_organization_is_made_and_its_accounts_can_be_entered(self):
        master = "444455556666"
        own = client("organizations", account=master)
        self.assertRefused("AWSOrganizationsNotInUseException", own.describe_organization)
        made = own.create_organization(FeatureSet="ALL")["Organization"]
        self.assertRefused("AlreadyInOrganizationException", own.create_organization)
        account = own.create_account(Email="a@example.com", AccountName="one")["CreateAccountStatus"]["AccountId"]
        self.assertRegex(account, r"^\d{12}$")
        role = f"arn:aws:iam::{account}:role/OrganizationAccountAccessRole"
        session = client("sts", account=master).assume_role(RoleArn=role, RoleSessionName="in")["Credentials"]
        self.assertEqual(account, client("sts", session).get_caller_identity()["Account"])
        client("iam", session).create_user(UserName="inside")
        self.assertEqual(made["Id"], client("organizations", session).describe_organization()["Organization"]["Id"])


class Gateway(Case):
    def test_signed_calls_are_listed(self):
        user, app = self.make_user(), fresh("app")
        key = self.make_key(user)
        before = admin("GET", "/_keywheel/requests")[-1]["seq"]
        client("sts", key, app=app).get_caller_identity()
        self.assertRefused("AccessDenied", client("iam", key, app=app).create_access_key, UserName=user)
        made = client("iam", app=app).create_access_key(UserName=user)["AccessKey"]
        client("stepfunctions", app=app).list_state_machines()
        listed = [entry for entry in admin("GET", f"/_keywheel/requests?after={before}") if entry["app"] == app]
        self.assertEqual([("sts", "GetCallerIdentity", 200, None), ("iam", "CreateAccessKey", 403, "AccessDenied"),
                          ("iam", "CreateAccessKey", 200, None), ("states", "ListStateMachines", 200, None)],
                         [(entry["service"], entry["action"], entry["status"], entry["code"]) for entry in listed])
        self.assertEqual((key["AccessKeyId"], f"arn:aws:iam::{ACCOUNT}:user/{user}", user),
                         (listed[1]["key_id"], listed[1]["principal"], listed[1]["target"]))
        self.assertEqual({"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]},
                         listed[2]["reply"])
        self.assertRegex(listed[0]["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

    def test_the_list_can_be_emptied(self):
        client("sts").get_caller_identity()
        admin("DELETE", "/_keywheel/requests")
        self.assertEqual([], admin("GET", "/_keywheel/requests"))


class Faults(Case):
    def tearDown(self):
        admin("POST", "/_keywheel/faults", [])

    def test_before_nothing_happens_and_after_it_has_happened(self):
        iam, user = client("iam"), self.make_user()
        refusal = {"service": "iam", "action": "CreateAccessKey", "status": 503, "code": "ServiceUnavailable",
                   "message": "later"}
        for when, expected in (("before", 0), ("after", 1)):
            self.assertEqual(1, len(admin("POST", "/_keywheel/faults", [{**refusal, "when": when}])))
            self.assertRefused("ServiceUnavailable", iam.create_access_key, UserName=user, status=503)
            self.assertEqual([], admin("GET", "/_keywheel/faults"))
            self.assertEqual(expected, len(iam.list_access_keys(UserName=user)["AccessKeyMetadata"]))

    def test_a_fault_is_bound_to_caller_count_and_position(self):
        user = self.make_user()
        key = self.make_key(user)
        admin("POST", "/_keywheel/faults", [
            {"service": "sts", "key_id": key["AccessKeyId"], "status": 400, "code": "Throttling", "times": 2, "skip": 1}])
        own = client("sts", key)
        client("sts").get_caller_identity()
        own.get_caller_identity()
        for _ in range(2):
            self.assertRefused("Throttling", own.get_caller_identity)
        own.get_caller_identity()

    def test_json_services_are_refused_in_json(self):
        sm = client("secretsmanager")
        admin("POST", "/_keywheel/faults", [{"service": "secretsmanager", "action": "ListSecrets", "status": 400,
                                             "code": "AccessDeniedException", "message": "no",
                                             "principal_contains": ":root"}])
        error = self.assertRefused("AccessDeniedException", sm.list_secrets, status=400)
        self.assertEqual("no", error["Error"]["Message"])
        self.assertEqual("AccessDeniedException", error["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"])

    def test_a_reply_can_be_lost_and_delayed(self):
        from botocore.exceptions import ConnectionClosedError

        iam, user = client("iam"), self.make_user()
        admin("POST", "/_keywheel/faults", [
            {"service": "iam", "action": "CreateAccessKey", "drop": True, "when": "after"},
            {"service": "iam", "action": "ListAccessKeys", "delay_ms": 300}])
        with self.assertRaises(ConnectionClosedError):
            iam.create_access_key(UserName=user)
        began = datetime.now()
        self.assertEqual(1, len(iam.list_access_keys(UserName=user)["AccessKeyMetadata"]))
        self.assertGreater(datetime.now() - began, timedelta(milliseconds=300))

    def test_a_fault_that_cannot_be_read_is_refused(self):
        from urllib.error import HTTPError

        for wrong in ({}, [{"service": "iam"}], [{"statuss": 1}], [{"status": 500, "when": "never"}]):
            with self.assertRaises(HTTPError) as caught:
                admin("POST", "/_keywheel/faults", wrong)
            self.assertEqual(400, caught.exception.code)
            caught.exception.close()

"""The sample SAM template, deployed and run: deploy.py, the machine's states, its end on the bus."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path

from emulator import ACCOUNT, LOCAL, Case, admin, client, endpoint, fresh, wait_for

SAMPLE = Path(__file__).parent / "sample"
EXTRA_TYPES = """
Resources:
  Bus: { Type: AWS::Events::EventBus, Properties: { Name: !Sub "${AWS::StackName}" } }
  BusPolicy:
    Type: AWS::Events::EventBusPolicy
    Properties:
      EventBusName: !Ref Bus
      StatementId: senders
      Statement: { Effect: Allow, Principal: "*", Action: events:PutEvents, Resource: !GetAtt Bus.Arn }
  Composite:
    Type: AWS::CloudWatch::CompositeAlarm
    Properties: { AlarmName: !Sub "${AWS::StackName}", AlarmRule: "FALSE" }
  Secret: { Type: AWS::SecretsManager::Secret, Properties: { Name: !Sub "${AWS::StackName}" } }
Outputs:
  SecretArn: { Value: !Ref Secret }
"""


def deploy(folder: Path, stack: str, template: Path = SAMPLE / "template.yaml",
           **parameters: str) -> subprocess.CompletedProcess:
    """One run of deploy.py as a person would start it."""
    command = [sys.executable, str(LOCAL / "deploy.py"), "--endpoint", endpoint(), "--template", str(template),
               "--bootstraps", str(folder), "--stack", stack, "--region", "us-east-1",
               "--outputs", str(folder / "outputs.json")]
    for name, value in parameters.items():
        command += ["--parameter", f"{name}={value}"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment)


class Stack(Case):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="bootstraps-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        for crate in ("first", "second"):
            shutil.copy(SAMPLE / "echo.py", cls.folder / crate)
        cls.stack, cls.stage = fresh("sample"), fresh("s")
        cls.first_run = deploy(cls.folder, cls.stack, Stage=cls.stage)
        if cls.first_run.returncode:
            raise AssertionError(cls.first_run.stdout + cls.first_run.stderr)
        cls.outputs = json.loads((cls.folder / "outputs.json").read_text())
        cls.states = client("stepfunctions")

    def start(self, until: datetime | None = None, **document) -> str:
        document["until"] = (until or datetime.now(timezone.utc)).isoformat().replace("+00:00", "Z")
        return self.states.start_execution(stateMachineArn=self.outputs["MachineArn"], name=fresh("run"),
                                           input=json.dumps(document))["executionArn"]

    def end(self, execution: str) -> dict:
        def ended():
            found = self.states.describe_execution(executionArn=execution)
            return found if found["status"] != "RUNNING" else None
        return wait_for(ended, 20)

    def test_outputs_are_written_and_resources_told(self):
        self.assertEqual(f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:sample-{self.stage}",
                         self.outputs["MachineArn"])
        self.assertIn("AWS::StepFunctions::StateMachine", self.first_run.stdout)
        self.assertEqual("dry-run", client("ssm").get_parameter(Name=self.outputs["ModeName"])["Parameter"]["Value"])
        groups = client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/sample-{self.stage}")
        self.assertEqual([30], [group.get("retentionInDays") for group in groups["logGroups"]
                                if group["logGroupName"].endswith("-first")])
        tags = client("lambda").list_tags(Resource=self.outputs["FirstAlias"].removesuffix(":live"))["Tags"]
        self.assertEqual("sample", tags["product"])

    def test_nothing_changed_means_nothing_done(self):
        again = deploy(self.folder, self.stack, Stage=self.stage)
        self.assertEqual((0, f"stack {self.stack}: nothing changed\n"), (again.returncode, again.stdout))

    def test_changed_code_publishes_a_version_and_moves_the_alias(self):
        stack, stage, folder = fresh("sample"), fresh("s"), Path(tempfile.mkdtemp(prefix="bootstraps-"))
        self.addCleanup(shutil.rmtree, folder)
        for crate in ("first", "second"):
            shutil.copy(SAMPLE / "echo.py", folder / crate)

        def call() -> dict:
            return json.load(client("lambda").invoke(FunctionName=f"sample-{stage}-first", Qualifier="live",
                                                     Payload=b"{}")["Payload"])

        self.assertEqual(0, deploy(folder, stack, Stage=stage).returncode)
        before = call()
        source = (folder / "first").read_text()
        (folder / "first").write_text(source.replace('RELEASE = "one"', 'RELEASE = "two"'))
        again = deploy(folder, stack, Stage=stage)
        self.assertEqual(0, again.returncode, again.stderr)
        self.assertIn("FirstFunctionAliaslive", again.stdout)
        self.assertNotIn("SecondFunction", again.stdout)
        self.assertNotIn("Bus", again.stdout)
        after = call()
        self.assertEqual(("one", "two"), (before["release"], after["release"]))
        self.assertNotEqual(before["version"], after["version"])

    def test_a_failed_resource_is_named_with_its_reason(self):
        folder = Path(tempfile.mkdtemp(prefix="bootstraps-"))
        self.addCleanup(shutil.rmtree, folder)
        template = folder / "template.yaml"
        template.write_text("""
Resources:
  Broken:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: { Version: "2012-10-17", Statement: [] }
      Tags: [{ Key: same, Value: a }, { Key: Same, Value: b }]
""")
        failed = deploy(folder, fresh("broken"), template)
        self.assertEqual(1, failed.returncode, failed.stdout)
        self.assertIn("Broken", failed.stderr)

    def test_a_missing_executable_is_told(self):
        folder = Path(tempfile.mkdtemp(prefix="bootstraps-"))
        self.addCleanup(shutil.rmtree, folder)
        failed = deploy(folder, fresh("sample"), Stage=fresh("s"))
        self.assertEqual(1, failed.returncode)
        self.assertIn("FirstFunction: no executable", failed.stderr)

    def test_the_machine_passes_the_context_object_and_chooses(self):
        execution = self.start(branch="go")
        found = self.end(execution)
        self.assertEqual("SUCCEEDED", found["status"], found.get("cause"))
        reply = json.loads(found["output"])["first"]
        self.assertEqual((execution.rsplit(":", 1)[-1], execution),
                         (reply["event"]["run"], reply["event"]["execution"]))
        for moment in ("started", "entered"):
            self.assertIsNotNone(datetime.fromisoformat(reply["event"][moment]).tzinfo)
        self.assertEqual(("us-east-1", endpoint()), (reply["region"], reply["endpoint"]))
        self.assertTrue(reply["key_id"].startswith("ASIA"))

    def test_an_error_keeps_its_name_through_retry_and_catch(self):
        found = self.end(self.start(branch="fail"))
        document = json.loads(found["output"])
        self.assertEqual("Keywheel.Conflict", document["error"]["Error"])
        self.assertEqual("as asked", json.loads(document["error"]["Cause"])["errorMessage"])
        self.assertEqual("fail", document["branch"])
        history = self.states.get_execution_history(executionArn=found["executionArn"], maxResults=1000)["events"]
        self.assertEqual(2, sum(event["type"] == "TaskFailed" for event in history))
        self.assertEqual([event["id"] - 1 for event in history[1:]],
                         [event["previousEventId"] for event in history[1:]])

    def test_a_stopped_execution_stays_stopped_and_tells_the_bus(self):
        execution = self.start(until=datetime.now(timezone.utc) + timedelta(hours=1))
        wait_for(lambda: any(event["type"] == "WaitStateEntered" for event in
                             self.states.get_execution_history(executionArn=execution)["events"]))
        self.states.stop_execution(executionArn=execution, error="Stopped", cause="by a test")
        self.assertEqual("ABORTED", self.states.describe_execution(executionArn=execution)["status"])
        ended = []

        def told() -> bool:
            messages = client("sqs").receive_message(QueueUrl=self.outputs["EndsUrl"], MaxNumberOfMessages=10)
            ended.extend(json.loads(message["Body"])["detail"] for message in messages.get("Messages", []))
            return ("ABORTED", execution) in {(detail["status"], detail["executionArn"]) for detail in ended}
        wait_for(told)
        last = self.states.get_execution_history(executionArn=execution, reverseOrder=True)["events"][0]
        self.assertEqual("ExecutionAborted", last["type"])

    def test_a_failure_after_a_stop_changes_nothing(self):
        name = fresh("slow")
        role = client("iam").get_role(RoleName=self.outputs["FirstRole"])["Role"]["Arn"]
        machine = self.states.create_state_machine(name=name, roleArn=role, definition=json.dumps({
            "StartAt": "Slow", "States": {"Slow": {
                "Type": "Task", "Resource": self.outputs["FirstAlias"],
                "Parameters": {"sleep": 1, "fail": "Late"},
                "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 5}],
                "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}], "End": True},
                "Caught": {"Type": "Pass", "End": True}}}))["stateMachineArn"]
        execution = self.states.start_execution(stateMachineArn=machine)["executionArn"]
        wait_for(lambda: any(event["type"] == "TaskScheduled" for event in
                             self.states.get_execution_history(executionArn=execution)["events"]))
        self.states.stop_execution(executionArn=execution)
        time.sleep(2.5)
        self.assertEqual("ABORTED", self.states.describe_execution(executionArn=execution)["status"])
        events = self.states.get_execution_history(executionArn=execution)["events"]
        self.assertEqual("ExecutionAborted", events[-1]["type"])
        self.assertEqual(1, sum(event["type"] == "TaskScheduled" for event in events))

    def test_a_running_name_may_be_started_again_with_the_same_input_only(self):
        name, until = fresh("run"), (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        start = {"stateMachineArn": self.outputs["MachineArn"], "name": name, "input": json.dumps({"until": until})}
        first = self.states.start_execution(**start)
        self.assertEqual(first["executionArn"], self.states.start_execution(**start)["executionArn"])
        self.assertRefused("ExecutionAlreadyExists", self.states.start_execution, **{**start, "input": "{}"})
        self.states.stop_execution(executionArn=first["executionArn"])
        self.assertRefused("ExecutionAlreadyExists", self.states.start_execution, **start)

    def machine(self, definition: dict) -> str:
        role = client("iam").get_role(RoleName=self.outputs["FirstRole"])["Role"]["Arn"]
        return self.states.create_state_machine(name=fresh("machine"), roleArn=role,
                                                definition=json.dumps(definition))["stateMachineArn"]

    def test_a_machines_own_timeout_ends_it(self):
        machine = self.machine({"StartAt": "Long", "TimeoutSeconds": 1, "States": {
            "Long": {"Type": "Wait", "Seconds": 60, "End": True}}})
        execution = self.states.start_execution(stateMachineArn=machine)["executionArn"]
        self.assertEqual("TIMED_OUT", self.end(execution)["status"])
        last = self.states.get_execution_history(executionArn=execution, reverseOrder=True)["events"][0]
        self.assertEqual("ExecutionTimedOut", last["type"])

    def test_a_path_that_leads_nowhere_is_an_error_and_null_is_present(self):
        done = {"Type": "Succeed"}
        wrong = {"Type": "Fail", "Error": "Wrong"}
        for expected, states in (
            ("States.ParameterPathFailure", {"First": {"Type": "Pass", "Parameters": {"a.$": "$.no"}, "End": True}}),
            ("States.Runtime", {"First": {"Type": "Wait", "TimestampPath": "$.no", "End": True}}),
            ("States.Runtime", {"First": {"Type": "Wait", "TimestampPath": "$.null", "End": True}}),
            ("States.Runtime", {"First": {"Type": "Choice", "Default": "Done", "Choices": [
                {"Variable": "$.no", "StringEquals": "x", "Next": "Done"}]}, "Done": done}),
            (None, {"First": {"Type": "Choice", "Default": "Wrong", "Choices": [
                {"And": [{"Variable": "$.null", "IsPresent": True}, {"Variable": "$.null", "IsNull": True},
                         {"Variable": "$.list[0].a", "IsPresent": True}, {"Variable": "$.no.x", "IsPresent": False},
                         {"Not": {"And": [{"Variable": "$.no", "IsPresent": True},
                                          {"Variable": "$.no", "StringEquals": "x"}]}}],
                 "Next": "Done"}]}, "Done": done, "Wrong": wrong}),
            (None, {"First": {"Type": "Pass", "Parameters": {"a.$": "$.null", "b.$": "$.list[*].a", "c.$": "$"},
                              "End": True}}),
        ):
            execution = self.states.start_execution(
                stateMachineArn=self.machine({"StartAt": "First", "States": states}),
                input=json.dumps({"null": None, "list": [{"a": 1}]}))["executionArn"]
            found = self.end(execution)
            self.assertEqual(expected, found.get("error"), (states, found.get("cause")))

    def test_a_repeated_start_that_waits_is_another_one_and_is_refused_by_its_name(self):
        child = self.machine({"StartAt": "Long", "States": {"Long": {"Type": "Wait", "Seconds": 60, "End": True}}})
        known = "StepFunctions.ExecutionAlreadyExistsException"
        machine = self.machine({"StartAt": "Start", "States": {
            "Start": {"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.waitForTaskToken",
                      "Parameters": {"StateMachineArn": child, "Name": fresh("child"),
                                     "Input": {"token.$": "$$.Task.Token"}},
                      "TimeoutSeconds": 1,
                      "Retry": [{"ErrorEquals": [known], "MaxAttempts": 0},
                                {"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 1, "MaxAttempts": 1}],
                      "Catch": [{"ErrorEquals": [known], "Next": "Known"}], "End": True},
            "Known": {"Type": "Succeed"}}})
        found = self.end(self.states.start_execution(stateMachineArn=machine)["executionArn"])
        self.assertEqual("SUCCEEDED", found["status"], found.get("cause"))

    def test_changing_the_wait_scale_ends_a_wait_under_way(self):
        machine = self.machine({"StartAt": "Long", "States": {"Long": {"Type": "Wait", "Seconds": 3600, "End": True}}})
        execution = self.states.start_execution(stateMachineArn=machine)["executionArn"]
        time.sleep(0.5)
        self.addCleanup(admin, "POST", "/_ministack/config", {"stepfunctions._SFN_WAIT_SCALE": "1"})
        admin("POST", "/_ministack/config", {"stepfunctions._SFN_WAIT_SCALE": "0"})
        self.assertEqual("SUCCEEDED", self.end(execution)["status"])

    def test_a_wait_until_a_moment_lasts_until_then_whatever_the_scale(self):
        machine = self.machine({"StartAt": "Until", "States": {
            "Until": {"Type": "Wait", "TimestampPath": "$.until", "End": True}}})
        self.addCleanup(admin, "POST", "/_ministack/config", {"stepfunctions._SFN_WAIT_SCALE": "1"})
        admin("POST", "/_ministack/config", {"stepfunctions._SFN_WAIT_SCALE": "0"})
        until = time.time() + 2
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
        execution = self.states.start_execution(
            stateMachineArn=machine, input=json.dumps({"until": moment}))["executionArn"]
        self.assertEqual("SUCCEEDED", self.end(execution)["status"])
        self.assertGreaterEqual(time.time(), int(until))

    def test_types_the_emulator_does_not_know_deploy(self):
        folder = Path(tempfile.mkdtemp(prefix="bootstraps-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "template.yaml").write_text(EXTRA_TYPES)
        done = deploy(folder, fresh("extra"), folder / "template.yaml")
        self.assertEqual(0, done.returncode, done.stderr)
        secret = json.loads((folder / "outputs.json").read_text())["SecretArn"]
        self.assertRefused("ResourceNotFoundException", client("secretsmanager").get_secret_value, SecretId=secret)

    def test_a_bus_event_starts_the_machine(self):
        mark = fresh("mark")
        client("events").put_events(Entries=[{
            "Source": "sample.starter", "DetailType": "start", "EventBusName": self.outputs["BusName"],
            "Detail": json.dumps({"until": "2020-01-01T00:00:00Z", "branch": mark})}])

        def started():
            for item in self.states.list_executions(stateMachineArn=self.outputs["MachineArn"])["executions"]:
                found = self.states.describe_execution(executionArn=item["executionArn"])
                if mark in found["input"]:
                    return found
            return None
        wait_for(started)

    def test_a_functions_lines_and_role_are_its_own(self):
        self.end(self.start(branch="go"))
        lines = wait_for(lambda: client("logs").filter_log_events(
            logGroupName=f"/aws/lambda/sample-{self.stage}-first", filterPattern="called")["events"])
        self.assertIn(f"sample-{self.stage}-first", lines[0]["message"])
        policies = client("iam").list_role_policies(RoleName=self.outputs["FirstRole"])["PolicyNames"]
        self.assertTrue(policies)

    def test_parallel_and_map_keep_each_branchs_context(self):
        role = client("iam").get_role(RoleName=self.outputs["FirstRole"])["Role"]["Arn"]
        branches = [{"StartAt": f"Branch{number}", "States": {f"Branch{number}": {
            "Type": "Task", "Resource": self.outputs["FirstAlias"],
            "Parameters": {"state.$": "$$.State.Name", "sleep": 0.2}, "ResultSelector": {"state.$": "$.event.state"},
            "End": True}}} for number in range(3)]
        machine = self.states.create_state_machine(name=fresh("wide"), roleArn=role, definition=json.dumps({
            "StartAt": "Both", "States": {
                "Both": {"Type": "Parallel", "Branches": branches, "ResultPath": "$.parallel", "Next": "Each"},
                "Each": {"Type": "Map", "ItemsPath": "$.items", "MaxConcurrency": 2, "ResultPath": "$.mapped",
                         "ItemProcessor": {"StartAt": "One", "States": {"One": {
                             "Type": "Pass", "Parameters": {"value.$": "$"}, "End": True}}}, "End": True}}}
        ))["stateMachineArn"]
        execution = self.states.start_execution(stateMachineArn=machine, input=json.dumps({"items": [1, 2]}))
        output = json.loads(self.end(execution["executionArn"])["output"])
        self.assertEqual([{"state": f"Branch{number}"} for number in range(3)], output["parallel"])
        self.assertEqual([{"value": 1}, {"value": 2}], output["mapped"])


if __name__ == "__main__":
    unittest.main()

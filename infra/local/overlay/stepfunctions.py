"""Step Functions: stopping really stops, and a repeated start is recognised.

Restored: StopExecution ends a wait or a retry's pause at once, starts no
further attempt, and the execution stays ABORTED whatever a Lambda in flight
then answers (as in AWS, that Lambda runs to its end). StartExecution with the
name and input of a running execution succeeds and starts nothing. Parallel
branches each see their own state and task token in the context object. A
machine's TimeoutSeconds ends it as TIMED_OUT (counted on the clock, which the
wait scale does not touch). A change of the wait scale also reaches the waits
under way. A wait until a moment lasts until that moment whatever the scale: a
Lambda that compares clocks would find itself too early. A path that leads nowhere fails the execution instead of standing for
null, and IsPresent is true of a field that is null. Each attempt at a task that waits for its answer has a token of its
own: with the first one's, a start that is repeated would be the start of the same execution again, which has given its
answer already. A start that is refused has the name that the integration gives it.
"""

import contextvars
import json
import threading
import time
from datetime import datetime, timezone

from ministack.core.responses import json_response, new_uuid
from ministack.services import stepfunctions as sfn

from overlay import patching

_POLL_SECONDS = 0.2
_LONGEST_TIMER = 86_400


class _Aborted(BaseException):
    """Unwinds a stopped execution's thread past every Retry and Catch."""


_execution: contextvars.ContextVar[dict | None] = contextvars.ContextVar("keywheel_execution", default=None)
_stops: dict[int, threading.Event] = {}


def _stop_event(execution: dict) -> threading.Event:
    return _stops.setdefault(id(execution), threading.Event())


def _check() -> None:
    execution = _execution.get()
    if execution is not None and execution["status"] != "RUNNING":
        raise _Aborted


def stop_all() -> None:
    """End every wait, for a reset: threads of a wiped emulator would else sleep on."""
    for event in list(_stops.values()):
        event.set()


def _scaled_sleep(seconds: float) -> None:
    """Sleep in the scale's time, ended by a stop and following a change of scale."""
    execution = _execution.get()
    if execution is None:
        _original["scaled_sleep"](seconds)
        return
    _check()
    stopped = _stop_event(execution)
    left = float(seconds)
    while left > 0:
        scale = sfn._SFN_WAIT_SCALE
        if scale <= 0:
            break
        pause = min(left * scale, _POLL_SECONDS)
        began = time.monotonic()
        if stopped.wait(pause):
            raise _Aborted
        left -= (time.monotonic() - began) / scale
    _check()


def _sleep_until(moment: str) -> None:
    """Sleep until a moment on the clock, ended by a stop."""
    execution = _execution.get()
    until = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    while True:
        left = (until - datetime.now(timezone.utc)).total_seconds()
        if left <= 0:
            return
        _check()
        if execution is None:
            time.sleep(min(left, _POLL_SECONDS))
        elif _stop_event(execution).wait(left):
            raise _Aborted


def _invoke_resource(resource: str, input_data):
    """No further attempt for an execution that was stopped."""
    _check()
    return _original["invoke_resource"](resource, input_data)


def _invoke_with_callback(resource: str, input_data, token: str, state_def: dict):
    """Another token for each attempt; the emulator has one for the whole state."""
    _check()
    fresh = new_uuid()
    renewed = json.loads(json.dumps(input_data).replace(token, fresh))
    return _original["invoke_with_callback"](resource, renewed, fresh, state_def)


def _invoke_nested_start_execution(resource: str, input_data):
    """`StepFunctions.ExecutionAlreadyExistsException`, where the API says `ExecutionAlreadyExists`."""
    try:
        return _original["nested_start"](resource, input_data)
    except sfn._ExecutionError as error:
        name = f"StepFunctions.{error.error.removesuffix('Exception')}Exception"
        raise sfn._ExecutionError(name, error.cause) from None


def _run_sub_machine(states: dict, start_at: str, input_data, execution: dict, ctx: dict):
    """Own State and Task entries for each branch: the emulator shares one context among all."""
    try:
        return _original["run_sub_machine"](states, start_at, input_data, execution, dict(ctx))
    except _Aborted:
        return None  # the parent looks at the execution's status next


def _run_execution(execution_arn: str) -> None:
    execution = sfn._executions.get(execution_arn)
    if execution is None:
        return
    _execution.set(execution)
    timer = _timer(execution)
    try:
        _original["run_execution"](execution_arn)
    except _Aborted:
        pass
    finally:
        if timer is not None:
            timer.cancel()
        _stops.pop(id(execution), None)


def _timer(execution: dict) -> threading.Timer | None:
    """Ends the execution when the machine's own TimeoutSeconds have passed."""
    machine = sfn._state_machines.get(execution["stateMachineArn"]) or {}
    try:
        seconds = json.loads(machine.get("definition") or "{}").get("TimeoutSeconds")
    except ValueError:
        return None
    # A thread that waits for months is no use: the emulator does not live that long.
    if not isinstance(seconds, (int, float)) or seconds > _LONGEST_TIMER:
        return None
    timer = threading.Timer(seconds, contextvars.copy_context().run, (_time_out, execution))
    timer.daemon = True
    timer.start()
    return timer


def _time_out(execution: dict) -> None:
    if execution["status"] != "RUNNING":
        return
    execution["status"], execution["stopDate"] = "TIMED_OUT", sfn.now_iso()
    sfn._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
    sfn._emit_execution_status_event(execution)
    _stop_event(execution).set()


def _fail_execution(execution: dict, error: str, cause: str) -> None:
    """A failure after a stop changes nothing: ABORTED is an end."""
    if execution["status"] == "RUNNING":
        _original["fail_execution"](execution, error, cause)


def _add_event(execution: dict, event_type: str, details: dict | None = None) -> dict:
    """History ends with the event that ended the execution; each event names the one before it."""
    if execution.get("_history_closed"):
        return {}
    event = _original["add_event"](execution, event_type, details)
    event["previousEventId"] = event["id"] - 1
    if event_type in ("ExecutionAborted", "ExecutionFailed", "ExecutionSucceeded", "ExecutionTimedOut"):
        execution["_history_closed"] = True
    return event


def _stop_execution(data: dict) -> tuple:
    reply = _original["stop_execution"](data)
    execution = sfn._executions.get(data.get("executionArn"))
    if execution is not None and execution["status"] == "ABORTED":
        event = _stops.get(id(execution))
        if event is not None:
            event.set()
    return reply


def _leads_somewhere(path: str, data, ctx: dict | None) -> bool:
    """Whether a plain path (fields and indices) finds a value, null included."""
    if path.startswith("$$."):
        path, data = path[1:], ctx or {}
    for kind, name in sfn._parse_jsonpath_tokens(path) or ():
        if kind == "field" and isinstance(data, dict) and name in data:
            data = data[name]
        elif kind == "index" and isinstance(data, list) and name < len(data):
            data = data[name]
        else:
            return kind == "wildcard"  # what lies behind one is a list, maybe empty
    return True


def _evaluate_rule(rule: dict, data, ctx: dict | None = None) -> bool:
    """A rule on a missing field is an error, unless it asks whether the field is there."""
    variable = rule.get("Variable")
    if variable is not None:
        there = _leads_somewhere(variable, data, ctx)
        if "IsPresent" in rule:
            return there == rule["IsPresent"]
        if not there:
            raise sfn._ExecutionError("States.Runtime", f"Invalid path '{variable}': The choice state's condition "
                                      "path references an invalid value.")
    return _original["evaluate_rule"](rule, data, ctx)


def _resolve_params_obj(template, data, ctx: dict | None = None):
    """A parameter's path that leads nowhere fails the state."""
    if isinstance(template, dict):
        for key, path in template.items():
            if key.endswith(".$") and isinstance(path, str) and path.startswith("$") and not _leads_somewhere(
                    path, data, ctx):
                raise sfn._ExecutionError("States.ParameterPathFailure", f"The JSONPath '{path}' specified for the "
                                          f"field '{key}' could not be found in the input.")
    return _original["resolve_params_obj"](template, data, ctx)


def _execute_wait(state_def: dict, raw_input, ctx: dict | None = None):
    """A Wait without the moment or the number it waits for fails instead of passing."""
    for name, fits in (("TimestampPath", sfn._is_timestamp), ("SecondsPath", sfn._is_num)):
        if name in state_def:
            value = sfn._resolve_path(state_def[name], sfn._apply_input_path(state_def, raw_input, ctx))
            if not fits(value):
                raise sfn._ExecutionError("States.Runtime", f"The {name} parameter does not reference a valid value: "
                                          f"{state_def[name]}")
    return _original["execute_wait"](state_def, raw_input, ctx)


def _start_execution(data: dict) -> tuple:
    """The same name and input as a running execution: that one's ARN and start date."""
    base = sfn._resolve_state_machine_arn(data.get("stateMachineArn", "").partition("#")[0])
    name = data.get("name")
    if base is not None and name:
        arn = f"{base.replace(':stateMachine:', ':execution:')}:{name}"
        running = sfn._executions.get(arn)
        if (running is not None and running["status"] == "RUNNING"
                and running["input"] == data.get("input", "{}")):
            return json_response({"executionArn": arn, "startDate": running["startDate"]})
    return _original["start_execution"](data)


_original: dict = {}


def apply() -> None:
    """Put the functions above in place."""
    for label, name, new, expected in (
        ("scaled_sleep", "_scaled_sleep", _scaled_sleep, "5ed19df2efa9"),
        ("sleep_until", "_sleep_until", _sleep_until, "2738e0a4030c"),
        ("invoke_resource", "_invoke_resource", _invoke_resource, "a85d2be9a858"),
        ("invoke_with_callback", "_invoke_with_callback", _invoke_with_callback, "bbb38423156a"),
        ("nested_start", "_invoke_nested_start_execution", _invoke_nested_start_execution, "fc2b83eed27a"),
        ("run_sub_machine", "_run_sub_machine", _run_sub_machine, "f8d844168b14"),
        ("run_execution", "_run_execution", _run_execution, "996dff84e0e0"),
        ("fail_execution", "_fail_execution", _fail_execution, "e6da895fa0b7"),
        ("add_event", "_add_event", _add_event, "b1db143ccd21"),
        ("stop_execution", "_stop_execution", _stop_execution, "44d2d84ccd5c"),
        ("evaluate_rule", "_evaluate_rule", _evaluate_rule, "728e6547c8ca"),
        ("resolve_params_obj", "_resolve_params_obj", _resolve_params_obj, "d41c2e27dd1b"),
        ("execute_wait", "_execute_wait", _execute_wait, "a1012679c72d"),
        ("start_execution", "_start_execution", _start_execution, "9923282fc76c"),
    ):
        _original[label] = patching.replace(sfn, name, new, expected)
    patching.relies_on(sfn, "handle_request", "efa6e8c4532a")
    patching.relies_on(sfn, "_execute_task", "53c818d247db")

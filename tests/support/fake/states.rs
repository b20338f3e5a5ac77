//! Step Functions and the parameter store.

use keywheel::RunId;
use serde_json::{Value, json};

use super::account::{Execution, TaskAnswer};
use super::state::State;
use super::wire::{Answer, Body, Request, refuse};

impl State {
    pub(super) fn step_functions(&mut self, request: &Request) -> Answer {
        match request.action.as_str() {
            "StartExecution" => self.start_execution(request),
            "ListExecutions" => Ok(self.list_executions(request)),
            "DescribeExecution" => self.describe_execution(request),
            "GetExecutionHistory" => self.history(request),
            "StopExecution" => self.stop_execution(request),
            "SendTaskSuccess" | "SendTaskFailure" => self.answer_task(request),
            _ => self.unknown(request),
        }
    }

    /// The ARN of a machine of this installation, such as `rotation`.
    pub fn machine(&self, name: &str) -> String {
        let stage = crate::functions::STAGE;
        format!(
            "arn:{}:states:{}:{}:stateMachine:keywheel-{stage}-{name}",
            self.partition, self.region, self.account
        )
    }

    /// Starts an execution, to be walked by whoever asks for it. The name is taken for 90 days, which is longer
    /// than any test; while it runs, the same input is as good as the first.
    fn start_execution(&mut self, request: &Request) -> Answer {
        let (machine, name) = (request.text("stateMachineArn"), request.text("name"));
        let known = ["rotation", "emergency", "incident", "fleet", "unused"];
        if !known.iter().any(|known| self.machine(known) == machine) {
            return refuse("StateMachineDoesNotExist", format!("State Machine Does Not Exist: '{machine}'"));
        }
        let input = request.text("input");
        if serde_json::from_str::<Value>(input).is_err() {
            return refuse("InvalidExecutionInput", "Invalid State Machine Execution Input");
        }
        if name.is_empty() || name.len() > 80 {
            return refuse("InvalidName", format!("Invalid Name: '{name}'"));
        }
        let arn = format!("{}:{name}", machine.replacen(":stateMachine:", ":execution:", 1));
        let started = match self.executions.get(&arn) {
            Some(known) if known.status == "RUNNING" && known.input == input => known.started,
            Some(_) => {
                let message = format!("Execution Already Exists: '{arn}'");
                return refuse("ExecutionAlreadyExists", message);
            }
            None => {
                self.to_walk.push(arn.clone());
                self.note_started(&arn, input.to_owned());
                self.now()
            }
        };
        Ok(Body::Json(json!({"executionArn": arn, "startDate": started.as_duration().as_secs_f64()})))
    }

    /// A machine's executions, all or those of one status, the newest first.
    fn list_executions(&self, request: &Request) -> Body {
        let machine = request.text("stateMachineArn");
        let prefix = format!("{}:", machine.replacen(":stateMachine:", ":execution:", 1));
        let status = request.text("statusFilter");
        let asked = |execution: &&Execution| {
            execution.arn.starts_with(&prefix) && (status.is_empty() || execution.status == status)
        };
        let mut found: Vec<&Execution> = self.executions.values().filter(asked).collect();
        found.sort_by_key(|execution| std::cmp::Reverse(execution.started));
        let most = request.params["maxResults"].as_u64().and_then(|most| most.try_into().ok()).unwrap_or(100);
        let from: usize = request.text("nextToken").parse().unwrap_or(0);
        let to = (from + most).min(found.len());
        let rows: Vec<Value> = found[from.min(to)..to]
            .iter()
            .map(|execution| {
                json!({
                    "executionArn": execution.arn,
                    "stateMachineArn": machine,
                    "name": execution.arn.strip_prefix(&prefix),
                    "status": execution.status,
                    "startDate": execution.started.as_duration().as_secs_f64(),
                })
            })
            .collect();
        let mut reply = json!({"executions": rows});
        if to < found.len() {
            reply["nextToken"] = to.to_string().into();
        }
        Body::Json(reply)
    }

    fn describe_execution(&self, request: &Request) -> Answer {
        let arn = request.text("executionArn");
        let Some(execution) = self.executions.get(arn) else { return no_execution(arn) };
        let (machine, name) = arn.rsplit_once(':').unwrap();
        let mut reply = json!({
            "executionArn": arn,
            "stateMachineArn": machine.replacen(":execution:", ":stateMachine:", 1),
            "name": name,
            "status": execution.status,
            "startDate": execution.started.as_second(),
            "input": execution.input,
        });
        // One that failed or was stopped has left none.
        if let Some(output) = execution.output.as_ref().filter(|_| execution.status == "SUCCEEDED") {
            reply["output"] = output.clone().into();
        }
        if let Some(stopped) = execution.stopped {
            reply["stopDate"] = stopped.as_second().into();
        }
        Ok(Body::Json(reply))
    }

    /// The state that an execution has entered last, with the document that it was given: as much of a history as is asked
    /// for here.
    fn history(&self, request: &Request) -> Answer {
        let arn = request.text("executionArn");
        let Some(execution) = self.executions.get(arn) else { return no_execution(arn) };
        if request.params["reverseOrder"] != true {
            return refuse("ValidationException", "the fake knows the end of a history only");
        }
        let event = |(state, input): &(String, Value)| {
            json!({
                "timestamp": execution.started.as_second(),
                "type": "TaskStateEntered",
                "id": 2,
                "previousEventId": 1,
                "stateEnteredEventDetails": {"name": state, "input": input.to_string()},
            })
        };
        let events: Vec<Value> = execution.entered.iter().map(event).collect();
        Ok(Body::Json(json!({"events": events})))
    }

    /// Notes the state that an execution enters.
    pub fn execution_enters(&mut self, arn: &str, state: &str, input: &Value) {
        if let Some(execution) = self.executions.get_mut(arn) {
            execution.entered = Some((state.to_owned(), input.clone()));
        }
    }

    fn stop_execution(&mut self, request: &Request) -> Answer {
        let arn = request.text("executionArn");
        let now = self.now();
        let Some(status) = self.executions.get(arn).map(|execution| execution.status.as_str()) else {
            return no_execution(arn);
        };
        // One that came to an end by itself is no longer there to be stopped; stopping twice is as good as once.
        if !["RUNNING", "ABORTED"].contains(&status) {
            return refuse("ValidationException", "Execution is not running");
        }
        self.stop(arn);
        Ok(Body::Json(json!({"stopDate": now.as_second()})))
    }

    /// Stops an execution that runs; false where it does not. A step of it that is at work goes on.
    pub fn stop(&mut self, arn: &str) -> bool {
        let now = self.now();
        let running = self.executions.get_mut(arn).filter(|execution| execution.status == "RUNNING");
        running
            .map(|execution| {
                "ABORTED".clone_into(&mut execution.status);
                execution.stopped = Some(now);
            })
            .is_some()
    }

    fn answer_task(&mut self, request: &Request) -> Answer {
        let token = request.text("taskToken");
        if !self.tokens.remove(token) {
            return refuse("TaskDoesNotExist", "Task does not exist");
        }
        let mut body = request.params.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.remove("taskToken");
        }
        let answer = TaskAnswer { action: request.action.clone(), body };
        self.answers.entry(token.to_owned()).or_default().push(answer);
        Ok(Body::Json(json!({})))
    }

    /// Notes that an execution runs. One that was started through the service is known already.
    pub fn execution_started(&mut self, arn: &str, input: &Value) {
        if self.executions.get(arn).is_none_or(|known| known.status != "RUNNING") {
            self.note_started(arn, input.to_string());
        }
    }

    fn note_started(&mut self, arn: &str, input: String) {
        let execution = Execution {
            arn: arn.to_owned(),
            status: "RUNNING".into(),
            input,
            started: self.now(),
            stopped: None,
            output: None,
            entered: None,
        };
        self.executions.insert(arn.to_owned(), execution);
    }

    /// Notes how an execution ended; one that was stopped stays stopped.
    pub fn execution_ended(&mut self, arn: &str, status: &str, output: Option<&Value>) {
        let now = self.now();
        if let Some(execution) =
            self.executions.get_mut(arn).filter(|execution| execution.status == "RUNNING")
        {
            status.clone_into(&mut execution.status);
            execution.stopped = Some(now);
            execution.output = output.map(Value::to_string);
        }
    }

    /// The execution that a run is.
    pub fn execution_of(&self, run: RunId) -> Option<&Execution> {
        let name = run.to_string();
        self.executions.values().find(|execution| execution.arn.ends_with(&name))
    }

    /// Whether a run is at work.
    pub fn is_running(&self, run: RunId) -> bool {
        self.execution_of(run).is_some_and(|execution| execution.status == "RUNNING")
    }

    /// Whether somebody stopped the execution.
    pub fn is_stopped(&self, arn: &str) -> bool {
        self.executions.get(arn).is_some_and(|execution| execution.status == "ABORTED")
    }

    pub(super) fn ssm(&mut self, request: &Request) -> Answer {
        let name = request.text("Name");
        match request.action.as_str() {
            "GetParameter" => match self.parameters.get(name) {
                Some(value) => Ok(Body::Json(json!({"Parameter": parameter(name, value)}))),
                None => refuse("ParameterNotFound", ""),
            },
            "GetParameters" => {
                let names: Vec<&str> = request.params["Names"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                if !(1..=10).contains(&names.len()) {
                    return refuse("ValidationException", "1 to 10 names");
                }
                let (known, unknown): (Vec<&str>, Vec<&str>) =
                    names.into_iter().partition(|name| self.parameters.contains_key(*name));
                let known: Vec<Value> =
                    known.into_iter().map(|name| parameter(name, &self.parameters[name])).collect();
                Ok(Body::Json(json!({"Parameters": known, "InvalidParameters": unknown})))
            }
            "PutParameter" => {
                if self.parameters.contains_key(name) && request.params["Overwrite"] != true {
                    return refuse("ParameterAlreadyExists", "The parameter already exists.");
                }
                let value = request.text("Value").to_owned();
                self.parameters.insert(name.to_owned(), value);
                Ok(Body::Json(json!({"Version": 1, "Tier": "Standard"})))
            }
            _ => self.unknown(request),
        }
    }
}

fn parameter(name: &str, value: &str) -> Value {
    json!({"Name": name, "Type": "String", "Value": value, "Version": 1, "DataType": "text"})
}

fn no_execution(arn: &str) -> Answer {
    refuse("ExecutionDoesNotExist", format!("Execution Does Not Exist: '{arn}'"))
}

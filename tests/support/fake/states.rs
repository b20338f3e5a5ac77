//! Step Functions and the parameter store.

use serde_json::{Value, json};

use super::account::{Execution, TaskAnswer};
use super::state::State;
use super::wire::{Answer, Body, Request, refuse};

impl State {
    pub(super) fn step_functions(&mut self, request: &Request) -> Answer {
        match request.action.as_str() {
            "DescribeExecution" => self.describe_execution(request),
            "StopExecution" => self.stop_execution(request),
            "SendTaskSuccess" | "SendTaskFailure" => self.answer_task(request),
            _ => self.unknown(request),
        }
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
        if let Some(output) = &execution.output {
            reply["output"] = output.clone().into();
        }
        Ok(Body::Json(reply))
    }

    fn stop_execution(&mut self, request: &Request) -> Answer {
        let arn = request.text("executionArn");
        let now = self.now();
        let Some(execution) = self.executions.get_mut(arn) else { return no_execution(arn) };
        // Stopping one that has ended is accepted and does nothing.
        if execution.status == "RUNNING" {
            "ABORTED".clone_into(&mut execution.status);
        }
        Ok(Body::Json(json!({"stopDate": now.as_second()})))
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

    /// Notes that an execution runs.
    pub fn execution_started(&mut self, arn: &str, input: &Value) {
        let execution = Execution {
            arn: arn.to_owned(),
            status: "RUNNING".into(),
            input: input.to_string(),
            started: self.now(),
            output: None,
        };
        self.executions.insert(arn.to_owned(), execution);
    }

    /// Notes how an execution ended; one that was stopped stays stopped.
    pub fn execution_ended(&mut self, arn: &str, status: &str, output: Option<&Value>) {
        if let Some(execution) =
            self.executions.get_mut(arn).filter(|execution| execution.status == "RUNNING")
        {
            status.clone_into(&mut execution.status);
            execution.output = output.map(Value::to_string);
        }
    }

    /// Whether somebody stopped the execution.
    pub fn is_stopped(&self, arn: &str) -> bool {
        self.executions.get(arn).is_some_and(|execution| execution.status == "ABORTED")
    }

    pub(super) fn ssm(&mut self, request: &Request) -> Answer {
        if request.action != "GetParameter" {
            return self.unknown(request);
        }
        let name = request.text("Name");
        match self.parameters.get(name) {
            Some(value) => Ok(Body::Json(
                json!({"Parameter": {"Name": name, "Type": "String", "Value": value, "Version": 1, "DataType": "text"}}),
            )),
            None => refuse("ParameterNotFound", ""),
        }
    }
}

fn no_execution(arn: &str) -> Answer {
    refuse("ExecutionDoesNotExist", format!("Execution Does Not Exist: '{arn}'"))
}

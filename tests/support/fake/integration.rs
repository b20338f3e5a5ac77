//! What a machine asks of a service itself, without a Lambda between.

use serde_json::{Value, json};

use super::Fake;
use super::wire::{Answer, Body, Request};
use crate::faults::Kind;
use crate::functions::Failure;
use crate::invariants;

impl Fake {
    /// `states:startExecution`, with the parameters that the state gives. A fault hits it as it would a Lambda's
    /// call, and the errors have the names that the integration gives them.
    pub async fn start_execution(&self, state: &str, parameters: &Value) -> Result<Value, Failure> {
        let fault = match self.start_now(state, parameters) {
            Ok(result) => return result,
            Err(fault) => fault,
        };
        let error = match fault {
            Kind::Refused => "StepFunctions.AccessDeniedException",
            Kind::Throttled => "StepFunctions.ThrottlingException",
            Kind::TimeoutBefore | Kind::TimeoutAfter => return std::future::pending().await,
            _ => "StepFunctions.SdkClientException",
        };
        Err(Failure { error: error.into(), cause: "the fake's own failure".into() })
    }

    fn start_now(&self, state_name: &str, parameters: &Value) -> Result<Result<Value, Failure>, Kind> {
        let request = Request::of_machine(
            "states",
            "StartExecution",
            json!({
                "stateMachineArn": parameters["StateMachineArn"],
                "name": parameters["Name"],
                "input": parameters["Input"].to_string(),
            }),
        );
        Ok(match self.ask(state_name, &request)? {
            Ok(Body::Json(reply)) => {
                Ok(json!({"ExecutionArn": reply["executionArn"], "StartDate": reply["startDate"]}))
            }
            Ok(other) => panic!("Step Functions answers in JSON, not {other:?}"),
            Err(refusal) => {
                let code = &refusal.code;
                let name =
                    if code.ends_with("Exception") { code.clone() } else { format!("{code}Exception") };
                Err(Failure { error: format!("StepFunctions.{name}"), cause: refusal.message })
            }
        })
    }

    /// `s3:getObject` for a Map's reader, with the parameters that the state gives. Whatever goes wrong has one name.
    pub fn read_items(&self, state: &str, parameters: &Value) -> Result<String, Failure> {
        let request = Request::of_machine("s3", "GetObject", parameters.clone());
        let failed = |cause: String| Failure { error: "States.ItemReaderFailed".into(), cause };
        match self.ask(state, &request) {
            Ok(Ok(Body::Object(text, _))) => Ok(text),
            Ok(Ok(other)) => panic!("S3 answers with an object, not {other:?}"),
            Ok(Err(refusal)) => Err(failed(format!("{}: {}", refusal.code, refusal.message))),
            Err(fault) => Err(failed(format!("the fake's own failure: {fault:?}"))),
        }
    }

    /// What the service answers, or the fault that hit the call.
    fn ask(&self, state_name: &str, request: &Request) -> Result<Answer, Kind> {
        let mut state = self.state();
        let before = invariants::Before::of(&state);
        let name = request.name();
        let fault = state
            .plan
            .strike(&name, Some(state_name))
            .or_else(|| state.standing.strike(&name, Some(state_name)));
        let mut call = state.record(request, None, fault);
        call.state = Some(state_name.to_owned());
        state.calls[call.index].state.clone_from(&call.state);
        let happens = matches!(
            fault,
            None | Some(Kind::LostAfter | Kind::GarbledAfter | Kind::TimeoutAfter | Kind::KilledAfter)
        );
        if !happens {
            return Err(fault.unwrap_or(Kind::Refused));
        }
        let answer = if request.service == "s3" { state.s3(request) } else { state.step_functions(request) };
        state.calls[call.index].status = answer.as_ref().map_or_else(|refusal| refusal.status, |_| 200);
        state.calls[call.index].code = answer.as_ref().err().map(|refusal| refusal.code.clone());
        invariants::after_call(&mut state, request, &call, &before);
        match fault {
            Some(fault) => Err(fault),
            None => Ok(answer),
        }
    }
}

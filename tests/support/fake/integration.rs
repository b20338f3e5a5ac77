//! What a machine asks of a service itself, without a Lambda between.

use serde_json::{Value, json};

use super::Fake;
use super::wire::{Body, Request};
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
            "StartExecution",
            json!({
                "stateMachineArn": parameters["StateMachineArn"],
                "name": parameters["Name"],
                "input": parameters["Input"].to_string(),
            }),
        );
        let mut state = self.state();
        let before = invariants::Before::of(&state);
        let name = request.name();
        let fault = state
            .plan
            .strike(&name, Some(state_name))
            .or_else(|| state.standing.strike(&name, Some(state_name)));
        let mut call = state.record(&request, None, fault);
        call.state = Some(state_name.to_owned());
        state.calls[call.index].state.clone_from(&call.state);
        let happens = matches!(
            fault,
            None | Some(Kind::LostAfter | Kind::GarbledAfter | Kind::TimeoutAfter | Kind::KilledAfter)
        );
        if !happens {
            return Err(fault.unwrap_or(Kind::Refused));
        }
        let answer = state.step_functions(&request);
        state.calls[call.index].status = answer.as_ref().map_or_else(|refusal| refusal.status, |_| 200);
        state.calls[call.index].code = answer.as_ref().err().map(|refusal| refusal.code.clone());
        invariants::after_call(&mut state, &request, &call, &before);
        if let Some(fault) = fault {
            return Err(fault);
        }
        Ok(match answer {
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
}

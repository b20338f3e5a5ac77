//! What the template has put there: the machines, whether they are those that this command knows, and the buses.

use aws_sdk_sfn::types::StateMachineStatus;
use keywheel::StepError;
use serde_json::Value;

use super::{Check, list};
use crate::place::Place;

/// The machines as they were when this command was built.
const KNOWN: [(&str, &str); 4] = [
    ("rotation", include_str!("../../../statemachine/rotation.asl.json")),
    ("emergency", include_str!("../../../statemachine/emergency.asl.json")),
    ("incident", include_str!("../../../statemachine/incident.asl.json")),
    ("fleet", include_str!("../../../statemachine/fleet.asl.json")),
];

/// What has become of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There is none, or it is being deleted.
    Gone,
    /// It does what this command expects.
    Same,
    /// It is another release's, or was changed.
    Other,
}

/// A machine of the installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) name: &'static str,
    pub(super) state: State,
}

/// Looks at every machine.
pub(super) async fn machines(place: &Place) -> Result<Vec<Machine>, StepError> {
    let incidents = place.incidents();
    let arns = [&place.machine, &place.emergency, &incidents, &place.fleet];
    let mut machines = Vec::new();
    for ((name, known), arn) in KNOWN.into_iter().zip(arns) {
        let state = match place.sfn().describe_state_machine().state_machine_arn(arn).send().await {
            Ok(told) if told.status() == Some(&StateMachineStatus::Deleting) => State::Gone,
            Ok(told) if is_same(known, told.definition()) => State::Same,
            Ok(_) => State::Other,
            Err(error) => {
                let error = StepError::from_sdk("states:DescribeStateMachine", &error);
                if !error.is_refused(&["StateMachineDoesNotExist"]) {
                    return Err(error);
                }
                State::Gone
            }
        };
        machines.push(Machine { name, state });
    }
    Ok(machines)
}

/// Whether a definition is the known one, with something in each place that the template fills.
fn is_same(known: &str, there: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    matches!((read(known), read(there)), (Some(known), Some(there)) if fits(&known, &there))
}

fn fits(known: &Value, there: &Value) -> bool {
    match (known, there) {
        (Value::String(known), Value::String(_)) if known.starts_with("${") => true,
        (Value::Object(known), Value::Object(there)) => {
            let field =
                |(name, value): (&String, &Value)| there.get(name).is_some_and(|there| fits(value, there));
            known.len() == there.len() && known.iter().all(field)
        }
        (Value::Array(known), Value::Array(there)) => {
            known.len() == there.len() && known.iter().zip(there).all(|(known, there)| fits(known, there))
        }
        // On its way through CloudFormation a 2 may become a 2.0.
        (Value::Number(known), Value::Number(there)) => known.as_f64() == there.as_f64(),
        (known, there) => known == there,
    }
}

/// Whether each machine is there, and whether they are those of this release.
pub(super) fn checks(machines: &[Machine]) -> Vec<Check> {
    let with = |state: State| -> Vec<&str> {
        machines.iter().filter(|machine| machine.state == state).map(|machine| machine.name).collect()
    };
    let (gone, other) = (with(State::Gone), with(State::Other));
    let version = env!("CARGO_PKG_VERSION");
    let there = if gone.is_empty() {
        Check::good("machines", "every machine is there")
    } else {
        Check::bad(
            "machines",
            format!("there is no machine for {}", list(&gone)),
            "Deploy infra/template.yaml, or check --region, --profile and --stage.",
        )
    };
    let same = if other.is_empty() {
        Check::good("versions", format!("the machines are those of version {version}"))
    } else {
        Check::bad(
            "versions",
            format!("not as version {version}, which this command is, knows them: {}", list(&other)),
            "Deploy infra/template.yaml of this version, or use the command of the version that is deployed.",
        )
    };
    // Of what is not there nobody can say which it is.
    if gone.len() == machines.len() { vec![there] } else { vec![there, same] }
}

/// The buses of the installation, and whether each is there.
pub(super) async fn buses(place: &Place) -> Result<Vec<(String, bool)>, StepError> {
    let mut buses = Vec::new();
    for bus in [format!("keywheel-{}", place.stage), place.leaks.clone()] {
        let there = match place.events(&place.region).describe_event_bus().name(&bus).send().await {
            Ok(_) => true,
            Err(error) => {
                let error = StepError::from_sdk("events:DescribeEventBus", &error);
                if !error.is_refused(&["ResourceNotFoundException"]) {
                    return Err(error);
                }
                false
            }
        };
        buses.push((bus, there));
    }
    Ok(buses)
}

/// Whether the buses are there.
pub(super) fn bus(buses: &[(String, bool)]) -> Check {
    let gone: Vec<&str> = buses.iter().filter(|(_, there)| !there).map(|(bus, _)| bus.as_str()).collect();
    if gone.is_empty() {
        return Check::good("bus", "programs are told on the bus, and leaks can be reported");
    }
    Check::bad("bus", format!("there is no bus {}", list(&gone)), "Deploy infra/template.yaml again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_by_its_definition_whatever_fills_its_places() {
        for (name, known) in KNOWN {
            let filled = known.replace("${", "filled with ");
            assert!(is_same(known, &filled), "{name}");
            let mut there: Value = serde_json::from_str(known).unwrap();
            there["TimeoutSeconds"] = Value::from(1);
            assert!(!is_same(known, &there.to_string()), "{name}");
            assert!(!is_same(known, &filled.replace("\"Type\": \"Task\"", "\"Type\": \"Pass\"")), "{name}");
            assert!(!is_same(known, "{}") && !is_same(known, "nonsense"), "{name}");
        }
    }

    #[test]
    fn a_number_is_the_same_with_and_without_its_point() {
        assert!(is_same(r#"{"a": 2, "b": "${X}"}"#, r#"{"b": "arn", "a": 2.0}"#));
        assert!(!is_same(r#"{"a": 2}"#, r#"{"a": 2, "b": 1}"#));
        assert!(!is_same(r#"{"a": [1, 2]}"#, r#"{"a": [1]}"#));
    }
}

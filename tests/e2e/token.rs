//! A machine that waits on a run's task token, as a fleet does: it is answered on every way out before the overlap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sfn::types::ExecutionStatus;
use serde_json::{Value, json};

use crate::cloud::{Cloud, fresh};
use crate::run::{brief_but, new_id};
use crate::scene::Scene;

/// Makes a machine that starts a rotation and waits for its word.
pub(crate) async fn waiting_machine(cloud: &Cloud) -> String {
    let rotation = cloud.sfn.describe_state_machine().state_machine_arn(&cloud.machine).send().await.unwrap();
    let definition = json!({ "StartAt": "Rotate", "States": { "Rotate": {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution.waitForTaskToken",
        "TimeoutSeconds": 60,
        "Parameters": {
            "StateMachineArn": cloud.machine,
            "Name.$": "$.run",
            "Input": { "secret.$": "$.secret", "policy.$": "$.policy", "on_promoted.$": "$$.Task.Token" },
        },
        "End": true,
    } } });
    let call =
        cloud.sfn.create_state_machine().name(format!("e2e-{}", fresh())).role_arn(rotation.role_arn());
    call.definition(definition.to_string()).send().await.unwrap().state_machine_arn().to_owned()
}

/// What the waiting machine was told, and after how long.
async fn answer(cloud: &Arc<Cloud>, machine: &str, input: Value) -> (ExecutionStatus, String, Duration) {
    let began = Instant::now();
    let started =
        cloud.sfn.start_execution().state_machine_arn(machine).input(input.to_string()).send().await.unwrap();
    loop {
        let told =
            cloud.sfn.describe_execution().execution_arn(started.execution_arn()).send().await.unwrap();
        if *told.status() != ExecutionStatus::Running {
            let said = [told.output(), told.error(), told.cause()].map(Option::unwrap_or_default).join(" ");
            return (told.status().clone(), said, began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_waiting_machine_is_answered_before_the_overlap_and_when_blocked() {
    let Some(cloud) = Cloud::here().await else { return };
    let machine = waiting_machine(&cloud).await;
    let (scene, _) = Scene::managed(&cloud, "token").await;
    let id = new_id();
    let overlap = json!({ "overlap": "30s", "max_overlap": "30s" });
    let input = json!({ "secret": scene.secret, "run": id, "policy": brief_but(&overlap) });
    let (status, said, took) = answer(&cloud, &machine, input).await;
    assert_eq!(status, ExecutionStatus::Succeeded, "{said}");
    let told: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!((&told["run"], &told["promoted"]), (&json!(id), &json!(true)));
    assert!(took < Duration::from_secs(25), "it waited for the overlap");
    assert_eq!(scene.labels().await["AWSCURRENT"], id);
    let rotation = format!("{}:{id}", cloud.machine.replace(":stateMachine:", ":execution:"));
    cloud.sfn.stop_execution().execution_arn(&rotation).send().await.unwrap();

    let input =
        json!({ "secret": format!("e2e/none-{}", fresh()), "run": new_id(), "policy": brief_but(&overlap) });
    let (status, said, _) = answer(&cloud, &machine, input).await;
    assert_eq!(status, ExecutionStatus::Failed, "{said}");
    assert!(said.contains("Keywheel.Blocked") && said.contains("NoSuchSecret"), "{said}");
    cloud.sfn.delete_state_machine().state_machine_arn(&machine).send().await.unwrap();
}

//! The walker's distributed Map does what AWS's does: so many at once, and its list read or failed by name.

use jiff::SignedDuration;
use keywheel::RunId;
use serde_json::{Value, json};
use support::fake::Object;
use support::faults::{Fault, Kind, Plan};
use support::functions::BUCKET;
use support::walker::{Control, Walk, Walker};
use support::world::World;

/// A machine whose items wait for ten seconds each, but for those that fail.
fn machine(most: u64) -> Value {
    let reader = json!({
        "Resource": "${GetObjectArn}",
        "ReaderConfig": {"InputType": "JSON"},
        "Parameters": {"Bucket.$": "$.bucket", "Key.$": "$.key"},
    });
    let item = json!({
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
        "StartAt": "Which",
        "States": {
            "Which": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.fails", "BooleanEquals": true, "Next": "Fails"}],
                "Default": "Waits",
            },
            "Fails": {"Type": "Fail", "Error": "Keywheel.Conflict", "Cause": "It was asked to."},
            "Waits": {"Type": "Wait", "Seconds": 10, "End": true},
        },
    });
    json!({
        "StartAt": "Batch",
        "States": {
            "Batch": {
                "Type": "Map", "Label": "Batch", "ItemReader": reader, "ItemProcessor": item,
                "MaxConcurrency": most, "ToleratedFailurePercentage": 100, "ResultPath": null,
                "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Done"}],
                "Next": "Done",
            },
            "Done": {"Type": "Succeed"},
        },
    })
}

async fn walk(world: &World, most: u64, key: &str) -> (Walk, SignedDuration) {
    let arn = world.fake.state().machine("fleet").replacen(":stateMachine:", ":execution:", 1);
    let (arn, definition) = (format!("{arn}:{}", RunId::random()), machine(most));
    let mut open = |_: &str, _: &Value| Control::Go;
    let began = world.fake.state().now();
    let walker = Walker::new(&definition, &world.functions, &world.fake, &arn, &mut open);
    let walk = walker.walk(json!({"bucket": BUCKET, "key": key})).await;
    let took = world.fake.state().now().duration_since(began);
    (walk, took)
}

fn put(world: &World, key: &str, text: String) {
    let object = Object { key: key.to_owned(), text, version: "first".to_owned() };
    world.fake.state().objects.push(object);
}

#[tokio::test(start_paused = true)]
async fn no_more_items_are_under_way_than_the_map_allows() {
    let world = World::new();
    let items: Vec<Value> = (0..7).map(|_| json!({"fails": false})).collect();
    put(&world, "items", Value::from(items).to_string());
    for (most, seconds) in [(1, 70), (2, 40), (3, 30), (7, 10), (100, 10), (0, 10)] {
        let (walk, took) = walk(&world, most, "items").await;
        assert_eq!(walk.status, "SUCCEEDED");
        assert_eq!(took.as_secs(), seconds, "{most} at once");
        assert_eq!(walk.states().iter().filter(|state| **state == "Waits").count(), 7);
        // Nothing of the items comes back.
        assert_eq!(walk.output, json!({"bucket": BUCKET, "key": "items"}));
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_fails_fails_nothing_else() {
    let world = World::new();
    put(&world, "items", json!([{"fails": true}, {"fails": false}, {"fails": true}]).to_string());
    let (walk, took) = walk(&world, 1, "items").await;
    assert_eq!((walk.status, took.as_secs()), ("SUCCEEDED", 10));
    assert!(walk.output.get("error").is_none());
    put(&world, "none", "[]".to_owned());
    assert_eq!(self::walk(&world, 1, "none").await.0.status, "SUCCEEDED");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_read_fails_the_map_by_its_name() {
    let world = World::new();
    put(&world, "text", "no list".to_owned());
    put(&world, "object", "{}".to_owned());
    put(&world, "items", "[{\"fails\": false}]".to_owned());
    let failed = async |key: &str| {
        let (walk, _) = walk(&world, 1, key).await;
        walk.output["error"]["Error"].as_str().unwrap_or_default().to_owned()
    };
    for key in ["text", "object", "nothing"] {
        assert_eq!(failed(key).await, "States.ItemReaderFailed", "{key}");
    }
    for kind in Kind::ALL {
        world.fake.state().plan = Plan::new([Fault::within("Batch", 0, kind)]);
        assert_eq!(failed("items").await, "States.ItemReaderFailed", "{kind:?}");
    }
    assert_eq!(failed("items").await, "");
}

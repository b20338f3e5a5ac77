//! Advice from the records of calls that were really made.

use serde_json::json;

use crate::cloud::{Cloud, keywheel};

#[tokio::test]
async fn a_key_that_was_hardly_used_gets_no_advice_and_one_that_never_was_another_word() {
    let Some(cloud) = Cloud::here() else { return };
    let (user, key) = cloud.managed("advise").await;
    let never = keywheel(&["advise", &user, "--in", "eu-west-1", "--in", "us-east-1"]);
    assert_eq!((never.code, &never.json["silent"]), (Some(0), &json!("NeverUsed")), "{}", never.text);
    cloud.consume(&user).await;
    let rarely = keywheel(&["advise", &key, "--in", "eu-west-1", "--in", "us-east-1"]);
    assert_eq!((rarely.code, &rarely.json["silent"]), (Some(0), &json!("TooFewCalls")), "{}", rarely.text);
    assert_eq!((&rarely.json["calls"], &rarely.json["user"]), (&json!(1), &json!(user)), "{}", rarely.text);
    let nobody = keywheel(&["advise", "AKIAIOSFODNN7EXAMPLE"]);
    assert_eq!(nobody.code, Some(1), "{}", nobody.text);
}

//! Starts the `PromoteKey` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    serve::run(promote_key::PromoteKey::new(aws::lambda_config())).await
}

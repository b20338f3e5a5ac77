//! Starts the `ValidateKey` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    serve::run(validate_key::ValidateKey::new(aws::lambda_config())).await
}

//! Starts the `DeactivateKey` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    serve::run(deactivate_key::DeactivateKey::new(aws::lambda_config())).await
}

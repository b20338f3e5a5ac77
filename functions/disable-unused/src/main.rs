//! Starts the `DisableUnused` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    serve::run(disable_unused::DisableUnused::new(aws::lambda_config())).await
}

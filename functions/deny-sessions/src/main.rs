//! Starts the `DenySessions` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    serve::run(deny_sessions::DenySessions::new(aws::lambda_config())).await
}

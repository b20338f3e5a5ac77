//! Starts the `Replace` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let rotation = serve::setting("KEYWHEEL_ROTATION_ARN")?;
    serve::run(replace::Replace::new(aws::lambda_config(), rotation)).await
}

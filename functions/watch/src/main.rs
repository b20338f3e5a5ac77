//! Starts the `Watch` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let create_role = serve::setting("KEYWHEEL_CREATE_ROLE_ARN")?;
    serve::run(watch::Watch::new(aws::lambda_config(), create_role)).await
}

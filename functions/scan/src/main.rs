//! Starts the `Scan` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let bucket = serve::setting("KEYWHEEL_BUCKET")?;
    let rotation = serve::setting("KEYWHEEL_ROTATION_ARN")?;
    let create_role = serve::setting("KEYWHEEL_CREATE_ROLE_ARN")?;
    serve::run(scan::Scan::new(aws::lambda_config(), bucket, rotation, create_role)).await
}

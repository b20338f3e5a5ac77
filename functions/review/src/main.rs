//! Starts the `Review` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let rotation = serve::setting("KEYWHEEL_ROTATION_ARN")?;
    let bucket = serve::setting("KEYWHEEL_BUCKET")?;
    serve::run(review::Review::new(aws::lambda_config(), rotation, bucket)).await
}

//! Starts the `Scan` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let bucket = serve::setting("KEYWHEEL_BUCKET")?;
    let removals = serve::setting("KEYWHEEL_UNUSED_ARN")?;
    serve::run(scan::Scan::new(aws::lambda_config(), bucket, removals)).await
}

//! Starts the `CreateKey` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    serve::run(create_key::CreateKey::new(aws::lambda_config())).await
}

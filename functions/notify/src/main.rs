//! Starts the `Notify` step.

use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let channels = notify::Channels {
        bus: serve::setting("KEYWHEEL_BUS")?,
        topic: serve::setting("KEYWHEEL_TOPIC_ARN")?,
    };
    serve::run(notify::Notify::new(aws::lambda_config(), channels)).await
}

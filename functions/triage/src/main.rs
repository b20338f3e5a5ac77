//! Starts the `Triage` step.

use keywheel::serve;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    serve::run(triage::Triage).await
}

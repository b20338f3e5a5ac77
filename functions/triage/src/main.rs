//! Starts the `Triage` step.

use keywheel::serve;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let roles = serve::setting("KEYWHEEL_OWN_ROLE_ARNS")?.split(',').map(str::to_owned).collect();
    serve::run(triage::Triage::new(roles)).await
}

//! Starts the `Replace` step.

use facts::member::Members;
use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let rotation = serve::setting("KEYWHEEL_ROTATION_ARN")?;
    let (role, id) =
        (serve::setting("KEYWHEEL_MEMBER_ROLE")?, serve::optional_setting("KEYWHEEL_MEMBER_EXTERNAL_ID"));
    serve::run(replace::Replace::new(aws::lambda_config(), Members::new(role, id), rotation)).await
}

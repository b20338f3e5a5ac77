//! Starts the `CreateKey` step.

use facts::member::Members;
use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let (role, id) =
        (serve::setting("KEYWHEEL_MEMBER_ROLE")?, serve::optional_setting("KEYWHEEL_MEMBER_EXTERNAL_ID"));
    serve::run(create_key::CreateKey::new(aws::lambda_config(), Members::new(role, id))).await
}

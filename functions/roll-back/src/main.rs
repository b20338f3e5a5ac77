//! Starts the `RollBack` step.

use facts::member::Members;
use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let create_role = serve::setting("KEYWHEEL_CREATE_ROLE_ARN")?;
    let (role, id) =
        (serve::setting("KEYWHEEL_MEMBER_ROLE")?, serve::optional_setting("KEYWHEEL_MEMBER_EXTERNAL_ID"));
    serve::run(roll_back::RollBack::new(aws::lambda_config(), Members::new(role, id), create_role)).await
}

//! Starts the `Review` step.

use facts::member::Members;
use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let rotation = serve::setting("KEYWHEEL_ROTATION_ARN")?;
    let bucket = serve::setting("KEYWHEEL_BUCKET")?;
    let (role, id) =
        (serve::setting("KEYWHEEL_MEMBER_ROLE")?, serve::optional_setting("KEYWHEEL_MEMBER_EXTERNAL_ID"));
    let members = Members::new(role, id);
    serve::run(review::Review::new(aws::lambda_config(), members, rotation, bucket)).await
}

//! Starts the `Scan` step.

use facts::member::Members;
use keywheel::{aws, serve};
use scan::{Scan, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let settings = Settings {
        bucket: serve::setting("KEYWHEEL_BUCKET")?,
        rotation: serve::setting("KEYWHEEL_ROTATION_ARN")?,
        create_role: serve::setting("KEYWHEEL_CREATE_ROLE_ARN")?,
        removals: serve::setting("KEYWHEEL_UNUSED_ARN")?,
    };
    let (role, id) =
        (serve::setting("KEYWHEEL_MEMBER_ROLE")?, serve::optional_setting("KEYWHEEL_MEMBER_EXTERNAL_ID"));
    serve::run(Scan::new(aws::lambda_config(), Members::new(role, id), settings)).await
}

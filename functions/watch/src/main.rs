//! Starts the `Watch` step.

use facts::member::Members;
use keywheel::{aws, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), serve::Error> {
    serve::init_tracing();
    let mut create_roles = vec![serve::setting("KEYWHEEL_CREATE_ROLE_ARN")?];
    let others = serve::optional_setting("KEYWHEEL_OTHER_CREATE_ROLE_ARNS").unwrap_or_default();
    create_roles.extend(others.split(',').filter(|role| !role.is_empty()).map(str::to_owned));
    let (role, id) =
        (serve::setting("KEYWHEEL_MEMBER_ROLE")?, serve::optional_setting("KEYWHEEL_MEMBER_EXTERNAL_ID"));
    let rotates = serve::setting("KEYWHEEL_MEMBER_ROTATES_ROLE")?;
    let members = Members::new(role, id);
    serve::run(watch::Watch::new(aws::lambda_config(), members, create_roles, rotates)).await
}

//! Sets the scene: a managed user with one key, its secret, and a reader for the consumer.

use aws_sdk_iam::types::Tag;
use keywheel::UserName;
use keywheel::secret::{SecretAccessKey, SecretValue, for_store};
use serde_json::json;

use crate::cloud::Cloud;
use crate::error::{Error, Explain, Result, aws};

/// The managed user.
pub(crate) const USER: &str = "demo-mailer";
/// Its secret.
pub(crate) const SECRET: &str = "demo/mailer";
/// Who reads the secret for the consumer.
const READER: &str = "demo-reader";
/// The value of a field that is not Keywheel's: it must survive, and be seen nowhere but in the store.
pub(crate) const HOST: &str = "smtp-relay.demo.invalid";

/// The scene.
pub(crate) struct Stage {
    /// The secret's ARN.
    pub(crate) secret: String,
    /// The key that is to be rotated.
    pub(crate) key: String,
    /// The reader's pair, for the consumer only.
    pub(crate) reader: (String, String),
}

/// Makes everything as its owner would in an account of theirs.
pub(crate) async fn set(cloud: &Cloud) -> Result<Stage> {
    let iam = aws_sdk_iam::Client::new(&cloud.root());
    let secrets = aws_sdk_secretsmanager::Client::new(&cloud.root());
    let user: UserName = USER.parse().explain("the demo's user")?;

    aws("iam:CreateUser", iam.create_user().user_name(USER).path("/apps/").send().await)?;
    let (key, secret) = pair(&iam, USER).await?;
    let value = SecretValue::parse(Some(&json!({ "UserName": USER, "SmtpHost": HOST }).to_string()), &user)?;
    let value = value.with_pair(&user, &key.parse()?, &SecretAccessKey::new(secret));
    let tag = aws_sdk_secretsmanager::types::Tag::builder().key("keywheel:user").value(USER).build();
    let made = secrets.create_secret().name(SECRET).secret_string(for_store(&value)).tags(tag).send().await;
    let made = aws("secretsmanager:CreateSecret", made)?;
    let arn = made.arn().ok_or_else(|| Error::from("CreateSecret named no ARN"))?.to_owned();

    // Both sides name each other: a tag on the secret alone would not make the user a managed one.
    let tag = Tag::builder().key("keywheel:secret").value(&arn).build()?;
    aws("iam:TagUser", iam.tag_user().user_name(USER).tags(tag).send().await)?;
    allow(&iam, USER, &["sts:GetCallerIdentity", "s3:ListAllMyBuckets"], "*").await?;

    aws("iam:CreateUser", iam.create_user().user_name(READER).send().await)?;
    allow(&iam, READER, &["secretsmanager:GetSecretValue"], &arn).await?;
    let reader = pair(&iam, READER).await?;
    Ok(Stage { secret: arn, key, reader })
}

async fn pair(iam: &aws_sdk_iam::Client, user: &str) -> Result<(String, String)> {
    let made = aws("iam:CreateAccessKey", iam.create_access_key().user_name(user).send().await)?;
    let pair = made.access_key().ok_or_else(|| Error::from("CreateAccessKey made no key"))?;
    Ok((pair.access_key_id().to_owned(), pair.secret_access_key().to_owned()))
}

async fn allow(iam: &aws_sdk_iam::Client, user: &str, actions: &[&str], resource: &str) -> Result<()> {
    let statement = json!({ "Effect": "Allow", "Action": actions, "Resource": resource });
    let policy = json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
    let put = iam.put_user_policy().user_name(user).policy_name("work").policy_document(policy);
    aws("iam:PutUserPolicy", put.send().await)?;
    Ok(())
}

/// Whether the field that is not Keywheel's is still in the current value.
pub(crate) async fn other_field_survived(cloud: &Cloud, secret: &str) -> Result<bool> {
    let secrets = aws_sdk_secretsmanager::Client::new(&cloud.root());
    let read = secrets.get_secret_value().secret_id(secret).send().await;
    let read = aws("secretsmanager:GetSecretValue", read)?;
    let value: serde_json::Value = serde_json::from_str(read.secret_string().unwrap_or_default())
        .map_err(|_| Error::from("the secret is not JSON"))?;
    Ok(value.get("SmtpHost").and_then(serde_json::Value::as_str) == Some(HOST))
}

//! A managed user and its secret, made as their owner would make them, and the truth about both as AWS tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_sdk_iam::types::{StatusType, Tag};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::cloud::{Cloud, Pair, fresh};

/// Where the users of these tests live: a path of their own must not be in the way.
const PATH: &str = "/e2e/team/";

/// A user and its secret.
#[derive(Clone)]
pub(crate) struct Scene {
    /// The cloud they are in.
    pub(crate) cloud: Arc<Cloud>,
    /// The user's name.
    pub(crate) user: String,
    /// The secret's name.
    pub(crate) name: String,
    /// The secret's ARN.
    pub(crate) secret: String,
}

/// What AWS says of a user and its secret. The values are digests: a failed assertion prints this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Truth {
    /// The user's keys, and whether each is Active.
    pub(crate) keys: BTreeMap<String, bool>,
    /// The version that each label names. Labels of ours, by which a run is found, are not in it.
    pub(crate) labels: BTreeMap<String, String>,
    /// The value of each labelled version.
    values: BTreeMap<String, String>,
}

impl Truth {
    /// The one key there is.
    pub(crate) fn only_key(&self) -> &str {
        assert_eq!(self.keys.len(), 1, "{:?}", self.keys);
        let (id, active) = self.keys.first_key_value().unwrap();
        assert!(active, "the only key {id} is not Active");
        id
    }
}

impl Scene {
    /// A user without a key and its secret without a value, tagged for each other.
    pub(crate) async fn bare(cloud: &Arc<Cloud>, what: &str) -> Self {
        Self::named(cloud, &format!("e2e-{what}-{}", fresh())).await
    }

    /// The same with a name of one's own.
    pub(crate) async fn named(cloud: &Arc<Cloud>, user: &str) -> Self {
        let scene = Self::untagged(cloud, user).await;
        let tag = aws_sdk_secretsmanager::types::Tag::builder().key("keywheel:user").value(user).build();
        cloud.store.tag_resource().secret_id(&scene.secret).tags(tag).send().await.unwrap();
        scene.tag("keywheel:secret", &scene.secret).await;
        scene
    }

    /// A user and a secret that do not know each other.
    pub(crate) async fn untagged(cloud: &Arc<Cloud>, user: &str) -> Self {
        let name = format!("e2e/{user}").replace([',', '@'], "-");
        make_user(cloud, user).await;
        let made = cloud.store.create_secret().name(&name).send().await.unwrap();
        let secret = made.arn().unwrap().to_owned();
        Self { cloud: Arc::clone(cloud), user: user.to_owned(), name, secret }
    }

    /// A user who is not managed.
    pub(crate) async fn stranger(cloud: &Arc<Cloud>, what: &str) -> Self {
        Self::untagged(cloud, &format!("e2e-{what}-{}", fresh())).await
    }

    /// Lets the user do something.
    pub(crate) async fn allow(&self, action: &str) {
        let document = serde_json::json!({
            "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": action, "Resource": "*" }],
        });
        let call = self.cloud.iam.put_user_policy().user_name(&self.user).policy_name("e2e");
        call.policy_document(document.to_string()).send().await.unwrap();
    }

    /// A managed user with one key that its secret holds and somebody has used: the usual case.
    pub(crate) async fn managed(cloud: &Arc<Cloud>, what: &str) -> (Self, Pair) {
        let scene = Self::bare(cloud, what).await;
        let pair = scene.make_key().await;
        scene.put(&scene.value(&pair)).await;
        assert!(pair.works(cloud).await);
        (scene, pair)
    }

    /// Makes a key by hand.
    pub(crate) async fn make_key(&self) -> Pair {
        let made = self.cloud.iam.create_access_key().user_name(&self.user).send().await.unwrap();
        let key = made.access_key().unwrap();
        Pair { id: key.access_key_id().to_owned(), secret: key.secret_access_key().to_owned() }
    }

    /// Makes a key Active or Inactive by hand.
    pub(crate) async fn set_key(&self, id: &str, status: StatusType) {
        let call = self.cloud.iam.update_access_key().user_name(&self.user).access_key_id(id);
        call.status(status).send().await.unwrap();
    }

    /// Tags the user.
    pub(crate) async fn tag(&self, key: &str, value: &str) {
        let tag = Tag::builder().key(key).value(value).build().unwrap();
        self.cloud.iam.tag_user().user_name(&self.user).tags(tag).send().await.unwrap();
    }

    /// A value with the pair, and with fields that are not Keywheel's, written as no serialiser would.
    pub(crate) fn value(&self, pair: &Pair) -> String {
        let (user, Pair { id, secret }) = (&self.user, pair);
        let (user, secret) = (Value::from(user.as_str()), Value::from(secret.as_str()));
        format!(
            r#"{{ "Port": 5.870e2, "UserName":{user}, "Pepper" : "{}/+=\"\\\u00fc", "AccessKeyId":"{id}",
  "SecretAccessKey":{secret}, "Nested": {{"b" : [1,  2.50], "a": null}} }}"#,
            pepper(&self.user)
        )
    }

    /// Stores a value as a person does: it becomes AWSCURRENT at once.
    pub(crate) async fn put(&self, value: &str) {
        self.cloud
            .store
            .put_secret_value()
            .secret_id(&self.secret)
            .secret_string(value)
            .send()
            .await
            .unwrap();
    }

    /// The text that AWSCURRENT names.
    pub(crate) async fn current_text(&self) -> String {
        let read = self.cloud.store.get_secret_value().secret_id(&self.secret).send().await.unwrap();
        read.secret_string().unwrap().to_owned()
    }

    /// The pair that AWSCURRENT names.
    pub(crate) async fn current(&self) -> Pair {
        let value: Value = serde_json::from_str(&self.current_text().await).unwrap();
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Pair { id: text("AccessKeyId"), secret: text("SecretAccessKey") }
    }

    /// The fields that are not Keywheel's, byte for byte and in their order.
    pub(crate) async fn other_fields(&self) -> Vec<(String, String)> {
        let text = self.current_text().await;
        let fields: indexmap::IndexMap<String, Box<RawValue>> = serde_json::from_str(&text).unwrap();
        let fields = fields.into_iter().filter(|(name, _)| !name.ends_with("AccessKeyId"));
        let fields = fields.filter(|(name, _)| name != "SecretAccessKey");
        fields.map(|(name, raw)| (name, raw.get().to_owned())).collect()
    }

    /// The user's keys, and whether each is Active. A user that is gone has none.
    pub(crate) async fn keys(&self) -> BTreeMap<String, bool> {
        let Ok(list) = self.cloud.iam.list_access_keys().user_name(&self.user).send().await else {
            return BTreeMap::new();
        };
        let key = |row: &aws_sdk_iam::types::AccessKeyMetadata| {
            (row.access_key_id().unwrap().to_owned(), row.status() == Some(&StatusType::Active))
        };
        list.access_key_metadata().iter().map(key).collect()
    }

    /// How many policies the user has, its own and attached ones.
    pub(crate) async fn policies(&self) -> usize {
        let own = self.cloud.iam.list_user_policies().user_name(&self.user).send().await.unwrap();
        let attached =
            self.cloud.iam.list_attached_user_policies().user_name(&self.user).send().await.unwrap();
        own.policy_names().len() + attached.attached_policies().len()
    }

    /// The version that each label names.
    pub(crate) async fn labels(&self) -> BTreeMap<String, String> {
        let Ok(told) = self.cloud.store.describe_secret().secret_id(&self.secret).send().await else {
            return BTreeMap::new();
        };
        let versions = told.version_ids_to_stages().cloned().unwrap_or_default();
        let labels =
            versions.into_iter().flat_map(|(id, labels)| labels.into_iter().map(move |l| (l, id.clone())));
        labels.filter(|(label, _)| label.starts_with("AWS")).collect()
    }

    /// All of it.
    pub(crate) async fn truth(&self) -> Truth {
        let labels = self.labels().await;
        let mut values = BTreeMap::new();
        for version in labels.values().collect::<BTreeSet<_>>() {
            let call = self.cloud.store.get_secret_value().secret_id(&self.secret).version_id(version);
            if let Ok(value) = call.send().await {
                let text = value.secret_string().unwrap_or_default();
                values.insert(version.clone(), format!("{:x?}", Sha256::digest(text).as_slice()));
            }
        }
        Truth { keys: self.keys().await, labels, values }
    }

    /// What must hold whenever no run is under way: one key, Active, that AWSCURRENT names and that works.
    pub(crate) async fn expect_one_working_key(&self) -> Pair {
        let (truth, current) = (self.truth().await, self.current().await);
        assert_eq!(truth.only_key(), current.id, "AWSCURRENT names another key");
        assert!(current.works(&self.cloud).await, "key {} does not work", current.id);
        current
    }
}

/// A value that a user's secret holds beside the pair, and nobody else knows.
pub(crate) fn pepper(user: &str) -> String {
    let digest = Sha256::digest(format!("pepper of {user}"));
    digest.iter().take(12).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Makes a user.
pub(crate) async fn make_user(cloud: &Cloud, name: &str) {
    cloud.iam.create_user().user_name(name).path(PATH).send().await.unwrap();
}

//! What a secret's replicas in other regions name.

use aws_sdk_secretsmanager::Client;
use aws_types::SdkConfig;
use keywheel::replica::{Names, Replica};
use keywheel::{SecretArn, aws};
use tokio::task::JoinSet;

use crate::secrets::{self, Replication};

/// Asks each replica what AWSCURRENT names there, one call each, all at once: a region that does not answer keeps
/// nobody. Whatever goes wrong in another region is a replica that could not be read, and no error of the step.
pub async fn read(config: &SdkConfig, primary: &SecretArn, replication: Vec<Replication>) -> Vec<Replica> {
    let mut calls = JoinSet::new();
    let mut replicas = Vec::new();
    for (index, Replication { region, follows }) in replication.into_iter().enumerate() {
        let client = Client::new(&aws::in_region(config, &region));
        let arn = primary.in_region(&region);
        calls.spawn(async move {
            let names = match secrets::current(&client, &arn).await {
                Ok(Some(version)) => Names::Version(version),
                Ok(None) => Names::Nothing,
                Err(error) => Names::Unknown(error.to_string()),
            };
            (index, names)
        });
        // Only a bug breaks a call off; its replica is then one that nobody has asked.
        replicas.push(Replica { region, names: Names::Unknown("it was not asked".to_owned()), follows });
    }
    while let Some(done) = calls.join_next().await {
        if let Ok((index, names)) = done {
            replicas[index].names = names;
        }
    }
    replicas
}

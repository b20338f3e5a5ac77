//! The application that uses the key: it caches the secret for a while, calls AWS with it, and retries nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_iam::types::StatusType;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cloud::{Cloud, fresh};
use crate::run::{brief_but, new_id};
use crate::scene::Scene;

/// How long the secret is cached; the overlap must be longer.
const CACHE: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(40);

/// A consumer that goes on until it is ended or dropped.
pub(crate) struct Consumer {
    cloud: Arc<Cloud>,
    app: String,
    task: JoinHandle<()>,
}

impl Consumer {
    fn start(scene: &Scene) -> Self {
        Self::every(scene, PAUSE)
    }

    /// One that pauses so long between two calls.
    pub(crate) fn every(scene: &Scene, pause: Duration) -> Self {
        let app = format!("e2e-consumer-{}", fresh());
        let (scene, name) = (scene.clone(), app.clone());
        let cloud = Arc::clone(&scene.cloud);
        let task = tokio::spawn(async move {
            loop {
                let sts = scene.cloud.sts(&scene.current().await, &name);
                let read = Instant::now();
                while read.elapsed() < CACHE {
                    // Counted by the cloud, refused or not.
                    let _ = sts.get_caller_identity().send().await;
                    tokio::time::sleep(pause).await;
                }
            }
        });
        Self { cloud, app, task }
    }

    /// The name that its calls carry.
    pub(crate) fn app(&self) -> &str {
        &self.app
    }

    /// Its calls and failures so far by key, as the cloud counted them.
    async fn counts(&self) -> BTreeMap<String, (u32, u32)> {
        let mut counts = BTreeMap::new();
        for request in self.cloud.requests().await.iter().filter(|request| request.is_of(&self.app)) {
            let of_key: &mut (u32, u32) = counts.entry(request.key_id.clone()).or_default();
            of_key.0 += 1;
            of_key.1 += u32::from(request.status != 200);
        }
        counts
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_consumer_does_not_notice_a_rotation() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old) = Scene::managed(&cloud, "consumer").await;
    let consumer = Consumer::start(&scene);
    let policy = brief_but(&json!({ "overlap": "4s", "grace": "2s" }));
    let run = scene.start_with(&new_id(), json!({ "policy": policy })).await;
    run.end().await.expect("Completed");
    tokio::time::sleep(CACHE).await;
    let (new, counts) = (scene.expect_one_working_key().await, consumer.counts().await);
    let failed: u32 = counts.values().map(|(_, failed)| failed).sum();
    assert_eq!(failed, 0, "{counts:?}");
    assert!(counts[&old.id].0 > 20 && counts[&new.id].0 > 20, "{counts:?}");
}

#[tokio::test]
async fn control_the_same_consumer_fails_where_the_key_is_disabled_first() {
    let Some(cloud) = Cloud::here().await else { return };
    let (scene, old) = Scene::managed(&cloud, "leaked").await;
    let consumer = Consumer::start(&scene);
    tokio::time::sleep(CACHE).await;
    // As a leak demands it: Inactive at once, whatever it costs the consumer.
    scene.set_key(&old.id, StatusType::Inactive).await;
    let run = scene.start_with(&new_id(), json!({ "reason": "leaked" })).await;
    run.end().await.expect("Contained");
    tokio::time::sleep(CACHE * 2).await;
    let (new, counts) = (scene.current().await, consumer.counts().await);
    assert!(new.id != old.id && new.works(&cloud).await);
    assert!(counts[&old.id].1 > 0, "{counts:?}");
    assert_eq!((counts[&new.id].0 > 10, counts[&new.id].1), (true, 0), "{counts:?}");
    // The leaked key is evidence: Inactive, and still there.
    assert_eq!(scene.keys().await.get(&old.id), Some(&false));
}

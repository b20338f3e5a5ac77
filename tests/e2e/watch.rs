//! Watches P1 while runs are under way: the AWS API, twenty times a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::scene::Scene;

/// What was seen.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// The user's keys with their status and the key that AWSCURRENT names, whenever one of them changed.
    pub(crate) stages: Vec<(BTreeMap<String, bool>, String)>,
    /// The labels, whenever they changed.
    pub(crate) labels: Vec<BTreeMap<String, String>>,
    /// How often it looked.
    pub(crate) looks: u32,
    broken: Vec<String>,
}

/// A watch that goes on until it is ended or dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn start(scene: &Scene, pause: Duration) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (scene, into) = (scene.clone(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                look(&scene, &into).await;
                tokio::time::sleep(pause).await;
            }
        });
        Self { seen, task }
    }

    /// Ends it; fails the test where P1 did not hold at every look.
    pub(crate) fn end(self) -> Seen {
        self.task.abort();
        let seen = self.seen.lock().unwrap().clone();
        assert!(seen.broken.is_empty(), "P1 was broken: {:?}", seen.broken);
        assert!(seen.looks > 0, "the watch saw nothing");
        seen
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(scene: &Scene, into: &Mutex<Seen>) {
    let current = scene.current().await.id;
    let keys = scene.keys().await;
    let labels = scene.labels().await;
    let mut broken = Vec::new();
    if keys.len() > 2 {
        broken.push(format!("{} keys", keys.len()));
    }
    // Between the two reads AWSCURRENT may have moved; what it names before and after must have been Active.
    if keys.get(&current) != Some(&true) && scene.current().await.id == current {
        broken.push(format!("AWSCURRENT names {current}, which is not Active"));
    }
    let mut seen = into.lock().unwrap();
    let stage = (keys, current);
    if seen.stages.last() != Some(&stage) {
        seen.stages.push(stage);
    }
    if seen.labels.last() != Some(&labels) {
        seen.labels.push(labels);
    }
    seen.broken.append(&mut broken);
    seen.looks += 1;
}

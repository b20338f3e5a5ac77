//! Executions that are walked beside each other, and every one that they start.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use serde_json::Value;

use crate::fake::Fake;

/// An execution that is being walked.
pub(crate) type Walking<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Walks these executions, and every one that is started meanwhile, until all have ended: how each did, in the order of
/// their starts.
pub(crate) async fn walk_all<'a, T>(
    fake: &Fake,
    first: Vec<Walking<'a, T>>,
    walking: impl Fn(String, Value) -> Walking<'a, T>,
) -> Vec<T> {
    let mut going: Vec<(Walking<'a, T>, Option<T>)> = first.into_iter().map(|walk| (walk, None)).collect();
    std::future::poll_fn(|cx| {
        loop {
            for (walk, ended) in going.iter_mut().filter(|(_, ended)| ended.is_none()) {
                if let Poll::Ready(end) = walk.as_mut().poll(cx) {
                    *ended = Some(end);
                }
            }
            let fresh = std::mem::take(&mut fake.state().to_walk);
            if fresh.is_empty() {
                break;
            }
            for arn in fresh {
                let input = fake.state().executions[&arn].input.clone();
                let input = serde_json::from_str(&input).unwrap();
                going.push((walking(arn, input), None));
            }
        }
        if going.iter().any(|(_, ended)| ended.is_none()) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    going.into_iter().filter_map(|(_, ended)| ended).collect()
}

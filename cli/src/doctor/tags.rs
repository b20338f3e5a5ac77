//! Whether users and secrets name each other.

use tokio::task::JoinSet;

use super::Check;
use crate::error::{Result, Trouble};
use crate::managed;
use crate::place::Place;

/// How many pairs are looked at: two calls each. A plan looks at all.
const MOST: usize = 100;
/// How many in the same moment.
const AT_ONCE: usize = 6;

/// The managed pairs, as far as they were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tags {
    /// How many secrets name a user.
    pub(super) all: usize,
    /// How many of them were looked at.
    pub(super) looked: usize,
    /// What is wrong with some.
    pub(super) broken: Vec<Trouble>,
}

/// Looks at the pairs of the installation's region.
pub(super) async fn read(place: &Place) -> Result<Tags> {
    let arns = managed::all(place).await?;
    let mut tags = Tags { all: arns.len(), looked: arns.len().min(MOST), broken: Vec::new() };
    let (mut waiting, mut calls) = (arns.into_iter().take(MOST), JoinSet::new());
    loop {
        while calls.len() < AT_ONCE
            && let Some(arn) = waiting.next()
        {
            let place = place.clone();
            calls.spawn(async move { managed::by_secret(&place, &arn).await.err() });
        }
        match calls.join_next().await {
            None => break,
            Some(Ok(broken)) => tags.broken.extend(broken),
            Some(Err(error)) => {
                tags.broken.push(Trouble::new(format!("A look-up broke off: {error}."), "Run it again."));
            }
        }
    }
    tags.broken.sort_by(|a, b| a.text.cmp(&b.text));
    Ok(tags)
}

/// Whether every pair names each other.
pub(super) fn check(tags: &Tags) -> Check {
    let of = if tags.looked < tags.all {
        format!(" (the first {} of {} were looked at)", tags.looked, tags.all)
    } else {
        String::new()
    };
    match tags.broken.as_slice() {
        [] if tags.all == 0 => Check::good("tags", "no user is managed yet: `keywheel enroll` begins"),
        [] => Check::good("tags", format!("users and secrets name each other: {} pairs{of}", tags.looked)),
        [first, more @ ..] => {
            let more = if more.is_empty() { String::new() } else { format!(" And {} more.", more.len()) };
            Check::bad("tags", format!("{}{more}{of}", first.text), first.remedy.clone())
        }
    }
}

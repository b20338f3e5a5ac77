//! Programs that live on a secret: what every promise is for.

use jiff::{SignedDuration, Timestamp};

use crate::fake::State;

/// How often a consumer calls.
const EVERY: SignedDuration = SignedDuration::from_mins(30);

/// A program that calls every half hour and reads the value every other time, as its cache of an hour allows.
#[derive(Debug, Clone)]
pub struct Consumer {
    secret: String,
    /// The region whose copy it reads, where it is not the primary.
    region: Option<String>,
    key: String,
    turn: u32,
    next: Timestamp,
}

impl Consumer {
    /// One that begins now.
    pub fn of(secret: &str, now: Timestamp) -> Self {
        Self { secret: secret.to_owned(), region: None, key: String::new(), turn: 0, next: now }
    }

    /// One that begins now and reads the secret's replica in another region.
    pub fn of_replica(secret: &str, region: &str, now: Timestamp) -> Self {
        Self { region: Some(region.to_owned()), ..Self::of(secret, now) }
    }
}

impl State {
    /// Does what consumers have done until now. Nothing changes but through this state, so it is as good as
    /// having done it at the time, and a wait of weeks costs no timer. A refused call breaks P1 in the only
    /// way that counts.
    pub(crate) fn let_consumers_live(&mut self) {
        let now = self.now();
        // Replicas catch up in between, at their own times.
        while let Some(at) = self.next_copy(now) {
            self.consumers_until(at);
            self.copy_until(at);
        }
        self.consumers_until(now);
    }

    fn consumers_until(&mut self, until: Timestamp) {
        for index in 0..self.consumers.len() {
            while self.consumers[index].next <= until {
                let mut consumer = self.consumers[index].clone();
                if consumer.turn.is_multiple_of(2) {
                    let secret = match &consumer.region {
                        Some(region) => self.secret_in(&consumer.secret, region),
                        None => self.secret(&consumer.secret),
                    };
                    consumer.key = secret.current_key().unwrap_or_default();
                }
                let at = consumer.next;
                if let Some((_, known)) = self.key(&consumer.key) {
                    let watch = &self.watch;
                    let excused =
                        watch.leaked.contains(&consumer.key) || watch.by_people.contains(&consumer.key);
                    if !known.is_active() && !excused {
                        let text = format!("P1: a consumer was refused with key {} at {at}", consumer.key);
                        self.violations.push(text);
                    }
                    self.use_key(&consumer.key.clone(), "ses", at);
                }
                consumer.turn += 1;
                consumer.next = at + EVERY;
                self.consumers[index] = consumer;
            }
        }
    }
}

//! Parallel and Map: branches that run in turns, each a machine of its own in the same execution; and the distributed
//! Map, whose items come from an object and are each an execution of their own.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use serde_json::{Value, json};

use super::{End, Entered, Walker, allow, data, next, retry, text};
use crate::functions::Failure;

/// The resource of a reader that takes an object for a list.
const GET_OBJECT: &str = "${GetObjectArn}";

/// How a branch ended, and what it entered.
type Ended = (End, Vec<Entered>);

impl Walker<'_> {
    pub(super) async fn branches(
        &mut self,
        name: &str,
        state: &Value,
        raw: &Value,
        input: &Value,
        context: &Value,
    ) -> Result<(Option<String>, Value), Box<End>> {
        if state["ItemProcessor"]["ProcessorConfig"]["Mode"] == "DISTRIBUTED" {
            return self.distributed(name, state, raw, input, context).await;
        }
        allow(
            state,
            name,
            &[
                "Branches",
                "Parameters",
                "ResultPath",
                "ItemsPath",
                "ItemProcessor",
                "ItemSelector",
                "MaxConcurrency",
                "Catch",
            ],
        );
        let work: Vec<(&Value, Value)> = if state["Type"] == "Parallel" {
            let input = data::parameters(state, input, context);
            state["Branches"].as_array().unwrap().iter().map(|branch| (branch, input.clone())).collect()
        } else {
            let items = state.get("ItemsPath").and_then(Value::as_str).unwrap_or("$");
            let items = data::select(items, input, context).unwrap();
            let item = |(index, value): (usize, &Value)| {
                let mut context = context.clone();
                context["Map"] = json!({"Item": {"Index": index, "Value": value}});
                let selected =
                    state.get("ItemSelector").map(|template| data::fill(template, input, &context));
                let processor = &state["ItemProcessor"];
                let config = &processor["ProcessorConfig"];
                assert!(config.is_null() || *config == json!({"Mode": "INLINE"}), "{name}: {config}");
                allow(processor, name, &["ProcessorConfig", "StartAt", "States"]);
                (processor, selected.unwrap_or_else(|| value.clone()))
            };
            items.as_array().unwrap().iter().enumerate().map(item).collect()
        };
        let mut results = Vec::new();
        for (end, history) in self.beside(work, usize::MAX, false).await {
            self.history.extend(history);
            match end {
                End::Succeeded(output) => results.push(output),
                End::Stopped(_) => return Err(Box::new(End::Stopped(raw.clone()))),
                End::Failed(failure, _) => {
                    return retry::caught(state, raw, &failure)
                        .ok_or_else(|| Box::new(End::Failed(failure, raw.clone())));
                }
            }
        }
        Ok((next(state), data::place(state.get("ResultPath"), raw.clone(), Value::Array(results))))
    }

    /// A Map over the list in an object. However many items fail, it goes on: only a list that cannot be read fails it.
    async fn distributed(
        &mut self,
        name: &str,
        state: &Value,
        raw: &Value,
        input: &Value,
        context: &Value,
    ) -> Result<(Option<String>, Value), Box<End>> {
        let known = [
            "Label",
            "ItemReader",
            "ItemProcessor",
            "MaxConcurrency",
            "ToleratedFailurePercentage",
            "ResultPath",
            "Retry",
            "Catch",
        ];
        allow(state, name, &known);
        let processor = &state["ItemProcessor"];
        allow(processor, name, &["ProcessorConfig", "StartAt", "States"]);
        let config = json!({"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"});
        assert_eq!(processor["ProcessorConfig"], config, "{name}");
        assert_eq!(
            state["ToleratedFailurePercentage"],
            json!(100),
            "{name}: another tolerance is not known here"
        );
        assert_eq!(state.get("ResultPath"), Some(&Value::Null), "{name}: what it gives is not known here");
        let mut retries = retry::Retries::new(state);
        let items = loop {
            let failure = match self.items(name, &state["ItemReader"], input, context) {
                Ok(items) => break items,
                Err(failure) => failure,
            };
            match retries.after(&failure.error) {
                Some(pause) if !self.fake.state().is_stopped(&self.arn) => tokio::time::sleep(pause).await,
                _ => {
                    return retry::caught(state, raw, &failure)
                        .ok_or_else(|| Box::new(End::Failed(failure, raw.clone())));
                }
            }
        };
        let most = state.get("MaxConcurrency").and_then(Value::as_u64).filter(|most| *most > 0);
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap());
        let work = items.into_iter().map(|item| (processor, item)).collect();
        let mut stopped = false;
        for (end, history) in self.beside(work, most, true).await {
            self.history.extend(history);
            stopped |= matches!(end, End::Stopped(_));
        }
        if stopped {
            return Err(Box::new(End::Stopped(raw.clone())));
        }
        Ok((next(state), raw.clone()))
    }

    /// The items that a reader finds.
    fn items(
        &self,
        name: &str,
        reader: &Value,
        input: &Value,
        context: &Value,
    ) -> Result<Vec<Value>, Failure> {
        allow(reader, name, &["Resource", "ReaderConfig", "Parameters"]);
        assert_eq!(text(reader, "Resource"), GET_OBJECT, "{name}");
        assert_eq!(reader["ReaderConfig"], json!({"InputType": "JSON"}), "{name}");
        let place = data::parameters(reader, input, context);
        let named: Vec<&String> = place.as_object().unwrap().keys().collect();
        assert_eq!(named, ["Bucket", "Key"], "{name}");
        let text = self.fake.read_items(name, &place)?;
        serde_json::from_str(&text).map_err(|error| Failure {
            error: "States.ItemReaderFailed".into(),
            cause: format!("the object is no list: {error}"),
        })
    }

    /// Runs each of these machines, at most so many at once. All doors are watched by the same eyes.
    async fn beside(&mut self, work: Vec<(&Value, Value)>, most: usize, are_items: bool) -> Vec<Ended> {
        let (definition, functions, fake, arn, started) =
            (self.definition, self.functions, self.fake, self.arn.clone(), self.started);
        let at_door = RefCell::new(&mut *self.at_door);
        let at_door = &at_door;
        let runs = work.into_iter().map(|(branch, input)| {
            let arn = arn.clone();
            let run: Pin<Box<dyn Future<Output = Ended> + '_>> = Box::pin(async move {
                let mut door = |state: &str, document: &Value| (at_door.borrow_mut())(state, document);
                let mut walker = Walker::new(definition, functions, fake, &arn, &mut door);
                walker.started = started;
                walker.is_item = are_items;
                let end = walker.machine(branch, input).await;
                (end, walker.history)
            });
            run
        });
        join_at_most(runs.collect(), most).await
    }
}

/// Runs all to their end, in turns.
pub(crate) async fn join<T>(futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) -> Vec<T> {
    join_at_most(futures, usize::MAX).await
}

/// The same, with at most so many begun and not ended; they begin in their order.
async fn join_at_most<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>, most: usize) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        let mut going = 0;
        // What has begun stands before what has not: the first of those that have not ended are the ones under way.
        for (future, result) in futures.iter_mut().zip(&mut done).filter(|(_, result)| result.is_none()) {
            if going == most {
                break;
            }
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => *result = Some(value),
                Poll::Pending => going += 1,
            }
        }
        if done.iter().any(Option::is_none) {
            return Poll::Pending;
        }
        Poll::Ready(done.iter_mut().filter_map(Option::take).collect())
    })
    .await
}

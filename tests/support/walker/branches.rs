//! Parallel and Map: branches that run in turns, each a machine of its own in the same execution.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use serde_json::{Value, json};

use super::{End, Entered, Walker, allow, data, next, retry};

impl Walker<'_> {
    pub(super) async fn branches(
        &mut self,
        name: &str,
        state: &Value,
        raw: &Value,
        input: &Value,
        context: &Value,
    ) -> Result<(Option<String>, Value), Box<End>> {
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
        // Each branch is a machine of its own in the same execution; all doors are watched by the same eyes.
        let (definition, functions, fake, arn, started) =
            (self.definition, self.functions, self.fake, self.arn.clone(), self.started);
        let at_door = RefCell::new(&mut *self.at_door);
        let at_door = &at_door;
        let runs = work.into_iter().map(|(branch, input)| {
            let arn = arn.clone();
            let run: Pin<Box<dyn Future<Output = (End, Vec<Entered>)> + '_>> = Box::pin(async move {
                let mut door = |state: &str, document: &Value| (at_door.borrow_mut())(state, document);
                let mut walker = Walker::new(definition, functions, fake, &arn, &mut door);
                walker.started = started;
                let end = walker.machine(branch, input).await;
                (end, walker.history)
            });
            run
        });
        let mut results = Vec::new();
        for (end, history) in join(runs.collect()).await {
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
}

/// Runs all to their end, in turns.
pub(crate) async fn join<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        for (future, result) in futures.iter_mut().zip(&mut done) {
            if result.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *result = Some(value);
            }
        }
        if done.iter().any(Option::is_none) {
            return Poll::Pending;
        }
        Poll::Ready(done.iter_mut().filter_map(Option::take).collect())
    })
    .await
}

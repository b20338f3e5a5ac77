//! Tasks that start an execution and wait until somebody answers their token.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Walker, data, out_of_time};
use crate::fake::random_secret;
use crate::functions::Failure;

/// How often the token is looked at.
const EVERY: Duration = Duration::from_secs(1);

impl Walker<'_> {
    /// One attempt, with a token of its own: when it is over, nobody can answer that token any more.
    pub(super) async fn start_and_wait(
        &self,
        name: &str,
        state: &Value,
        input: &Value,
        context: &Value,
        limit: Duration,
    ) -> Result<Value, Failure> {
        let token = random_secret();
        let mut context = context.clone();
        context["Task"] = json!({"Token": token});
        let parameters = data::parameters(state, input, &context);
        assert!(parameters.to_string().contains(&token), "{name} hands its token to nobody");
        let parameters = self.deployed(name, parameters);
        self.fake.state().tokens.insert(token.clone());
        let answered = tokio::time::timeout(limit, self.answered(name, &parameters, &token)).await;
        self.fake.state().tokens.remove(&token);
        match answered {
            Ok(result) => result,
            Err(_) => Err(out_of_time()),
        }
    }

    /// Starts the execution, and waits for the answer. The reply to the start may never come; the answer ends the task
    /// all the same.
    async fn answered(&self, name: &str, parameters: &Value, token: &str) -> Result<Value, Failure> {
        let mut start = Box::pin(self.fake.start_execution(name, parameters));
        let mut started = false;
        loop {
            let reply = tokio::select! {
                biased;
                reply = &mut start, if !started => Some(reply),
                () = tokio::time::sleep(EVERY) => None,
            };
            if let Some(reply) = reply {
                reply?;
                started = true;
            }
            if let Some(answer) = self.answer(token) {
                return answer;
            }
            if self.fake.state().is_stopped(&self.arn) {
                // Nobody hears of it: the machine goes no further.
                return Err(Failure { error: "States.TaskFailed".into(), cause: String::new() });
            }
        }
    }

    /// How the token was answered, once it was.
    fn answer(&self, token: &str) -> Option<Result<Value, Failure>> {
        let state = self.fake.state();
        let answer = state.answers.get(token)?.first()?;
        let text = |field: &str| answer.body[field].as_str().unwrap_or_default().to_owned();
        Some(match answer.action.as_str() {
            "SendTaskSuccess" => Ok(serde_json::from_str(&text("output")).expect("a task's output is JSON")),
            _ => Err(Failure { error: text("error"), cause: text("cause") }),
        })
    }
}

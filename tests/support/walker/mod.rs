//! Runs a machine's own definition in this process, under paused time.
//!
//! The file that runs here is the file that is deployed. It knows the part of the language that the machines use;
//! a field, a type, an operator or a path that it does not know is a panic, never a guess.

mod branches;
mod data;
mod retry;
mod waiting;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::fake::Fake;
use crate::functions::{Failure, Functions};
use crate::invariants;

pub(crate) use branches::join;

/// What a test wants at the door of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Go in.
    Go,
    /// The execution is stopped before the state does anything.
    Stop,
    /// The state is run twice: once for nothing, its output dropped, as when a reply gets lost.
    Twice,
    /// The state is run, and once more for nothing when an attempt of the next task has failed, as when an
    /// invocation is repeated late.
    Late,
}

/// One state that was entered.
#[derive(Debug, Clone)]
pub struct Entered {
    /// The state's name.
    pub state: String,
    /// When it was entered.
    pub at: Timestamp,
    /// The document it was given.
    pub input: Value,
}

/// How an execution ended.
#[derive(Debug, Clone)]
pub struct Walk {
    /// `SUCCEEDED`, `FAILED` or `ABORTED`.
    pub status: &'static str,
    /// The output, or the document as it last was.
    pub output: Value,
    /// The error it failed with.
    pub error: Option<Failure>,
    /// Every state entered.
    pub history: Vec<Entered>,
}

impl Walk {
    /// The names of the states entered.
    pub fn states(&self) -> Vec<&str> {
        self.history.iter().map(|entered| entered.state.as_str()).collect()
    }
}

/// One execution of a machine.
pub struct Walker<'a> {
    definition: &'a Value,
    functions: &'a Functions,
    fake: &'a Fake,
    arn: String,
    name: String,
    started: Timestamp,
    input: Value,
    at_door: &'a mut dyn FnMut(&str, &Value) -> Control,
    history: Vec<Entered>,
    late: Option<Repeat>,
    /// Whether it is an item of a distributed Map, which has an execution of its own.
    is_item: bool,
}

/// An invocation to be repeated: of which state, and with what.
struct Repeat {
    state: String,
    definition: Value,
    document: Value,
}

enum End {
    Succeeded(Value),
    Failed(Failure, Value),
    Stopped(Value),
}

/// The longest input or output of a state.
const LARGEST: usize = 256 * 1024;
/// More states than any machine of ours enters: a loop that does not end is a fault.
const MOST_STATES: usize = 5_000;

/// The resource of a task that starts an execution without a Lambda between.
const START_EXECUTION: &str = "${StartExecutionArn}";
/// The same, of a task that then waits until somebody answers its token.
const START_EXECUTION_AND_WAIT: &str = "${StartExecutionAndWaitArn}";

const COMMON: [&str; 7] = ["Type", "Comment", "Next", "End", "InputPath", "OutputPath", "QueryLanguage"];

impl<'a> Walker<'a> {
    /// An execution of `definition`, known to the fake's Step Functions as `arn`.
    pub fn new(
        definition: &'a Value,
        functions: &'a Functions,
        fake: &'a Fake,
        arn: &str,
        at_door: &'a mut dyn FnMut(&str, &Value) -> Control,
    ) -> Self {
        let name = arn.rsplit_once(':').map_or(arn, |(_, name)| name).to_owned();
        let started = fake.state().now();
        Self {
            definition,
            functions,
            fake,
            arn: arn.to_owned(),
            name,
            started,
            input: Value::Null,
            at_door,
            history: Vec::new(),
            late: None,
            is_item: false,
        }
    }

    /// Runs it to its end.
    pub async fn walk(mut self, input: Value) -> Walk {
        self.fake.state().execution_started(&self.arn, &input);
        self.input = input.clone();
        let definition = self.definition;
        allow(
            definition,
            "the machine",
            &["Comment", "StartAt", "States", "TimeoutSeconds", "QueryLanguage"],
        );
        let end = self.machine(definition, input).await;
        let (status, output, error) = match end {
            End::Succeeded(output) => ("SUCCEEDED", output, None),
            End::Failed(failure, document) => ("FAILED", document, Some(failure)),
            End::Stopped(document) => ("ABORTED", document, None),
        };
        self.check(&output);
        if let Some(failure) = &error {
            self.check(&json!(failure.cause));
        }
        self.fake.state().execution_ended(&self.arn, status, Some(&output));
        Walk { status, output, error, history: self.history }
    }

    async fn machine(&mut self, definition: &Value, input: Value) -> End {
        let mut name = text(definition, "StartAt").to_owned();
        let mut document = input;
        loop {
            let state = &definition["States"][&name];
            assert!(state.is_object(), "there is no state {name}");
            if self.fake.state().is_stopped(&self.arn) {
                return End::Stopped(document);
            }
            let control = (self.at_door)(&name, &document);
            if control == Control::Stop {
                self.fake.state().stop(&self.arn);
                return End::Stopped(document);
            }
            self.enter(&name, &document);
            if control == Control::Twice && state["Type"] == "Task" {
                let _ = Box::pin(self.state(&name, state, document.clone())).await;
            }
            if control == Control::Late && state["Type"] == "Task" {
                let (definition, document) = (state.clone(), document.clone());
                self.late = Some(Repeat { state: name.clone(), definition, document });
            }
            match Box::pin(self.state(&name, state, document)).await {
                Ok((next, output)) => {
                    self.check(&output);
                    document = output;
                    match next {
                        Some(next) => name = next,
                        None => return End::Succeeded(document),
                    }
                }
                Err(end) => return *end,
            }
        }
    }

    fn enter(&mut self, name: &str, document: &Value) {
        let at = {
            let mut state = self.fake.state();
            state.execution_enters(&self.arn, name, document);
            state.now()
        };
        self.history.push(Entered { state: name.to_owned(), at, input: document.clone() });
        assert!(
            self.history.len() < MOST_STATES,
            "the machine does not end: {:?}",
            &self.history[MOST_STATES - 20..]
        );
    }

    /// Whatever a state hands on can be read by anyone with access to the history.
    fn check(&self, document: &Value) {
        let text = document.to_string();
        let state = self.fake.state();
        assert!(text.len() < LARGEST, "a document of {} bytes", text.len());
        assert!(!invariants::finds_secret(&state, &text), "P4: a state's document holds a secret");
        assert!(state.violations.is_empty(), "{:#?}\nstates: {:?}", state.violations, names(&self.history));
    }

    async fn state(
        &mut self,
        name: &str,
        state: &Value,
        raw: Value,
    ) -> Result<(Option<String>, Value), Box<End>> {
        let context = self.context(name, state);
        let input = data::through(state.get("InputPath"), &raw, &context);
        let (next, output) = match text(state, "Type") {
            "Task" => match self.task(name, state, &raw, &input, &context).await {
                Ok(done) => done,
                Err(failure) => return Err(Box::new(End::Failed(failure, raw))),
            },
            "Choice" => {
                allow(state, name, &["Choices", "Default"]);
                (Some(data::choose(state, &input, &context)), input)
            }
            "Wait" => {
                allow(state, name, &["Seconds", "TimestampPath", "Timestamp"]);
                if !self.wait(state, &input, &context).await {
                    return Err(Box::new(End::Stopped(raw)));
                }
                (next(state), input)
            }
            "Pass" => {
                allow(state, name, &["Result", "ResultPath", "Parameters"]);
                let result = data::parameters(state, &input, &context);
                let result = state.get("Result").cloned().unwrap_or(result);
                (next(state), data::place(state.get("ResultPath"), raw, result))
            }
            "Succeed" => (None, input),
            "Fail" => {
                allow(state, name, &["Error", "Cause"]);
                let failure =
                    Failure { error: text(state, "Error").into(), cause: text(state, "Cause").into() };
                return Err(Box::new(End::Failed(failure, raw)));
            }
            "Parallel" | "Map" => self.branches(name, state, &raw, &input, &context).await?,
            other => panic!("state {name} has the type {other}, which the walker does not know"),
        };
        Ok((next, data::through(state.get("OutputPath"), &output, &context)))
    }

    /// Repeats the invocation that comes late, once another task than its own has failed.
    async fn repeat_late(&mut self, failed: &str) {
        let Some(repeat) = self.late.take_if(|repeat| repeat.state != failed) else { return };
        let state = &repeat.definition;
        let context = self.context(&repeat.state, state);
        let input = data::through(state.get("InputPath"), &repeat.document, &context);
        let _ = self.attempt(&repeat.state, state, &input, &context).await;
    }

    /// What `$$` reads in a state.
    fn context(&self, name: &str, state: &Value) -> Value {
        let entered = self.fake.state().now();
        let mut context = json!({"State": {"Name": name, "EnteredTime": entered}});
        // What the execution of an item is called, nobody here knows.
        if !self.is_item {
            context["Execution"] = json!({"Id": self.arn, "Name": self.name, "StartTime": self.started});
            if data::asks_for_input(state) {
                context["Execution"]["Input"] = self.input.clone();
            }
        }
        context
    }

    /// One attempt at a task, within its time.
    async fn attempt(
        &self,
        name: &str,
        state: &Value,
        input: &Value,
        context: &Value,
    ) -> Result<Value, Failure> {
        let limit = state.get("TimeoutSeconds").and_then(Value::as_u64).unwrap_or(99_999_999);
        let limit = Duration::from_secs(limit);
        let resource = text(state, "Resource");
        if resource == START_EXECUTION_AND_WAIT {
            return self.start_and_wait(name, state, input, context, limit).await;
        }
        let payload = data::parameters(state, input, context);
        match tokio::time::timeout(limit, self.ask(name, resource, payload)).await {
            Ok(result) => result,
            Err(_) => Err(out_of_time()),
        }
    }

    /// A function is invoked, or a service is asked.
    async fn ask(&self, name: &str, resource: &str, payload: Value) -> Result<Value, Failure> {
        if resource == START_EXECUTION {
            return self.fake.start_execution(name, &self.deployed(name, payload)).await;
        }
        self.functions.invoke(name, &function(resource), payload).await
    }

    /// The parameters with the machines' ARNs in the places of their names.
    fn deployed(&self, name: &str, mut parameters: Value) -> Value {
        let fields = parameters.as_object().unwrap();
        let known = ["StateMachineArn", "Name", "Input"];
        assert!(
            fields.keys().all(|field| known.contains(&field.as_str())),
            "{name}: the walker knows only {known:?}"
        );
        let machine = parameters["StateMachineArn"].as_str().and_then(|name| {
            let name = name.strip_prefix("${")?.strip_suffix("MachineArn}")?;
            Some(self.fake.state().machine(&kebab(name)))
        });
        parameters["StateMachineArn"] = json!(machine.expect("a machine is named as ${NameMachineArn}"));
        parameters
    }

    /// False where the execution was stopped meanwhile.
    async fn wait(&self, state: &Value, input: &Value, context: &Value) -> bool {
        let duration = if let Some(seconds) = state.get("Seconds") {
            Duration::from_secs(seconds.as_u64().unwrap())
        } else {
            let path = state
                .get("TimestampPath")
                .unwrap_or_else(|| panic!("a Wait without Seconds or TimestampPath"));
            let until: Timestamp =
                serde_json::from_value(data::select(path.as_str().unwrap(), input, context).unwrap())
                    .expect("a Wait's time is a timestamp");
            let now = self.fake.state().now();
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        };
        tokio::time::sleep(duration).await;
        !self.fake.state().is_stopped(&self.arn)
    }

    async fn task(
        &mut self,
        name: &str,
        state: &Value,
        raw: &Value,
        input: &Value,
        context: &Value,
    ) -> Result<(Option<String>, Value), Failure> {
        allow(
            state,
            name,
            &["Resource", "Parameters", "ResultPath", "ResultSelector", "TimeoutSeconds", "Retry", "Catch"],
        );
        let mut retries = retry::Retries::new(state);
        let failure = loop {
            let failure = match self.attempt(name, state, input, context).await {
                Ok(result) => {
                    let result = data::result(state, result, context);
                    return Ok((next(state), data::place(state.get("ResultPath"), raw.clone(), result)));
                }
                Err(failure) => failure,
            };
            self.check(&json!(failure.cause));
            self.repeat_late(name).await;
            match retries.after(&failure.error) {
                Some(pause) if !self.fake.state().is_stopped(&self.arn) => tokio::time::sleep(pause).await,
                _ => break failure,
            }
        };
        retry::caught(state, raw, &failure).ok_or(failure)
    }
}

fn out_of_time() -> Failure {
    Failure { error: "States.Timeout".into(), cause: String::new() }
}

fn names(history: &[Entered]) -> Vec<&str> {
    history.iter().map(|entered| entered.state.as_str()).collect()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn next(state: &Value) -> Option<String> {
    let next = state.get("Next").and_then(Value::as_str).map(str::to_owned);
    assert!(next.is_some() || state["End"] == true, "a state without Next or End: {state}");
    next
}

fn allow(value: &Value, name: &str, fields: &[&str]) {
    let none = Map::new();
    let object = value.as_object().unwrap_or(&none);
    let unknown: Vec<&String> = object
        .keys()
        .filter(|field| !COMMON.contains(&field.as_str()) && !fields.contains(&field.as_str()))
        .collect();
    assert!(unknown.is_empty(), "{name} has fields that the walker does not know: {unknown:?}");
    assert!(
        object.get("QueryLanguage").is_none_or(|language| language == "JSONPath"),
        "{name}: only JSONPath"
    );
}

/// `${CreateKeyFunctionArn}` names the function `create-key`.
pub fn function(resource: &str) -> String {
    let name = resource
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix("FunctionArn}"))
        .unwrap_or_else(|| panic!("the walker does not know the resource {resource}"));
    kebab(name)
}

/// `CreateKey` as `create-key`.
pub fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(letter.to_lowercase());
    }
    kebab
}

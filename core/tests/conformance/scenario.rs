//! The scenario format: what `tests/conformance/README.md` describes, read strictly.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::events::EventsStep;
use crate::registry::RegistryStep;

/// What a scenario may cite: a guarantee of the design, or one of its sections.
const CITABLE: [&str; 15] =
    ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G11", "G12", "§5", "§7", "§8"];

pub struct Scenario {
    pub name: String,
    pub guarantees: Vec<String>,
    pub requires: Vec<String>,
    pub options: Value,
    pub nodes: Vec<String>,
    pub steps: Vec<Located>,
}

/// A step and where it stands, such as `3` or `2[i=17].1`.
pub struct Located {
    pub at: String,
    pub action: Action,
}

pub enum Action {
    Step(Box<Step>),
    Registry(Box<RegistryStep>),
    Events(Box<EventsStep>),
    Parallel(Vec<Vec<Located>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    name: String,
    title: String,
    guarantees: Vec<String>,
    #[serde(default)]
    peer: Option<String>,
    #[serde(default)]
    requires: Vec<String>,
    #[serde(default = "empty_object")]
    options: Value,
    #[serde(default = "one_node")]
    nodes: Vec<String>,
    steps: Vec<Value>,
}

fn empty_object() -> Value {
    Value::Object(Default::default())
}

fn one_node() -> Vec<String> {
    vec!["a".into()]
}

impl Scenario {
    /// The nodes from which the backend is taken away at some time.
    pub fn cut_off(&self) -> BTreeSet<String> {
        let mut nodes = BTreeSet::new();
        cut_off(&self.steps, &mut nodes);
        nodes
    }

    pub fn parse(value: Value) -> Result<Self, String> {
        let raw: RawScenario = serde_json::from_value(value).map_err(|error| format!("scenario: {error}"))?;
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if raw.name.is_empty() || !raw.name.chars().all(kebab) {
            return Err(format!("name {:?} is not in kebab-case", raw.name));
        }
        if !raw.title.ends_with('.') || raw.peer.is_some_and(|peer| peer.is_empty()) {
            return Err("the title is a sentence, and a peer is not empty".into());
        }
        if raw.guarantees.is_empty() || raw.steps.is_empty() {
            return Err("a scenario cites at least one guarantee and has at least one step".into());
        }
        if let Some(unknown) = raw.guarantees.iter().find(|cited| !CITABLE.contains(&cited.as_str())) {
            return Err(format!("{unknown} is no guarantee"));
        }
        Ok(Scenario {
            name: raw.name,
            guarantees: raw.guarantees,
            requires: raw.requires,
            options: raw.options,
            nodes: raw.nodes,
            steps: parse_steps(raw.steps, "")?,
        })
    }
}

fn cut_off(steps: &[Located], nodes: &mut BTreeSet<String>) {
    for step in steps {
        match &step.action {
            Action::Parallel(branches) => branches.iter().for_each(|steps| cut_off(steps, nodes)),
            Action::Registry(_) | Action::Events(_) => {}
            Action::Step(step) => {
                if let Step::Outage { node } = &**step {
                    nodes.insert(node.clone());
                }
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    #[serde(rename = "do")]
    _do: String,
    from: u64,
    to: u64,
    steps: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parallel {
    #[serde(rename = "do")]
    _do: String,
    branches: Vec<Vec<Value>>,
}

fn parse_steps(steps: Vec<Value>, prefix: &str) -> Result<Vec<Located>, String> {
    let mut parsed = Vec::with_capacity(steps.len());
    for (index, step) in steps.into_iter().enumerate() {
        let at = format!("{prefix}{}", index + 1);
        match step.get("do").and_then(Value::as_str) {
            Some("repeat") => {
                let repeat: Repeat = parse(step, &at)?;
                for i in repeat.from..=repeat.to {
                    let mut steps = Value::Array(repeat.steps.clone());
                    substitute(&mut steps, i);
                    let Value::Array(steps) = steps else { unreachable!("it was an array") };
                    parsed.extend(parse_steps(steps, &format!("{at}[i={i}]."))?);
                }
            }
            Some("parallel") => {
                let parallel: Parallel = parse(step, &at)?;
                let branches = parallel.branches.into_iter().zip(1..);
                let branches = branches
                    .map(|(steps, n)| parse_steps(steps, &format!("{at}.{n}.")))
                    .collect::<Result<_, _>>()?;
                parsed.push(Located { at, action: Action::Parallel(branches) });
            }
            Some(name) if name.starts_with("registry.") => {
                let step = Box::new(parse(step, &at)?);
                parsed.push(Located { at, action: Action::Registry(step) });
            }
            Some(name) if name.starts_with("events.") => {
                let step = Box::new(parse(step, &at)?);
                parsed.push(Located { at, action: Action::Events(step) });
            }
            _ => {
                let step = Box::new(parse(step, &at)?);
                parsed.push(Located { at, action: Action::Step(step) });
            }
        }
    }
    Ok(parsed)
}

fn parse<T: DeserializeOwned>(value: Value, at: &str) -> Result<T, String> {
    let text = value.to_string();
    serde_json::from_value(value).map_err(|error| format!("step {at}: {error} in {text:.200}"))
}

/// Puts the number of a turn in place of `{i}`; a text that is nothing else becomes a number.
fn substitute(value: &mut Value, i: u64) {
    match value {
        Value::String(text) if text == "{i}" => *value = i.into(),
        Value::String(text) if text.contains("{i}") => *text = text.replace("{i}", &i.to_string()),
        Value::Array(items) => items.iter_mut().for_each(|item| substitute(item, i)),
        Value::Object(fields) => fields.values_mut().for_each(|field| substitute(field, i)),
        _ => {}
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Step {
    Start {
        node: String,
        options: Option<Value>,
        url: Option<String>,
        expect: Option<Failure>,
    },
    Shutdown {
        node: String,
        #[serde(default = "five_seconds")]
        deadline_ms: u64,
        expect: Option<Failure>,
    },
    Kill {
        node: String,
    },
    Outage {
        node: String,
    },
    Restore {
        node: String,
    },
    Advance {
        ms: u64,
    },
    Health {
        node: Option<String>,
        expect: Ready,
    },
    Stats {
        node: Option<String>,
        expect: BTreeMap<String, u64>,
    },

    Open(Open),
    Send {
        node: Option<String>,
        to: To,
        payload: Texts,
        key: Option<Text>,
        #[serde(default)]
        pipelined: bool,
        expect: ExpectSend,
    },
    Read {
        stream: String,
        expect: ExpectRead,
        save: Option<String>,
    },
    Idle {
        stream: String,
        node: Option<String>,
        #[serde(default)]
        fence: Fence,
    },
    Silent {
        stream: String,
    },
    Ended {
        stream: String,
        expect: String,
    },
    Survivor {
        among: Vec<String>,
        #[serde(rename = "as")]
        name: String,
        expect: String,
    },
    Release {
        stream: String,
    },
    Drop {
        stream: String,
    },
    Forgeries {
        node: Option<String>,
        session: Text,
        cursor: String,
        allowed: Texts,
    },
    Has {
        node: Option<String>,
        session: Text,
        #[serde(default)]
        eventually: bool,
        expect: Expect<bool>,
    },
    Known {
        node: Option<String>,
        session: Text,
        expect: Expect<bool>,
    },
    Close {
        node: Option<String>,
        session: Text,
        expect: Expect<bool>,
    },
    Forget {
        node: Option<String>,
        session: Text,
        expect: Expect<bool>,
    },

    #[serde(rename = "info.set")]
    InfoSet {
        node: Option<String>,
        session: Text,
        field: Field,
        value: Value,
        #[serde(default)]
        pad: usize,
        expect: Option<Failure>,
    },
    #[serde(rename = "info.get")]
    InfoGet {
        node: Option<String>,
        session: Text,
        field: Field,
        #[serde(default)]
        eventually: bool,
        expect: Expect<Is>,
    },
    #[serde(rename = "info.put")]
    InfoPut {
        node: Option<String>,
        session: Text,
        patch: BTreeMap<Field, Value>,
        expect: Option<Failure>,
    },
    #[serde(rename = "info.record")]
    InfoRecord {
        node: Option<String>,
        session: Text,
        expect: Expect<Is>,
    },
    #[serde(rename = "info.addSubscription")]
    InfoAddSubscription {
        node: Option<String>,
        session: Text,
        uri: Text,
        expect: Option<Failure>,
    },
    #[serde(rename = "info.removeSubscription")]
    InfoRemoveSubscription {
        node: Option<String>,
        session: Text,
        uri: Text,
        expect: Option<Failure>,
    },
    #[serde(rename = "info.getSubscriptions")]
    InfoGetSubscriptions {
        node: Option<String>,
        uri: Text,
        expect: Expect<Texts>,
    },
    #[serde(rename = "info.getSessionSubscriptions")]
    InfoGetSessionSubscriptions {
        node: Option<String>,
        session: Text,
        expect: Expect<Texts>,
    },
    #[serde(rename = "info.delete")]
    InfoDelete {
        node: Option<String>,
        session: Text,
        expect: Expect<bool>,
    },

    #[serde(rename = "subscription.listen")]
    Listen {
        node: Option<String>,
        id: Value,
        origin: String,
        filters: Filters,
        #[serde(rename = "as")]
        name: String,
        expect: Expect<bool>,
    },
    #[serde(rename = "subscription.acknowledge")]
    Acknowledge {
        subscription: String,
    },
    #[serde(rename = "subscription.waiting")]
    Waiting {
        subscription: String,
    },
    #[serde(rename = "subscription.notify")]
    Notify {
        node: Option<String>,
        notification: Value,
        #[serde(default)]
        pad: usize,
        expect: Option<Failure>,
    },
    #[serde(rename = "subscription.read")]
    ReadNotifications {
        subscription: String,
        expect: Vec<Value>,
    },
    #[serde(rename = "subscription.idle")]
    NotificationsIdle {
        subscription: String,
        node: Option<String>,
    },
    #[serde(rename = "subscription.ended")]
    SubscriptionEnded {
        subscription: String,
        expect: String,
    },
    #[serde(rename = "subscription.drop")]
    DropSubscription {
        subscription: String,
    },
    #[serde(rename = "subscription.close")]
    CloseSubscription {
        node: Option<String>,
        id: Value,
        origin: String,
        reason: CloseReason,
        expect: bool,
    },
    #[serde(rename = "subscription.closeAll")]
    CloseSubscriptions {
        node: Option<String>,
        origin: Option<String>,
        reason: CloseReason,
        expect: usize,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    pub node: Option<String>,
    pub session: Text,
    #[serde(rename = "as")]
    pub name: Option<String>,
    pub after: Option<After>,
    #[serde(default)]
    pub conflict: OnConflict,
    pub save: Option<String>,
    pub expect: Expect<Opened>,
}

fn five_seconds() -> u64 {
    5_000
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnConflict {
    #[default]
    Replace,
    Reject,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fence {
    #[default]
    Directed,
    Broadcast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CloseReason {
    Closed,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Field {
    ClientInfo,
    ClientCapabilities,
    LogLevel,
    ProtocolVersion,
    InitializeParams,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Filters {
    pub tools_list_changed: Option<bool>,
    pub prompts_list_changed: Option<bool>,
    pub resources_list_changed: Option<bool>,
    pub resource_subscriptions: Option<Texts>,
}

/// `"text"` or `{"repeat": "x", "times": 3}`.
#[derive(Debug, Clone)]
pub struct Text(pub String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeated {
    repeat: String,
    times: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sequence {
    sequence: String,
    from: u64,
    to: u64,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape {
            Plain(String),
            Repeated(Repeated),
        }
        Ok(Text(match Shape::deserialize(deserializer)? {
            Shape::Plain(text) => text,
            Shape::Repeated(Repeated { repeat, times }) => repeat.repeat(times),
        }))
    }
}

impl Sequence {
    fn texts(&self) -> impl Iterator<Item = String> {
        (self.from..=self.to).map(|n| format!("{}{n}", self.sequence))
    }
}

/// A text, `{"sequence": "m", "from": 1, "to": 9}`, or a list of both.
#[derive(Debug, Clone)]
pub struct Texts(pub Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Item {
            One(Text),
            Sequence(Sequence),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape {
            List(Vec<Item>),
            Single(Item),
        }
        let items = match Shape::deserialize(deserializer)? {
            Shape::List(items) => items,
            Shape::Single(item) => vec![item],
        };
        Ok(Texts(
            items
                .into_iter()
                .flat_map(|item| match item {
                    Item::One(Text(text)) => vec![text],
                    Item::Sequence(sequence) => sequence.texts().collect(),
                })
                .collect(),
        ))
    }
}

#[derive(Debug, Clone)]
pub enum To {
    One(String),
    List(Vec<String>),
    All,
}

impl<'de> Deserialize<'de> for To {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct All {
            all: bool,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape {
            One(Text),
            All(All),
            List(Texts),
        }
        match Shape::deserialize(deserializer)? {
            Shape::One(Text(id)) => Ok(To::One(id)),
            Shape::List(Texts(ids)) => Ok(To::List(ids)),
            Shape::All(All { all: true }) => Ok(To::All),
            Shape::All(_) => Err(serde::de::Error::custom("all is true, or not there")),
        }
    }
}

/// The cursor an open resumes after; `$name` is a saved one, any other text stands for itself.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum After {
    Cursor(Text),
    Truncate(Truncate),
    Flip(Flip),
    Extend(Extend),
    Foreign(Foreign),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truncate {
    pub truncate: String,
    pub by: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flip {
    pub flip: String,
    pub byte: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    pub extend: String,
    pub with: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Foreign {
    pub foreign: String,
}

/// A value, or an error.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Expect<T> {
    Failure(Failure),
    Value(T),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    pub error: String,
    pub message: Option<String>,
    pub message_lacks: Option<String>,
    pub retryable: Option<bool>,
    pub outcome_unknown: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    pub gap: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    pub ready: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Is {
    pub value: Value,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum ExpectSend {
    Failure(Failure),
    AnyOf(AnyOf),
    Receipt(Counts),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnyOf {
    pub any_of: Vec<Counts>,
}

/// A receipt; what is not named is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    #[serde(default)]
    pub accepted: u64,
    #[serde(default)]
    pub dropped: u64,
    #[serde(default)]
    pub duplicates: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum ExpectRead {
    Exactly(Vec<Expected>),
    Interleaved(Interleaved),
    HeadOf(HeadOf),
    TailOf(TailOf),
    RestOf(RestOf),
    SameAs(SameAs),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Expected {
    Event(EventIs),
    Texts(Texts),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventIs {
    pub payload: Text,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Directed,
    Broadcast,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interleaved {
    pub interleaved: Vec<Texts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadOf {
    pub head_of: Texts,
    pub at_least: usize,
    pub at_most: usize,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TailOf {
    pub tail_of: Texts,
    pub at_least: usize,
    pub at_most: usize,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestOf {
    pub rest_of: Texts,
    pub after: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SameAs {
    pub same_as: String,
}

/// Notifications in place of a generator: `{"each": {…}, "from": 1, "to": 9}` numbers them in `params.n`.
pub fn notifications(value: &Value) -> Result<Vec<Value>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Each {
        each: Value,
        from: u64,
        to: u64,
    }
    if value.get("each").is_none() {
        return Ok(vec![value.clone()]);
    }
    let Each { each, from, to } =
        serde_json::from_value(value.clone()).map_err(|error| format!("notification: {error}"))?;
    Ok((from..=to)
        .map(|n| {
            let mut one = each.clone();
            one["params"]["n"] = n.into();
            one
        })
        .collect())
}

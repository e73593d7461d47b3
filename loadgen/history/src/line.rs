//! One line of a history.
//!
//! Invariant: a line is a sound operation, or the problem names the field and what is allowed. The
//! common case is parsed once, straight into its types; only a line that this refuses is looked at
//! again, field by field, to say what is wrong with it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Consistency, Kind, Operation, Outcome};

/// A line without white space around it as an operation, or what is wrong with it.
pub(crate) fn parse(line: &[u8]) -> Result<Operation, String> {
    match serde_json::from_slice::<Line<'_>>(line) {
        // serde takes an array for the fields in their order.
        Ok(_) if line.first() != Some(&b'{') => Err(NO_OBJECT.to_owned()),
        Ok(parsed) => parsed.into_operation(),
        Err(error) => Err(diagnose(line, &error)),
    }
}

const NO_OBJECT: &str = "is not a JSON object; each line is one operation";

/// The fields as they stand. `None`: the field is not there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    process: u32,
    op: Kind,
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<Option<Text<'a>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    expected: Option<Option<Text<'a>>>,
    invoke_ns: i64,
    #[serde(default, deserialize_with = "present")]
    complete_ns: Option<Option<i64>>,
    outcome: Outcome,
    #[serde(default)]
    consistency: Consistency,
    #[serde(default)]
    revision: Option<i64>,
    #[serde(borrow, default)]
    node: Option<Text<'a>>,
    #[serde(borrow, default)]
    error: Option<Text<'a>>,
}

impl Line<'_> {
    fn into_operation(self) -> Result<Operation, String> {
        let cas_without_expected = self.op == Kind::Cas && self.expected.is_none();
        let operation = Operation {
            process: self.process,
            op: self.op,
            key: self.key.0.into_owned(),
            value: self.value.ok_or_else(|| missing("value"))?.map(Text::into_string),
            expected: self.expected.flatten().map(Text::into_string),
            invoke_ns: self.invoke_ns,
            complete_ns: self.complete_ns.ok_or_else(|| missing("complete_ns"))?,
            outcome: self.outcome,
            consistency: self.consistency,
            revision: self.revision,
            node: self.node.map(Text::into_string),
            error: self.error.map(Text::into_string),
        };
        if cas_without_expected {
            return Err(format!("{}; a cas needs it", missing("expected")));
        }
        match operation.problem() {
            Some(problem) => Err(problem),
            None => Ok(operation),
        }
    }
}

/// A string, borrowed from the line where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    fn into_string(self) -> String {
        self.0.into_owned()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Texts)
    }
}

/// A field that is there, be it null.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A field, what it may hold, and whether a line can do without.
struct Field {
    name: &'static str,
    required: bool,
    allowed: &'static str,
    holds: fn(&Value) -> bool,
}

const FIELDS: [Field; 12] = [
    field("process", true, "a whole number from 0 to 4294967295", is::<u32>),
    field("op", true, "\"put\", \"get\", \"cas\" or \"delete\"", is::<Kind>),
    field("key", true, "a string", is::<String>),
    field("value", true, "a string or null", is::<Option<String>>),
    field(
        "expected",
        false,
        "a string, or null where the key had to be absent",
        is::<Option<String>>,
    ),
    field("invoke_ns", true, "a whole number of ns", is::<i64>),
    field("complete_ns", true, "a whole number of ns, or null", is::<Option<i64>>),
    field("outcome", true, "\"ok\", \"fail\" or \"unknown\"", is::<Outcome>),
    field("consistency", false, "\"linearizable\" or \"serializable\"", is::<Consistency>),
    field("revision", false, "a whole number or null", is::<Option<i64>>),
    field("node", false, "a string or null", is::<Option<String>>),
    field("error", false, "a string or null", is::<Option<String>>),
];

const fn field(
    name: &'static str,
    required: bool,
    allowed: &'static str,
    holds: fn(&Value) -> bool,
) -> Field {
    Field { name, required, allowed, holds }
}

fn is<T: for<'de> Deserialize<'de> + Serialize>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

fn missing(name: &str) -> String {
    let field = FIELDS.iter().find(|field| field.name == name);
    format!("`{name}` is missing: {}", field.map_or("", |field| field.allowed))
}

/// What is wrong with a line that was refused for `error`.
fn diagnose(line: &[u8], error: &serde_json::Error) -> String {
    let fields = match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return NO_OBJECT.to_owned(),
        Err(error) => return format!("is not JSON: {}", in_line(&error)),
    };
    for field in &FIELDS {
        match fields.get(field.name) {
            None if field.required => return missing(field.name),
            Some(value) if !(field.holds)(value) => {
                return format!("`{}` must be {}, not {}", field.name, field.allowed, short(value));
            }
            _ => {}
        }
    }
    let names = FIELDS.map(|field| field.name);
    match fields.keys().find(|name| !names.contains(&name.as_str())) {
        Some(unknown) => format!(
            "`{}` is no field of an operation; the fields are {}",
            cut(unknown),
            names.join(", ")
        ),
        // A field that stands twice, for one.
        None => in_line(error),
    }
}

/// The line's number is told by whoever reads the file.
fn in_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

fn short(value: &Value) -> String {
    cut(&value.to_string())
}

fn cut(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

//! A profile's values, each with the place that it came from.
//!
//! Invariant: knows TOML and flags, and nothing of what a profile means. (serde would lose the
//! places in `[[faults]]`, whose keys depend on their kind.)

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::ProfileError;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origin {
    /// The file, 1-based.
    Line(usize),
    /// The command line, as given.
    Flag(String),
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) origin: Origin,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Table(BTreeMap<String, Value>),
    Array(Vec<Value>),
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A date; no key of a profile takes one.
    Date(String),
}

impl Kind {
    /// What errors call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Kind::Table(_) => "a table".into(),
            Kind::Array(_) => "an array".into(),
            Kind::Text(text) => format!("the string \"{text}\""),
            Kind::Integer(number) => format!("{number}"),
            Kind::Float(number) => format!("{number}"),
            Kind::Boolean(value) => format!("{value}"),
            Kind::Date(text) => format!("the date {text}"),
        }
    }

    /// As plain TOML, for what is handed on unread.
    pub(crate) fn to_toml(&self) -> toml::Value {
        match self {
            Kind::Table(table) => toml::Value::Table(
                table.iter().map(|(key, value)| (key.clone(), value.kind.to_toml())).collect(),
            ),
            Kind::Array(values) => {
                toml::Value::Array(values.iter().map(|value| value.kind.to_toml()).collect())
            }
            Kind::Text(text) => toml::Value::String(text.clone()),
            Kind::Integer(number) => toml::Value::Integer(*number),
            Kind::Float(number) => toml::Value::Float(*number),
            Kind::Boolean(value) => toml::Value::Boolean(*value),
            Kind::Date(text) => toml::Value::String(text.clone()),
        }
    }
}

/// One profile's values.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) file: String,
    pub(crate) root: Value,
}

/// One value that the command line puts in a profile's place.
#[derive(Clone, Debug)]
pub struct Change {
    flag: String,
    values: Vec<(Vec<String>, Kind)>,
}

impl Change {
    /// `PATH=VALUE`. The value is TOML; what is not is taken as a string, so that it needs no
    /// quotes.
    pub fn set(text: &str) -> Result<Self, ProfileError> {
        let flag = format!("--set {text}");
        let wrong = |message: &str| ProfileError::Flag {
            flag: flag.clone(),
            message: format!("{message}; give it as in --set load.rate_per_second=500"),
        };
        let (path, value) = text.split_once('=').ok_or_else(|| wrong("has no `=`"))?;
        let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(wrong("names no key"));
        }
        let origin = Origin::Flag(flag.clone());
        let source = format!("value = {value}");
        let kind = match DeTable::parse(&source) {
            Ok(table) if table.get_ref().len() == 1 => table
                .get_ref()
                .values()
                .next()
                .map(|value| kind(value.get_ref(), &|_| origin.clone()))
                .unwrap_or_else(|| Kind::Text(value.to_owned())),
            _ => Kind::Text(value.to_owned()),
        };
        Ok(Self { flag, values: vec![(path, kind)] })
    }

    /// `--target`.
    pub fn target(target: &str) -> Self {
        Self {
            flag: format!("--target {target}"),
            values: vec![(path("cluster.target"), Kind::Text(target.to_owned()))],
        }
    }

    /// `--endpoints`.
    pub fn endpoints(endpoints: &[String]) -> Self {
        let flag = format!("--endpoints {}", endpoints.join(","));
        let origin = Origin::Flag(flag.clone());
        let list = endpoints
            .iter()
            .map(|text| Value { origin: origin.clone(), kind: Kind::Text(text.clone()) })
            .collect();
        Self {
            flag,
            values: vec![
                (path("cluster.target"), Kind::Text("external".into())),
                (path("cluster.endpoints"), Kind::Array(list)),
            ],
        }
    }
}

impl Document {
    /// Reads TOML; `file` is what errors call it.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        let line_at = |offset: usize| 1 + text[..offset.min(text.len())].matches('\n').count();
        let table = DeTable::parse(text).map_err(|error| ProfileError::Syntax {
            file: file.to_owned(),
            line: line_at(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let origin_at = |offset: usize| Origin::Line(line_at(offset));
        let root = Value { origin: Origin::Line(1), kind: table_kind(table.get_ref(), &origin_at) };
        Ok(Self { file: file.to_owned(), root })
    }

    /// Puts the command line's value in; tables that are missing on the way are made.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), ProfileError> {
        for (path, kind) in &change.values {
            put(&mut self.root, path, kind, &change.flag)?;
        }
        Ok(())
    }
}

fn put(at: &mut Value, path: &[String], kind: &Kind, flag: &str) -> Result<(), ProfileError> {
    let wrong = |message: String| ProfileError::Flag { flag: flag.to_owned(), message };
    let Some((first, rest)) = path.split_first() else {
        *at = Value { origin: Origin::Flag(flag.to_owned()), kind: kind.clone() };
        return Ok(());
    };
    let here = at.kind.name();
    match &mut at.kind {
        Kind::Table(table) => {
            let empty = || Value {
                origin: Origin::Flag(flag.to_owned()),
                kind: Kind::Table(BTreeMap::new()),
            };
            put(table.entry(first.clone()).or_insert_with(empty), rest, kind, flag)
        }
        Kind::Array(values) => {
            let count = values.len();
            let index = first.strip_prefix('f').and_then(|number| number.parse::<usize>().ok());
            let value = index.and_then(|index| values.get_mut(index.checked_sub(1)?));
            let value = value.ok_or_else(|| {
                wrong(match count {
                    0 => format!("there is no `{first}`: the list is empty"),
                    _ => format!("there is no `{first}`: they are called f1 to f{count}"),
                })
            })?;
            put(value, rest, kind, flag)
        }
        _ => Err(wrong(format!("`{first}` cannot be set inside {here}, which is not a table"))),
    }
}

fn path(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

fn table_kind(table: &DeTable<'_>, origin_at: &dyn Fn(usize) -> Origin) -> Kind {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        // The key's line, not the value's: a multi-line array's error points at its name.
        let origin = origin_at(key.span().start);
        (name.to_string(), Value { origin, kind: kind(value.get_ref(), origin_at) })
    };
    Kind::Table(table.iter().map(entry).collect())
}

fn kind(value: &DeValue<'_>, origin_at: &dyn Fn(usize) -> Origin) -> Kind {
    match value {
        DeValue::Table(table) => table_kind(table, origin_at),
        DeValue::Array(values) => Kind::Array(
            values
                .iter()
                .map(|value| Value {
                    origin: origin_at(value.span().start),
                    kind: kind(value.get_ref(), origin_at),
                })
                .collect(),
        ),
        DeValue::String(text) => Kind::Text(text.to_string()),
        // An integer too large for i64 is still a number: as a float it meets the range checks.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(
                |_| Kind::Float(number.as_str().parse().unwrap_or(f64::INFINITY)),
                Kind::Integer,
            ),
        DeValue::Float(number) => Kind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Kind::Boolean(*value),
        DeValue::Datetime(date) => Kind::Date(date.to_string()),
    }
}

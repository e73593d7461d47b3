//! Typed reading of one table of a profile.
//!
//! Invariant: a key that the table does not know is refused before any of its values is read, so
//! that a misspelt key is never reported as a missing one.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Document, Kind, Origin, Value};
use super::{ProfileError, listed, nearest};

/// A table under its path; empty where the profile leaves it out.
#[derive(Clone)]
pub(crate) struct Section<'a> {
    file: &'a str,
    path: String,
    origin: Origin,
    table: Option<&'a BTreeMap<String, Value>>,
}

/// What numbers a key takes.
#[derive(Clone, Copy)]
pub(crate) enum Numbers {
    /// More than this.
    Above(f64),
    /// This or more.
    AtLeast(f64),
    /// From, to.
    Within(f64, f64),
}

/// The longest time that a key takes: a day.
const MAX_SECONDS: f64 = 86_400.0;

impl<'a> Section<'a> {
    /// The whole document.
    pub(crate) fn root(document: &'a Document, keys: &[&str]) -> Result<Self, ProfileError> {
        Self::of(&document.file, String::new(), &document.root, keys)
    }

    /// `value` as a table that knows `keys`.
    pub(crate) fn of(
        file: &'a str,
        path: String,
        value: &'a Value,
        keys: &[&str],
    ) -> Result<Self, ProfileError> {
        let mut section = Self { file, path, origin: value.origin.clone(), table: None };
        let Kind::Table(table) = &value.kind else {
            return Err(section.error(format!("is {}; it must be a table", value.kind.name())));
        };
        section.table = Some(table);
        match table.keys().find(|key| !keys.contains(&key.as_str())) {
            None => Ok(section),
            Some(unknown) => Err(section.error_at(
                unknown,
                format!(
                    "is not a known key{}; allowed: {}",
                    nearest(unknown, keys),
                    keys.join(", ")
                ),
            )),
        }
    }

    /// A table inside this one.
    pub(crate) fn section(&self, key: &str, keys: &[&str]) -> Result<Section<'a>, ProfileError> {
        match self.value(key) {
            Some(value) => Self::of(self.file, self.path_of(key), value, keys),
            None => Ok(Section {
                file: self.file,
                path: self.path_of(key),
                origin: self.origin.clone(),
                table: None,
            }),
        }
    }

    /// A table that is handed on as it stands, once `check` accepts each of its keys.
    pub(crate) fn raw_table(
        &self,
        key: &str,
        check: impl Fn(toml::Table) -> Result<(), String>,
    ) -> Result<toml::Table, ProfileError> {
        let Some(value) = self.value(key) else { return Ok(toml::Table::new()) };
        let toml::Value::Table(table) = value.kind.to_toml() else {
            return Err(self.wrong(key, value, "a table"));
        };
        let keys: Vec<&str> = table.keys().map(String::as_str).collect();
        let section = Self::of(self.file, self.path_of(key), value, &keys)?;
        for (key, value) in &table {
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            check(alone)
                .map_err(|problem| section.error_at(key, format!("is refused: {problem}")))?;
        }
        Ok(table)
    }

    /// The tables of an array, each as file, path and value; `name` makes an element's path.
    pub(crate) fn array(&self, key: &str) -> Result<&'a [Value], ProfileError> {
        match self.value(key) {
            None => Ok(&[]),
            Some(Value { kind: Kind::Array(values), .. }) => Ok(values),
            Some(value) => Err(self.wrong(key, value, "an array")),
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.table?.get(key)
    }

    pub(crate) fn file(&self) -> &'a str {
        self.file
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, ProfileError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value { kind: Kind::Boolean(value), .. }) => Ok(Some(*value)),
            Some(value) => Err(self.wrong(key, value, "true or false")),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ProfileError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value { kind: Kind::Text(text), .. }) => Ok(Some(text)),
            Some(value) => Err(self.wrong(key, value, "a string")),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, ProfileError> {
        if self.value(key).is_none() {
            return Ok(None);
        }
        let text = |value: &Value| match &value.kind {
            Kind::Text(text) => Ok(text.clone()),
            _ => Err(self.wrong(key, value, "an array of strings")),
        };
        self.array(key)?.iter().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A string that must be one of `choices`.
    pub(crate) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, ProfileError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => Err(self.error_at(
                key,
                format!("`{text}` is not one of {}{}", listed(&names), nearest(text, &names)),
            )),
        }
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str, range: Numbers) -> Result<Option<f64>, ProfileError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = match value.kind {
            Kind::Integer(number) => number as f64,
            Kind::Float(number) => number,
            _ => return Err(self.wrong(key, value, "a number")),
        };
        let (fits, wanted) = match range {
            Numbers::Above(least) => (number > least, format!("above {least}")),
            Numbers::AtLeast(least) => (number >= least, format!("{least} or more")),
            Numbers::Within(least, most) => {
                (number >= least && number <= most, format!("from {least} to {most}"))
            }
        };
        match fits && number.is_finite() {
            true => Ok(Some(number)),
            false => Err(self.error_at(key, format!("is {number}; it must be a number {wanted}"))),
        }
    }

    /// A whole number; `500.0` will do.
    pub(crate) fn integer(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ProfileError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = match value.kind {
            Kind::Integer(number) => u64::try_from(number).ok(),
            Kind::Float(number) if number.fract() == 0.0 && (0.0..1e15).contains(&number) => {
                Some(number as u64)
            }
            Kind::Float(_) => None,
            _ => return Err(self.wrong(key, value, "a whole number")),
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.error_at(
                key,
                format!(
                    "is {}; it must be a whole number from {} to {}",
                    value.kind.name(),
                    range.start(),
                    range.end()
                ),
            )),
        }
    }

    /// A time in seconds, up to a day.
    pub(crate) fn seconds(
        &self,
        key: &str,
        may_be_zero: bool,
    ) -> Result<Option<Duration>, ProfileError> {
        let least = if may_be_zero { 0.0 } else { 0.001 };
        let seconds = self.number(key, Numbers::Within(least, MAX_SECONDS))?;
        Ok(seconds.map(Duration::from_secs_f64))
    }

    /// An error about this table.
    pub(crate) fn error(&self, message: String) -> ProfileError {
        refused(self.file, &self.origin, &self.path, message)
    }

    /// An error about one of its keys, present or not.
    pub(crate) fn error_at(&self, key: &str, message: String) -> ProfileError {
        let origin = self.value(key).map_or(&self.origin, |value| &value.origin);
        refused(self.file, origin, &self.path_of(key), message)
    }

    /// An error about a key that must be there and is not.
    pub(crate) fn missing(&self, key: &str, what: &str) -> ProfileError {
        self.error_at(key, format!("is missing; give {what}"))
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> ProfileError {
        self.error_at(key, format!("is {}; it must be {wanted}", value.kind.name()))
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn refused(file: &str, origin: &Origin, path: &str, message: String) -> ProfileError {
    let place = match origin {
        Origin::Line(line) => format!("{file}:{line}: `{path}`"),
        Origin::Flag(flag) => format!("{flag} (in {file}): `{path}`"),
    };
    ProfileError::Refused { place, message }
}

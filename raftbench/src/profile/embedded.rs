//! The profiles that the program carries.

use include_dir::{Dir, include_dir};

use super::{ProfileError, nearest};

static PROFILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../profiles");

/// Their names, sorted.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = PROFILES
        .files()
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "toml"))
        .filter_map(|file| file.path().file_stem()?.to_str())
        .collect();
    names.sort_unstable();
    names
}

/// The text of one; an unknown name lists those that there are.
pub fn text(name: &str) -> Result<&'static str, ProfileError> {
    PROFILES.get_file(format!("{name}.toml")).and_then(|file| file.contents_utf8()).ok_or_else(
        || ProfileError::UnknownName {
            name: name.to_owned(),
            hint: nearest(name, &names()),
            known: names().join(", "),
        },
    )
}

/// The sentence that one opens with; empty where it has none.
pub fn description(name: &str) -> String {
    let table: Option<toml::Table> = text(name).ok().and_then(|text| text.parse().ok());
    table.and_then(|table| Some(table.get("description")?.as_str()?.to_owned())).unwrap_or_default()
}

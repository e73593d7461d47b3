//! The profiles that the program carries, the networks and the disks.

use std::path::Path;

use include_dir::{Dir, include_dir};

use super::{ProfileError, nearest};

static PROFILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../profiles");

/// What is kept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// `profiles/*.toml`
    Profiles,
    /// `profiles/networks/*.toml`
    Networks,
    /// `profiles/disks/*.toml`
    Disks,
}

impl Shelf {
    pub(super) fn folder(self) -> &'static str {
        match self {
            Shelf::Profiles => "",
            Shelf::Networks => "networks",
            Shelf::Disks => "disks",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Shelf::Profiles => "profile",
            Shelf::Networks => "network",
            Shelf::Disks => "disk",
        }
    }

    /// The names of all on it, sorted.
    pub fn names(self) -> Vec<&'static str> {
        let folder = match self {
            Shelf::Profiles => Some(&PROFILES),
            Shelf::Networks | Shelf::Disks => PROFILES.get_dir(self.folder()),
        };
        let mut names: Vec<&str> = folder
            .into_iter()
            .flat_map(|folder| folder.files())
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "toml"))
            .filter_map(|file| file.path().file_stem()?.to_str())
            .collect();
        names.sort_unstable();
        names
    }

    /// The text of one; an unknown name lists those that there are.
    pub fn text(self, name: &str) -> Result<&'static str, ProfileError> {
        let path = Path::new(self.folder()).join(format!("{name}.toml"));
        PROFILES.get_file(path).and_then(|file| file.contents_utf8()).ok_or_else(|| {
            ProfileError::UnknownName {
                what: self.what(),
                name: name.to_owned(),
                hint: nearest(name, &self.names()),
                known: self.names().join(", "),
            }
        })
    }

    /// The sentence that one opens with; empty where it has none.
    pub fn description(self, name: &str) -> String {
        let table: Option<toml::Table> = self.text(name).ok().and_then(|text| text.parse().ok());
        let text = table.and_then(|table| Some(table.get("description")?.as_str()?.to_owned()));
        text.unwrap_or_default()
    }
}

/// The names of all profiles, sorted.
pub fn names() -> Vec<&'static str> {
    Shelf::Profiles.names()
}

/// The text of a profile; an unknown name lists those that there are.
pub fn text(name: &str) -> Result<&'static str, ProfileError> {
    Shelf::Profiles.text(name)
}

/// The sentence that a profile opens with; empty where it has none.
pub fn description(name: &str) -> String {
    Shelf::Profiles.description(name)
}

//! From the value of `--model` to a local directory or the bundled model. Nothing here uses the
//! network: a missing model is an error that names the command that fetches it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::place::{BUNDLED, BUNDLED_NAMES};
use super::{CheckpointError, Hub, ModelLocation};

/// A released model with a short name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownModel {
    /// The short name.
    pub name: &'static str,
    /// The repository on the hub.
    pub repo: &'static str,
    /// Parameters of encoder and decoder together, in millions.
    pub parameters_in_millions: u32,
    /// A short description.
    pub note: &'static str,
}

/// The licence of all models in [`KNOWN_MODELS`].
pub const ANKH_LICENCE: &str = "CC-BY-NC-SA-4.0";

/// The official Ankh models.
pub const KNOWN_MODELS: &[KnownModel] = &[
    known(
        "ankh3-large",
        "ElnaggarLab/ankh3-large",
        1879,
        "Ankh3, prefixes [NLU] and [S2S]",
    ),
    known(
        "ankh3-xl",
        "ElnaggarLab/ankh3-xl",
        5731,
        "Ankh3, prefixes [NLU] and [S2S]",
    ),
    known("ankh-base", "ElnaggarLab/ankh-base", 737, "Ankh v1"),
    known("ankh-large", "ElnaggarLab/ankh-large", 1879, "Ankh v1"),
    known("ankh2-large", "ElnaggarLab/ankh2-large", 1879, "Ankh v2"),
    known(
        "ankh2-ext1",
        "ElnaggarLab/ankh2-ext1",
        1879,
        "Ankh v2, trained further",
    ),
    known(
        "ankh2-ext2",
        "ElnaggarLab/ankh2-ext2",
        1879,
        "Ankh v2, trained further still",
    ),
];

const fn known(
    name: &'static str,
    repo: &'static str,
    parameters_in_millions: u32,
    note: &'static str,
) -> KnownModel {
    KnownModel {
        name,
        repo,
        parameters_in_millions,
        note,
    }
}

/// Every short name, for messages.
pub fn known_names() -> String {
    let names = KNOWN_MODELS.iter().map(|model| model.name);
    let names: Vec<_> = BUNDLED_NAMES[..1].iter().copied().chain(names).collect();
    names.join(", ")
}

/// A parsed value of `--model`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelRef {
    /// A directory on this machine.
    Directory(PathBuf),
    /// The bundled model.
    Bundled,
    /// A repository of the hub.
    Hub {
        /// The value as given.
        name: String,
        /// `owner/repo`.
        repo: String,
        /// Branch, tag or commit; `main` by default.
        revision: String,
    },
}

impl ModelRef {
    /// Distinguishes directories, known names and repositories. An existing directory has priority;
    /// over the bundled model's name only a directory that contains a model. `./name` is never a
    /// repository.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let path = Path::new(text);
        if BUNDLED_NAMES.contains(&text) && !path.join("config.json").is_file() {
            return Ok(ModelRef::Bundled);
        }
        if path.is_dir() {
            return Ok(ModelRef::Directory(path.to_path_buf()));
        }
        if path.is_file() {
            return Err(CheckpointError::IsAFile(path.to_path_buf()));
        }
        ModelRef::parse_name(text)
    }

    /// Parses known names and repositories only, for `ankh3 fetch`.
    pub fn parse_name(text: &str) -> Result<Self, CheckpointError> {
        if BUNDLED_NAMES.contains(&text) {
            return Ok(ModelRef::Bundled);
        }
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let known = KNOWN_MODELS
            .iter()
            .find(|model| model.name == name)
            .map(|model| model.repo);
        match known.or_else(|| is_repo(name).then_some(name)) {
            Some(repo) if is_revision(revision) => Ok(ModelRef::Hub {
                name: text.to_string(),
                repo: repo.to_string(),
                revision: revision.to_string(),
            }),
            _ => Err(CheckpointError::UnknownModel(text.to_string())),
        }
    }

    /// The location of the model's files.
    pub fn resolve(&self, hub: &Hub) -> Result<ModelLocation, CheckpointError> {
        match self {
            ModelRef::Directory(dir) => Ok(ModelLocation::Directory(dir.clone())),
            ModelRef::Bundled => Ok(ModelLocation::bundled()),
            ModelRef::Hub {
                name,
                repo,
                revision,
            } => hub
                .snapshot(repo, revision)
                .map(ModelLocation::Directory)
                .ok_or_else(|| CheckpointError::NotCached {
                    name: name.clone(),
                    cache: hub.cache.clone(),
                }),
        }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelRef::Directory(dir) => write!(f, "{}", dir.display()),
            ModelRef::Bundled => f.write_str(BUNDLED),
            ModelRef::Hub { repo, revision, .. } => write!(f, "{repo}@{revision}"),
        }
    }
}

/// Whether the text is `owner/repo` with the characters that the hub allows.
fn is_repo(text: &str) -> bool {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && part.chars().all(allowed)
    };
    text.split_once('/')
        .is_some_and(|(owner, repo)| part(owner) && part(repo))
}

/// Whether a revision is safe as a part of a path (`refs/<revision>`).
fn is_revision(text: &str) -> bool {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    text.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_repositories() {
        let table = [
            ("ankh3-large", Some("ElnaggarLab/ankh3-large@main")),
            ("ankh3-xl@v1.0", Some("ElnaggarLab/ankh3-xl@v1.0")),
            ("Synthyra/ANKH3_large", Some("Synthyra/ANKH3_large@main")),
            ("owner/repo@refs/pr/1", Some("owner/repo@refs/pr/1")),
            ("nano", Some("ankh3-nano")),
            ("ankh3-nano", Some("ankh3-nano")),
            ("owner/repo@../../x", None),
            ("owner/repo@", None),
            ("./owner/repo", None),
            ("../repo", None),
            ("a/b/c", None),
            ("ankh9", None),
            ("", None),
        ];
        for (text, expected) in table {
            let parsed = ModelRef::parse_name(text)
                .ok()
                .map(|model| model.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_cached_names_the_command() {
        let empty = tempfile::tempdir().unwrap();
        let hub = Hub {
            cache: empty.path().to_path_buf(),
            endpoint: String::new(),
            token: None,
            offline: true,
        };
        let model = ModelRef::parse("ankh3-large").unwrap();
        let message = model.resolve(&hub).unwrap_err().to_string();
        assert!(message.contains("`ankh3 fetch ankh3-large`"), "{message}");
        let message = ModelRef::parse("ankh9").unwrap_err().to_string();
        assert!(message.contains("ankh3-large, ankh3-xl"), "{message}");
    }

    #[test]
    fn a_directory_has_priority_and_a_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().to_str().unwrap();
        assert_eq!(
            ModelRef::parse(text).unwrap(),
            ModelRef::Directory(dir.path().to_path_buf())
        );
        let file = dir.path().join("model.safetensors");
        std::fs::write(&file, b"").unwrap();
        let message = ModelRef::parse(file.to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(message.contains("is a file"), "{message}");
    }
}

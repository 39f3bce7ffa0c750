//! The addresses of the hub and its cache, from the same environment variables as
//! `huggingface_hub`, read once.
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HUB_CACHE` | the cache directory; else `$HF_HOME/hub`, else `$XDG_CACHE_HOME/huggingface/hub`, else `~/.cache/huggingface/hub` |
//! | `HF_ENDPOINT` | the hub's address, `https://huggingface.co` |
//! | `HF_TOKEN` | for gated repositories; else `HUGGING_FACE_HUB_TOKEN`, else the file `HF_TOKEN_PATH` or `$HF_HOME/token` |
//! | `HF_HUB_OFFLINE` | `1`, `true`, `yes` or `on`: no network even for `ankh3 fetch` |

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use super::weights;

/// The settings of the hub and its cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// The directory of `models--owner--repo` folders.
    pub cache: PathBuf,
    /// The hub's address without blanks around it and without a trailing slash.
    pub endpoint: String,
    /// The bearer token of requests.
    pub token: Option<String>,
    /// True where the network must not be used.
    pub offline: bool,
}

impl Hub {
    /// The settings of the process's environment.
    pub fn from_env() -> Self {
        Hub::from_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// The settings of any source of variables, so that tests need not change their process's
    /// environment.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        let home = home(&variable);
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        let token_file =
            variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let offline = text("HF_HUB_OFFLINE")
            .unwrap_or_default()
            .to_ascii_lowercase();
        Hub {
            cache: cache.map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: endpoint.trim().trim_end_matches('/').to_string(),
            token: ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
                .into_iter()
                .find_map(|name| cleaned(&text(name)?))
                .or_else(|| cleaned(&std::fs::read_to_string(token_file).ok()?)),
            offline: ["1", "true", "yes", "on"].contains(&offline.as_str()),
        }
    }

    /// The folder of one repository: blobs, refs, snapshots.
    pub(super) fn repo_dir(&self, repo: &str) -> PathBuf {
        self.cache.join(model_repo(repo, "main").folder_name())
    }

    /// The directory of one commit's files.
    pub(super) fn snapshot_dir(&self, repo: &str, commit: &str) -> PathBuf {
        Cache::new(self.cache.clone())
            .repo(model_repo(repo, commit))
            .pointer_path(commit)
    }

    /// The folders of all repositories of models in the cache, including incomplete ones.
    pub(super) fn repo_dirs(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(&self.cache).into_iter().flatten();
        let paths = folders.flatten().map(|folder| folder.path());
        let is_model = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("models--")
        };
        let mut folders: Vec<PathBuf> = paths.filter(is_model).collect();
        folders.sort();
        folders
    }

    /// `owner/repo` of every model folder in the cache without a short name, sorted, including
    /// incomplete ones.
    pub fn cached_models(&self) -> Vec<String> {
        let folders = self.repo_dirs().into_iter();
        let names = folders.filter_map(|folder| folder.file_name()?.to_str().map(str::to_string));
        let repos =
            names.filter_map(|name| Some(name.strip_prefix("models--")?.replacen("--", "/", 1)));
        let known = |repo: &String| super::KNOWN_MODELS.iter().any(|model| model.repo == repo);
        let mut repos: Vec<String> = repos.filter(|repo| !known(repo)).collect();
        repos.sort();
        repos
    }

    /// The commit of a revision in the cache; a revision without a reference is a commit itself.
    pub(super) fn commit(&self, repo: &str, revision: &str) -> String {
        let reference = self.repo_dir(repo).join("refs").join(revision);
        let commit = std::fs::read_to_string(reference);
        commit.map_or_else(|_| revision.to_string(), |text| text.trim().to_string())
    }

    /// A complete local copy of a repository at a revision (branch, tag or full commit), if one
    /// exists.
    pub fn snapshot(&self, repo: &str, revision: &str) -> Option<PathBuf> {
        let dir = self.snapshot_dir(repo, &self.commit(repo, revision));
        (dir.join("config.json").is_file() && weights::are_complete(&dir)).then_some(dir)
    }
}

/// hf-hub's description of a model repository.
pub(super) fn model_repo(repo: &str, revision: &str) -> Repo {
    Repo::with_revision(repo.to_string(), RepoType::Model, revision.to_string())
}

/// `(owner/repo, commit)` of a directory inside a cache: `…/models--owner--repo/snapshots/commit`.
pub(super) fn provenance(dir: &Path) -> Option<(String, String)> {
    let commit = dir.file_name()?.to_str()?;
    let snapshots = dir.parent()?;
    let folder = snapshots.parent()?.file_name()?.to_str()?;
    let repo = folder.strip_prefix("models--")?.replacen("--", "/", 1);
    (snapshots.file_name()? == "snapshots").then(|| (repo, commit.to_string()))
}

fn home(variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    if let Some(home) = variable("HF_HOME") {
        return home.into();
    }
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")));
    cache.unwrap_or_else(|| ".cache".into()).join("huggingface")
}

/// A token without blanks around it and without line ends, which secrets made from files have;
/// `None` where nothing is left.
fn cleaned(token: &str) -> Option<String> {
    let token = token.replace(['\r', '\n'], "");
    Some(token.trim().to_string()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Hub {
        Hub::from_variables(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_looks() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[("HOME", "/h")], "/h/.cache/huggingface/hub"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/x/huggingface/hub",
            ),
            (&[("HOME", "/h"), ("HF_HOME", "/hf")], "/hf/hub"),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")], "/c"),
        ];
        for (variables, cache) in table {
            assert_eq!(hub(variables).cache, Path::new(cache), "{variables:?}");
        }
    }

    #[test]
    fn endpoint_token_and_offline_are_read() {
        let set = hub(&[
            ("HF_ENDPOINT", " http://127.0.0.1:1/\n"),
            ("HF_TOKEN", "secret"),
            ("HF_HUB_OFFLINE", "YES"),
        ]);
        assert_eq!(set.endpoint, "http://127.0.0.1:1");
        assert_eq!(set.token.as_deref(), Some("secret"));
        assert!(set.offline);
        assert!(!hub(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn a_token_loses_blanks_and_line_ends() {
        type Variables = &'static [(&'static str, &'static str)];
        let table: [(Variables, Option<&str>); 7] = [
            (&[("HF_TOKEN", "good\n")], Some("good")),
            (&[("HF_TOKEN", " \tgood \r\n")], Some("good")),
            (&[("HUGGING_FACE_HUB_TOKEN", "good\r\n")], Some("good")),
            (
                &[("HF_TOKEN", "new"), ("HUGGING_FACE_HUB_TOKEN", "old")],
                Some("new"),
            ),
            (
                &[("HF_TOKEN", " \n"), ("HUGGING_FACE_HUB_TOKEN", "old")],
                Some("old"),
            ),
            (&[("HF_TOKEN", "\n")], None),
            (&[], None),
        ];
        for (variables, token) in table {
            assert_eq!(hub(variables).token.as_deref(), token, "{variables:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "  of-a-file\n\n").unwrap();
        let path = file.to_str().unwrap();
        let token = hub(&[("HF_TOKEN_PATH", path)]).token;
        assert_eq!(token.as_deref(), Some("of-a-file"));
    }

    #[test]
    fn a_snapshot_knows_its_repository() {
        let dir = Path::new("/c/models--ElnaggarLab--ankh3-large/snapshots/abc");
        let expected = ("ElnaggarLab/ankh3-large".to_string(), "abc".to_string());
        assert_eq!(provenance(dir), Some(expected));
        assert_eq!(provenance(Path::new("/models/nano")), None);
    }
}

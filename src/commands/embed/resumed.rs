//! What an earlier run left of an output: its journal, and files that it could not take away.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::output::embeddings::{Schema, remove_unfinished};
use crate::output::journal::{self, Journal, JournalError, Replay};

/// The journal of a run that can be resumed.
#[derive(Default)]
pub(super) struct Resumed {
    pub replay: Option<Replay>,
    pub journal: Option<Journal>,
}

impl Resumed {
    /// Opens the journal of `output`. Its key is the schema: everything that influences the values.
    pub(super) fn open(resume: bool, output: &Path, schema: &Schema) -> Result<Self> {
        if !resume {
            return Ok(Self::default());
        }
        let path = journal::path_for(output);
        let key = serde_json::to_string(schema)?;
        let (replay, journal) = journal::open(&path, &key).map_err(|error| explain(error, &key))?;
        // The open journal is locked: whatever lies there unfinished belongs to nobody any more.
        remove_unfinished(output).with_context(|| format!("writing {}", output.display()))?;
        if replay.left() > 0 {
            tracing::info!("resuming: {} sequences are done already", replay.left());
        }
        Ok(Self {
            replay: Some(replay),
            journal: Some(journal),
        })
    }
}

/// Says in what the other run differs.
fn explain(error: JournalError, key: &str) -> anyhow::Error {
    let JournalError::OtherRun { path, found } = error else {
        return error.into();
    };
    let differences = differences(&found, key);
    anyhow!(
        "{} holds results of another run: {differences}. Give the command it was made with, or delete it to begin anew, or run without --resume",
        path.display()
    )
}

/// `prefix was "nlu", now "s2s"; …`
fn differences(found: &str, key: &str) -> String {
    let parse = |text| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (found, now) = (parse(found), parse(key));
    let mut list = Vec::new();
    for part in ["metadata", "columns", "dtype"] {
        compare(part, &found[part], &now[part], &mut list);
    }
    list.join("; ")
}

fn compare(name: &str, was: &Value, now: &Value, list: &mut Vec<String>) {
    if let (Value::Object(was), Value::Object(now)) = (was, now) {
        let new = now.keys().filter(|key| !was.contains_key(*key));
        for key in was.keys().chain(new) {
            let value = |of: &serde_json::Map<_, _>| of.get(key).cloned().unwrap_or_default();
            compare(key, &value(was), &value(now), list);
        }
    } else if was != now {
        list.push(format!("{name} was {was}, now {now}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let was = r#"{"metadata":{"prefix":"nlu","shard":"1/2","model":"m"},"dtype":"f32"}"#;
        let now = r#"{"metadata":{"prefix":"s2s","model":"m","length_limit":5},"dtype":"f32"}"#;
        assert_eq!(
            differences(was, now),
            r#"prefix was "nlu", now "s2s"; shard was "1/2", now null; length_limit was null, now 5"#
        );
    }
}

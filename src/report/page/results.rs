//! The files of a page and their content.

use serde_json::Value;

use super::sequences::ResultSequence;
use super::table::PlainTable;
use crate::output::embeddings::inspect::EmbeddingSummary;
use crate::report::contact_map::ContactList;
use crate::report::training_log::TrainingLog;

/// One file of a run.
#[derive(Clone, Debug)]
pub struct ResultFile {
    /// The path as given.
    pub name: String,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the whole file in hexadecimal.
    pub sha256: String,
    /// How the file was made: its metadata, or the `.json` beside it.
    pub provenance: Option<Value>,
    /// The content.
    pub content: ResultContent,
}

/// The content of a file.
#[derive(Clone, Debug)]
pub enum ResultContent {
    /// Embeddings: their summary, and the id and length of each protein.
    Embeddings(Box<EmbeddingSummary>, Vec<(String, usize)>),
    /// FASTA, with the numbers of its headers where `ankh3 complete` wrote it.
    Sequences(Vec<ResultSequence>),
    /// Contacts, one entry per protein.
    Contacts(Vec<ContactList>),
    /// A table with one row per measure, made by `probe evaluate` or `contacts evaluate`.
    Measures(PlainTable),
    /// A table of scores, sites or anything else.
    Table(PlainTable),
    /// The log of a training run.
    Training(TrainingLog),
    /// The text of a recipe.
    Recipe(String),
    /// A `.json` file whose own file is not part of the report.
    Manifest,
}

impl ResultContent {
    /// The name on the page.
    pub fn name(&self) -> &'static str {
        match self {
            ResultContent::Embeddings(..) => "embeddings",
            ResultContent::Sequences(_) => "sequences",
            ResultContent::Contacts(_) => "contacts",
            ResultContent::Measures(_) => "evaluation",
            ResultContent::Table(_) => "table",
            ResultContent::Training(_) => "training log",
            ResultContent::Recipe(_) => "recipe",
            ResultContent::Manifest => "provenance",
        }
    }
}

impl ResultFile {
    /// The model's name, where the file says it.
    pub fn model(&self) -> Option<&str> {
        self.provenance.as_ref()?.get("model")?.as_str()
    }

    /// Whether a random, untrained model made the file.
    pub fn is_of_random_model(&self) -> bool {
        let provenance = self.provenance.as_ref();
        provenance.and_then(|value| value.get("model_is_random")) == Some(&Value::Bool(true))
    }

    /// Id and length of each protein whose length the file states.
    pub fn lengths(&self) -> Vec<(&str, usize)> {
        match &self.content {
            ResultContent::Embeddings(_, proteins) => proteins
                .iter()
                .map(|(id, length)| (id.as_str(), *length))
                .collect(),
            ResultContent::Sequences(records) => records
                .iter()
                .filter(|record| record.completion.is_none())
                .map(|record| (record.id.as_str(), record.residues.len()))
                .collect(),
            ResultContent::Contacts(lists) => lists
                .iter()
                .filter(|list| list.length > 0)
                .map(|list| (list.id.as_str(), list.length))
                .collect(),
            ResultContent::Table(table) => {
                let columns = table.column("id").zip(table.column("length"));
                let length =
                    |row: &Vec<String>, at: usize| -> Option<usize> { row[at].parse().ok() };
                let rows = columns.into_iter().flat_map(|(id, at)| {
                    let rows = table.rows.iter();
                    rows.filter_map(move |row| Some((row[id].as_str(), length(row, at)?)))
                });
                rows.collect()
            }
            ResultContent::Measures(_)
            | ResultContent::Training(_)
            | ResultContent::Recipe(_)
            | ResultContent::Manifest => Vec::new(),
        }
    }
}

/// The largest amount of each file to show; the page says how much is left out.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows per table.
    pub rows: usize,
    /// Contact maps per file.
    pub maps: usize,
}

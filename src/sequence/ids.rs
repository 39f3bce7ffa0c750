//! The id that a header gives a record, and unique ids in bounded memory: 128 bits of a SHA-256 per
//! id, whatever the length of the id.
//!
//! By the birthday bound, the probability that two of 10⁹ ids have the same 128 bits is about
//! 10⁻²¹.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Problem;

/// The treatment of a record whose id an earlier record of the run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Duplicates {
    /// Treat the second record as invalid; a record without an id is invalid too
    #[default]
    Error,
    /// Number the records: `P12345_2`, `P12345_3`, …; name a record without an id `record_N` by its
    /// number in the file
    Suffix,
    /// Keep only the first record; a record without an id is invalid
    First,
}

/// The part of a FASTA header that is the record's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum IdPart {
    /// The first word: `sp|P69905|HBA_HUMAN`
    #[default]
    FirstWord,
    /// The accession in the first word: `P69905` of `sp|P69905|HBA_HUMAN` and `tr|…`, the accession
    /// of NCBI's `ref|NP_000508.1|`, `gi|…|ref|…|` and the like; the whole word where it has no
    /// such form
    Accession,
}

/// Databases whose headers are `DATABASE|ACCESSION|NAME`, the name possibly missing.
const DATABASES: [&str; 11] = [
    "sp", "tr", "ref", "gb", "emb", "dbj", "tpg", "tpe", "tpd", "gnl", "lcl",
];

impl IdPart {
    /// Whether this is the first word, the default.
    pub fn is_first_word(&self) -> bool {
        *self == IdPart::FirstWord
    }

    /// The id of a record whose header has this first word.
    pub fn of(self, first_word: &str) -> String {
        let accession = match self {
            IdPart::FirstWord => None,
            IdPart::Accession => accession(first_word),
        };
        accession.unwrap_or_else(|| first_word.to_owned())
    }
}

/// The accession by NCBI's table of the forms of identifiers
/// (<https://ncbi.github.io/cxx-toolkit/pages/ch_demo#ch_demo.id1_fetch.html_ref_fasta>).
fn accession(word: &str) -> Option<String> {
    let fields: Vec<&str> = word.split('|').collect();
    let found = match fields[..] {
        ["gi", _, _, _, ..] => return accession(&fields[2..].join("|")),
        ["pdb", entry, chain, ..] if !entry.is_empty() && !chain.is_empty() => {
            return Some(format!("{entry}_{chain}"));
        }
        ["pir" | "prf", "", name, ..] => name,
        ["gnl", _, id, ..] => id,
        ["gnl", ..] => return None,
        [database, accession, ..] if DATABASES.contains(&database) => accession,
        ["pir" | "prf" | "gi" | "pdb", accession, ..] => accession,
        _ => return None,
    };
    (!found.is_empty()).then(|| found.to_owned())
}

/// The ids used so far in a run.
#[derive(Debug, Default)]
pub struct Ids {
    policy: Duplicates,
    seen: HashSet<u128>,
    /// For each id that came more than once, the number to try next.
    next: HashMap<u128, u64>,
}

impl Ids {
    /// An empty set of ids.
    pub fn new(policy: Duplicates) -> Self {
        Ids {
            policy,
            ..Ids::default()
        }
    }

    /// The final id of a record, unique within the run: `id` itself, or `id` with a number
    /// appended.
    ///
    /// `raw_id` has the original bytes of the id where `id` could not keep them (see
    /// [`super::Record::raw_id`]); `record` is the number of the record in its file.
    ///
    /// # Errors
    /// [`Problem::DuplicateId`] and [`Problem::NoId`] under `error` and `first`;
    /// [`Problem::ControlInId`].
    pub fn admit(
        &mut self,
        id: &str,
        raw_id: Option<&[u8]>,
        record: u64,
    ) -> Result<String, Problem> {
        if let Some(c) = id.chars().find(|c| c.is_control()) {
            return Err(Problem::ControlInId { code: c as u32 });
        }
        let id = match (id.is_empty(), self.policy) {
            (false, _) => id.to_owned(),
            (true, Duplicates::Suffix) => format!("record_{record}"),
            (true, _) => return Err(Problem::NoId),
        };
        // Ids with different bytes are different ids, even if both read as U+FFFD; then the second
        // one gets a number.
        let new = raw_id.is_none_or(|raw| self.seen.insert(hash(raw)));
        let free = self.seen.insert(hash(id.as_bytes()));
        match (new && free, self.policy) {
            (true, _) => Ok(id),
            (false, Duplicates::Suffix) => Ok(self.numbered(&id)),
            (false, _) if new && raw_id.is_some() => Ok(self.numbered(&id)),
            (false, _) => Err(Problem::DuplicateId),
        }
    }

    fn numbered(&mut self, id: &str) -> String {
        let next = self.next.entry(hash(id.as_bytes())).or_insert(2);
        loop {
            let candidate = format!("{id}_{next}");
            *next += 1;
            if self.seen.insert(hash(candidate.as_bytes())) {
                return candidate;
            }
        }
    }
}

fn hash(bytes: &[u8]) -> u128 {
    let digest = Sha256::digest(bytes);
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    u128::from_le_bytes(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accessions_of_headers() {
        let table = [
            ("sp|P69905|HBA_HUMAN", "P69905"),
            ("tr|A0A024RBG1|A0A024RBG1_HUMAN", "A0A024RBG1"),
            ("sp|P69905-2|HBA_HUMAN", "P69905-2"),
            ("sp|P69905|", "P69905"),
            ("ref|NP_000508.1|", "NP_000508.1"),
            ("gi|4504347|ref|NP_000508.1|", "NP_000508.1"),
            ("gi|129295|sp|P01013|OVAX_CHICK", "P01013"),
            ("gi|4504347", "4504347"),
            ("gb|AAA12345.1|", "AAA12345.1"),
            ("pdb|1ABC|A", "1ABC_A"),
            ("pir||S12345", "S12345"),
            ("prf||0806162C", "0806162C"),
            ("gnl|mydb|prot1", "prot1"),
            ("lcl|prot1", "prot1"),
            // Words without such a form stay whole.
            ("P69905", "P69905"),
            ("UniRef90_P69905", "UniRef90_P69905"),
            ("1ABC_A", "1ABC_A"),
            ("mine|a|b", "mine|a|b"),
            ("a|b", "a|b"),
            ("sp||x", "sp||x"),
            ("sp|", "sp|"),
            ("|", "|"),
            ("", ""),
        ];
        for (word, id) in table {
            assert_eq!(IdPart::Accession.of(word), id, "{word}");
            assert_eq!(IdPart::FirstWord.of(word), word);
        }
    }

    fn admitted(policy: Duplicates, ids: &[&str]) -> Vec<Result<String, Problem>> {
        let mut all = Ids::new(policy);
        (1..)
            .zip(ids)
            .map(|(record, id)| all.admit(id, None, record))
            .collect()
    }

    #[test]
    fn error_and_first_report_the_later_ones() {
        for policy in [Duplicates::Error, Duplicates::First] {
            let got = admitted(policy, &["a", "b", "a", "", "a_2"]);
            let duplicate = Err(Problem::DuplicateId);
            let ok = |id: &str| Ok(id.to_owned());
            assert_eq!(
                got,
                [ok("a"), ok("b"), duplicate, Err(Problem::NoId), ok("a_2")]
            );
        }
    }

    #[test]
    fn numbered_ids_never_equal_an_id_of_the_input() {
        let ids = ["a", "a_2", "a", "a", "a_3", "a_2", "", "record_7", ""];
        let got: Vec<String> = admitted(Duplicates::Suffix, &ids)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let want = [
            "a",
            "a_2",
            "a_3",
            "a_4",
            "a_3_2",
            "a_2_2",
            "record_7",
            "record_7_2",
            "record_9",
        ];
        assert_eq!(got, want);
        let distinct: HashSet<&String> = got.iter().collect();
        assert_eq!(distinct.len(), got.len());
    }

    #[test]
    fn a_million_duplicates_take_no_quadratic_time() {
        let mut ids = Ids::new(Duplicates::Suffix);
        for record in 1..=1_000_000 {
            ids.admit("same", None, record).unwrap();
        }
        assert_eq!(ids.admit("same", None, 0).unwrap(), "same_1000001");
    }

    #[test]
    fn ids_with_different_bytes_are_different() {
        let mut ids = Ids::new(Duplicates::Error);
        let mut admit = |raw: &[u8]| {
            let id = String::from_utf8_lossy(raw).into_owned();
            ids.admit(&id, Some(raw), 1)
        };
        assert_eq!(admit(b"a\xe9").unwrap(), "a\u{fffd}");
        assert_eq!(admit(b"a\xff").unwrap(), "a\u{fffd}_2");
        assert_eq!(admit(b"a\xe9"), Err(Problem::DuplicateId));
    }

    #[test]
    fn control_characters_are_rejected() {
        assert_eq!(
            admitted(Duplicates::Suffix, &["a\0"]),
            [Err(Problem::ControlInId { code: 0 })]
        );
    }
}

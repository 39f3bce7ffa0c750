//! Contacts as CASP writes them (RR): `i j probability`, or `i j d1 d2 probability`, under `TARGET id` and the protein's letters.

use std::io::BufRead;
use std::path::Path;

use super::ReportError;
use super::table::open;

/// A pair of residues, counted from 1, `i < j`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contact {
    /// The first.
    pub i: usize,
    /// The second.
    pub j: usize,
    /// How sure the prediction is, 0 to 1; a score as a share of the protein's highest.
    pub probability: f64,
}

/// What the numbers of contacts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Of being in contact.
    Probability,
    /// An order only, divided by the protein's highest.
    Score,
}

impl Contact {
    /// Of three words; the error says what is wrong with them.
    pub(super) fn parse(i: &str, j: &str, probability: &str) -> Result<Self, String> {
        let position = |text: &str| text.parse::<usize>().ok().filter(|position| *position > 0);
        let (first, second) = position(i)
            .zip(position(j))
            .ok_or_else(|| format!("{i} {j} is no pair of positions, which count from 1"))?;
        let probability = probability
            .parse()
            .ok()
            .filter(|p| (0.0..=1.0).contains(p))
            .ok_or_else(|| format!("{probability} is no probability"))?;
        Ok(Contact {
            i: first.min(second),
            j: first.max(second),
            probability,
        })
    }
}

impl Contact {
    /// As [`Contact::parse`], of a value that is divided by the protein's highest, `scale`; 0 where it is negative.
    pub(super) fn scaled(i: &str, j: &str, value: &str, scale: f64) -> Result<Self, String> {
        let number: f64 = value.parse().map_err(|_| format!("{value} is no number"))?;
        let share = if scale > 0.0 {
            (number / scale).max(0.0)
        } else {
            0.0
        };
        Self::parse(i, j, &share.to_string())
    }
}

/// The contacts of one protein.
#[derive(Clone, Debug, PartialEq)]
pub struct ContactList {
    /// The protein.
    pub id: String,
    /// Its residues, as far as the contacts tell.
    pub length: usize,
    /// What the contacts' numbers are.
    pub measure: Measure,
    /// In the file's order.
    pub contacts: Vec<Contact>,
}

impl ContactList {
    /// Of contacts whose protein's length is not known: up to the last residue named.
    pub fn new(id: String, contacts: Vec<Contact>) -> Self {
        ContactList {
            id,
            length: 0,
            measure: Measure::Probability,
            contacts,
        }
    }

    /// Residues that a map must have.
    pub fn size(&self) -> usize {
        let last = self.contacts.iter().map(|contact| contact.j).max();
        self.length.max(last.unwrap_or(0))
    }

    /// The surest ones first.
    pub fn surest(&self, count: usize) -> Vec<Contact> {
        let mut contacts = self.contacts.clone();
        contacts.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        contacts.truncate(count);
        contacts
    }
}

/// Reads one file of any number of targets.
pub(super) fn read_rr(path: &Path) -> Result<Vec<ContactList>, ReportError> {
    let mut lists: Vec<ContactList> = Vec::new();
    let mut target = None;
    for (number, line) in open(path)?.lines().enumerate() {
        let line = line.map_err(|source| ReportError::Read {
            path: path.to_owned(),
            source,
        })?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["TARGET", id, ..] => target = Some(id.to_owned()),
            // So `ankh3 predict-contacts` marks what are no probabilities.
            ["REMARK", "values", "are", "scores", ..] => {
                current(&mut lists, &mut target, path).measure = Measure::Score;
            }
            [] | ["PFRMAT" | "AUTHOR" | "METHOD" | "REMARK" | "END", ..] => {}
            ["MODEL", ..] => {
                // A remark has begun this target's list.
                let begun = lists.last().is_some_and(|list| list.contacts.is_empty());
                if target.is_some() || !begun {
                    let id = target.take().unwrap_or_else(|| name_of(path));
                    lists.push(ContactList::new(id, Vec::new()));
                }
            }
            [i, j, .., probability] if i.starts_with(|c: char| c.is_ascii_digit()) => {
                let contact = Contact::parse(i, j, probability)
                    .map_err(|what| ReportError::line(path, number as u64 + 1, what))?;
                current(&mut lists, &mut target, path)
                    .contacts
                    .push(contact);
            }
            [letters] if letters.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
                current(&mut lists, &mut target, path).length += letters.len();
            }
            _ => {
                let what = "neither a record of CASP's RR format nor a contact";
                return Err(ReportError::line(path, number as u64 + 1, what));
            }
        }
    }
    Ok(lists)
}

/// The list that lines belong to; begun here by a remark, or in a file without a `MODEL` line.
fn current<'a>(
    lists: &'a mut Vec<ContactList>,
    target: &mut Option<String>,
    path: &Path,
) -> &'a mut ContactList {
    if lists.is_empty() || target.is_some() {
        let id = target.take().unwrap_or_else(|| name_of(path));
        lists.push(ContactList::new(id, Vec::new()));
    }
    let last = lists.len() - 1;
    &mut lists[last]
}

fn name_of(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<ContactList>, ReportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("T1.rr");
        std::fs::write(&path, text).unwrap();
        read_rr(&path)
    }

    #[test]
    fn both_generations_of_rr_are_read() {
        let lists = read(
            "PFRMAT RR\nTARGET a\nAUTHOR x\nMODEL 1\nMKV\nLLA\n1 6 0.9\n5 2 0.25\nEND\nPFRMAT RR\nTARGET b\nMODEL 1\nMKVLL\n1 5 0 8 0.5\nEND\n",
        )
        .unwrap();
        let summary: Vec<_> = lists
            .iter()
            .map(|list| (list.id.as_str(), list.size(), list.contacts.len()))
            .collect();
        assert_eq!(summary, [("a", 6, 2), ("b", 5, 1)]);
        let contact = Contact {
            i: 2,
            j: 5,
            probability: 0.25,
        };
        assert_eq!(lists[0].contacts[1], contact);
        assert_eq!(lists[0].surest(1)[0].probability, 0.9);
    }

    #[test]
    fn scores_are_told_from_probabilities() {
        let lists = read(
            "PFRMAT RR\nTARGET a\nREMARK values are scores divided by the highest\nMODEL 1\nMKVLL\n1 5 1\nEND\nTARGET b\nMODEL 1\nMKVLL\n1 5 1\nEND\n",
        )
        .unwrap();
        let measures: Vec<_> = lists.iter().map(|list| list.measure).collect();
        assert_eq!(measures, [Measure::Score, Measure::Probability]);
        assert_eq!(lists[0].contacts.len(), 1);
    }

    #[test]
    fn a_bare_list_is_named_after_its_file() {
        assert_eq!(read("1 30 0.5\n").unwrap()[0].id, "T1");
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, part) in [
            (
                "TARGET a\nMODEL 1\n1 2 1.5\n",
                "line 3: 1.5 is no probability",
            ),
            ("TARGET a\nMODEL 1\n0 2 0.5\n", "line 3: 0 2 is no pair"),
            ("TARGET a\nwhat is this\n", "line 2: neither"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}

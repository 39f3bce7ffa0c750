//! Contacts as CASP writes them (RR): `i j probability`, or `i j d1 d2 probability`, below
//! `TARGET id` and the protein's residues.

use std::io::BufRead;
use std::path::Path;

use super::list::{Contact, ContactList, Measure};
use crate::report::error::ReportError;
use crate::report::file::{open, unreadable};

/// Reads a file with any number of targets.
pub(in crate::report) fn read_rr(path: &Path) -> Result<Vec<ContactList>, ReportError> {
    let mut lists: Vec<ContactList> = Vec::new();
    let mut target = None;
    for (number, line) in open(path)?.lines().enumerate() {
        let line = line.map_err(unreadable(path))?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["TARGET", id, ..] => target = Some(id.to_owned()),
            // `ankh3 predict-contacts` marks scores, which are no probabilities, with this remark.
            ["REMARK", "values", "are", "scores", ..] => {
                current(&mut lists, &mut target, path).measure = Measure::Score;
            }
            [] | ["PFRMAT" | "AUTHOR" | "METHOD" | "REMARK" | "END", ..] => {}
            ["MODEL", ..] => {
                // A remark may have started the list of this target.
                let is_started = lists.last().is_some_and(|list| list.contacts.is_empty());
                if target.is_some() || !is_started {
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

/// The list that the next contacts belong to; started by a remark, or by a contact where there is
/// no `MODEL` line.
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
        assert_eq!(lists[0].most_probable(1)[0].probability, 0.9);
    }

    #[test]
    fn scores_are_distinguished_from_probabilities() {
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
    fn invalid_lines_are_named() {
        for (text, part) in [
            (
                "TARGET a\nMODEL 1\n1 2 1.5\n",
                "line 3: 1.5 is not a probability",
            ),
            ("TARGET a\nMODEL 1\n0 2 0.5\n", "line 3: 0 2 is not a pair"),
            ("TARGET a\nwhat is this\n", "line 2: neither"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}

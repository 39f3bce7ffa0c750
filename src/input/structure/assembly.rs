//! From the residues that a file lists to a chain: which of them belong to the polymer, and how
//! many are missing between them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::observed::{ObservedResidue, ResidueNumber};
use super::placement::{Piece, place};
use super::text::Fault;
use super::{Atoms, Chain, amino_acids};
use crate::shown::shown;

/// Distance in Å between the C-alphas of neighbours above which a chain is broken.
const BREAK: f64 = 4.3;
/// Largest number of residues that author numbers may say are missing in one break.
const GAP: i64 = 200;
/// Largest number of residues in a chain: the longest known proteins have about 45,000.
const LONGEST: i64 = 100_000;

/// What a file says of a chain besides its atoms.
#[derive(Debug, Default)]
pub(super) struct Knowledge<'a> {
    /// The amino acids that modified ones were made from.
    pub(super) parents: Option<&'a HashMap<String, String>>,
    /// The names of all residues by their number from 1, missing ones included; empty where the
    /// file does not give them.
    pub(super) sequence: BTreeMap<i64, String>,
    /// Whether the file declares the chain, and all its residues, to be a polypeptide.
    pub(super) is_polypeptide: bool,
}

impl Knowledge<'_> {
    /// The letter of a residue; none where the name is not that of an amino acid.
    fn letter(&self, name: &str) -> Option<u8> {
        let parent = || amino_acids::standard(self.parents?.get(name)?);
        amino_acids::standard(name)
            .or_else(|| amino_acids::modified(name))
            .or_else(parent)
    }

    /// Whether the name is that of a modified amino acid, which is seldom a ligand. `listed` are the
    /// names in the sequence.
    fn is_modified(&self, name: &str, listed: &HashSet<&str>) -> bool {
        amino_acids::standard(name).is_none()
            && (self.letter(name).is_some() || listed.contains(name))
    }
}

/// The chain `name` of a file, whose ids begin with `stem`; none where it is not one of amino acids,
/// or where no residue has coordinates.
pub(super) fn chain(
    stem: &str,
    name: &str,
    mut residues: Vec<ObservedResidue>,
    knowledge: &Knowledge<'_>,
) -> Result<Option<Chain>, Fault> {
    if !knowledge.is_polypeptide {
        keep_polymer(&mut residues, knowledge);
        // A single amino acid is a ligand, unless the file gives its sequence.
        if residues.len() < 2 && knowledge.sequence.is_empty() {
            return Ok(None);
        }
    }
    if residues.iter().all(|residue| residue.atoms.is_empty()) {
        return Ok(None);
    }
    residues.sort_by_key(|residue| match residue.number {
        ResidueNumber::Label(number) => number,
        ResidueNumber::Author(_) => 0,
    });
    let id = format!("{stem}_{name}");
    let unknown = BTreeMap::new();
    let positions = if let Some(positions) = in_sequence(&residues, knowledge) {
        filled(&residues, &positions, &knowledge.sequence)?
    } else {
        if !knowledge.sequence.is_empty() {
            tracing::warn!(
                "{id}: the residues do not fit the sequence that the file gives; missing residues are counted by their numbers"
            );
        }
        filled(&residues, &by_numbers(&residues)?, &unknown)?
    };
    let letter = |(name, _): &(&str, Atoms)| knowledge.letter(name).unwrap_or(b'X');
    let positions = without_caps(&positions);
    Ok(Some(Chain {
        id,
        name: name.to_owned(),
        residues: positions.iter().map(letter).collect(),
        atoms: positions.iter().map(|(_, atoms)| *atoms).collect(),
    }))
}

/// Removes what does not belong to the polymer where the file does not say what does. A residue of
/// a standard polymer (`ATOM`) does, and a modified amino acid; another one (`HETATM`) does if it is
/// bound to one that does.
fn keep_polymer(residues: &mut Vec<ObservedResidue>, knowledge: &Knowledge<'_>) {
    let listed: HashSet<&str> = knowledge.sequence.values().map(String::as_str).collect();
    let is_modified = |name: &str| knowledge.is_modified(name, &listed);
    residues.retain(|residue| {
        let Atoms { n, ca, c, .. } = residue.atoms;
        knowledge.letter(&residue.name).is_some()
            || is_modified(&residue.name)
            || (n.is_some() && ca.is_some() && c.is_some())
    });
    let belongs = |residue: &ObservedResidue| !residue.is_hetero || is_modified(&residue.name);
    let mut belongs: Vec<bool> = residues.iter().map(belongs).collect();
    let is_bound = |a: usize, b: usize| residues[a].distance(&residues[b]) <= BREAK;
    for at in 1..belongs.len() {
        belongs[at] |= belongs[at - 1] && is_bound(at - 1, at);
    }
    for at in (1..belongs.len()).rev() {
        belongs[at - 1] |= belongs[at] && is_bound(at - 1, at);
    }
    let mut belongs = belongs.into_iter();
    residues.retain(|_| belongs.next().expect("there is one per residue"));
}

/// The position of each residue in the sequence that the file gives; none where there is no
/// sequence, or another one.
fn in_sequence(residues: &[ObservedResidue], knowledge: &Knowledge<'_>) -> Option<Vec<i64>> {
    let sequence = &knowledge.sequence;
    if sequence.is_empty() {
        return None;
    }
    let labels: Vec<i64> = residues.iter().filter_map(label).collect();
    if labels.len() == residues.len() {
        return Some(labels);
    }
    let letter = |name: &str| knowledge.letter(name).unwrap_or(b'X');
    let letters: Vec<u8> = residues
        .iter()
        .map(|residue| letter(&residue.name))
        .collect();
    let given: Vec<u8> = sequence.values().map(|name| letter(name)).collect();
    let numbers: Vec<i64> = sequence.keys().copied().collect();
    let pieces = pieces(residues);
    let starts = place(&letters, &pieces, &given)?;
    let positions = starts
        .into_iter()
        .zip(pieces)
        .flat_map(|(start, piece)| start..start + piece.length);
    Some(positions.map(|position| numbers[position]).collect())
}

fn label(residue: &ObservedResidue) -> Option<i64> {
    match residue.number {
        ResidueNumber::Label(number) => Some(number),
        ResidueNumber::Author(_) => None,
    }
}

/// The chain, cut where its numbers jump or where the C-alphas of neighbours are far apart.
fn pieces(residues: &[ObservedResidue]) -> Vec<Piece> {
    let mut pieces = vec![Piece { length: 1, gap: 0 }];
    for pair in residues.windows(2) {
        let [before, after] = pair else { continue };
        let numbers = before.author.zip(after.author);
        let step = numbers.map(|(before, after)| after.saturating_sub(before));
        let distance = before.distance(after);
        let is_far = distance > BREAK;
        if step == Some(1) && (!is_far || distance.is_infinite()) {
            pieces.last_mut().expect("it begins with one").length += 1;
        } else {
            let gap = step.filter(|_| is_far).unwrap_or(1).max(1) - 1;
            let gap = usize::try_from(gap).unwrap_or(usize::MAX);
            pieces.push(Piece { length: 1, gap });
        }
    }
    pieces
}

/// The position of each residue, from 1, where only their numbers say what is missing.
fn by_numbers(residues: &[ObservedResidue]) -> Result<Vec<i64>, Fault> {
    // Programs without the sequence of the polymer write the author's numbers twice.
    let is_certain = residues
        .iter()
        .any(|residue| label(residue).is_some_and(|label| residue.author != Some(label)));
    let mut position: i64 = 1;
    let mut positions = vec![position];
    for pair in residues.windows(2) {
        let [before, after] = pair else { continue };
        let is_broken = before.distance(after) > BREAK;
        let missing = match (label(before), label(after)) {
            (Some(before), Some(after)) if is_broken || is_certain => {
                after.saturating_sub(before).saturating_sub(1)
            }
            (None, None) if is_broken => {
                let missing = author(after)?
                    .saturating_sub(author(before)?)
                    .saturating_sub(1);
                if (1..=GAP).contains(&missing) {
                    missing
                } else {
                    0
                }
            }
            _ => 0,
        };
        position = position.saturating_add(1).saturating_add(missing);
        positions.push(position);
    }
    Ok(positions)
}

fn author(residue: &ObservedResidue) -> Result<i64, Fault> {
    residue.author.ok_or_else(|| {
        let what = format!(
            "the residue `{}` has no number that can be read, so the residues missing beside it cannot be counted",
            shown(&residue.name)
        );
        Fault::line(residue.line, what)
    })
}

/// All residues of the chain, missing ones included: name and atoms.
fn filled<'a>(
    residues: &'a [ObservedResidue],
    positions: &[i64],
    sequence: &'a BTreeMap<i64, String>,
) -> Result<Vec<(&'a str, Atoms)>, Fault> {
    let ends = |mut numbers: Vec<i64>| {
        numbers.sort_unstable();
        numbers.first().copied().zip(numbers.last().copied())
    };
    let given = [sequence.keys().next(), sequence.keys().next_back()];
    let all = positions.iter().chain(given.into_iter().flatten());
    let Some((first, last)) = ends(all.copied().collect()) else {
        return Ok(Vec::new());
    };
    let length = last.saturating_sub(first).saturating_add(1);
    if length > LONGEST {
        let jump = positions
            .windows(2)
            .position(|pair| pair[1].saturating_sub(pair[0]) > LONGEST);
        let residue = &residues[jump.map_or(0, |jump| jump + 1)];
        let what = format!(
            "by its number ({:?}) the chain has {length} residues; no protein has more than {LONGEST}",
            residue.number
        );
        return Err(Fault::line(residue.line, what));
    }
    let name = |position| sequence.get(&position).map_or("", String::as_str);
    let mut all: Vec<_> = (first..=last)
        .map(|position| (name(position), Atoms::default()))
        .collect();
    for (residue, position) in residues.iter().zip(positions) {
        all[(position - first) as usize] = (residue.name.as_str(), residue.atoms);
    }
    Ok(all)
}

/// The residues between the groups that cap the ends of a chain.
fn without_caps<'a, 'b>(all: &'a [(&'b str, Atoms)]) -> &'a [(&'b str, Atoms)] {
    let is_residue = |(name, _): &(&str, Atoms)| !amino_acids::is_cap(name);
    let first = all.iter().position(is_residue);
    let last = all.iter().rposition(is_residue);
    first
        .zip(last)
        .map_or(&[], |(first, last)| &all[first..=last])
}

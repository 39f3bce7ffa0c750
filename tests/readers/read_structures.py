"""Reads structures with gemmi and prints what a reader of contacts must find, one JSON line per file.

    read_structures.py FILE [FILE …]

A line is {"file", "error"} or {"file", "chains": [{"name", "sequence", "residues": [{"name", "letter", "standard",
"position", "atoms": {"CA": [x, y, z], …}}]}]}. Chains are polymers of amino acids in the first model. `sequence` has the
names of all residues without caps (ACE, NH2), or is null where the file does not give them. `position` counts from 1 in
the sequence, missing residues included. Residues without one of the atoms N, CA, C, CB are left out, and chains of one
residue without a sequence.
"""

import bz2
import json
import math
import sys

import gemmi

ATOMS = ("N", "CA", "C", "CB")
CAPS = {"ACE", "FOR", "NH2", "NME", "NMA", "NHE"}
PEPTIDES = {gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD, gemmi.PolymerType.CyclicPseudoPeptide}


def atoms_of(residue):
    """Each atom at the location of highest occupancy; the first one of equals."""
    best = {}
    for atom in residue:
        if atom.name not in ATOMS or math.isnan(atom.pos.x):
            continue
        if atom.name not in best or atom.occ > best[atom.name].occ:
            best[atom.name] = atom
    return best


def occupancy(atoms):
    return atoms["CA"].occ if "CA" in atoms else max(atom.occ for atom in atoms.values())


def observed(polymer):
    """The residues with atoms; of several at one place, that of highest occupancy."""
    found = []
    for residue in polymer:
        atoms = atoms_of(residue)
        if not atoms or residue.name in CAPS:
            continue
        if found and found[-1][0].seqid == residue.seqid and found[-1][0].label_seq == residue.label_seq:
            if occupancy(atoms) > occupancy(found[-1][1]):
                found[-1] = (residue, atoms)
        else:
            found.append((residue, atoms))
    return found


def positions(found):
    """Positions by the label, or else by the authors' numbers where the chain is broken."""
    if all(residue.label_seq is not None for residue, _ in found):
        return [residue.label_seq for residue, _ in found]
    numbers = [1]
    for (before, a), (after, b) in zip(found, found[1:]):
        missing = after.seqid.num - before.seqid.num - 1
        is_near = "CA" in a and "CA" in b and a["CA"].pos.dist(b["CA"].pos) <= 4.3
        numbers.append(numbers[-1] + 1 + (0 if is_near or not 1 <= missing <= 200 else missing))
    return numbers


def chain(structure, chain):
    polymer = chain.get_polymer()
    if not polymer:
        return None
    entity = structure.get_entity_of(polymer)
    kind = entity.polymer_type if entity else gemmi.PolymerType.Unknown
    if kind in (gemmi.PolymerType.Unknown, gemmi.PolymerType.Other):
        kind = polymer.check_polymer_type()
    found = observed(polymer)
    if kind not in PEPTIDES or not found:
        return None
    residues = []
    for (residue, atoms), position in zip(found, positions(found), strict=True):
        known = gemmi.find_tabulated_residue(residue.name)
        residues.append({
            "name": residue.name,
            "letter": known.one_letter_code.upper().strip() or "X",
            "standard": known.is_standard(),
            "position": position,
            "atoms": {name: atom.pos.tolist() for name, atom in atoms.items()},
        })
    names = [gemmi.Entity.first_mon(names) for names in entity.full_sequence] if entity else []
    names = names[1:] if names and names[0] in CAPS else names
    names = names[:-1] if names and names[-1] in CAPS else names
    if not names and len(residues) < 2:
        return None
    return {"name": chain.name, "sequence": names or None, "residues": residues}


def chains(path):
    if path.endswith(".bz2"):
        with bz2.open(path, "rt") as file:
            structure = gemmi.read_pdb_string(file.read())
    else:
        structure = gemmi.read_structure(path)
    if len(structure) == 0:
        return []
    structure.setup_entities()
    structure.assign_label_seq_id()
    return [found for each in structure[0] if (found := chain(structure, each))]


for path in sys.argv[1:]:
    try:
        line = {"file": path, "chains": chains(path)}
    except (OSError, RuntimeError, ValueError) as error:
        line = {"file": path, "error": str(error)}
    print(json.dumps(line))

//! A small protein with what goes wrong easily, as PDB and mmCIF files.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Record, alternative location, name, chain, number in the polymer (0: a ligand or water), author's
/// number, insertion code, occupancy.
type SmallResidue = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u32,
    i32,
    &'static str,
    &'static str,
);

/// Residues of a small protein with what goes wrong easily.
#[rustfmt::skip]
const RESIDUES: &[SmallResidue] = &[
    ("ATOM", "", "LYS", "A", 3, 1, "", "1.00"),
    ("HETATM", "", "MSE", "A", 4, 2, "", "1.00"),
    ("ATOM", "A", "SER", "A", 5, 52, "", "0.30"),
    ("ATOM", "B", "SER", "A", 5, 52, "", "0.70"),
    ("ATOM", "A", "ALA", "A", 6, 52, "A", "0.60"),
    ("ATOM", "B", "GLY", "A", 6, 52, "A", "0.40"),
    ("ATOM", "", "TRP", "A", 12, 9999, "", "1.00"),
    ("ATOM", "", "HIS", "A", 13, 10000, "", "1.00"),
    ("ATOM", "", "VAL", "B", 1, -1, "", "1.00"),
    ("ATOM", "", "LEU", "B", 2, 0, "", "1.00"),
    ("ATOM", "", "ILE", "B", 5, 3, "", "1.00"),
    ("HETATM", "", "GLU", "A", 0, 10001, "", "1.00"),
    ("HETATM", "", "SAH", "A", 0, 10002, "", "1.00"),
    ("HETATM", "", "HOH", "B", 0, 501, "", "1.00"),
];
const SEQUENCES: [(&str, &str); 2] = [
    (
        "A",
        "GLY PRO LYS MSE SER ALA ASP GLU PHE THR ARG TRP HIS GLN",
    ),
    ("B", "VAL LEU ASN CYS ILE"),
];

/// The atoms of a residue along a line that is broken where residues are missing.
fn places(row: usize) -> [(&'static str, [f64; 3]); 4] {
    let (_, _, _, chain, label, author, ..) = RESIDUES[row];
    let x = 3.8
        * f64::from(if label > 0 {
            label as i32
        } else {
            author % 100 + 40
        });
    let (y, z) = (if chain == "A" { 0.0 } else { 9.5 }, 0.125 * row as f64);
    [
        ("N", [x - 1.2, y + 0.5, z]),
        ("CA", [x, y, z]),
        ("C", [x + 1.3, y + 0.6, z]),
        ("CB", [x, y - 1.5, z]),
    ]
}

/// The small protein as a PDB file.
fn pdb() -> String {
    let mut text: Vec<String> = Vec::new();
    for (chain, names) in SEQUENCES {
        let names: Vec<&str> = names.split(' ').collect();
        for (row, part) in names.chunks(13).enumerate() {
            let (row, count, part) = (row + 1, names.len(), part.join(" "));
            text.push(format!("SEQRES {row:>3} {chain} {count:>4}  {part}\n"));
        }
    }
    text.push("MODRES 1XYZ MSE A    2  MET  SELENOMETHIONINE\n".to_owned());
    let mut last = "A";
    for (row, (record, alternative, name, chain, label, author, insertion, occupancy)) in
        RESIDUES.iter().enumerate()
    {
        if *chain != last && *label > 0 || *label == 0 && RESIDUES[row - 1].4 > 0 {
            text.push("TER\n".to_owned());
        }
        last = chain;
        let number = match author {
            10_000.. => format!("A{:03}", author - 10_000),
            _ => author.to_string(),
        };
        for (atom, [x, y, z]) in places(row) {
            text.push(format!(
                "{record:<6}    1  {atom:<3}{alternative:1}{name:<3} {chain}{number:>4}{insertion:1}   {x:8.3}{y:8.3}{z:8.3}{occupancy:>6} 20.00           {}\n",
                &atom[..1]
            ));
        }
    }
    text.concat() + "END\n"
}

/// The small protein as an mmCIF file.
fn mmcif() -> String {
    let mut text = vec!["data_XYZ\nloop_\n_entity.id\n_entity.type\n1 polymer\n2 polymer\n3 non-polymer\n4 non-polymer\n5 water\nloop_\n_entity_poly.entity_id\n_entity_poly.type\n_entity_poly.pdbx_seq_one_letter_code\n1 'polypeptide(L)'\n;GPK(MSE)SADEFTRWHQ\n;\n2 'polypeptide(L)' VLNCI\nloop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n".to_owned()];
    for (entity, (_, names)) in SEQUENCES.iter().enumerate() {
        for (at, name) in names.split(' ').enumerate() {
            text.push(format!("{} {} {name}\n", entity + 1, at + 1));
        }
    }
    text.push("loop_\n".to_owned());
    for item in [
        "group_PDB",
        "id",
        "type_symbol",
        "label_atom_id",
        "label_alt_id",
        "label_comp_id",
        "label_asym_id",
        "label_entity_id",
        "label_seq_id",
        "pdbx_PDB_ins_code",
        "Cartn_x",
        "Cartn_y",
        "Cartn_z",
        "occupancy",
        "auth_seq_id",
        "auth_asym_id",
        "pdbx_PDB_model_num",
    ] {
        text.push(format!("_atom_site.{item}\n"));
    }
    let or = |value: &str, none: &str| if value.is_empty() { none } else { value }.to_owned();
    for (row, (record, alternative, name, chain, label, author, insertion, occupancy)) in
        RESIDUES.iter().enumerate()
    {
        let entity = match (*label, *chain) {
            (0, _) => row - 8,
            (_, "A") => 1,
            _ => 2,
        };
        let asym = char::from(b'A' + entity as u8 - 1);
        let label = if *label == 0 {
            ".".to_owned()
        } else {
            label.to_string()
        };
        let (alternative, insertion) = (or(alternative, "."), or(insertion, "?"));
        for (atom, [x, y, z]) in places(row) {
            text.push(format!(
                "{record} 1 {} {atom} {alternative} {name} {asym} {entity} {label} {insertion} {x:.3} {y:.3} {z:.3} {occupancy} {author} {chain} 1\n",
                &atom[..1]
            ));
        }
    }
    text.concat() + "#\ndata_restraints\n_chem_comp.name \"N-(5'-x)\"\n"
}

/// Both files in a folder, with the compressed forms that gemmi reads, too.
pub(super) fn write(folder: &Path) -> Vec<PathBuf> {
    let files = [("own.pdb", pdb()), ("own.cif", mmcif())];
    let write = |(name, text): (&str, String)| {
        fs::write(folder.join(name), &text).unwrap();
        let packed = folder.join(format!("{name}.gz"));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        fs::write(&packed, encoder.finish().unwrap()).unwrap();
        [folder.join(name), packed]
    };
    files.into_iter().flat_map(write).collect()
}

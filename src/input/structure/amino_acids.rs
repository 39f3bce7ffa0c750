//! The letters of amino acids by their names in structure files.

/// The letter of a standard amino acid, also under the names that force fields give to its states
/// of protonation.
pub(super) fn standard(name: &str) -> Option<u8> {
    Some(match name {
        "ALA" => b'A',
        "ARG" | "ARGN" => b'R',
        "ASN" => b'N',
        "ASP" | "ASPH" | "ASH" => b'D',
        "CYS" | "CYX" | "CYM" | "CYSH" | "CYS1" | "CYS2" => b'C',
        "GLN" => b'Q',
        "GLU" | "GLUH" | "GLH" => b'E',
        "GLY" => b'G',
        "HIS" | "HSD" | "HSE" | "HSP" | "HID" | "HIE" | "HIP" | "HISA" | "HISB" | "HISD"
        | "HISE" | "HISH" => b'H',
        "ILE" => b'I',
        "LEU" => b'L',
        "LYS" | "LYSH" | "LYN" => b'K',
        "MET" => b'M',
        "PHE" => b'F',
        "PRO" => b'P',
        "SER" => b'S',
        "THR" => b'T',
        "TRP" => b'W',
        "TYR" => b'Y',
        "VAL" => b'V',
        "SEC" => b'U',
        "PYL" => b'O',
        _ => return None,
    })
}

/// The letter of the amino acid that a common modified one was made from.
pub(super) fn modified(name: &str) -> Option<u8> {
    Some(match name {
        "CSO" | "CSD" | "OCS" | "CME" => b'C',
        "PCA" => b'Q',
        "CGU" => b'E',
        "MLY" | "KCX" | "ALY" | "LLP" | "M3L" | "MLZ" => b'K',
        "MSE" | "FME" => b'M',
        "HYP" => b'P',
        "SEP" => b'S',
        "TPO" => b'T',
        "PTR" | "TYS" => b'Y',
        _ => return None,
    })
}

/// Whether the name is that of a group that caps the end of a chain and is no amino acid.
pub(super) fn is_cap(name: &str) -> bool {
    matches!(name, "ACE" | "FOR" | "NH2" | "NME" | "NMA" | "NHE")
}

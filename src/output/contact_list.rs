//! Predicted contacts as text: CASP's RR, or a table.
//!
//! ```text
//! PFRMAT RR
//! TARGET P12345
//! REMARK ankh3 0.1.0, …
//! MODEL 1
//! MKTAYIAKQR…          50 residues per line
//! 1 24 0 8 0.93210     i < j from 1, bounds of the distance in Å, probability; highest first
//! END
//! ```
//!
//! Columns of the table: `id i j aa_i aa_j separation probability` (`score` instead of
//! `probability` for methods without probabilities).

use std::io::{self, Write};

/// Two residues, counted from 0, and the value of their contact.
pub type ContactPair = (usize, usize, f32);

/// Writes one protein in CASP's RR format. Values must be from 0 to 1.
///
/// # Errors
/// Output that cannot be written.
pub fn write_rr(
    out: &mut dyn Write,
    id: &str,
    residues: &[u8],
    remarks: &[String],
    pairs: &[ContactPair],
) -> io::Result<()> {
    writeln!(out, "PFRMAT RR\nTARGET {id}")?;
    for remark in remarks {
        writeln!(out, "REMARK {remark}")?;
    }
    writeln!(out, "MODEL 1")?;
    for line in residues.chunks(50) {
        out.write_all(line)?;
        writeln!(out)?;
    }
    for (i, j, value) in pairs {
        writeln!(out, "{} {} 0 8 {value:.5}", i + 1, j + 1)?;
    }
    writeln!(out, "END")
}

/// Writes the header of the table; `value` names the last column.
///
/// # Errors
/// Output that cannot be written.
pub fn write_header(out: &mut dyn Write, value: &str) -> io::Result<()> {
    writeln!(out, "id\ti\tj\taa_i\taa_j\tseparation\t{value}")
}

/// Writes the rows of one protein.
///
/// # Errors
/// Output that cannot be written.
pub fn write_rows(
    out: &mut dyn Write,
    id: &str,
    residues: &[u8],
    pairs: &[ContactPair],
) -> io::Result<()> {
    let id = id.replace(['\t', '\n', '\r'], " ");
    for (i, j, value) in pairs {
        let (a, b) = (char::from(residues[*i]), char::from(residues[*j]));
        writeln!(
            out,
            "{id}\t{}\t{}\t{a}\t{b}\t{}\t{value:.6}",
            i + 1,
            j + 1,
            j - i
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let residues = b"MK".repeat(30);
        let pairs = [(0, 59, 0.5), (2, 9, 0.25)];
        let mut out = Vec::new();
        write_rr(&mut out, "P1", &residues, &["made up".to_owned()], &pairs).unwrap();
        let half = "MK".repeat(25);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "PFRMAT RR\nTARGET P1\nREMARK made up\nMODEL 1\n{half}\nMKMKMKMKMK\n1 60 0 8 0.50000\n3 10 0 8 0.25000\nEND\n"
            )
        );
        let mut out = Vec::new();
        write_header(&mut out, "probability").unwrap();
        write_rows(&mut out, "P1", &residues, &pairs).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "id\ti\tj\taa_i\taa_j\tseparation\tprobability\nP1\t1\t60\tM\tK\t59\t0.500000\nP1\t3\t10\tM\tK\t7\t0.250000\n"
        );
    }
}

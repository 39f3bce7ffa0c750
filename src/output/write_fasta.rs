//! FASTA output through `bio`: the header as read, 60 residues per line.

use std::io::{self, Write};

use bio::io::fasta;

/// Residues per line.
const WIDTH: usize = 60;

/// Writes one record.
///
/// # Errors
/// Output that cannot be written.
pub fn write_record(
    out: &mut dyn Write,
    id: &str,
    description: &str,
    residues: &[u8],
) -> io::Result<()> {
    // The writer of `bio` has a buffer and loses errors when it is dropped, so it writes to memory.
    let mut text = Vec::with_capacity(residues.len() + residues.len() / WIDTH + id.len() + 8);
    let mut writer = fasta::Writer::new(&mut text);
    writer.set_linewrap(Some(WIDTH));
    let description = Some(description).filter(|description| !description.is_empty());
    writer.write(id, description, residues)?;
    writer.flush()?;
    drop(writer);
    out.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_at_sixty() {
        let mut out = Vec::new();
        write_record(&mut out, "a", "one two", &[b'M'; 61]).unwrap();
        write_record(&mut out, "b", "", &[b'K'; 60]).unwrap();
        let expected = format!(
            ">a one two\n{}\nM\n>b\n{}\n",
            "M".repeat(60),
            "K".repeat(60)
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

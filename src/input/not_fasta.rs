//! Recognises by its first line the format of a file that is not FASTA, so that the error can say
//! what to do.

/// The format that a file seems to have whose first line is not a FASTA header, and what to do.
pub fn name(line: &[u8]) -> &'static str {
    const KNOWN: [(&[u8], &str); 9] = [
        (
            b"@",
            "this looks like FASTQ (nucleotide reads); give FASTA of proteins, whose records begin with '>'",
        ),
        (b"\xff\xfe", "this looks like UTF-16; save it as UTF-8"),
        (b"\xfe\xff", "this looks like UTF-16; save it as UTF-8"),
        (
            b"LOCUS ",
            "this looks like GenBank's flat file; export its proteins as FASTA",
        ),
        (
            b"ID   ",
            "this looks like UniProt's or EMBL's flat file; export it as FASTA",
        ),
        (
            b"HEADER ",
            "this looks like a PDB file; export its sequences as FASTA",
        ),
        (
            b"data_",
            "this looks like an mmCIF file; export its sequences as FASTA",
        ),
        (
            b"# STOCKHOLM",
            "this looks like a Stockholm alignment; export it as FASTA",
        ),
        (
            b"CLUSTAL",
            "this looks like a Clustal alignment; export it as FASTA",
        ),
    ];
    match KNOWN.iter().find(|(start, _)| line.starts_with(start)) {
        Some((_, what)) => what,
        None if is_binary(line) => {
            "this is binary data, not FASTA; give text, or text compressed by gzip, zstd, xz or bzip2"
        }
        None => "text before the first header; records of a FASTA file begin with a line '>id'",
    }
}

fn is_binary(line: &[u8]) -> bool {
    let head = &line[..line.len().min(4096)];
    let control = head
        .iter()
        .any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
    // A character that is cut off at the end of `head` is not an error of the text.
    control || std::str::from_utf8(head).is_err_and(|error| error.error_len().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_data_is_not_text() {
        assert!(is_binary(b"\x7fELF\x02\x01"));
        assert!(is_binary(b"MKV\xff\xd8\xff"));
        assert!(!is_binary("MKV größe\t\x0c".as_bytes()));
        let cut_character = ["a".repeat(4095).as_bytes(), "é".as_bytes()].concat();
        assert!(!is_binary(&cut_character));
    }
}

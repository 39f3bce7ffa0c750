//! The formats by name, extension and first bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::invalid_data;
use crate::io::stdio::Content;

/// A file format for embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum EmbeddingFormat {
    /// Tab-separated text: one row per protein, or one row per residue
    Tsv,
    /// JSON lines: one object per protein
    Jsonl,
    /// One NumPy array of all rows, with FILE.index.tsv beside it
    Npy,
    /// NumPy archive: one array per protein
    Npz,
    /// HDF5: one dataset per protein, as UniProt ships its embeddings
    H5,
    /// SafeTensors: one tensor per protein
    Safetensors,
    /// Apache Parquet: one row per protein
    Parquet,
    /// Apache Arrow IPC stream: one row per protein
    Arrow,
}

impl EmbeddingFormat {
    /// All formats, in the order of the help texts.
    pub const ALL: [Self; 8] = [
        Self::Tsv,
        Self::Jsonl,
        Self::Npy,
        Self::Npz,
        Self::H5,
        Self::Safetensors,
        Self::Parquet,
        Self::Arrow,
    ];

    /// The name on the command line, which is also the usual extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tsv => "tsv",
            Self::Jsonl => "jsonl",
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::H5 => "h5",
            Self::Safetensors => "safetensors",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
        }
    }

    /// The format of a file's extension, in upper or lower case; `None` for another extension.
    pub fn from_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "tsv" | "tab" => Some(Self::Tsv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "npy" => Some(Self::Npy),
            "npz" => Some(Self::Npz),
            "h5" | "hdf5" => Some(Self::H5),
            "safetensors" => Some(Self::Safetensors),
            "parquet" | "pq" => Some(Self::Parquet),
            "arrow" | "arrows" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// True for formats that cannot be shown on a terminal.
    pub fn is_binary(self) -> bool {
        !matches!(self, Self::Tsv | Self::Jsonl)
    }

    /// Whether a file of this format may be shown on a terminal.
    pub fn content(self) -> Content {
        if self.is_binary() {
            Content::Binary
        } else {
            Content::Text
        }
    }

    /// True for formats whose beginning depends on their end. Values wait in an unlinked temporary
    /// file as large as the output (beside the output, or in `TMPDIR` for a stream), and the output
    /// gets no bytes before [`EmbeddingWriter::finish`](super::EmbeddingWriter::finish).
    pub fn needs_seek(self) -> bool {
        matches!(self, Self::Npy | Self::H5 | Self::Safetensors)
    }

    /// The format of a file by its first bytes; its name does not matter.
    pub fn detect(path: &Path) -> io::Result<Self> {
        let mut start = Vec::new();
        File::open(path)?.take(16).read_to_end(&mut start)?;
        Self::from_first_bytes(&start).ok_or_else(|| {
            invalid_data("its first bytes belong to none of the formats written by ankh3".into())
        })
    }

    fn from_first_bytes(start: &[u8]) -> Option<Self> {
        match start {
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Self::Npy),
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Npz),
            [0x89, b'H', b'D', b'F', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::H5),
            [b'P', b'A', b'R', b'1', ..] => Some(Self::Parquet),
            [0xff, 0xff, 0xff, 0xff, ..] => Some(Self::Arrow),
            [_, _, _, _, _, _, _, _, b'{', ..] if start[7] == 0 => Some(Self::Safetensors),
            [b'{', ..] | [] => Some(Self::Jsonl),
            [b'i', b'd', b'\t', ..] => Some(Self::Tsv),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_own_name() {
        for format in EmbeddingFormat::ALL {
            let path = format!("run.1/Swiss-Prot.{}", format.name().to_uppercase());
            assert_eq!(
                EmbeddingFormat::from_extension(Path::new(&path)),
                Some(format)
            );
        }
        assert_eq!(EmbeddingFormat::from_extension(Path::new("out.csv")), None);
        assert_eq!(EmbeddingFormat::from_extension(Path::new("npz")), None);
    }
}

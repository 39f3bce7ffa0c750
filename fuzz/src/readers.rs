//! Every reader of the library as a function of bytes: what the fuzz targets run, and what
//! `tests/it/fuzz_corpus.rs` runs on the committed corpus. A reader may refuse its input; a panic,
//! an abort, a hang or an input that fills the memory is a fault.
//!
//! A target that needs two files, such as a table and the manifest beside it, gets both in one
//! input, separated by a line with the text [`SEPARATOR`].

use std::cell::LazyCell;
use std::fs;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use ankh3::checkpoint::inspect::CheckpointSummary;
use ankh3::checkpoint::{Checkpoint, ModelLocation};
use ankh3::input::fasta::FastaReader;
use ankh3::input::labelled::{LabelledColumns, read_labelled};
use ankh3::input::structure::read_chains;
use ankh3::input::variants::{read_dms, read_variants};
use ankh3::io::compression::decompress;
use ankh3::model::Config;
use ankh3::output::embeddings::{EmbeddingFormat, EmbeddingReader};
use ankh3::output::journal;
use ankh3::output::merge::{TextFile, merge_text};
use ankh3::report::page::read::result_file;
use ankh3::tokenizer::{TaskPrefix, Tokenizer};
use ankh3::training::recipe::Recipe;
use tempfile::TempDir;

/// The line between the two files of an input.
const SEPARATOR: &[u8] = b"\n%%\n";
/// The largest decompressed input: compressed inputs can grow without limit.
const DECOMPRESSED: u64 = 4 << 20;

/// A reader that gets all of its input as bytes.
pub type Reader = fn(&[u8]);

/// The name of each target, which is also the name of its corpus, and its reader.
pub const READERS: &[(&str, Reader)] = &[
    ("config", config),
    ("dms", dms),
    ("embeddings_arrow", embeddings_arrow),
    ("embeddings_h5", embeddings_h5),
    ("embeddings_jsonl", embeddings_jsonl),
    ("embeddings_npy", embeddings_npy),
    ("embeddings_npz", embeddings_npz),
    ("embeddings_parquet", embeddings_parquet),
    ("embeddings_safetensors", embeddings_safetensors),
    ("embeddings_tsv", embeddings_tsv),
    ("fasta", fasta),
    ("journal", journal),
    ("labelled", labelled),
    ("manifest", manifest),
    ("mmcif", mmcif),
    ("pdb", pdb),
    ("pickle", pickle),
    ("recipe", recipe),
    ("rr", rr),
    ("safetensors", safetensors),
    ("spiece", spiece),
    ("tokenizer_json", tokenizer_json),
    ("variants", variants),
];

thread_local! {
    /// A folder for the files of an input; it goes away with the thread.
    static FOLDER: LazyCell<TempDir> =
        LazyCell::new(|| tempfile::tempdir().expect("a temporary folder can be made"));
}

/// Runs `read` on a file with these bytes.
fn with_file(name: &str, data: &[u8], read: impl FnOnce(&Path)) {
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        fs::write(&path, data).expect("a temporary file can be written");
        read(&path);
        let _ = fs::remove_file(&path);
    });
}

/// The two files of an input; the second is empty without a separator.
fn two_files(data: &[u8]) -> (&[u8], &[u8]) {
    let windows = data.windows(SEPARATOR.len());
    let found = windows.enumerate().find(|(_, window)| *window == SEPARATOR);
    let at = found.map_or(data.len(), |(at, _)| at);
    let second = data.get(at + SEPARATOR.len()..).unwrap_or_default();
    (&data[..at], second)
}

/// FASTA, plain or compressed.
pub fn fasta(data: &[u8]) {
    let whole: Box<dyn BufRead + Send> = Box::new(Cursor::new(data.to_vec()));
    let Ok(plain) = decompress(whole) else {
        return;
    };
    let plain = BufReader::new(plain.take(DECOMPRESSED));
    let reader = FastaReader::new(Box::new(plain), "input.fasta".into());
    for record in reader {
        if record.is_err_and(|error| error.is_fatal()) {
            break;
        }
    }
}

/// The vocabulary of `tokenizers`.
pub fn tokenizer_json(data: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_tokenizer_json(data) {
        use_tokenizer(&tokenizer);
    }
}

/// The vocabulary of SentencePiece.
pub fn spiece(data: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_spiece(data, 100) {
        use_tokenizer(&tokenizer);
    }
}

fn use_tokenizer(tokenizer: &Tokenizer) {
    let prefix = tokenizer.default_prefix();
    for prefix in [TaskPrefix::None, prefix] {
        let _ = tokenizer.encode(b"MKVUX", prefix);
    }
    let again = Tokenizer::from_tokenizer_json(&tokenizer.to_tokenizer_json());
    assert!(again.is_ok(), "a vocabulary that was read can be written");
}

/// A model directory of three files, of which the target changes one.
fn checkpoint(changed: &str, data: &[u8]) {
    let bundled = ModelLocation::bundled();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for name in ["config.json", "tokenizer.json"] {
        if let Ok(Some(bytes)) = bundled.read(name) {
            fs::write(folder.path().join(name), bytes).expect("a temporary file can be written");
        }
    }
    fs::write(folder.path().join(changed), data).expect("a temporary file can be written");
    if changed == "config.json" {
        // The header of a safetensors file without tensors.
        let empty = b"\x02\0\0\0\0\0\0\0{}";
        let path = folder.path().join("model.safetensors");
        fs::write(path, empty).expect("a temporary file can be written");
    }
    if let Ok(checkpoint) = Checkpoint::load(folder.path()) {
        let _ = CheckpointSummary::of(&checkpoint);
        let _ = checkpoint.model_hash();
    }
}

/// The configuration of a model.
pub fn config(data: &[u8]) {
    let _ = serde_json::from_slice::<Config>(data);
    checkpoint("config.json", data);
}

/// Weights in safetensors.
pub fn safetensors(data: &[u8]) {
    checkpoint("model.safetensors", data);
}

/// Weights in PyTorch's pickle.
pub fn pickle(data: &[u8]) {
    checkpoint("pytorch_model.bin", data);
}

/// Structures in PDB format.
pub fn pdb(data: &[u8]) {
    with_file("input.pdb", data, |path| drop(read_chains(path)));
}

/// Structures in mmCIF format.
pub fn mmcif(data: &[u8]) {
    with_file("input.cif", data, |path| drop(read_chains(path)));
}

/// Contact lists in CASP's format, and other results that the report reads.
pub fn rr(data: &[u8]) {
    with_file("input.rr", data, |path| drop(result_file(path)));
}

/// Lists of variants.
pub fn variants(data: &[u8]) {
    with_file("input.tsv", data, |path| drop(read_variants(path)));
}

/// Tables of measured variants.
pub fn dms(data: &[u8]) {
    with_file("input.csv", data, |path| drop(read_dms(path)));
}

/// Tables of labelled proteins.
pub fn labelled(data: &[u8]) {
    let columns = LabelledColumns {
        label: "label".to_owned(),
        ..LabelledColumns::default()
    };
    with_file("input.csv", data, |path| {
        drop(read_labelled(path, &columns));
    });
}

/// Recipes of training.
pub fn recipe(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(recipe) = Recipe::read(text, &[])
    {
        let again = Recipe::read(&recipe.to_toml(), &[]);
        assert!(again.is_ok(), "a recipe that was read can be written");
    }
}

/// The journal of `--resume`.
pub fn journal(data: &[u8]) {
    with_file("output.resume", data, |path| {
        if let Ok((mut replay, _journal)) = journal::open(path, "{}") {
            while let Ok(Some(_)) = replay.next_entry() {}
        }
    });
}

/// A table and the manifest beside it.
pub fn manifest(data: &[u8]) {
    let (table, manifest) = two_files(data);
    with_two_files("input.tsv", table, "input.tsv.json", manifest, |path| {
        if let Ok(Some(file)) = TextFile::open(path) {
            let merged = path.with_file_name("merged.tsv");
            let _ = merge_text(vec![file], &merged, &[]);
            for suffix in ["", ".json"] {
                let _ = fs::remove_file(PathBuf::from(format!("{}{suffix}", merged.display())));
            }
        }
        drop(result_file(path));
    });
}

fn with_two_files(name: &str, data: &[u8], beside: &str, other: &[u8], read: impl FnOnce(&Path)) {
    with_file(beside, other, |other| {
        if fs::metadata(other).is_ok_and(|found| found.len() == 0) {
            let _ = fs::remove_file(other);
        }
        with_file(name, data, read);
    });
}

fn embeddings(format: EmbeddingFormat, data: &[u8]) {
    let name = format!("input.{}", format.name());
    let suffix = if format == EmbeddingFormat::Npy {
        "index.tsv"
    } else {
        "json"
    };
    let has_sidecar = format == EmbeddingFormat::Npy || !format.is_binary();
    let (data, sidecar) = if has_sidecar {
        two_files(data)
    } else {
        (data, &[][..])
    };
    with_two_files(&name, data, &format!("{name}.{suffix}"), sidecar, |path| {
        // An input of another format is the concern of another target.
        if EmbeddingFormat::detect(path).is_ok_and(|found| found == format)
            && let Ok(reader) = EmbeddingReader::open(path)
        {
            // An index may name one row many times.
            reader.take(10_000).for_each(drop);
        }
    });
}

/// Embeddings as tab-separated text, and the manifest beside it.
pub fn embeddings_tsv(data: &[u8]) {
    embeddings(EmbeddingFormat::Tsv, data);
}

/// Embeddings as JSON lines, and the manifest beside it.
pub fn embeddings_jsonl(data: &[u8]) {
    embeddings(EmbeddingFormat::Jsonl, data);
}

/// Embeddings as one NumPy array, and the index beside it.
pub fn embeddings_npy(data: &[u8]) {
    embeddings(EmbeddingFormat::Npy, data);
}

/// Embeddings as a NumPy archive.
pub fn embeddings_npz(data: &[u8]) {
    embeddings(EmbeddingFormat::Npz, data);
}

/// Embeddings as HDF5.
pub fn embeddings_h5(data: &[u8]) {
    embeddings(EmbeddingFormat::H5, data);
}

/// Embeddings as safetensors.
pub fn embeddings_safetensors(data: &[u8]) {
    embeddings(EmbeddingFormat::Safetensors, data);
}

/// Embeddings as Parquet.
pub fn embeddings_parquet(data: &[u8]) {
    embeddings(EmbeddingFormat::Parquet, data);
}

/// Embeddings as an Arrow stream.
pub fn embeddings_arrow(data: &[u8]) {
    embeddings(EmbeddingFormat::Arrow, data);
}

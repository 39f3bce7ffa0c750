//! Files that lie about their content: each is an error that names the file, never a panic, and no
//! number of a file becomes a size before it is checked.

use std::fs;
use std::io::Write;

use ankh3::checkpoint::Checkpoint;
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{checkpoint_of, fixtures, tiny};

/// The message of a checkpoint that cannot be opened.
fn refused(name: &str, content: &[u8]) -> String {
    let dir = match name {
        "pytorch_model.bin" => checkpoint_of(&[]),
        _ => tiny(),
    };
    fs::write(dir.path().join(name), content).unwrap();
    let message = Checkpoint::load(dir.path()).unwrap_err().to_string();
    assert!(message.contains(name), "{message}");
    message
}

/// The one tensor of a state dict: the class and number of values of its storage, its offset, shape
/// and strides.
struct Claim(&'static str, i64, i64, &'static [i64], &'static [i64]);

impl Claim {
    fn pickle(&self) -> Vec<u8> {
        let text = |text: &str| {
            [
                b"X",
                &(text.len() as u32).to_le_bytes()[..],
                text.as_bytes(),
            ]
            .concat()
        };
        let number = |number: i64| [&[0x8a, 8][..], &number.to_le_bytes()].concat();
        let tuple = |items: &[i64]| {
            let items: Vec<_> = items.iter().flat_map(|item| number(*item)).collect();
            [b"(", items.as_slice(), b"t"].concat()
        };
        let Claim(class, values, offset, shape, strides) = self;
        [
            b"\x80\x02}".to_vec(),
            text("shared.weight"),
            b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
            text("storage"),
            format!("ctorch\n{class}\n").into_bytes(),
            text("0"),
            text("cpu"),
            number(*values),
            b"tQ".to_vec(),
            number(*offset),
            tuple(shape),
            tuple(strides),
            b"\x89NtRs.".to_vec(),
        ]
        .concat()
    }
}

/// An archive as `torch.save` writes it.
fn archive(pickle: &[u8], files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, content) in [("data.pkl", pickle)].iter().chain(files) {
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_pickled_tensor_stays_within_its_storage() {
    const EDGE: i64 = 1 << 20;
    let claims = [
        Claim("FloatStorage", 5, 0, &[5], &[1]),
        Claim("FloatStorage", 1 << 61, 0, &[1 << 61], &[1]),
        Claim("FloatStorage", 4, 1, &[2, 2], &[2, 1]),
        Claim("FloatStorage", 4, i64::MAX, &[1], &[1]),
        Claim("FloatStorage", 4, 0, &[2, 2], &[1 << 62, 1]),
        Claim("FloatStorage", 4, 0, &[EDGE, EDGE], &[0, 0]),
        Claim("FloatStorage", 4, 0, &[2, 4], &[0, 1]),
        Claim("FloatStorage", 4, 0, &[1 << 40], &[0]),
        Claim("FloatStorage", 4, 0, &[0, 1 << 62, 1 << 62], &[1, 1, 1]),
        Claim("FloatStorage", 4, 0, &[2, 2], &[1]),
        Claim("HalfStorage", 9, 0, &[9], &[1]),
    ];
    let content: &[(&str, &[u8])] = &[("data/0", &[0; 16])];
    for claim in &claims {
        let bytes = archive(&claim.pickle(), content, CompressionMethod::Stored);
        let message = refused("pytorch_model.bin", &bytes);
        assert!(
            message.contains("shared.weight") && message.contains("beyond"),
            "{message}"
        );
    }
    let sound = Claim("FloatStorage", 4, 1, &[3], &[1]);
    let missing = archive(
        &sound.pickle(),
        &[("data/1", &[0; 16])],
        CompressionMethod::Stored,
    );
    assert!(refused("pytorch_model.bin", &missing).contains("missing"));
    let order: &[(&str, &[u8])] = &[("data/0", &[0; 16]), ("byteorder", b"big")];
    let big = archive(&sound.pickle(), order, CompressionMethod::Stored);
    assert!(refused("pytorch_model.bin", &big).contains("big-endian"));
    let other = archive(b"}.", &[], CompressionMethod::Stored);
    let other = String::from_utf8_lossy(&other).replace("data.pkl", "code.pkl");
    assert!(refused("pytorch_model.bin", other.as_bytes()).contains("data.pkl"));
}

#[test]
fn files_of_pytorch_that_are_not_read_say_what_to_do() {
    let legacy = fs::read(fixtures().join("legacy.bin")).unwrap();
    let message = refused("pytorch_model.bin", &legacy);
    assert!(
        message.contains("before 1.6") && message.contains("torch.save(torch.load("),
        "{message}"
    );
    for content in [&b"<html>"[..], b"PK", &[0; 4096], b""] {
        assert!(refused("pytorch_model.bin", content).contains("fetch it again"));
    }
}

/// Single bytes of a pickled checkpoint changed: the archive, the pickle and the storages.
#[test]
fn a_damaged_archive_never_panics() {
    let whole = fs::read(fixtures().join("tiny.bin")).unwrap();
    let dir = checkpoint_of(&[]);
    let path = dir.path().join("pytorch_model.bin");
    for (at, byte) in (0..whole.len())
        .step_by(7)
        .zip([0, 0xff, b'R', 0x7f].into_iter().cycle())
    {
        let mut changed = whole.clone();
        changed[at] = byte;
        // A new file: the one before may still be mapped.
        let _ = fs::remove_file(&path);
        fs::write(&path, changed).unwrap();
        if let Err(error) = Checkpoint::load(dir.path()) {
            assert!(
                error.to_string().contains("pytorch_model.bin"),
                "{at}: {error}"
            );
        }
    }
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), data].concat()
}

#[test]
fn lying_headers_of_safetensors_are_errors() {
    let tensor = |shape: Value, offsets: [u64; 2]| {
        json!({"a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).to_string()
    };
    let edge = 1_u64 << 63;
    for content in [
        Vec::new(),
        vec![0xff; 8],
        (1_u64 << 40).to_le_bytes().to_vec(),
        safetensors("[", b""),
        safetensors(&format!("{{\"a\":{}", "[".repeat(100_000)), b""),
        safetensors(&tensor(json!([edge, edge]), [0, 4]), &[0; 4]),
        safetensors(&tensor(json!([-1]), [0, 4]), &[0; 4]),
        safetensors(&tensor(json!([1]), [4, 0]), &[0; 4]),
        safetensors(&tensor(json!([1]), [0, 4]), b""),
        safetensors(&tensor(json!([1]), [4, 8]), &[0; 8]),
        safetensors(&tensor(json!([2]), [0, 4]), &[0; 4]),
        safetensors(&format!("{{\"a\":1{}}}", " ".repeat(5 << 20)), b""),
    ] {
        assert!(refused("model.safetensors", &content).contains("fetch it again"));
    }
}

#[test]
fn lying_vocabularies_are_errors() {
    let file = |vocab: Value, added: Value| {
        json!({"added_tokens": added, "model": {"vocab": vocab}}).to_string()
    };
    let pieces = json!([["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["A", 0]]);
    let none = json!([]);
    for text in [
        file(json!({"<pad>": u64::MAX}), none.clone()),
        file(json!({"<pad>": "x"}), none.clone()),
        file(json!([["<pad>", 0], []]), none.clone()),
        file(json!(3), none.clone()),
        file(Value::Null, none),
        file(pieces.clone(), json!([{"id": 1_u64 << 40, "content": "x"}])),
        file(pieces.clone(), json!([{"id": 1 << 19, "content": "x"}])),
        file(pieces, json!([{"id": -1, "content": "x"}])),
        format!("{{\"model\":{}", "[".repeat(100_000)),
    ] {
        refused("tokenizer.json", text.as_bytes());
    }
    for (name, text) in [
        ("tokenizer_config.json", r#"{"extra_ids": "many"}"#),
        ("tokenizer_config.json", r#"{"extra_ids": -1}"#),
        (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#,
        ),
        ("tokenizer_config.json", "{"),
        ("added_tokens.json", r#"{"<x>": -1}"#),
        ("added_tokens.json", "[]"),
        // These are found with the vocabulary.
        ("spiece.model", r#"{"extra_ids": 1000000000}"#),
        ("spiece.model", r#"{"extra_ids": 9223372036854775808}"#),
    ] {
        let dir = checkpoint_of(&[
            ("tiny.bin", "pytorch_model.bin"),
            ("spiece.model", "spiece.model"),
        ]);
        fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        let file = if name == "spiece.model" {
            "tokenizer_config.json"
        } else {
            name
        };
        fs::write(dir.path().join(file), text).unwrap();
        let message = Checkpoint::load(dir.path()).unwrap_err().to_string();
        assert!(message.contains(name), "{text}: {message}");
    }
}

#[test]
fn small_files_that_are_large_are_not_read() {
    let large = vec![b' '; 2 << 20];
    assert!(refused("config.json", &large).contains("at most"));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n";
    for name in [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "pytorch_model.bin",
    ] {
        let message = refused(name, pointer);
        assert!(
            message.contains("Git LFS pointer") && message.contains("git lfs pull"),
            "{message}"
        );
    }
}

/// Pipes, devices and directories in the place of files; a read of the first two need not end.
#[cfg(unix)]
#[test]
fn only_regular_files_are_read() {
    let names = [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "model.safetensors.index.json",
    ];
    for name in names {
        for kind in ["directory", "pipe", "device"] {
            let dir = tiny();
            let path = dir.path().join(name);
            let _ = fs::remove_file(&path);
            match kind {
                "directory" => fs::create_dir(&path).unwrap(),
                "device" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
                _ => {
                    let made = std::process::Command::new("mkfifo").arg(&path).status();
                    assert!(made.unwrap().success());
                }
            }
            let message = Checkpoint::load(dir.path()).unwrap_err().to_string();
            assert!(
                message.contains(name) && message.contains(kind),
                "{name} {kind}: {message}"
            );
        }
    }
    // A link to a regular file is one: the hub's cache consists of links.
    let dir = tiny();
    let path = dir.path().join("config.json");
    fs::rename(&path, dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", &path).unwrap();
    Checkpoint::load(dir.path()).unwrap();
}

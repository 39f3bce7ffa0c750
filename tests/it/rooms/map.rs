//! The map: what each room may import. CONTRIBUTING.md has the same tables.

/// Each room with all rooms that it may import from. `main` is `src/main.rs`, `lib` is
/// `src/lib.rs`.
pub(super) const ROOMS: &[(&str, &[&str])] = &[
    ("lib", &["library"]),
    (
        "library",
        &[
            "checkpoint",
            "device",
            "inference",
            "model",
            "number",
            "sequence",
            "tokenizer",
        ],
    ),
    ("main", &["args", "commands", "io", "progress", "shown"]),
    (
        "commands",
        &[
            "number",
            "args",
            "checkpoint",
            "device",
            "check",
            "inference",
            "input",
            "io",
            "kernels",
            "model",
            "output",
            "packing",
            "probe",
            "progress",
            "report",
            "sequence",
            "tokenizer",
            "training",
            "shown",
        ],
    ),
    (
        "args",
        &[
            "device",
            "input",
            "kernels",
            "number",
            "sequence",
            "tokenizer",
        ],
    ),
    (
        "inference",
        &["kernels", "model", "packing", "sequence", "tokenizer"],
    ),
    (
        "training",
        &[
            "number",
            "kernels",
            "model",
            "packing",
            "sequence",
            "tokenizer",
        ],
    ),
    (
        "probe",
        &[
            "inference",
            "io",
            "kernels",
            "model",
            "number",
            "packing",
            "sequence",
            "tokenizer",
        ],
    ),
    (
        "checkpoint",
        &[
            "number",
            "device",
            "io",
            "model",
            "sequence",
            "tokenizer",
            "shown",
        ],
    ),
    ("model", &["number", "kernels", "shown"]),
    ("packing", &["sequence", "tokenizer"]),
    ("check", &["number", "kernels", "model"]),
    ("report", &["input", "io", "output", "sequence", "shown"]),
    ("output", &["number", "io", "sequence", "shown"]),
    ("input", &["io", "sequence", "shown"]),
    ("io", &[]),
    ("tokenizer", &["sequence", "shown"]),
    ("kernels", &[]),
    ("sequence", &["shown"]),
    ("device", &["number", "kernels"]),
    ("number", &[]),
    ("shown", &[]),
    ("progress", &["sequence"]),
];

/// External names that only the listed rooms may use.
pub(super) const KEPT_IN: &[(&str, &[&str])] = &[
    ("clap", &["args", "commands", "main"]),
    ("clap_complete", &["commands"]),
    ("clap_mangen", &["commands"]),
    ("hf_hub", &["checkpoint"]),
    ("ureq", &["checkpoint"]),
    ("memmap2", &["checkpoint"]),
    ("signal_hook", &["io"]),
    ("candle_core::pickle", &["checkpoint"]),
    (
        "candle_core::safetensors::MmapedSafetensors",
        &["checkpoint"],
    ),
    ("candle_core::safetensors::MmapedFile", &["checkpoint"]),
    ("std::io::stdin", &["io"]),
    ("std::io::stdout", &["io"]),
    ("std::io::Stdin", &["io"]),
    ("std::io::Stdout", &["io"]),
];

/// Exceptions to [`KEPT_IN`] for every room: the enums of all rooms may be values of the command
/// line.
pub(super) const EVERYWHERE: &[&str] = &["clap::ValueEnum"];

/// External names that the listed rooms must not use.
pub(super) const KEPT_OUT_OF: &[(&str, &[&str])] = &[
    (
        "candle_core",
        &[
            "input",
            "io",
            "number",
            "output",
            "report",
            "sequence",
            "tokenizer",
        ],
    ),
    (
        "candle_nn",
        &[
            "input",
            "io",
            "number",
            "output",
            "report",
            "sequence",
            "tokenizer",
        ],
    ),
];

/// Forbidden macros: output goes through `io`, `tracing` or an error.
pub(super) const PRINT_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

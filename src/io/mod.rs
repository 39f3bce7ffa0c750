//! Bytes in and out of the process: standard streams, files that appear only when complete,
//! compression, signals.
//!
//! The format of a compressed input is recognised by its content, never by its name:
//!
//! ```
//! use ankh3::io::compression::Compression;
//!
//! assert_eq!(Compression::of(b"\x1f\x8b\x08\x00"), Compression::Gzip);
//! assert_eq!(Compression::of(b">P69905\nMVLSPADK"), Compression::Plain);
//! ```

pub mod atomic_file;
pub mod atomic_folder;
pub mod compression;
pub mod signals;
pub mod stdio;
pub mod unfinished;
pub mod whole_lines;

/// Bytes of the buffers for reading and writing.
pub(crate) const BUFFER: usize = 1 << 16;

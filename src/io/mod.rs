//! Bytes in and out of the process: standard streams, files that appear only when they are complete, compression, signals.

pub mod atomic_file;
pub mod compression;
pub mod signals;
pub mod stdio;

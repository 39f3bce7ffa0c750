//! One file a sub-command: open, load, run, write, report. Wiring only.

pub mod fetch;
pub mod init;
pub mod models;
pub mod tokenize;

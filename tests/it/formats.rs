//! The embedding formats of the library.
//!
//! - `fixture`: records, schemas and files for the other modules.
//! - `readers`: our files, read by our own reader and by Python libraries.
//! - `files`: files and streams, with and without a manifest.
//! - `failures`: closed pipes, full disks, incomplete runs, invalid records and files.
//! - `merging`: merging shards and other files; inspecting files.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as the tests themselves do"
)]

mod failures;
mod files;
mod fixture;
mod merging;
mod readers;

//! The embedding formats of the library.
//!
//! - `fixture`: records, schemas and files for the others.
//! - `readers`: what we write, read by our own reader and by the libraries that users have.
//! - `files`: files and streams, with and without a manifest.
//! - `failures`: closed pipes, full disks, half runs, what cannot be written or read.
//! - `merging`: shards and other files merged; files inspected.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as the tests themselves do"
)]

mod failures;
mod files;
mod fixture;
mod merging;
mod readers;

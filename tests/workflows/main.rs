//! The modules for Nextflow and Snakemake as their users meet them: the real engines, a real Slurm,
//! the built binary, real kills.
//!
//! `tests/workflows/engines` (called by `tests/run`) installs the engines into `.tools`; a test
//! whose engine could not be had is skipped.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Folders, models, engines.
mod support;

/// Tests that cannot run here.
#[path = "../skip/mod.rs"]
mod skip;

/// What no run is needed for: the linters of each engine, of containers and of scripts.
mod lints;

/// A hub on this machine, for what downloads.
#[path = "../it/fetch/hub_server/mod.rs"]
#[allow(dead_code, reason = "its faults are for other tests")]
mod hub_server;

/// Every module of Nextflow and every wrapper of Snakemake, against the commands they call.
mod modules;

/// Nextflow on this machine: scatter and gather, `-resume`, both pipelines.
mod nextflow;

/// Snakemake on this machine: wrappers, the workflow as a module, both pipelines.
mod snakemake;

/// Bad shards, kills, read-only models, no network.
mod failures;

/// Both engines through a one-node Slurm with fake GPUs.
mod slurm;

/// The report in a browser.
mod report;

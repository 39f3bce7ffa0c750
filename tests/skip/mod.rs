//! Tests that cannot run on this machine. The test harness counts them as passed; `tests/run`
//! counts them as skipped.
#![allow(dead_code, reason = "no binary of tests lacks both kinds of things")]

use std::fs::OpenOptions;
use std::io::{Write, stderr};
use std::thread;

/// What a skipped test lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// A program that can be installed. Where the variable `CI` is set, its absence is a failure.
    Tool,
    /// A right, a device, an instruction set or data that nobody can install.
    Machine,
}

/// Names the running test and what it lacks, in the file `$ANKH3_SKIPPED` if that is set, else on
/// standard error. The caller returns next.
pub fn skip(lack: Lack, what: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        lack == Lack::Machine || std::env::var_os("CI").is_none(),
        "{test} needs {what}, and CI must have every tool"
    );
    let line = format!("{test}\t{what}\n");
    let written = match std::env::var_os("ANKH3_SKIPPED") {
        Some(path) => OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes())),
        // Not through `eprintln!`, whose output the harness hides for passing tests.
        None => stderr().write_all(format!("SKIPPED {line}").as_bytes()),
    };
    written.expect("the list of skipped tests can be written");
}

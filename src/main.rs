//! The `ankh3` command.

fn main() {}

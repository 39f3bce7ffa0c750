//! `ankh3 completions` and `ankh3 man`: generated from the definitions of the arguments, so they
//! cannot be out of date.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Print a completion script for a shell
///
/// For bash: `ankh3 completions bash > ~/.local/share/bash-completion/completions/ankh3`.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell to complete for
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write all pages into a folder
///
/// `ankh3 man | man -l -` shows the page; `ankh3 man DIR` writes ankh3.1 and one page per
/// sub-command.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Folder for all pages; created if it does not exist
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Writes the completion script of `cli` to `out`.
///
/// # Errors
/// Output that cannot be written.
pub fn completions(args: &CompletionsArgs, mut cli: Command, out: &mut dyn Write) -> Result<()> {
    // The generator panics where it cannot write, so it writes to memory.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "ankh3", &mut text);
    Ok(out.write_all(&text)?)
}

/// Writes the page of `cli` to `out`, or every page into a folder.
///
/// # Errors
/// Pages that cannot be written.
pub fn man(args: &ManArgs, mut cli: Command, out: &mut dyn Write) -> Result<()> {
    cli.build();
    match &args.dir {
        None => Ok(Man::new(cli).render(out)?),
        Some(dir) => pages(&cli, "ankh3", dir).with_context(|| format!("{}", dir.display())),
    }
}

fn pages(command: &Command, name: &str, dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut page = Vec::new();
    Man::new(command.clone()).title(name).render(&mut page)?;
    fs::write(dir.join(format!("{name}.1")), page)?;
    let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    visible
        .filter(|sub| sub.get_name() != "help")
        .try_for_each(|sub| pages(sub, &format!("{name}-{}", sub.get_name()), dir))
}

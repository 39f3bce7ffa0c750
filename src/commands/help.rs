//! The help of the whole program: sub-commands in groups, and usage lines that do not depend on the
//! environment.

use std::fmt::Write;

use clap::Command;

/// Groups of sub-commands, in the order of the help.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Embedding and prediction",
        &["embed", "predict-contacts", "contacts", "probe"],
    ),
    (
        "Scoring and generation",
        &["score", "mask-fill", "complete"],
    ),
    ("Training", &["pretrain", "plot-training", "init"]),
    ("Files", &["merge", "report", "inspect", "tokenize"]),
    (
        "Models and this machine",
        &["fetch", "models", "doctor", "completions", "man"],
    ),
];

/// `cli` with grouped sub-commands in its help and with fixed usage lines.
pub fn arranged(cli: Command) -> Command {
    let template = format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{}\n{{options}}{{after-help}}",
        groups(&cli),
        heading(&cli, "Global options"),
    );
    let mut built = cli.clone();
    built.build();
    fixed_usage(cli, &mut built).help_template(template)
}

/// A heading for each group, below it its sub-commands with the first line of their help.
fn groups(cli: &Command) -> String {
    let width = cli.get_subcommands().map(|sub| sub.get_name().len()).max();
    let width = width.unwrap_or_default();
    let literal = cli.get_styles().get_literal();
    let mut text = String::new();
    for (title, names) in GROUPS {
        let _ = writeln!(text, "{}", heading(cli, title));
        for name in names {
            let about = cli.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {literal}{name:<width$}{literal:#}  {about}");
        }
        text.push('\n');
    }
    text
}

fn heading(cli: &Command, title: &str) -> String {
    let header = cli.get_styles().get_header();
    format!("{header}{title}:{header:#}")
}

/// The usage line of the help, used in errors too. By default, an error would show a line with all
/// given flags, even flags from environment variables.
fn fixed_usage(command: Command, built: &mut Command) -> Command {
    let usage = built.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    command.override_usage(usage).mut_subcommands(|sub| {
        match built.find_subcommand_mut(sub.get_name()) {
            Some(of_sub) => fixed_usage(sub, of_sub),
            None => sub,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Subcommand;

    use super::*;

    fn cli() -> Command {
        crate::commands::Command::augment_subcommands(Command::new("ankh3"))
    }

    #[test]
    fn every_sub_command_is_in_exactly_one_group() {
        let mut listed: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        let cli = cli();
        let mut names: Vec<&str> = cli.get_subcommands().map(Command::get_name).collect();
        listed.sort_unstable();
        names.sort_unstable();
        assert_eq!(listed, names);
    }

    #[test]
    fn help_shows_each_sub_command_once() {
        let help = arranged(cli()).render_help().to_string();
        for sub in cli().get_subcommands() {
            let line = format!("\n  {} ", sub.get_name());
            assert_eq!(help.matches(&line).count(), 1, "{line}: {help}");
        }
    }

    #[test]
    fn an_error_shows_the_usage_of_the_help() {
        let error = arranged(cli())
            .try_get_matches_from(["ankh3", "embed", "--model", "nano", "--no-such-flag"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("Usage: ankh3 embed [OPTIONS] [FASTA]..."),
            "{error}"
        );
    }
}

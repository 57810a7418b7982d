//! The page `commands.md`, written from the definition of the command line.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::{cli::Cli, docs::held_equal};

const HEAD: &str = "\
# Commands
<!-- Written from the code: SYNCGATE_WRITE_DOCS=1 cargo test --lib docs -->

`syncgate COMMAND --help` prints the same text. Every command takes `--output json`, which prints one JSON document, or one
on each line, for programs. What a command finds goes to standard output; what it says about its work goes to standard error.

| exit code | meaning |
|---|---|
| 0 | The command succeeded. |
| 1 | It failed, or found a fault that its help names. |
| 2 | Its arguments or the configuration are wrong. |
| 3 | The gateway could not start. |
| 130 | Ctrl-C ended `retry`, `sync` or `backup`. |
| 143 | SIGTERM ended `sync`. |
";

/// Returns a text of the help as a paragraph, with `<` escaped for HTML.
fn prose(text: &str) -> String {
    let text = text.replace('<', "&lt;").replace("\n\n", "\u{0}");
    let text = text.replace('\n', " ").replace('\u{0}', "\n\n");
    // clap drops the full stop of the last sentence.
    match text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '`' | ')' | '"')) {
        true => text + ".",
        false => text,
    }
}

fn name_of(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default();
    let values: Vec<String> = values.iter().map(|name| format!("<{name}>")).collect();
    let takes = arg.get_action().takes_values() && !values.is_empty();
    let value = if takes {
        values.join(" ")
    } else {
        String::new()
    };
    match (arg.get_long(), arg.get_short()) {
        (Some(long), _) if takes => format!("--{long} {value}"),
        (Some(long), _) => format!("--{long}"),
        (None, Some(short)) => format!("-{short} {value}"),
        (None, None) => value,
    }
}

fn argument(page: &mut String, arg: &Arg) {
    let help = arg.get_long_help().or(arg.get_help());
    let mut help = prose(&help.map(ToString::to_string).unwrap_or_default()).replace("\n\n", " ");
    let takes = arg.get_action().takes_values();
    let values = arg.get_possible_values();
    let values: Vec<String> = values
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if takes && !values.is_empty() {
        write!(help, " One of {}.", values.join(", ")).unwrap();
    }
    let defaults = arg.get_default_values();
    let defaults: Vec<String> = defaults
        .iter()
        .map(|value| format!("`{}`", value.display()))
        .collect();
    if takes && !defaults.is_empty() {
        write!(help, " Default {}.", defaults.join(", ")).unwrap();
    }
    if let Some(variable) = arg.get_env() {
        write!(help, " Variable `{}`.", variable.display()).unwrap();
    }
    writeln!(page, "- `{}`: {}", name_of(arg), help.trim()).unwrap();
}

fn command(page: &mut String, command: &mut Command, path: &str) {
    let about = command.get_long_about().or(command.get_about());
    let about = prose(&about.map(ToString::to_string).unwrap_or_default());
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    write!(
        page,
        "\n## {path}\n\n{about}\n\n```text no-run=\"usage\"\n{usage}\n```\n"
    )
    .unwrap();
    let is_shown = |arg: &&Arg| {
        !arg.is_hide_set()
            && !arg.is_global_set()
            && !matches!(
                arg.get_action(),
                ArgAction::Help | ArgAction::HelpLong | ArgAction::HelpShort | ArgAction::Version
            )
            // The head of the page describes it for every command.
            && arg.get_id() != "output"
    };
    let arguments: Vec<&Arg> = command.get_arguments().filter(is_shown).collect();
    if !arguments.is_empty() {
        page.push('\n');
        arguments.into_iter().for_each(|arg| argument(page, arg));
    }
    if let Some(examples) = command.get_after_long_help() {
        let examples = examples.to_string();
        write!(
            page,
            "\n```text no-run=\"part of the help\"\n{}\n```\n",
            examples.trim_end()
        )
        .unwrap();
    }
    let subcommands = command
        .get_subcommands_mut()
        .filter(|command| !command.is_hide_set());
    for subcommand in subcommands {
        let path = format!("{path} {}", subcommand.get_name());
        self::command(page, subcommand, &path);
    }
}

#[test]
fn the_commands_are_those_of_the_code() {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut page = HEAD.to_owned();
    command(&mut page, &mut root, "syncgate");
    held_equal("commands", &page);
}

//! A command on a pseudo-terminal, because commands print otherwise there than into a pipe.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Command, ExitStatus, Stdio},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Lines of a terminal of which nothing else is said.
const LINES: u16 = 50;

/// Runs a command on a terminal of so many columns until it ends: how it ended, and all that it wrote there, without
/// colours. The terminal's own line ends (`\r\n`) are `\n` in the text. It is one with colours, unless the command has
/// another `TERM`.
pub fn on_terminal(columns: u16, command: &mut Command) -> (ExitStatus, String) {
    on_terminal_typing("", columns, command)
}

/// The same on a terminal of so many columns and lines.
pub fn on_terminal_of(columns: u16, lines: u16, command: &mut Command) -> (ExitStatus, String) {
    let (status, text) = run("", (columns, lines), command);
    (status, without_colours(&text))
}

/// The same as [`on_terminal`] with what someone types there, before it is asked for; the terminal shows it too.
pub fn on_terminal_typing(
    typed: &str,
    columns: u16,
    command: &mut Command,
) -> (ExitStatus, String) {
    let (status, text) = run(typed, (columns, LINES), command);
    (status, without_colours(&text))
}

/// As [`on_terminal`], with the escape sequences of colours.
pub fn on_terminal_in_colour(columns: u16, command: &mut Command) -> (ExitStatus, String) {
    run("", (columns, LINES), command)
}

fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit() && c != ';');
        match end.map(|end| part.split_at(end)) {
            Some((_, rest)) if rest.starts_with('m') => plain += &rest[1..],
            _ => plain = plain + "\u{1b}[" + part,
        }
    }
    plain
}

fn run(typed: &str, (columns, lines): (u16, u16), command: &mut Command) -> (ExitStatus, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("a pseudo-terminal that is ours");
    unlockpt(&master).expect("a pseudo-terminal to open");
    let name = ptsname(&master, Vec::new()).expect("a name of the terminal");
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let terminal = rustix::fs::open(name, flags, Mode::empty()).expect("a terminal");
    let size = Winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).expect("a terminal with a size");
    let end = || Stdio::from(terminal.try_clone().expect("another descriptor"));
    if !command.get_envs().any(|(name, _)| name == "TERM") {
        command.env("TERM", "xterm-256color");
    }
    command.stdin(end()).stdout(end()).stderr(end());
    let mut child = command.spawn().expect("the binary runs");
    // The command keeps three ends open too, and the terminal would stay open with them.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    drop(terminal);
    let mut master = File::from(master);
    master
        .write_all(typed.as_bytes())
        .expect("a terminal that is typed on");
    let mut written = Vec::new();
    let mut part = [0; 4096];
    // A read of a terminal that nobody has open any more fails; that is its end.
    while let Ok(read @ 1..) = master.read(&mut part) {
        written.extend_from_slice(&part[..read]);
    }
    let status = child.wait().expect("the binary ends");
    let text = String::from_utf8(written).expect("text");
    (status, text.replace("\r\n", "\n"))
}

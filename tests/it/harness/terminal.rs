//! A command on a pseudo-terminal, because commands print otherwise there than into a pipe.

use std::{
    fs::File,
    io::Read,
    process::{Command, ExitStatus, Stdio},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Runs a command on a terminal of so many columns until it ends: how it ended, and all that it wrote there. The
/// terminal's own line ends (`\r\n`) are `\n` in the text.
pub fn on_terminal(columns: u16, command: &mut Command) -> (ExitStatus, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("a pseudo-terminal that is ours");
    unlockpt(&master).expect("a pseudo-terminal to open");
    let name = ptsname(&master, Vec::new()).expect("a name of the terminal");
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let terminal = rustix::fs::open(name, flags, Mode::empty()).expect("a terminal");
    let size = Winsize {
        ws_row: 50,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).expect("a terminal with a size");
    let end = || Stdio::from(terminal.try_clone().expect("another descriptor"));
    command
        .env("TERM", "xterm-256color")
        .stdin(end())
        .stdout(end())
        .stderr(end());
    let mut child = command.spawn().expect("the binary runs");
    // The command keeps three ends open too, and the terminal would stay open with them.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    drop(terminal);
    let mut master = File::from(master);
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

/// Returns a text without what gives it colours and weights.
pub fn without_colours(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.split_once('m').map_or(part, |(_, rest)| rest);
    }
    plain
}

//! The device that output goes to: a terminal with width and colours, or a pipe.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use crate::telemetry;

/// A smaller width is taken as unknown.
const COLUMNS_MIN: u16 = 20;

/// A terminal, or a pipe or file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// Width of the terminal; none for a pipe or a file, where no line is cut.
    pub(super) columns: Option<u16>,
    pub(super) has_colours: bool,
}

impl Screen {
    /// A pipe or a file.
    pub(super) const PIPE: Self = Self {
        columns: None,
        has_colours: false,
    };

    pub(super) fn of_stdout() -> Self {
        Self::of(&io::stdout())
    }

    pub(super) fn of_stderr() -> Self {
        Self::of(&io::stderr())
    }

    fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        // Unit tests must see the same text with and without a terminal.
        if cfg!(test) || !stream.is_terminal() {
            return Self::PIPE;
        }
        let size = rustix::termios::tcgetwinsize(stream);
        let columns = size.map_or(0, |size| size.ws_col);
        Self {
            // A terminal without a width, such as a serial line, wraps by itself.
            columns: Some(columns).filter(|columns| *columns >= COLUMNS_MIN),
            has_colours: telemetry::takes_colours(stream),
        }
    }
}

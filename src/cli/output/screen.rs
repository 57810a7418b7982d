//! Where output goes: to a terminal with its width and colours, or into a pipe.

use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
};

use crate::telemetry;

/// A terminal that says less than this is not believed.
const COLUMNS_MIN: u16 = 20;

/// Where output goes.
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
        // Unit tests find the same text wherever they run.
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

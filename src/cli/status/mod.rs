//! `syncgate status`: the state of a gateway on one page, from `GET /v1/status`.

mod page;
mod report;

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use clap::Args;
use serde_json::Value;
use tokio::{task::spawn_blocking, time::sleep};

use self::{page::Page, report::Report};
use super::{
    Failure, Gateway, Output,
    client::{self, Client},
    output::{self, escape},
    serve::Stops,
};

/// Interval of `--watch`.
const EVERY: Duration = Duration::from_secs(2);
/// Smaller sizes of a terminal are taken as these.
const LINES_MIN: usize = 20;
const COLUMNS_MIN: usize = 40;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
    /// Repeats every 2 seconds until Ctrl-C: redraws the page on a terminal, and prints report after report in a pipe.
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let viewer = Viewer {
        client: arguments.gateway.client()?,
        address: arguments.gateway.options().to_string(),
        output,
    };
    if arguments.watch {
        return viewer.watch().await;
    }
    let (text, is_well) = viewer.shown(viewer.ask().await?)?;
    match output {
        Output::Json => output::print_json_line(text.trim_end())?,
        Output::Text => output::print(&text)?,
    }
    match is_well {
        true => Ok(()),
        false => Err(Failure::shown()),
    }
}

/// Requests the status and shows it.
struct Viewer {
    client: Client,
    /// The options with which suggested commands find the same gateway.
    address: String,
    output: Output,
}

impl Viewer {
    async fn ask(&self) -> Result<Value, client::Error> {
        self.client.get(&["v1", "status"], &[]).await
    }

    /// Returns the status as text, and whether all is well.
    fn shown(&self, answer: Value) -> Result<(String, bool), Failure> {
        let json = format!("{answer}\n");
        let report: Report = serde_json::from_value(answer)
            .map_err(|_| Failure::from(self.client.not_a_gateway("a status")))?;
        let text = match self.output {
            Output::Json => json,
            Output::Text => {
                let (columns, lines_max) = size();
                Page::new(columns, lines_max, &self.address).text(&report)
            }
        };
        Ok((text, report.is_well()))
    }

    /// Shows the status every [`EVERY`]. A gateway that stops answering is shown so, because it may come back.
    async fn watch(&self) -> Result<(), Failure> {
        let mut stops = Stops::new()?;
        let draws = io::stdout().is_terminal() && self.output == Output::Text;
        let mut is_first = true;
        loop {
            let asked = tokio::select! {
                biased;
                () = stops.next() => return Ok(()),
                asked = self.ask() => asked,
            };
            let text = match asked {
                Ok(answer) => self.shown(answer)?.0,
                Err(error) if is_first => return Err(error.into()),
                Err(error) => {
                    let why = Failure::from(error).message;
                    if !draws {
                        output::say(&format!("warning: {why}"));
                    }
                    match draws {
                        true => format!("{why}\n"),
                        false => String::new(),
                    }
                }
            };
            let text = match (draws, self.output) {
                (true, _) => drawn(&text, is_first),
                (false, Output::Json) => escape::json(&text).into_owned(),
                (false, Output::Text) if is_first || text.is_empty() => output::shown(&text),
                (false, Output::Text) => format!("\n{}", output::shown(&text)),
            };
            is_first = false;
            // On a thread, so that Ctrl-C works while the reader of a pipe does not read.
            let written = tokio::select! {
                biased;
                () = stops.next() => return Ok(()),
                written = spawn_blocking(move || write(&text)) => written,
            };
            match written {
                Ok(Ok(())) => {}
                // The reader has ended, as in `syncgate status --watch | head`.
                Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Ok(Err(error)) => return Err(Failure::failed(format!("cannot print: {error}"))),
                Err(error) => return Err(Failure::failed_by(&error)),
            }
            tokio::select! {
                biased;
                () = stops.next() => return Ok(()),
                () = sleep(EVERY) => {}
            }
        }
    }
}

/// Returns the escape sequences that draw a page over the last one, line by line, because clearing the screen flickers.
fn drawn(page: &str, is_first: bool) -> String {
    let begin = if is_first {
        "\u{1b}[2J\u{1b}[H"
    } else {
        "\u{1b}[H"
    };
    let page = output::shown(page);
    let lines = page.lines().map(|line| format!("{line}\u{1b}[K\n"));
    format!("{begin}{}\u{1b}[J", lines.collect::<String>())
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Returns the columns of the terminal, and the lines of a page on it; `None` in a pipe, and if unknown.
fn size() -> (Option<usize>, Option<usize>) {
    let out = io::stdout();
    if !out.is_terminal() {
        return (None, None);
    }
    let Ok(size) = rustix::termios::tcgetwinsize(&out) else {
        return (None, None);
    };
    let said = |number: u16| (number > 0).then_some(usize::from(number));
    let columns = said(size.ws_col).map(|columns| columns.max(COLUMNS_MIN));
    // The last line is for the prompt.
    let lines = said(size.ws_row).map(|lines| (lines - 1).max(LINES_MIN));
    (columns, lines)
}

//! Tails a log stream without a data stream, by polling the records route.
//!
//! Each request begins at the position of the last answer, so no record is printed twice or left out, even after lost
//! connections.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, value::RawValue};
use tokio::time::sleep;

use super::{
    Arguments,
    again::Again,
    columns::Columns,
    cut::{self, Cut},
    print,
    writing::{Outcome, Writer},
};
use crate::{
    cli::{
        Failure, Output,
        client::{self, Client},
        output::{self, cell, counted},
        records::{Item, Page},
    },
    runtime::{clock::Clock, random},
};

/// Interval of requests at the end of the stream.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// Most records of one request.
const PAGE_LEN_MAX: u64 = 1_000;
/// The longest name of a data stream.
const NAME_LEN_MAX: usize = 32;

/// A run of the command.
pub(super) struct Polled {
    client: Client,
    output: Output,
    again: Again,
    /// Printed after the first answer.
    note: String,
    /// Name of the log stream.
    stream: String,
    /// Query parameter with the position of the next request.
    begin: (&'static str, String),
    /// The last printed record.
    last: Option<String>,
    /// How many records are left to print.
    left: Option<u64>,
    columns: Columns,
}

/// The lines of a page.
struct Lines {
    text: Vec<u8>,
    /// Number of records, and the last one.
    len: u64,
    last: Option<String>,
    /// Where the next request goes on.
    position: String,
    is_at_the_end: bool,
}

/// Why the next request waits.
enum Pause {
    /// All records were printed.
    AtTheEnd,
    /// The request failed.
    Failed(Cut),
}

/// Returns the name of a log stream by its name or OCID, or the gateway's sentence if it is unknown.
pub(super) async fn log_stream(
    client: &Client,
    name: &str,
) -> Result<Result<String, String>, client::Error> {
    match client.get(&["v1", "streams", name], &[]).await {
        Ok(stream) => match stream["name"].as_str() {
            Some(name) => Ok(Ok(name.to_owned())),
            None => Err(client.not_a_gateway("a stream")),
        },
        Err(client::Error::Refused(refusal)) if refusal.code == "stream_unknown" => {
            Ok(Err(refusal.detail))
        }
        Err(error) => Err(error),
    }
}

impl Polled {
    /// # Errors
    /// If the arguments have a cursor or a `pos`, which belong to data streams.
    pub(super) fn new(
        client: Client,
        arguments: &Arguments,
        output: Output,
        stream: String,
    ) -> Result<Self, Failure> {
        let name: String = stream.chars().take(NAME_LEN_MAX).collect();
        let how = client.next(["data-streams", "create", &name, "--stream", &stream]);
        if arguments.cursor.is_some() {
            return Err(Failure::usage(format!(
                "{stream} is a log stream, and a cursor is kept by a data stream; make one with: {how}"
            )));
        }
        let begin = match arguments.begin.as_str() {
            "now" => ("from", "tail".to_owned()),
            "earliest" => ("from", "earliest".to_owned()),
            pos if pos.starts_with("p1") => {
                return Err(Failure::usage(format!(
                    "{stream} is a log stream, and a pos is a place in a data stream; make one with: {how}"
                )));
            }
            position if position.starts_with("r1") => ("from", position.to_owned()),
            time => ("at", time.to_owned()),
        };
        Ok(Self {
            client,
            output,
            again: Again::of(arguments, output),
            note: format!(
                "note: no data stream is called {}, so the log stream is read, twice a second; to have its records pushed: {how}",
                arguments.name
            ),
            stream,
            begin,
            last: None,
            left: arguments.count,
            columns: Columns::default(),
        })
    }

    pub(super) async fn run(&mut self, writer: &mut Writer) -> Result<(), Failure> {
        self.read(writer).await?;
        if self.left != Some(0) {
            writer.say_why(self.last.is_some(), &self.so_far());
        }
        Ok(())
    }

    /// Prints records until `--count`, a signal, or the end of the reader.
    async fn read(&mut self, writer: &mut Writer) -> Result<(), Failure> {
        let (mut failures, mut has_begun) = (0, false);
        loop {
            let answer = tokio::select! {
                biased;
                () = writer.ended() => return Ok(()),
                answer = self.ask() => answer,
            };
            let pause = match answer {
                // A failed first request ends the command, as in any other command.
                Err(error) if !has_begun => return Err(error.into()),
                Err(error) => Pause::Failed(Cut::refused(error)),
                Ok(page) => {
                    if !has_begun {
                        output::say(&self.note);
                    }
                    (failures, has_begun) = (0, true);
                    let lines = self.lines(&page).ok_or_else(|| {
                        let why = self.client.not_a_gateway("a page of records");
                        self.over(&Failure::from(why).message)
                    })?;
                    match writer.write(lines.text).await {
                        Outcome::Written => {}
                        Outcome::Ended => return Ok(()),
                        Outcome::Failed(why) => return Err(self.over(&why)),
                    }
                    self.begin = ("from", lines.position);
                    self.last = lines.last.or(self.last.take());
                    self.left = self.left.map(|left| left.saturating_sub(lines.len));
                    match (self.left, lines.is_at_the_end) {
                        (Some(0), _) => return Ok(()),
                        (_, true) => Pause::AtTheEnd,
                        (_, false) => continue,
                    }
                }
            };
            let wait = match pause {
                Pause::AtTheEnd => POLL_EVERY,
                Pause::Failed(Cut::Final(why) | Cut::OtherShape(why)) => {
                    return Err(self.over(&why));
                }
                Pause::Failed(Cut::Gone(why) | Cut::Trimmed(why)) => {
                    return Err(Failure::failed(why));
                }
                Pause::Failed(Cut::Passing { why, retry_after }) => {
                    failures += 1;
                    let random = random::u64().unwrap_or(u64::MAX);
                    let wait = cut::wait(failures, retry_after, random);
                    let seconds = wait.as_secs_f32();
                    output::say(&format!("warning: {why}; asking again in {seconds:.1} s"));
                    wait
                }
            };
            tokio::select! {
                biased;
                () = writer.ended() => return Ok(()),
                () = sleep(wait) => {}
            }
        }
    }

    async fn ask(&self) -> Result<String, client::Error> {
        let path = ["v1", "streams", &self.stream, "partitions", "*", "records"];
        let limit = self
            .left
            .map_or(PAGE_LEN_MAX, |left| left.min(PAGE_LEN_MAX));
        let query = [("limit", limit.to_string()), self.begin.clone()];
        let request = self.client.request(Method::GET, &path, &query);
        self.client.send_for_text(request).await
    }

    /// Returns the lines of a page; `None` if the text is not a page.
    fn lines(&mut self, page: &str) -> Option<Lines> {
        let page: Page<'_> = serde_json::from_str(page).ok()?;
        if page.trimmed > 0 {
            let trimmed = counted(page.trimmed, "record");
            output::say(&format!(
                "warning: {trimmed} were trimmed before they could be printed"
            ));
        }
        let mut lines = Lines {
            text: Vec::new(),
            len: page.items.len() as u64,
            last: None,
            position: page.position?,
            is_at_the_end: page.next.is_null(),
        };
        for text in page.items {
            let item: Item<'_> = serde_json::from_str(text.get()).ok()?;
            let place = format!("{}.{}", cell(&item.partition, ""), cell(&item.offset, ""));
            match self.output {
                Output::Json => print::push_json(text.get(), &mut lines.text),
                Output::Text => {
                    let line = self.line(&item, &place);
                    lines.text.extend_from_slice(line.as_bytes());
                    lines.text.push(b'\n');
                }
            }
            lines.last = Some(place);
        }
        Some(lines)
    }

    /// Returns a record as a line for people. `syncgate records` shows the parts that a short line leaves out.
    fn line(&mut self, item: &Item<'_>, place: &str) -> String {
        let chars_max = print::line_chars_max();
        let time = cell(&item.time, "");
        if print::is_short(chars_max) {
            let now = Clock::system().now().to_string();
            let cells = [place.to_owned(), print::short_time(&time, &now)];
            let row = row(item, print::called_shortly);
            return self.columns.line(cells.into_iter(), &row, chars_max);
        }
        let cells = [time, self.stream.clone(), place.to_owned(), key(item)];
        let row = row(item, print::called);
        self.columns.line(cells.into_iter(), &row, chars_max)
    }

    /// Adds the last record and the command that goes on.
    fn over(&self, why: &str) -> Failure {
        match &self.last {
            Some(_) => Failure::failed(format!("{why}\n{}", self.so_far())),
            None => Failure::failed(why),
        }
    }

    /// Returns the last record, and the command that goes on there.
    fn so_far(&self) -> String {
        let begin = match &self.begin {
            ("from", tail) if tail == "tail" => "now",
            (_, begin) => begin.as_str(),
        };
        let again = self.again.at(&self.client, begin, self.left);
        match &self.last {
            Some(place) => format!(
                "the last record printed is {place} (partition.offset); go on behind it with: {again}"
            ),
            None => format!("no record was printed; go on with: {again}"),
        }
    }
}

fn key(item: &Item<'_>) -> String {
    match cell(&item.key_base64, "") {
        base64 if base64.is_empty() => cell(&item.key, ""),
        base64 => format!("base64 {base64}"),
    }
}

/// Returns the call of a record, with its cause in an error stream.
fn row(item: &Item<'_>, called: fn(&RawValue) -> String) -> String {
    let message = match item.value {
        Some(value) => called(value),
        None => match cell(&item.value_base64, "") {
            base64 if base64.is_empty() => base64,
            base64 => format!("base64 {base64}"),
        },
    };
    let cause = match &item.cause {
        Value::Null => None,
        cause => {
            let status = cell(cause, "/status");
            let status = (!status.is_empty()).then_some(&*status);
            Some(print::of_cause(&cell(cause, "/class"), status))
        }
    };
    print::caused(cause, &message)
}

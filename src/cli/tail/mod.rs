//! `syncgate tail NAME`: prints the records of a data stream as they arrive, over any number of connections.
//!
//! No record is printed twice, and none is left out, because each connection begins after the last printed record. Before the
//! first record it begins where the first connection did. For `now` that is the position in the gateway's handshake, so that
//! records posted between two connections are not skipped. Without any position a lost connection ends the command. With a
//! cursor the gateway goes on after the last ack, so records printed after that ack are printed again.
//!
//! If no data stream has the name, the log stream of that name is read: see `polled`.

mod acks;
mod again;
mod columns;
mod cut;
pub(super) mod offset_file;
mod polled;
mod print;
mod record;
mod session;
mod writing;

use std::time::Duration;

use clap::Args;
use reqwest::StatusCode;
use tokio::time::{Instant, sleep, sleep_until};

use self::{
    acks::Acks,
    again::Again,
    cut::Cut,
    polled::Polled,
    record::{Kind, Record},
};
use super::{
    Failure, Gateway, Output,
    client::{self, Client},
    output, when,
};
use crate::runtime::random;

#[cfg(test)]
pub(super) use self::cut::connects_again_after;
pub(super) use self::{
    columns::Columns,
    print::{cut, line, line_chars_max},
    record::Shape,
    session::Session,
    writing::{Outcome, Writer},
};

/// A connection that lasted so long resets the backoff.
const WORKED: Duration = Duration::from_secs(30);
const NO_POSITIONS: &str = "its records have no position (encoding.json.metaFields.pos is off)";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the data stream. Without such a data stream, the log stream of that name or OCID is read.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
    /// First position: now, earliest, a time (2026-12-01T07:00:00Z, 2026-12-01, 10m, "1h ago"; UTC), or the pos of a record,
    /// to begin after it.
    #[arg(long, value_name = "PLACE", default_value = "now", value_parser = when::begin)]
    begin: String,
    /// Ends after so many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Also prints schemas and metadata, which come first on each connection. They do not count.
    #[arg(long)]
    all: bool,
    /// Name of a cursor: the gateway keeps the last printed position under it, and the next run goes on there; --begin counts
    /// only for a new cursor.
    #[arg(long, value_name = "NAME")]
    cursor: Option<String>,
    /// Takes the cursor from the client that uses it.
    #[arg(long, requires = "cursor")]
    takeover: bool,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let mut writer = Writer::new()?;
    let again = Again::of(&arguments, output);
    let mut tail = Tail {
        client: arguments.gateway.client()?,
        output,
        shape: None,
        next: Some(arguments.begin.clone()),
        last: None,
        left: arguments.count,
        connected: false,
        progress: false,
        columns: Columns::default(),
        again,
        arguments,
    };
    tail.run(&mut writer).await
}

/// A run of the command.
struct Tail {
    client: Client,
    arguments: Arguments,
    output: Output,
    /// The shape on the present or last connection.
    shape: Option<Shape>,
    /// Where the next connection begins, if known.
    next: Option<String>,
    /// The position of the last printed record.
    last: Option<String>,
    /// How many records are left to print.
    left: Option<u64>,
    /// Whether there was a connection.
    connected: bool,
    /// Whether a record was printed on the last connection.
    progress: bool,
    columns: Columns,
    again: Again,
}

/// How a run without a failure ended.
enum Ended {
    /// `--count` records were printed.
    Enough,
    /// A signal came, or the reader has gone.
    Stopped,
    /// A log stream was read; [`Polled`] has said how it ended.
    Polled,
}

impl Tail {
    async fn run(&mut self, writer: &mut Writer) -> Result<(), Failure> {
        if let Ended::Stopped = self.read(writer).await? {
            writer.say_why(self.last.is_some(), &self.so_far());
        }
        Ok(())
    }

    async fn read(&mut self, writer: &mut Writer) -> Result<Ended, Failure> {
        let (mut failures, mut other_shape) = (0, false);
        loop {
            let begun = Instant::now();
            let connected = tokio::select! {
                biased;
                () = writer.ended() => return Ok(Ended::Stopped),
                connected = self.connect() => connected,
            };
            self.progress = false;
            let cut = match connected {
                Ok(session) if self.arguments.cursor.is_some() && !self.has_positions() => {
                    session.close().await;
                    return Err(Failure::failed(format!(
                        "no cursor is kept: {NO_POSITIONS}"
                    )));
                }
                Ok(session) => match self.follow(session, writer).await {
                    Ok(()) if self.left == Some(0) => return Ok(Ended::Enough),
                    Ok(()) => return Ok(Ended::Stopped),
                    Err(cut) => cut,
                },
                // A failed first connection ends the command, as in any other command.
                Err(error) if !self.connected => {
                    let mut polled = self.polled(error).await?;
                    polled.run(writer).await?;
                    return Ok(Ended::Polled);
                }
                Err(error) => Cut::refused(error),
            };
            if self.progress || begun.elapsed() >= WORKED {
                failures = 0;
            }
            let (why, retry_after) = match cut {
                Cut::Passing { why, retry_after } => (why, retry_after),
                Cut::OtherShape(why) if !other_shape => {
                    other_shape = true;
                    (why, None)
                }
                Cut::OtherShape(why) | Cut::Final(why) => return Err(self.over(&why)),
                Cut::Gone(why) => return Err(Failure::failed(self.with_last(&why))),
                Cut::Trimmed(why) => return Err(self.trimmed(&why)),
            };
            other_shape &= !self.progress;
            if self.next.is_none() {
                return Err(self.cannot_go_on(&why));
            }
            failures += 1;
            let random = random::u64().unwrap_or(u64::MAX);
            let wait = cut::wait(failures, retry_after, random);
            let seconds = wait.as_secs_f32();
            output::say(&format!(
                "warning: {why}; connecting again in {seconds:.1} s"
            ));
            tokio::select! {
                biased;
                () = writer.ended() => return Ok(Ended::Stopped),
                () = sleep(wait) => {}
            }
        }
    }

    /// Returns the reader of the log stream with this name, if the handshake failed because no data stream has it.
    async fn polled(&self, refused: client::Error) -> Result<Polled, Failure> {
        let name = &self.arguments.name;
        match &refused {
            client::Error::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND => {}
            _ => return Err(refused.into()),
        }
        match polled::log_stream(&self.client, name).await {
            Ok(Ok(stream)) => {
                let client = self.client.clone();
                Polled::new(client, &self.arguments, self.output, stream)
            }
            Ok(Err(unknown)) => Err(self.unknown(&refused, &unknown)),
            Err(_also_refused) => Err(refused.into()),
        }
    }

    async fn connect(&mut self) -> Result<Session, client::Error> {
        let name = &self.arguments.name;
        let shape = Shape::of(&Session::config(&self.client, name).await?);
        let mut query = Vec::new();
        query.extend(self.next.clone().map(|begin| ("begin", begin)));
        if let Some(cursor) = &self.arguments.cursor {
            query.push(("cursor", cursor.clone()));
            // Only once, because a client that took the cursor meanwhile must keep it.
            if self.arguments.takeover && !self.connected {
                query.push(("takeover", "true".into()));
            }
        }
        let session = Session::open(&self.client, name, &query).await?;
        if !shape.has_positions() && self.shape.as_ref() != Some(&shape) {
            output::say(&format!(
                "warning: if the connection is lost this command ends: {NO_POSITIONS}"
            ));
        }
        // A second `now` would skip records posted meanwhile.
        if self.next.as_deref() == Some("now") {
            self.next.clone_from(&session.begins_at);
        }
        self.shape = Some(shape);
        self.connected = true;
        Ok(session)
    }

    /// Prints records until `--count`, a signal, or the end of the connection.
    async fn follow(&mut self, mut session: Session, writer: &mut Writer) -> Result<(), Cut> {
        let mut acks = Acks::default();
        loop {
            let ack_at = acks.due_at(Instant::now());
            let message = tokio::select! {
                biased;
                () = writer.ended() => break,
                () = async { sleep_until(ack_at.unwrap_or_else(Instant::now)).await }, if ack_at.is_some() => {
                    if let Some(ack) = acks.take(Instant::now()) {
                        session.say(ack).await.map_err(Cut::ended)?;
                    }
                    continue;
                }
                message = session.next() => message.map_err(Cut::ended)?,
            };
            let (lines, printed) = self.lines(&message)?;
            match writer.write(lines).await {
                Outcome::Written => {}
                Outcome::Ended => break,
                Outcome::Failed(why) => return Err(Cut::Final(why)),
            }
            if let Some(pos) = printed {
                self.progress = true;
                if self.arguments.cursor.is_some()
                    && let Some(pos) = &pos
                {
                    acks.printed(pos);
                }
                self.next.clone_from(&pos);
                self.last = pos;
            }
            if self.left == Some(0) {
                break;
            }
        }
        if let Some(ack) = acks.take(Instant::now()) {
            let _gone = session.say(ack).await;
        }
        session.close().await;
        Ok(())
    }

    /// Returns the lines for a message, and the position of its last change, if it has one.
    fn lines(&mut self, message: &str) -> Result<(Vec<u8>, Option<Option<String>>), Cut> {
        let (mut lines, mut last) = (Vec::new(), None);
        let Some(shape) = &self.shape else {
            return Ok((lines, last));
        };
        let columns = &mut self.columns;
        let records = shape.read(message).map_err(|error| Cut::unread(&error))?;
        for record in records {
            if self.left == Some(0) {
                break;
            }
            if let Some(gap) = record.gap() {
                output::say(&format!("warning: {gap}"));
            }
            let Record { kind, .. } = &record;
            if let Kind::Change { pos } = kind {
                last = Some(pos.clone());
                self.left = self.left.map(|left| left - 1);
            } else if !self.arguments.all {
                continue;
            }
            print::push(self.output, shape, columns, &record, &mut lines);
        }
        Ok((lines, last))
    }

    fn has_positions(&self) -> bool {
        self.shape.as_ref().is_some_and(Shape::has_positions)
    }

    /// Says that neither a data stream nor a log stream has this name.
    fn unknown(&self, refused: &client::Error, unknown: &str) -> Failure {
        let data_stream = match refused {
            client::Error::Refused(refusal) => refusal.detail.as_str(),
            client::Error::Unreachable(why)
            | client::Error::NoAnswer(why)
            | client::Error::NotAGateway(why) => why,
        };
        // The gateway may name a similar one.
        let near = [data_stream, unknown].into_iter();
        let near: Vec<_> = near.filter(|text| text.contains("did you mean")).collect();
        if !near.is_empty() {
            return Failure::failed(near.join("\n"));
        }
        Failure::failed(format!(
            "no data stream and no stream is called `{}`; list them with: {}, or: {}",
            self.arguments.name,
            self.client.next(["data-streams", "ls"]),
            self.client.next(["streams", "ls"])
        ))
    }

    /// Adds the last position and the command that goes on.
    fn over(&self, why: &str) -> Failure {
        match &self.last {
            Some(_) => Failure::failed(format!("{why}\n{}", self.so_far())),
            None => Failure::failed(why),
        }
    }

    /// Says that the next records were trimmed, and how to start with the earliest one.
    fn trimmed(&self, why: &str) -> Failure {
        let why = self.with_last(why);
        let again = self.again.at(&self.client, "earliest", self.left);
        Failure::failed(format!(
            "{why}\nbegin with the earliest record that is left: {again}"
        ))
    }

    fn with_last(&self, why: &str) -> String {
        match &self.last {
            Some(pos) => format!("{why}\nthe last record printed has pos {pos}"),
            None => why.to_owned(),
        }
    }

    /// Returns the last position, and the command that goes on there.
    fn so_far(&self) -> String {
        let Some(next) = &self.next else {
            return format!("where it stopped cannot be named, because {NO_POSITIONS}");
        };
        let again = self.again.at(&self.client, next, self.left);
        match &self.last {
            Some(pos) => {
                format!("the last record printed has pos {pos}; go on behind it with: {again}")
            }
            None => format!("no record was printed; go on with: {again}"),
        }
    }

    fn cannot_go_on(&self, why: &str) -> Failure {
        let unknown = match self.has_positions() {
            true => "the gateway did not send the position of now",
            false => NO_POSITIONS,
        };
        Failure::failed(format!(
            "{why}\nanother connection would leave out records, or print some again: {unknown}"
        ))
    }
}

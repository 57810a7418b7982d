//! `syncgate records STREAM` lists the records of a stream, with the causes of those in error streams.
//! `syncgate records STREAM/P/OFFSET` shows one record with all of its facts.

mod indent;
mod list;
mod one;
mod page;
mod words;

use clap::Args;

use self::list::Asked;
use super::{Failure, Gateway, Output, reader::StdoutReader, when};

pub(super) use self::page::{Item, Page};

/// The meaning of the columns, at the end of the help.
const COLUMNS: &str = "\
Columns:
  PARTITION, OFFSET  `records STREAM/P/OFFSET` shows all of the record
  TIME               when it was appended to the stream
  KEY                records of one key and target keep their order
  OPERATION, TARGET  the call
  STATE              open: it waits for its dispatch, or for a retry
                     delivered: its target took it
                     filtered: a rule left it out
                     moved: it failed; MOVED TO is its copy in an error stream
                     discarded: an operator gave it up
                     settled: one of these; the journal does not say which
                     Expired records are trimmed, so they are not shown.
  CAUSE              why it is in this error stream, or why the last call of an open record failed;
                     that of a moved record stands with its copy
  MOVED TO           the copy of a moved record, as this command takes it
  WAITS FOR          with --open, in place of STATE:
                     retry: a retry of this error stream
                     target open: its target, whose breaker is open
                     retry after: its target, which asked for later
                     backoff: its next attempt
                     rate: the rate of its target
                     key: an earlier record with its key
                     turn: a free slot of its target
                     answer: the answer to its call
                     log: the log, which has not taken its end
  UNTIL              the earliest time at which it can go on, if known

On a terminal a record has one line, or two if one is too narrow. Long cells are cut (`…`), and empty columns are left \
out. A pipe, --output json and the view of one record show everything.";

#[derive(Debug, Args)]
#[command(after_help = COLUMNS)]
pub(super) struct Arguments {
    /// Name or OCID of the stream, or one record of it: STREAM/PARTITION/OFFSET.
    #[arg(value_name = "STREAM[/P/OFFSET]")]
    place: String,
    #[command(flatten)]
    gateway: Gateway,
    /// Only this partition.
    #[arg(long, value_name = "P")]
    partition: Option<String>,
    /// First offset of the partition, `earliest`, `tail`, a time as with --at, or the position that an earlier call printed.
    #[arg(long, value_name = "PLACE", conflicts_with = "at")]
    from: Option<String>,
    /// First time: 2026-12-01T07:00:00Z, 2026-12-01, 10m, "1h ago" (UTC).
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    at: Option<String>,
    /// Number of records at most, 1 to 1000 [default: 100].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: Option<u16>,
    /// Only open records: those that wait for their dispatch or for a retry, with the reason.
    #[arg(long)]
    open: bool,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
struct RecordPath<'a> {
    stream: &'a str,
    partition: &'a str,
    offset: &'a str,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let reader = StdoutReader::of_stdout();
    tokio::select! {
        biased;
        () = reader.gone() => Ok(()),
        shown = show(arguments, output) => shown,
    }
}

async fn show(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    if let Some(place) = one_place(&arguments.place)? {
        let has_more = arguments.partition.is_some()
            || arguments.from.is_some()
            || arguments.at.is_some()
            || arguments.limit.is_some()
            || arguments.open;
        if has_more {
            return Err(Failure::usage(format!(
                "{} is one record: --partition, --from, --at, --limit and --open go with a stream alone",
                arguments.place
            )));
        }
        return one::show(&client, &place, output).await;
    }
    let asked = Asked {
        stream: arguments.place,
        partition: arguments.partition,
        from: arguments.from,
        at: arguments.at,
        limit: arguments.limit.map_or(list::LIMIT, usize::from),
        open: arguments.open,
    };
    list::show(&client, asked, output).await
}

/// Reads `STREAM/P/OFFSET`; `None` for a stream alone. An OCID may contain slashes, so the last two parts are the numbers.
fn one_place(text: &str) -> Result<Option<RecordPath<'_>>, Failure> {
    if !text.contains('/') {
        return Ok(None);
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = text.rsplitn(3, '/');
    let (offset, partition, stream) = (parts.next(), parts.next(), parts.next());
    match (stream, partition, offset) {
        (Some(stream), Some(partition), Some(offset))
            if !stream.is_empty() && is_number(partition) && is_number(offset) =>
        {
            Ok(Some(RecordPath {
                stream,
                partition,
                offset,
            }))
        }
        _ => Err(Failure::usage(format!(
            "{text} is no record: give STREAM/PARTITION/OFFSET with two numbers, as in DataSyncStream/0/17, or a stream alone"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_is_told_from_a_stream() {
        let place = |stream, partition, offset| RecordPath {
            stream,
            partition,
            offset,
        };
        let read = |text| one_place(text).map_err(|failure| failure.code);
        assert_eq!(read("DataSyncStream"), Ok(None));
        assert_eq!(read("S/0/17"), Ok(Some(place("S", "0", "17"))));
        assert_eq!(read("o/c:id/3/0"), Ok(Some(place("o/c:id", "3", "0"))));
        for wrong in [
            "S/0", "S/0/", "S//1", "/0/1", "S/a/1", "S/0/-1", "S/0/+1", "S/0/1/", "/", "S/0/tail",
        ] {
            assert_eq!(read(wrong), Err(2), "{wrong}");
        }
    }
}

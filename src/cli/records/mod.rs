//! `syncgate records STREAM`: what is in a stream, and why it is in an error stream. `syncgate records STREAM/P/OFFSET`:
//! one record, with all that is known about it.

mod indent;
mod list;
mod one;
mod page;
mod words;

use clap::Args;

use self::list::Asked;
use super::{Failure, Gateway, Output, reader::Reader, when};

pub(super) use self::page::{Item, Page};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name or OCID of the stream, or one record of it: STREAM/PARTITION/OFFSET.
    #[arg(value_name = "STREAM[/P/OFFSET]")]
    place: String,
    #[command(flatten)]
    gateway: Gateway,
    /// Only this partition.
    #[arg(long, value_name = "P")]
    partition: Option<String>,
    /// First offset of the partition, `earliest`, `tail`, or what an earlier call said to go on with.
    #[arg(long, value_name = "PLACE", conflicts_with = "at")]
    from: Option<String>,
    /// First time: 2026-12-01T07:00:00Z, 2026-12-01, 10m, "1h ago" (UTC).
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    at: Option<String>,
    /// Most records, 1 to 1000 [default: 100].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: Option<u16>,
    /// Only open records: those that wait for their dispatch or for a retry, and what for.
    #[arg(long)]
    open: bool,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    stream: &'a str,
    partition: &'a str,
    offset: &'a str,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let reader = Reader::of_stdout();
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
        limit: arguments.limit.unwrap_or(100).into(),
        open: arguments.open,
    };
    list::show(&client, asked, output).await
}

/// Reads `STREAM/P/OFFSET`; `None` if it is a stream alone. The slashes of an OCID belong to the stream.
fn one_place(text: &str) -> Result<Option<Place<'_>>, Failure> {
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
            Ok(Some(Place {
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
        let place = |stream, partition, offset| Place {
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

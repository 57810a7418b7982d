//! Records as a table, of all partitions or of one.

use reqwest::Method;

use super::{
    page::{Item, Page},
    words,
};
use crate::{
    cli::{
        Failure, Output,
        client::Client,
        output::{self, Table, cell},
    },
    json::loose,
};

/// Pages may end early, as over millions of settled records; a server that is not a gateway may name a next one for ever.
const PAGES_MAX: usize = 1_000;
/// Records of a list without `--limit`.
pub(super) const LIMIT: usize = 100;
/// The partition that means all of them.
const ALL: &str = "*";

/// Columns that are cut where a row is too long; the view of one record shows all of them.
const CUT: [&str; 4] = ["KEY", "OPERATION", "TARGET", "CAUSE"];

/// The arguments of the list.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) stream: String,
    pub(super) partition: Option<String>,
    pub(super) from: Option<String>,
    pub(super) at: Option<String>,
    pub(super) limit: usize,
    pub(super) open: bool,
}

impl Asked {
    async fn page(
        &self,
        client: &Client,
        partition: &str,
        limit: usize,
    ) -> Result<String, Failure> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(self.from.clone().map(|from| ("from", from)));
        query.extend(self.at.clone().map(|at| ("at", at)));
        let which = if self.open { "open" } else { "settlements" };
        query.push((which, "true".to_owned()));
        let path = [
            "v1",
            "streams",
            &self.stream,
            "partitions",
            partition,
            "records",
        ];
        let request = client.request(Method::GET, &path, &query);
        Ok(client.send_for_text(request).await?)
    }

    /// Returns the command that shows the next records.
    fn go_on(&self, client: &Client, next: &str) -> String {
        let limit = self.limit.to_string();
        let mut words = vec!["records", &*self.stream, "--from", next];
        if let Some(partition) = &self.partition {
            words.extend(["--partition", partition]);
        }
        if self.limit != LIMIT {
            words.extend(["--limit", &limit]);
        }
        words.extend(self.open.then_some("--open"));
        client.next(words)
    }
}

pub(super) async fn show(client: &Client, mut asked: Asked, output: Output) -> Result<(), Failure> {
    let partition = partition(client, &asked).await?;
    let unread = |_| Failure::from(client.not_a_gateway("a page of records"));
    if output == Output::Json {
        let text = asked.page(client, &partition, asked.limit).await?;
        let _page: Page<'_> = serde_json::from_str(&text).map_err(unread)?;
        // JSON allows line breaks only between tokens, so a blank keeps the value.
        return output::print_json_line(&text.replace(['\n', '\r'], " "));
    }
    let mut rows = Rows::new(asked.open);
    let mut trimmed = 0;
    for _ in 0..PAGES_MAX {
        let text = asked
            .page(client, &partition, asked.limit - rows.len)
            .await?;
        let page: Page<'_> = serde_json::from_str(&text).map_err(unread)?;
        for item in &page.items {
            rows.add(&serde_json::from_str(item.get()).map_err(unread)?);
        }
        trimmed += page.trimmed;
        let next = cell(&page.next, "");
        // A page may end early, so only a missing `next` is the end.
        if next.is_empty() || rows.len >= asked.limit {
            if trimmed > 0 {
                output::say(&format!(
                    "note: {} were trimmed before they could be shown",
                    output::counted(trimmed, "record")
                ));
            }
            let go_on = asked.go_on(client, &next);
            let end = end(&partition, &page, &next, &rows, &go_on);
            return output::print(&format!("{}{end}\n", rows.table.text()));
        }
        (asked.from, asked.at) = (Some(next), None);
    }
    Err(Failure::failed(format!(
        "{} has more than {PAGES_MAX} pages of records without an end, so it is not a gateway",
        client.base()
    )))
}

/// Returns the partition to read: all of them by default. An offset needs a partition, unless the stream has only one.
async fn partition(client: &Client, asked: &Asked) -> Result<String, Failure> {
    let from = asked.from.as_deref().unwrap_or_default();
    let is_offset = !from.is_empty() && from.bytes().all(|byte| byte.is_ascii_digit());
    match &asked.partition {
        Some(partition) => return Ok(partition.clone()),
        None if !is_offset => return Ok(ALL.to_owned()),
        None => {}
    }
    let stream = client.get(&["v1", "streams", &asked.stream], &[]).await?;
    match stream["partitions"].as_u64() {
        Some(1) => Ok("0".to_owned()),
        partitions => Err(Failure::usage(format!(
            "--from {from} is an offset of one partition, and {} has {}: give --partition too",
            asked.stream,
            partitions.map_or_else(|| "several".to_owned(), |number| number.to_string()),
        ))),
    }
}

/// The table so far.
struct Rows {
    table: Table,
    open: bool,
    len: usize,
}

impl Rows {
    fn new(open: bool) -> Self {
        let record = [
            ">PARTITION",
            ">OFFSET",
            "TIME",
            "KEY",
            "OPERATION",
            "TARGET",
        ];
        let table = match open {
            true => Table::new(&[&record[..], &["WAITS FOR", "UNTIL", "CAUSE"]].concat())
                .folded(&["KEY", "OPERATION", "TARGET", "CAUSE"], &CUT),
            false => Table::new(&[&record[..], &["STATE", "CAUSE", "MOVED TO"]].concat())
                .folded(&["OPERATION", "TARGET", "CAUSE", "MOVED TO"], &CUT),
        };
        Self {
            table,
            open,
            len: 0,
        }
    }

    fn add(&mut self, item: &Item<'_>) {
        let message = item.value.and_then(|value| loose::members(value.get()));
        let message = message.unwrap_or_default();
        let text = |name: &str| {
            let text = loose::member(&message, name).and_then(loose::string);
            text.unwrap_or_default().into_owned()
        };
        let mut row = vec![
            cell(&item.partition, ""),
            cell(&item.offset, ""),
            cell(&item.time, ""),
            cell(&item.key, ""),
            text("targetRestApiOperation"),
            text("targetRestApi"),
        ];
        let cause = words::failed(&item.cause, &item.waiting);
        row.extend(match self.open {
            true => [
                words::waits_for_shortly(&item.cause, &item.waiting),
                cell(&item.waiting, "/due"),
                cause,
            ],
            false => [words::state(item), cause, words::moved_to(&item.settlement)],
        });
        self.table.row(row);
        self.len += 1;
    }
}

/// Returns the last line: how many records, of which partitions, and whether that was the end.
fn end(partition: &str, page: &Page<'_>, next: &str, rows: &Rows, go_on: &str) -> String {
    let what = if rows.open { "open record" } else { "record" };
    let count = output::counted(rows.len as u64, what);
    let of = match (
        partition,
        page.tail.as_object().map_or(1, serde_json::Map::len),
    ) {
        (ALL, 1) => "of the only partition".to_owned(),
        (ALL, partitions) => format!("of {partitions} partitions"),
        (partition, _) => format!(
            "of partition {partition} (earliest {}, tail {})",
            cell(&page.earliest, ""),
            cell(&page.tail, "")
        ),
    };
    match next {
        "" => format!("{count} {of}, up to the end"),
        _ => format!("{count} {of}, not up to the end: go on with {go_on}"),
    }
}

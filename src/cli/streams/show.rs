//! `streams show` as text.

use serde_json::Value;

use super::{kept, kept_len, partitions};
use crate::cli::output::{Table, cell};

/// Headings and members of a partition's bounds. Column KEPT comes after them.
const BOUNDS: [(&str, &str); 4] = [
    ("PARTITION", "/partition"),
    (">EARLIEST", "/earliest"),
    (">TAIL", "/tail"),
    (">OPEN", "/open"),
];
/// Headings and members of its settled records.
const SETTLED: [(&str, &str); 6] = [
    (">DELIVERED", "/counts/delivered"),
    (">FILTERED", "/counts/filtered"),
    (">MOVED", "/counts/moved"),
    (">DISCARDED", "/counts/discarded"),
    (">EXPIRED", "/counts/expired"),
    (">LOST", "/counts/lost"),
];

/// Returns the facts of a stream, its partitions and its readers.
pub(super) fn text(stream: &Value) -> String {
    let mut text = facts(stream);
    text.push('\n');
    text += &bounds(stream);
    let readers = stream.get("readers").and_then(Value::as_array);
    let readers = readers.filter(|readers| !readers.is_empty());
    match readers {
        None => text += "\nno readers\n",
        Some(readers) => {
            let mut table = Table::new(&["READER", ">LAG"]);
            for reader in readers {
                let name = cell(reader, "/name");
                let name = match cell(reader, "/kind").as_str() {
                    "retry" => format!("group {name}"),
                    _ => name,
                };
                table.row([name, cell(reader, "/lag")]);
            }
            text = format!("{text}\n{}", table.text());
        }
    }
    text
}

fn facts(stream: &Value) -> String {
    let roles = stream.get("roles").and_then(Value::as_array);
    let roles = roles.into_iter().flatten().filter_map(Value::as_str);
    let roles = roles.collect::<Vec<_>>().join(", ");
    let mut facts = Table::new(&["", ""]);
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            facts.row([name.to_owned(), value]);
        }
    };
    fact("name", cell(stream, "/name"));
    fact("id", cell(stream, "/id"));
    fact("ocid", cell(stream, "/ocid"));
    fact("role", roles);
    fact("partitions", cell(stream, "/partitions"));
    fact("kept", kept::words(stream));
    fact("made", cell(stream, "/madeAt"));
    fact("made by", cell(stream, "/madeBy"));
    fact("purged", cell(stream, "/lastPurge/at"));
    fact("purged by", cell(stream, "/lastPurge/by"));
    fact("purged for", cell(stream, "/lastPurge/reason"));
    facts.text()
}

fn bounds(stream: &Value) -> String {
    let columns = || BOUNDS.iter().chain(&SETTLED);
    let mut headings: Vec<_> = columns().map(|(heading, _)| *heading).collect();
    headings.insert(BOUNDS.len(), ">KEPT");
    let mut table = Table::new(&headings);
    for partition in partitions(stream) {
        let cells = columns().map(|(_, pointer)| cell(partition, pointer));
        let mut row: Vec<_> = cells.collect();
        row.insert(BOUNDS.len(), kept_len(partition).to_string());
        table.row(row);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_is_shown_with_its_partitions_and_readers() {
        let counts = |moved: u64| {
            json!({
                "appended": 9, "delivered": 0, "filtered": 0, "moved": moved,
                "discarded": 0, "expired": 0, "lost": 0
            })
        };
        let stream = json!({
            "name": "Orders", "id": "7", "ocid": null, "roles": ["source"], "partitions": 2,
            "retentionHours": 168, "retentionBytes": null,
            "madeAt": "2026-12-01T07:00:00.000000Z", "madeBy": "api",
            "lastPurge": {"at": "2026-12-01T08:00:00.000000Z", "reason": "wrong target", "by": null},
            "bounds": [
                {"partition": "0", "earliest": 3, "tail": 13_000, "lowMark": 9, "open": 4, "counts": counts(12_996)},
                {"partition": "1", "earliest": 0, "tail": 0, "lowMark": 0, "open": 0, "counts": counts(0)},
            ],
            "readers": [
                {"kind": "dispatch", "name": "dispatch", "lag": 4},
                {"kind": "retry", "name": "cron", "lag": 1},
            ],
        });
        assert_eq!(
            text(&stream),
            "name        Orders\n\
             id          7\n\
             role        source\n\
             partitions  2\n\
             kept        7 days, size as [retention] says\n\
             made        2026-12-01T07:00:00.000000Z\n\
             made by     api\n\
             purged      2026-12-01T08:00:00.000000Z\n\
             purged for  wrong target\n\
             \n\
             PARTITION  EARLIEST   TAIL  OPEN   KEPT  DELIVERED  FILTERED  MOVED  DISCARDED  EXPIRED  LOST\n\
             0                 3  13000     4  12997          0         0  12996          0        0     0\n\
             1                 0      0     0      0          0         0      0          0        0     0\n\
             \n\
             READER      LAG\n\
             dispatch      4\n\
             group cron    1\n"
        );
    }
}

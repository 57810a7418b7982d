//! Records as lines: readable ones for people, the received JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};

use serde_json::{Value, value::RawValue};

use crate::{
    cli::{Output, output::escape},
    runtime::clock::Clock,
};

use super::{
    columns::Columns,
    record::{Kind, Members, Record, Shape, string},
};

/// Longest line in a pipe.
const LINE_CHARS_MAX: usize = 400;
/// A smaller width is taken as this.
const LINE_CHARS_MIN: usize = 40;
/// Below this width a line shows the short form of a record.
const WHOLE_CHARS_MIN: usize = 120;
/// Blanks between the parts of a line.
const GAP: &str = "  ";

/// Returns how many characters a line for people may have.
pub(in crate::cli) fn line_chars_max() -> usize {
    let out = io::stdout();
    let size = out
        .is_terminal()
        .then(|| rustix::termios::tcgetwinsize(&out));
    match size {
        Some(Ok(size)) => usize::from(size.ws_col).max(LINE_CHARS_MIN),
        _ => LINE_CHARS_MAX,
    }
}

/// Appends a record as a line: as text, or as the received JSON.
pub(super) fn push(
    output: Output,
    shape: &Shape,
    columns: &mut Columns,
    record: &Record<'_>,
    out: &mut Vec<u8>,
) {
    match output {
        Output::Json => push_json(record.text, out),
        Output::Text => {
            let line = line(shape, columns, record, line_chars_max());
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
    }
}

/// Appends JSON on one line; on a terminal, control characters are escaped.
pub(super) fn push_json(text: &str, out: &mut Vec<u8>) {
    let text = match io::stdout().is_terminal() {
        true => escape::json(text),
        false => text.into(),
    };
    // JSON allows line breaks only between tokens, so a blank keeps the value.
    let bytes = text.bytes().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        byte => byte,
    });
    out.extend(bytes);
    out.push(b'\n');
}

/// Returns whether lines of so many characters show the short form of a record: partition and offset, a short time, and the
/// call without the target's host. The call would be cut off otherwise.
pub(super) fn is_short(chars_max: usize) -> bool {
    chars_max < WHOLE_CHARS_MIN
}

/// Shortens a time: `07:30:12` on the day of `now`, `11-30 07:30` on another day. Other text stays as it is.
pub(super) fn short_time(time: &str, now: &str) -> String {
    let parts = (
        time.get(..10),
        time.get(5..10),
        time.get(11..16),
        time.get(11..19),
    );
    match parts {
        (Some(day), _, _, Some(clock)) if now.get(..10) == Some(day) => clock.to_owned(),
        (_, Some(day), Some(clock), Some(_)) => format!("{day} {clock}"),
        _ => time.to_owned(),
    }
}

/// Returns a record on one line: time, object, operation, transaction, key if rows have one, and a short form of the row. A
/// short line has transaction and time; operation and object are added for rows of an object.
pub(in crate::cli) fn line(
    shape: &Shape,
    columns: &mut Columns,
    record: &Record<'_>,
    chars_max: usize,
) -> String {
    let of = |name: &Option<String>| name.as_ref().map(|name| string(&record.members, name));
    match &record.kind {
        Kind::Change { .. } => {
            if is_short(chars_max) {
                return short_line(shape, columns, &record.members, chars_max);
            }
            let names = [&shape.time, &shape.object, &shape.op, &shape.xid];
            // A member that is off has no column.
            let cells = names.into_iter().filter_map(of);
            let cells = cells.map(|cell| cell.unwrap_or_default());
            let (key, row) = row(shape, &record.members, called);
            columns.line(cells.chain(key), &row, chars_max)
        }
        Kind::About => {
            let op = shape.metadata_op(&record.members);
            let kind = op.unwrap_or_else(|| "schema".to_owned());
            cut(&format!("{kind}  {}", record.text), chars_max)
        }
    }
}

fn short_line(
    shape: &Shape,
    columns: &mut Columns,
    members: &Members<'_>,
    chars_max: usize,
) -> String {
    let now = Clock::system().now().to_string();
    let of = |name: &Option<String>| name.as_ref().map(|name| string(members, name));
    let time = of(&shape.time).map(|time| short_time(&time.unwrap_or_default(), &now));
    let xid = of(&shape.xid).map(Option::unwrap_or_default);
    let (key, row) = row(shape, members, called_shortly);
    // A row of the stream's own table shows its call, so operation and object add nothing.
    let what = [&shape.op, &shape.object].into_iter().filter_map(of);
    let what: Vec<_> = what.flatten().filter(|_| key.is_none()).collect();
    let text = what.into_iter().chain([row]).collect::<Vec<_>>().join(GAP);
    columns.line(xid.into_iter().chain(time), &text, chars_max)
}

/// Returns the key, if rows have one, and the row; `called` formats a message.
fn row(
    shape: &Shape,
    members: &Members<'_>,
    called: fn(&RawValue) -> String,
) -> (Option<String>, String) {
    if let Some(statement) = string(members, "ddl") {
        return (None, statement);
    }
    let image = [&shape.after, &shape.before].map(|name| members.get(name).copied());
    match image {
        [Some(image), _] | [None, Some(image)] => match appended(image, called) {
            Some((key, text)) => (Some(key), text),
            None => (None, image.get().to_owned()),
        },
        // `model=row` puts columns beside the metadata.
        [None, None] => {
            let meta = [
                &shape.time,
                &shape.object,
                &shape.op,
                &shape.xid,
                &shape.pos,
            ];
            let is_meta = |name: &String| meta.iter().any(|meta| meta.as_ref() == Some(name));
            let columns = members.iter().filter(|(name, _)| !is_meta(name));
            let columns = columns.map(|(name, value)| format!("{}:{value}", Value::from(&**name)));
            let row = match columns.collect::<Vec<_>>().join(",") {
                columns if columns.is_empty() => columns,
                columns => format!("{{{columns}}}"),
            };
            (None, row)
        }
    }
}

/// Returns key and call of a row of the stream's own table, with the cause in an error stream.
fn appended(image: &RawValue, called: fn(&RawValue) -> String) -> Option<(String, String)> {
    let row: Members<'_> = serde_json::from_str(image.get()).ok()?;
    if !["PARTITION", "OFFSET", "HEADERS"]
        .iter()
        .all(|name| row.contains_key(*name))
    {
        return None;
    }
    let data = match (row.get("DATA"), row.get("DATA_BASE64")) {
        (Some(data), _) => called(data),
        (None, Some(base64)) => format!("base64 {base64}"),
        (None, None) => String::new(),
    };
    let cause = serde_json::from_str(row["HEADERS"].get())
        .ok()
        .and_then(|headers| cause(&headers));
    let key = string(&row, "KEY").unwrap_or_default();
    Some((key, caused(cause, &data)))
}

/// Returns the call of a message, or its text if it has none.
pub(super) fn called(message: &RawValue) -> String {
    call(message, |url| url).unwrap_or_else(|| message.get().to_owned())
}

/// Returns [`called`] with only the path of the address.
pub(super) fn called_shortly(message: &RawValue) -> String {
    call(message, path).unwrap_or_else(|| message.get().to_owned())
}

/// Returns the path of an address, with its query; `/` if there is none.
fn path(url: &str) -> &str {
    let behind_scheme = url.find("://").map_or(0, |at| at + 3);
    let rest = &url[behind_scheme..];
    rest.find(['/', '?']).map_or("/", |at| &rest[at..])
}

/// Puts a cause in front, if there is one.
pub(super) fn caused(cause: Option<String>, text: &str) -> String {
    match cause {
        Some(cause) => format!("{cause}{GAP}{text}"),
        None => text.to_owned(),
    }
}

/// Returns `POST https://api.example/orders {"orderid":"18jan"}`; `shown` shortens the address.
fn call(data: &RawValue, shown: fn(&str) -> &str) -> Option<String> {
    let data: Members<'_> = serde_json::from_str(data.get()).ok()?;
    let operation = string(&data, "targetRestApiOperation")?;
    let target = string(&data, "targetRestApi")?;
    let payload = data
        .get("targetRestApiPayload")
        .map(|payload| payload.get());
    Some(format!(
        "{operation} {} {}",
        shown(&target),
        payload.unwrap_or_default()
    ))
}

/// `(status 503)`, `(connect)`.
fn cause(headers: &Members<'_>) -> Option<String> {
    let class = string(headers, "cause-class")?;
    Some(of_cause(&class, string(headers, "cause-status").as_deref()))
}

pub(super) fn of_cause(class: &str, status: Option<&str>) -> String {
    match status {
        Some(status) => format!("({class} {status})"),
        None => format!("({class})"),
    }
}

/// Escapes a text to one line, and cuts it.
pub(in crate::cli) fn cut(text: &str, chars_max: usize) -> String {
    let text = escape::line(text.trim_end());
    match text.char_indices().nth(chars_max) {
        None => text.into_owned(),
        Some(_) => {
            let kept = text.chars().take(chars_max.saturating_sub(1));
            kept.chain(['…']).collect()
        }
    }
}

/// Writes to standard output, on a thread that may wait for a slow reader.
///
/// # Errors
/// Errors of the system; `BrokenPipe` if the reader has gone.
pub(super) async fn write(text: Vec<u8>) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || {
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    });
    written.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(config: &Value, record: &str, expected: &str) {
        check_at(120, config, record, expected);
    }

    #[track_caller]
    fn check_at(chars_max: usize, config: &Value, record: &str, expected: &str) {
        let shape = Shape::of(config);
        let message = format!("[{record}]");
        let records = shape.read(&message).unwrap();
        let mut columns = Columns::default();
        let line = line(&shape, &mut columns, &records[0], chars_max);
        assert_eq!(line, expected);
    }

    #[test]
    fn a_change_is_one_readable_line() {
        let plain = json!({});
        let appended = |headers: &str, data: &str| {
            format!(
                r#"{{"qual_table":"SYNCGATE.S","op_type":"INSERT","op_ts":"2026-01-02T03:04:05.000006Z","pos":"p1k","xid":"0.27",
                "after":{{"PARTITION":"0","OFFSET":27,"KEY":"k\n1","TS":"x","DATA":{data},"HEADERS":{headers}}}}}"#
            )
        };
        let call = r#"{"targetRestApi":"http://h/o","targetRestApiOperation":"POST","targetRestApiPayload":{"n":1.10}}"#;
        let head = "2026-01-02T03:04:05.000006Z  SYNCGATE.S  INSERT  0.27  k 1";
        check(
            &plain,
            &appended("{}", call),
            &format!("{head}  POST http://h/o {{\"n\":1.10}}"),
        );
        check(&plain, &appended("{}", "[1,2]"), &format!("{head}  [1,2]"));
        let failed = r#"{"cause-class":"status","cause-status":"503"}"#;
        check(
            &plain,
            &appended(failed, "7"),
            &format!("{head}  (status 503)  7"),
        );
        let long = format!("\"{}\"", "ä".repeat(200));
        check(
            &plain,
            &appended("{}", &long),
            &format!("{head}  \"{}…", "ä".repeat(58)),
        );
        let binary = appended("{}", "1").replace("DATA", "DATA_BASE64");
        check(&plain, &binary, &format!("{head}  base64 1"));
        let ddl =
            r#"{"op_type":"DDL","pos":"p1a","xid":"ddl.1","ddl":"CREATE STREAM S PARTITIONS 1"}"#;
        check(
            &plain,
            ddl,
            "-  -  DDL  ddl.1  CREATE STREAM S PARTITIONS 1",
        );
        check(
            &plain,
            r#"{"op_type":"TRUNCATE","pos":"p1a"}"#,
            "-  -  TRUNCATE  -",
        );
        check(
            &plain,
            r#"{"op_type":"DELETE","pos":"p1a","before":{"id":"\u001b[31m"}}"#,
            r#"-  -  DELETE  -  {"id":"\u001b[31m"}"#,
        );
    }

    #[test]
    fn a_short_line_shows_the_place_the_time_the_path_and_the_payload() {
        let plain = json!({});
        let record = |url: &str, headers: &str| {
            format!(
                r#"{{"qual_table":"SYNCGATE.S","op_type":"INSERT","op_ts":"2026-01-02T03:04:05.000006Z","pos":"p1k","xid":"0.27",
                "after":{{"PARTITION":"0","OFFSET":27,"KEY":"k1","TS":"x","DATA":{{"targetRestApi":"{url}","targetRestApiOperation":"POST",
                "targetRestApiPayload":{{"n":"{}"}}}},"HEADERS":{headers}}}}}"#,
                "x".repeat(100)
            )
        };
        let long = "https://api.a-long-name.example:8443/latest/orders?a=1";
        let head = "0.27  01-02 03:04  POST /latest/orders?a=1 {\"n\":\"";
        let expected = format!("{head}{}…", "x".repeat(79 - head.chars().count()));
        check_at(80, &plain, &record(long, "{}"), &expected);
        let failed = r#"{"cause-class":"status","cause-status":"503"}"#;
        let head = "0.27  01-02 03:04  (status 503)  POST / {\"n\":\"";
        let expected = format!("{head}{}…", "x".repeat(79 - head.chars().count()));
        check_at(80, &plain, &record("http://gate", failed), &expected);
        check_at(
            80,
            &plain,
            r#"{"qual_table":"SHOP.ORDERS","op_type":"UPSERT","op_ts":"2026-01-02T03:04:05.000006Z","pos":"p1k","xid":"0.28","after":{"id":7}}"#,
            r#"0.28  01-02 03:04  UPSERT  SHOP.ORDERS  {"id":7}"#,
        );
    }

    #[test]
    fn a_time_of_today_is_shown_without_its_date() {
        let short = |time: &str| short_time(time, "2026-12-01T23:59:59.000001Z");
        assert_eq!(short("2026-12-01T07:30:12.000006Z"), "07:30:12");
        assert_eq!(short("2026-11-30T07:30:12.000006Z"), "11-30 07:30");
        assert_eq!(short("soon"), "soon");
        assert_eq!(short(""), "");
    }

    #[test]
    fn members_are_found_under_their_names() {
        let renamed = json!({"encoding":{"json":{"afterImageName":"new","metaFields":
            {"opTs":"at","opType":"do","qualifiedTable":false,"xid":false,"pos":"p"}}}});
        check(
            &renamed,
            r#"{"at":"T","do":"UPSERT","p":"p1a","new":{"id":7}}"#,
            r#"T  UPSERT  {"id":7}"#,
        );
        let row = r#"{"at":"T","do":"UPSERT","p":"p1a","id":7.0,"b\"":null}"#;
        check(&renamed, row, r#"T  UPSERT  {"b\"":null,"id":7.0}"#);
        let about = r#"{"do":"STREAM_METADATA","source":{}}"#;
        check(&renamed, about, &format!("STREAM_METADATA  {about}"));
    }

    #[test]
    fn for_programs_a_record_is_a_line_as_it_was_sent() {
        let text = "{\"pos\":\"p1a\",\r\n \"after\": {\"n\":1.10e+2,\"t\":\"\\n\"}}";
        let shape = Shape::of(&json!({}));
        let message = format!("[{text}]");
        let mut out = Vec::new();
        let record = &shape.read(&message).unwrap()[0];
        push(
            Output::Json,
            &shape,
            &mut Columns::default(),
            record,
            &mut out,
        );
        let expected = "{\"pos\":\"p1a\",   \"after\": {\"n\":1.10e+2,\"t\":\"\\n\"}}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

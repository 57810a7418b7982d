//! A call in print: a block of lines for people, a JSON object for programs. Credentials are `***` in both.

use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};

use super::{
    answers::{Act, End},
    server::Call,
};
use crate::{
    cli::{output::escape, tail::cut},
    model::mask,
};

/// Headers that every call has, and that tell nothing about the message.
const USUAL: [header::HeaderName; 7] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
];
const INDENT: &str = "  ";
const HIDDEN: &str = "***";

/// Returns a call as a block of lines of so many characters at most: time, call and answer; the headers that matter; the body.
pub(super) fn text(call: &Call, chars_max: usize) -> String {
    let Call {
        at, method, path, ..
    } = call;
    let first = format!("{at}  {method} {path}  {}", call.act.words());
    let mut lines = vec![cut(&first, chars_max)];
    let room = chars_max.saturating_sub(INDENT.len());
    let mut push = |line: &str| lines.push(format!("{INDENT}{}", cut(line, room)));
    for line in wrapped(headers(&call.headers), room) {
        push(&line);
    }
    match body(call) {
        Body::None => {}
        Body::Text(text) if is_whole(call) && text.chars().count() <= room => push(&text),
        Body::Text(text) => {
            let size = format!("  ({} bytes)", call.body_len);
            let line = cut(&text, room.saturating_sub(size.len()));
            push(&(line + &size));
        }
        Body::Bytes(_) => push(&format!("{} bytes that are no text", call.body_len)),
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Returns a call as a JSON object.
pub(super) fn json(call: &Call) -> Value {
    let headers = call
        .headers
        .iter()
        .map(|(name, value)| json!({"name": name.as_str(), "value": shown(name, value)}));
    let mut object = json!({
        "time": call.at.to_string(),
        "method": call.method.as_str(),
        "path": call.path,
        "headers": headers.collect::<Vec<_>>(),
        "bodyBytes": call.body_len,
        "answer": answer(&call.act),
    });
    match body(call) {
        Body::None => {}
        Body::Text(text) => object["body"] = text.into(),
        Body::Bytes(base64) => object["bodyBase64"] = base64.into(),
    }
    if !is_whole(call) {
        object["bodyCut"] = true.into();
    }
    object
}

/// Returns `name: value` for each header that matters; `authorization` comes first, and is there if it is missing too.
fn headers(headers: &HeaderMap) -> Vec<String> {
    let of = |name| headers.get_all(name).iter().map(move |value| (name, value));
    let mut cells: Vec<_> = of(&header::AUTHORIZATION)
        .map(|(name, value)| cell(name, value))
        .collect();
    if cells.is_empty() {
        cells.push("authorization: none".into());
    }
    let rest = headers.iter();
    let rest = rest.filter(|(name, _)| **name != header::AUTHORIZATION && !USUAL.contains(name));
    cells.extend(rest.map(|(name, value)| cell(name, value)));
    cells
}

fn cell(name: &header::HeaderName, value: &HeaderValue) -> String {
    format!("{name}: {}", shown(name, value))
}

fn shown(name: &header::HeaderName, value: &HeaderValue) -> String {
    match mask::is_hidden(name.as_str(), &[]) {
        true => HIDDEN.into(),
        false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    }
}

/// Puts as many cells on a line as it has room for.
fn wrapped(cells: Vec<String>, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for cell in cells {
        match lines.last_mut() {
            Some(line) if line.chars().count() + INDENT.len() + cell.chars().count() <= room => {
                line.push_str(INDENT);
                line.push_str(&cell);
            }
            _ => lines.push(cell),
        }
    }
    lines
}

enum Body {
    None,
    Text(String),
    /// Base64 of bytes that are no UTF-8.
    Bytes(String),
}

fn body(call: &Call) -> Body {
    match std::str::from_utf8(&call.body) {
        Ok("") => Body::None,
        Ok(text) => Body::Text(text.to_owned()),
        // What is kept may end within a character.
        Err(error) if error.error_len().is_none() && !is_whole(call) => {
            let text = String::from_utf8_lossy(&call.body[..error.valid_up_to()]);
            Body::Text(text.into_owned())
        }
        Err(_) => Body::Bytes(BASE64.encode(&call.body)),
    }
}

fn is_whole(call: &Call) -> bool {
    call.body.len() as u64 == call.body_len
}

fn answer(act: &Act) -> Value {
    let mut answer = Map::new();
    match &act.end {
        End::Answer {
            status,
            retry_after,
        } => {
            answer.insert("status".into(), status.as_u16().into());
            if let Some(seconds) = retry_after {
                answer.insert("retryAfter".into(), (*seconds).into());
            }
        }
        End::Close => drop(answer.insert("close".into(), true.into())),
        End::Hang => drop(answer.insert("hang".into(), true.into())),
    }
    if !act.delay.is_zero() {
        let millis = u64::try_from(act.delay.as_millis()).unwrap_or(u64::MAX);
        answer.insert("delayMs".into(), millis.into());
    }
    answer.into()
}

/// Returns JSON as a line in which nothing is obeyed by a terminal.
pub(super) fn line(json: &Value) -> String {
    format!("{}\n", escape::json(&json.to_string()))
}

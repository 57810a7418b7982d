//! The case of header names in a request over HTTP/1.1. Pure.
//!
//! Header names have no case (RFC 9110 §5.1), but some targets accept `SOAPAction` and not `soapaction`. hyper keeps
//! names in lower case and writes them in title case, as in `Content-Type`. Where a message has another case, the
//! written bytes are patched in place, because the length is the same.

use std::cmp::Ordering;

use bytes::Bytes;

const END: &[u8] = b"\r\n\r\n";

/// Returns the length of the head at the start of `bytes`.
pub(in crate::dispatch) fn head_len(bytes: &[u8]) -> Option<usize> {
    let end = memchr::memmem::find(bytes, END)?;
    Some(end + END.len())
}

/// Writes the case of `names` into a head, and sorts `names`. The second header of a name gets the case of the second
/// such name.
pub(in crate::dispatch) fn restore(head: &mut [u8], names: &mut [Bytes]) {
    // Sorted, so that each line costs one binary search, because a message chooses its number of headers. Equal names
    // keep their order.
    names.sort_by(|a, b| compare(a, b));
    let mut at = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    let mut before: Option<(usize, usize)> = None;
    while at < head.len() {
        let line = &mut head[at..];
        let line_len = memchr::memchr(b'\n', line).map_or(line.len(), |end| end + 1);
        let line = &mut line[..line_len];
        at += line_len;
        let Some(name_len) = memchr::memchr(b':', line) else {
            continue;
        };
        let name = &mut line[..name_len];
        let first = names.partition_point(|known| compare(known, name) == Ordering::Less);
        // hyper writes the headers of one name in a row.
        let repeats = match before {
            Some((known, repeats)) if known == first => repeats + 1,
            _ => 0,
        };
        if let Some(known) = names.get(first + repeats)
            && known.eq_ignore_ascii_case(name)
        {
            name.copy_from_slice(known);
            before = Some((first, repeats));
        }
    }
}

fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let a = a.iter().map(u8::to_ascii_lowercase);
    a.cmp(b.iter().map(u8::to_ascii_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(head: &str, names: &[&'static str], expected: &str) {
        let mut bytes = head.as_bytes().to_vec();
        let mut names: Vec<_> = names
            .iter()
            .map(|name| Bytes::from_static(name.as_bytes()))
            .collect();
        restore(&mut bytes, &mut names);
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn names_get_their_case_back_and_nothing_else_changes() {
        check(
            "POST /SOAPAction: HTTP/1.1\r\nhost: a:80\r\nsoapaction: soapaction: x\r\nx: soapaction\r\n\r\n",
            &["SOAPAction"],
            "POST /SOAPAction: HTTP/1.1\r\nhost: a:80\r\nSOAPAction: soapaction: x\r\nx: soapaction\r\n\r\n",
        );
    }

    #[test]
    fn each_repeat_has_a_case_of_its_own() {
        check(
            "PUT / HTTP/1.1\r\nx-a: 1\r\nx-a: 2\r\nx-a: 3\r\nx-b: 4\r\nx-a-c: 5\r\n\r\n",
            &["X-A", "x-B", "x-a", "X-a", "X-A-C"],
            "PUT / HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nX-a: 3\r\nx-B: 4\r\nX-A-C: 5\r\n\r\n",
        );
    }

    #[test]
    fn names_that_are_not_there_do_no_harm() {
        check(
            "GET / HTTP/1.1\r\na: 1\r\n\r\n",
            &["B", "A-b"],
            "GET / HTTP/1.1\r\na: 1\r\n\r\n",
        );
        check("GET / HTTP/1.1\r\n\r\n", &["B"], "GET / HTTP/1.1\r\n\r\n");
        check("", &["B"], "");
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        assert_eq!(
            head_len(b"GET / HTTP/1.1\r\na: 1\r\n\r\nbody\r\n\r\n"),
            Some(24)
        );
        assert_eq!(head_len(b"GET / HTTP/1.1\r\n"), None);
    }
}

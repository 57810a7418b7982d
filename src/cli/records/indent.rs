//! Indents JSON without parsing its values: numbers keep their digits, members their order and repeats.

/// Puts each member and element of a valid JSON text on a line.
pub(super) fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' => string_len(rest),
            other => other.len_utf8(),
        };
        let (token, after) = rest.split_at(len);
        rest = after;
        match first {
            '{' | '[' => {
                out.push(first);
                let inside = rest.trim_start();
                if let Some(end @ ('}' | ']')) = inside.chars().next() {
                    out.push(end);
                    rest = &inside[1..];
                } else {
                    depth += 1;
                    new_line(depth, &mut out);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(depth, &mut out);
                out.push(first);
            }
            ',' => {
                out.push(',');
                new_line(depth, &mut out);
            }
            ':' => out.push_str(": "),
            white if white.is_ascii_whitespace() => {}
            _ => out.push_str(token),
        }
    }
    out
}

/// Returns the length of the string that a text begins with.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn new_line(depth: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_keeps_its_text() {
        let json = r#"{"n":1e400,"n": 1.10 ,"a":[ ],"o":{},"t":"{\"x\\\",[ é","u":"a\",b","l":[true,null,{"h":"\ud800"}]}"#;
        let expected = r#"{
  "n": 1e400,
  "n": 1.10,
  "a": [],
  "o": {},
  "t": "{\"x\\\",[ é",
  "u": "a\",b",
  "l": [
    true,
    null,
    {
      "h": "\ud800"
    }
  ]
}"#;
        assert_eq!(indented(json), expected);
        assert_eq!(indented(expected), expected);
        assert_eq!(indented("7"), "7");
        assert_eq!(indented("\"é"), "\"é");
    }

    #[test]
    fn deep_nesting_is_indented() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let text = indented(&deep);
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(compact, deep);
    }
}

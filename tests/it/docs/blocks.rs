//! Fenced blocks of a page, and what their tags say.
//!
//! A tag is a language and words behind it: ```` ```sh exit=1 ````, ```` ```json no-run="an illustration" ````.

use std::collections::BTreeMap;

/// A fenced block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) line: usize,
    pub(super) language: String,
    /// Words of the tag: `exit` is `1` for `exit=1`, `gateway` is empty for `gateway`.
    pub(super) words: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Block {
    pub(super) fn word(&self, name: &str) -> Option<&str> {
        self.words.get(name).map(String::as_str)
    }
}

const WORDS: [&str; 4] = ["exit", "gateway", "no-run", "target"];

/// Returns the blocks of a page in order.
///
/// # Errors
/// A block has no end, or a tag has a word that means nothing.
pub(super) fn of_page(text: &str) -> Result<Vec<Block>, String> {
    let (mut blocks, mut lines) = (Vec::new(), text.lines().enumerate());
    while let Some((at, line)) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let fence: String = line
            .trim_start()
            .chars()
            .take_while(|c| *c == '`')
            .collect();
        if fence.len() < 3 {
            continue;
        }
        let at = at + 1;
        let (language, words) = tag(&line.trim_start()[fence.len()..])
            .map_err(|wrong| format!("line {at}: {wrong}"))?;
        let mut body = Vec::new();
        loop {
            let Some((_, line)) = lines.next() else {
                return Err(format!("line {at}: the block has no end"));
            };
            if line.trim() == fence {
                break;
            }
            body.push(line.get(indent..).unwrap_or_else(|| line.trim_start()));
        }
        blocks.push(Block {
            line: at,
            language,
            words,
            body: body.join("\n"),
        });
    }
    Ok(blocks)
}

fn tag(text: &str) -> Result<(String, BTreeMap<String, String>), String> {
    let (language, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut words = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok((language.to_owned(), words));
        }
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let name = &rest[..end];
        rest = &rest[end..];
        let mut value = "";
        if let Some(after) = rest.strip_prefix("=\"") {
            (value, rest) = after
                .split_once('"')
                .ok_or(format!("{name} has no closing quote"))?;
        } else if let Some(after) = rest.strip_prefix('=') {
            (value, rest) = after.split_once(' ').unwrap_or((after, ""));
        }
        if !WORDS.contains(&name) {
            return Err(format!("the tag's word {name:?} is none of {WORDS:?}"));
        }
        if name == "no-run" && value.trim().is_empty() {
            return Err("no-run needs a reason: no-run=\"…\"".into());
        }
        words.insert(name.to_owned(), value.to_owned());
    }
}

#[test]
fn a_tag_has_a_language_and_words() {
    let page = "a\n```sh exit=1 target=/down=200\nx\n  y\n```\n- b\n  ```json no-run=\"a b\"\n  {}\n  ```\n````toml gateway\n```\n````\n";
    let blocks = of_page(page).unwrap();
    assert_eq!(blocks.len(), 3);
    let shown: Vec<_> = blocks
        .iter()
        .map(|block| (block.line, &*block.language, &*block.body))
        .collect();
    assert_eq!(
        shown,
        [(2, "sh", "x\n  y"), (7, "json", "{}"), (10, "toml", "```")]
    );
    assert_eq!(blocks[0].word("exit"), Some("1"));
    assert_eq!(blocks[0].word("target"), Some("/down=200"));
    assert_eq!(blocks[1].word("no-run"), Some("a b"));
    assert_eq!(blocks[2].word("gateway"), Some(""));
    for wrong in [
        "```sh no-run\n```",
        "```sh no-run=\"\"\n```",
        "```sh norun=\"x\"\n```",
        "```sh\nx",
    ] {
        assert!(of_page(wrong).is_err(), "{wrong}");
    }
}

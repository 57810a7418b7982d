//! The page `settings.md`, generated from `config/syncgate.toml`, the ranges, and
//! [`NEEDS_RESTART`](super::NEEDS_RESTART).

use std::fmt::Write as _;

use super::{
    Unit,
    check::ranges::range_of,
    reload::needs_restart,
    schema::{Shape, shape},
};
use crate::docs::held_equal;

const HEAD: &str = "\
# Settings
<!-- Written from the code: SYNCGATE_WRITE_DOCS=1 cargo test --lib docs -->

Later ones win: the defaults, the file of `--config` or else `SYNCGATE_CONFIG`, environment variables, arguments. The
variable of a setting is `SYNCGATE_SECTION__KEY`, for example `SYNCGATE_SERVER__LISTEN=127.0.0.1:9003`. An empty variable
is an error, and so is an unknown key.

A size or a duration is a number in the unit that its key names, or a text with a unit: `\"64MiB\"`, `\"500kB\"`, `\"30s\"`,
`\"7d\"`.

`syncgate check --config FILE` shows everything that is wrong with a file. `syncgate config default` prints a file with every
setting at its default. `syncgate config show` prints the settings that count, and where each was said.

A running gateway takes most changes by `syncgate reload`. A setting that needs a restart says so here.
";

/// A line of the reference file.
enum Line<'a> {
    Section(&'a str),
    Key(&'a str, &'a str, bool),
    Text(&'a str),
    Blank,
}

fn line(text: &str) -> Line<'_> {
    let (bare, is_comment) = match text.strip_prefix("# ") {
        Some(bare) => (bare, true),
        None => (text, false),
    };
    if bare.starts_with('[') && bare.ends_with(']') {
        return Line::Section(bare.trim_matches(['[', ']']));
    }
    match bare.split_once(" = ") {
        Some((key, value)) if !key.contains(' ') => Line::Key(key, value, !is_comment),
        _ if text.is_empty() => Line::Blank,
        _ => Line::Text(bare.trim_start_matches('#')),
    }
}

/// Converts comments to Markdown: names of keys become code; `<` and `*` are escaped.
fn prose(text: &str) -> String {
    let is_code = |word: &str| {
        let bare = word.trim_matches(['.', ',', ';', ':', '(', ')', '?', '"']);
        let is_path = bare.split('.').count() == 2 && bare.contains('_')
            || bare
                .split('.')
                .next()
                .is_some_and(|section| shape(&[section]).is_some())
                && bare.contains('.');
        is_path || bare.starts_with('[') || bare.contains('_')
    };
    let words = text.split(' ').map(|word| {
        let start = word.find(|c: char| !matches!(c, '(' | '"')).unwrap_or(0);
        let end = word
            .trim_end_matches(['.', ',', ';', ':', ')', '?', '"'])
            .len();
        match is_code(word) && start < end && !word.contains('`') {
            true => format!("{}`{}`{}", &word[..start], &word[start..end], &word[end..]),
            false => word.replace('<', "&lt;").replace('*', "\\*"),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

struct Page {
    text: String,
    section: String,
    /// Comments since the last key.
    said: Vec<String>,
}

impl Page {
    fn said(&mut self) -> String {
        prose(&std::mem::take(&mut self.said).join(" "))
    }

    fn section(&mut self, name: &str) {
        let said = self.said();
        let many = matches!(shape(&[name]), Some(Shape::Tables(_)));
        let shown = if many {
            format!("[[{name}]]")
        } else {
            format!("[{name}]")
        };
        name.clone_into(&mut self.section);
        write!(self.text, "\n## {name}\n\nSection `{shown}`. {said}\n").unwrap();
    }

    fn key(&mut self, key: &str, value: &str, is_default: bool) {
        let (section, mut said) = (self.section.clone(), self.said());
        // A table with free keys has no settings of its own.
        if shape(&[&section]) == Some(Shape::Map) {
            write!(self.text, "\nExample: `{key} = {value}`.\n").unwrap();
            return;
        }
        let path = format!("{section}.{key}");
        if said.is_empty() && section == "targets" {
            said = format!("As [dispatch.{key}](#dispatch{key}), for this target.");
        }
        let (unit, range) = (Unit::of_setting(key), range_of(&section, key));
        let number = |number: u64| match unit {
            Some(unit) => unit.words(number),
            None => number.to_string(),
        };
        let shown = value.parse().map_or_else(|_| value.to_owned(), number);
        let mut facts = match is_default {
            true => format!("Default `{shown}`."),
            false => format!("No default; example `{shown}`."),
        };
        if let Some(unit) = unit {
            write!(facts, " Unit {}.", unit.name()).unwrap();
        }
        if let Some(range) = range {
            let (least, most) = (number(*range.start()), number(*range.end()));
            write!(facts, " Bounds `{least}` to `{most}`.").unwrap();
            said = without_plain_range(&said);
        }
        let in_list = format!("{section}[0].{key}");
        facts += match needs_restart(&path) || needs_restart(&in_list) {
            true => " A change needs a restart.",
            false => " A change needs a reload.",
        };
        write!(self.text, "\n### {path}\n").unwrap();
        if !said.is_empty() {
            write!(self.text, "\n{said}\n").unwrap();
        }
        write!(self.text, "\n{facts}\n").unwrap();
    }
}

/// Removes a range such as `(1 to 1000)`, because the page shows the range itself. Other parentheses stay.
fn without_plain_range(said: &str) -> String {
    let is_bound = |text: &str| {
        let mut words = text.split(' ');
        words.next().is_some_and(|word| word.parse::<u64>().is_ok()) && words.count() < 2
    };
    let mut parts = said.split(" (");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (inside, after) = part.split_once(')').unwrap_or((part, ""));
        match inside.split_once(" to ") {
            Some((least, most)) if is_bound(least) && is_bound(most) => text += after,
            _ => text += &format!(" ({part}"),
        }
    }
    text
}

#[test]
fn the_settings_are_those_of_the_code() {
    let reference = include_str!("../../config/syncgate.toml");
    let mut page = Page {
        text: HEAD.to_owned(),
        section: String::new(),
        said: Vec::new(),
    };
    for text in reference.lines() {
        match line(text) {
            Line::Section(name) => page.section(name),
            Line::Key(key, value, is_default) => page.key(key, value, is_default),
            Line::Text(said) => page.said.push(said.to_owned()),
            // Comments before the first section are about the file.
            Line::Blank if page.section.is_empty() => page.said.clear(),
            Line::Blank => {}
        }
    }
    held_equal("settings", &page.text);
}

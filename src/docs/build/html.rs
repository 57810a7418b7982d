//! Pages as HTML: one document each, without a script, with the style sheet beside it.

use std::collections::HashMap;

use pulldown_cmark::{CowStr, Event, Tag, TagEnd, html::push_html};

use crate::{internal, parser, summary::Entry};

/// Returns the document of a page, with links to the page before and the one after it.
pub(crate) fn page(
    markdown: &str,
    entries: &[Entry],
    before: Option<&Entry>,
    after: Option<&Entry>,
) -> String {
    let mut body = String::new();
    push_html(&mut body, events(markdown).into_iter());
    let link = |entry: &Entry, rel: &str| {
        let title = escaped(&entry.title);
        format!("<a rel=\"{rel}\" href=\"{}\">{title}</a>", entry.name)
    };
    let before = before.map(|entry| link(entry, "prev")).unwrap_or_default();
    let after = after.map(|entry| link(entry, "next")).unwrap_or_default();
    let title = title(markdown);
    let all = format!(
        "<details><summary>All pages</summary>{}</details>",
        list(entries, "")
    );
    document(
        &title,
        "",
        &format!("{all}<main>{body}</main><footer>{before}{after}</footer>"),
    )
}

/// Returns the document of `/docs`.
pub(crate) fn index(entries: &[Entry]) -> String {
    let list = list(entries, "docs/");
    let body = format!("<main><h1>Syncgate manual</h1>{list}</main>");
    document("Syncgate manual", "docs/", &body)
}

/// Returns the document for a path below `/docs` that is no page.
pub(crate) fn not_found(entries: &[Entry]) -> String {
    let list = list(entries, "");
    let body = format!(
        "<main><h1>Unknown page</h1><p>The manual has no page of this name. Its pages are:</p>{list}</main>"
    );
    document("Unknown page", "", &body)
}

/// Links are relative, so that they lead to the same gateway through a proxy that serves it below a path of its own.
fn document(title: &str, below: &str, body: &str) -> String {
    let up = if below.is_empty() { "../docs" } else { "docs" };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{} · Syncgate</title>\
         <link rel=\"stylesheet\" href=\"{below}style.css\"></head>\n\
         <body><header><a href=\"{up}\">Syncgate manual</a></header>\n{body}</body></html>\n",
        escaped(title)
    )
}

fn list(entries: &[Entry], below: &str) -> String {
    let (mut html, mut part) = (String::from("<ul>"), "");
    for entry in entries {
        if entry.part != part {
            part = &entry.part;
            html += &format!("</ul><h2>{}</h2><ul>", escaped(part));
        }
        let title = escaped(&entry.title);
        html += &format!("<li><a href=\"{below}{}\">{title}</a></li>", entry.name);
    }
    (html + "</ul>").replace("<ul></ul>", "")
}

fn title(markdown: &str) -> String {
    let first = markdown.lines().next().unwrap_or_default();
    first.trim_start_matches('#').trim().replace('`', "")
}

/// Returns the events of a page with anchors at its headings, links to pages instead of files, and tables that scroll.
fn events(markdown: &str) -> Vec<Event<'_>> {
    let mut events: Vec<Event<'_>> = Vec::new();
    let (mut heading, mut words) = (None, String::new());
    let mut used = HashMap::new();
    let mut comment = false;
    for event in parser(markdown) {
        match event {
            Event::Start(Tag::Heading { .. }) => {
                heading = Some(events.len());
                words.clear();
                events.push(event);
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some(Event::Start(Tag::Heading { id, .. })) =
                    heading.take().and_then(|at| events.get_mut(at))
                {
                    *id = Some(anchor(&words, &mut used).into());
                }
                events.push(event);
            }
            Event::Start(Tag::Link {
                link_type,
                dest_url,
                title,
                id,
            }) => events.push(Event::Start(Tag::Link {
                link_type,
                dest_url: target(dest_url),
                title,
                id,
            })),
            Event::Start(Tag::Table(_)) => {
                events.push(Event::Html("<div class=\"table\">".into()));
                events.push(event);
            }
            Event::End(TagEnd::Table) => {
                events.push(event);
                events.push(Event::Html("</div>".into()));
            }
            // Pages hold no HTML but comments; other HTML is shown as the text that it is.
            Event::Start(Tag::HtmlBlock) => comment = false,
            Event::Html(text) => {
                comment |= text.starts_with("<!--");
                if !comment {
                    events.push(Event::Text(text));
                }
            }
            Event::End(TagEnd::HtmlBlock) => {}
            Event::InlineHtml(text) if text.starts_with("<!--") => {}
            Event::InlineHtml(text) => events.push(Event::Text(text)),
            event => {
                if let Event::Text(text) | Event::Code(text) = &event {
                    words += text;
                }
                events.push(event);
            }
        }
    }
    events
}

fn target(link: CowStr<'_>) -> CowStr<'_> {
    match internal(&link) {
        None => link,
        Some((page, "")) => page.to_owned().into(),
        Some((page, anchor)) => format!("{page}#{anchor}").into(),
    }
}

/// Returns a heading's anchor as code hosts make it: small letters, no punctuation, `-` for blanks, a number if it was there.
fn anchor(words: &str, used: &mut HashMap<String, usize>) -> String {
    let kept = words.chars().flat_map(char::to_lowercase);
    let kept = kept.filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    let plain: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
    let count = used.entry(plain.clone()).or_default();
    *count += 1;
    match *count {
        1 => plain,
        count => format!("{plain}-{}", count - 1),
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

//! A `curl` of a page, sent by the test itself.

use reqwest::Method;

use crate::testkit::Gateway;

/// Splits as a shell does: blanks, single and double quotes, a backslash at the end of a line.
pub(super) fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    let command = command.replace("\\\n", " ");
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, any) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (None, c) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

pub(super) async fn run(gateway: &Gateway, command: &str) -> (u16, String) {
    let mut words = words(command).into_iter().skip(1);
    let (mut method, mut headers, mut body, mut url) = (None, Vec::new(), None::<String>, None);
    let mut login = None;
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .unwrap_or_else(|| panic!("{word} of {command} has no value"))
        };
        match word.as_str() {
            "-X" => method = Some(value()),
            "-H" => headers.push(value()),
            "-u" => login = Some(value()),
            "-d" | "--data-binary" => body = Some(value()),
            "-s" | "-S" | "-i" | "-sS" => {}
            "-G" => method = Some("GET".into()),
            other if other.starts_with("http") => url = Some(other.to_owned()),
            other => panic!("{other} of {command} is not known to this test"),
        }
    }
    let method = method.unwrap_or_else(|| {
        if body.is_some() {
            "POST".into()
        } else {
            "GET".into()
        }
    });
    let url = url.unwrap_or_else(|| panic!("no URL in {command}"));
    let path = url
        .split_once("//")
        .unwrap()
        .1
        .split_once('/')
        .map_or(String::new(), |(_, path)| path.to_owned());
    let mut request = gateway.request(
        Method::from_bytes(method.as_bytes()).unwrap(),
        &format!("/{path}"),
    );
    for header in headers {
        let (name, value) = header.split_once(':').unwrap();
        request = request.header(name.trim(), value.trim());
    }
    if let Some((user, password)) = login.as_ref().and_then(|login| login.split_once(':')) {
        request = request.basic_auth(user, Some(password));
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

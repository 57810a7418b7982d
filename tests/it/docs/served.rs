//! The manual as a browser gets it.

use std::io::Read as _;

use flate2::read::GzDecoder;
use reqwest::{Method, Response};

use super::pages;
use crate::testkit::{Gateway, Place};

async fn ask(gateway: &Gateway, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = gateway.request(method, path);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    request.send().await.unwrap()
}

async fn get(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    ask(gateway, Method::GET, path, headers).await
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn every_page_is_served_to_everyone_compressed_or_not() {
    // Where there are users, the manual still asks for none.
    let gateway = Place::new()
        .env("SYNCGATE_ADMIN_USER", "ada")
        .env("SYNCGATE_ADMIN_PASSWORD", "correct horse battery")
        .start();
    let mut paths: Vec<String> = pages()
        .into_iter()
        .map(|(name, _)| format!("/docs/{name}"))
        .collect();
    paths.push("/docs".into());
    for path in paths {
        let plain = get(&gateway, &path, &[]).await;
        assert_eq!(plain.status(), 200, "{path}");
        assert_eq!(header(&plain, "content-type"), "text/html; charset=utf-8");
        assert_eq!(header(&plain, "content-encoding"), "");
        assert_eq!(header(&plain, "vary"), "accept-encoding");
        let policy = header(&plain, "content-security-policy").to_owned();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'self'"),
            "{policy}"
        );
        assert!(
            !policy.contains("unsafe") && !policy.contains("script-src"),
            "{policy}"
        );
        assert_eq!(header(&plain, "x-content-type-options"), "nosniff");
        let plain_tag = header(&plain, "etag").to_owned();
        let text = plain.text().await.unwrap();
        assert!(text.starts_with("<!doctype html>"), "{path}");

        let packed = get(&gateway, &path, &[("accept-encoding", "br, gzip")]).await;
        assert_eq!(header(&packed, "content-encoding"), "gzip");
        let packed_tag = header(&packed, "etag").to_owned();
        assert_ne!(plain_tag, packed_tag, "different bytes have different tags");
        let bytes = packed.bytes().await.unwrap();
        assert!(bytes.len() < text.len());
        assert_eq!(unpacked(&bytes), text, "{path}");

        for (tag, encoding) in [(&plain_tag, "identity"), (&packed_tag, "gzip")] {
            let known = [("if-none-match", &**tag), ("accept-encoding", encoding)];
            let unchanged = get(&gateway, &path, &known).await;
            assert_eq!(unchanged.status(), 304, "{path}");
            assert_eq!(header(&unchanged, "etag"), tag);
            assert!(unchanged.bytes().await.unwrap().is_empty());
        }
        let head = ask(&gateway, Method::HEAD, &path, &[]).await;
        assert_eq!(
            (head.status().as_u16(), header(&head, "etag")),
            (200, &*plain_tag)
        );
        assert_eq!(header(&head, "content-length"), text.len().to_string());
        assert!(head.bytes().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_unknown_page_lists_those_there_are() {
    let gateway = Gateway::start();
    for path in ["/docs/no-such-page", "/docs/%ff", "/docs/..%2fCargo.toml"] {
        let known = [("if-none-match", "*")];
        let answer = get(&gateway, path, &known).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert_eq!(header(&answer, "etag"), "");
        let text = answer.text().await.unwrap();
        for (name, _) in pages() {
            assert!(
                text.contains(&format!("<a href=\"{name}\">")),
                "{name} is not in {text}"
            );
        }
    }
    let other = get(&gateway, "/docs/settings?x=1", &[]).await;
    assert_eq!(other.status(), 400);
    let posted = ask(&gateway, Method::POST, "/docs", &[]).await;
    assert_eq!(
        (posted.status().as_u16(), header(&posted, "allow")),
        (405, "GET,HEAD")
    );
}

#[tokio::test]
async fn links_of_the_list_and_the_style_sheet_lead_where_they_say() {
    let gateway = Gateway::start();
    // The client follows the redirect, as a browser does.
    let list = get(&gateway, "/docs/", &[]).await;
    assert_eq!(list.url().path(), "/docs");
    let text = list.text().await.unwrap();
    let base = format!("{}/docs", gateway.url)
        .parse::<reqwest::Url>()
        .unwrap();
    let links: Vec<&str> = text
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(links.len() > pages().len(), "{links:?}");
    for link in links {
        let url = base.join(link).unwrap();
        let answer = get(&gateway, url.path(), &[]).await;
        assert_eq!(answer.status(), 200, "{link}");
    }
    let style = get(&gateway, "/docs/style.css", &[("accept-encoding", "gzip")]).await;
    assert_eq!(header(&style, "content-type"), "text/css; charset=utf-8");
    let style = unpacked(&style.bytes().await.unwrap());
    assert!(style.contains("color-scheme:light dark"), "{style}");
}

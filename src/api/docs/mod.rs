//! `GET /docs` and `GET /docs/{page}`: the manual, for everyone and without a script.
//!
//! Pages were compressed at compile time. A client that takes gzip gets those bytes; another one gets them unpacked, at
//! most a few hundred KiB for each request.

#[cfg(test)]
mod close_codes;
#[cfg(test)]
mod problems;

use axum::{
    body::Body,
    extract::{Path, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::{problem::Problem, query::Query};
use crate::docs::{self, File};

/// Nothing but our own style sheet is loaded, no other page may frame this one, and nothing may be sent from it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
/// A browser asks each time whether its copy is still the one of this release.
const CACHING: HeaderValue = HeaderValue::from_static("no-cache");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// The list of pages.
pub(super) async fn index(uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    answer(docs::index(), HTML, &headers)
}

/// `/docs/` is no page: links of the list are relative to `/docs`.
pub(super) async fn to_index(uri: Uri) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    let location = [(header::LOCATION, "../docs")];
    Ok((StatusCode::PERMANENT_REDIRECT, location).into_response())
}

/// One page, or the style sheet.
pub(super) async fn page(
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Query::parse(&uri, &[])?;
    // Bytes that are not UTF-8 are the name of no page.
    let name = name.map_or_else(|_| String::new(), |Path(name)| name);
    if name == "style.css" {
        return answer(docs::style(), CSS, &headers);
    }
    match docs::page(&name) {
        Some(page) => answer(&page.file, HTML, &headers),
        None => {
            let mut response = answer(docs::not_found(), HTML, &without_condition(headers))?;
            response.headers_mut().remove(header::ETAG);
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok(response)
        }
    }
}

/// An answer of 404 is never "not modified".
fn without_condition(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::IF_NONE_MATCH);
    headers
}

fn answer(file: &File, kind: HeaderValue, asked: &HeaderMap) -> Result<Response, Problem> {
    let gzip = takes_gzip(asked);
    // Different bytes have different tags (RFC 9110, 8.8.3.3).
    let tag = match gzip {
        true => format!("\"{}-gzip\"", file.tag),
        false => format!("\"{}\"", file.tag),
    };
    let (status, body) = match is_known(asked, &tag) {
        true => (StatusCode::NOT_MODIFIED, Bytes::new()),
        false if gzip => (StatusCode::OK, Bytes::from_static(file.gzip)),
        false => (
            StatusCode::OK,
            file.plain().map_err(Problem::internal)?.into(),
        ),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers.insert(header::CACHE_CONTROL, CACHING);
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let tag = HeaderValue::try_from(tag).map_err(Problem::internal)?;
    headers.insert(header::ETAG, tag);
    if gzip {
        headers.insert(header::CONTENT_ENCODING, GZIP);
    }
    Ok(response)
}

/// Returns whether a client takes gzip: `Accept-Encoding` names it, or `*`, and not with a weight of zero.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter();
    let codings = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    let mut any = false;
    for coding in codings {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=");
        let weight = weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0));
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return weight > 0.0,
            "*" => any = weight > 0.0,
            _ => {}
        }
    }
    any
}

/// Returns whether the client has the bytes with this tag already (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .map(str::trim);
    tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_that_name_it() {
        for (accept, expected) in [
            (&[][..], false),
            (&["gzip"], true),
            (&["deflate, GZIP;q=0.5, br"], true),
            (&["deflate", "gzip"], true),
            (&["gzip;q=0"], false),
            (&["gzip; q=0.0, *"], false),
            (&["*"], true),
            (&["*;q=0, gzip"], true),
            (&["identity"], false),
            (&["x-gzipped"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
            }
            assert_eq!(takes_gzip(&headers), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_known_tag_is_found_in_a_list() {
        for (known, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"a-gzip\"", false),
            ("a", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, known.parse().unwrap());
            assert_eq!(is_known(&headers, "\"a\""), expected, "{known}");
        }
    }
}

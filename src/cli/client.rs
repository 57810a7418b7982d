//! The HTTP client of the commands.

use std::{error::Error as _, time::Duration};

use reqwest::{
    Method, Response, StatusCode, Upgraded,
    header::{ACCEPT, HeaderMap, RETRY_AFTER},
};
use serde_json::Value;
use url::Url;

pub(super) use super::refusal::Refusal;
use super::{Failure, login::Login, next::Options};

/// Time limit of a request; a command may set another one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Far above the longest page of records, because a server that is not a gateway may send without an end.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Routes that need no login, so none is sent. On the first, `Authorization` is the token of the target.
const PUBLIC: [&[&str]; 3] = [&["stream", "sync"], &["healthz"], &["readyz"]];

/// A gateway to talk to.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    login: Option<Login>,
    /// Options of the commands that a message suggests.
    options: Options,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Error {
    /// No connection: the gateway has not got the request.
    Unreachable(String),
    /// The connection broke, or the answer came too late: the gateway may have done the work.
    NoAnswer(String),
    /// The gateway answered with a problem.
    Refused(Box<Refusal>),
    /// The answer is a success that no gateway sends.
    NotAGateway(String),
}

/// Reads the address of a gateway: `http://HOST:PORT`, or `HOST:PORT` alone.
///
/// # Errors
/// Why the text is not an address. The text is not shown, because it may hold a password.
pub(super) fn address(text: &str) -> Result<Url, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::usage(
            "--url (or SYNCGATE_URL) is empty; give the address of a gateway, or unset the variable",
        ));
    }
    // `localhost:9002` alone would be a URL of the scheme `localhost`.
    let url = match text.contains("://") {
        true => text.parse(),
        false => format!("http://{text}").parse(),
    };
    url.map_err(|why| {
        Failure::usage(format!(
            "--url is no address of a gateway ({why}): give http://HOST:PORT, or HOST:PORT"
        ))
    })
}

/// Returns an address without its user and password.
pub(super) fn without_login(mut url: Url) -> Url {
    // The setters refuse an address that can have no login; it stays as it is.
    let _refused = (url.set_username(""), url.set_password(None));
    url
}

impl Client {
    /// # Errors
    /// If the address is not one of HTTP.
    pub(super) fn new(url: &Url, login: Option<Login>) -> Result<Self, Failure> {
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(Failure::usage(format!(
                "--url {url} is no address of a gateway: give http://HOST:PORT"
            )));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // A proxy of the environment is meant for the internet, and the gateway is close by.
            .no_proxy()
            // The upgrade of `tail` needs HTTP/1.1.
            .http1_only()
            .user_agent(concat!("syncgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::failed(format!("cannot make the HTTP client: {error}")))?;
        Ok(Self {
            http,
            base: url.clone(),
            login,
            options: Options::default(),
        })
    }

    /// Sets the options with which suggested commands find this gateway.
    pub(super) fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Returns the command line of these words for the same gateway, quoted for a shell.
    pub(super) fn next<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> String {
        self.options.command(words)
    }

    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    pub(super) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, Error> {
        self.send(self.request(Method::GET, path, query)).await
    }

    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, Error> {
        self.send(self.request(Method::POST, path, &[]).json(body))
            .await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> Result<(), Error> {
        let answer = self.send(self.request(Method::DELETE, path, &[])).await?;
        // Removing a data stream is answered with an envelope.
        match answer == Value::Null || answer.get("messages").is_some() {
            true => Ok(()),
            false => Err(self.not_a_gateway("the answer to a removal")),
        }
    }

    /// Returns an answer that has the members of `what`. A login page, a target or a proxy may answer 200 to every request,
    /// so without this check a command would report work that nobody has done.
    pub(super) fn expect(
        &self,
        what: &str,
        members: &[&str],
        answer: Value,
    ) -> Result<Value, Error> {
        match members.iter().all(|member| answer.get(member).is_some()) {
            true => Ok(answer),
            false => Err(self.not_a_gateway(what)),
        }
    }

    /// Returns the error for a success that is not `what` a gateway answers.
    pub(super) fn not_a_gateway(&self, what: &str) -> Error {
        Error::NotAGateway(format!(
            "{} is not a gateway: it did not send {what}; is --url right?",
            self.base
        ))
    }

    /// Builds a request; the path segments are escaped.
    pub(super) fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self
            .http
            .request(method, url)
            .timeout(ANSWER_TIMEOUT)
            .header(ACCEPT, "application/json");
        match &self.login {
            Some(login) if !PUBLIC.contains(&path) => {
                request.basic_auth(&login.user, Some(&*login.password))
            }
            _ => request,
        }
    }

    /// Sends a request; returns the answer's JSON, null for an answer without content.
    pub(super) async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Error> {
        let response = self.response(request).await?;
        let has_content = response.status() != StatusCode::NO_CONTENT;
        let text = self.text(response).await?;
        match has_content {
            true => serde_json::from_str(&text).map_err(|_| self.not_a_gateway("JSON")),
            false => Ok(Value::Null),
        }
    }

    /// Sends a request; returns the answer's text, because a payload in it may be JSON that a [`Value`] cannot hold.
    pub(super) async fn send_for_text(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<String, Error> {
        let response = self.response(request).await?;
        self.text(response).await
    }

    /// Sends a request to switch protocols; returns the headers of the answer, and the connection.
    pub(super) async fn upgrade(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(HeaderMap, Upgraded), Error> {
        let mut response = self.response(request).await?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            self.text(response).await?;
            return Err(Error::NoAnswer(format!(
                "{} answered {} and not with the switch of protocols; is a proxy in the way?",
                self.base,
                status.as_u16()
            )));
        }
        let headers = std::mem::take(response.headers_mut());
        let upgraded = response.upgrade().await;
        Ok((headers, upgraded.map_err(|error| self.no_response(&error))?))
    }

    async fn response(&self, request: reqwest::RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await;
        response.map_err(|error| self.no_response(&error))
    }

    async fn text(&self, mut response: Response) -> Result<String, Error> {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|seconds| seconds.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let mut body = Vec::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|error| self.no_response(&error))?
        {
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                let mib = ANSWER_BYTES_MAX >> 20;
                return Err(Error::NoAnswer(format!(
                    "{} answered with more than {mib} MiB, so it is not a gateway",
                    self.base
                )));
            }
            body.extend_from_slice(&part);
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(text);
        }
        let refusal = Refusal::read(status, retry_after, value(&text), &self.options);
        Err(Error::Refused(Box::new(refusal)))
    }

    fn no_response(&self, error: &reqwest::Error) -> Error {
        let mut why = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            why = cause.to_string();
            source = cause.source();
        }
        let base = &self.base;
        if error.is_connect() {
            Error::Unreachable(format!(
                "no gateway answers at {base} ({why}); is it running, or is --url another?"
            ))
        } else if error.is_timeout() {
            Error::NoAnswer(format!("{base} did not answer in time"))
        } else {
            Error::NoAnswer(format!("{base} broke the connection off ({why})"))
        }
    }
}

/// Parses JSON; other text becomes a JSON string.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unreachable(why) | Error::NoAnswer(why) | Error::NotAGateway(why) => {
                Self::failed(why)
            }
            Error::Refused(refusal) => Self::failed(refusal.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(address(text).unwrap().as_str(), expected);
    }

    #[test]
    fn an_address_without_a_scheme_gets_http() {
        check("http://127.0.0.1:9002", "http://127.0.0.1:9002/");
        check("https://gate.example", "https://gate.example/");
        check("127.0.0.1:9002", "http://127.0.0.1:9002/");
        check("localhost:9002", "http://localhost:9002/");
        check("[::1]:9002", "http://[::1]:9002/");
        check("ada:horse@gate:9002", "http://ada:horse@gate:9002/");
        check("gate.example/under", "http://gate.example/under");
    }

    #[test]
    fn an_invalid_address_is_not_shown() {
        let empty = address(" ").unwrap_err();
        assert_eq!(empty.code, 2);
        assert!(empty.message.contains("SYNCGATE_URL) is empty"));
        for text in ["ada:horse@gate:port", "http://ada:horse@gate:port"] {
            let failure = address(text).unwrap_err();
            assert_eq!(failure.code, 2);
            let said = failure.message;
            assert!(
                said.contains("give http://HOST:PORT") && !said.contains("horse"),
                "{said}"
            );
        }
    }
}

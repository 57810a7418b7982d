//! An exchange without an answer: whether its connection ended first, and the failure to report.

use std::error::Error;

use super::{
    connection::{HEAD_BYTES_MAX, HEAD_LEN_MAX},
    wire::Notes,
};
use crate::dispatch::outcome::{
    Cause, Failure,
    refused::{self, Speaks},
};

/// The facts about such an exchange.
#[derive(Clone, Copy)]
pub(in crate::dispatch) struct Unanswered<'a> {
    /// The error of hyper, if there is one.
    pub(in crate::dispatch) error: Option<&'a hyper::Error>,
    /// No byte of the request was written.
    pub(in crate::dispatch) unsent: bool,
    pub(in crate::dispatch) is_http2: bool,
    pub(in crate::dispatch) notes: &'a Notes,
}

impl Unanswered<'_> {
    /// Returns whether the connection ended before an answer began, so that the request may be sent again on another
    /// one.
    ///
    /// Over HTTP/1.1 an answer begins with its first byte. Over HTTP/2 hyper shows no interim answers, so there it begins
    /// with its head, and a stream that the target refused has ended too (RFC 9113 §8.7).
    pub(in crate::dispatch) fn has_ended(self) -> bool {
        if self.other_protocol().is_some() {
            return false;
        }
        self.unsent
            || match self.http2_error() {
                Some(error) => {
                    let refused =
                        error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
                    // h2 ends a stream by `GOAWAY` only if the target says that it has not processed the stream.
                    refused || error.is_go_away() && error.is_remote() || error.is_io()
                }
                None => self.is_http2 || !self.notes.has_answer_begun(),
            }
    }

    /// Returns the failure to report.
    pub(in crate::dispatch) fn failure(self) -> Failure {
        if let Some(error) = self.notes.tls_error() {
            // With TLS 1.3 the target checks a client's certificate after the client's handshake is over.
            return Failure::new(Cause::Tls, refused::tls_reason(&error)).unconnected();
        }
        if let Some(other) = self.other_protocol() {
            return Failure::new(Cause::Reset, refused::protocol_reason(other));
        }
        Failure::new(Cause::Reset, self.reason())
    }

    fn reason(self) -> String {
        let Some(error) = self.error else {
            return "the connection was closed before the request was sent".into();
        };
        if error.is_parse_too_large() {
            let kib = HEAD_BYTES_MAX / 1024;
            return format!(
                "the head of the answer is too large: more than {kib} KiB, or more than {HEAD_LEN_MAX} headers"
            );
        }
        if let Some(reason) = self.http2_error().and_then(h2::Error::reason) {
            // The source's text may quote the target, so only the reason is shown.
            return format!("{error}: {reason}");
        }
        let text = match self.unsent {
            true => "the connection was closed before the request was sent".into(),
            false => error.to_string(),
        };
        let io = sources(error).find_map(|source| {
            let io = source.downcast_ref::<std::io::Error>();
            io.or_else(|| source.downcast_ref::<h2::Error>()?.get_io())
        });
        match io {
            Some(io) => format!("{text}: {}", io.kind()),
            None => text,
        }
    }

    fn http2_error(&self) -> Option<&h2::Error> {
        sources(self.error?).find_map(|source| source.downcast_ref())
    }

    fn other_protocol(&self) -> Option<Speaks> {
        self.notes.speaks().filter(|_| !self.is_http2)
    }
}

/// Returns the errors below one, from the outermost to the innermost.
fn sources<'a>(error: &'a hyper::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let below = |error: &&'a (dyn Error + 'static)| Error::source(*error);
    std::iter::successors(error.source(), below)
}

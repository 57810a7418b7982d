//! Problems: every error of a request becomes one (RFC 9457), with a code that decides its status.
//!
//! ```json
//! {"type":"urn:syncgate:problem:invalid_message","title":"Invalid message","status":400,"detail":"…",
//!  "instance":"/stream/sync","code":"invalid_message","errors":[{"pointer":"/streamMessage/targetRestApi",
//!  "code":"required","detail":"the member is missing"}],"requestId":"6f1d2c3b-1"}
//! ```
//!
//! `code.rs` has all codes. Each route converts its own errors; `storage.rs` converts the errors that several routes share.
//! `server/render.rs` writes the answer and the log line. Every enum of errors is matched without a wildcard, so that a new
//! variant does not compile until somebody has chosen its code. No text quotes a body, a header value or a secret; the
//! inner cause goes to the log under the request id.

mod code;
mod storage;

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::HeaderName;

use crate::{
    json::faults::{FieldCode, FieldError},
    retry,
};

pub(super) use code::Code;

/// A refusal. Rendering adds the request id.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) code: Code,
    pub(super) detail: String,
    pub(super) errors: Vec<Fault>,
    pub(super) retry_after_secs: Option<u32>,
    /// Member `earliest` of the body.
    pub(super) earliest: Option<u64>,
    /// Members `since` and `by` of the body.
    pub(super) running: Option<Box<retry::Taken>>,
    /// Its message number in the data stream protocol, if the code has another one.
    pub(super) number: Option<u16>,
    /// For the log only.
    pub(super) cause: Option<Arc<str>>,
}

/// One wrong member or setting.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// JSON pointer, or key of the configuration.
    pub(super) pointer: String,
    pub(super) code: &'static str,
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_secs: None,
            earliest: None,
            running: None,
            number: None,
            cause: None,
        }
    }

    /// Names every fault of a request.
    pub(super) fn invalid(code: Code, errors: Vec<FieldError>) -> Self {
        let detail = match errors.first() {
            Some(first) if errors.len() == 1 => first.detail.clone(),
            Some(_) => format!("{} members are wrong; see errors", errors.len()),
            None => String::new(),
        };
        let fault = |error: FieldError| Fault {
            pointer: error.pointer,
            code: field_code(error.code),
            detail: error.detail,
        };
        Self {
            errors: errors.into_iter().map(fault).collect(),
            ..Self::new(code, detail)
        }
    }

    /// Names the one wrong member of a request.
    pub(super) fn at(pointer: &str, code: Code, detail: String) -> Self {
        let fault = FieldError {
            pointer: pointer.into(),
            code: FieldCode::WrongType,
            detail,
        };
        Self::invalid(code, vec![fault])
    }

    /// Sets its message number in the data stream protocol.
    pub(super) fn of_protocol(mut self, number: u16) -> Self {
        self.number = Some(number);
        self
    }

    pub(super) fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }

    /// A failure of the gateway itself; `cause` goes to the log only.
    pub(super) fn internal(cause: impl ToString) -> Self {
        Self {
            cause: Some(cause.to_string().into()),
            ..Self::new(
                Code::Internal,
                "the log of the gateway has more, under this request id or that of an earlier request",
            )
        }
    }

    pub(super) fn draining() -> Self {
        Self::new(Code::Draining, "send the request again in a moment").retry_after(5)
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }
}

/// A handler's problem travels to `server/mod.rs` as an extension of the response, because only the server knows the
/// request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.code.parts().0;
        response.extensions_mut().insert(self);
        response
    }
}

fn field_code(code: FieldCode) -> &'static str {
    match code {
        FieldCode::Required => "required",
        FieldCode::WrongType => "wrong_type",
        FieldCode::TooLong => "too_long",
        FieldCode::NotUtf8 => "not_utf8",
        FieldCode::UrlInvalid => "url_invalid",
        FieldCode::SchemeNotAllowed => "scheme_not_allowed",
        FieldCode::MethodNotAllowed => "method_not_allowed",
        FieldCode::HeaderInvalid => "header_invalid",
        FieldCode::HeaderHopByHop => "header_hop_by_hop",
        FieldCode::SecretNameInvalid => "secret_name_invalid",
        FieldCode::UnknownMember => "unknown_member",
    }
}

/// Name of the header that carries the request id.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

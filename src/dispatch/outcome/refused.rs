//! Reasons of failed TLS handshakes and wrong protocols, with what to change. Pure.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// A protocol that is not HTTP/1.1, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dispatch) enum Speaks {
    Http2,
    Tls,
}

impl Speaks {
    /// An HTTP/2 server begins with its settings, or says goodbye at once (RFC 9113 §3.4, §6.8); a TLS server answers
    /// what is no TLS with an alert (RFC 8446 §5.1).
    pub(in crate::dispatch) fn of(first: &[u8]) -> Option<Self> {
        const SETTINGS: u8 = 4;
        const GOAWAY: u8 = 7;
        match *first {
            [0, _, _, SETTINGS | GOAWAY, 0, 0, 0, 0, 0, ..] => Some(Self::Http2),
            [0x15, 3, 0..=4, ..] => Some(Self::Tls),
            _ => None,
        }
    }
}

/// Returns the reason of a failed handshake.
pub(in crate::dispatch) fn handshake_reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(error) => tls_reason(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "no TLS: the target closed the connection during the handshake".into()
        }
        None => format!("no TLS: {}", error.kind()),
    }
}

/// Returns the reason of a TLS error. Its text names certificates and protocols, never payloads.
pub(in crate::dispatch) fn tls_reason(error: &Error) -> String {
    let hint = match error {
        Error::AlertReceived(alert) => {
            let words = words(*alert);
            return match alert_hint(*alert) {
                Some(hint) => format!("no TLS: alert of the target: {words} ({hint})"),
                None => format!("no TLS: alert of the target: {words}"),
            };
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return "no TLS: the target does not speak TLS on this port (its URL may have to begin with http://)".into();
        }
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => " (dispatch.ca_file adds certificate authorities)",
        _ => "",
    };
    format!("no TLS: {error}{hint}")
}

/// Returns the reason for a target that does not speak HTTP/1.1 where it should.
pub(in crate::dispatch) fn protocol_reason(speaks: Speaks) -> &'static str {
    match speaks {
        Speaks::Http2 => {
            "the target speaks HTTP/2 only: without TLS, Syncgate calls it over HTTP/1.1; with https:// the two choose HTTP/2"
        }
        Speaks::Tls => "the target speaks TLS: its URL must begin with https://",
    }
}

/// Returns the name of an alert as RFC 8446 §6 has it, with blanks: `certificate required`.
fn words(alert: AlertDescription) -> String {
    let name = format!("{alert:?}");
    let mut words = String::with_capacity(name.len() + 4);
    let mut before_is_lower = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && before_is_lower {
            words.push(' ');
        }
        before_is_lower = letter.is_ascii_lowercase();
        words.push(letter.to_ascii_lowercase());
    }
    words
}

/// Returns what an alert mostly means for a client that has no certificate and speaks TLS 1.2 and 1.3.
fn alert_hint(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "it wants a client certificate, and Syncgate has none"
        }
        AlertDescription::HandshakeFailure | AlertDescription::BadCertificate => {
            "no cipher suite is common to both, or it wants a client certificate, and Syncgate has none"
        }
        AlertDescription::NoApplicationProtocol => "it speaks neither HTTP/2 nor HTTP/1.1",
        AlertDescription::UnrecognisedName => "it does not know the host name of the URL",
        AlertDescription::ProtocolVersion => "it speaks neither TLS 1.2 nor TLS 1.3",
        AlertDescription::AccessDenied => "it does not let this client in",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: Error, expected: &str) {
        assert_eq!(tls_reason(&error), expected);
        let inside = io::Error::new(io::ErrorKind::InvalidData, error);
        assert_eq!(handshake_reason(&inside), expected);
    }

    #[test]
    fn alerts_are_told_in_their_own_words_and_with_what_to_change() {
        check(
            Error::AlertReceived(AlertDescription::CertificateRequired),
            "no TLS: alert of the target: certificate required (it wants a client certificate, and Syncgate has none)",
        );
        check(
            Error::AlertReceived(AlertDescription::NoApplicationProtocol),
            "no TLS: alert of the target: no application protocol (it speaks neither HTTP/2 nor HTTP/1.1)",
        );
        check(
            Error::AlertReceived(AlertDescription::UnknownCA),
            "no TLS: alert of the target: unknown ca",
        );
        check(
            Error::InvalidCertificate(CertificateError::UnknownIssuer),
            "no TLS: invalid peer certificate: UnknownIssuer (dispatch.ca_file adds certificate authorities)",
        );
        let end = handshake_reason(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(
            end,
            "no TLS: the target closed the connection during the handshake"
        );
    }
}

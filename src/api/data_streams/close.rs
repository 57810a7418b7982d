//! Close codes: why the gateway closes a subscription, as codes and words for programs.

use bytes::Bytes;

use crate::push::End;

/// Longest reason: a control frame has 125 bytes, of which the code takes two (RFC 6455 §5.5).
const REASON_BYTES_MAX: usize = 123;
/// First byte of a close message.
const CLOSE: u8 = 0x88;

/// Why a subscription is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Close {
    /// The gateway stops.
    Drain,
    /// The client sent a frame that breaks the protocol.
    Protocol,
    /// The client sent binary data.
    Unsupported,
    /// The client sent text that is not UTF-8.
    NotUtf8,
    /// The client sent a message that is too large.
    TooLarge,
    /// The log cannot be read.
    Internal,
    /// The client sent a message that is not an acknowledgement, or acknowledged a record that was not sent.
    BadMessage,
    /// The data stream was deleted.
    Deleted,
    /// The client takes no data.
    Stalled,
    /// Another client has taken over the cursor.
    TakenOver,
    /// Retention removed the next records of the client.
    PositionGone,
    /// The configuration of the data stream changed.
    ConfigChanged,
    /// The client sent too many messages.
    TooMany,
}

impl Close {
    /// Every reason.
    pub(in crate::api) const ALL: [Self; 13] = [
        Self::Drain,
        Self::Protocol,
        Self::Unsupported,
        Self::NotUtf8,
        Self::TooLarge,
        Self::Internal,
        Self::BadMessage,
        Self::Deleted,
        Self::Stalled,
        Self::TakenOver,
        Self::PositionGone,
        Self::ConfigChanged,
        Self::TooMany,
    ];

    /// Returns the close code for an end, and logs a failure of the gateway.
    pub(super) fn told(end: &End) -> Self {
        if let End::Failed(error) = end {
            tracing::error!(error = error.as_ref(), "a data stream cannot be read");
        }
        Self::from(end)
    }

    pub(in crate::api) fn code(self) -> u16 {
        self.parts().0
    }

    pub(in crate::api) fn word(self) -> &'static str {
        self.parts().1
    }

    fn parts(self) -> (u16, &'static str) {
        match self {
            Self::Drain => (1001, "drain"),
            Self::Protocol => (1002, ""),
            Self::Unsupported => (1003, ""),
            Self::NotUtf8 => (1007, ""),
            Self::TooLarge => (1009, ""),
            Self::Internal => (1011, "internal"),
            Self::BadMessage => (4400, "bad_message"),
            Self::Deleted => (4404, "deleted"),
            Self::Stalled => (4408, "stalled"),
            Self::TakenOver => (4409, "taken_over"),
            Self::PositionGone => (4410, "position_gone"),
            Self::ConfigChanged => (4412, "config_changed"),
            Self::TooMany => (4429, "too_many"),
        }
    }

    /// Returns the close message, with the last position if it fits.
    pub(super) fn message(self, last_pos: Option<&str>) -> Bytes {
        let (code, word) = self.parts();
        let mut reason = word.to_owned();
        if let Some(pos) = last_pos
            && !word.is_empty()
            && word.len() + " pos=".len() + pos.len() <= REASON_BYTES_MAX
        {
            reason = [word, " pos=", pos].concat();
        }
        let mut message = vec![CLOSE, 2];
        message[1] += u8::try_from(reason.len()).unwrap_or(0);
        message.extend_from_slice(&code.to_be_bytes());
        message.extend_from_slice(reason.as_bytes());
        message.into()
    }
}

/// Returns the answer to a close of the client, which repeats its code.
pub(super) fn answer(code: Option<u16>) -> Bytes {
    let mut message = vec![CLOSE, 0];
    if let Some(code) = code {
        message[1] = 2;
        message.extend_from_slice(&code.to_be_bytes());
    }
    message.into()
}

impl From<&End> for Close {
    fn from(end: &End) -> Self {
        match end {
            End::Changed => Self::ConfigChanged,
            End::Deleted => Self::Deleted,
            End::Gone => Self::PositionGone,
            End::Failed(_) => Self::Internal,
            End::TakenOver => Self::TakenOver,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_position_is_in_the_reason_if_it_fits() {
        let close = Close::Stalled;
        let message = close.message(Some("p1abc"));
        assert_eq!(&message[..], b"\x88\x13\x11\x38stalled pos=p1abc");
        let fits = "p".repeat(123 - "stalled pos=".len());
        assert_eq!(close.message(Some(&fits)).len(), 4 + 123);
        let long = format!("{fits}x");
        assert_eq!(&close.message(Some(&long))[..], b"\x88\x09\x11\x38stalled");
        assert_eq!(
            &Close::TooLarge.message(Some("p1"))[..],
            b"\x88\x02\x03\xf1"
        );
    }
}

//! Acks of a named cursor: the newest printed position, at most five times a second. Pure: takes the time as a value.

use std::time::Duration;

use tokio::time::Instant;

/// The gateway allows ten messages in any second; one more ack comes before a close.
const ACK_EVERY: Duration = Duration::from_millis(200);

/// The next ack of one connection.
#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: Option<String>,
    sent_at: Option<Instant>,
}

impl Acks {
    /// Notes that all records up to a position were printed.
    pub(super) fn printed(&mut self, pos: &str) {
        self.waiting = Some(pos.to_owned());
    }

    /// Returns when the next ack is due, if there is one; it may be in the past.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        self.waiting.as_ref()?;
        Some(self.sent_at.map_or(now, |sent_at| sent_at + ACK_EVERY))
    }

    /// Takes the next ack as a message, due or not, and counts it as sent.
    pub(super) fn take(&mut self, now: Instant) -> Option<String> {
        let pos = self.waiting.take()?;
        self.sent_at = Some(now);
        Some(serde_json::json!({ "ack": pos }).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_position_is_acked_no_more_often_than_the_gateway_allows() {
        let begun = Instant::now();
        let mut acks = Acks::default();
        assert_eq!(acks.due_at(begun), None);
        assert_eq!(acks.take(begun), None);
        let (mut now, mut sent) = (begun, Vec::new());
        // A record each millisecond, for two seconds.
        for n in 0..2_000_u32 {
            now = begun + Duration::from_millis(n.into());
            acks.printed(&format!("p1{n}"));
            if acks.due_at(now).is_some_and(|due| due <= now) {
                sent.push((now, acks.take(now).unwrap()));
            }
        }
        assert_eq!(sent[0].1, r#"{"ack":"p10"}"#, "the first one at once");
        assert_eq!(sent[1].1, r#"{"ack":"p1200"}"#);
        for (at, _) in &sent {
            let within = |other: &Instant| (*other - *at) < Duration::from_secs(1);
            let in_second = sent
                .iter()
                .filter(|(other, _)| other >= at && within(other));
            assert!(in_second.count() < 10);
        }
        // The last one waits, and is there at the end.
        assert!(acks.due_at(now).unwrap() > now);
        assert_eq!(acks.take(now).as_deref(), Some(r#"{"ack":"p11999"}"#));
        assert_eq!(acks.take(now), None);
    }
}

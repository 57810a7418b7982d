//! The fast reader and the slow one agree on every text.

use proptest::prelude::*;

use super::*;
use crate::{
    ingest::{
        check::{explain, read_leniently},
        envelope::{self, Envelope},
    },
    json::{faults::Faults, scan::Start},
};

fn limits() -> Limits {
    Limits::new(&Config::default())
}

/// Both readers agree: a message that the fast one accepts has no fault, and every other one has.
fn both_ways_agree(text: &str) {
    let limits = limits();
    let mut faults = Faults::new();
    explain(text, Start::default(), "", &limits, &mut faults);
    assert_eq!(
        Envelope::read(text).is_some_and(|found| envelope::read(found, &limits).is_some()),
        faults.is_empty(),
        "{text}"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_taken_and_never_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&body);
        both_ways_agree(&text);
        crate::json::scan::depth_is_legal(&body);
    }

    #[test]
    fn a_changed_message_is_seen_alike_by_both_ways(at in 0..GOOD.len(), len in 0..12usize, to in "[\\PC\\x00-\\x1f]{0,3}|null|\\{|\\}|\\[|\\]|\"|,|:|[0-9]|\\\\u0000|\\\\") {
        let end = (at + len).min(GOOD.len());
        let text = format!("{}{to}{}", &GOOD[..at], &GOOD[end..]);
        both_ways_agree(&text);
        let mut faults = Faults::new();
        let read = read_leniently(&text, Start::default(), "", &limits(), &mut faults);
        assert_eq!(read.is_none(), !faults.is_empty());
    }
}

//! The page `close-codes.md`, written from the one match of `data_streams/close.rs`.

use std::fmt::Write as _;

use crate::{
    api::data_streams::close::Close,
    docs::{held_equal, variants},
};

const HEAD: &str = "\
# Close codes
<!-- Written from the code: SYNCGATE_WRITE_DOCS=1 cargo test --lib docs -->

The gateway closes the WebSocket of a subscriber with one of these codes. The reason holds the word and the last position
that was sent, if there is one: `stalled pos=p1kZ3v0aQ`. Begin with that position after you have connected again. With
Server-Sent Events the last event is `event: close` with the data `{\"code\":1001,\"reason\":\"drain\"}`.

Wait before you connect again: 1 second at first, twice as long after each failure in a row, at most 30 seconds, with some
randomness. A connection that is lost without a close code is like 1011. `syncgate tail` does all of this.

| code | word | meaning | connect again? |
|---|---|---|---|
";

fn meaning(close: Close) -> (&'static str, &'static str) {
    match close {
        Close::Drain => (
            "The gateway stops.",
            "Yes, at once, from the last position.",
        ),
        Close::Protocol => (
            "The client sent a frame that breaks the WebSocket protocol.",
            "No. Mend the client.",
        ),
        Close::Unsupported => ("The client sent binary data.", "No. Mend the client."),
        Close::NotUtf8 => (
            "The client sent text that is not UTF-8.",
            "No. Mend the client.",
        ),
        Close::TooLarge => (
            "The client sent a message of more than 4 KiB.",
            "No. Mend the client.",
        ),
        Close::Internal => (
            "The gateway cannot read its log.",
            "Yes, after a while, from the last position.",
        ),
        Close::BadMessage => (
            "The client of a cursor sent something that is no acknowledgement, or acknowledged a position that was not \
             sent on this connection.",
            "No. Mend the client.",
        ),
        Close::Deleted => (
            "The data stream was deleted, or the stream that it shows.",
            "No.",
        ),
        Close::Stalled => (
            "The client took nothing for 30 seconds.",
            "Yes, from the last position.",
        ),
        Close::TakenOver => ("Another client has taken the cursor over.", "No."),
        Close::PositionGone => (
            "Retention or a purge removed the next record before the client got it, or the record was given up after damage.",
            "No. Choose where to begin.",
        ),
        Close::ConfigChanged => (
            "The configuration of the data stream has changed.",
            "Yes, from the last position.",
        ),
        Close::TooMany => (
            "The client sent more than ten messages a second or 10,000 acknowledgements, or 64 KiB without a whole message.",
            "Yes, after a while, from the last position.",
        ),
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for close in Close::ALL {
        let (code, word) = (close.code(), close.word());
        let word = if word.is_empty() {
            String::new()
        } else {
            format!("`{word}`")
        };
        let (meaning, again) = meaning(close);
        writeln!(page, "| {code} | {word} | {meaning} | {again} |").unwrap();
    }
    page
}

#[test]
fn the_close_codes_are_those_of_the_code() {
    let source = include_str!("../data_streams/close.rs");
    let named: Vec<String> = Close::ALL
        .iter()
        .map(|close| format!("{close:?}"))
        .collect();
    assert_eq!(
        named,
        variants(source, "pub(in crate::api) enum Close {"),
        "Close::ALL"
    );
    held_equal("close-codes", &page());
}

#[test]
fn the_close_codes_say_yes_where_our_own_client_connects_again() {
    for close in Close::ALL {
        let says_yes = meaning(close).1.starts_with("Yes");
        let goes_on = crate::cli::connects_again_after(close.code());
        assert_eq!(says_yes, goes_on, "{close:?}");
    }
}

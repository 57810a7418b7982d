//! The bytes of version 1, which every later release reads, and the refusal of changed bytes.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::{
    model::{
        ids::{Incarnation, Offset, StreamId},
        record::Record,
    },
    runtime::clock::Timestamp,
    storage::{
        AppendKind, ControlEvent, ControlEventKind, MadeBy, PurgeNote, Stream, StreamConfig,
        local::{
            books::{Books, Loss, ranges::Ranges},
            format::{
                block::{Block, NewBlock},
                codec::{ByteReader, Malformed},
                frame::{Frame, FrameAt, FrameHeader, HEADER_LEN},
                ops::{DedupEntry, NewOp, Op, SettleRun, SettlementCode, StreamImage},
                segment::{FORMAT_VERSION, HeaderError, SegmentHeader, snapshot_crc},
                snapshot::{self, Summary},
            },
        },
    },
};

use super::{headers, record};

/// `[frame, header (its first 88 bytes), snapshot, frame of commits that are recognised]` as version 1 has written them.
const V1: [&str; 4] = [
    include_str!("v1_frame.hex"),
    include_str!("v1_header.hex"),
    include_str!("v1_snapshot.hex"),
    include_str!("v1_frame_dedup.hex"),
];

const AT: FrameAt = FrameAt {
    life: 0x0123_4567_89ab_cdef,
    number: 42,
    place: 16_384,
    time: 1_767_323_045_000_009,
};

fn image() -> StreamImage {
    let stream = Stream {
        id: StreamId([7; 16]),
        incarnation: Incarnation(9),
        name: "DataSyncStream".parse().unwrap(),
        partitions: 2,
        config: StreamConfig {
            made_by: MadeBy::Api,
            retention_hours: Some(24),
            retention_bytes: None,
            ocid: Some("ocid1.stream".into()),
        },
        revision: 3,
        events: vec![
            ControlEvent {
                kind: ControlEventKind::Created { partitions: 1 },
                time: Timestamp(1_767_323_045_000_000),
                tails: vec![Offset(0)],
            },
            ControlEvent {
                kind: ControlEventKind::Grown { partitions: 2 },
                time: Timestamp(1_767_323_045_000_001),
                tails: vec![Offset(300), Offset(0)],
            },
            ControlEvent {
                kind: ControlEventKind::Purged,
                time: Timestamp(1_767_323_045_000_002),
                tails: vec![Offset(300), Offset(1)],
            },
        ],
        last_purge: None,
    };
    StreamImage {
        number: 5,
        stream: Arc::new(stream),
    }
}

fn run(end: SettlementCode, copies: Option<((u32, u16), u64)>) -> SettleRun {
    SettleRun {
        slot: (5, 1),
        first: 300,
        count: 2,
        end,
        attempts: 4,
        status: 503,
        time: AT.time - 3,
        copies,
    }
}

fn dedup() -> DedupEntry {
    DedupEntry {
        id: [8; 16],
        stream: 5,
        time: AT.time - 4,
        places: [(1, 300, 2)].into(),
        reply: Bytes::new(),
    }
}

/// Commits with a reply, with several appends, and one with neither.
fn dedup_frame() -> Frame {
    let of_one = DedupEntry {
        reply: "to be told".into(),
        ..dedup()
    };
    let of_two = DedupEntry {
        places: [(1, 300, 2), (0, 1 << 40, 1)].into(),
        ..dedup()
    };
    let both = DedupEntry {
        places: of_two.places.clone(),
        ..of_one.clone()
    };
    let ops = [of_one, of_two, both, dedup()].map(|entry| NewOp::Op(Op::Dedup(entry)));
    Frame::encode(AT, false, ops.into(), 0)
}

/// One operation of each kind, blocks between them.
fn sample() -> Vec<NewOp> {
    let mut first = NewBlock::new((5, 1), AppendKind::Accepted, 300, AT.time - 4);
    for (at, value) in [(4, "{\"a\":1}"), (2, "")] {
        first
            .push(AppendKind::Accepted, AT.time - at, record(value))
            .unwrap();
    }
    let mut second = NewBlock::new((6, 0), AppendKind::Routed, 0, AT.time);
    let plain = Record {
        key: Bytes::new(),
        value: "x".into(),
        headers: headers().with([("own", "ä")]),
    };
    second.push(AppendKind::Routed, AT.time, plain).unwrap();
    let op = NewOp::Op;
    vec![
        op(Op::StreamMade(image())),
        NewOp::Block(first),
        op(Op::Settle(run(SettlementCode::Delivered, None))),
        op(Op::Settle(run(SettlementCode::Filtered, None))),
        op(Op::Settle(run(SettlementCode::Discarded, None))),
        NewOp::Block(second),
        op(Op::Settle(run(SettlementCode::Routed, Some(((6, 1), 7))))),
        op(Op::Settle(run(
            SettlementCode::Moved,
            Some(((6, 1), 1 << 40)),
        ))),
        op(Op::StatePut {
            revision: 12,
            key: "secret/a".into(),
            value: "sealed".into(),
        }),
        op(Op::StateDelete {
            revision: 13,
            key: "secret/b".into(),
        }),
        op(Op::Trim {
            slot: (5, 1),
            below: 299,
        }),
        op(Op::StreamChanged(image())),
        op(Op::StreamGone { stream: 4 }),
        op(Op::Dedup(dedup())),
        op(Op::Refer {
            key: "secret/a".into(),
        }),
    ]
}

fn frame() -> Frame {
    Frame::encode(AT, true, sample(), 0)
}

fn decode(bytes: &Bytes) -> Result<Frame, Malformed> {
    let header = FrameHeader::decode(bytes)?;
    assert_eq!(header.at, AT, "a changed header was taken for good");
    Frame::decode(bytes, header)
}

fn header() -> SegmentHeader {
    SegmentHeader {
        version: 1,
        number: 3,
        life: AT.life,
        rewrite: 1,
        first_frame: 40,
        last_frame: 42,
        created: AT.time,
        snapshot_len: 1_000,
        snapshot_crc: 0x1234_5678,
        journal: [6; 16],
    }
}

fn summary() -> Summary {
    Summary {
        number: 2,
        life: 77,
        first_frame: 20,
        last_frame: 39,
        first_time: AT.time - 100,
        last_time: AT.time - 50,
        bytes: 123_456,
        refers: vec!["secret/a".into(), "secret/b".into()],
    }
}

fn books() -> Books {
    let mut books = Books::default();
    books.add_stream(&image(), Vec::new()).unwrap();
    let mut block = NewBlock::new((5, 1), AppendKind::Restored, 0, AT.time);
    for _ in 0..10 {
        block
            .push(AppendKind::Restored, AT.time, record("v"))
            .unwrap();
    }
    books
        .apply(&Op::Append(block.stored(0, Bytes::new())))
        .unwrap();
    for first in [0, 4, 7] {
        let run = SettleRun {
            first,
            ..run(SettlementCode::Delivered, None)
        };
        books.apply(&Op::Settle(run)).unwrap();
    }
    let trim = Op::Trim {
        slot: (5, 1),
        below: 4,
    };
    books.apply(&trim).unwrap();
    books.set_state(&"secret/a".into(), 12, Some("sealed".into()));
    books.next_stream = 9;
    books.last_time = AT.time;
    books.state_revision = 13;
    books
}

/// Everything that a snapshot has, as text: books have no equality of their own.
fn shown(books: &Books) -> String {
    let streams: Vec<_> = books
        .streams()
        .map(|(number, book)| {
            let partitions: Vec<_> = book
                .partitions
                .iter()
                .map(|p| format!("{:?} {} {:?}", p.status(), p.last_time, p.settled))
                .collect();
            format!("{number} {:?} {partitions:?}", book.stream)
        })
        .collect();
    format!(
        "{streams:?} {} {} {:?} {:?} {} {:?}",
        books.next_stream,
        books.last_time,
        books.state,
        books.state_bytes,
        books.state_revision,
        books.gone
    )
}

fn golden(at: usize) -> Vec<u8> {
    let text: String = V1[at].split_whitespace().collect();
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// Every prefix and every change of one bit is an error or the right value.
fn check_changes<T: PartialEq + Debug, E: Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    may_differ: impl Fn(usize) -> bool,
) {
    let right = decode(bytes).unwrap();
    for cut in 0..bytes.len() {
        if let Ok(read) = decode(&bytes[..cut]) {
            assert_eq!(read, right, "cut at {cut}");
            assert!(may_differ(cut), "cut at {cut} was not seen");
        }
    }
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = decode(&changed) {
            assert_eq!(read, right, "bit {bit}");
            assert!(may_differ(bit / 8), "bit {bit} was not seen");
        }
    }
}

#[test]
fn version_1_is_written_as_it_always_was() {
    let books = books();
    let snapshot = snapshot::encode(&books, Some(&summary()));
    let written = [
        frame().bytes.to_vec(),
        header().encode()[..88].to_vec(),
        snapshot,
        dedup_frame().bytes.to_vec(),
    ];
    for (at, written) in written.iter().enumerate() {
        assert_eq!(HEXLOWER.encode(written), HEXLOWER.encode(&golden(at)));
    }
}

#[test]
fn version_1_is_read_for_ever() {
    let frame = decode(&golden(0).into()).unwrap();
    assert_eq!(frame.ops, self::frame().ops);
    assert!(frame.header.last);
    let (header, bad_copy) = SegmentHeader::decode(&golden(1)).unwrap();
    assert_eq!(header, self::header());
    assert!(bad_copy.is_some(), "the second copy is not there");
    let (books, before) = snapshot::decode(&golden(2)).unwrap();
    assert_eq!(before, Some(summary()));
    assert_eq!(shown(&books), shown(&self::books()));
    let frame = decode(&golden(3).into()).unwrap();
    assert_eq!(frame.ops, dedup_frame().ops);
}

/// What a snapshot says of losses.
const LOST_V2: &str = include_str!("v2_snapshot_lost.hex");

/// Books with a loss that was accepted.
fn lossy() -> Books {
    let mut books = books();
    let mut lost = Ranges::default();
    lost.add(5..7);
    lost.add(9..10);
    for (slot, book) in books.partitions_mut() {
        if slot == (5, 1) {
            assert_eq!(book.lose(&lost), 2);
            book.lost = Arc::new(lost.clone());
            book.counts.unknown = 1;
        }
    }
    books.unmatched = -2;
    books.losses.push(Loss {
        time: AT.time,
        files: vec![3, 300],
        bytes: 70_000,
        frames: 2,
        ended: 1,
        open: 2,
    });
    books
}

#[test]
fn a_loss_makes_it_version_2_which_is_written_and_read_for_ever() {
    let snapshot = snapshot::encode(&lossy(), Some(&summary()));
    let written: String = LOST_V2.split_whitespace().collect();
    assert_eq!(HEXLOWER.encode(&snapshot), written);
    assert_eq!(snapshot::version(&snapshot), 2);
    assert_eq!(
        snapshot::version(&golden(2)),
        1,
        "without a loss nothing is new"
    );
    let (read, _) = snapshot::decode(&snapshot).unwrap();
    assert_eq!(shown(&read), shown(&lossy()));
    assert_eq!((&read.losses, read.unmatched), (&lossy().losses, -2));
    let lost = |books: &Books| format!("{:?}", books.lost().collect::<Vec<_>>());
    assert_eq!(lost(&read), lost(&lossy()));
    for cut in 0..snapshot.len() {
        // Sections that are whole are good; none is half read.
        if let Ok((read, _)) = snapshot::decode(&snapshot[..cut]) {
            assert!(read.losses.is_empty(), "cut at {cut}");
        }
    }
    let header = SegmentHeader {
        version: 2,
        ..header()
    };
    let (read, _) = SegmentHeader::decode(&header.encode()).unwrap();
    assert_eq!(read, header);
}

#[test]
fn a_frame_reads_back() {
    for (frame, len) in [(frame(), sample().len()), (dedup_frame(), 4)] {
        let read = decode(&frame.bytes).unwrap();
        assert_eq!(read.ops, frame.ops);
        assert_eq!(read.bytes, frame.bytes);
        assert_eq!(read.ops.len(), len);
    }
}

#[test]
fn a_changed_frame_is_refused() {
    check_frame(&frame().bytes);
    check_frame(&dedup_frame().bytes);
}

fn check_frame(bytes: &Bytes) {
    let header = FrameHeader::decode(bytes).unwrap();
    let body_end = HEADER_LEN + header.body_len as usize;
    check_changes(
        bytes,
        |bytes| decode(&Bytes::copy_from_slice(bytes)).map(|frame| frame.ops),
        // Zeros up to the next frame say nothing.
        |at| at >= body_end,
    );
}

#[test]
fn a_changed_block_is_refused() {
    let mut bytes = Vec::new();
    let mut block = NewBlock::new((1, 0), AppendKind::Moved, 5, 10);
    block
        .push(AppendKind::Moved, 10, record("payload"))
        .unwrap();
    block.encode(&mut bytes, AT.life, AT.place);
    check_changes(
        &bytes,
        |bytes| Block::decode(&Bytes::copy_from_slice(bytes), AT.life, AT.place),
        |_| false,
    );
    let bytes = Bytes::from(bytes);
    assert!(Block::decode(&bytes, AT.life, AT.place + 8).is_err());
    assert!(Block::decode(&bytes, AT.life + 1, AT.place).is_err());
}

#[test]
fn a_changed_snapshot_is_refused() {
    let bytes = snapshot::encode(&books(), Some(&summary()));
    let crc = snapshot_crc(AT.life, &bytes);
    let decode = |bytes: &[u8]| {
        if snapshot_crc(AT.life, bytes) != crc {
            // Without its checksum it may say anything, but must not bring the process down.
            drop(snapshot::decode(bytes));
            return Err(Malformed("checksum"));
        }
        snapshot::decode(bytes).map(|(books, before)| (shown(&books), before))
    };
    check_changes(&bytes, decode, |_| false);
}

#[test]
fn a_section_for_later_readers_is_skipped_and_one_for_all_is_not() {
    let mut bytes = snapshot::encode(&books(), None);
    bytes.extend([200, 2, 0, 0, 0, 1, 2]);
    assert_eq!(shown(&snapshot::decode(&bytes).unwrap().0), shown(&books()));
    let at = bytes.len() - 7;
    bytes[at] = 100;
    assert!(snapshot::decode(&bytes).is_err());
}

#[test]
fn one_changed_bit_of_a_header_is_made_good_by_the_other_copy() {
    let bytes = header().encode();
    for copy in [0, 4096] {
        for bit in 0..88 * 8 {
            let mut changed = bytes.clone();
            changed[copy + bit / 8] ^= 1 << (bit % 8);
            let (read, bad) = SegmentHeader::decode(&changed).unwrap();
            assert_eq!(read, header());
            assert!(bad.is_some());
        }
    }
    for cut in 0..bytes.len() {
        match SegmentHeader::decode(&bytes[..cut]) {
            Ok((read, bad)) => {
                assert!(cut >= 88);
                assert_eq!(read, header());
                assert_eq!(bad.is_none(), cut >= 4096 + 88);
            }
            Err(_) => assert!(cut < 88),
        }
    }
}

#[test]
fn a_header_with_both_copies_changed_is_refused() {
    let bytes = header().encode();
    for bit in 0..88 * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        changed[4096 + bit / 8] ^= 1 << (bit % 8);
        assert!(SegmentHeader::decode(&changed).is_err(), "bit {bit}");
    }
    let mut other = header();
    other.number += 1;
    let mut mixed = bytes.clone();
    mixed[4096..4184].copy_from_slice(&other.encode()[..88]);
    assert!(SegmentHeader::decode(&mixed).is_err());
}

#[test]
fn a_header_of_a_newer_version_says_so() {
    let newer = newer(&header());
    assert_eq!(
        SegmentHeader::decode(&newer),
        Err(HeaderError::Newer(FORMAT_VERSION + 1))
    );
}

/// Returns a header as a later release would write it.
pub(super) fn newer(header: &SegmentHeader) -> Vec<u8> {
    let mut bytes = header.encode();
    for copy in [0, 4096] {
        bytes[copy + 8..copy + 12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[copy..copy + 84]);
        bytes[copy + 84..copy + 88].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

/// What is noted of a purge stands beside the members of the config, which are as they always were.
#[test]
fn an_image_may_say_why_its_stream_was_purged() {
    let before = image();
    let mut stream = Stream::clone(&before.stream);
    stream.last_purge = Some(PurgeNote {
        reason: "wrong \u{e4} target".into(),
        by: Some("ada".into()),
    });
    let after = StreamImage {
        number: before.number,
        stream: Arc::new(stream),
    };
    let bytes = |image: &StreamImage| {
        let mut bytes = Vec::new();
        image.encode(&mut bytes);
        bytes
    };
    let noted = bytes(&after);
    let read = |bytes: &[u8]| StreamImage::decode(&mut ByteReader::new(bytes));
    assert_eq!(read(&noted).unwrap(), after);
    assert_eq!(read(&bytes(&before)).unwrap(), before);
    for len in 0..noted.len() {
        assert!(read(&noted[..len]).is_err(), "{len}");
    }
    let json = r#""last_purge":{"reason":"wrong \u{e4} target","by":"ada"}}"#;
    let json = json.replace("\\u{e4}", "\u{e4}");
    let found = noted
        .windows(json.len())
        .any(|part| part == json.as_bytes());
    assert!(found, "{}", String::from_utf8_lossy(&noted));
}

/// A purge that does not fit what is there was not written by this engine.
#[test]
fn a_purge_goes_up_to_the_tails_of_all_partitions() {
    let purge = |tails: [u64; 2]| {
        let mut books = books();
        let stream = &image().stream;
        let tails = tails.map(Offset).to_vec();
        let stream = stream.after_purge(Timestamp(AT.time), tails, PurgeNote::default());
        let image = StreamImage {
            number: 5,
            stream: Arc::new(stream),
        };
        let applied = books.apply(&Op::StreamChanged(image));
        applied.map(|()| books.partition((5, 1)).unwrap().status())
    };
    assert!(purge([0, 9]).is_err() && purge([1, 10]).is_err() && purge([0, 11]).is_err());
    let status = purge([0, 10]).unwrap();
    assert_eq!(status.bounds.earliest, Offset(10));
    let counts = status.counts;
    assert_eq!((counts.discarded, counts.open_len()), (2, 0), "{counts:?}");
}

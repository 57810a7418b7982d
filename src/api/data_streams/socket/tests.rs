//! Sessions over a pipe, with a paused clock.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::session::{Manners, Session};
use crate::{
    api::data_streams::close::Close,
    config::Config,
    log::Streams,
    model::{
        ids::{Partition, PartitionId},
        record::{HeadersBuilder, Record},
    },
    push::{Asked, Push, Settings},
    runtime::{
        clock::{Clock, Timestamp},
        tasks::Tasks,
    },
    storage::{Append, AppendKind, Commit, Engine, Log as _, StreamConfig, memory::Memory},
};

/// A pong with an empty payload, masked with zeros.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
const PING: u8 = 9;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// The client of a session, and the end of that session.
struct Client {
    pipe: DuplexStream,
    begun: Instant,
    ended: tokio::sync::oneshot::Receiver<Option<Close>>,
    engine: Arc<Memory>,
    _tasks: Tasks,
}

impl Client {
    /// A session of a stream with `records` records of 1 KiB, over a pipe of `pipe_bytes`.
    async fn new(records: usize, pipe_bytes: usize, idle_array: Duration) -> Self {
        Self::with_cursor(records, pipe_bytes, idle_array, None).await
    }

    async fn with_cursor(
        records: usize,
        pipe_bytes: usize,
        idle_array: Duration,
        cursor: Option<&str>,
    ) -> Self {
        let engine = Memory::new();
        let name = Config::default().roles.source;
        let made = engine.create_stream(name, 1, StreamConfig::default());
        let of = PartitionId {
            stream: made.await.unwrap().id,
            partition: Partition(0),
        };
        let record = Record {
            key: "".into(),
            value: format!("\"{}\"", "x".repeat(1024)).into(),
            headers: HeadersBuilder::default().build(),
        };
        let append = Append {
            of,
            records: vec![record; records],
            kind: AppendKind::Accepted,
            refers: Vec::new(),
        };
        let commit = Commit {
            appends: vec![append],
            ..Commit::default()
        };
        if records > 0 {
            engine.commit(commit).await.unwrap();
        }
        let tasks = Tasks::new();
        let streams = Streams::new(engine.clone() as Arc<dyn Engine>);
        let clock = Clock::manual(Timestamp(1));
        let settings = Settings::from(&Config::default());
        let push = Push::open(streams, clock, settings, &tasks).await.unwrap();
        let name = "s1".parse().unwrap();
        let made = push.create(name, br#"{"source":{"trail":"a1"}}"#);
        let name = made.await.unwrap().name.clone();
        let asked = Asked {
            cursor: cursor.map(|cursor| cursor.parse().unwrap()),
            ..Asked::default()
        };
        let subscription = push.subscribe(&name, asked).await.unwrap();
        let (pipe, ours) = tokio::io::duplex(pipe_bytes);
        let manners = Manners {
            one_by_one: false,
            idle_array,
        };
        let (tell, ended) = tokio::sync::oneshot::channel();
        let session = Session::new(ours, Vec::new(), subscription, manners).await;
        let panics = tasks.panics().clone();
        tasks.spawn("session", async move {
            let closed = session.run(&CancellationToken::new(), &panics).await;
            tell.send(closed).unwrap();
        });
        Self {
            pipe,
            begun: Instant::now(),
            ended,
            engine,
            _tasks: tasks,
        }
    }

    /// Opcode and payload of the next message, and its second; `None` at the end.
    async fn next(&mut self) -> Option<(u8, Vec<u8>, u64)> {
        let hours = self.begun.elapsed().as_secs() / 3600;
        assert_eq!(hours, 0, "what was waited for never came");
        let first = self.pipe.read_u8().await.ok()?;
        let len = match self.pipe.read_u8().await.unwrap() {
            126 => u64::from(self.pipe.read_u16().await.unwrap()),
            127 => self.pipe.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        self.pipe.read_exact(&mut payload).await.unwrap();
        Some((first & 15, payload, self.begun.elapsed().as_secs()))
    }

    /// The next message after the first ones.
    async fn later(&mut self) -> Option<(u8, Vec<u8>, u64)> {
        loop {
            let next = self.next().await;
            if next.as_ref().is_none_or(|(_, _, second)| *second > 0) {
                return next;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_for_30_seconds_gets_its_last_position() {
    let mut client = Client::new(400, 1024, Duration::ZERO).await;
    sleep(Duration::from_secs(29)).await;
    assert!(client.ended.try_recv().is_err(), "it has a second left");
    sleep(Duration::from_secs(2)).await;
    // The frame being sent comes first, whole.
    let mut last = None;
    let (code, reason) = loop {
        let (opcode, payload, _) = client.next().await.expect("a close");
        match opcode {
            TEXT => {
                let records: Vec<serde_json::Value> = serde_json::from_slice(&payload).unwrap();
                let pos = records.last().and_then(|record| record["pos"].as_str());
                last = pos.map(str::to_owned).or(last);
            }
            CLOSE => {
                break (
                    u16::from_be_bytes([payload[0], payload[1]]),
                    payload[2..].to_vec(),
                );
            }
            other => assert_eq!(other, PING),
        }
    };
    let reason = String::from_utf8(reason).unwrap();
    let expected = match last {
        Some(pos) => format!("stalled pos={pos}"),
        None => "stalled".to_owned(),
    };
    assert_eq!((code, reason), (4408, expected));
    drop(client.pipe);
    assert_eq!(client.ended.await, Ok(Some(Close::Stalled)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_not_disconnected() {
    let mut client = Client::new(100, 1024, Duration::ZERO).await;
    for _ in 0..100 {
        sleep(Duration::from_secs(20)).await;
        let mut some = [0; 64];
        client.pipe.read_exact(&mut some).await.unwrap();
        client.pipe.write_all(&PONG).await.unwrap();
    }
    assert!(client.ended.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_for_60_seconds_is_dropped_after_two_pings() {
    let mut client = Client::new(0, 64 << 10, Duration::ZERO).await;
    for second in [25, 50] {
        assert_eq!(client.later().await, Some((PING, Vec::new(), second)));
    }
    assert_eq!(client.later().await, None, "and no close is sent");
    assert_eq!(client.begun.elapsed().as_secs(), 60);
    assert_eq!(client.ended.await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays_and_gets_empty_arrays() {
    let mut client = Client::new(0, 64 << 10, Duration::from_secs(30)).await;
    let mut arrays = Vec::new();
    while arrays.len() < 8 {
        let (opcode, payload, second) = client.later().await.expect("it is open");
        match opcode {
            PING => client.pipe.write_all(&PONG).await.unwrap(),
            _ => {
                assert_eq!((opcode, &payload[..]), (TEXT, &b"[]"[..]));
                arrays.push(second);
            }
        }
    }
    assert_eq!(arrays, [30, 60, 90, 120, 150, 180, 210, 240]);
    let nothing = timeout(Duration::from_secs(15), client.next()).await;
    assert!(nothing.is_ok_and(|message| message.is_some_and(|(opcode, _, _)| opcode == PING)));
}

/// Text of one character, masked with zeros.
const WORD: [u8; 7] = [0x81, 0x81, 0, 0, 0, 0, b'x'];
const PINGED: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
const ANSWER: u8 = 10;

impl Client {
    /// Sends a message `times` times, and waits until all were read; returns the code if that closes the connection.
    async fn say(&mut self, what: &[u8], times: usize) -> Option<u16> {
        self.pipe.write_all(&what.repeat(times)).await.unwrap();
        self.pipe.write_all(&PINGED).await.unwrap();
        let mut answers = 1;
        if what == PINGED {
            answers += times;
        }
        while answers > 0 {
            let (opcode, payload, _) = self.next().await.expect("an answer");
            match opcode {
                ANSWER => answers -= 1,
                CLOSE => return Some(u16::from_be_bytes([payload[0], payload[1]])),
                other => assert!(matches!(other, TEXT | PING), "{other}"),
            }
        }
        None
    }
}

#[tokio::test(start_paused = true)]
async fn ten_messages_a_second_are_ignored_and_a_hundred_pings_answered_but_no_more() {
    // The last ping counts too.
    for (what, most) in [(&WORD[..], 10), (&PINGED[..], 99), (&PONG[..], 99)] {
        let mut client = Client::new(3, 64 << 10, Duration::ZERO).await;
        for _ in 0..3 {
            assert_eq!(client.say(what, most).await, None, "{what:?}");
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(client.say(what, most).await, None);
        sleep(Duration::from_millis(999)).await;
        assert_eq!(client.say(what, 1).await, Some(4429), "{what:?}");
    }
}

/// A message of a client, masked with zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![first];
    match u8::try_from(payload.len()).unwrap() {
        len @ 0..126 => message.push(0x80 | len),
        len => message.extend([0x80 | 126, 0, len]),
    }
    message.extend([0; 4]);
    message.extend(payload);
    message
}

#[tokio::test(start_paused = true)]
async fn a_close_is_answered_once_all_that_was_acknowledged_before_it_is_durable() {
    let mut client = Client::with_cursor(1, 64 << 10, Duration::ZERO, Some("c1")).await;
    let pos = loop {
        let (opcode, payload, _) = client.next().await.expect("it is open");
        assert_eq!(opcode, TEXT);
        let records: Vec<serde_json::Value> = serde_json::from_slice(&payload).unwrap();
        let last = records.last().and_then(|record| record["pos"].as_str());
        if let Some(pos) = last {
            break pos.to_owned();
        }
    };
    // The disk is slow from now on.
    client.engine.hold(true);
    let ack = format!(r#"{{"ack":"{pos}"}}"#);
    let said = [masked(0x81, ack.as_bytes()), masked(0x88, b"\x03\xe8")];
    client.pipe.write_all(&said.concat()).await.unwrap();
    let early = timeout(Duration::from_secs(20), client.next()).await;
    assert!(early.is_err(), "{early:?} came too early");
    assert!(client.engine.held_len() > 0);
    client.engine.hold(false);
    let answer = client
        .later()
        .await
        .map(|(opcode, payload, _)| (opcode, payload));
    assert_eq!(answer, Some((CLOSE, b"\x03\xe8".to_vec())));
    let kept = client.engine.state_text();
    assert!(kept.contains(&pos), "{kept}");
}

//! Repeated submissions.

use futures_util::{future::join, poll};

use super::*;
use crate::{
    ingest::{
        idempotency::{BodyDigest, InFlight},
        prepare::AppendPlace,
        reply::KeptReply,
    },
    model::ids::StreamId,
    storage::{Appended, Commit, Dedup, DedupId, conformance::eventually},
};

fn key(text: &str) -> IdempotencyKey<'_> {
    IdempotencyKey::read(text.as_bytes()).unwrap()
}

impl Ingest {
    async fn keyed(&self, name: &str, body: impl Into<Bytes>) -> Result<Accepted, Error> {
        self.keyed_with(name, body, None).await
    }

    async fn keyed_with(
        &self,
        name: &str,
        body: impl Into<Bytes>,
        token: Option<&str>,
    ) -> Result<Accepted, Error> {
        self.submit(Submission {
            source: "default",
            body: body.into(),
            form: Form::Json,
            token,
            traceparent: None,
            key: Some(key(name)),
        })
        .await
    }

    /// Another process with the same log, and its own table of keys in flight.
    fn beside(&self) -> Self {
        Self {
            in_flight: InFlight::default(),
            ..self.clone()
        }
    }
}

/// The answer to the source.
fn told(accepted: &Accepted) -> (bool, Vec<String>) {
    let placed = accepted.placed.iter().map(|placed| {
        let (id, warnings) = (placed.message_id.text(), &placed.warnings);
        format!("{} {} {id} {warnings:?}", placed.partition, placed.offset)
    });
    (accepted.batch, placed.collect())
}

#[track_caller]
fn assert_repeats(again: &Accepted, first: &Accepted) {
    assert_eq!(told(again), told(first));
    assert!(again.repeated && !first.repeated);
}

/// A batch for several partitions, some of it without keys, with an unknown secret in the middle.
fn batch() -> String {
    let plain = with(r#""vaultSecretName":"789","#, "");
    let messages = (0..30).map(|n| match n {
        17 => GOOD.to_owned(),
        n if n % 4 == 0 => plain.replace("key1", ""),
        n => plain.replace("key1", &format!("key{n}")),
    });
    format!("[{}]", messages.collect::<Vec<_>>().join(","))
}

#[tokio::test]
async fn the_same_key_and_body_have_the_same_answer_and_no_second_record() {
    let bench = bench(4, |_| {}).await;
    for (name, body) in [("one", GOOD.to_owned()), ("many", batch())] {
        let first = bench.ingest.keyed(name, body.clone()).await.unwrap();
        let stored = bench.engine.commits_len();
        for _ in 0..3 {
            let again = bench.ingest.keyed(name, body.clone()).await.unwrap();
            assert_repeats(&again, &first);
        }
        assert_eq!(bench.engine.commits_len(), stored);
    }
    let without = bench.json(GOOD).await.unwrap();
    assert!(!without.repeated);
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_after_changes_of_settings_and_streams() {
    let bench = bench(3, |_| {}).await;
    let first = bench.ingest.keyed("k", batch()).await.unwrap();
    let warned = first.placed.iter().position(|p| !p.warnings.is_empty());
    assert_eq!(warned, Some(17));
    // The secret is known by now, the stream has grown, and such messages are no longer taken.
    bench.send(Form::Json, Some("t"), GOOD).await.unwrap();
    let config = StreamConfig::default();
    let grown = bench
        .engine
        .change_stream(bench.stream.id, 9, config, None)
        .await;
    grown.unwrap();
    let mut ingest = bench.ingest.clone();
    let mut limits = Limits::clone(&ingest.limits.get());
    limits.operations.clear();
    limits.batch_len_max = 1;
    ingest.limits = Arc::new(Live::new(limits));
    let commits_len = bench.engine.commits_len();
    let again = ingest.keyed("k", batch()).await.unwrap();
    assert_repeats(&again, &first);
    assert_eq!(bench.engine.commits_len(), commits_len);
    ingest.keyed("other", batch()).await.unwrap_err();
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let bench = bench(1, |_| {}).await;
    bench.ingest.keyed("k", GOOD).await.unwrap();
    let blank = format!("{GOOD} ");
    for other in [&with("key1", "key2"), &blank, "no message"] {
        let refused = bench.ingest.keyed("k", other.to_owned()).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::IdempotencyMismatch), "{refused}");
    }
    assert_eq!(bench.records(0).await.len(), 1);
    bench.ingest.keyed("l", blank).await.unwrap();
}

#[tokio::test]
async fn a_repeated_submission_makes_no_new_version_of_a_secret() {
    let bench = bench(1, |_| {}).await;
    let send = |ingest: Ingest, token| async move {
        ingest.keyed_with("k", GOOD, Some(token)).await.unwrap()
    };
    let first = send(bench.ingest.clone(), "Bearer one").await;
    let state = bench.engine.state_text();
    for token in ["Bearer one", "Bearer two"] {
        assert_repeats(&send(bench.ingest.clone(), token).await, &first);
        // Also in a process in which only the log knows the key.
        let id = key("race").dedup_id("default");
        let name = Name {
            id,
            digest: BodyDigest::of(GOOD.as_bytes()),
            entered: Arc::new(InFlight::default().enter((bench.stream.id, id)).unwrap()),
        };
        let submission = Submission {
            source: "default",
            body: GOOD.into(),
            form: Form::Json,
            token: Some(token),
            traceparent: None,
            key: Some(key("race")),
        };
        let stored = bench.ingest.store(&submission, Some(name)).await.unwrap();
        assert_eq!(stored.repeated, token == "Bearer two");
    }
    assert_eq!(bench.engine.state_text(), state);
    assert_eq!(bench.records(0).await.len(), 2);
}

#[tokio::test]
async fn the_idempotency_key_chooses_the_partition_of_a_record_without_a_key() {
    let bench = bench(5, |_| {}).await;
    let keyless = with("key1", "");
    let mut met = std::collections::HashSet::new();
    for n in 0..40 {
        let name = format!("order-{n}");
        let named = bench.ingest.keyed(&name, GOOD.replace("key1", &name));
        let partition = named.await.unwrap().placed[0].partition;
        let body = format!("[{keyless},{keyless}]");
        let bare = bench.ingest.submit(Submission {
            source: "other",
            body: body.into(),
            form: Form::Json,
            token: None,
            traceparent: None,
            key: Some(key(&name)),
        });
        let bare = bare.await.unwrap();
        assert!(bare.placed.iter().all(|p| p.partition == partition));
        met.insert(partition);
    }
    assert_eq!(met.len(), 5);
    let headers: Vec<_> = bench.records(0).await[0]
        .headers
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let named = |name: &str| headers.iter().find(|(there, _)| there == name);
    assert!(named("idempotency-key").unwrap().1.starts_with("order-"));
    assert_eq!(named("idempotency-digest").unwrap().1.len(), 32);
}

#[tokio::test]
async fn the_keys_of_each_source_are_its_own() {
    let bench = bench(1, |_| {}).await;
    for (source, offset) in [("a", 0), ("b", 1), ("a", 0), ("ak", 2)] {
        let accepted = bench.ingest.submit(Submission {
            source,
            body: GOOD.into(),
            form: Form::Json,
            token: None,
            traceparent: None,
            key: Some(key(if source == "ak" { "1" } else { "k1" })),
        });
        assert_eq!(accepted.await.unwrap().placed[0].offset, Offset(offset));
    }
}

#[tokio::test]
async fn a_key_is_in_flight_until_the_log_has_answered_also_without_its_caller() {
    let bench = bench(1, |_| {}).await;
    bench.engine.hold(true);
    let mut first = Box::pin(bench.ingest.keyed("k", GOOD));
    assert!(poll!(&mut first).is_pending());
    let refused = |body| async { bench.ingest.keyed("k", body).await.unwrap_err() };
    for body in [GOOD.to_owned(), batch()] {
        assert!(matches!(refused(body).await, Error::IdempotencyInFlight));
    }
    drop(first);
    // The task that waits for the answer runs now.
    tokio::task::yield_now().await;
    // Within a time: were the key free, this one would wait for the log too.
    let still = in_time(refused(GOOD.to_owned())).await;
    assert!(matches!(still, Error::IdempotencyInFlight));
    bench.engine.hold(false);
    let is_known = || bench.ingest.in_flight.is_empty();
    eventually("the key is free", is_known).await;
    let again = bench.ingest.keyed("k", GOOD).await.unwrap();
    assert!(again.repeated);
    assert_eq!(bench.records(0).await.len(), 1);
}

#[tokio::test]
async fn a_key_whose_answer_was_late_is_in_flight_until_then() {
    let mut bench = bench(1, |_| {}).await;
    bench.ingest.patience = Duration::ZERO;
    bench.engine.hold(true);
    let error = in_time(bench.ingest.keyed("k", GOOD)).await.unwrap_err();
    assert!(matches!(error, Error::Unanswered), "{error}");
    let error = in_time(bench.ingest.keyed("k", GOOD)).await.unwrap_err();
    assert!(matches!(error, Error::IdempotencyInFlight), "{error}");
    bench.engine.hold(false);
    eventually("the key is free", || bench.ingest.in_flight.is_empty()).await;
    assert!(bench.ingest.keyed("k", GOOD).await.unwrap().repeated);
}

#[tokio::test]
async fn the_log_stores_one_of_two_racing_submissions() {
    let bench = bench(3, |_| {}).await;
    let beside = bench.ingest.beside();
    let race = async |name: &str, one: String, two: String| {
        bench.engine.hold(true);
        let sent = join(bench.ingest.keyed(name, one), beside.keyed(name, two));
        let mut sent = Box::pin(sent);
        assert!(poll!(&mut sent).is_pending());
        bench.engine.hold(false);
        let before = bench.engine.commits_len();
        let sent = sent.await;
        assert_eq!(bench.engine.commits_len(), before + 1);
        sent
    };
    let (one, two) = race("k", batch(), batch()).await;
    let (one, two) = (one.unwrap(), two.unwrap());
    let (first, again) = if one.repeated { (two, one) } else { (one, two) };
    assert_repeats(&again, &first);
    let (one, two) = race("l", batch(), GOOD.into()).await;
    let refused = one.and(two).unwrap_err();
    assert!(matches!(refused, Error::IdempotencyMismatch), "{refused}");
}

#[tokio::test]
async fn a_refused_submission_leaves_its_key_free() {
    let bench = bench(1, |_| {}).await;
    let token = bench.send(Form::Json, Some("t"), GOOD);
    token.await.unwrap();
    let evil = with("127.0.0.1:9", "127.0.0.1:10");
    let refused = bench.ingest.keyed("k", evil).await.unwrap_err();
    assert!(matches!(refused, Error::SecretNotForTarget { .. }));
    let refused = bench.ingest.keyed("k", "{}").await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)));
    for error in [
        CommitError::Busy,
        CommitError::DiskFull,
        CommitError::MaybeStored("".into()),
    ] {
        bench.engine.refuse(error);
        let refused = bench.ingest.keyed("k", GOOD).await.unwrap_err();
        assert!(matches!(refused, Error::Commit(_)));
    }
    // A lost race over a secret is run again, under the same key.
    for _ in 0..3 {
        let key = "k".into();
        bench.engine.refuse(CommitError::StateConflict { key });
    }
    let stored = bench.ingest.keyed("k", GOOD).await.unwrap();
    assert!(!stored.repeated && bench.ingest.in_flight.is_empty());
    assert_eq!(bench.records(0).await.len(), 2);
}

#[tokio::test]
async fn a_malformed_reply_stores_nothing() {
    let bench = bench(1, |_| {}).await;
    let of = bench.stream.partition(Partition(0)).unwrap();
    let commit = Commit {
        appends: vec![crate::storage::conformance::append(
            of,
            vec![crate::storage::conformance::record("x")],
        )],
        dedup: Some(Dedup {
            id: key("k").dedup_id("default"),
            reply: Bytes::from_static(&[9, 0]),
        }),
        ..Commit::default()
    };
    bench.engine.commit(commit).await.unwrap();
    let refused = bench.ingest.keyed("k", GOOD).await.unwrap_err();
    assert!(matches!(refused, Error::ReplyMalformed), "{refused}");
    assert_eq!(bench.records(0).await.len(), 1);
}

#[test]
fn a_key_is_short_visible_ascii() {
    for good in ["a", "\"quoted\"", "!~", &"x".repeat(255)] {
        assert_eq!(key(good).as_str(), good);
    }
    for bad in ["", " ", "a b", "a\t", "ä", "\u{7f}", &"x".repeat(256)] {
        assert_eq!(IdempotencyKey::read(bad.as_bytes()), None, "{bad}");
    }
    assert_eq!(IdempotencyKey::read(b"\xff"), None);
}

#[test]
fn ids_digests_and_replies_keep_their_bytes() {
    let DedupId(id) = key("order-1").dedup_id("default");
    let hex = data_encoding::HEXLOWER.encode(&id);
    assert_eq!(hex, "da98290306d8c985576649fa8a65dcc6");
    assert_eq!(
        BodyDigest::of(b"abc").text(),
        "ba7816bf8f01cfea414140de5dae2223"
    );
    let (_, reply) = reply(&[0, 1, 0, 2, 2, 1, 0, 0, 1], &[0, 8]);
    let hex = data_encoding::HEXLOWER.encode(&reply);
    assert_eq!(
        hex,
        "0107230d8358dc8e8890b4c58deeb62912ee0001000202010000010101"
    );
    let (_, reply) = reply_of(&[0, 0], &further());
    let hex = data_encoding::HEXLOWER.encode(&reply);
    assert_eq!(
        hex,
        "0205230d8358dc8e8890b4c58deeb62912ee02030000000003147461726765745265737441706950\
         61796c6f646101000000100100000013"
    );
}

#[test]
fn keys_in_flight_are_bounded() {
    let all = InFlight::default();
    let id = |n: u32| (StreamId([1; 16]), DedupId(u128::from(n).to_le_bytes()));
    let mut entered: Vec<_> = (0..65_536).map(|n| all.enter(id(n)).unwrap()).collect();
    let refused = all.enter(id(65_536)).unwrap_err();
    assert!(matches!(refused, Error::Commit(CommitError::Busy)));
    entered.pop();
    entered.push(all.enter(id(65_536)).unwrap());
    drop(entered);
    assert!(all.is_empty());
}

fn append(partition: u16, first: u64, len: u64) -> Appended {
    Appended {
        of: PartitionId {
            stream: StreamId([1; 16]),
            partition: Partition(partition),
        },
        first: Offset(first),
        len,
    }
}

/// Warnings of two messages: all kinds there are.
fn further() -> [Vec<Warning>; 2] {
    let slip = Slip::new("targetRestApiPayloda", 3).unwrap();
    [
        vec![Warning::UnknownMember(slip)],
        vec![
            Warning::SecretUnknown,
            Warning::TargetBlocked(Forbidden::Private),
            Warning::TargetBlocked(Forbidden::Own),
        ],
    ]
}

/// Appends, and the reply of a batch over them with these numbers of appends; some of its messages have unknown secrets.
fn reply(order: &[usize], warned: &[usize]) -> (Vec<Appended>, Bytes) {
    let warnings: Vec<_> = (0..order.len())
        .map(|at| match warned.contains(&at) {
            true => vec![Warning::SecretUnknown],
            false => Vec::new(),
        })
        .collect();
    reply_of(order, &warnings)
}

fn reply_of(order: &[usize], warnings: &[Vec<Warning>]) -> (Vec<Appended>, Bytes) {
    let mut appends: Vec<_> = (0..3).map(|n| append(n, 100, 0)).collect();
    let mut places = Vec::new();
    for number in order {
        let index = appends[*number].len;
        places.push(AppendPlace {
            append: *number,
            index,
        });
        appends[*number].len += 1;
    }
    appends.retain(|append| append.len > 0);
    let digest = BodyDigest::of(b"body");
    let bytes = KeptReply::encode(digest, true, &places, warnings);
    let read = KeptReply::decode(&bytes, &appends).unwrap();
    assert_eq!(
        (read.digest, read.batch, read.places, read.warnings),
        (digest, true, places, warnings.to_vec())
    );
    (appends, bytes)
}

#[test]
fn a_reply_reads_back_and_a_changed_one_is_refused_or_says_something_else() {
    let one = reply(&[0; 9], &[]);
    assert_eq!(one.1.len(), 18);
    for (appends, bytes) in [
        one,
        reply(&[0, 1, 0, 2, 2, 1, 0, 0, 1, 0], &[]),
        reply(&[0, 1, 0, 2, 2, 1, 0, 0, 1, 0], &[0, 7, 8]),
        reply(&[0], &[0]),
        reply_of(&[0, 1], &further()),
    ] {
        for cut in 0..bytes.len() {
            assert!(
                KeptReply::decode(&bytes[..cut], &appends).is_none(),
                "{cut}"
            );
        }
        let more = [&bytes[..], &[0]].concat();
        assert!(KeptReply::decode(&more, &appends).is_none());
        assert!(KeptReply::decode(&bytes, &[append(0, 0, 77), append(1, 0, 1)]).is_none());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            // A reply has no checksum, because the journal has one.
            drop(KeptReply::decode(&changed, &appends));
        }
    }
}

#[test]
fn the_largest_batch_that_can_be_configured_has_a_reply_that_fits() {
    let order: Vec<usize> = (0..100_000).map(|n| n % 3).collect();
    let slip = Slip::new(&"-".repeat(Slip::GIVEN_BYTES_MAX), 3).unwrap();
    let mut warnings = vec![vec![Warning::SecretUnknown]; order.len()];
    for warnings in warnings.iter_mut().take(READ_WARNINGS_LEN_MAX) {
        warnings.push(Warning::UnknownMember(slip.clone()));
    }
    let (_, bytes) = reply_of(&order, &warnings);
    assert!(bytes.len() <= crate::storage::REPLY_BYTES_MAX);
}

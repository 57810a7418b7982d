use std::{io::Write, sync::atomic::Ordering};

use flate2::{Compression, write::GzEncoder};
use futures_util::StreamExt;
use http::HeaderValue;
use http_body_util::Full;
use hyper::body::Frame;
use tokio::time::Instant;

use super::{
    arrive::RATE_WINDOW,
    share::{ALL_BYTES_MAX, SMALL_BYTES_MAX, Share},
    *,
};
use crate::config::Config;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn bodies() -> Bodies {
    let settings = Settings::new(&Config::default()).unwrap();
    Bodies::new(Arc::new(Live::new(settings)))
}

async fn read(encoding: Option<&'static str>, body: Vec<u8>) -> Result<Held, Code> {
    let mut headers = HeaderMap::new();
    if let Some(encoding) = encoding {
        let encoding = HeaderValue::from_static(encoding);
        headers.insert(header::CONTENT_ENCODING, encoding);
    }
    let bodies = bodies();
    let read = bodies
        .read(&headers, Full::new(Bytes::from(body)), 1000)
        .await;
    read.map_err(|problem| problem.code())
}

#[tokio::test]
async fn the_bound_counts_after_unpacking() {
    let is_at = |len: usize| vec![b'x'; len];
    assert_eq!(read(None, is_at(1000)).await.unwrap().bytes.len(), 1000);
    assert_eq!(
        read(None, is_at(1001)).await.unwrap_err(),
        Code::BodyTooLarge
    );
    let packed = |len| gzip(&is_at(len));
    let read_packed = |len| read(Some("gzip"), packed(len));
    assert_eq!(read_packed(1000).await.unwrap().bytes.len(), 1000);
    assert_eq!(read_packed(1001).await.unwrap_err(), Code::BodyTooLarge);
    assert_eq!(
        read_packed(20_000_000).await.unwrap_err(),
        Code::BodyTooLarge
    );
}

#[tokio::test]
async fn a_byte_order_mark_is_removed() {
    for (sent, taken) in [
        ("\u{feff}{}", "{}"),
        ("\u{feff}", ""),
        ("\u{feff}\u{feff}{}", "\u{feff}{}"),
        (" \u{feff}{}", " \u{feff}{}"),
    ] {
        let plain = read(None, sent.into()).await.unwrap();
        let packed = read(Some("gzip"), gzip(sent.as_bytes())).await.unwrap();
        assert_eq!(
            (&*plain.bytes, &*packed.bytes),
            (taken.as_bytes(), taken.as_bytes())
        );
    }
}

#[tokio::test]
async fn unknown_or_broken_packing_is_refused() {
    let unknown = Code::UnsupportedMediaType;
    assert_eq!(read(Some("br"), vec![]).await.unwrap_err(), unknown);
    assert_eq!(read(Some("gzip, gzip"), vec![]).await.unwrap_err(), unknown);
    let broken = Code::InvalidRequest;
    assert_eq!(
        read(Some("gzip"), b"{}".to_vec()).await.unwrap_err(),
        broken
    );
    let mut cut = gzip(b"{}");
    cut.truncate(12);
    assert_eq!(read(Some("gzip"), cut).await.unwrap_err(), broken);
    assert!(read(Some("IDENTITY"), b"{}".to_vec()).await.is_ok());
}

/// Reads a body that comes in parts, each after a number of seconds.
async fn drip(sender: Sender, parts: Vec<(u64, usize)>) -> Result<usize, Code> {
    let frames = futures_util::stream::iter(parts).then(|(secs, len)| async move {
        tokio::time::sleep(Duration::from_secs(secs)).await;
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b' '; len])))
    });
    let body = http_body_util::StreamBody::new(Box::pin(frames));
    let (bodies, headers) = (bodies(), HeaderMap::new());
    let read = bodies.read_from(sender, &headers, body, 1 << 20).await;
    let read = read.map_err(|problem| problem.code());
    read.map(|held| held.bytes.len())
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_slower_than_a_kibibyte_a_second_is_given_up() {
    let slow = Err(Code::TooSlow);
    let begun = Instant::now();
    assert_eq!(drip(Sender::Source, vec![(0, 1), (60, 1)]).await, slow);
    assert_eq!(begun.elapsed(), RATE_WINDOW);
    // Fast at first, then no byte.
    let stops = vec![(0, 500_000), (12, 1)];
    assert_eq!(drip(Sender::User, stops).await, slow);
    // Pauses are accepted while enough bytes come in each window.
    let steady = vec![(1, 3 << 10); 20];
    assert_eq!(drip(Sender::Source, steady).await, Ok(60 << 10));
    assert_eq!(drip(Sender::Source, vec![(4, 2)]).await, Ok(2));
}

#[tokio::test]
async fn large_bodies_leave_space_for_small_ones_and_all_leave_some_for_users() {
    let bodies = bodies();
    let read = |sender, len: usize| {
        let body = Full::new(Bytes::from(vec![0; len]));
        let bodies = bodies.clone();
        async move {
            let headers = HeaderMap::new();
            let read = bodies.read_from(sender, &headers, body, ALL_BYTES_MAX);
            read.await.map_err(|problem| problem.code())
        }
    };
    let refused = |read: Result<Held, Code>| assert_eq!(read.unwrap_err(), Code::QueueFull);
    let (source, user) = (Sender::Source, Sender::User);
    let large = read(source, 96 << 20).await.unwrap();
    refused(read(source, SMALL_BYTES_MAX + 1).await);
    let small: Vec<Held> = futures_util::stream::iter(0..256)
        .then(|_| read(source, SMALL_BYTES_MAX))
        .map(Result::unwrap)
        .collect()
        .await;
    refused(read(source, 1).await);
    let rest = read(user, 16 << 20).await.unwrap();
    refused(read(user, 1).await);
    drop(large);
    read(source, SMALL_BYTES_MAX + 1).await.unwrap();
    drop((small, rest));
    assert_eq!(bodies.held.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn bytes_of_all_bodies_are_counted_and_given_back() {
    let bodies = bodies();
    let read = |len: usize| {
        let body = Full::new(Bytes::from(vec![0; len]));
        let bodies = bodies.clone();
        async move { bodies.read(&HeaderMap::new(), body, ALL_BYTES_MAX).await }
    };
    let first = read(ALL_BYTES_MAX - 10).await.unwrap();
    assert_eq!(read(11).await.unwrap_err().code(), Code::QueueFull);
    let second = read(10).await.unwrap();
    drop((first, second));
    assert_eq!(bodies.held.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn unpacked_bytes_count() {
    let bodies = bodies();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let packed = gzip(&vec![b'x'; 1 << 20]);
    assert!(packed.len() < 2048);
    let read = || bodies.read(&headers, Full::new(packed.clone().into()), 1 << 20);
    let one = read().await.unwrap();
    assert!(bodies.held.load(Ordering::Relaxed) >= 1 << 20);
    // Leave enough room for the packed bytes, and too little for the unpacked ones.
    let mut others = Share {
        held: bodies.held.clone(),
        len: 0,
        sender: Sender::User,
        is_large: true,
    };
    let left = ALL_BYTES_MAX - bodies.held.load(Ordering::Relaxed);
    others.grow(left - (512 << 10)).unwrap();
    assert_eq!(read().await.unwrap_err().code(), Code::QueueFull);
    drop(one);
    let one = read().await.unwrap();
    drop((one, others));
    assert_eq!(bodies.held.load(Ordering::Relaxed), 0);
}

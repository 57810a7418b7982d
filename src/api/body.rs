//! Reading request bodies: one bound for each, one for all together, and gzip undone under the same bounds.
//!
//! Senders that are slow on purpose must not shut out the others. So a body has a least rate, large bodies of sources
//! leave a quarter of the space to small ones and to users, and all sources leave half of that to users.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::{sync::Semaphore, time::Instant};

use crate::runtime::live::Live;

use super::{
    Settings,
    access::guard::one,
    problem::{Code, Problem},
};

/// Bytes of all bodies that are being read or worked on. Many slow senders cannot fill the memory.
const ALL_BYTES_MAX: usize = 128 << 20;

/// What large bodies of sources leave to others, and what small ones leave to users.
const KEPT_FROM_LARGE_BYTES: usize = ALL_BYTES_MAX / 4;
const KEPT_FROM_SMALL_BYTES: usize = ALL_BYTES_MAX / 8;
/// A body of more bytes is a large one.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// The least that comes of a body in each window of this length: 1 KiB a second.
const RATE_WINDOW: Duration = Duration::from_secs(5);
const RATE_WINDOW_BYTES_MIN: usize = 5 << 10;

/// What is read of a body that is refused and thrown away. A connection that is closed with unread bytes is reset, and
/// a client that is still sending then never sees the answer; one that sends more than this may not.
const DISCARDED_BYTES_MAX: usize = 16 << 20;

/// Bodies that are unpacked at the same time: each takes a thread, and while its buffer grows up to three times its bytes.
const UNPACKING_MAX: usize = 4;

const CUT_SHORT: &str = "the body ended too early, or its chunks are not well-formed";

/// A sender of such a body that pauses for so long waits for the answer.
const DISCARD_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Reads bodies. Clones share the bound for all.
#[derive(Clone, Debug)]
pub(super) struct Bodies {
    held: Arc<AtomicUsize>,
    unpacking: Arc<Semaphore>,
    settings: Arc<Live<Settings>>,
}

/// A body, unpacked and without a byte order mark; while it lives its bytes count.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _share: Share,
}

impl Bodies {
    pub(super) fn new(settings: Arc<Live<Settings>>) -> Self {
        Self {
            held: Arc::default(),
            unpacking: Arc::new(Semaphore::new(UNPACKING_MAX)),
            settings,
        }
    }

    /// Returns the whole body of a user's request, at most `bytes_max` after unpacking.
    pub(super) async fn read<B>(
        &self,
        headers: &HeaderMap,
        body: B,
        bytes_max: usize,
    ) -> Result<Held, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        self.read_from(Sender::User, headers, body, bytes_max).await
    }

    /// As [`Self::read`], for a sender of either kind.
    pub(super) async fn read_from<B>(
        &self,
        sender: Sender,
        headers: &HeaderMap,
        body: B,
        bytes_max: usize,
    ) -> Result<Held, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        check_type(headers)?;
        let gzip = is_gzip(headers)?;
        let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut share = Share {
            held: self.held.clone(),
            len: 0,
            sender,
            is_large: declared > SMALL_BYTES_MAX,
        };
        let mut body = body;
        let timeout = self.settings.get().request_timeout;
        let read = collect(&mut body, bytes_max, &mut share);
        let bytes = match tokio::time::timeout(timeout, read).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(problem)) => {
                let is_refused = matches!(problem.code(), Code::BodyTooLarge | Code::QueueFull);
                // Who asks first sends nothing behind a refusal.
                if is_refused && !headers.contains_key(header::EXPECT) {
                    drop(share);
                    // A sender that is slow all along gets the same answer.
                    drop(tokio::time::timeout(timeout, discard(&mut body)).await);
                }
                return Err(problem);
            }
            Err(_elapsed) => {
                let secs = timeout.as_secs_f32();
                let what = format!("the body did not arrive within {secs} s");
                return Err(Problem::new(Code::TooSlow, what));
            }
        };
        if !gzip {
            return Ok(Held {
                bytes: without_mark(bytes),
                _share: share,
            });
        }
        let turn = self.unpacking.clone().acquire_owned();
        let turn = match tokio::time::timeout(timeout, turn).await {
            Ok(turn) => turn.map_err(Problem::internal)?,
            Err(_elapsed) => return Err(too_many()),
        };
        // Unpacking 8 MiB takes tens of milliseconds, in which this thread would serve nobody.
        let unpacked = tokio::task::spawn_blocking(move || {
            let bytes = unpack(&bytes, bytes_max, &mut share)?;
            drop(turn);
            Ok(Held {
                bytes: without_mark(bytes),
                _share: share,
            })
        });
        unpacked.await.map_err(Problem::internal)?
    }
}

async fn collect<B>(body: &mut B, bytes_max: usize, share: &mut Share) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > bytes_max {
        return Err(too_large(bytes_max));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut rate = Rate::new();
    while let Some(frame) = rate.next(body).await? {
        let cut = |_error| Problem::new(Code::InvalidRequest, CUT_SHORT);
        let Ok(data) = frame.map_err(cut)?.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        // Most bodies are one frame, which is then passed on without a copy.
        if first.is_empty() && all.is_empty() {
            share.cover(data.len())?;
            first = data;
            continue;
        }
        if all.is_empty() {
            // What is declared may never come, so it is not given all its memory at once.
            all.reserve(declared.min(256 << 10).max(first.len() + data.len()));
            all.extend_from_slice(&first);
            first = Bytes::new();
        }
        all.extend_from_slice(&data);
        share.cover(all.capacity())?;
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// How fast a body comes.
struct Rate {
    window_ends: Instant,
    /// In this window.
    bytes: usize,
}

impl Rate {
    fn new() -> Self {
        Self {
            window_ends: Instant::now() + RATE_WINDOW,
            bytes: 0,
        }
    }

    /// Returns the next frame, or nothing behind the last one.
    async fn next<B>(
        &mut self,
        body: &mut B,
    ) -> Result<Option<Result<Frame<Bytes>, B::Error>>, Problem>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            let frame = tokio::time::timeout_at(self.window_ends, body.frame()).await;
            let Ok(frame) = frame else {
                if self.bytes < RATE_WINDOW_BYTES_MIN {
                    let what = "less than 1 KiB a second arrived of the body";
                    return Err(Problem::new(Code::TooSlow, what));
                }
                *self = Self::new();
                continue;
            };
            if let Some(Ok(frame)) = &frame {
                self.bytes += frame.data_ref().map_or(0, Bytes::len);
            }
            return Ok(frame);
        }
    }
}

async fn discard<B>(body: &mut B)
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut left = DISCARDED_BYTES_MAX;
    // More than that is not read to its end anyhow.
    if usize::try_from(body.size_hint().lower()).is_ok_and(|declared| declared > left) {
        return;
    }
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(DISCARD_PAUSE_MAX, body.frame()).await {
        let len = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(len) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn unpack(packed: &[u8], bytes_max: usize, share: &mut Share) -> Result<Bytes, Problem> {
    const STEP: usize = 64 << 10;
    let mut decoder = MultiGzDecoder::new(packed);
    let mut all = Vec::new();
    loop {
        let at = all.len();
        all.resize(at + STEP, 0);
        let broken = |_error| Problem::new(Code::InvalidRequest, "the body is not gzip");
        let len = decoder.read(&mut all[at..]).map_err(broken)?;
        all.truncate(at + len);
        if len == 0 {
            // What the buffer has beyond is not counted.
            all.shrink_to_fit();
            return Ok(all.into());
        }
        if all.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        share.grow(len)?;
    }
}

/// Takes off the UTF-8 byte order mark that editors on Windows write before a text. JSON has no such thing (RFC 8259 §8.1),
/// but its readers may ignore it.
fn without_mark(bytes: Bytes) -> Bytes {
    match bytes.starts_with("\u{feff}".as_bytes()) {
        true => bytes.slice("\u{feff}".len()..),
        false => bytes,
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let what = format!("the body has more than {bytes_max} bytes");
    Problem::new(Code::BodyTooLarge, what)
}

fn too_many() -> Problem {
    let what = "too many bodies are being read; send it again";
    Problem::new(Code::QueueFull, what).retry_after(1)
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let multipart = media_type(headers).is_some_and(|kind| {
        kind.get(..10)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
    });
    if multipart {
        let what = "a multipart body is not read; send JSON";
        return Err(Problem::new(Code::UnsupportedMediaType, what));
    }
    Ok(())
}

/// Returns the declared media type without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<&str> {
    let declared = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(declared.split(';').next().unwrap_or_default().trim())
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let unknown = || {
        let what = "a body may be packed by gzip, and by that alone";
        Problem::new(Code::UnsupportedMediaType, what)
    };
    let Some(encoding) = one(headers, &header::CONTENT_ENCODING).map_err(|()| unknown())? else {
        return Ok(false);
    };
    match encoding.to_str().unwrap_or_default().trim() {
        gzip if ["gzip", "x-gzip"]
            .iter()
            .any(|x| gzip.eq_ignore_ascii_case(x)) =>
        {
            Ok(true)
        }
        plain if plain.eq_ignore_ascii_case("identity") => Ok(false),
        _ => Err(unknown()),
    }
}

/// Kinds of senders of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// An application that sends messages, known or not.
    Source,
    /// Somebody who may use the route, which nobody else can.
    User,
}

/// What one body takes of the bound for all.
#[derive(Debug)]
struct Share {
    held: Arc<AtomicUsize>,
    len: usize,
    sender: Sender,
    /// It was announced as one.
    is_large: bool,
}

impl Share {
    /// Takes as much as is missing to `len`.
    fn cover(&mut self, len: usize) -> Result<(), Problem> {
        self.grow(len.saturating_sub(self.len))
    }

    fn grow(&mut self, len: usize) -> Result<(), Problem> {
        let held = self.held.fetch_add(len, Ordering::Relaxed);
        self.len += len;
        if held + len > self.bytes_max() {
            return Err(too_many());
        }
        Ok(())
    }

    /// Returns what all bodies may take for this one to be among them.
    fn bytes_max(&self) -> usize {
        match self.sender {
            Sender::User => ALL_BYTES_MAX,
            Sender::Source if self.is_large || self.len > SMALL_BYTES_MAX => {
                ALL_BYTES_MAX - KEPT_FROM_LARGE_BYTES
            }
            Sender::Source => ALL_BYTES_MAX - KEPT_FROM_SMALL_BYTES,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use futures_util::StreamExt;
    use http::HeaderValue;
    use http_body_util::Full;

    use super::*;
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
    async fn a_byte_order_mark_is_no_part_of_a_body() {
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

    /// Reads a body that comes in parts, each after that time.
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
        // Fast at first, and then still.
        let stops = vec![(0, 500_000), (12, 1)];
        assert_eq!(drip(Sender::User, stops).await, slow);
        // Seconds without anything are fine, as long as enough comes in each window.
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
    async fn what_all_bodies_hold_is_counted_and_given_back() {
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
    async fn what_is_unpacked_counts_among_what_all_bodies_hold() {
        let bodies = bodies();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let packed = gzip(&vec![b'x'; 1 << 20]);
        assert!(packed.len() < 2048);
        let read = || bodies.read(&headers, Full::new(packed.clone().into()), 1 << 20);
        let one = read().await.unwrap();
        assert!(bodies.held.load(Ordering::Relaxed) >= 1 << 20);
        // As much is left as the packed bytes take, and not the unpacked ones.
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
}

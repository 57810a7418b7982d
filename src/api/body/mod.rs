//! Reads request bodies: a bound for each, a bound for all together, and a least rate.
//!
//! `arrive.rs` receives the bytes, `packing.rs` unpacks gzip, `share.rs` counts the bytes of all bodies.

mod arrive;
mod packing;
mod share;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header};
use hyper::body::Body;
use tokio::{sync::Semaphore, time::timeout};

use crate::runtime::live::Live;

pub(super) use share::Sender;

use self::{
    arrive::{collect, discard},
    packing::{is_gzip, unpack},
    share::{SMALL_BYTES_MAX, Share},
};
use super::{
    Settings,
    problem::{Code, Problem},
};

/// Bodies that are unpacked at the same time. Each takes a thread, and up to three times its bytes while its buffer grows.
const UNPACKING_MAX: usize = 4;

/// Reads bodies. Clones share the bound for all.
#[derive(Clone, Debug)]
pub(super) struct Bodies {
    held: Arc<AtomicUsize>,
    unpacking: Arc<Semaphore>,
    settings: Arc<Live<Settings>>,
}

/// An unpacked body without byte order mark. Its bytes count until it is dropped.
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

    /// As [`Self::read`], for a user or a source.
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
        let patience = self.settings.get().request_timeout;
        let bytes = receive(headers, body, bytes_max, &mut share, patience).await?;
        match gzip {
            false => Ok(Held::new(bytes, share)),
            true => self.unpack(bytes, bytes_max, share, patience).await,
        }
    }

    /// Unpacks a body on a thread of its own, because 8 MiB take tens of milliseconds.
    async fn unpack(
        &self,
        packed: Bytes,
        bytes_max: usize,
        mut share: Share,
        patience: Duration,
    ) -> Result<Held, Problem> {
        let turn = self.unpacking.clone().acquire_owned();
        let turn = match timeout(patience, turn).await {
            Ok(turn) => turn.map_err(Problem::internal)?,
            Err(_elapsed) => return Err(too_many()),
        };
        let unpacked = tokio::task::spawn_blocking(move || {
            let bytes = unpack(&packed, bytes_max, &mut share)?;
            drop(turn);
            Ok(Held::new(bytes, share))
        });
        unpacked.await.map_err(Problem::internal)?
    }
}

impl Held {
    fn new(bytes: Bytes, share: Share) -> Self {
        Self {
            bytes: without_mark(bytes),
            _share: share,
        }
    }
}

async fn receive<B>(
    headers: &HeaderMap,
    mut body: B,
    bytes_max: usize,
    share: &mut Share,
    patience: Duration,
) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    match timeout(patience, collect(&mut body, bytes_max, share)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(problem)) => {
            let is_refused = matches!(problem.code(), Code::BodyTooLarge | Code::QueueFull);
            // A client that sends `Expect` sends no body after a refusal.
            if is_refused && !headers.contains_key(header::EXPECT) {
                share.release();
                // A sender that stays slow gets the same answer in the end.
                drop(timeout(patience, discard(&mut body)).await);
            }
            Err(problem)
        }
        Err(_elapsed) => {
            let secs = patience.as_secs_f32();
            let what = format!("the body did not arrive within {secs} s");
            Err(Problem::new(Code::TooSlow, what))
        }
    }
}

/// Removes the UTF-8 byte order mark that some editors write. JSON has none, but readers may ignore it (RFC 8259 §8.1).
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

//! Notices that a client hangs up.

use std::{
    io,
    os::fd::AsFd,
    task::{Context, Poll},
};

use futures_util::FutureExt;
use tokio::{io::Interest, net::TcpStream};

/// Notices that a client hangs up.
///
/// It is a second descriptor of the socket, with a readiness of its own. The readiness of the socket is of no use: it stays
/// "readable" while a byte is unread, so the end after that byte wakes no task. To clear it would hide the byte from the
/// reader.
#[derive(Debug)]
pub(super) struct Watch(TcpStream);

impl Watch {
    pub(super) fn of(io: &TcpStream) -> io::Result<Self> {
        let same = io.as_fd().try_clone_to_owned()?;
        Ok(Self(TcpStream::from_std(same.into())?))
    }

    /// Returns whether the client has closed its sending half or the connection; if not, that will wake the task.
    pub(super) fn has_ended(&self, cx: &mut Context<'_>) -> bool {
        loop {
            match self.0.poll_read_ready(cx) {
                Poll::Pending => return false,
                // The runtime stops.
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) => {}
            }
            let seen = self.0.ready(Interest::READABLE).now_or_never();
            if seen.is_some_and(|seen| seen.is_ok_and(|seen| seen.is_read_closed())) {
                return true;
            }
            // Only bytes have come. This does not clear an end that comes meanwhile.
            let cleared = self.0.try_io(Interest::READABLE, || {
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
            drop(cleared);
        }
    }
}

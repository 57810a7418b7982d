use futures_util::poll;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    time::advance,
};

use super::*;
use crate::dispatch::tests::stub::{stand_still, while_seconds_pass, within};

const PATIENCE: Duration = Duration::from_secs(10);

/// The server's end with this patience, and the client's end with a small buffer.
async fn pair(patience: Duration) -> (ClientIo, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let client = socket.connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let (server, _) = accepted.unwrap();
    SockRef::from(&server).set_send_buffer_size(4096).unwrap();
    let manners = Arc::new(Manners::default());
    manners.answers(Some(Patience(patience)), false);
    (ClientIo::new(server, manners), client.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_reset_after_the_patience_of_its_answer() {
    for patience in [PATIENCE, 3 * PATIENCE] {
        let (mut server, mut client) = pair(patience).await;
        let body = vec![0; 8 << 20];
        let (written, took) = while_seconds_pass(server.write_all(&body)).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // The kernel may buffer more later, which restarts the clock.
        assert!((patience..3 * patience).contains(&took), "{took:?}");
        drop(server);
        let mut all = Vec::new();
        let read = within("an end", client.read_to_end(&mut all)).await;
        assert!(read.is_err(), "{} bytes", all.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_above_the_least_rate_gets_the_whole_answer() {
    let _still = stand_still();
    let (mut server, mut client) = pair(PATIENCE).await;
    let body = vec![7; 256 << 10];
    let begun = Instant::now();
    let reads = async {
        let mut some = [0; 8 << 10];
        for _ in 0..body.len() / some.len() {
            advance(PATIENCE * 3 / 10).await;
            client.read_exact(&mut some).await.unwrap();
        }
    };
    let writes = async {
        server.write_all(&body).await.unwrap();
        server.flush().await.unwrap();
    };
    tokio::join!(reads, writes);
    assert!(begun.elapsed() > 5 * PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_below_the_least_rate_is_reset() {
    let _still = stand_still();
    let (mut server, mut client) = pair(PATIENCE).await;
    let begun = Instant::now();
    let drips = async {
        loop {
            client.read_exact(&mut [0; 1 << 10]).await.unwrap();
            advance(Duration::from_secs(2)).await;
            // The kernel may buffer more later, which restarts the clock.
            assert!(begun.elapsed() < 6 * PATIENCE, "no end");
        }
    };
    let body = vec![7; 8 << 20];
    let written = tokio::select! {
        written = server.write_all(&body) => written,
        () = drips => unreachable!("it never ends"),
    };
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
}

/// The kernel takes bytes in steps of its own, so this test calls `progressed` itself.
#[tokio::test(start_paused = true)]
async fn only_the_least_rate_restarts_the_clock() {
    let rate = usize::try_from(TAKEN_PER_SECOND_MIN).unwrap();
    for (taken_per_second, is_dropped) in [(rate - 1, true), (rate, false)] {
        let (mut server, _client) = pair(PATIENCE).await;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let seconds = PATIENCE.as_secs();
        for second in 1..=seconds {
            let blocked = server.poll_blocked(&mut cx);
            assert!(blocked.is_pending(), "{taken_per_second} at {second}");
            advance(Duration::from_secs(1)).await;
            server.progressed(taken_per_second, &mut cx);
        }
        let blocked = server.poll_blocked(&mut cx);
        assert_eq!(blocked.is_ready(), is_dropped, "{taken_per_second}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_from_a_client_that_takes_nothing() {
    let _still = stand_still();
    let (mut server, mut client) = pair(PATIENCE).await;
    let body = vec![7; 1 << 20];
    let mut writes = Box::pin(server.write_all(&body));
    assert!(poll!(&mut writes).is_pending());
    drop(writes);
    client.write_all(b"next").await.unwrap();
    server.io.readable().await.unwrap();
    assert!(poll!(Box::pin(server.read(&mut [0]))).is_pending());
    // A waiting read is woken when the client takes bytes again.
    let (mut read, mut write) = tokio::io::split(server);
    let reads = async {
        let mut said = [0; 4];
        read.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"next");
    };
    let takes = async {
        let mut some = vec![0; 64 << 10];
        while client.read(&mut some).await.unwrap() > 0 {}
    };
    let writes = async {
        write.write_all(&body).await.unwrap();
        write.shutdown().await.unwrap();
    };
    within("all of it", async { tokio::join!(reads, takes, writes) }).await;
}

#[tokio::test]
async fn a_hang_up_is_seen_behind_bytes_sent_ahead() {
    for (ahead, closes_half) in [
        ("", true),
        ("\r\n", true),
        ("GET /", true),
        ("", false),
        ("\r\n", false),
    ] {
        let (mut server, mut client) = pair(PATIENCE).await;
        server.manners.watch(true);
        client.write_all(ahead.as_bytes()).await.unwrap();
        if !ahead.is_empty() {
            server.io.readable().await.unwrap();
        }
        // Bytes sent meanwhile wake the task, and are no hang-up.
        assert!(server.flush().await.is_ok(), "{ahead:?}");
        client.write_all(b"more").await.unwrap();
        let mut seen = Box::pin(std::future::poll_fn(|cx| match server.has_hung_up(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }));
        assert!(poll!(&mut seen).is_pending(), "{ahead:?}");
        match closes_half {
            true => client.shutdown().await.unwrap(),
            false => drop(client),
        }
        within("the end", seen).await;
    }
}

#[tokio::test]
async fn bytes_sent_ahead_of_a_watched_request_are_read_afterwards() {
    let (mut server, mut client) = pair(PATIENCE).await;
    server.manners.watch(true);
    client.write_all(b"next").await.unwrap();
    server.io.readable().await.unwrap();
    server.flush().await.unwrap();
    server.manners.watch(false);
    server.flush().await.unwrap();
    assert!(server.watch.is_none());
    let mut said = [0; 4];
    within("the bytes", server.read_exact(&mut said))
        .await
        .unwrap();
    assert_eq!(&said, b"next");
}

//! Passes over records whose host cannot be looked up for now.

use std::{
    net::IpAddr,
    sync::{Mutex, mpsc},
};

use super::*;
use crate::dispatch::tests::stub::DEADLINE;

/// More than the look-ups that one source may have at the same time.
const HANGING_LEN: usize = 24;

#[tokio::test]
async fn a_record_whose_look_up_could_not_begin_is_called_once_it_can() {
    let mut target = StubTarget::start().await;
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    // Hangs until the sender is dropped, and then knows every name.
    let find = move |_host: &str| {
        let _ended = released.lock().unwrap().recv_timeout(DEADLINE);
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    };
    let gateway = Harness::start_finding(find, |config| {
        config.dispatch.in_flight_max = 1;
        config.dispatch.connect_timeout_ms = 200;
    })
    .await;
    let named = |host: &str, key: &str| {
        let mut named = message(target.address, "/x");
        named["targetRestApi"] = json!(format!("http://{host}:{}/x", target.address.port()));
        record(key, &named, &[("source", "shop")])
    };
    let hanging = |at| named(&format!("t{at}.silent.example"), "");
    let hanging = (0..HANGING_LEN).map(hanging).collect();
    gateway.append(SOURCE, 0, hanging).await;
    until("the look-ups to be used up", || {
        gateway.counts(SOURCE).routed >= 16
    })
    .await;
    let retried = vec![named("r.silent.example", "k")];
    gateway.append(INTERNAL, 0, retried).await;
    let retrier = gateway.retrier();
    let (report, ()) = tokio::join!(retry(&retrier, gateway.request(INTERNAL)), async {
        let retried = || {
            let all = gateway.dispatcher.targets();
            let mut all = all.into_iter();
            let one = all.find(|one| one.target.contains("r.silent.example"));
            one.map(|one| (one.in_flight, one.queued_len))
        };
        for state in [(1, 0), (0, 1)] {
            let put_off = "the retried record to be put off";
            until(put_off, || retried() == Some(state)).await;
        }
        drop(release);
        // Those that waited with it are called too.
        for _ in 0..=HANGING_LEN - 16 {
            target.next_call().await.answer(200);
        }
    });
    assert_eq!((report.attempted, counts(&report)), (1, (1, 0, 0)));
    assert!(report.end_of_stream, "{report:?}");
}

//! Names that a DNS server does not answer, beside names that it does.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, mpsc},
};

use serde_json::{Value, json};

use super::{
    harness::{Harness, SOURCE, message, record},
    stub::{DEADLINE, StubTarget, until, within},
};
use crate::config::Config;

const SILENT_LEN: usize = 400;

/// Names that were asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// A resolver that knows every name but those of a silent server: these hang until the sender is dropped.
fn resolver() -> (
    impl Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    Asked,
    mpsc::Sender<()>,
) {
    let (release, released) = mpsc::channel();
    let (asked, released) = (Asked::default(), Mutex::new(released));
    let list = asked.clone();
    let find = move |host: &str| {
        list.lock().unwrap().push(host.to_owned());
        if host.contains(".silent") {
            // One thread waits in the channel and the others for the lock.
            let _ended = released.lock().unwrap().recv_timeout(DEADLINE);
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    };
    (find, asked, release)
}

fn named(host: &str, target: SocketAddr) -> Value {
    let mut named = message(target, "/x");
    named["targetRestApi"] = json!(format!("http://{host}:{}/x", target.port()));
    named
}

/// One slot for each target, so that each connects as often as it is called after the connection was dropped.
fn set(config: &mut Config) {
    config.dispatch.in_flight_max = 1;
    config.dispatch.idle_connections_max = 0;
    config.dispatch.connect_timeout_ms = 200;
    config.dispatch.response_timeout_ms = 20_000;
}

#[tokio::test]
async fn names_that_no_server_answers_fail_no_healthy_target() {
    let target = StubTarget::always(200).await;
    let (find, asked, release) = resolver();
    let gateway = Harness::start_finding(find, set).await;
    let source = [("source", "shop")];
    let silent = |at| {
        record(
            "",
            &named(&format!("t{at}.silent.example"), target),
            &source,
        )
    };
    gateway
        .append(SOURCE, 0, (0..SILENT_LEN).map(silent).collect())
        .await;
    within("look-ups that hang", async {
        while asked.lock().unwrap().len() < 16 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let healthy = |at| {
        record(
            "",
            &named(&format!("api{at}.good.example"), target),
            &source,
        )
    };
    gateway
        .append(SOURCE, 0, (0..40).map(healthy).collect())
        .await;
    within("the healthy targets", async {
        while gateway.counts(SOURCE).delivered < 40 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let routed = async |len: u64| {
        within("records that their look-ups fail", async {
            while gateway.counts(SOURCE).routed < len {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(gateway.counts(SOURCE).routed, len);
    };
    // The silent names hold their share, and later ones wait. Waiting is no failure: another record, whose name is
    // looked up, fails later than they would have.
    routed(16).await;
    let hanging = asked.lock().unwrap()[0].clone();
    gateway.sync("k", &named(&hanging, target)).await;
    routed(17).await;
    let silent = asked.lock().unwrap().clone();
    let silent = silent
        .iter()
        .filter(|name| name.ends_with("silent.example"));
    assert_eq!(silent.count(), 16);
    // When the server answers again, the waiting names are looked up.
    drop(release);
    let counts = gateway.settled().await;
    assert_eq!(
        (counts.delivered, counts.routed),
        (40, SILENT_LEN as u64 + 1)
    );
    gateway.stop().await;
}

#[tokio::test]
async fn names_that_hang_leave_look_ups_to_the_records_of_other_sources() {
    let target = StubTarget::always(200).await;
    let (find, asked, release) = resolver();
    let gateway = Harness::start_finding(find, set).await;
    // Each zone has one of them, so only the source bounds them.
    let silent = |at| {
        let host = format!("t.silent{at}.example");
        record("", &named(&host, target), &[("source", "bank")])
    };
    gateway
        .append(SOURCE, 0, (0..100).map(silent).collect())
        .await;
    until("look-ups that hang", || asked.lock().unwrap().len() == 64).await;
    let host = "api.good.example";
    let healthy = record("", &named(host, target), &[("source", "shop")]);
    gateway.append(SOURCE, 0, vec![healthy]).await;
    until("the healthy target", || {
        gateway.counts(SOURCE).delivered == 1
    })
    .await;
    drop(release);
    assert_eq!(gateway.settled().await.routed, 100);
    gateway.stop().await;
}

#[tokio::test]
async fn addresses_are_kept_as_long_as_the_setting_says() {
    let target = StubTarget::always(200).await;
    let (find, asked, _release) = resolver();
    let mut gateway = Harness::start_finding(find, set).await;
    let mut delivered = 0;
    for (dns_ms, lookups_len) in [(3_600_000, 1), (0, 4), (3_600_000, 4)] {
        gateway.reload(|config| config.dispatch.dns_ms = dns_ms);
        for _ in 0..3 {
            gateway.sync("k", &named("api.good.example", target)).await;
            delivered += 1;
            assert_eq!(gateway.settled().await.delivered, delivered);
        }
        assert_eq!(asked.lock().unwrap().len(), lookups_len, "{dns_ms}");
    }
}

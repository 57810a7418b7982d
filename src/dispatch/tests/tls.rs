//! Targets behind TLS, over HTTP/1.1 and HTTP/2.
//!
//! `tls/` holds an authority of our own, valid for a hundred years, a certificate of it for localhost and 127.0.0.1, and
//! that certificate's key; they protect nothing.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::{
    RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;

use super::{
    harness::{Harness, UNAVAILABLE, header, message},
    stub::{Raw, StubTarget, raw_target, within},
};
use crate::{config::Config, runtime::tasks::Tasks};

/// What a call looked like from the other side.
type Seen = (http::Version, String, Bytes);

/// The target's side of TLS with `protocols` in ALPN.
pub(super) fn acceptor(protocols: &[&str]) -> TlsAcceptor {
    acceptor_of(rustls::DEFAULT_VERSIONS, false, protocols)
}

/// The same with these versions of TLS, and client certificates.
fn acceptor_of(
    versions: &[&'static SupportedProtocolVersion],
    asks_for_certificate: bool,
    protocols: &[&str],
) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/localhost.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(include_bytes!("tls/authority.pem")).unwrap();
    roots.add(authority).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let clients = match asks_for_certificate {
        true => clients.build().unwrap(),
        false => WebPkiClientVerifier::no_client_auth(),
    };
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let bytes = protocols.iter().map(|name| name.as_bytes().to_vec());
    tls.alpn_protocols = bytes.collect();
    TlsAcceptor::from(Arc::new(tls))
}

/// Starts a target that speaks `protocols` and answers 200.
async fn tls_target(protocols: &[&str]) -> (SocketAddr, mpsc::Receiver<Seen>) {
    target_behind(acceptor(protocols)).await
}

async fn target_behind(acceptor: TlsAcceptor) -> (SocketAddr, mpsc::Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (give, seen) = mpsc::channel(64);
    let tasks = Tasks::new();
    let serving = tasks.clone();
    tasks.spawn("tls stub", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, give) = (acceptor.clone(), give.clone());
            serving.spawn("tls stub connection", async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request| handle(give.clone(), request));
                let served = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                drop(served);
            });
        }
    });
    (address, seen)
}

async fn handle(
    give: mpsc::Sender<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let host = parts.headers.get("host").map(|host| host.to_str().unwrap());
    let host = host.map_or_else(|| parts.uri.authority().unwrap().to_string(), Into::into);
    let body = body.collect().await?.to_bytes();
    give.send((parts.version, host, body)).await.unwrap();
    Ok(Response::new(Full::new(Bytes::from_static(b"thanks"))))
}

pub(super) fn trusting(config: &mut Config) {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/dispatch/tests/tls/authority.pem"
    );
    config.dispatch.ca_file = Some(file.into());
}

pub(super) fn https(target: SocketAddr, host: &str) -> serde_json::Value {
    let mut message = message(target, "/x");
    message["targetRestApi"] = json!(format!("https://{host}:{}/x", target.port()));
    message
}

#[tokio::test]
async fn the_target_chooses_the_http_that_is_spoken() {
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], http::Version::HTTP_2),
        (&["http/1.1"], http::Version::HTTP_11),
        (&[], http::Version::HTTP_11),
    ] {
        let (target, mut seen) = tls_target(protocols).await;
        let gateway = Harness::start(trusting).await;
        for host in ["localhost", "127.0.0.1"] {
            for _ in 0..3 {
                gateway.sync("k", &https(target, host)).await;
                let call = within("a call", seen.recv()).await.unwrap();
                let host = format!("{host}:{}", target.port());
                assert_eq!(
                    call,
                    (version, host, Bytes::from_static(br#"{"path":"/x"}"#))
                );
            }
        }
        assert_eq!(gateway.settled().await.delivered, 6);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_a_tls_failure() {
    let (target, mut seen) = tls_target(&["h2"]).await;
    let gateway = Harness::start(|_| {}).await;
    gateway.sync("k", &https(target, "localhost")).await;
    gateway.settled().await;
    let failed = gateway.record_at(UNAVAILABLE, 0).await;
    assert_eq!(header(&failed, "cause-class"), "tls");
    assert!(seen.try_recv().is_err(), "nothing is sent to it");
}

/// Dispatches one message, which fails; returns class and reason of the cause.
async fn cause(message: &serde_json::Value, set: impl FnOnce(&mut Config)) -> (String, String) {
    let gateway = Harness::start(set).await;
    gateway.sync("k", message).await;
    gateway.settled().await;
    let failed = gateway.record_at(UNAVAILABLE, 0).await;
    let told = ["cause-class", "cause-reason"].map(|name| header(&failed, name).to_owned());
    gateway.stop().await;
    told.into()
}

#[tokio::test]
async fn a_target_that_wants_a_client_certificate_is_a_tls_failure_in_its_own_words() {
    for (version, protocols, words) in [
        (
            &TLS13,
            &["h2"][..],
            "alert of the target: certificate required (it wants a client certificate",
        ),
        (
            &TLS13,
            &["http/1.1"],
            "alert of the target: certificate required (it wants a client certificate",
        ),
        (&TLS12, &["h2"], "it wants a client certificate"),
        (&TLS12, &["http/1.1"], "it wants a client certificate"),
    ] {
        let acceptor = acceptor_of(&[version], true, protocols);
        let (target, _seen) = target_behind(acceptor).await;
        let (class, reason) = cause(&https(target, "localhost"), trusting).await;
        assert_eq!(class, "tls", "{reason}");
        assert!(
            reason.contains(words),
            "{version:?} {protocols:?}: {reason}"
        );
    }
}

#[tokio::test]
async fn a_target_that_speaks_something_else_is_told_by_what_it_says() {
    let (tls, _seen) = tls_target(&["h2"]).await;
    let plain = StubTarget::always(200).await;
    let (spdy, _seen) = tls_target(&["spdy/3"]).await;
    let http2 = raw_target(|stream| async move {
        let (give, _seen) = mpsc::channel(1);
        let service = service_fn(move |request| handle(give.clone(), request));
        let served = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
        drop(served);
    });
    let goodbye = raw_target(|stream| async move {
        let mut raw = Raw::new(stream);
        raw.request().await;
        raw.say([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
            .await;
        raw.until_left().await;
    });
    for (message, class, words) in [
        (
            message(http2.await, "/x"),
            "reset",
            "the target speaks HTTP/2 only",
        ),
        (
            message(goodbye.await, "/x"),
            "reset",
            "the target speaks HTTP/2 only",
        ),
        (
            message(tls, "/x"),
            "reset",
            "its URL must begin with https://",
        ),
        (
            https(plain, "localhost"),
            "tls",
            "does not speak TLS on this port",
        ),
        (
            https(spdy, "localhost"),
            "tls",
            "alert of the target: no application protocol",
        ),
    ] {
        let (found, reason) = cause(&message, trusting).await;
        assert_eq!(found, class, "{reason}");
        assert!(reason.contains(words), "{reason}");
    }
}

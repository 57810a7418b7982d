//! Targets behind TLS, over HTTP/1.1 and HTTP/2.
//!
//! `tls/` holds an authority of our own, valid for a hundred years, a certificate of it for localhost and 127.0.0.1, and
//! that certificate's key; they protect nothing.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;

use super::{
    harness::{Harness, UNAVAILABLE, header, message},
    stub::within,
};
use crate::{config::Config, tasks::Tasks};

/// What a call looked like from the other side.
type Seen = (http::Version, String, Bytes);

/// Starts a target that speaks `protocols` and answers 200.
async fn tls_target(protocols: &[&str]) -> (SocketAddr, mpsc::Receiver<Seen>) {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/localhost.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let bytes = protocols.iter().map(|name| name.as_bytes().to_vec());
    tls.alpn_protocols = bytes.collect();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
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

fn trusting(config: &mut Config) {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/dispatch/tests/tls/authority.pem"
    );
    config.dispatch.ca_file = Some(file.into());
}

fn https(target: SocketAddr, host: &str) -> serde_json::Value {
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

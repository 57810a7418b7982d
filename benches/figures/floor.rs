//! The floors: what cannot be left out, and nothing else.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Condvar, Mutex},
};

use axum::{Json, Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use crate::load::{CONNECTIONS, message};

/// Size of the file that is written out beforehand and then written over and over.
const FILE_BYTES: usize = 64 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "parsing is what is measured")]
struct Envelope<'a> {
    #[serde(borrow)]
    stream_key: &'a str,
    #[serde(borrow)]
    stream_message: &'a RawValue,
}

#[derive(Default)]
struct Queue {
    items: Vec<(Bytes, oneshot::Sender<u64>)>,
    sleeping: bool,
}

#[derive(Default)]
struct Journal {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// axum, the typed parse, and one writer that gathers what waits into a write and an `fdatasync`.
pub async fn ingest() -> ExitCode {
    let path = PathBuf::from(std::env::var("FIGURES_DIR").unwrap()).join("journal");
    let file = File::options()
        .create_new(true)
        .write(true)
        .open(path)
        .unwrap();
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        file.write_all_at(&vec![0; 1 << 20], at as u64).unwrap();
    }
    file.sync_all().unwrap();
    let journal = Arc::new(Journal::default());
    let writer = journal.clone();
    std::thread::spawn(move || write(&file, &writer));
    let router = Router::new()
        .route("/stream/sync", post(accept))
        .with_state(journal);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    axum::serve(listener, router).await.unwrap();
    ExitCode::SUCCESS
}

async fn accept(
    State(journal): State<Arc<Journal>>,
    body: Bytes,
) -> Result<Json<serde_json::Value>, StatusCode> {
    serde_json::from_slice::<Envelope<'_>>(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let (answer, stored) = oneshot::channel();
    let wake = {
        let mut queue = journal.queue.lock().unwrap();
        queue.items.push((body, answer));
        std::mem::replace(&mut queue.sleeping, false)
    };
    if wake {
        journal.wake.notify_one();
    }
    let offset = stored.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(json!({ "status": "success", "offset": offset })))
}

fn write(file: &File, journal: &Journal) {
    let (mut place, mut offset, mut frame) = (0, 0, Vec::new());
    loop {
        let batch = {
            let mut queue = journal.queue.lock().unwrap();
            while queue.items.is_empty() {
                queue.sleeping = true;
                queue = journal.wake.wait(queue).unwrap();
            }
            queue.sleeping = false;
            std::mem::take(&mut queue.items)
        };
        frame.clear();
        for (body, _) in &batch {
            frame.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
            frame.extend_from_slice(body);
        }
        let checksum = crc32c::crc32c(&frame);
        frame.extend_from_slice(&checksum.to_le_bytes());
        if place + frame.len() > FILE_BYTES {
            place = 0;
        }
        file.write_all_at(&frame, place as u64).unwrap();
        file.sync_data().unwrap();
        place += frame.len();
        for (_, answer) in batch {
            let _gone = answer.send(offset);
            offset += 1;
        }
    }
}

/// As many loops as calls may be in flight, each with a hyper connection of its own.
pub async fn dispatch() -> ExitCode {
    let arguments = std::env::var("FIGURES_ARGUMENTS").unwrap();
    let (url, count) = arguments.split_once(' ').unwrap();
    let address = url.trim_start_matches("http://").to_owned();
    let each = count.parse::<usize>().unwrap() / CONNECTIONS;
    let whole = message(url, "key");
    let payload = Bytes::from(serde_json::from_str::<serde_json::Value>(&whole).unwrap()["streamMessage"]["targetRestApiPayload"].to_string());
    println!("calling");
    let mut workers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, payload) = (address.clone(), payload.clone());
        workers.spawn(async move {
            let stream = TcpStream::connect(&address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .unwrap();
            let driver = tokio::spawn(connection);
            for _ in 0..each {
                let request = Request::post("/latest/orders")
                    .header("host", &address)
                    .header("content-type", "application/json");
                let response = sender
                    .send_request(request.body(Full::new(payload.clone())).unwrap())
                    .await
                    .unwrap();
                assert!(response.status().is_success());
                response.into_body().collect().await.unwrap();
                sender.ready().await.unwrap();
            }
            drop(sender);
            let _ended = driver.await;
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.unwrap();
    }
    // The parent reads this process's CPU time and then ends it.
    std::future::pending().await
}

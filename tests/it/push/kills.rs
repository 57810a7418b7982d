//! Server and clients die at random moments under load: what each client got in all its lives is what the log holds, in
//! one order, once, each record as the schema before it says. Data streams of all shapes are drawn too.

use std::{ops::ControlFlow, time::Duration};

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use super::shapes::{Connection, Held, Learnt, Shape};
use crate::{
    crash::{Random, SOURCE, check_journal},
    testkit::{Gateway, Place, client, keyed, within},
};

const ROUNDS: u32 = 8;
const KEYS: u64 = 40;
/// Data streams that are drawn.
const DRAWN: u64 = 6;
/// Longer than anything takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages of a round, at most.
const SENT_MAX: usize = 400;

/// A client over all its lives.
struct Reader {
    shape: Shape,
    random: Random,
    /// Where it goes on.
    begin: String,
    lines: Vec<String>,
    learnt: Learnt,
}

/// When it stops: the server is gone, or it has that many records.
#[derive(Clone, Copy)]
enum Until {
    Gone,
    Len(usize),
}

impl Reader {
    fn new(shape: Shape, random: Random) -> Self {
        Self {
            shape,
            random,
            begin: "earliest".into(),
            lines: Vec::new(),
            learnt: Learnt::default(),
        }
    }

    /// Records that it has, events of the stream not among them.
    fn len(&self) -> usize {
        let records = self.lines.iter().filter(|line| !line.starts_with("ddl."));
        records.count()
    }

    /// Reads, dies after some records and comes again, and so on.
    async fn read(&mut self, address: &str, until: Until) {
        loop {
            let patience = 1 + usize::try_from(self.random.below(300)).unwrap();
            let gone = self.live(address, patience, until).await.is_none();
            match until {
                Until::Gone if gone => return,
                Until::Len(len) if self.len() >= len => return,
                _ => {}
            }
        }
    }

    /// One life of at most so many records; nothing if the server has gone.
    async fn live(&mut self, address: &str, patience: usize, until: Until) -> Option<()> {
        let path = format!(
            "/services/v2/stream/{}?begin={}",
            self.shape.name, self.begin
        );
        let stream = TcpStream::connect(address).await.ok()?;
        let request = format!("ws://{address}{path}").into_client_request();
        let mut request = request.unwrap();
        if self.shape.is_one_by_one {
            let protocol = "cloudevents.json".parse().unwrap();
            request
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
        }
        let (mut socket, _) = client_async(request, stream).await.ok()?;
        let mut left = patience;
        let mut len = self.len();
        let enough = |len| matches!(until, Until::Len(all) if len >= all);
        let mut connection = Connection::new(&self.shape, &mut self.learnt);
        while left > 0 && !enough(len) {
            let text = match within("a frame", socket.next()).await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_))) => continue,
                Some(Ok(other)) => panic!("{}: {other:?}", self.shape.name),
                None | Some(Err(_)) => return None,
            };
            let records = match serde_json::from_str(&text).unwrap() {
                Value::Array(records) => records,
                // Silence is an array also where events come one by one.
                event => vec![event],
            };
            // It dies in the middle of a frame: what it has not looked at comes again.
            let all = records.iter().try_for_each(|record| {
                let Some(taken) = connection.take(record) else {
                    return ControlFlow::Continue(());
                };
                self.begin = taken.pos;
                len += usize::from(!taken.line.starts_with("ddl."));
                self.lines.push(taken.line);
                left -= 1;
                match left {
                    0 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            });
            debug_assert!(all.is_continue() || left == 0);
        }
        Some(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_anywhere_gets_what_the_log_holds_once_and_in_order() {
    let seed = std::env::var("SYNCGATE_TEST_SEED").map_or_else(
        |_| u64::from(std::process::id()),
        |seed| seed.parse().unwrap(),
    );
    println!("seed {seed} (SYNCGATE_TEST_SEED)");
    let mut random = Random(seed);
    let mut place = Place::with_config(
        "[log]\nsegment_bytes = 1048576\n\n[sync]\nrecord_bytes_max = 65536\nbatch_bytes_max = 262144\n",
    );
    let mut shapes = Shape::fixed();
    for n in 0..DRAWN {
        shapes.push(Shape::drawn(&format!("drawn{n}"), &mut random));
    }
    let mut readers = Vec::new();
    for (at, shape) in (0..).zip(&shapes) {
        let random = Random(seed.wrapping_add(at + 1));
        readers.push(Reader::new(shape.clone(), random));
    }
    for round in 0..ROUNDS {
        let gateway = place.start();
        if round == 0 {
            make(&gateway, &shapes).await;
        }
        if round % 3 == 1 {
            let partitions = json!({ "partitions": 1 + round });
            let grown = gateway.request(Method::PATCH, &format!("/v1/streams/{SOURCE}"));
            gateway.send(grown.json(&partitions)).await.ok();
        }
        let address = gateway.url.trim_start_matches("http://").to_owned();
        let sender = tokio::spawn(send_until_gone(gateway.url.clone(), random.below(1 << 32)));
        let mut lives = Vec::new();
        for mut reader in readers.drain(..) {
            let address = address.clone();
            lives.push(tokio::spawn(async move {
                reader.read(&address, Until::Gone).await;
                reader
            }));
        }
        // The moment of the kill is meant to be random.
        tokio::time::sleep(Duration::from_millis(50 + random.below(400))).await;
        place = gateway.kill();
        sender.await.unwrap();
        for life in lives {
            readers.push(life.await.unwrap());
        }
        check_journal(&place);
    }
    let gateway = place.start();
    let held = held(&gateway).await;
    println!("{} records", held.len());
    assert!(held.len() > 100, "hardly any load");
    let address = gateway.url.trim_start_matches("http://").to_owned();
    for mut reader in readers {
        let sent = held.iter().filter_map(|held| reader.shape.expected(held));
        let expected: Vec<_> = sent.collect();
        // What never comes is seen in what is missing.
        let all = reader.read(&address, Until::Len(expected.len()));
        let _late = tokio::time::timeout(PATIENCE, all).await;
        check(&reader, &expected);
        // And once more, in one go.
        let in_parts = up_to_last(std::mem::take(&mut reader.lines));
        reader.begin = "earliest".into();
        let live = reader.live(&address, usize::MAX, Until::Len(expected.len()));
        let _late = tokio::time::timeout(PATIENCE, live).await;
        check(&reader, &expected);
        assert_eq!(up_to_last(reader.lines), in_parts, "events of the stream");
    }
}

/// Checks what a client has in all.
#[track_caller]
fn check(reader: &Reader, expected: &[String]) {
    let records = reader.lines.iter().filter(|line| !line.starts_with("ddl."));
    let records: Vec<_> = records.cloned().collect();
    let Shape { name, config, .. } = &reader.shape;
    assert!(
        records == expected,
        "{name}: {}\n{config}",
        differ(&records, expected)
    );
}

/// What comes behind the last record is not waited for.
fn up_to_last(mut lines: Vec<String>) -> Vec<String> {
    while lines.pop_if(|line| line.starts_with("ddl.")).is_some() {}
    lines
}

async fn make(gateway: &Gateway, shapes: &[Shape]) {
    for Shape { name, config, .. } in shapes {
        let path = format!("/services/v2/stream/{name}");
        gateway.post(&path, config).await.ok();
    }
}

/// Sends batches of all lengths; nobody takes them.
async fn send_until_gone(url: String, seed: u64) {
    let (client, mut random) = (client(), Random(seed));
    let mut sent = 0;
    while sent < SENT_MAX {
        let lines: Vec<_> = (0..1 + random.below(40))
            .map(|_| message(&mut random))
            .collect();
        sent += lines.len();
        let mut request = client
            .post(format!("{url}/stream/sync"))
            .header("content-type", "application/x-ndjson")
            .body(lines.join("\n"));
        let trace = ["", "a", "b"][usize::try_from(random.below(3)).unwrap()];
        if !trace.is_empty() {
            let parent = format!("00-{}-00f067aa0ba902b7-01", trace.repeat(32));
            request = request.header("traceparent", parent);
        }
        if request.send().await.is_err() {
            return;
        }
    }
}

fn message(random: &mut Random) -> String {
    let mut one_of = |all: &[Value]| {
        let at = random.below(all.len() as u64);
        all[usize::try_from(at).unwrap()].clone()
    };
    let path = match one_of(&[json!("orders"), json!("orders/7"), json!("other")]) {
        Value::String(path) => path,
        other => panic!("{other}"),
    };
    let port = one_of(&[json!(9), json!(7)]);
    let operations = ["POST", "PUT", "PATCH", "DELETE", "GET"];
    let operation = one_of(&operations.map(Value::from));
    let note = one_of(&[
        json!(null),
        json!("ä\"\\\u{2028}"),
        json!([1, {}]),
        json!(true),
    ]);
    let n = random.below(1_000);
    let payloads = [
        json!({ "n": n }),
        json!({ "n": n, "note": note, "pos": 1, "KEY": "k" }),
        json!({ "n": n.to_string() }),
        json!({ "note": note }),
        json!([n, note]),
    ];
    let at = usize::try_from(random.below(payloads.len() as u64)).unwrap();
    let key = match random.below(KEYS) {
        0 => String::new(),
        n => format!("k{n}"),
    };
    let url = format!("http://127.0.0.1:{port}/{path}");
    let mut message = keyed(&key, &url, payloads[at].clone());
    message["streamMessage"]["targetRestApiOperation"] = operation;
    message.to_string()
}

/// Every record that the log holds, in the order of delivery.
async fn held(gateway: &Gateway) -> Vec<Held> {
    let partitions = format!("/v1/streams/{SOURCE}/partitions");
    let bounds = gateway.get(&partitions).await.ok();
    let mut held = Vec::new();
    for partition in 0..bounds["items"].as_array().unwrap().len() {
        let mut from = "earliest".to_owned();
        loop {
            let page = format!("{partitions}/{partition}/records?from={from}&limit=1000");
            let page = gateway.get(&page).await.ok();
            for record in page["items"].as_array().unwrap() {
                let offset = record["offset"].as_u64().unwrap();
                let time = record["time"].as_str().unwrap().to_owned();
                let one = Held {
                    xid: format!("{partition}.{offset}"),
                    key: record["key"].as_str().unwrap_or_default().to_owned(),
                    value: record["value"].clone(),
                    headers: record["headers"].clone(),
                };
                held.push(((time, partition, offset), one));
            }
            match page["next"].as_u64() {
                Some(next) => from = next.to_string(),
                None => break,
            }
        }
    }
    held.sort_by(|(a, _), (b, _)| a.cmp(b));
    held.into_iter().map(|(_, one)| one).collect()
}

/// Says where two lists part.
fn differ(got: &[String], expected: &[String]) -> String {
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    format!(
        "{} of {} records; at {at} came {:?} in place of {:?}",
        got.len(),
        expected.len(),
        got.get(at),
        expected.get(at)
    )
}

//! `syncgate demo`: shows the whole flow with a target of its own.
//!
//! The demo uses the gateway as `serve` runs it, and only its HTTP routes.

use std::{
    collections::BTreeMap, net::SocketAddr, os::unix::fs::DirBuilderExt, path::PathBuf,
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    Failure, Output,
    client::Client,
    output::{self, Table, cell},
    tail::{self, Columns, Session, Shape},
    target::{Rule, Server},
};
use crate::{
    config::{Loaded, Overrides, Sources},
    gateway::Gateway,
    runtime::tasks::Tasks,
    telemetry::LogLevel,
};

/// The demo takes about a second; after this time it has failed.
const DEADLINE: Duration = Duration::from_secs(60);
/// Interval at which the demo reads the records.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) async fn run(_arguments: Arguments, output: Output) -> Result<(), Failure> {
    crate::runtime::descriptors::raise_limit();
    super::make_private_files();
    let dir = TemporaryDir::new()?;
    let stop = CancellationToken::new();
    let tasks = Tasks::new();
    let target = Server::start(0, rules()?, None, &tasks, stop.clone()).await;
    let target = target.map_err(|error| Failure::start_by("the demo's target", &error))?;
    let gateway = Gateway::bind(config(&dir)?, LogLevel::default())
        .await
        .map_err(|error| Failure::start(&error))?;
    let url = format!("http://{}", gateway.address());
    let url: Url = url.parse().map_err(Failure::failed)?;
    let gateway_stop = stop.child_token();
    let running = gateway.run(gateway_stop.clone());
    let show = Show {
        client: Client::new(&url, None)?,
        target,
        output,
        failures: Vec::new(),
    };
    let showing = async {
        let shown = timeout_at(Instant::now() + DEADLINE, show.all()).await;
        gateway_stop.cancel();
        shown.unwrap_or_else(|_late| Err(Failure::failed("the demo did not end in time")))
    };
    let (ran, shown) = tokio::join!(running, showing);
    stop.cancel();
    tasks.join(Duration::from_secs(5)).await;
    ran.map_err(|error| Failure::failed_by(&error))?;
    shown
}

/// Default settings, a free port, a temporary directory.
fn config(dir: &TemporaryDir) -> Result<Loaded, Failure> {
    let sources = Sources {
        overrides: Overrides {
            data: Some(dir.0.clone()),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        },
        ..Sources::default()
    };
    crate::config::load(sources).map_err(Failure::usage)
}

/// The failing rules of the target.
fn rules() -> Result<Vec<Rule>, Failure> {
    let rules = ["/busy=503", "/missing=404", "/broken=500"];
    rules
        .into_iter()
        .map(Rule::read)
        .collect::<Result<_, _>>()
        .map_err(Failure::failed)
}

/// A message of the demo, and its expected end.
struct Story {
    key: &'static str,
    path: &'static str,
    /// The error stream that it goes to, and the cause; `None` if it is delivered.
    fails_into: Option<(&'static str, &'static str)>,
}

const STORIES: [Story; 5] = [
    Story {
        key: "order-1",
        path: "/orders",
        fails_into: None,
    },
    Story {
        key: "order-2",
        path: "/busy",
        fails_into: Some(("ServerUnavailableStream", "status 503")),
    },
    Story {
        key: "order-3",
        path: "/missing",
        fails_into: Some(("UnrecoverableErrorStream", "status 404")),
    },
    Story {
        key: "order-4",
        path: "/broken",
        fails_into: Some(("InternalserverErrorStream", "status 500")),
    },
    Story {
        key: "order-1",
        path: "/orders",
        fails_into: None,
    },
];

/// Posted while the data stream is read.
const LIVE: [Story; 2] = [
    Story {
        key: "order-5",
        path: "/orders",
        fails_into: None,
    },
    Story {
        key: "order-6",
        path: "/orders",
        fails_into: None,
    },
];

/// Characters of a record that is shown.
const RECORD_CHARS_MAX: usize = 150;

/// The streams of a first start.
const STREAMS: [&str; 5] = [
    "DataSyncStream",
    "ServerUnavailableStream",
    "InternalserverErrorStream",
    "UnrecoverableErrorStream",
    "DefaultErrorStream",
];

struct Show {
    client: Client,
    target: Server,
    output: Output,
    failures: Vec<String>,
}

impl Show {
    async fn all(mut self) -> Result<(), Failure> {
        self.headline("A gateway, and a target that answers 200, 503, 404 and 500 by path")?;
        self.line("gateway", self.client.base().as_str().trim_end_matches('/'))?;
        self.line("target", &self.target.url("/…"))?;
        self.headline("POST /stream/sync: five messages")?;
        self.post(0, &STORIES).await?;
        self.headline("What became of them")?;
        self.follow().await?;
        self.headline("The target is mended; POST /stream/retry of ServerUnavailableStream")?;
        self.target.follow(Vec::new());
        self.retry("ServerUnavailableStream", 1).await?;
        self.headline("Once more: what was delivered is not sent again")?;
        self.retry("ServerUnavailableStream", 0).await?;
        self.headline("A data stream, read over WebSocket: what is posted arrives at once")?;
        self.tail().await?;
        self.headline("The books")?;
        self.books().await?;
        if self.failures.is_empty() {
            self.headline("Everything came as expected")
        } else {
            Err(Failure::failed(self.failures.join("\n")))
        }
    }

    /// Posts messages; the first is expected at offset `first`.
    async fn post(&mut self, first: usize, stories: &[Story]) -> Result<(), Failure> {
        for (number, story) in (first..).zip(stories) {
            let message = json!({
                "streamKey": story.key,
                "streamMessage": {
                    "targetRestApi": self.target.url(story.path),
                    "targetRestApiOperation": "POST",
                    "targetRestApiPayload": {"orderid": story.key, "PO": "18jan"},
                    "targetRestApiHeaders": [{"key": "Content-Type", "value": "application/json"}]
                }
            });
            let answer = self.client.post(&["stream", "sync"], &message).await?;
            self.expect(answer.get("offset") == Some(&json!(number)), || {
                format!("message {number} was answered {answer}")
            });
            let place = format!(
                "{}/{}/{}",
                cell(&answer, "/stream"),
                cell(&answer, "/partition"),
                number
            );
            self.line(
                "accepted",
                &format!("{:8} {:9} {place}", story.key, story.path),
            )?;
        }
        Ok(())
    }

    /// Waits until each message is settled, and prints how.
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut told = BTreeMap::new();
        while told.len() < STORIES.len() {
            let source = self.records("DataSyncStream").await?;
            for (number, story) in STORIES.iter().enumerate() {
                let ended = source.get(number).and_then(|record| record.get("settled"));
                if ended != Some(&Value::Bool(true)) || told.contains_key(&number) {
                    continue;
                }
                let found = self.failure_of(number).await?;
                let text = match &found {
                    None => format!("{:8} {:9}", story.key, story.path),
                    Some((stream, cause)) => {
                        format!("{:8} {:9} → {stream} ({cause})", story.key, story.path)
                    }
                };
                let word = if found.is_none() {
                    "delivered"
                } else {
                    "failed"
                };
                self.line(word, text.trim_end())?;
                let found_text = found
                    .as_ref()
                    .map(|(stream, cause)| (stream.as_str(), cause.as_str()));
                self.expect(found_text == story.fails_into, || {
                    format!(
                        "{} of {} was to end as {:?}",
                        story.path, story.key, story.fails_into
                    )
                });
                told.insert(number, found);
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Returns stream and cause of the error record whose origin is this offset of the source stream.
    async fn failure_of(&self, number: usize) -> Result<Option<(String, String)>, Failure> {
        for stream in &STREAMS[1..] {
            for record in self.records(stream).await? {
                let header = |name: &str| cell(&record, &format!("/headers/{name}"));
                if header("origin-offset") == number.to_string() {
                    let mut cause = cell(&record, "/cause/class");
                    let status = cell(&record, "/cause/status");
                    if !status.is_empty() {
                        cause = format!("{cause} {status}");
                    }
                    return Ok(Some(((*stream).to_owned(), cause)));
                }
            }
        }
        Ok(None)
    }

    async fn records(&self, stream: &str) -> Result<Vec<Value>, Failure> {
        let path = ["v1", "streams", stream, "partitions", "0", "records"];
        let mut page = self.client.get(&path, &[]).await?;
        match page.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(Failure::failed(format!(
                "the records of {stream} are no list"
            ))),
        }
    }

    async fn retry(&mut self, stream: &str, delivered: u64) -> Result<(), Failure> {
        let request = json!({
            "streamOCIDToRetry": stream,
            "noOfMessagesToProcess": 100,
            "readAfterOffset": -1,
            "readPartition": "0",
            "errormapping": [{"responsecode": "404", "stream": "UnrecoverableErrorStream"}]
        });
        let calls_before = self.target.calls_len();
        let answer = self.client.post(&["stream", "retry"], &request).await?;
        let number = |name: &str| answer.get(name).and_then(Value::as_u64);
        self.line(
            "answer",
            &format!(
                "lastReadOffset {}, processedmessages {}, failedMessages {}, endOfStream {}",
                cell(&answer, "/lastReadOffset"),
                cell(&answer, "/processedmessages"),
                cell(&answer, "/failedMessages"),
                cell(&answer, "/endOfStream"),
            ),
        )?;
        let calls = self.target.calls_len() - calls_before;
        let counted = output::counted(calls, "call");
        self.line("target", &format!("got {counted}"))?;
        let as_expected = number("processedmessages") == Some(delivered)
            && number("failedMessages") == Some(0)
            && answer.get("endOfStream") == Some(&Value::Bool(true))
            && calls == delivered;
        self.expect(as_expected, || {
            format!("the retry of {stream} answered {answer}")
        });
        Ok(())
    }

    /// Creates a data stream, subscribes, posts, and prints the records as `syncgate tail` does.
    async fn tail(&mut self) -> Result<(), Failure> {
        const NAME: &str = "orders";
        let path = ["services", "v2", "stream", NAME];
        let config = json!({"source": {"trail": STREAMS[0]}});
        self.client.post(&path, &config).await?;
        let shape = Shape::of(&Session::config(&self.client, NAME).await?);
        let begin = [("begin", "now".to_owned())];
        let mut session = Session::open(&self.client, NAME, &begin).await?;
        let mut columns = Columns::default();
        self.post(STORIES.len(), &LIVE).await?;
        let mut arrived = Vec::new();
        while arrived.len() < LIVE.len() {
            let message = session.next().await;
            let message =
                message.map_err(|ended| Failure::failed(format!("the data stream: {ended:?}")))?;
            for record in shape.read(&message).map_err(Failure::failed)? {
                if record.is_change() {
                    let line = tail::line(&shape, &mut columns, &record, RECORD_CHARS_MAX);
                    self.line("pushed", &line)?;
                    arrived.push(line);
                }
            }
        }
        session.close().await;
        for (number, (story, line)) in (STORIES.len()..).zip(LIVE.iter().zip(&arrived)) {
            let expected = format!("INSERT  0.{number}  {}  POST", story.key);
            self.expect(line.contains(&expected), || {
                format!("{expected} was to be pushed, not {line}")
            });
        }
        self.expect(arrived.len() == LIVE.len(), || {
            format!("{} records were pushed", arrived.len())
        });
        // The books are compared after all records are settled.
        let ended = |record: &Value| record.get("settled") == Some(&Value::Bool(true));
        while !self.records(STREAMS[0]).await?.iter().all(ended) {
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    async fn books(&mut self) -> Result<(), Failure> {
        let expected = [(7, 0), (1, 0), (1, 1), (1, 1), (0, 0)];
        let mut table = Table::new(&["STREAM", ">RECORDS", ">SETTLED", ">OPEN"]);
        let mut books = Vec::new();
        for (stream, (records_expected, open_expected)) in STREAMS.into_iter().zip(expected) {
            let answer = self.client.get(&["v1", "streams", stream], &[]).await?;
            let sum = |name: &str| -> u64 {
                let bounds = answer
                    .get("bounds")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten();
                bounds
                    .filter_map(|partition| partition.get(name)?.as_u64())
                    .sum()
            };
            let (records, open) = (sum("tail"), sum("open"));
            self.expect((records, open) == (records_expected, open_expected), || {
                format!(
                    "{stream} was to have {records_expected} records, {open_expected} of them open"
                )
            });
            let ended = records.saturating_sub(open);
            table.row([
                stream.to_owned(),
                records.to_string(),
                ended.to_string(),
                open.to_string(),
            ]);
            books.push(json!({"stream": stream, "records": records, "ended": ended, "open": open}));
        }
        let ledger = self.client.get(&["v1", "ledger"], &[]).await?;
        let total = |name: &str| ledger.pointer(&format!("/total/{name}")).cloned();
        let sums = [
            "accepted",
            "delivered",
            "inErrorStreams",
            "pending",
            "difference",
        ]
        .map(total);
        self.expect(sums == [7, 5, 2, 0, 0].map(|sum| Some(json!(sum))), || {
            "the ledger was to have 7 accepted, 5 delivered, 2 in error streams".into()
        });
        match self.output {
            Output::Text => {
                let rows: Vec<_> = table
                    .text()
                    .lines()
                    .map(|row| format!("  {row}\n"))
                    .collect();
                let [accepted, delivered, waiting, pending, difference] =
                    sums.map(|sum| sum.unwrap_or_default().to_string());
                output::print(&rows.concat())?;
                let ledger = format!(
                    "{accepted} accepted = {delivered} delivered + {waiting} in error streams + {pending} pending; \
                     difference {difference}"
                );
                self.line("ledger", &ledger)
            }
            Output::Json => output::print_json(
                &json!({"ok": self.failures.is_empty(), "books": books, "ledger": ledger}),
            ),
        }
    }

    fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(otherwise());
        }
    }

    fn headline(&self, text: &str) -> Result<(), Failure> {
        match self.output {
            Output::Text => output::print(&format!("\n{text}\n")),
            Output::Json => Ok(()),
        }
    }

    fn line(&self, word: &str, text: &str) -> Result<(), Failure> {
        match self.output {
            Output::Text => output::print(&format!("  {word:9}  {text}\n")),
            Output::Json => Ok(()),
        }
    }
}

/// A directory that is removed on drop.
#[derive(Debug)]
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn new() -> Result<Self, Failure> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(Failure::failed)?;
        let name = format!("syncgate-demo-{}", data_encoding::HEXLOWER.encode(&random));
        let dir = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|error| Failure::start_by("a temporary directory", &error))?;
        Ok(Self(dir))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            output::say(&format!(
                "warning: {} stays behind: {error}",
                self.0.display()
            ));
        }
    }
}

//! What subscribers get, and what they cost: fan-out, latency, memory, catch-up.

mod client;
mod floor;
mod server;

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{Check, Series, least, most, process::Process, ratio};

use self::client::{Came, Subscriber};

pub use self::{floor::serve as floor, server::serve};

/// Subscribers, and records that each gets.
const FAN_OUTS: [(usize, u64); 3] = [(1, 100_000), (10, 100_000), (100, 30_000)];
/// Records of a commit, as the largest batches bring them.
const BATCH: u64 = 1_000;
const PACE: Duration = Duration::from_micros(3_333);
const PACED: u64 = 900;
const IDLE: usize = 1_000;
/// 1 GiB and a little more, with what stands around each record.
const STORED: u64 = 1_900_000;

/// What a server of this bench has to do.
#[derive(Clone, Copy)]
struct Plan {
    records: u64,
    batch: u64,
    every: Duration,
    subscribers: usize,
    /// Records that are there before.
    stored: u64,
}

impl Plan {
    fn to_arguments(self) -> String {
        let every = self.every.as_micros();
        format!(
            "{} {} {every} {} {}",
            self.records, self.batch, self.subscribers, self.stored
        )
    }

    fn from_environment() -> Self {
        let arguments = std::env::var("FIGURES_ARGUMENTS").unwrap();
        let mut numbers = arguments.split(' ').map(|text| text.parse().unwrap());
        let mut next = || -> u64 { numbers.next().unwrap() };
        let (records, batch, every) = (next(), next(), next());
        Self {
            records,
            batch,
            every: Duration::from_micros(every),
            subscribers: usize::try_from(next()).unwrap(),
            stored: next(),
        }
    }
}

/// The server's own and the floor's.
struct Pair {
    ours: Series,
    floor: Series,
}

impl Pair {
    fn new(ours: &'static str, floor: &'static str, unit: &'static str) -> Self {
        Self {
            ours: Series::new(ours, unit),
            floor: Series::new(floor, unit),
        }
    }

    fn push(&mut self, ours: f64, floor: f64) {
        self.ours.values.push(ours);
        self.floor.values.push(floor);
    }

    fn ratio(&self) -> Option<f64> {
        ratio(&self.ours, &self.floor)
    }
}

/// All that is measured of push.
pub struct PushFigures {
    rates: [Pair; 3],
    cpus: [Pair; 3],
    latency: Pair,
    idle: Series,
    stalled: Series,
    catch_up: Pair,
}

impl Default for PushFigures {
    fn default() -> Self {
        let rate = |ours, floor| Pair::new(ours, floor, "records/s");
        let cpu = |ours, floor| Pair::new(ours, floor, "µs/record");
        Self {
            rates: [
                rate("push to 1 subscriber", "push to 1, floor"),
                rate("push to 10 subscribers", "push to 10, floor"),
                rate("push to 100 subscribers", "push to 100, floor"),
            ],
            cpus: [
                cpu("push to 1: CPU per delivered record", "floor: CPU"),
                cpu("push to 10: CPU per delivered record", "floor: CPU"),
                cpu("push to 100: CPU per delivered record", "floor: CPU"),
            ],
            latency: Pair::new(
                "push, 300 records/s: durable to received, median",
                "floor: sent to received, median",
                "µs",
            ),
            idle: Series::new("1,000 idle subscribers: resident memory, more", "MiB"),
            stalled: Series::new(
                "a stalled subscriber of 1 GiB: resident memory, more",
                "MiB",
            ),
            catch_up: Pair::new(
                "catch-up over 1 GiB",
                "floor: reading the journal and checking its crc",
                "s",
            ),
        }
    }
}

impl PushFigures {
    pub async fn fan_out(&mut self) {
        for (at, (subscribers, records)) in FAN_OUTS.into_iter().enumerate() {
            let plan = Plan {
                records,
                batch: BATCH,
                every: Duration::ZERO,
                subscribers,
                stored: 0,
            };
            let server = Process::role("push", &[&plan.to_arguments()]);
            let ours = Run::measure(&server, plan).await;
            drop(server);
            let floor = floor_of(plan, &ours);
            let floor = Run::measure(&floor, plan).await;
            self.rates[at].push(ours.rate, floor.rate);
            self.cpus[at].push(ours.cpu, floor.cpu);
        }
    }

    pub async fn latency(&mut self) {
        let plan = Plan {
            records: PACED,
            batch: 1,
            every: PACE,
            subscribers: 1,
            stored: 0,
        };
        let server = Process::role("push", &[&plan.to_arguments()]);
        let ours = Run::measure(&server, plan).await;
        let ours_micros = ours.latency(&server, |came| came.last).await;
        drop(server);
        let floor = floor_of(plan, &ours);
        let run = Run::measure(&floor, plan).await;
        let mut number = 0..;
        let floor_micros = run.latency(&floor, |_| number.next()).await;
        self.latency.push(ours_micros, floor_micros);
    }

    pub async fn subscribers(&mut self) {
        let gateway = Process::gateway();
        make(&gateway.url).await;
        // The first one makes what all share.
        drop(Subscriber::open(&gateway.url, "now").await);
        let before = gateway.rss_mib();
        let mut idle = Vec::new();
        for _ in 0..IDLE {
            idle.push(Subscriber::open(&gateway.url, "now").await);
        }
        self.idle.values.push(gateway.rss_mib() - before);
        drop((idle, gateway));

        let (server, _) = stored().await;
        let before = server.rss_mib();
        let stalled = Subscriber::open(&server.url, "earliest").await;
        let mut most = before;
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            most = server.rss_mib().max(most);
        }
        drop(stalled);
        self.stalled.values.push(most - before);
    }

    pub async fn catch_up(&mut self) {
        let (server, data) = stored().await;
        evict();
        let begun = Instant::now();
        let subscriber = Subscriber::open(&server.url, "earliest").await;
        subscriber.read_alone_until(STORED - 1).await;
        let ours = begun.elapsed().as_secs_f64();
        evict();
        let begun = Instant::now();
        read_journal(&data);
        self.catch_up.push(ours, begun.elapsed().as_secs_f64());
    }

    /// Every series, in the order of the table.
    pub fn series(&self) -> Vec<&Series> {
        let mut all = Vec::new();
        for (rate, cpu) in self.rates.iter().zip(&self.cpus) {
            all.extend([&rate.floor, &cpu.floor, &rate.ours, &cpu.ours]);
        }
        all.extend([&self.latency.floor, &self.latency.ours]);
        all.extend([&self.idle, &self.stalled]);
        all.extend([&self.catch_up.floor, &self.catch_up.ours]);
        all
    }

    pub fn checks(&self) -> Vec<Check> {
        let later = self.latency.ours.median().zip(self.latency.floor.median());
        let faster = self.catch_up.ratio().map(|ratio| 1.0 / ratio);
        vec![
            ("push to 1 / floor, rate", self.rates[0].ratio(), least(0.6)),
            (
                "push to 10 / floor, rate",
                self.rates[1].ratio(),
                least(0.6),
            ),
            (
                "push to 100 / floor, rate",
                self.rates[2].ratio(),
                least(0.6),
            ),
            ("push to 1 / floor, CPU", self.cpus[0].ratio(), most(2.0)),
            ("push to 10 / floor, CPU", self.cpus[1].ratio(), most(2.0)),
            ("push to 100 / floor, CPU", self.cpus[2].ratio(), most(2.0)),
            (
                "push, median latency beyond the floor's, µs",
                later.map(|(ours, floor)| ours - floor),
                most(2_000.0),
            ),
            (
                "1,000 idle subscribers, MiB",
                self.idle.median(),
                most(64.0),
            ),
            (
                "a stalled subscriber, MiB",
                self.stalled.median(),
                most(16.0),
            ),
            ("catch-up / floor, rate", faster, least(0.5)),
        ]
    }
}

/// What one run came to.
struct Run {
    rate: f64,
    /// Per delivered record, without what appends.
    cpu: f64,
    /// Frames with records that the first subscriber got.
    frames: Vec<Came>,
}

impl Run {
    async fn measure(server: &Process, plan: Plan) -> Self {
        let mut subscribers = Vec::new();
        for _ in 1..plan.subscribers {
            subscribers.push(Subscriber::open(&server.url, "earliest").await);
        }
        let cpu = server.cpu_beside(&["appender", "syncgate"]);
        // The last one is what the server waits for.
        let begun = Instant::now();
        subscribers.push(Subscriber::open(&server.url, "earliest").await);
        let mut reading = JoinSet::new();
        for mut subscriber in subscribers {
            reading.spawn(async move {
                let mut frames = Vec::new();
                let last = plan.records - 1;
                subscriber
                    .read_until(last, |came| frames.extend(came.last.map(|_| came)))
                    .await;
                frames
            });
        }
        let mut frames = Vec::new();
        while let Some(read) = reading.join_next().await {
            frames = read.unwrap();
        }
        let took = begun.elapsed().as_secs_f64();
        let cpu = server.cpu_beside(&["appender", "syncgate"]) - cpu;
        let delivered = (plan.records * plan.subscribers as u64) as f64;
        Self {
            rate: delivered / took,
            cpu: cpu.as_secs_f64() * 1e6 / delivered,
            frames,
        }
    }

    /// Median of the time from a commit to its receipt, in microseconds; `number` says which commit a frame ends with.
    async fn latency(&self, server: &Process, mut number: impl FnMut(&Came) -> Option<u64>) -> f64 {
        let path = server.path().join("durable");
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let durable = std::fs::read_to_string(path).unwrap();
        let durable: Vec<u64> = durable.lines().map(|line| line.parse().unwrap()).collect();
        let late = |came: &Came| {
            let number = usize::try_from(number(came)?).unwrap();
            Some(came.at.saturating_sub(durable[number]))
        };
        let mut late: Vec<_> = self.frames.iter().filter_map(late).collect();
        late.sort_unstable();
        late[late.len() / 2] as f64
    }
}

/// The floor with the frames of a run.
fn floor_of(plan: Plan, run: &Run) -> Process {
    let mut frames = String::new();
    for came in &run.frames {
        let last = came.last.unwrap_or_default();
        writeln!(frames, "{} {last}", came.len).unwrap();
    }
    Process::role_with("floor-push", &[&plan.to_arguments()], |dir| {
        std::fs::write(dir.join("frames"), frames).unwrap();
    })
}

/// A server that has just started above 1 GiB, and where that lies.
async fn stored() -> (Process, std::path::PathBuf) {
    let plan = Plan {
        records: 0,
        batch: 1,
        every: Duration::ZERO,
        subscribers: usize::MAX,
        stored: STORED,
    };
    let filled = Process::role("push", &[&plan.to_arguments()]);
    let plan = Plan { stored: 0, ..plan };
    let server = filled.role_again("push", &[&plan.to_arguments()]);
    // It looks through the files that were not indexed before.
    server.settled().await;
    let data = server.path().join("data");
    (server, data)
}

/// Makes the data stream `s1`.
async fn make(address: &str) {
    let body = r#"{"source":{"trail":"DataSyncStream"}}"#;
    let len = body.len();
    let request = format!(
        "POST /services/v2/stream/s1 HTTP/1.1\r\nhost: {address}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

/// Empties the page cache, where this may.
fn evict() {
    let _may_not = std::process::Command::new("sync").status();
    if std::fs::write("/proc/sys/vm/drop_caches", "1").is_err() {
        eprintln!("the page cache is warm: only root can empty it");
    }
}

fn read_journal(data: &Path) {
    use std::io::Read;
    let mut buffer = vec![0; 1 << 20];
    let mut crc = 0;
    for entry in std::fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_journal(&path);
            continue;
        }
        let mut file = std::fs::File::open(path).unwrap();
        loop {
            let read = file.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            crc = crc32c::crc32c_append(crc, &buffer[..read]);
        }
    }
    std::hint::black_box(crc);
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

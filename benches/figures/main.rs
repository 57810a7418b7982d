//! The figures of `benches/README.md`: `cargo bench --bench figures`.
//!
//! Each figure stands beside a floor that is measured in the same run, in turn with it, on the same cores: a bare
//! program that does only what cannot be left out. What is asserted is the ratio of the medians; the exit code says
//! whether all hold. `FIGURES_ROUNDS` (5) and `FIGURES_SECONDS` (3) change how long it takes;
//! `cargo bench --bench figures -- log ingest batch dispatch beside unavailable whole grown start fanout latency subscribers catchup` names the parts to measure, all if none is named.
//!
//! Generator and target run in this process and are not counted; the gateway and the floors are processes of their own.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    missing_docs,
    unreachable_pub,
    reason = "a program for measuring"
)]

mod floor;
mod grown;
mod load;
mod log;
mod process;
mod push;
mod target;
mod unavailable;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use load::{CONNECTIONS, Load};
use process::Process;
use push::PushFigures;
use target::{Mode, Target};
use unavailable::Unavailable;

const BACKLOG: usize = 40_000;
/// Of each of two targets.
const BESIDE: usize = 100_000;
/// What the targets are offered beside which others lie.
const EVERY: Duration = Duration::from_micros(500);
/// Stored before the cost of a message is measured.
const FEW: u64 = 1_000;
const MANY: u64 = 10_000_000;
/// More than 1 GiB.
const WAITING: usize = 2_000_000;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let role = std::env::var("FIGURES_ROLE").unwrap_or_default();
    match role.as_str() {
        "floor-ingest" => runtime.block_on(floor::ingest()),
        "floor-dispatch" => runtime.block_on(floor::dispatch()),
        "floor-push" => push::floor(),
        "push" => runtime.block_on(push::serve()),
        _ => runtime.block_on(measure()),
    }
}

/// One figure over all rounds.
struct Series {
    name: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

impl Series {
    fn new(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            values: Vec::new(),
        }
    }

    /// `None` if it was not measured.
    fn median(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    fn print(&self) {
        let Some(median) = self.median() else { return };
        let (least, most) = self
            .values
            .iter()
            .fold((f64::MAX, 0f64), |(least, most), value| {
                (least.min(*value), most.max(*value))
            });
        let digits = match median {
            1_000.0.. => 0,
            10.0.. => 1,
            _ => 2,
        };
        println!(
            "| {} | {median:.digits$} | {least:.digits$} – {most:.digits$} | {} |",
            self.name, self.unit
        );
    }
}

async fn measure() -> ExitCode {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let rounds = number("FIGURES_ROUNDS", 5);
    let time = Duration::from_secs(number("FIGURES_SECONDS", 3));
    let parts = Vec::from_iter(std::env::args().skip(1).filter(|arg| arg != "--bench"));
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);
    let target = Target::start().await;
    let load = Load::new(&target.url());
    let mut figures = Figures::default();
    let mut many = None;
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        if wanted("log") {
            figures.log(time).await;
        }
        if wanted("ingest") {
            figures.ingest(&target, &load, time).await;
        }
        if wanted("batch") {
            figures.batch(&target, &load, time).await;
        }
        if wanted("dispatch") {
            figures.dispatch(&target, &load).await;
        }
        if wanted("beside") {
            figures.beside(&target, &load, time).await;
        }
        if wanted("unavailable") {
            figures.unavailable.measure(&target, &load).await;
        }
        if wanted("whole") {
            figures.whole(&target, &load, time).await;
        }
        if wanted("grown") {
            let gateway = match many.take() {
                Some(gateway) => gateway,
                None => Process::gateway().filled(MANY).await,
            };
            many = Some(figures.grown(gateway, &target, &load, time).await);
        }
        if wanted("start") {
            figures.start(&target, &load).await;
        }
        if wanted("fanout") {
            figures.push.fan_out().await;
        }
        if wanted("latency") {
            figures.push.latency().await;
        }
        if wanted("subscribers") {
            figures.push.subscribers().await;
        }
        if wanted("catchup") {
            figures.push.catch_up().await;
        }
    }
    figures.report()
}

/// All that is measured.
struct Figures {
    log_floor: Series,
    log: Series,
    log_amplification_first: Series,
    log_amplification: Series,
    log_alone_floor: Series,
    log_alone: Series,
    ingest_floor: Series,
    ingest_floor_cpu: Series,
    ingest: Series,
    ingest_cpu: Series,
    batch: Series,
    dispatch_floor: Series,
    dispatch_floor_cpu: Series,
    dispatch: Series,
    dispatch_cpu: Series,
    alone: Series,
    beside_hanging: Series,
    beside_hanging_again: Series,
    beside_rss: Series,
    offered: Series,
    beside_liars: Series,
    whole: Series,
    whole_cpu: Series,
    few_cpu: Series,
    many_cpu: Series,
    many_rss: Series,
    rss: Series,
    rss_waiting: Series,
    start: Series,
    start_unindexed: Series,
    rss_started: Series,
    unavailable: Unavailable,
    push: PushFigures,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            log_floor: Series::new(
                "log, floor: the same writes, each with fdatasync",
                "records/s",
            ),
            log: Series::new("log, 64 appenders of 512 bytes", "records/s"),
            log_amplification_first: Series::new("log: bytes written per byte, new files", ""),
            log_amplification: Series::new("log: bytes written per byte, steady state", ""),
            log_alone_floor: Series::new("log, floor: one fdatasync, median", "µs"),
            log_alone: Series::new("log, one appender, median", "µs"),
            ingest_floor: Series::new("ingest, floor: axum + group commit", "messages/s"),
            ingest_floor_cpu: Series::new("ingest, floor: CPU", "µs/message"),
            ingest: Series::new("ingest, syncgate", "messages/s"),
            ingest_cpu: Series::new("ingest, syncgate: CPU", "µs/message"),
            batch: Series::new("ingest, batches of 1,000 lines, syncgate", "messages/s"),
            dispatch_floor: Series::new("dispatch, floor: bare hyper loop", "calls/s"),
            dispatch_floor_cpu: Series::new("dispatch, floor: CPU", "µs/call"),
            dispatch: Series::new("dispatch of a backlog, syncgate", "calls/s"),
            dispatch_cpu: Series::new("dispatch of a backlog, syncgate: CPU", "µs/call"),
            alone: Series::new("dispatch of a backlog, nobody beside", "calls/s"),
            beside_hanging: Series::new("beside as many for a target that hangs", "calls/s"),
            beside_hanging_again: Series::new("the same after kill -9", "calls/s"),
            beside_rss: Series::new("meanwhile: resident memory", "MiB"),
            offered: Series::new("offered, while other targets lie", "messages/s"),
            beside_liars: Series::new("delivered of these", "messages/s"),
            whole: Series::new("accept and deliver, syncgate", "messages/s"),
            whole_cpu: Series::new("accept and deliver, syncgate: CPU", "µs/message"),
            few_cpu: Series::new("the same with 1,000 records stored: CPU", "µs/message"),
            many_cpu: Series::new("with 10,000,000 records stored: CPU", "µs/message"),
            many_rss: Series::new("with these: resident memory", "MiB"),
            rss: Series::new("idle, syncgate: resident memory", "MiB"),
            rss_waiting: Series::new("2,000,000 records waiting: resident memory", "MiB"),
            start: Series::new("start after kill -9 with 1 GiB", "s"),
            start_unindexed: Series::new("the same without its index", "s"),
            rss_started: Series::new("after that: resident memory", "MiB"),
            unavailable: Unavailable::default(),
            push: PushFigures::default(),
        }
    }
}

impl Figures {
    async fn log(&mut self, time: Duration) {
        let round = log::round(time).await;
        for (series, value) in [
            (&mut self.log_floor, round.floor_rate),
            (&mut self.log, round.rate),
            (&mut self.log_amplification_first, round.amplification_first),
            (&mut self.log_amplification, round.amplification),
            (&mut self.log_alone_floor, round.floor_alone),
            (&mut self.log_alone, round.alone),
        ] {
            series.values.push(value);
        }
    }

    async fn ingest(&mut self, target: &Target, load: &Load, time: Duration) {
        let floor = Process::role("floor-ingest", &[]);
        let (rate, cpu) = accepted(&floor, load, time).await;
        self.ingest_floor.values.push(rate);
        self.ingest_floor_cpu.values.push(cpu);
        drop(floor);

        target.set(Mode::Hold);
        let gateway = Process::gateway();
        self.rss.values.push(gateway.rss_mib());
        let (rate, cpu) = accepted(&gateway, load, time).await;
        self.ingest.values.push(rate);
        self.ingest_cpu.values.push(cpu);
    }

    async fn batch(&mut self, target: &Target, load: &Load, time: Duration) {
        target.set(Mode::Hold);
        let gateway = Process::gateway();
        load.run_batches(&gateway.url, Duration::from_millis(300))
            .await;
        let begun = Instant::now();
        let accepted = load.run_batches(&gateway.url, time).await;
        self.batch
            .values
            .push(per_second(accepted, begun.elapsed()));
    }

    async fn start(&mut self, target: &Target, load: &Load) {
        target.set(Mode::Hold);
        let gateway = Process::gateway();
        load.post_backlog(&gateway.url, WAITING).await;
        self.rss_waiting.values.push(gateway.rss_mib());
        let (gateway, took) = gateway.again(false);
        self.start.values.push(took.as_secs_f64());
        let (gateway, took) = gateway.again(true);
        self.start_unindexed.values.push(took.as_secs_f64());
        self.rss_started.values.push(gateway.rss_mib());
    }

    async fn dispatch(&mut self, target: &Target, load: &Load) {
        target.set(Mode::Answer);
        let (before, begun) = (target.calls(), Instant::now());
        let floor = Process::role("floor-dispatch", &[&target.url(), &BACKLOG.to_string()]);
        target.wait_for(before + BACKLOG).await;
        let rate = per_second(BACKLOG, begun.elapsed());
        self.dispatch_floor.values.push(rate);
        let cpu = per_message(floor.cpu(), BACKLOG);
        self.dispatch_floor_cpu.values.push(cpu);
        drop(floor);

        target.set(Mode::Hold);
        let gateway = Process::gateway();
        load.post_backlog(&gateway.url, BACKLOG).await;
        let (before, cpu_before) = (target.calls(), gateway.cpu());
        let begun = Instant::now();
        target.set(Mode::Answer);
        // Those in flight when the hold ended had arrived before.
        target.wait_for(before + BACKLOG - CONNECTIONS).await;
        let calls = target.calls() - before;
        self.dispatch
            .values
            .push(per_second(calls, begun.elapsed()));
        let cpu = per_message(gateway.cpu() - cpu_before, calls);
        self.dispatch_cpu.values.push(cpu);
    }

    async fn beside(&mut self, target: &Target, load: &Load, time: Duration) {
        target.set(Mode::Hold);
        let gateway = Process::gateway();
        load.post_backlog(&gateway.url, BESIDE).await;
        self.alone.values.push(released(target).await);
        drop(gateway);

        let hanging = Target::start().await;
        hanging.set(Mode::Hold);
        let urls = [target.url(), hanging.url()];
        let both = urls.each_ref().map(String::as_str);
        for again in [false, true] {
            target.set(Mode::Hold);
            let mut gateway = Process::gateway();
            load::post_backlog(&gateway.url, 2 * BESIDE, &both).await;
            let series = match again {
                false => &mut self.beside_hanging,
                true => {
                    gateway = gateway.again(false).0;
                    &mut self.beside_hanging_again
                }
            };
            series.values.push(released(target).await);
            self.beside_rss.values.push(gateway.rss_mib());
        }

        target.set(Mode::Answer);
        hanging.set(Mode::Lie);
        let gateway = Process::impatient_gateway();
        let lied_to = Load::new(&hanging.url());
        lied_to.post_backlog(&gateway.url, BACKLOG).await;
        let (before, begun) = (target.calls(), Instant::now());
        let offered = load.run_paced(&gateway.url, EVERY, time).await;
        let arrived = target.calls() - before;
        self.offered
            .values
            .push(per_second(offered, begun.elapsed()));
        self.beside_liars
            .values
            .push(per_second(arrived, begun.elapsed()));
    }

    async fn whole(&mut self, target: &Target, load: &Load, time: Duration) {
        target.set(Mode::Answer);
        let gateway = Process::gateway();
        let (rate, cpu) = accepted_and_delivered(&gateway, target, load, time).await;
        self.whole.values.push(rate);
        self.whole_cpu.values.push(cpu);
    }

    /// Returns the gateway that holds much.
    async fn grown(
        &mut self,
        many: Process,
        target: &Target,
        load: &Load,
        time: Duration,
    ) -> Process {
        target.set(Mode::Answer);
        let few = Process::gateway().filled(FEW).await;
        let many = many.again(false).0;
        // Both have just started; what a start leaves to be done is not what is measured.
        let warm = Duration::from_millis(300);
        for (gateway, series) in [(&few, &mut self.few_cpu), (&many, &mut self.many_cpu)] {
            accepted_and_delivered(gateway, target, load, warm).await;
            let (_, cpu) = accepted_and_delivered(gateway, target, load, time).await;
            series.values.push(cpu);
        }
        self.many_rss.values.push(many.rss_mib());
        many
    }

    /// Prints the table, and what holds of the parts that were measured.
    fn report(&self) -> ExitCode {
        println!("| figure | median | range | unit |\n|---|---|---|---|");
        for series in [
            &self.log_floor,
            &self.log,
            &self.log_amplification_first,
            &self.log_amplification,
            &self.log_alone_floor,
            &self.log_alone,
            &self.ingest_floor,
            &self.ingest_floor_cpu,
            &self.ingest,
            &self.ingest_cpu,
            &self.batch,
            &self.dispatch_floor,
            &self.dispatch_floor_cpu,
            &self.dispatch,
            &self.dispatch_cpu,
            &self.alone,
            &self.beside_hanging,
            &self.beside_hanging_again,
            &self.beside_rss,
            &self.offered,
            &self.beside_liars,
            &self.whole,
            &self.whole_cpu,
            &self.few_cpu,
            &self.many_cpu,
            &self.many_rss,
            &self.rss,
            &self.rss_waiting,
            &self.start,
            &self.start_unindexed,
            &self.rss_started,
        ] {
            series.print();
        }
        for series in self.unavailable.series().chain(self.push.series()) {
            series.print();
        }
        println!();
        let mut checks = vec![
            (
                "log / floor, rate",
                ratio(&self.log, &self.log_floor),
                least(0.85),
            ),
            (
                "log, bytes written per byte in the steady state",
                self.log_amplification.median(),
                most(1.2),
            ),
            (
                "log, one appender / one fdatasync",
                ratio(&self.log_alone, &self.log_alone_floor),
                most(1.3),
            ),
            (
                "ingest / floor, rate",
                ratio(&self.ingest, &self.ingest_floor),
                least(0.85),
            ),
            (
                "dispatch / floor, rate",
                ratio(&self.dispatch, &self.dispatch_floor),
                least(0.85),
            ),
            (
                "beside a target that hangs / alone, rate",
                ratio(&self.beside_hanging, &self.alone),
                least(0.9),
            ),
            (
                "the same after kill -9",
                ratio(&self.beside_hanging_again, &self.alone),
                least(0.9),
            ),
            (
                "beside targets that lie, delivered / offered",
                ratio(&self.beside_liars, &self.offered),
                least(0.9),
            ),
            (
                "accept and deliver, CPU µs/message",
                self.whole_cpu.median(),
                most(60.0),
            ),
            (
                "CPU with 10,000,000 records stored / with 1,000",
                ratio(&self.many_cpu, &self.few_cpu),
                most(1.1),
            ),
            ("batches, messages/s", self.batch.median(), least(500_000.0)),
            ("idle memory, MiB", self.rss.median(), most(48.0)),
            (
                "memory with 2,000,000 waiting, MiB",
                self.rss_waiting.median(),
                most(192.0),
            ),
            ("start with 1 GiB, s", self.start.median(), most(2.0)),
            (
                "start with 1 GiB and no index, s",
                self.start_unindexed.median(),
                most(10.0),
            ),
        ];
        checks.extend(self.unavailable.checks());
        checks.extend(self.push.checks());
        let mut all_hold = true;
        for (name, value, (bound, relation)) in checks {
            let Some(value) = value else { continue };
            let holds = match relation {
                "at least" => value >= bound,
                _ => value <= bound,
            };
            all_hold &= holds;
            let word = if holds { "holds " } else { "MISSED" };
            println!("{word} {name}: {value:.2}, {relation} {bound}");
        }
        match all_hold {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }
}

/// What is asserted: a name, what was measured, and its bound.
type Check = (&'static str, Option<f64>, (f64, &'static str));

fn ratio(ours: &Series, floor: &Series) -> Option<f64> {
    Some(ours.median()? / floor.median()?)
}

fn least(bound: f64) -> (f64, &'static str) {
    (bound, "at least")
}

fn most(bound: f64) -> (f64, &'static str) {
    (bound, "at most")
}

/// Lets a target that has held its calls answer, and returns the rate of its backlog.
async fn released(target: &Target) -> f64 {
    let (before, begun) = (target.calls(), Instant::now());
    target.set(Mode::Answer);
    // Those in flight when the hold ended had arrived before.
    target.wait_for(before + BESIDE - CONNECTIONS).await;
    per_second(target.calls() - before, begun.elapsed())
}

/// Rate and CPU per message of accepting for a while.
async fn accepted(server: &Process, load: &Load, time: Duration) -> (f64, f64) {
    load.run(&server.url, Duration::from_millis(300)).await;
    let (cpu, begun) = (server.cpu(), Instant::now());
    let accepted = load.run(&server.url, time).await;
    let rate = per_second(accepted, begun.elapsed());
    (rate, per_message(server.cpu() - cpu, accepted))
}

/// Rate and CPU per message of accepting for a while and delivering all of it.
async fn accepted_and_delivered(
    gateway: &Process,
    target: &Target,
    load: &Load,
    time: Duration,
) -> (f64, f64) {
    let (before, begun) = (target.calls(), Instant::now());
    let cpu_before = gateway.cpu();
    let accepted = load.run(&gateway.url, time).await;
    target.wait_for(before + accepted).await;
    let rate = per_second(accepted, begun.elapsed());
    (rate, per_message(gateway.cpu() - cpu_before, accepted))
}

/// Microseconds.
fn per_message(cpu: Duration, count: usize) -> f64 {
    cpu.as_secs_f64() * 1e6 / count as f64
}

fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

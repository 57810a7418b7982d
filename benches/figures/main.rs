//! The figures of the README: `cargo bench --bench figures`.
//!
//! Each figure stands beside a floor that is measured in the same run, in turn with it, on the same cores: a bare
//! program that does only what cannot be left out. What is asserted is the ratio of the medians; the exit code says
//! whether all hold. `FIGURES_ROUNDS` (5) and `FIGURES_SECONDS` (3) change how long it takes.
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
mod load;
mod process;
mod target;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use load::{CONNECTIONS, Load};
use process::Process;
use target::{Mode, Target};

const BACKLOG: usize = 40_000;

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

    fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    fn print(&self) {
        let (least, most) = self
            .values
            .iter()
            .fold((f64::MAX, 0f64), |(least, most), value| {
                (least.min(*value), most.max(*value))
            });
        println!(
            "| {} | {:.1} | {least:.1} – {most:.1} | {} |",
            self.name,
            self.median(),
            self.unit
        );
    }
}

async fn measure() -> ExitCode {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let rounds = number("FIGURES_ROUNDS", 5);
    let time = Duration::from_secs(number("FIGURES_SECONDS", 3));
    let mut ingest_floor = Series::new("ingest, floor: axum + group commit", "messages/s");
    let mut ingest_floor_cpu = Series::new("ingest, floor: CPU", "µs/message");
    let mut ingest = Series::new("ingest, syncgate", "messages/s");
    let mut ingest_cpu = Series::new("ingest, syncgate: CPU", "µs/message");
    let mut dispatch_floor = Series::new("dispatch, floor: bare hyper loop", "calls/s");
    let mut dispatch_floor_cpu = Series::new("dispatch, floor: CPU", "µs/call");
    let mut dispatch = Series::new("dispatch of a backlog, syncgate", "calls/s");
    let mut dispatch_cpu = Series::new("dispatch of a backlog, syncgate: CPU", "µs/call");
    let mut whole = Series::new("accept and deliver, syncgate", "messages/s");
    let mut whole_cpu = Series::new("accept and deliver, syncgate: CPU", "µs/message");
    let mut rss = Series::new("idle, syncgate: resident memory", "MiB");
    let target = Target::start().await;

    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let load = Load::new(&target.url());

        let floor = Process::role("floor-ingest", &[]);
        let (rate, cpu) = accepted(&floor, &load, time).await;
        ingest_floor.values.push(rate);
        ingest_floor_cpu.values.push(cpu);
        drop(floor);

        target.set(Mode::Hold);
        let gateway = Process::gateway();
        rss.values.push(gateway.rss_mib());
        let (rate, cpu) = accepted(&gateway, &load, time).await;
        ingest.values.push(rate);
        ingest_cpu.values.push(cpu);
        drop(gateway);

        target.set(Mode::Answer);
        let before = target.calls();
        let begun = Instant::now();
        let floor = Process::role("floor-dispatch", &[&target.url(), &BACKLOG.to_string()]);
        target.wait_for(before + BACKLOG).await;
        dispatch_floor
            .values
            .push(per_second(BACKLOG, begun.elapsed()));
        dispatch_floor_cpu
            .values
            .push(floor.cpu().as_secs_f64() * 1e6 / BACKLOG as f64);
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
        dispatch.values.push(per_second(calls, begun.elapsed()));
        dispatch_cpu
            .values
            .push((gateway.cpu() - cpu_before).as_secs_f64() * 1e6 / calls as f64);
        drop(gateway);

        let gateway = Process::gateway();
        let (before, begun) = (target.calls(), Instant::now());
        let cpu_before = gateway.cpu();
        let accepted = load.run(&gateway.url, time).await;
        target.wait_for(before + accepted).await;
        whole.values.push(per_second(accepted, begun.elapsed()));
        whole_cpu
            .values
            .push((gateway.cpu() - cpu_before).as_secs_f64() * 1e6 / accepted as f64);
    }

    println!("| figure | median | range | unit |\n|---|---|---|---|");
    for series in [
        &ingest_floor,
        &ingest_floor_cpu,
        &ingest,
        &ingest_cpu,
        &dispatch_floor,
        &dispatch_floor_cpu,
        &dispatch,
        &dispatch_cpu,
        &whole,
        &whole_cpu,
        &rss,
    ] {
        series.print();
    }
    println!();
    let checks = [
        (
            "ingest / floor, rate",
            ingest.median() / ingest_floor.median(),
            0.7,
            true,
        ),
        (
            "dispatch / floor, rate",
            dispatch.median() / dispatch_floor.median(),
            0.7,
            true,
        ),
        (
            "accept and deliver, CPU µs/message",
            whole_cpu.median(),
            90.0,
            false,
        ),
        ("idle memory, MiB", rss.median(), 64.0, false),
    ];
    let mut all_hold = true;
    for (name, value, bound, least) in checks {
        let holds = if least {
            value >= bound
        } else {
            value <= bound
        };
        all_hold &= holds;
        let relation = if least { "at least" } else { "at most" };
        println!(
            "{} {name}: {value:.2}, {relation} {bound}",
            if holds { "holds " } else { "MISSED" }
        );
    }
    if all_hold {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Rate and CPU per message of accepting for a while.
async fn accepted(server: &Process, load: &Load, time: Duration) -> (f64, f64) {
    load.run(&server.url, Duration::from_millis(300)).await;
    let (cpu, begun) = (server.cpu(), Instant::now());
    let accepted = load.run(&server.url, time).await;
    let rate = per_second(accepted, begun.elapsed());
    (
        rate,
        (server.cpu() - cpu).as_secs_f64() * 1e6 / accepted as f64,
    )
}

fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

//! `syncgate serve`, and a bare `syncgate`: runs the gateway until a signal, then drains.

use std::net::SocketAddr;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{DataDir, Failure, output, with_causes};
use crate::{
    config::{Loaded, Overrides, Sources, load},
    gateway::Gateway,
    runtime::descriptors,
    telemetry,
};

#[derive(Clone, Debug, Default, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    data_dir: DataDir,
    /// Address and port to listen on (`server.listen`); port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
}

impl Arguments {
    /// Reads the settings of a gateway with these arguments.
    pub(super) fn settings(self) -> Result<Loaded, Failure> {
        load(self.sources()).map_err(Failure::usage)
    }

    /// Returns where these settings come from.
    pub(super) fn sources(self) -> Sources {
        let overrides = Overrides {
            data: self.data_dir.data,
            listen: self.listen,
        };
        Sources::of_process(self.data_dir.config, overrides)
    }
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let loaded = arguments.settings()?;
    // A used directory may have users in its journal, so `Gateway::bind` checks again.
    if !loaded.may_have_users() {
        loaded.check_open_mode().map_err(Failure::usage)?;
    }
    let data = std::path::absolute(&loaded.config.data.dir);
    let data = data.unwrap_or_else(|_| loaded.config.data.dir.clone());
    let level = telemetry::log_to_stderr(&loaded.config.logging)
        .map_err(|error| Failure::start_by("the log", &error))?;
    descriptors::raise_limit();
    super::make_private_files();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut stops = Stops::new()?;
    let mut hangups = Hangups::new()?;
    let bound = tokio::select! {
        // Boxed, because the future is large.
        bound = Box::pin(Gateway::bind(loaded, level)) => bound,
        () = stops.next() => {
            tracing::warn!("ended by a signal before the start was over; nothing was served, and the next start begins anew");
            return Ok(());
        }
    };
    let gateway = bound.map_err(|error| match error.is_of_settings() {
        true => Failure::usage(with_causes(&error)),
        false => Failure::start(&error),
    })?;
    let url = format!("http://{}", gateway.address());
    output::print(&format!("listening on {url}\n"))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = url,
        mode = match gateway.has_users() {
            true => "users",
            false => "open: every caller is administrator",
        },
        data = %data.display(),
        "serving"
    );
    let stop = CancellationToken::new();
    let reload = gateway.reload();
    let mut ended = Box::pin(gateway.run(stop.clone()));
    let result = loop {
        tokio::select! {
            result = &mut ended => break result,
            // A SIGHUP during the start reloads here, because the start may have read the old file.
            () = hangups.next() => reload.ask(),
            () = stops.next() => {
                tracing::info!("draining; a second signal ends at once");
                stop.cancel();
                tokio::select! {
                    result = &mut ended => break result,
                    () = stops.next() => {
                        tracing::warn!("ended by a second signal; what was under way is dispatched again at the next start");
                        telemetry::flush();
                        // Exit, because a return would wait for the work that the signal cuts off.
                        std::process::exit(1);
                    }
                }
            }
        }
    };
    result.map_err(|error| Failure::failed_by(&error))
}

/// SIGTERM and SIGINT, which both end the command.
pub(super) struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: heard(SignalKind::terminate())?,
            interrupt: heard(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) {
        self.next_code().await;
    }

    /// Waits for the next signal; returns whether it was Ctrl-C.
    pub(super) async fn next_is_interrupt(&mut self) -> bool {
        self.next_code().await == 130
    }

    /// Waits for a signal; returns the exit code that shells give it: 128 and its number.
    pub(super) async fn next_code(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
        }
    }
}

/// SIGHUP, which reloads the configuration; `None` under `nohup`, where it means that the terminal has gone.
struct Hangups(Option<Signal>);

impl Hangups {
    fn new() -> Result<Self, Failure> {
        Ok(Self(match is_ignored(SignalKind::hangup()) {
            true => None,
            false => Some(heard(SignalKind::hangup())?),
        }))
    }

    async fn next(&mut self) {
        let heard = match &mut self.0 {
            Some(hangup) => hangup.recv().await,
            None => None,
        };
        if heard.is_none() {
            std::future::pending().await
        }
    }
}

fn heard(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::start_by("signals", &error))
}

/// Returns whether the process was started with a signal ignored (proc(5), `SigIgn`).
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = kind.as_raw_value() - 1;
    mask.is_some_and(|mask| mask >> bit & 1 == 1)
}

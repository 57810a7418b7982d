//! `syncgate target`: a small target for trials. It prints each call and answers by rules.

mod answers;
mod print;
mod server;

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Output,
    tail::{Outcome, Writer, line_chars_max},
};
use crate::runtime::{descriptors, tasks::Tasks};

pub(super) use self::{answers::Rule, server::Server};

/// Calls that wait to be printed; further calls are not answered until there is room.
const CALLS_WAITING_MAX: usize = 16;
/// Time for connections to end.
const GRACE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  A target that takes everything; messages name it as http://127.0.0.1:9003/...:
    syncgate target

  One path is down, another is slow, all below /old is gone:
    syncgate target --answer /down=503 --answer /slow=delay:2s --answer '/old/*=410'

  A target that asks for a pause, one that closes the connection, and one that never answers:
    syncgate target --answer /busy=429,retry-after:30s --answer /cut=close --answer /stuck=hang

  Everything is down but the health check:
    syncgate target --answer /health=200 --answer '*=503'

  The paths of calls, for another program:
    syncgate target --output json | jq --unbuffered -r .path
";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Port of 127.0.0.1 to listen on; 0 takes a free one. The first line of standard output is the address.
    #[arg(long, value_name = "PORT", default_value_t = 9003)]
    port: u16,
    /// Answer to calls of a path: a status, delay:2s, retry-after:30s, close (no answer), hang (no answer, ever), or several
    /// of them (503,delay:2s). A * at the end of PATH stands for any rest. The first matching rule counts; all other calls get
    /// 200. Can be given several times.
    #[arg(long = "answer", value_name = "PATH=ANSWER", value_parser = Rule::read)]
    answers: Vec<Rule>,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let Arguments { port, answers } = arguments;
    descriptors::raise_limit();
    let mut writer = Writer::new()?;
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    let (tell, mut told) = mpsc::channel(CALLS_WAITING_MAX);
    let server = Server::start(port, answers, Some(tell), &tasks, stop.clone()).await;
    let server = server
        .map_err(|error| Failure::start_by(&format!("the target at 127.0.0.1:{port}"), &error))?;
    let address = server.url("");
    let mut lines = match output {
        Output::Text => format!("listening on {address}\n"),
        Output::Json => print::line(&json!({"listening": address})),
    };
    let ended = loop {
        match writer.write(lines.into_bytes()).await {
            Outcome::Written => {}
            Outcome::Ended => break Ok(()),
            Outcome::Failed(why) => break Err(Failure::failed(why)),
        }
        let call = tokio::select! {
            biased;
            () = writer.ended() => break Ok(()),
            call = told.recv() => call,
        };
        // Only a panic ends the server before its stop.
        let Some(call) = call else {
            break Err(Failure::failed(
                "the target has stopped by a mistake of its own",
            ));
        };
        lines = match output {
            Output::Text => print::text(&call, line_chars_max()),
            Output::Json => print::line(&print::json(&call)),
        };
    };
    stop.cancel();
    tasks.join(GRACE).await;
    ended
}

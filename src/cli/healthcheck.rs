//! `syncgate healthcheck`: whether the gateway is ready.

use clap::Args;
use serde_json::{Value, json};

use super::{Failure, Gateway, Output, client::Error, output};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let reasons = match client.get(&["readyz"], &[]).await {
        Ok(answer) if answer["status"] == "ready" => None,
        Ok(_) => return Err(client.not_a_gateway("its readiness").into()),
        Err(Error::Refused(refusal)) => {
            let reasons = refusal
                .body
                .get("reasons")
                .and_then(Value::as_array)
                .cloned();
            match reasons {
                Some(reasons) => Some(reasons),
                None => return Err(Error::Refused(refusal).into()),
            }
        }
        Err(error) => return Err(error.into()),
    };
    if output == Output::Json {
        output::print_json(
            &json!({"ready": reasons.is_none(), "reasons": reasons.clone().unwrap_or_default()}),
        )?;
    }
    match reasons {
        None if output == Output::Text => output::print("ready\n"),
        None => Ok(()),
        Some(reasons) => {
            let words: Vec<_> = reasons.iter().filter_map(Value::as_str).collect();
            Err(Failure::failed(format!("not ready: {}", words.join(", "))))
        }
    }
}

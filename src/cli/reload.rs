//! `syncgate reload`.

use clap::Args;
use serde_json::{Value, json};

use super::{
    Failure, Gateway, Output,
    client::Error,
    output::{self, Table},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
}

pub(super) async fn run(arguments: Arguments, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let answer = match client.post(&["v1", "reload"], &json!({})).await {
        // The new configuration is wrong, so this is a usage error.
        Err(Error::Refused(refusal)) if refusal.code == "config_invalid" => {
            return Err(Failure::usage(refusal.text()));
        }
        answer => client.expect(
            "the result of a reload",
            &["applied", "needsRestart"],
            answer?,
        )?,
    };
    match output {
        Output::Json => output::print_json(&answer),
        Output::Text => output::print(&text(&answer)),
    }
}

fn text(answer: &Value) -> String {
    let mut table = Table::new(&["", ""]);
    for (word, member) in [("applied", "applied"), ("needs a restart", "needsRestart")] {
        let keys = answer.get(member).and_then(Value::as_array);
        for key in keys.into_iter().flatten().filter_map(Value::as_str) {
            table.row([word.to_owned(), key.to_owned()]);
        }
    }
    match table.text().trim_start() {
        "" => "nothing has changed\n".to_owned(),
        rows => rows.to_owned(),
    }
}

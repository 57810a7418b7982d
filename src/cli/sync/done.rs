//! The accepted messages, and the report about them, also after an early stop.

use serde_json::{Value, json};

use super::{batches::Batch, send::Unsent};
use crate::cli::{Failure, Output, client::Error, output};

/// The messages accepted so far.
#[derive(Debug)]
pub(super) struct Done {
    prefix: String,
    /// The command that goes on.
    again: String,
    /// What a stop says about the batch in flight, if there is one.
    pub(super) under_way: Option<String>,
    pub(super) accepted: u64,
    batches: u64,
    first: Option<Value>,
    last: Option<Value>,
    warnings: Vec<String>,
}

impl Done {
    pub(super) fn new(again: String, prefix: String) -> Self {
        Self {
            prefix,
            again,
            under_way: None,
            accepted: 0,
            batches: 0,
            first: None,
            last: None,
            warnings: Vec::new(),
        }
    }

    /// Returns the idempotency key of the batch that comes next.
    pub(super) fn next_key(&self) -> String {
        format!("{}-{}", self.prefix, self.batches + 1)
    }

    pub(super) fn add(&mut self, batch: &Batch, mut answer: Value) {
        self.batches += 1;
        self.accepted += batch.messages_len();
        let results = match answer.get_mut("results").map(Value::take) {
            Some(Value::Array(results)) => results,
            _ => vec![answer],
        };
        for result in &results {
            let warnings = result.get("warnings").and_then(Value::as_array);
            for warning in warnings.into_iter().flatten() {
                let text = output::cell(warning, "/detail");
                if !self.warnings.contains(&text) && self.warnings.len() < 20 {
                    self.warnings.push(text);
                }
            }
        }
        let mut results = results.into_iter().filter(Value::is_object);
        let first = results.next();
        self.last = results
            .next_back()
            .or_else(|| first.clone())
            .or(self.last.take());
        self.first = self.first.take().or(first);
    }

    /// Prints the report, also if not all messages were accepted.
    pub(super) fn print(self, ended: Result<(), Stop>, output: Output) -> Result<(), Failure> {
        for warning in &self.warnings {
            output::say(&format!("warning: {warning}"));
        }
        match (ended, output) {
            (Ok(()), Output::Text) => self.print_text(),
            (Ok(()), Output::Json) => output::print_json(&self.json()),
            (Err(stop), output) => {
                let failure = self.stopped(&stop);
                if output == Output::Json {
                    let mut report = self.json();
                    report["error"] = json!({
                        "detail": failure.message,
                        "status": stop.answer.as_ref().map(|(status, _)| status),
                        "code": stop.answer.as_ref().map(|(_, code)| code),
                    });
                    report["next"] = self.again.into();
                    output::print_json(&report)?;
                }
                Err(failure)
            }
        }
    }

    fn stopped(&self, stop: &Stop) -> Failure {
        let accepted = output::counted(self.accepted, "message");
        let rest = stop.rest.as_ref().or(self.under_way.as_ref());
        let rest = rest.map(|rest| format!("; {rest}")).unwrap_or_default();
        Failure {
            code: stop.code,
            message: format!(
                "{}\n{accepted} accepted before that{rest}\nto send the rest, and store nothing twice: {}",
                stop.why, self.again
            ),
        }
    }

    fn json(&self) -> Value {
        json!({
            "accepted": self.accepted,
            "batches": self.batches,
            "first": self.first,
            "last": self.last,
            "warnings": self.warnings,
        })
    }

    fn print_text(&self) -> Result<(), Failure> {
        let mut text = format!("{} accepted", output::counted(self.accepted, "message"));
        if self.batches > 1 {
            text = format!("{text} in {} batches", self.batches);
        }
        let place = |answer: &Value| {
            let part = |name| output::cell(answer, name);
            format!(
                "{}/{} offset {}",
                part("/stream"),
                part("/partition"),
                part("/offset")
            )
        };
        match (&self.first, &self.last) {
            (Some(only), _) if self.accepted == 1 && only.get("offset").is_some() => {
                text = format!(
                    "{text}: {}, message {}",
                    place(only),
                    output::cell(only, "/messageId")
                );
            }
            (Some(first), Some(last)) if first.get("offset").is_some() => {
                text = format!("{text}: first {}, last {}", place(first), place(last));
            }
            _ => {}
        }
        output::print(&format!("{text}\n"))
    }
}

/// Why a run stopped early.
pub(super) struct Stop {
    /// Exit code.
    code: u8,
    why: String,
    /// What happened to the rest; `None` if [`Done::under_way`] says it.
    rest: Option<String>,
    /// Status and code of the gateway's answer, if there was one.
    answer: Option<(u16, String)>,
}

impl Stop {
    /// A run that a signal ended with this exit code.
    pub(super) fn signal(code: u8) -> Self {
        Self {
            code,
            why: "stopped by a signal".into(),
            rest: None,
            answer: None,
        }
    }

    pub(super) fn unread(why: String) -> Self {
        Self {
            code: 1,
            why,
            rest: Some("nothing from there on was sent".into()),
            answer: None,
        }
    }

    pub(super) fn refused(batch: &Batch, unsent: Unsent) -> Self {
        let rest = match unsent.maybe_stored {
            true => batch.maybe_stored(),
            false => batch.not_stored(),
        };
        let (why, answer) = match unsent.error {
            Error::Unreachable(why) | Error::NoAnswer(why) | Error::NotAGateway(why) => (why, None),
            Error::Refused(mut refusal) => {
                refusal.detail = batch.without_line(&refusal.detail);
                for (pointer, sentence) in &mut refusal.members {
                    *pointer = batch.name_place(pointer);
                    *sentence = batch.without_line(sentence);
                }
                let answer = (refusal.status.as_u16(), refusal.code.clone());
                (refusal.text(), Some(answer))
            }
        };
        Self {
            code: 1,
            why,
            rest: Some(rest),
            answer,
        }
    }
}

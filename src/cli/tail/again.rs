//! The command that goes on where this one stopped.

use super::Arguments;
use crate::cli::{Output, client::Client};

/// The arguments that the next command repeats.
#[derive(Debug)]
pub(super) struct Again {
    name: String,
    /// With a cursor the next command names no position, because the gateway knows it.
    cursor: Option<String>,
    rest: Vec<&'static str>,
}

impl Again {
    pub(super) fn of(arguments: &Arguments, output: Output) -> Self {
        let all = arguments.all.then_some("--all");
        let json = (output == Output::Json).then_some(["--output", "json"]);
        Self {
            name: arguments.name.clone(),
            cursor: arguments.cursor.clone(),
            rest: all.into_iter().chain(json.into_iter().flatten()).collect(),
        }
    }

    /// Returns the command that begins at `begin` and prints the records that are left.
    pub(super) fn at(&self, client: &Client, begin: &str, left: Option<u64>) -> String {
        let mut words = vec!["tail", &*self.name];
        match &self.cursor {
            Some(cursor) => words.extend(["--cursor", cursor]),
            None => words.extend(["--begin", begin]),
        }
        let left = left.map(|left| left.to_string());
        if let Some(left) = &left {
            words.extend(["--count", left]);
        }
        words.extend(&self.rest);
        client.next(words)
    }
}

//! A problem that a gateway answered, in the words of the command line: options in place of members of the body, commands
//! in place of routes. The fault comes first, and no sentence comes twice.

use std::{borrow::Cow, time::Duration};

use reqwest::StatusCode;
use serde_json::Value;

use super::next::Options;

const HOW_TO_LOG_IN: &str =
    "set SYNCGATE_USER and SYNCGATE_PASSWORD, or give --url http://USER:PASSWORD@HOST:PORT";

/// Members of request bodies, and the options or arguments that set them.
const OPTIONS: [(&str, &str); 17] = [
    ("/begin", "--begin"),
    ("/name", "NAME"),
    ("/partitions", "--partitions"),
    ("/ocid", "--ocid"),
    ("/retentionHours", "--retention-hours"),
    ("/retentionBytes", "--retention-bytes"),
    ("/reason", "--reason"),
    ("/discardPending", "--discard-pending"),
    ("/group", "--group"),
    ("/streamOCIDToRetry", "STREAM"),
    ("/noOfMessagesToProcess", "--max"),
    ("/readAfterOffset", "--after"),
    ("/readPartition", "--partition"),
    ("/errormapping", "--map"),
    ("/filter", "--filter"),
    ("/ratePerSecond", "--rate"),
    ("/timeBudgetMs", "--time-budget-ms"),
];

/// Phrases of the gateway about a body, and the option to show in their place.
const PHRASES: [(&str, &str); 1] = [("\"discardPending\": true", "--discard-pending")];

/// Characters that are shown of an answer that is not a problem.
const FOREIGN_CHARS_MAX: usize = 200;
const NOT_JSON: &str =
    "the answer is a page of HTML or XML, so it is not from a gateway; is --url right?";

/// An answer without success.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Problem code; empty if the answer is not a problem.
    pub(super) code: String,
    /// The problem's detail; any text if the answer is not a problem.
    pub(super) detail: String,
    /// Pointer and sentence of each wrong member.
    pub(super) members: Vec<(String, String)>,
    pub(super) retry_after: Option<Duration>,
    pub(super) request_id: Option<String>,
    /// The whole answer.
    pub(super) body: Value,
}

impl Refusal {
    /// Reads an answer; `options` go to the commands in its sentences.
    pub(super) fn read(
        status: StatusCode,
        retry_after: Option<Duration>,
        body: Value,
        options: &Options,
    ) -> Self {
        let faults = of_envelope(&body).unwrap_or_else(|| of_problem(&body));
        let with_commands = |text: &String| with_commands(text, options);
        let members = faults.members.iter();
        Self {
            status,
            code: faults.code,
            detail: with_commands(&faults.detail),
            members: members
                .map(|(pointer, sentence)| (pointer.clone(), with_commands(sentence)))
                .collect(),
            retry_after,
            request_id: text(&body, "/requestId"),
            body,
        }
    }

    /// Returns a line for each fault, and a last line with status, code and request id.
    pub(super) fn text(&self) -> String {
        let mut lines = self.sentences();
        if self.status == StatusCode::UNAUTHORIZED {
            lines.push(HOW_TO_LOG_IN.into());
        }
        let request = self.request_id.iter();
        let request: String = request.map(|id| format!(", request {id}")).collect();
        lines.push(match lines.is_empty() {
            true => format!("{}{request}", self.answer()),
            false => format!("({}{request})", self.answer()),
        });
        lines.join("\n")
    }

    /// Returns [`Self::text`] on one line, for a warning.
    pub(super) fn line(&self) -> String {
        match self.sentences().join("; ") {
            sentences if sentences.is_empty() => self.answer(),
            sentences => format!("{sentences} ({})", self.answer()),
        }
    }

    fn answer(&self) -> String {
        let answer = format!(
            "the gateway answered {} {}",
            self.status.as_u16(),
            self.code
        );
        answer.trim_end().to_owned()
    }

    fn sentences(&self) -> Vec<String> {
        let members = self.members.iter();
        let members = members.map(|(pointer, sentence)| for_option(pointer, sentence));
        // A single fault stands in the detail too, with or without its pointer in front.
        let repeats_detail = |(pointer, sentence): &(String, String)| {
            let rest = self.detail.strip_prefix(&**pointer);
            *sentence == self.detail
                || rest.and_then(|rest| rest.strip_prefix(": ")) == Some(sentence)
        };
        let is_repeated = self.members.iter().any(repeats_detail);
        let counts = self.detail.ends_with(" members are wrong; see errors");
        let first = match self.members.len() {
            _ if is_repeated || self.detail.is_empty() => None,
            len if counts => Some(format!("{len} values are wrong:")),
            _ => Some(with_option(&self.detail)),
        };
        first.into_iter().chain(members).collect()
    }
}

/// The faults that an answer names.
struct Faults {
    code: String,
    detail: String,
    members: Vec<(String, String)>,
}

fn text(body: &Value, pointer: &str) -> Option<String> {
    Some(body.pointer(pointer)?.as_str()?.to_owned())
}

/// Returns the first line of an answer that is not JSON, cut to [`FOREIGN_CHARS_MAX`]; a name for a page of HTML.
fn first_line(text: &str) -> String {
    let text = text.trim_start();
    if text.starts_with('<') {
        return NOT_JSON.into();
    }
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(FOREIGN_CHARS_MAX).collect()
}

fn of_problem(body: &Value) -> Faults {
    let errors = body.pointer("/errors").and_then(Value::as_array);
    let members = errors.into_iter().flatten().map(|error| {
        let of = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let sentence = match (of("code"), of("detail")) {
            (code, "") => code.to_owned(),
            (_, detail) => detail.to_owned(),
        };
        (of("pointer").to_owned(), sentence)
    });
    let title = text(body, "/title").or_else(|| body.as_str().map(first_line));
    Faults {
        code: text(body, "/code").unwrap_or_default(),
        detail: text(body, "/detail").or(title).unwrap_or_default(),
        members: members.collect(),
    }
}

/// Reads the envelope of the routes under `/services/v2`: each message is `TITLE: DETAIL`, or `POINTER: DETAIL`.
fn of_envelope(body: &Value) -> Option<Faults> {
    const PROBLEM: &str = "urn:syncgate:problem:";
    let messages = body.get("messages")?.as_array()?;
    let kind = text(messages.first()?, "/type")?;
    let (mut details, mut members) = (Vec::new(), Vec::new());
    for title in messages
        .iter()
        .filter_map(|message| text(message, "/title"))
    {
        match title.split_once(": ") {
            Some((pointer, detail)) if pointer.starts_with('/') => {
                members.push((pointer.to_owned(), detail.to_owned()));
            }
            Some((_, detail)) if kind.starts_with(PROBLEM) => details.push(detail.to_owned()),
            _ => details.push(title),
        }
    }
    Some(Faults {
        code: kind.strip_prefix(PROBLEM).unwrap_or(&kind).to_owned(),
        detail: details.join("; "),
        members,
    })
}

/// Puts the option in front of a sentence about its value.
fn for_option(pointer: &str, sentence: &str) -> String {
    match &*option(pointer) {
        "" => sentence.to_owned(),
        option => format!("{option}: {sentence}"),
    }
}

/// Replaces the pointer that a sentence may begin with by its option.
fn with_option(sentence: &str) -> String {
    match sentence.split_once(": ") {
        Some((pointer, rest)) if pointer.starts_with('/') => for_option(pointer, rest),
        _ => sentence.to_owned(),
    }
}

/// Returns the option that sets a member, with the condition's name for a filter; the pointer itself if no option does.
fn option(pointer: &str) -> Cow<'_, str> {
    let below = |member: &str| {
        let below = pointer.strip_prefix(member)?;
        (below.is_empty() || below.starts_with('/')).then_some(below)
    };
    let found = OPTIONS
        .iter()
        .find_map(|(member, option)| Some((*option, below(member)?)));
    match found {
        None => pointer.into(),
        Some(("--filter", below)) => {
            let condition = below.split('/').nth(1).unwrap_or_default();
            format!("--filter {condition}").trim_end().to_owned().into()
        }
        Some((option, _)) => option.into(),
    }
}

/// Replaces routes in a sentence of the gateway by commands.
fn with_commands(text: &str, options: &Options) -> String {
    let mut text = text.to_owned();
    for (phrase, option) in PHRASES {
        text = text.replace(phrase, option);
    }
    let listed = text.strip_suffix(" lists them");
    let Some((before, route)) = listed.and_then(|text| text.rsplit_once("GET /")) else {
        return text;
    };
    let words = match *route.split('/').collect::<Vec<_>>() {
        ["v1", "streams"] => vec!["streams", "ls"],
        ["services", "v2", "stream"] => vec!["data-streams", "ls"],
        ["v1", "data-streams", name, "cursors"] => vec!["cursors", "ls", name],
        _ => return text,
    };
    format!("{before}list them with: {}", options.command(words))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(body: Value, expected: &str) {
        let options = Options::given([("--url", "http://gate:9".to_owned())]);
        let refusal = Refusal::read(StatusCode::BAD_REQUEST, None, body, &options);
        assert_eq!(refusal.text(), expected);
    }

    #[test]
    fn the_fault_comes_first_and_each_sentence_once() {
        check(
            json!({"title": "Invalid request", "detail": "begin is earliest", "code": "begin_invalid", "requestId": "6f-1",
                "errors": [{"pointer": "/begin", "code": "wrong_type", "detail": "begin is earliest"}]}),
            "--begin: begin is earliest\n(the gateway answered 400 begin_invalid, request 6f-1)",
        );
        check(
            json!({"detail": "2 members are wrong; see errors", "code": "invalid_request", "errors": [
                {"pointer": "/name", "detail": "this must be a string"}, {"pointer": "", "detail": "the body is empty"}]}),
            "2 values are wrong:\nNAME: this must be a string\nthe body is empty\n(the gateway answered 400 invalid_request)",
        );
        check(
            json!({"detail": "nothing has changed", "code": "config_invalid", "errors": [
                {"pointer": "outcomes.404", "detail": "no stream"}]}),
            "nothing has changed\noutcomes.404: no stream\n(the gateway answered 400 config_invalid)",
        );
        check(json!(null), "the gateway answered 400");
        let html = "\n<!DOCTYPE html>\n<html><body>not here</body></html>\n";
        check(
            json!(html),
            &format!("{NOT_JSON}\n(the gateway answered 400)"),
        );
        let text = format!("{}\nmore", "x".repeat(300));
        let expected = format!("{}\n(the gateway answered 400)", "x".repeat(200));
        check(json!(text), &expected);
    }

    #[test]
    fn members_of_a_retry_are_named_by_its_arguments() {
        for (pointer, sentence, expected) in [
            (
                "/streamOCIDToRetry",
                "no stream is called `x`",
                "STREAM: no stream is called `x`",
            ),
            (
                "/errormapping/1/stream",
                "no such stream",
                "--map: no such stream",
            ),
            (
                "/readPartition",
                "partitions 0 to 3",
                "--partition: partitions 0 to 3",
            ),
            ("/filter/cause/0", "wrong", "--filter cause: wrong"),
            ("/filter", "wrong", "--filter: wrong"),
            ("/groups", "wrong", "/groups: wrong"),
        ] {
            let answer = "(the gateway answered 400 invalid_request)";
            let told = json!({"code": "invalid_request", "detail": format!("{pointer}: {sentence}"),
                "errors": [{"pointer": pointer, "detail": sentence}]});
            check(told, &format!("{expected}\n{answer}"));
            let alone =
                json!({"code": "invalid_request", "detail": format!("{pointer}: {sentence}")});
            check(alone, &format!("{expected}\n{answer}"));
        }
    }

    #[test]
    fn the_envelope_of_data_streams_is_read_without_its_titles() {
        let envelope = |titles: &[&str]| {
            let messages = titles.iter();
            let messages = messages
                .map(|title| json!({"type": "urn:syncgate:problem:not_found", "title": title}));
            json!({ "messages": messages.collect::<Vec<_>>() })
        };
        check(
            envelope(&["Not found: no data stream is called `a: b`"]),
            "no data stream is called `a: b`\n(the gateway answered 400 not_found)",
        );
        check(
            envelope(&[
                "/rules/0: this is no rule",
                "/source/trail: this is no stream",
            ]),
            "/rules/0: this is no rule\n/source/trail: this is no stream\n(the gateway answered 400 not_found)",
        );
    }

    #[test]
    fn a_route_that_lists_names_becomes_a_command() {
        for (sentence, expected) in [
            (
                "no stream is called `x`; GET /v1/streams lists them",
                "no stream is called `x`; list them with: syncgate streams ls --url http://gate:9",
            ),
            (
                "none; GET /services/v2/stream lists them",
                "none; list them with: syncgate data-streams ls --url http://gate:9",
            ),
            (
                "none; GET /v1/data-streams/s.1/cursors lists them",
                "none; list them with: syncgate cursors ls s.1 --url http://gate:9",
            ),
            ("none; GET /other lists them", "none; GET /other lists them"),
            (
                "they wait; \"discardPending\": true gives them up",
                "they wait; --discard-pending gives them up",
            ),
        ] {
            let answer = "(the gateway answered 400 x)";
            check(
                json!({"detail": sentence, "code": "x"}),
                &format!("{expected}\n{answer}"),
            );
        }
    }

    #[test]
    fn a_warning_is_one_line() {
        let body = json!({"detail": "the queue is full", "code": "queue_full"});
        let options = Options::default();
        let refusal = Refusal::read(StatusCode::SERVICE_UNAVAILABLE, None, body, &options);
        let line = "the queue is full (the gateway answered 503 queue_full)";
        assert_eq!(refusal.line(), line);
    }
}

//! `syncgate data-streams ls|show|create|rm`: streams as subscribers see them, `/services/v2/stream`.
//!
//! Configurations stay JSON text here, because a rule may compare with a number that no Rust number type holds.

mod config;
mod named;
mod rule;

use std::borrow::Cow;

use clap::{Args, Subcommand};
use reqwest::{Method, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use self::config::Shape;
use super::{
    Failure, Gateway, Output,
    client::Client,
    cursors,
    output::{self, Table, cell, confirm::confirm, counted},
    pages,
};
use crate::json::loose;

const ALL: [&str; 3] = ["services", "v2", "stream"];

const EXAMPLES: &str = "\
How subscribers see a record:
  Without --object it is an INSERT into the stream's own table, which is called
  SYNCGATE.<stream>, with the columns PARTITION, OFFSET, KEY, TS, DATA (the
  message) and HEADERS.
  With --object a record whose URL fits is a change of that object: POST is
  INSERT, PUT is UPSERT, PATCH is UPDATE, DELETE is DELETE. Its columns are what
  the URL captures, and each member of targetRestApiPayload. Any other record
  comes as without --object.

  Rules choose records, also by the value of a column. A chosen record comes
  with all its columns: no option leaves out a column, but null ones can be left
  out (--encoding omitNullColumnValues=true) and the members beside the columns
  are switched one by one (--encoding metaFields.NAME=true or false).

Examples:
  Changes of orders alone, known by the URL of the call; no deletions:
    syncgate data-streams create orders --stream DataSyncStream \\
      --object 'SHOP.ORDERS=https://*/orders/{id}' \\
      --object 'SHOP.ORDERS=https://*/orders' \\
      --column SHOP.ORDERS.qty=number \\
      --rule 'include object=SHOP.ORDERS and type=INSERT,UPSERT,UPDATE'

  Large orders, without those of test sources, as flat CloudEvents:
    syncgate data-streams create large --stream DataSyncStream \\
      --rule 'exclude tag:source=test*' \\
      --rule 'include column:DATA/targetRestApiPayload/qty>=100' \\
      --encoding model=row --cloud-events

  What failed with 404; only prints the configuration:
    syncgate data-streams create lost --stream UnrecoverableErrorStream \\
      --rule 'include tag:cause-status=404' --dry-run

  Then read it, and see what each rule lets through:
    syncgate tail orders --begin earliest
";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Lists all data streams.
    ///
    /// STATUS is `running` while a subscriber reads the data stream, and `idle` while none does: it waits for one, and
    /// nothing is wrong. With --output json the word for `idle` is `stopped`, which is the protocol's.
    Ls(List),
    /// Shows a data stream, and how clients reach it.
    Show(Show),
    /// Creates a data stream: which records of a stream its clients get, and in which form.
    Create(Box<Create>),
    /// Removes a data stream with its cursors. The records stay in the log.
    Rm(Remove),
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Name of the data stream.
    name: String,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Create {
    /// Name of the data stream.
    name: String,
    #[command(flatten)]
    shape: Shape,
    /// Prints the configuration that would be posted, and posts nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Name of the data stream.
    name: String,
    /// Removes without a question.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    gateway: Gateway,
}

pub(super) async fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Ls(arguments) => list(&arguments.gateway.client()?, output).await,
        Command::Show(arguments) => show(&arguments, output).await,
        Command::Create(arguments) => create(&arguments, output).await,
        Command::Rm(arguments) => remove(&arguments, output).await,
    }
}

/// The members of the gateway's answer that the commands read.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    response: &'a RawValue,
    links: Vec<Link>,
    messages: Vec<Value>,
}

#[derive(Deserialize)]
struct Link {
    rel: String,
    href: String,
}

impl<'a> Envelope<'a> {
    fn read(text: &'a str, client: &Client) -> Result<Self, Failure> {
        serde_json::from_str(text).map_err(|_| client.not_a_gateway("a data stream").into())
    }

    fn link(&self, rel: &str) -> Option<&str> {
        let link = self.links.iter().find(|link| link.rel == rel);
        link.map(|link| &*link.href)
    }
}

/// The members of an object, with unparsed values; empty for JSON that is not an object.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    fn of(text: &'a str) -> Self {
        Self(loose::members(text).unwrap_or_default())
    }

    fn raw(&self, name: &str) -> &'a str {
        loose::member(&self.0, name).map_or("", RawValue::get)
    }

    fn inner(&self, name: &str) -> Self {
        Self::of(self.raw(name))
    }

    fn list(&self, name: &str) -> Vec<&'a RawValue> {
        loose::elements(self.raw(name)).unwrap_or_default()
    }

    fn text(&self, name: &str) -> String {
        let text = loose::member(&self.0, name).and_then(loose::string);
        text.unwrap_or_default().into_owned()
    }
}

async fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let mut table = Table::new(&["NAME", "STREAM", "STATUS", "VIEW", ">RULES"]);
    let mut items = Vec::new();
    let read = async |query: &pages::Query| {
        let request = client.request(Method::GET, &ALL, query);
        let text = client.send_for_text(request).await?;
        let page = Envelope::read(&text, client)?;
        let mut last = None;
        for item in Members::of(page.response.get()).list("items") {
            let config = Members::of(item.get());
            table.row([
                config.text("name"),
                config.inner("source").text("trail"),
                status(config.text("status")),
                config.inner("x-syncgate").text("view"),
                config.list("rules").len().to_string(),
            ]);
            items.push(item.get().to_owned());
            last = Some(config.text("name"));
        }
        Ok(page.link("next").and(last))
    };
    pages::each(client, "data streams", read).await?;
    match output {
        Output::Json => output::print_json_line(&format!("{{\"items\":[{}]}}", items.join(","))),
        Output::Text => output::print(&table.text()),
    }
}

/// Returns the status in a word that does not sound like a fault: `stopped` in the protocol means that no subscriber reads.
fn status(word: String) -> String {
    match &*word {
        "stopped" => "idle".into(),
        _ => word,
    }
}

async fn show(arguments: &Show, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let request = client.request(Method::GET, &path(&arguments.name), &[]);
    let text = client.send_for_text(request).await?;
    print(&client, &arguments.name, &text, output)
}

async fn create(arguments: &Create, output: Output) -> Result<(), Failure> {
    let config = arguments.shape.config()?;
    if arguments.dry_run {
        return match output {
            Output::Json => output::print_json_line(&config.json()),
            Output::Text => output::print(&config.lines()),
        };
    }
    let client = arguments.gateway.client()?;
    let request = client.request(Method::POST, &path(&arguments.name), &[]);
    let request = request.header(CONTENT_TYPE, "application/json");
    let sent = client.send_for_text(request.body(config.json())).await;
    let text = sent.map_err(|error| arguments.shape.named(error))?;
    print(&client, &arguments.name, &text, output)
}

async fn remove(arguments: &Remove, output: Output) -> Result<(), Failure> {
    let client = arguments.gateway.client()?;
    let name = &arguments.name;
    if !arguments.yes {
        // An unknown data stream fails here, before the question.
        let with = match cursors::all(&client, name).await?.len() as u64 {
            0 => String::new(),
            len => format!(" with its {}", counted(len, "cursor")),
        };
        let question = format!(
            "Remove data stream {name}{with}? Its clients are closed; the records stay in the log."
        );
        confirm(&question, false)?;
    }
    client.delete(&path(name)).await?;
    match output {
        Output::Json => output::print_json(&json!({ "removed": name })),
        Output::Text => output::print(&format!("{name} removed\n")),
    }
}

fn path(name: &str) -> [&str; 4] {
    let [first, second, third] = ALL;
    [first, second, third, name]
}

/// Prints the configuration of a data stream, its addresses, and the command that reads it.
fn print(client: &Client, name: &str, text: &str, output: Output) -> Result<(), Failure> {
    let envelope = Envelope::read(text, client)?;
    let config = envelope.response.get();
    // The links hold the public address of the gateway.
    let address = envelope.link("canonical").unwrap_or_default();
    let address = match address.split_once("://") {
        Some(("https", rest)) => format!("wss://{rest}"),
        Some((_, rest)) => format!("ws://{rest}"),
        None => address.to_owned(),
    };
    let document = envelope.link("describedby").unwrap_or_default();
    for message in &envelope.messages {
        output::say(&format!("warning: {}", cell(message, "/title")));
    }
    if output == Output::Json {
        let [name, address, document] = [name, &address, document].map(|text| json!(text));
        return output::print_json_line(&format!(
            "{{\"name\":{name},\"address\":{address},\"document\":{document},\"config\":{config}}}"
        ));
    }
    let config = Members::of(config);
    let mut shown = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            shown += &format!("{name:<12}{value}\n");
        }
    };
    line("name", name);
    line("stream", &config.inner("source").text("trail"));
    line("description", &config.text("description"));
    let view = config.inner("x-syncgate");
    line("view", &view.text("view"));
    for entry in view.list("objects") {
        line("object", &object(&Members::of(entry.get())));
    }
    for entry in config.list("rules") {
        line("rule", &rule::line(entry));
    }
    let model = config.inner("encoding").inner("json").text("model");
    let events = match config.raw("cloudEventsFormat") {
        "true" => ", as CloudEvents",
        _ => "",
    };
    line("encoding", &format!("model {model}{events}"));
    line("quality", &config.text("qualityOfService"));
    line("subscribe", &address);
    line("document", document);
    line("next", &client.next(["tail", name, "--begin", "earliest"]));
    output::print(&shown)
}

/// `SHOP.ORDERS from https://*/orders/{id}, key id`
fn object(entry: &Members<'_>) -> String {
    let keys = entry.list("keys");
    let keys = keys.iter().filter_map(|key| loose::string(key));
    let keys = keys.collect::<Vec<_>>().join(", ");
    let key = match keys.is_empty() {
        true => String::new(),
        false => format!(", key {keys}"),
    };
    format!("{} from {}{key}", entry.text("object"), entry.text("url"))
}

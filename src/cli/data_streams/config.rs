//! The configuration of a new data stream, from the arguments of `create`.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::{Failure, rule};
use crate::{json::loose, runtime::files};

/// The gateway's limit for a configuration.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// The arguments that describe a data stream.
#[derive(Debug, Args)]
pub(super) struct Shape {
    /// The stream whose records are shown, or an alias of [push.trails].
    #[arg(long, required_unless_present = "file")]
    pub(super) stream: Option<String>,
    /// A description, for people.
    #[arg(long, value_name = "TEXT")]
    pub(super) description: Option<String>,
    /// Shows records whose target has such a URL as changes of this object, and not as rows of the stream's own table.
    ///
    /// OBJECT has two or three parts, as in SHOP.ORDERS. In the URL, * is any run without a slash, and {id} is one segment
    /// that becomes the column id. What an object's first URL with such segments names is its key. POST becomes INSERT, PUT
    /// UPSERT, PATCH UPDATE and DELETE DELETE. May be given several times, also for one object; the first URL that fits
    /// counts.
    #[arg(long = "object", value_name = "OBJECT=URL", value_parser = object)]
    pub(super) objects: Vec<(String, String)>,
    /// Type of a column of an object: string, number, integer, boolean, object or array. Other columns may have any.
    ///
    /// A record whose column has another type, or whose key is null, is no change of the object: it comes as a row of the
    /// stream's own table, SYNCGATE.<stream>. A rule that includes the object alone therefore leaves it out.
    /// `data-streams show` warns of such records, counts them and names the last one.
    #[arg(long = "column", value_name = "OBJECT.COLUMN=TYPE", value_parser = column)]
    columns: Vec<(String, String, String)>,
    /// Sends records or leaves them out: "include CONDITION" or "exclude CONDITION"
    ///
    /// May be given several times. The first rule that fits a record decides.
    /// A record that fits no rule is sent if all rules are excludes, else left
    /// out. The conditions, several of them joined by the word and:
    ///
    ///   object=NAME[,NAME]   an object, or SYNCGATE.<stream>; * is any run
    ///   type=WORD[,WORD]     INSERT (POST), UPSERT (PUT), UPDATE (PATCH),
    ///                        DELETE, TRUNCATE (a purge), DDL (the stream
    ///                        was made or has grown), or DML for all but DDL
    ///   column:COLUMN=VALUE  a column, or a JSON pointer into one, as in
    ///                        DATA/targetRestApiPayload/qty; also != < <=
    ///                        > >=
    ///   tag:HEADER=TEXT      a header of the record, such as source, target
    ///                        or cause-class; * is any run
    #[arg(long = "rule", value_name = "RULE", value_parser = rule::read, verbatim_doc_comment)]
    pub(super) rules: Vec<Box<RawValue>>,
    /// A member of encoding.json, which is the form of a record
    ///
    /// May be given several times. The members that are needed most:
    ///
    ///   model=row                  columns at the top, not below after
    ///   flatten=true               columns at the top, as after.qty
    ///   omitNullColumnValues=true  no columns that are null
    ///   treatAllColumnsAsStrings=true
    ///   staticFields.NAME=VALUE    a member that each record has
    ///   metaFields.NAME=BOOLEAN    a member beside the columns: pos,
    ///                              qualifiedTable, opType, opTs and xid are
    ///                              on; csn, opSeqno, transInd, primaryKeys,
    ///                              tokens, catalog, schema, table, opTsMicroSecs,
    ///                              currentTs and currentTsMicroSecs are off
    ///   metaFields.NAME=TEXT       the same, on, under that name
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting, verbatim_doc_comment)]
    pub(super) encoding: Vec<(String, Option<String>, Box<RawValue>)>,
    /// Decides when retention has removed a client's next records: exactlyOnce and atLeastOnce refuse the client,
    /// atMostOnce goes on with the records that are left. The default is exactlyOnce.
    #[arg(long, value_parser = ["exactlyOnce", "atLeastOnce", "atMostOnce"])]
    pub(super) qos: Option<String>,
    /// Sends each record as a CloudEvent.
    #[arg(long)]
    cloud_events: bool,
    /// A file with the configuration as JSON, or - for standard input. Each argument replaces its member of the file.
    #[arg(long, value_name = "CONFIG.json")]
    file: Option<PathBuf>,
}

/// A configuration: members in order, with unparsed values.
#[derive(Debug)]
pub(super) struct Config(Vec<(String, Box<RawValue>)>);

/// An entry of `x-syncgate.objects`.
#[derive(Serialize)]
struct Entry<'a> {
    object: &'a str,
    url: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    columns: BTreeMap<&'a str, Type<'a>>,
}

#[derive(Serialize)]
struct Type<'a> {
    r#type: &'a str,
}

/// A member of `encoding.json`.
#[derive(Serialize)]
#[serde(untagged)]
enum Setting<'a> {
    One(&'a RawValue),
    Many(BTreeMap<&'a str, &'a RawValue>),
}

impl Shape {
    /// Returns the configuration of the arguments. The gateway checks it.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let mut config = match &self.file {
            Some(file) => Config::read(file)?,
            None => Config(Vec::new()),
        };
        if let Some(stream) = &self.stream {
            config.set("source", &json!({ "trail": stream }));
        }
        if let Some(text) = &self.description {
            config.set("description", text);
        }
        if !self.rules.is_empty() {
            config.set("rules", &self.rules);
        }
        if !self.encoding.is_empty() {
            config.set("encoding", &json_encoding(&self.encoding)?);
        }
        if let Some(word) = &self.qos {
            config.set("qualityOfService", word);
        }
        if self.cloud_events {
            config.set("cloudEventsFormat", &true);
        }
        if !self.objects.is_empty() || !self.columns.is_empty() {
            let entries = self.entries()?;
            #[derive(Serialize)]
            struct View<'a> {
                view: &'static str,
                objects: Vec<Entry<'a>>,
            }
            let view = View {
                view: "operations",
                objects: entries,
            };
            config.set("x-syncgate", &view);
        }
        Ok(config)
    }

    /// Returns an entry for each `--object`. Keys and columns go into one entry of an object, and hold for all of its entries.
    fn entries(&self) -> Result<Vec<Entry<'_>>, Failure> {
        let (mut keyed, mut typed) = (HashSet::new(), HashSet::new());
        let entries = self.objects.iter().map(|(object, url)| {
            let keys: Vec<_> = captures(url).collect();
            let has_keys = !keys.is_empty() && keyed.insert(object);
            let columns = self.columns.iter();
            let own = columns.filter(|(of, ..)| of == object);
            let is_first = typed.insert(object);
            Entry {
                object,
                url,
                keys: if has_keys { keys } else { Vec::new() },
                columns: own
                    .filter(|_| is_first)
                    .map(|(_, name, word)| (&**name, Type { r#type: word }))
                    .collect(),
            }
        });
        let entries: Vec<_> = entries.collect();
        let unknown = self.columns.iter().find(|(of, ..)| !typed.contains(of));
        match unknown {
            Some((object, column, _)) => Err(Failure::usage(format!(
                "--column {object}.{column} is of no --object: give --object {object}=URL too"
            ))),
            None => Ok(entries),
        }
    }
}

impl Config {
    fn read(file: &Path) -> Result<Self, Failure> {
        let shown = file.display();
        let unread = |error: io::Error| Failure::usage(format!("--file {shown}: {error}"));
        let bytes = match file.as_os_str() == "-" {
            false => files::read(file, FILE_BYTES_MAX).map_err(unread)?,
            true => {
                let mut bytes = Vec::new();
                let mut input = io::stdin().lock().take(FILE_BYTES_MAX + 1);
                input.read_to_end(&mut bytes).map_err(unread)?;
                bytes
            }
        };
        let wrong = |what: String| Failure::usage(format!("--file {shown} {what}"));
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(wrong(format!("has more than {FILE_BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8".into()))?;
        let json: &RawValue =
            serde_json::from_str(&text).map_err(|error| wrong(format!("is no JSON: {error}")))?;
        let members = loose::members(json.get());
        let members = members.ok_or_else(|| wrong("is no JSON object".into()))?;
        let owned = members.into_iter();
        let owned = owned.map(|(name, value)| (name.into_owned(), value.to_owned()));
        Ok(Self(owned.collect()))
    }

    /// Sets a member, or replaces it.
    fn set(&mut self, name: &str, value: &impl Serialize) {
        let value = to_raw_value(value).expect("texts, flags and maps of texts are JSON");
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.into(), value)),
        }
    }

    /// Returns the configuration as JSON on one line.
    pub(super) fn json(&self) -> String {
        // JSON allows line breaks only between tokens, so a blank keeps the value.
        format!("{{{}}}", self.members(",")).replace(['\n', '\r'], " ")
    }

    /// Returns the configuration as JSON with a line for each member.
    pub(super) fn lines(&self) -> String {
        match self.0.is_empty() {
            true => "{}\n".into(),
            false => format!("{{\n  {}\n}}\n", self.members(",\n  ")),
        }
    }

    fn members(&self, separator: &str) -> String {
        let members = self.0.iter();
        let members = members.map(|(name, value)| format!("{}: {value}", json!(name)));
        members.collect::<Vec<_>>().join(separator)
    }
}

fn json_encoding(
    settings: &[(String, Option<String>, Box<RawValue>)],
) -> Result<impl Serialize, Failure> {
    let mut members: BTreeMap<&str, Setting<'_>> = BTreeMap::new();
    for (name, inner, value) in settings {
        let twice = || Failure::usage(format!("--encoding {name} is there twice"));
        match inner {
            None => {
                if members.insert(name, Setting::One(value)).is_some() {
                    return Err(twice());
                }
            }
            Some(inner) => {
                let empty = || Setting::Many(BTreeMap::new());
                let Setting::Many(many) = members.entry(name).or_insert_with(empty) else {
                    return Err(twice());
                };
                if many.insert(inner, value).is_some() {
                    return Err(twice());
                }
            }
        }
    }
    Ok(BTreeMap::from([("json", members)]))
}

/// Returns the names in braces of a URL pattern.
fn captures(url: &str) -> impl Iterator<Item = &str> {
    let segments = url.split('/');
    segments.filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn object(text: &str) -> Result<(String, String), &'static str> {
    let parts = text.split_once('=');
    let (object, url) = parts.ok_or("give for example SHOP.ORDERS=https://*/orders/{id}")?;
    Ok((object.into(), url.into()))
}

fn column(text: &str) -> Result<(String, String, String), &'static str> {
    const RIGHT: &str = "give for example SHOP.ORDERS.qty=number";
    let (place, word) = text.rsplit_once('=').ok_or(RIGHT)?;
    let (object, column) = place.rsplit_once('.').ok_or(RIGHT)?;
    Ok((object.into(), column.into(), word.into()))
}

fn setting(text: &str) -> Result<(String, Option<String>, Box<RawValue>), &'static str> {
    let parts = text.split_once('=');
    let (name, value) = parts.ok_or("give for example model=row or metaFields.csn=true")?;
    let value = rule::scalar(value);
    Ok(match name.split_once('.') {
        Some((name, inner)) => (name.into(), Some(inner.into()), value),
        None => (name.into(), None, value),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        shape: Shape,
    }

    fn config(arguments: &[&str]) -> Result<String, String> {
        let arguments = ["create"].iter().chain(arguments);
        let parsed = Arguments::try_parse_from(arguments).map_err(|error| error.to_string())?;
        let config = parsed.shape.config().map_err(|failure| failure.message)?;
        let (lines, json) = (config.lines(), config.json());
        let value: serde_json::Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(
            value,
            serde_json::from_str::<serde_json::Value>(&json).unwrap()
        );
        Ok(json)
    }

    #[track_caller]
    fn check(arguments: &[&str], expected: &str) {
        assert_eq!(config(arguments).as_deref(), Ok(expected));
    }

    #[test]
    fn each_argument_sets_a_member() {
        check(&["--stream", "S"], r#"{"source": {"trail":"S"}}"#);
        check(
            &[
                "--stream",
                "S",
                "--description",
                "a \"b\"",
                "--qos",
                "atMostOnce",
                "--cloud-events",
            ],
            r#"{"source": {"trail":"S"},"description": "a \"b\"","qualityOfService": "atMostOnce","cloudEventsFormat": true}"#,
        );
        check(
            &[
                "--stream",
                "S",
                "--rule",
                "exclude type=ddl",
                "--rule",
                "include object=A.B",
            ],
            r#"{"source": {"trail":"S"},"rules": [{"action":"exclude","filter":{"objectTypes":["DDL"]}},{"action":"include","filter":{"objectNames":["A.B"]}}]}"#,
        );
        check(
            &[
                "--stream",
                "S",
                "--encoding",
                "model=row",
                "--encoding",
                "metaFields.csn=true",
                "--encoding",
                "metaFields.opTs=at",
                "--encoding",
                "staticFields.n=12345678901234567890123",
            ],
            r#"{"source": {"trail":"S"},"encoding": {"json":{"metaFields":{"csn":true,"opTs":"at"},"model":"row","staticFields":{"n":12345678901234567890123}}}}"#,
        );
    }

    #[test]
    fn an_object_has_its_keys_and_columns_once() {
        check(
            &[
                "--stream",
                "S",
                "--object",
                "A.B=https://*/b",
                "--object",
                "A.B=https://*/c/{c}/b/{id}",
                "--object",
                "A.B=https://*/b/{id}",
                "--column",
                "A.B.n=number",
            ],
            r#"{"source": {"trail":"S"},"x-syncgate": {"view":"operations","objects":[{"object":"A.B","url":"https://*/b","columns":{"n":{"type":"number"}}},{"object":"A.B","url":"https://*/c/{c}/b/{id}","keys":["c","id"]},{"object":"A.B","url":"https://*/b/{id}"}]}}"#,
        );
        let wrong = config(&["--stream", "S", "--column", "A.B.n=number"]).unwrap_err();
        assert!(wrong.contains("--object A.B=URL"), "{wrong}");
    }

    #[test]
    fn a_file_is_taken_as_it_stands_but_for_what_arguments_say() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.json");
        let text = "{\"bufferSize\": 131072,\n \"rules\": [{\"action\":\"include\",\"filter\":{\"columnValues\":[{\"value\":1e400}]}}],\n\"source\": {\"trail\": \"a1\"}}";
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let rules =
            r#""rules": [{"action":"include","filter":{"columnValues":[{"value":1e400}]}}]"#;
        let arguments = Arguments::try_parse_from(["create", "--file", file]).unwrap();
        assert_eq!(
            arguments.shape.config().unwrap().json(),
            format!(r#"{{"bufferSize": 131072,{rules},"source": {{"trail": "a1"}}}}"#)
        );
        let arguments = ["create", "--file", file, "--stream", "S", "--cloud-events"];
        let arguments = Arguments::try_parse_from(arguments).unwrap();
        assert_eq!(
            arguments.shape.config().unwrap().json(),
            format!(
                r#"{{"bufferSize": 131072,{rules},"source": {{"trail":"S"}},"cloudEventsFormat": true}}"#
            )
        );
        for (text, what) in [
            ("[]", "is no JSON object"),
            ("{\n x", "is no JSON: key must be a string at line 2"),
        ] {
            std::fs::write(file, text).unwrap();
            let wrong = config(&["--file", file]).unwrap_err();
            assert!(wrong.contains(what), "{wrong}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_its_argument() {
        for (arguments, what) in [
            (&[][..], "--stream"),
            (&["--stream", "S", "--rule", "x"], "--rule"),
            (&["--stream", "S", "--object", "x"], "--object"),
            (&["--stream", "S", "--column", "x=y"], "--column"),
            (&["--stream", "S", "--encoding", "x"], "--encoding"),
            (&["--stream", "S", "--qos", "always"], "exactlyOnce"),
            (
                &["--stream", "S", "--encoding", "a=1", "--encoding", "a=2"],
                "--encoding a is there twice",
            ),
            (
                &["--stream", "S", "--encoding", "a=1", "--encoding", "a.b=2"],
                "--encoding a is there twice",
            ),
        ] {
            let wrong = config(arguments).unwrap_err();
            assert!(wrong.contains(what), "{arguments:?}: {wrong}");
        }
    }
}

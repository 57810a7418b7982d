use serde_json::Value;

use super::*;
use crate::push::resource::strategy;

#[path = "../../../../tests/it/testkit/yaml.rs"]
mod reader;

mod outside;

use reader::read;

const LOCAL: Server<'_> = Server {
    protocol: Protocol::Ws,
    host: "127.0.0.1:9002",
    base_path: "",
    event_prefix: "syncgate.datastream",
    needs_login: false,
};

fn parsed(body: &str) -> Resource {
    Resource::parse(body.as_bytes()).unwrap()
}

fn append() -> ObjectName {
    "SYNCGATE.DataSyncStream".parse().unwrap()
}

fn all(resources: &[(&str, &str)]) -> String {
    let append = append();
    let resources = resources.iter();
    let resources: Vec<(ResourceName, _)> = resources
        .map(|(name, body)| (name.parse().unwrap(), parsed(body)))
        .collect();
    let listed = resources.iter().map(|(name, resource)| Listed {
        name,
        resource,
        append: &append,
    });
    of_all(&LOCAL, &listed.collect::<Vec<_>>())
}

fn one(name: &str, resource: &Resource, layout: Layout) -> String {
    let listed = Listed {
        name: &name.parse().unwrap(),
        resource,
        append: &append(),
    };
    of_one(&LOCAL, &listed, layout)
}

const SMALLEST: &str = r#"{"source":{"trail":"a1"}}"#;

// Renew it with SYNCGATE_RENEW=1.
#[test]
fn the_file_in_asyncapi_is_what_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/asyncapi/syncgate.yaml");
    let served = all(&[("s1", SMALLEST)]);
    if std::env::var_os("SYNCGATE_RENEW").is_some() {
        std::fs::write(path, &served).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap();
    assert!(
        file == served,
        "asyncapi/syncgate.yaml is old; SYNCGATE_RENEW=1 cargo test asyncapi writes it anew:\n{served}"
    );
}

/// Words that are no name of a function in JavaScript, Python, Go or Java.
const RESERVED: &str = "abstract and as assert await boolean break byte case catch chan char class const continue \
    debugger def default defer del delete do double elif else enum eval except export extends fallthrough false False \
    final finally float for from func function global go goto if implements import in instanceof int interface is \
    lambda let long map native new None nonlocal not null or package pass private protected public raise range return \
    select short static strictfp struct super switch synchronized this throw throws transient true True try type \
    typeof var void volatile while with yield _";

/// Whether it can be the name of a function in each of these languages.
fn is_plain_identifier(text: &str) -> bool {
    let of_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(of_word)
        && !RESERVED.split_whitespace().any(|word| word == text)
}

/// Follows a reference of a document.
fn followed<'a>(document: &'a Value, at: &'a Value) -> &'a Value {
    let path = at["$ref"].as_str().and_then(|text| text.strip_prefix('#'));
    document.pointer(path.unwrap()).unwrap()
}

/// Checks the list of `data-streams.md` §5.3, in its order, for the document of one data stream.
fn check_needs(text: &str, server: &Server<'_>, path: &str, layout: Layout) {
    let document = read(text);
    let members = |at: &'static str| document[at].as_object().unwrap();
    // Versions.
    assert_eq!(document["asyncapi"], "3.0.0");
    // Parameters: one server, whose name is given to the template.
    assert_eq!(Vec::from_iter(members("servers").keys()), ["main"]);
    // Without components nothing is generated.
    assert!(!members("components").is_empty());
    // Exactly one channel.
    assert_eq!(members("channels").len(), 1);
    let channel = members("channels").values().next().unwrap();
    // An operation that sends throws; the name of the first one is that of a function.
    assert_eq!(members("operations").len(), 1);
    let (id, operation) = members("operations").iter().next().unwrap();
    assert!(is_plain_identifier(id), "{id}");
    assert_eq!(operation["action"], "receive");
    assert_eq!(followed(&document, &operation["channel"]), channel);
    // The server's path and variables are not looked at: the whole path is the channel's address.
    let main = members("servers")["main"].as_object().unwrap();
    let protocol = match server.protocol {
        Protocol::Ws => "ws",
        Protocol::Wss => "wss",
    };
    assert_eq!(
        (&main["protocol"], &main["host"]),
        (&protocol.into(), &server.host.into())
    );
    let (address, pathname) = match layout {
        Layout::Address => (path, None),
        Layout::Pathname => ("/", Some(Value::from(path))),
    };
    assert_eq!(channel["address"], address);
    assert_eq!(main.get("pathname"), pathname.as_ref());
    let more = usize::from(pathname.is_some()) + usize::from(server.needs_login);
    assert_eq!(main.len(), 2 + more);
    if server.needs_login {
        let scheme = followed(&document, &main["security"][0]);
        assert_eq!(
            (&scheme["type"], &scheme["scheme"]),
            (&"http".into(), &"basic".into())
        );
    }
    // The binding has properties of a query, and begin alone: with two the clients are broken.
    let binding = channel["bindings"]["ws"].as_object().unwrap();
    assert_eq!(binding["bindingVersion"], "0.1.0");
    let query = binding["query"]["properties"].as_object().unwrap();
    assert_eq!(Vec::from_iter(query.keys()), ["begin"]);
    assert_eq!(query["begin"]["default"], "earliest");
    // Only records in arrays are visited; the schema is in the channel's first message.
    let messages = channel["messages"].as_object().unwrap();
    assert_eq!(messages.len(), 1);
    let message = messages.values().next().unwrap();
    assert_eq!(followed(&document, &operation["messages"][0]), message);
    let (key, message) = (messages.keys().next(), followed(&document, message));
    assert_eq!(message["name"].as_str(), key.map(String::as_str));
    for name in ["title", "summary"] {
        assert!(message[name].as_str().is_some_and(|text| !text.is_empty()));
    }
    let payload = &message["payload"];
    assert_eq!(payload["type"], "array");
    assert!(!payload["items"]["oneOf"].as_array().unwrap().is_empty());
    // These stand in a package.json as they are, and the title is the package's name.
    let info = |name: &str| members("info")[name].as_str().unwrap();
    for name in ["title", "version", "description"] {
        let text = info(name);
        let is_bad = |c: char| matches!(c, '"' | '\\') || c.is_control();
        assert!(!text.is_empty() && !text.contains(is_bad), "{name}: {text}");
    }
    let of_package =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let title = info("title");
    assert!(
        title.len() <= 214 && title.bytes().all(of_package),
        "{title}"
    );
    assert!(
        title.starts_with(|c: char| c.is_ascii_lowercase()),
        "{title}"
    );
    let numbers = Vec::from_iter(info("version").split('.').map(str::parse::<u32>));
    assert!(numbers.len() == 3 && numbers.iter().all(Result::is_ok));
}

#[test]
fn the_document_is_what_generators_of_clients_need() {
    let behind_a_proxy = Server {
        protocol: Protocol::Wss,
        host: "gw.example:8443",
        base_path: "/gate",
        event_prefix: "x",
        needs_login: true,
    };
    for body in [
        SMALLEST,
        r#"{"source":{"trail":"a1"},"cloudEventsFormat":true}"#,
        r#"{"source":{"trail":"a1"},"description":"\"quoted\" \\ and\nbroken",
            "x-syncgate":{"view":"operations","objects":[{"object":"S.A","url":"http://h"}]}}"#,
    ] {
        let resource = parsed(body);
        for name in ["s1", "s-1.x", "class", "A._-"] {
            let listed = Listed {
                name: &name.parse().unwrap(),
                resource: &resource,
                append: &append(),
            };
            let path = format!("/services/v2/stream/{name}");
            for layout in [Layout::Address, Layout::Pathname] {
                check_needs(&of_one(&LOCAL, &listed, layout), &LOCAL, &path, layout);
                let text = of_one(&behind_a_proxy, &listed, layout);
                check_needs(&text, &behind_a_proxy, &format!("/gate{path}"), layout);
            }
            // The document of all data streams, if there is one.
            let text = of_all(&LOCAL, &[listed]);
            check_needs(&text, &LOCAL, &path, Layout::Address);
        }
    }
}

#[test]
fn legal_function_names_are_recognised() {
    for good in ["onRecords", "onRecords_class", "a1"] {
        assert!(is_plain_identifier(good), "{good}");
    }
    for bad in [
        "", "1a", "_", "a-b", "a.b", "a b", "class", "def", "func", "let", "ü",
    ] {
        assert!(!is_plain_identifier(bad), "{bad}");
    }
}

#[test]
fn the_payload_schema_has_no_references_and_versions() {
    let titles = |body: &str| {
        let document = read(&one("s1", &parsed(body), Layout::Address));
        let records =
            document["components"]["messages"]["records"]["payload"]["items"]["oneOf"].clone();
        let records = records.as_array().unwrap().clone();
        for record in &records {
            assert_eq!(
                (
                    record.get("id"),
                    record.get("$schema"),
                    record.get("definitions")
                ),
                (None, None, None)
            );
            assert!(!record.to_string().contains("$ref"));
        }
        records
    };
    let names = |records: &[Value]| {
        records
            .iter()
            .map(|r| r["title"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let records = titles(
        r#"{"source":{"trail":"a1"},"x-syncgate":{"view":"operations","objects":[{"object":"S.A","url":"http://h"}]}}"#,
    );
    let expected = [
        "DML record of SYNCGATE.DataSyncStream",
        "DML record of S.A",
        "DDL record of SYNCGATE.DataSyncStream",
        "Object metadata",
        "Stream metadata",
        "Schema record",
    ];
    assert_eq!(names(&records), expected);
    assert_eq!(
        records[0]["properties"]["after"],
        records[0]["properties"]["before"]
    );
    assert_eq!(
        records[0]["properties"]["after"]["properties"]["OFFSET"]["type"],
        "integer"
    );
    let off = r#"{"source":{"trail":"a1"},"encoding":{"json":{"includeJSONSchemaRecord":false,
        "includeObjectMetadataRecords":false,"includeStreamMetadataRecord":false}}}"#;
    assert_eq!(names(&titles(off)), [expected[0], expected[2]]);

    let events = titles(r#"{"source":{"trail":"a1"},"cloudEventsFormat":true}"#);
    assert_eq!(
        events[0]["properties"]["type"]["enum"][0],
        "syncgate.datastream.insert.v1"
    );
    assert_eq!(events[0]["properties"]["data"]["title"], expected[0]);
    assert!(
        events[0]["required"]
            .as_array()
            .unwrap()
            .contains(&"time".into())
    );
    assert_eq!(events[4]["properties"]["data"]["title"], "Schema record");
    assert_eq!(events[4]["properties"].get("time"), None);
}

// Two objects can have the same rows; then a record that does not name its object fits both, which oneOf refuses.
#[test]
fn a_record_that_does_not_say_what_it_is_may_fit_several_schemas() {
    let word = |members: &str, rest: &str| {
        let body = format!(
            r#"{{"source":{{"trail":"a1"}},"encoding":{{"json":{{"metaFields":{{{members}}}}}}}{rest}}}"#
        );
        let document = read(&one("s1", &parsed(&body), Layout::Address));
        let items = &document["components"]["messages"]["records"]["payload"]["items"];
        let words = Vec::from_iter(items.as_object().unwrap().keys());
        assert_eq!(words.len(), 1);
        words[0].clone()
    };
    let objects =
        r#","x-syncgate":{"view":"operations","objects":[{"object":"S.A","url":"http://h"}]}"#;
    let (no_table, no_type) = (r#""qualifiedTable":false"#, r#""opType":false"#);
    assert_eq!(word("", objects), "oneOf");
    assert_eq!(word(no_table, ""), "oneOf");
    assert_eq!(word(no_table, objects), "anyOf");
    assert_eq!(word(no_type, ""), "anyOf");
    assert_eq!(word(no_type, objects), "anyOf");
    // Events say it themselves.
    let events = format!(r#"{objects},"cloudEventsFormat":true"#);
    assert_eq!(word(&format!("{no_table},{no_type}"), &events), "oneOf");
}

#[test]
fn all_streams_have_a_channel_and_an_operation_of_their_own() {
    let document = read(&all(&[
        ("a.b", SMALLEST),
        ("a-b", SMALLEST),
        ("a_b_", SMALLEST),
    ]));
    let keys = |name: &str| {
        document[name]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys("channels"), ["a_b", "a_b_", "a_b__"]);
    assert_eq!(
        keys("operations"),
        ["onRecords_a_b", "onRecords_a_b_", "onRecords_a_b__"]
    );
    let operations = document["operations"].as_object().unwrap();
    assert!(operations.keys().all(|id| is_plain_identifier(id)));
    assert_eq!(
        document["channels"]["a_b_"]["address"],
        "/services/v2/stream/a-b"
    );
    assert_eq!(
        document["channels"]["a_b__"]["address"],
        "/services/v2/stream/a_b_"
    );
    let message = document["operations"]["onRecords_a_b_"]["messages"][0]["$ref"]
        .as_str()
        .unwrap();
    assert_eq!(message, "#/channels/a_b_/messages/records_a_b_");
    assert_eq!(read(&all(&[]))["channels"], serde_json::json!({}));
}

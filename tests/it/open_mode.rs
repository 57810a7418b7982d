//! Without users every caller is administrator: the gateway says so, and is for this machine alone.

use reqwest::Method;
use serde_json::{Value, json};

use crate::testkit::{Place, poll, syncgate};

const HOSTS: &str = "[server]\nhosts = [\"gate.example\"]\n";
const USERS: [(&str, &str); 2] = [
    ("SYNCGATE_ADMIN_USER", "ada"),
    ("SYNCGATE_ADMIN_PASSWORD", "correct horse battery"),
];

fn with_users(place: Place) -> Place {
    let env = |place: Place, (name, value)| place.env(name, value);
    USERS.into_iter().fold(place, env)
}

/// Runs `syncgate check` on a place's file, with its directory.
fn check(place: &Place, users: bool) -> (Option<i32>, String) {
    let mut command = syncgate();
    command
        .arg("check")
        .arg("--config")
        .arg(place.config_file());
    command.env("SYNCGATE_DATA__DIR", place.data());
    command.envs(USERS.into_iter().filter(|_| users));
    let ended = command.output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn settings_for_other_machines_need_users_at_check_start_and_reload() {
    let url = "[server]\npublic_url = \"https://sync.example\"\n";
    for (config, key) in [(HOSTS, "server.hosts"), (url, "server.public_url")] {
        let place = Place::with_config(config);
        let why = format!("line 2: {key}: \"");
        let right = "but there is no user, and without users every caller is administrator: \
                     set SYNCGATE_ADMIN_USER and SYNCGATE_ADMIN_PASSWORD, or remove it";
        let is_told = |said: &str| said.contains(&why) && said.contains(right);
        let (code, said) = check(&place, false);
        assert!(code == Some(2) && is_told(&said), "{said}");
        let refused = place.start_refused().await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && is_told(&said), "{said}");
        assert!(!place.data().exists(), "a refused start has made files");
        assert_eq!(check(&place, true), (Some(0), "ok\n".into()));
        // A user that is stored is one, too. While a gateway runs it alone can look.
        let gateway = with_users(place).start();
        let (code, said) = check(gateway.place(), false);
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("unless a user is stored") && is_told(&said),
            "{said}"
        );
        let place = gateway.stop().await.without_variables();
        assert_eq!(check(&place, false), (Some(0), "ok\n".into()));
        place.start().stop().await;
    }
    // A directory that was used before, without users.
    let place = Place::new().start().stop().await.configured(HOSTS);
    let refused = place.start_refused().await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("line 2: server.hosts: \"gate.example\""),
        "{said}"
    );
    let gateway = place.configured("# nothing yet\n").start();
    let answer = gateway.reload(HOSTS).await;
    let problem = answer.problem(422, "config_invalid");
    assert_eq!(problem["errors"][0]["pointer"], "server.hosts", "{problem}");
    let request = gateway.request(Method::GET, "/v1/streams");
    let request = request.header("host", "gate.example");
    gateway.send(request).await.problem(421, "host_not_allowed");
    // Names of this machine are for nobody else.
    let ours = "[server]\nhosts = [\"localhost\", \"127.0.0.2\"]\npublic_url = \"http://localhost:9002\"\n";
    let place = gateway.stop().await.configured(ours);
    assert_eq!(check(&place, false), (Some(0), "ok\n".into()));
    place.start().stop().await;
}

#[tokio::test]
async fn the_start_says_in_one_line_what_runs_where_for_whom() {
    let version = env!("CARGO_PKG_VERSION");
    for (users, mode) in [
        (false, "open: every caller is administrator"),
        (true, "users"),
    ] {
        let place = Place::with_config("[logging]\nformat = \"json\"\n");
        let place = if users { with_users(place) } else { place };
        let gateway = place.start();
        let line = poll("the line of the start", async || {
            let log = gateway.place().log();
            let mut lines = log
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.find(|line| line["message"] == "serving")
        });
        let line = line.await;
        for (member, value) in [
            ("version", json!(version)),
            ("address", json!(gateway.url)),
            ("mode", json!(mode)),
            ("data", json!(gateway.place().data())),
        ] {
            assert_eq!(line[member], value, "{line}");
        }
        let gateway = gateway.stop().await.configured("# text\n").start();
        let data = gateway.place().data();
        let words = [
            format!("version=\"{version}\""),
            format!("address=\"{}\"", gateway.url),
            format!("mode=\"{mode}\""),
            format!("data={}", data.display()),
        ];
        poll("the same as a text", async || {
            let log = gateway.place().log();
            let is_it = |line: &str| {
                line.contains(" serving ") && words.iter().all(|word| line.contains(word))
            };
            log.lines().any(is_it).then_some(())
        })
        .await;
    }
}

//! Roles and routes of a gateway that has users.

use data_encoding::BASE64;

use super::{super::access::Who, *};
use crate::users::{Administrator, Password, Role, UserName, tests::add};

pub(super) const PASSWORD: &str = "correct horse battery";

/// Every route with its methods and least roles.
const PAGE: &str = "
    POST /stream/sync source
    POST /stream/retry Operator
    GET /v1/streams User
    HEAD /v1/streams User
    POST /v1/streams Administrator
    GET /v1/streams/{stream} User
    HEAD /v1/streams/{stream} User
    PATCH /v1/streams/{stream} Administrator
    DELETE /v1/streams/{stream} Administrator
    POST /v1/streams/{stream}/purge Administrator
    GET /v1/streams/{stream}/partitions User
    HEAD /v1/streams/{stream}/partitions User
    GET /v1/streams/{stream}/partitions/{partition}/records Operator
    HEAD /v1/streams/{stream}/partitions/{partition}/records Operator
    GET /v1/streams/{stream}/partitions/{partition}/records/{offset} Operator
    HEAD /v1/streams/{stream}/partitions/{partition}/records/{offset} Operator
    GET /v1/status User
    HEAD /v1/status User
    GET /v1/ledger User
    HEAD /v1/ledger User
    POST /v1/reload Administrator
    GET /docs public
    HEAD /docs public
    GET /docs/ public
    HEAD /docs/ public
    GET /docs/{page} public
    HEAD /docs/{page} public
    GET /services/v2/stream User
    HEAD /services/v2/stream User
    GET /services/v2/stream/{name} Operator
    HEAD /services/v2/stream/{name} Operator
    POST /services/v2/stream/{name} Administrator
    PATCH /services/v2/stream/{name} Administrator
    DELETE /services/v2/stream/{name} Administrator
    GET /services/v2/stream/{name}/yaml User
    HEAD /services/v2/stream/{name}/yaml User
    PATCH /services/v2/stream/{name}/yaml Administrator
    GET /v1/data-streams/{name}/cursors User
    HEAD /v1/data-streams/{name}/cursors User
    GET /v1/data-streams/{name}/cursors/{cursor} User
    HEAD /v1/data-streams/{name}/cursors/{cursor} User
    PUT /v1/data-streams/{name}/cursors/{cursor} Operator
    DELETE /v1/data-streams/{name}/cursors/{cursor} Operator
    POST /v1/data-streams/{name}/cursors/{cursor}/ack Operator
    GET /asyncapi.yaml User
    HEAD /asyncapi.yaml User
    GET /healthz public
    HEAD /healthz public
    GET /readyz public
    HEAD /readyz public
    GET /metrics User
    HEAD /metrics User";

/// An edge with `ada`, an administrator, `olga`, an operator, and `uwe`, a user.
pub(super) async fn guarded(change: impl FnOnce(&mut Config)) -> Edge {
    let engine = Memory::new();
    let mut config = Config::default();
    change(&mut config);
    for (_, name) in config.roles.all() {
        let made = engine.create_stream(name.clone(), 1, StreamConfig::default());
        made.await.unwrap();
    }
    add(&*engine, "olga", Role::Operator, PASSWORD).await;
    add(&*engine, "uwe", Role::User, PASSWORD).await;
    let administrator = Administrator {
        name: UserName::new("ada").unwrap(),
        password: Password::new(PASSWORD).unwrap(),
    };
    let users = Users::open(engine.clone(), Some(&administrator)).await;
    Edge::with_users(users.unwrap(), engine.clone(), engine, &config).await
}

pub(super) fn basic(name: &str, password: &str) -> String {
    let shown = format!("{name}:{password}");
    format!("Basic {}", BASE64.encode(shown.as_bytes()))
}

impl Edge {
    pub(super) async fn with_header(&self, method: &str, path: &str, authorization: &str) -> Reply {
        self.send(method, path, &[("authorization", authorization)], "")
            .await
    }
}

/// The path of a route, with existing names.
fn real(path: &str) -> String {
    path.replace("{stream}", "DataSyncStream")
        .replace("{name}", "s1")
        .replace("{cursor}", "c1")
        .replace("{partition}", "0")
        .replace("{offset}", "0")
        .replace("{page}", "settings")
}

fn routes() -> impl Iterator<Item = (&'static str, &'static str, Who)> {
    ROUTES.iter().flat_map(|(path, methods)| {
        let single = |(names, who): &(&'static str, Who)| {
            let who = *who;
            names.split(',').map(move |method| (method, who))
        };
        let all: Vec<_> = methods.iter().flat_map(single).collect();
        all.into_iter()
            .map(move |(method, who)| (method, *path, who))
    })
}

#[test]
fn the_table_of_routes_has_these_roles() {
    let word = |who| match who {
        Who::Public => "public",
        Who::Source => "source",
        Who::User => "User",
        Who::Operator => "Operator",
        Who::Administrator => "Administrator",
    };
    let mut table: Vec<_> = routes()
        .map(|(method, path, who)| format!("{method} {path} {}", word(who)))
        .collect();
    let mut page: Vec<_> = PAGE
        .trim()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    table.sort();
    page.sort();
    assert_eq!(table, page);
}

#[tokio::test]
async fn each_role_may_use_its_routes_and_others_only_public_ones() {
    let edge = guarded(|_| {}).await;
    edge.append("DataSyncStream", vec![record("k", "{}")]).await;
    for (method, path, who) in routes() {
        let least = match who {
            Who::Public | Who::Source => None,
            Who::User => Some(Role::User),
            Who::Operator => Some(Role::Operator),
            Who::Administrator => Some(Role::Administrator),
        };
        let path = real(path);
        let answer = edge.send(method, &path, &[], "").await;
        let refused = answer.status == 401;
        assert_eq!(
            refused,
            least.is_some(),
            "{method} {path}: {}",
            answer.status
        );
        assert_eq!(answer.headers.contains_key("www-authenticate"), refused);
        for (name, role) in [
            ("uwe", Role::User),
            ("olga", Role::Operator),
            ("ada", Role::Administrator),
        ] {
            let answer = edge
                .with_header(method, &path, &basic(name, PASSWORD))
                .await;
            let forbidden = Some(role) < least;
            assert_eq!(answer.status == 403, forbidden, "{name} {method} {path}");
            assert_ne!(answer.status, 401, "{name} {method} {path}");
            if forbidden && method != "HEAD" {
                let problem = answer.check_problem(403, "forbidden");
                let told = problem["detail"].as_str().unwrap();
                assert!(told.ends_with(least.unwrap().word()), "{told}");
            }
        }
    }
}

#[tokio::test]
async fn missing_and_wrong_credentials_are_refused_first() {
    let edge = guarded(|_| {}).await;
    let wrong = basic("ada", "another password");
    // Existing and unknown routes, unknown methods, wrong bodies.
    for (method, path) in [
        ("GET", "/v1/streams"),
        ("POST", "/stream/retry"),
        ("GET", "/metrics"),
        ("GET", "/asyncapi.yaml"),
        ("GET", "/services/v2/stream"),
        ("POST", "/services/v2/stream/s1"),
        ("GET", "/v1"),
        ("GET", "/v1/nowhere"),
        ("TRACE", "/v1/streams"),
    ] {
        let answer = edge.send(method, path, &[], "no JSON").await;
        let missing = answer.check_problem(401, "unauthenticated");
        assert_eq!(
            answer.header("www-authenticate"),
            "Basic realm=\"syncgate\", charset=\"UTF-8\""
        );
        let answer = edge.with_header(method, path, &wrong).await;
        let told = answer.check_problem(401, "unauthenticated");
        assert_eq!(
            answer.header("www-authenticate"),
            "Basic realm=\"syncgate\", charset=\"UTF-8\""
        );
        assert_eq!(told["detail"], "the name or the password is wrong");
        assert_ne!(missing["detail"], told["detail"]);
    }
    let right = basic("ada", PASSWORD);
    for path in ["/services/v2/stream/s1", "/v1", "/v1/nowhere"] {
        let answer = edge.with_header("GET", path, &right).await;
        answer.check_problem(404, "not_found");
    }
    let answer = edge.with_header("TRACE", "/v1/streams", &right).await;
    answer.check_problem(405, "method_not_allowed");
    assert!(edge.retries.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn credentials_of_another_scheme_are_wrong_and_not_missing() {
    let edge = guarded(|_| {}).await;
    let right = basic("ada", PASSWORD);
    assert_eq!(
        edge.with_header("GET", "/v1/streams", &right).await.status,
        200
    );
    for wrong in [
        "",
        "Basic",
        "Basic !",
        "Basic YWRh",
        "Basic /zr/",
        &right.replace("Basic", "Bearer"),
        &basic("bob", PASSWORD),
        &basic("Ada", PASSWORD),
        &basic("ada", ""),
    ] {
        let answer = edge.with_header("GET", "/v1/streams", wrong).await;
        let problem = answer.check_problem(401, "unauthenticated");
        let detail = "the name or the password is wrong";
        assert_eq!(problem["detail"], detail, "{wrong}");
    }
    let twice = [("authorization", &*right), ("authorization", &*right)];
    let answer = edge.send("GET", "/v1/streams", &twice, "").await;
    answer.check_problem(401, "unauthenticated");
}

#[tokio::test]
async fn public_routes_need_no_credentials() {
    let edge = guarded(|_| {}).await;
    let wrong = basic("ada", "another password");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(edge.get(path).await.status, 200, "{path}");
        assert_eq!(edge.with_header("GET", path, &wrong).await.status, 200);
    }
    edge.get("/nowhere").await.check_problem(404, "not_found");
    // On this route the header is the token for the target.
    assert_eq!(edge.sync(GOOD).await.status, 200);
    let headers = [("authorization", &*wrong)];
    let answer = edge.send("POST", "/stream/sync", &headers, GOOD).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = edge.get("/stream/sync").await;
    answer.check_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn metrics_are_public_if_the_setting_says_so_and_nothing_else_is() {
    let edge = guarded(|config| config.metrics.public = true).await;
    assert_eq!(edge.get("/metrics").await.status, 200);
    edge.get("/metrics/x")
        .await
        .check_problem(401, "unauthenticated");
    edge.get("/v1/streams")
        .await
        .check_problem(401, "unauthenticated");
}

#[tokio::test]
async fn foreign_pages_are_refused_even_with_a_right_password() {
    let edge = guarded(|_| {}).await;
    let right = basic("ada", PASSWORD);
    let headers = [("host", "evil.example"), ("authorization", &right)];
    let answer = edge.send("GET", "/v1/streams", &headers, "").await;
    answer.check_problem(421, "host_not_allowed");
    let headers = [
        ("origin", "https://evil.example"),
        ("authorization", &right),
    ];
    let answer = edge.send("POST", "/v1/reload", &headers, "").await;
    answer.check_problem(403, "origin_not_allowed");
}

#[tokio::test]
async fn failed_logins_are_counted_and_requests_without_credentials_are_not() {
    let edge = guarded(|_| {}).await;
    let right = basic("ada", PASSWORD);
    edge.get("/metrics")
        .await
        .check_problem(401, "unauthenticated");
    for wrong in ["Basic x", &basic("ada", "x"), &basic("bob", PASSWORD)] {
        edge.with_header("GET", "/metrics", wrong)
            .await
            .check_problem(401, "unauthenticated");
    }
    let metrics = edge.with_header("GET", "/metrics", &right).await;
    let line = "syncgate_failed_logins_total 3";
    assert!(
        metrics.text().lines().any(|shown| shown == line),
        "{}",
        metrics.text()
    );
}

#[tokio::test]
async fn a_purge_keeps_its_user_and_its_reason() {
    let edge = guarded(|_| {}).await;
    let right = basic("ada", PASSWORD);
    let headers = [("authorization", &*right)];
    let path = "/v1/streams/DefaultErrorStream";
    let body = r#"{"reason":"wrong target"}"#;
    let purge = format!("{path}/purge");
    let done = edge.send("POST", &purge, &headers, body).await;
    assert_eq!(done.status, 200);
    let shown = edge.with_header("GET", path, &right).await.json();
    assert_eq!(shown["lastPurge"]["by"], "ada", "{shown}");
    assert_eq!(shown["lastPurge"]["reason"], "wrong target");
}

//! Routes, their methods, hosts and origins, and readiness.

use super::*;

#[tokio::test]
async fn every_route_has_its_methods_and_no_other() {
    let edge = Edge::plain().await;
    edge.append("DataSyncStream", vec![record("k", "{}")]).await;
    for name in ["s1", "s2"] {
        let path = format!("/services/v2/stream/{name}");
        let config = r#"{"source":{"trail":"DataSyncStream"}}"#;
        let made = edge.send("POST", &path, &[], config).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    for cursor in ["c1", "c2"] {
        let path = format!("/v1/data-streams/s2/cursors/{cursor}");
        let put = edge.send("PUT", &path, &[], r#"{"begin":"now"}"#).await;
        assert_eq!(put.status, 200, "{}", put.text());
    }
    for (path, methods) in ROUTES {
        let methods: Vec<_> = methods.iter().map(|(names, _)| *names).collect();
        let methods = methods.join(",");
        let path = filled(path);
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE",
        ] {
            let answer = edge.send(method, &path, &[], "").await;
            let built = methods.split(',').any(|other| other == method);
            assert_eq!(
                answer.status != 405,
                built,
                "{method} {path}: {}",
                answer.status
            );
            assert_ne!(answer.status, 404, "{method} {path}");
            if !built {
                assert_eq!(answer.header("allow"), methods, "{method} {path}");
                if method != "HEAD" {
                    answer.check_problem(405, "method_not_allowed");
                }
            }
        }
        edge.get(&format!("{path}/x/y/z"))
            .await
            .check_problem(404, "not_found");
    }
    for path in [
        "/",
        "/stream",
        "/stream/sync/",
        "/v1",
        "/v1/streams/DataSyncStream/messages",
        "/openapi.json",
        "/console",
        "/v1/streams/%2e%2e/partitions/0",
        "/v1/streams/%ff",
        "/v1/streams/DataSyncStream/partitions/%ff/records",
    ] {
        edge.get(path).await.check_problem(404, "not_found");
    }
}

/// Returns a path of a route, with existing names in its variable parts.
fn filled(route: &str) -> String {
    route
        .replace("{stream}", "DataSyncStream")
        .replace("{name}/yaml", "s2/yaml")
        .replace("{name}/cursors", "s2/cursors")
        .replace("{cursor}/ack", "c2/ack")
        .replace("{cursor}", "c1")
        .replace("{name}", "s1")
        .replace("{partition}", "0")
        .replace("{offset}", "0")
        .replace("{page}", "settings")
}

#[tokio::test]
async fn every_route_refuses_unknown_parameters() {
    let edge = Edge::plain().await;
    edge.append("DataSyncStream", vec![record("k", "{}")]).await;
    let config = r#"{"source":{"trail":"DataSyncStream"}}"#;
    let made = edge.post("/services/v2/stream/s2", config).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let upgrade = [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    let readers: [&[(&str, &str)]; 3] = [&[], &upgrade, &[("accept", "text/event-stream")]];
    for (route, methods) in ROUTES {
        let path = filled(route);
        let methods = methods.iter().flat_map(|(names, _)| names.split(','));
        for (method, headers) in methods.flat_map(|method| readers.map(|headers| (method, headers)))
        {
            for query in ["begn=now", "x=1&x=1", "=", "Limit=1"] {
                let at = format!("{path}?{query}");
                let answer = edge.send(method, &at, headers, config).await;
                assert_eq!(answer.status, 400, "{method} {at}: {}", answer.text());
                if method == "HEAD" {
                    continue;
                }
                let problem = answer.check_problem(400, "invalid_request");
                let detail = problem["detail"].as_str().unwrap();
                let name = query.split('=').next().unwrap();
                let named = format!("query parameter \"{name}\" is unknown: this route takes ");
                assert!(detail.starts_with(&named), "{method} {at}: {detail}");
                // The refusal lists the parameters of the route, and the route accepts each of them.
                let known = detail[named.len()..].split(';').next().unwrap();
                for known in known.split(", ").filter(|known| *known != "none") {
                    let at = format!("{path}?{known}=1&{known}=1");
                    let answer = edge.send(method, &at, headers, config).await;
                    let problem = answer.check_problem(400, "invalid_request");
                    let twice = format!("query parameter \"{known}\" is there more than once");
                    assert_eq!(problem["detail"], twice, "{method} {at}");
                }
            }
        }
    }
    let stream = edge.get("/services/v2/stream/s1").await;
    stream.check_problem(404, "not_found");
    assert_eq!(edge.get("/services/v2/stream/s2").await.status, 200);
    assert_eq!(
        edge.get("/v1/data-streams/s2/cursors").await.json()["items"],
        json!([])
    );
    let begn = edge.get("/services/v2/stream/s2?begn=now").await;
    let said = begn.json()["messages"][0].clone();
    assert_eq!(said["code"], "OGG-12135", "{said}");
    let title = said["title"].as_str().unwrap();
    assert!(
        title.ends_with("takes begin, cursor, takeover; did you mean \"begin\"?"),
        "{title}"
    );
}

#[tokio::test]
async fn every_route_that_takes_json_says_where_a_body_breaks() {
    let edge = Edge::plain().await;
    edge.append("DataSyncStream", vec![record("k", "{}")]).await;
    for name in ["s1", "s2"] {
        let path = format!("/services/v2/stream/{name}");
        let made = edge
            .post(&path, r#"{"source":{"trail":"DataSyncStream"}}"#)
            .await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    for cursor in ["c1", "c2"] {
        let path = format!("/v1/data-streams/s2/cursors/{cursor}");
        let put = edge.send("PUT", &path, &[], r#"{"begin":"now"}"#).await;
        assert_eq!(put.status, 200, "{}", put.text());
    }
    let routes = ROUTES.iter().flat_map(|(route, methods)| {
        let methods = methods.iter().flat_map(|(names, _)| names.split(','));
        methods.map(move |method| (method, *route))
    });
    let takes_json = |(method, route): &(&str, &str)| {
        matches!(*method, "POST" | "PUT" | "PATCH") && !route.ends_with("/yaml")
    };
    let routes: Vec<_> = routes.filter(takes_json).collect();
    assert!(routes.len() >= 10, "{routes:?}");
    for (method, route) in routes {
        let path = filled(route);
        for (body, line, column) in [
            ("[1", 1, 2),
            ("[1'", 1, 3),
            ("[\n1,\n}", 3, 1),
            ("{\"a\":1", 1, 6),
            ("{\"a\" 1}", 1, 6),
            ("\n {]", 2, 3),
            ("\"abc", 1, 4),
            ("nul", 1, 3),
            ("1 2", 1, 3),
            ("{}\n}", 2, 1),
        ] {
            let answer = edge.send(method, &path, &[], body).await;
            assert_eq!(answer.status, 400, "{method} {path}: {}", answer.text());
            let told = format!("this is not JSON: it breaks at line {line}, column {column}");
            let said = answer.text();
            assert!(said.contains(&told), "{method} {path} {body:?}: {said}");
        }
        // JSON that is not an object gets another fault.
        let answer = edge.send(method, &path, &[], "[1]").await;
        assert_eq!(answer.status, 400, "{method} {path}: {}", answer.text());
        assert!(answer.text().contains("object"), "{}", answer.text());
    }
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let edge = Edge::plain().await;
    for path in ["/metrics", "/v1/streams", "/nowhere"] {
        let answer = edge
            .send("GET", path, &[("host", "evil.example")], "")
            .await;
        answer.check_problem(421, "host_not_allowed");
    }
    for path in ["/healthz", "/readyz"] {
        let answer = edge.send("GET", path, &[("host", "10.1.2.3:9")], "").await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let foreign = [("origin", "https://evil.example")];
    edge.send("POST", "/stream/sync", &foreign, GOOD)
        .await
        .check_problem(403, "origin_not_allowed");
    edge.send("DELETE", "/v1/streams/DataSyncStream", &foreign, "")
        .await
        .check_problem(403, "origin_not_allowed");
    assert_eq!(
        edge.send("GET", "/v1/streams", &foreign, "").await.status,
        200
    );
    // The published samples send credentials with every request.
    let basic = [("authorization", "Basic bmFtZTpwc3dk")];
    assert_eq!(
        edge.send("GET", "/v1/streams", &basic, "").await.status,
        200
    );
    let absolute =
        "GET http://evil.example/metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    edge.raw(absolute)
        .await
        .check_problem(421, "host_not_allowed");
}

#[tokio::test]
async fn readiness_names_its_reasons() {
    let edge = Edge::plain().await;
    assert_eq!(edge.get("/healthz").await.json(), json!({"status": "ok"}));
    let ready = json!({"status": "ready", "secretsFullPercent": 0});
    assert_eq!(edge.get("/readyz").await.json(), ready);
    for (health, reason) in [
        (Health::SpaceLow, "disk_free_min"),
        (Health::DiskFull, "disk_full"),
        (Health::DiskStalled, "disk_stalled"),
        (Health::Stopped("x".into()), "log_stopped"),
    ] {
        edge.engine.set_health(health);
        let answer = edge.get("/readyz").await;
        assert_eq!(
            (answer.status, answer.json()),
            (503, json!({"reasons": [reason], "secretsFullPercent": 0}))
        );
        assert_eq!(edge.get("/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn messages_are_issued_by_the_clock_that_was_given() {
    let edge = Edge::plain().await;
    let answer = edge.get("/services/v2/stream/none").await;
    assert_eq!(answer.status, 404);
    // The time of the clock of this edge.
    let issued = &answer.json()["messages"][0]["issued"];
    assert_eq!(issued, "1970-01-01T00:00:00.000001Z");
    let config = r#"{"source":{"trail":"DataSyncStream"},"bufferSize":1}"#;
    let made = edge
        .send("POST", "/services/v2/stream/s1", &[], config)
        .await;
    for message in made.json()["messages"].as_array().unwrap() {
        assert_eq!(message["issued"], "1970-01-01T00:00:00.000001Z");
    }
}

#[tokio::test]
async fn the_envelope_is_only_for_paths_below_its_own() {
    let edge = Edge::plain().await;
    let enveloped = |answer: &Reply| answer.header("content-type") == "application/json";
    for path in ["/services/v2", "/services/v2/x"] {
        assert!(enveloped(&edge.get(path).await), "{path}");
    }
    for path in ["/services/v2x", "/services/v2x/stream/s1", "/services"] {
        assert!(!enveloped(&edge.get(path).await), "{path}");
    }
}

#[tokio::test]
async fn data_streams_are_listed_page_by_page() {
    let edge = Edge::plain().await;
    let description = "d".repeat(4_000);
    for name in ["s1", "s2", "s3", "s4", "s5"] {
        let config = json!({"source": {"trail": "DataSyncStream"}, "description": description});
        let path = format!("/services/v2/stream/{name}");
        let made = edge.post(&path, config.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let names = |page: &Value| -> Vec<String> {
        let items = page["response"]["items"].as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let next = |page: &Value| {
        let mut links = page["links"].as_array().unwrap().iter();
        let next = links.find(|link| link["rel"] == "next")?;
        let (_, path) = next["href"]
            .as_str()
            .unwrap()
            .split_once("localhost")
            .unwrap();
        Some(path.to_owned())
    };
    let whole = edge.get("/services/v2/stream").await.json();
    assert_eq!(names(&whole), ["s1", "s2", "s3", "s4", "s5"]);
    assert_eq!(next(&whole), None);
    let item = &whole["response"]["items"][0];
    assert_eq!(item["$schema"], "ogg:collectionItem");
    assert_eq!(item["description"], description);
    assert_eq!(item["status"], "stopped");
    assert_eq!(item["links"][1]["rel"], "canonical");
    let (mut all, mut path) = (Vec::new(), Some("/services/v2/stream?limit=2".to_owned()));
    while let Some(at) = path {
        let page = edge.get(&at).await.json();
        assert!(names(&page).len() <= 2);
        all.extend(names(&page));
        path = next(&page);
    }
    assert_eq!(all, names(&whole));
    for wrong in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "more=1",
        "after=a&after=b",
    ] {
        let answer = edge.get(&format!("/services/v2/stream?{wrong}")).await;
        answer.check_problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_page_of_data_streams_ends_early_by_its_bytes() {
    let edge = Edge::plain().await;
    let names = vec![format!("{}.x", "n".repeat(60)); 500];
    let filter = json!({"relation": "AND", "negate": false, "objectNames": names});
    let rules = vec![json!({"action": "exclude", "filter": filter}); 4];
    let config = json!({"source": {"trail": "DataSyncStream"}, "rules": rules}).to_string();
    for name in ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"] {
        let made = edge
            .post(&format!("/services/v2/stream/{name}"), &config)
            .await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let page = edge.get("/services/v2/stream").await;
    assert!(page.body.len() < 3 << 19, "{}", page.body.len());
    let page = page.json();
    let len = page["response"]["items"].as_array().unwrap().len();
    assert!((1..8).contains(&len), "{len}");
    let link = &page["links"][2];
    let href = format!("http://localhost/services/v2/stream?limit=1000&after=s{len}");
    assert_eq!(
        (&link["rel"], &link["href"]),
        (&json!("next"), &json!(href))
    );
}

#[tokio::test]
async fn pages_of_configured_origins_may_ask_before_and_read_the_answers() {
    let ours = "https://console.example";
    let edge = Edge::start(|config| config.server.cors_origins = vec![ours.into()]).await;
    let ask = |origin: &'static str, path: &'static str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "DELETE"),
            ("access-control-request-headers", "authorization, x-other"),
        ];
        let edge = &edge;
        async move { edge.send("OPTIONS", path, &headers, "").await }
    };
    let allowed = ask(ours, "/v1/streams/DataSyncStream").await;
    assert_eq!((allowed.status, allowed.text()), (204, ""));
    for (name, value) in [
        ("access-control-allow-origin", ours),
        ("access-control-allow-methods", "GET, HEAD, PATCH, DELETE"),
        ("access-control-allow-headers", "authorization, x-other"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(allowed.header(name), value, "{name}");
    }
    assert!(allowed.header("vary").contains("Origin"));
    let sync = ask(ours, "/stream/sync").await;
    assert_eq!(sync.header("access-control-allow-methods"), "POST");
    // Other origins and other paths get the usual answer.
    let foreign = ask("https://evil.example", "/v1/streams").await;
    assert_eq!(foreign.status, 405);
    assert_eq!(foreign.header("access-control-allow-origin"), "");
    let nowhere = ask(ours, "/v1/nowhere").await;
    assert_eq!(nowhere.status, 404);
    let plain = edge
        .send("OPTIONS", "/v1/streams", &[("origin", ours)], "")
        .await;
    assert_eq!(plain.status, 405);
    // Answers and refusals can be read.
    for (method, path, status) in [
        ("GET", "/v1/streams", 200),
        ("GET", "/v1/nowhere", 404),
        ("POST", "/stream/sync", 400),
    ] {
        let with = edge.send(method, path, &[("origin", ours)], "").await;
        assert_eq!(with.status, status, "{path}");
        assert_eq!(with.header("access-control-allow-origin"), ours, "{path}");
        assert!(
            with.header("access-control-expose-headers")
                .contains("X-Message-Id")
        );
        let without = edge.send(method, path, &[], "").await;
        assert_eq!(without.header("access-control-allow-origin"), "", "{path}");
    }
}

#[tokio::test]
async fn reserved_names_are_not_made() {
    let edge = Edge::plain().await;
    for name in ["audit", "responses"] {
        let body = json!({ "name": name }).to_string();
        let problem = edge.post("/v1/streams", body).await;
        let problem = problem.check_problem(400, "invalid_request");
        assert_eq!(problem["errors"][0]["pointer"], "/name", "{problem}");
    }
    assert_eq!(
        edge.post("/v1/streams", r#"{"name":"audits"}"#)
            .await
            .status,
        201
    );
}

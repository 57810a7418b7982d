//! Which routes there are, who may call them, and how the gateway is.

use super::*;

#[tokio::test]
async fn every_route_is_there_with_its_methods_and_no_other_is() {
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
        let path = path
            .replace("{stream}", "DataSyncStream")
            .replace("{name}/yaml", "s2/yaml")
            .replace("{name}/cursors", "s2/cursors")
            .replace("{cursor}/ack", "c2/ack")
            .replace("{cursor}", "c1")
            .replace("{name}", "s1")
            .replace("{partition}", "0")
            .replace("{offset}", "0");
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

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let edge = Edge::plain().await;
    for path in ["/healthz", "/v1/streams", "/nowhere"] {
        let answer = edge
            .send("GET", path, &[("host", "evil.example")], "")
            .await;
        answer.check_problem(421, "host_not_allowed");
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
    // The published samples send name and password to everything.
    let basic = [("authorization", "Basic bmFtZTpwc3dk")];
    assert_eq!(
        edge.send("GET", "/v1/streams", &basic, "").await.status,
        200
    );
    let absolute =
        "GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    edge.raw(absolute)
        .await
        .check_problem(421, "host_not_allowed");
}

#[tokio::test]
async fn readiness_tells_why_not() {
    let edge = Edge::plain().await;
    assert_eq!(edge.get("/healthz").await.json(), json!({"status": "ok"}));
    assert_eq!(edge.get("/readyz").await.json(), json!({"status": "ready"}));
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
            (503, json!({"reasons": [reason]}))
        );
        assert_eq!(edge.get("/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn messages_are_issued_by_the_clock_that_was_given() {
    let edge = Edge::plain().await;
    let answer = edge.get("/services/v2/stream/none").await;
    assert_eq!(answer.status, 404);
    // Where the clock of this edge stands.
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

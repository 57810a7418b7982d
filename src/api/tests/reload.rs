//! `POST /v1/reload`, and settings that are replaced while requests are served.

use super::*;
use crate::{
    config::{ConfigError, ConfigErrors, SettingPlace},
    storage::StreamError,
};

impl Edge {
    fn answer_reload(&self, answer: Result<Reloaded, ReloadError>) {
        *self.reloads.0.lock().unwrap() = Some(answer);
    }

    fn set(&self, change: impl FnOnce(&mut Config)) {
        let mut config = Config::default();
        change(&mut config);
        self.settings.set(Arc::new(Settings::new(&config).unwrap()));
    }
}

#[tokio::test]
async fn a_reload_tells_what_is_applied_and_what_waits() {
    let edge = Edge::plain().await;
    edge.answer_reload(Ok(Reloaded {
        applied: vec!["outcomes.401".into()],
        needs_restart: vec!["log.cache_bytes".into()],
    }));
    let told = json!({"applied": ["outcomes.401"], "needsRestart": ["log.cache_bytes"]});
    assert_eq!(edge.post("/v1/reload", "").await.json(), told);
    let nothing = json!({"applied": [], "needsRestart": []});
    for body in ["{}", " {} ", "\n"] {
        assert_eq!(edge.post("/v1/reload", body).await.json(), nothing);
    }
    for body in [r#"{"force":true}"#, "[]", "x"] {
        edge.post("/v1/reload", body)
            .await
            .check_problem(400, "invalid_request");
    }
    edge.post("/v1/reload?x=1", "")
        .await
        .check_problem(400, "invalid_request");
}

#[tokio::test]
async fn a_failed_reload_says_why() {
    let edge = Edge::plain().await;
    let wrong = |key: &str, place, message: &str| ConfigError {
        key: key.into(),
        place,
        message: message.into(),
    };
    edge.answer_reload(Err(ReloadError::Invalid(ConfigErrors(vec![
        wrong(
            "server.grace_ms",
            SettingPlace::File {
                path: "gate.toml".into(),
                line: Some(4),
            },
            "is 7, but must be 8",
        ),
        wrong("sync.answer", SettingPlace::Default, "is wrong"),
    ]))));
    let problem = edge
        .post("/v1/reload", "")
        .await
        .check_problem(422, "config_invalid");
    let errors = json!([
        {"pointer": "server.grace_ms", "code": "setting_invalid", "detail": "gate.toml, line 4: is 7, but must be 8"},
        {"pointer": "sync.answer", "code": "setting_invalid", "detail": "is wrong"}
    ]);
    assert_eq!(problem["errors"], errors);
    edge.answer_reload(Err(ReloadError::Stream {
        name: "Orders".parse().unwrap(),
        source: StreamError::Commit(CommitError::DiskFull),
    }));
    let problem = edge
        .post("/v1/reload", "")
        .await
        .check_problem(507, "disk_full");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("stream Orders") && detail.contains("no setting is applied"));
    edge.answer_reload(Err(ReloadError::Busy(NotPaused)));
    let problem = edge
        .post("/v1/reload", "")
        .await
        .check_problem(503, "queue_full");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("nothing is applied")
    );
    edge.answer_reload(Err(ReloadError::Stopping));
    edge.post("/v1/reload", "")
        .await
        .check_problem(503, "draining");
}

#[tokio::test]
async fn a_reload_changes_the_bound_on_connections() {
    let edge = Edge::start(|config| config.server.connections_max = 2).await;
    let open = || async {
        let mut open = TcpStream::connect(edge.address).await.unwrap();
        open.write_all(HEALTH).await.unwrap();
        open
    };
    let (mut first, mut second) = (open().await, open().await);
    is_served(&mut first).await;
    is_served(&mut second).await;
    let mut third = open().await;
    waits(&third, &mut first).await;
    edge.set(|config| config.server.connections_max = 3);
    is_served(&mut third).await;
    edge.set(|config| config.server.connections_max = 1);
    let mut fourth = open().await;
    waits(&fourth, &mut first).await;
    drop(first);
    waits(&fourth, &mut second).await;
    drop(second);
    waits(&fourth, &mut third).await;
    drop(third);
    is_served(&mut fourth).await;
}

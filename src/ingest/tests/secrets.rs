//! Tokens of submissions, and secrets that messages name.

use super::*;

#[tokio::test]
async fn a_token_is_stored_with_its_record_and_one_commit() {
    let bench = bench(1, |_| {}).await;
    let before = bench.engine.commits_len();
    let send = |token, body: String| bench.send(Form::Json, Some(token), body);
    send("Bearer one", GOOD.into()).await.unwrap();
    send("Bearer two", GOOD.into()).await.unwrap();
    send("Bearer one", GOOD.into()).await.unwrap();
    send("Bearer x", with("789", "")).await.unwrap();
    assert_eq!(bench.engine.commits_len(), before + 4);
    let records = bench.records(0).await;
    let header = |at: usize, name| records[at].headers.get(name).unwrap().to_owned();
    let version = |at| (header(at, "secret-name"), header(at, "secret-version"));
    assert_eq!(version(0), ("789".into(), "1".into()));
    assert_eq!(version(1), ("789".into(), "2".into()));
    assert_eq!(version(2), ("789".into(), "1".into()));
    assert!(version(3).0.starts_with("auto-"));
    let state = bench.engine.state_text();
    assert!(!state.contains("Bearer"), "{state}");
}

#[tokio::test]
async fn naming_a_secret_warns_if_it_is_unknown_and_is_refused_for_another_target() {
    let bench = bench(1, |_| {}).await;
    let accepted = bench.json(GOOD).await.unwrap();
    assert_eq!(accepted.placed[0].warnings, [Warning::SecretUnknown]);
    bench.send(Form::Json, Some("t"), GOOD).await.unwrap();
    let accepted = bench.json(GOOD).await.unwrap();
    assert!(accepted.placed[0].warnings.is_empty());
    let records = bench.records(0).await;
    assert_eq!(records[2].headers.get("secret-name"), Some("789"));
    assert_eq!(
        records[2].headers.get("secret-version"),
        None,
        "the newest at the time of the call"
    );
    let evil = with("127.0.0.1:9", "127.0.0.1:10");
    let refused = bench.json(evil.clone()).await.unwrap_err();
    assert!(
        matches!(refused, Error::SecretNotForTarget { pointer } if pointer == "/streamMessage/vaultSecretName")
    );
    let refused = bench.json(format!("[{GOOD},{evil}]")).await.unwrap_err();
    assert!(
        matches!(refused, Error::SecretNotForTarget { pointer } if pointer == "/1/streamMessage/vaultSecretName")
    );
    assert_eq!(
        bench.records(0).await.len(),
        3,
        "nothing of a refused batch is stored"
    );
}

#[tokio::test]
async fn a_lost_race_is_run_again_and_a_refusal_is_passed_on() {
    let bench = bench(1, |_| {}).await;
    let conflict = || CommitError::StateConflict { key: "k".into() };
    for _ in 0..3 {
        bench.engine.refuse(conflict());
    }
    bench.send(Form::Json, Some("t"), GOOD).await.unwrap();
    assert_eq!(bench.records(0).await.len(), 1);
    for _ in 0..RACES_MAX {
        bench.engine.refuse(conflict());
    }
    let refused = bench.json(GOOD).await.unwrap_err();
    assert!(matches!(refused, Error::Commit(CommitError::Busy)));
    bench.engine.refuse(CommitError::DiskFull);
    assert!(matches!(
        bench.json(GOOD).await,
        Err(Error::Commit(CommitError::DiskFull))
    ));
    assert_eq!(bench.records(0).await.len(), 1);
}

#[tokio::test]
async fn first_submissions_at_once_make_one_version_each() {
    let bench = bench(1, |_| {}).await;
    let tokens: Vec<_> = (0..40).map(|n| format!("t{}", n % 4)).collect();
    let sent = tokens
        .iter()
        .map(|token| bench.send(Form::Json, Some(token), GOOD));
    for accepted in futures_util::future::join_all(sent).await {
        accepted.unwrap();
    }
    let versions: std::collections::HashSet<_> = bench
        .records(0)
        .await
        .iter()
        .map(|record| record.headers.get("secret-version").unwrap().to_owned())
        .collect();
    assert_eq!(versions.len(), 4);
}

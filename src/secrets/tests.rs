use std::sync::Arc;

use super::*;
use crate::storage;
use crate::storage::memory::Memory;

fn origin(url: &str) -> Origin {
    Origin::of(url).unwrap()
}

async fn open(engine: &Arc<Memory>) -> Secrets {
    let master = MasterKey::from_bytes([7; 32]);
    Secrets::open(engine.clone(), &master).await.unwrap()
}

/// Presents a token and stores what that changes.
async fn present(
    engine: &Arc<Memory>,
    secrets: &Secrets,
    name: Option<&str>,
    token: &str,
    target: &str,
) -> (Arc<str>, u32, usize) {
    let target = origin(target);
    let prepared = secrets.prepare("default", name, token, &target).await;
    let prepared = prepared.unwrap();
    let changes = prepared.changes.len();
    let commit = Commit {
        state: prepared.changes,
        ..Commit::default()
    };
    if changes > 0 {
        crate::storage::Log::commit(&**engine, commit)
            .await
            .unwrap();
    }
    (prepared.name, prepared.version, changes)
}

async fn revealed(
    secrets: &Secrets,
    name: &str,
    version: Option<u32>,
    target: &str,
) -> Result<String, RevealError> {
    let revealed = secrets
        .reveal("default", name, version, &origin(target))
        .await;
    revealed.map(|value| String::from(&*value))
}

#[tokio::test]
async fn the_same_token_is_the_same_version_and_another_one_a_new_one() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    let present = |token| present(&engine, &secrets, Some("n"), token, "http://a/");
    assert_eq!(present("Bearer one").await, ("n".into(), 1, 2));
    for _ in 0..3 {
        assert_eq!(present("Bearer one").await, ("n".into(), 1, 0));
    }
    assert_eq!(present("Bearer two").await, ("n".into(), 2, 2));
    assert_eq!(present("Bearer one").await, ("n".into(), 1, 0));
    let both = [
        (Some(1), "Bearer one"),
        (Some(2), "Bearer two"),
        (None, "Bearer two"),
    ];
    for (version, token) in both {
        assert_eq!(
            revealed(&secrets, "n", version, "http://a").await.unwrap(),
            token
        );
    }
}

#[tokio::test]
async fn presenting_adds_a_target_and_naming_does_not() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    present(&engine, &secrets, Some("n"), "t1", "http://a/").await;
    let evil = origin("http://evil/");
    assert_eq!(
        secrets.allowed("default", "n", &evil).await,
        Err(NotForTarget)
    );
    assert_eq!(
        secrets.allowed("default", "n", &origin("http://a")).await,
        Ok(true)
    );
    assert_eq!(secrets.allowed("default", "other", &evil).await, Ok(false));
    assert_eq!(secrets.allowed("stranger", "n", &evil).await, Ok(false));
    for version in [None, Some(1)] {
        let refused = revealed(&secrets, "n", version, "http://evil").await;
        assert_eq!(refused, Err(RevealError::NotForTarget));
    }
    // Another port or scheme is another target.
    for near in ["http://a:81", "https://a"] {
        assert_eq!(
            revealed(&secrets, "n", None, near).await,
            Err(RevealError::NotForTarget)
        );
    }
    // Somebody's own token under this name does not open the older one to his target.
    present(&engine, &secrets, Some("n"), "mine", "http://evil/").await;
    assert_eq!(
        revealed(&secrets, "n", None, "http://evil").await.unwrap(),
        "mine"
    );
    assert_eq!(
        revealed(&secrets, "n", Some(1), "http://evil").await,
        Err(RevealError::NotForTarget)
    );
    assert_eq!(
        revealed(&secrets, "n", None, "http://a").await.unwrap(),
        "t1"
    );
    // The value was cached for one target before the second was added.
    assert_eq!(
        present(&engine, &secrets, Some("n"), "t1", "http://b/").await,
        ("n".into(), 1, 2)
    );
    assert_eq!(
        revealed(&secrets, "n", Some(1), "http://b").await.unwrap(),
        "t1"
    );
}

#[tokio::test]
async fn a_token_without_a_name_gets_one_of_its_own() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    let (name, version, _) = present(&engine, &secrets, None, "t1", "http://a/").await;
    assert!(
        name.starts_with("auto-") && name.len() == 25 && name_is_valid(&name),
        "{name}"
    );
    assert_eq!(version, 1);
    assert_eq!(
        present(&engine, &secrets, None, "t1", "http://a/").await,
        (name.clone(), 1, 0)
    );
    let (other, ..) = present(&engine, &secrets, None, "t2", "http://a/").await;
    assert_ne!(name, other);
    let elsewhere = Secrets::open(Memory::new(), &MasterKey::from_bytes([8; 32]))
        .await
        .unwrap();
    let prepared = elsewhere
        .prepare("default", None, "t1", &origin("http://a"))
        .await
        .unwrap();
    assert_ne!(
        prepared.name, name,
        "the name depends on the key, so it tells nothing"
    );
}

#[tokio::test]
async fn a_draft_sees_its_own_changes() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    let mut draft = secrets.draft("default", "t1");
    for target in ["http://a", "http://b", "http://a"] {
        let used = draft.add(Some("n"), &origin(target)).await.unwrap();
        assert_eq!((&*used.state_key, used.version), ("secret/default/n/1", 1));
    }
    assert_eq!(
        draft
            .add(Some("m"), &origin("http://a"))
            .await
            .unwrap()
            .version,
        1
    );
    assert_eq!(format!("{draft:?}"), "Draft(***)");
    let state = draft.into_changes().await.unwrap().state;
    assert_eq!(state.len(), 4, "a index and a version for each name");
    let commit = Commit {
        state,
        ..Commit::default()
    };
    crate::storage::Log::commit(&*engine, commit).await.unwrap();
    for target in ["http://a", "http://b"] {
        assert_eq!(revealed(&secrets, "n", None, target).await.unwrap(), "t1");
    }
}

#[tokio::test]
async fn of_two_racing_drafts_one_is_refused_and_draws_again() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    let target = origin("http://a");
    let first = secrets
        .prepare("default", Some("n"), "t1", &target)
        .await
        .unwrap();
    let second = secrets
        .prepare("default", Some("n"), "t2", &target)
        .await
        .unwrap();
    let commit = |state| {
        let commit = Commit {
            state,
            ..Commit::default()
        };
        crate::storage::Log::commit(&*engine, commit)
    };
    commit(first.changes).await.unwrap();
    let refused = commit(second.changes).await.unwrap_err();
    assert!(
        matches!(refused, CommitError::StateConflict { .. }),
        "{refused}"
    );
    let again = secrets
        .prepare("default", Some("n"), "t2", &target)
        .await
        .unwrap();
    assert_eq!(again.version, 2);
    commit(again.changes).await.unwrap();
    assert_eq!(
        revealed(&secrets, "n", Some(1), "http://a").await.unwrap(),
        "t1"
    );
    assert_eq!(
        revealed(&secrets, "n", Some(2), "http://a").await.unwrap(),
        "t2"
    );
}

#[tokio::test]
async fn nothing_readable_is_stored_and_nothing_is_shown() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    present(
        &engine,
        &secrets,
        Some("n"),
        "Bearer TOPSECRET",
        "http://a/",
    )
    .await;
    let state = engine.state_text();
    assert!(!state.contains("TOPSECRET") && !state.contains(&BASE64.encode(b"Bearer TOPSECRET")));
    let revealed = secrets
        .reveal("default", "n", None, &origin("http://a"))
        .await
        .unwrap();
    assert_eq!(format!("{revealed:?}"), "***");
    for shown in [
        format!("{secrets:?}"),
        format!("{:?}", secrets.draft("default", "TOPSECRET")),
    ] {
        assert!(!shown.contains("TOPSECRET"), "{shown}");
    }
}

#[tokio::test]
async fn another_master_key_stops_the_start() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    present(&engine, &secrets, Some("n"), "t1", "http://a/").await;
    open(&engine).await;
    let wrong = MasterKey::from_bytes([8; 32]);
    for _ in 0..2 {
        let refused = Secrets::open(engine.clone(), &wrong).await;
        assert!(matches!(refused, Err(OpenError::WrongKey)));
        // Without the mark it is what is sealed that tells.
        let mark = StateChange {
            key: version_index::KEY_CHECK.into(),
            value: None,
            expected: None,
        };
        let commit = Commit {
            state: vec![mark],
            ..Commit::default()
        };
        storage::Log::commit(&*engine, commit).await.unwrap();
    }
    let secrets = open(&engine).await;
    assert_eq!(
        revealed(&secrets, "n", None, "http://a").await.unwrap(),
        "t1"
    );
}

#[tokio::test]
async fn a_key_for_which_nothing_is_sealed_may_be_replaced() {
    let engine = Memory::new();
    open(&engine).await;
    let other = MasterKey::from_bytes([8; 32]);
    let secrets = Secrets::open(engine.clone(), &other).await.unwrap();
    present(&engine, &secrets, Some("n"), "t1", "http://a/").await;
    let before = MasterKey::from_bytes([7; 32]);
    let refused = Secrets::open(engine.clone(), &before).await;
    assert!(matches!(refused, Err(OpenError::WrongKey)));
    assert!(Kept::in_engine(&*engine).await.is_opened_by(&other));
}

#[tokio::test]
async fn secrets_that_are_given_up_free_the_key_and_no_version_is_used_again() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    for token in ["t1", "t2", "t3"] {
        present(&engine, &secrets, Some("n"), token, "http://a/").await;
    }
    present(&engine, &secrets, Some("m"), "t", "http://a/").await;
    let (derived, ..) = present(&engine, &secrets, None, "t", "http://a/").await;
    let kept = Kept::in_engine(&*engine).await;
    assert_eq!(kept.tokens_len(), 5);
    for (source, name, is_kept) in [
        ("default", "n", true),
        ("default", &*derived, true),
        ("default", "o", false),
        ("other", "n", false),
    ] {
        assert_eq!(kept.has(source, name), is_kept, "{source} {name}");
    }
    assert_eq!(Kept::forget(&*engine).await.unwrap(), 5);
    assert_eq!(engine.state_text().trim(), "secret/passed=3");
    // Again changes nothing.
    assert_eq!(Kept::forget(&*engine).await.unwrap(), 0);
    assert_eq!(engine.state_text().trim(), "secret/passed=3");
    let other = MasterKey::from_bytes([8; 32]);
    let secrets = Secrets::open(engine.clone(), &other).await.unwrap();
    let gone = revealed(&secrets, "n", Some(3), "http://a").await;
    assert_eq!(gone, Err(RevealError::Unknown));
    let again = present(&engine, &secrets, Some("n"), "t4", "http://a/").await;
    assert_eq!(
        again.1, 4,
        "a record that names version 3 finds no other token"
    );
}

#[tokio::test]
async fn what_was_changed_behind_our_back_does_not_open() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    present(&engine, &secrets, Some("n"), "t1", "http://a/").await;
    // A target written into the stored list: the seal does not fit it, and an honest submission does not seal it in.
    engine.tamper("secret/default/n/1", |value| {
        let text = String::from_utf8(value.clone()).unwrap();
        *value = text.replace("http://a:80", "http://evil:80").into_bytes();
    });
    let fresh = open(&engine).await;
    for target in ["http://evil", "http://a"] {
        assert_eq!(
            revealed(&fresh, "n", Some(1), target).await,
            Err(RevealError::Unreadable)
        );
        let prepared = fresh
            .prepare("default", Some("n"), "t1", &origin(target))
            .await;
        assert_eq!(prepared.unwrap_err(), PrepareError::Unreadable);
    }
    engine.tamper("secret/default/n", |value| value.truncate(3));
    let prepared = fresh
        .prepare("default", Some("n"), "t2", &origin("http://a"))
        .await;
    assert_eq!(prepared.unwrap_err(), PrepareError::Unreadable);
}

#[tokio::test]
async fn names_that_are_none_reach_nothing() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    present(&engine, &secrets, Some("n"), "t1", "http://a/").await;
    for name in ["", "n/1", "../n", "ä", "a b", &"x".repeat(256)] {
        let prepared = secrets
            .prepare("default", Some(name), "t", &origin("http://a"))
            .await;
        assert_eq!(prepared.unwrap_err(), PrepareError::NameInvalid, "{name}");
        for version in [None, Some(1)] {
            assert_eq!(
                revealed(&secrets, name, version, "http://a").await,
                Err(RevealError::Unknown)
            );
        }
    }
    assert_eq!(
        revealed(&secrets, "n", Some(9), "http://a").await,
        Err(RevealError::Unknown)
    );
    let long = "t".repeat(TOKEN_BYTES_MAX + 1);
    let prepared = secrets
        .prepare("default", None, &long, &origin("http://a"))
        .await;
    assert_eq!(prepared.unwrap_err(), PrepareError::TokenTooLong);
}

#[tokio::test]
async fn a_secret_has_a_bound_of_targets() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    let mut draft = secrets.draft("default", "t");
    for port in 1..=512 {
        let target = origin(&format!("http://a:{port}"));
        draft.add(Some("n"), &target).await.unwrap();
    }
    let one_more = draft.add(Some("n"), &origin("http://a:600")).await;
    assert_eq!(one_more.unwrap_err(), PrepareError::TooManyTargets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_another_makes_at_that_moment_is_no_broken_one() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    let (target, tasks) = (origin("http://a"), crate::runtime::tasks::Tasks::new());
    for round in 0..4000 {
        let name = format!("n{round}");
        let (others, of_other, named) = (engine.clone(), secrets.clone(), name.clone());
        tasks.spawn("the other", async move {
            present(&others, &of_other, Some(&named), "t1", "http://a/").await;
        });
        // Until it sees the other one's secret, it makes its own; the commit tells which of them is late.
        loop {
            let drafted = secrets.prepare("default", Some(&name), "t2", &target);
            if drafted.await.unwrap().version == 2 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_opened_secret_is_opened_for_its_own_targets_only() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    present(&engine, &secrets, Some("n"), "t1", "http://a/").await;
    for _ in 0..2 {
        // It lies open in memory from the first of these on.
        assert_eq!(
            revealed(&secrets, "n", Some(1), "http://a").await.unwrap(),
            "t1"
        );
        for other in ["http://evil", "http://a:81", "https://a"] {
            let refused = revealed(&secrets, "n", Some(1), other).await;
            assert_eq!(refused, Err(RevealError::NotForTarget), "{other}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_well_known_for_one_port_is_stored_for_another() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    let present = |target| present(&engine, &secrets, Some("n"), "t1", target);
    assert_eq!(present("http://a:81").await.2, 2);
    for _ in 0..3 {
        assert_eq!(present("http://a:81").await.2, 0);
    }
    for other in ["http://a:82", "https://a:81", "http://b:81"] {
        assert_eq!(present(other).await.2, 2, "{other}");
        assert_eq!(revealed(&secrets, "n", Some(1), other).await.unwrap(), "t1");
        assert_eq!(present(other).await.2, 0, "{other}");
    }
}

/// Fills the share with versions of 16 KB tokens: of one name, and of derived names.
async fn fill(engine: &Arc<Memory>, secrets: &Secrets) -> usize {
    let share = storage::shares::SHARES
        .iter()
        .find(|share| share.kind == "tokens");
    let bytes_max = share.unwrap().bytes_max;
    for number in 0.. {
        let bytes = crate::storage::State::share_bytes(&**engine)[0];
        if bytes + (60 << 10) > bytes_max {
            return number;
        }
        let name = (number % 2 == 0).then_some("login");
        present(engine, secrets, name, &long(number), "http://a/").await;
    }
    unreachable!("the share is full before");
}

/// Stores a token, once there is room; returns its version and what gave way.
async fn keep(
    engine: &Arc<Memory>,
    secrets: &Secrets,
    name: &str,
    token: &str,
) -> (u32, Vec<String>) {
    let kept = async {
        loop {
            let mut draft = secrets.draft("default", token);
            let used = draft.add(Some(name), &origin("http://a/")).await.unwrap();
            let changes = match draft.into_changes().await {
                Ok(changes) => changes,
                // It is not looked for more often than it was said.
                Err(
                    PrepareError::Full | PrepareError::RecordsUnreadable | PrepareError::MakingRoom,
                ) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let commit = Commit {
                state: changes.state,
                unreferred_since: changes.unreferred_since,
                ..Commit::default()
            };
            storage::Log::commit(&**engine, commit).await.unwrap();
            secrets.stored(&changes.gone);
            let gone = changes.gone.iter().map(|key| key.to_string()).collect();
            return (used.version, gone);
        }
    };
    storage::conformance::in_time(kept).await
}

fn long(number: usize) -> String {
    format!("{number:0>16000}")
}

#[tokio::test]
async fn the_newest_token_of_a_name_gives_way_last_and_its_versions_are_not_used_again() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    // The oldest of all, and the only one of its name.
    present(&engine, &secrets, Some("once"), "t1", "http://a/").await;
    let filled = fill(&engine, &secrets).await;
    let mut gone = Vec::new();
    for number in 0..filled + 20 {
        let token = long(10_000 + number);
        gone.extend(keep(&engine, &secrets, "other", &token).await.1);
    }
    assert!(gone.len() >= filled, "{} of {filled}", gone.len());
    // All that were replaced have gone, the oldest first, and the one that somebody may name has not.
    assert_eq!(gone[0], "secret/default/login/1");
    assert!(!gone.contains(&"secret/default/once/1".to_owned()));
    assert_eq!(
        revealed(&secrets, "once", None, "http://a").await.unwrap(),
        "t1"
    );
    let gone_version = revealed(&secrets, "login", Some(1), "http://a").await;
    assert_eq!(gone_version, Err(RevealError::Unknown));
    assert_eq!(secrets.gone().get(), gone.len() as u64);
    // A token that comes again is a new version: no record may find it under a number that another token had.
    let (newest, _) = keep(&engine, &secrets, "login", &long(0)).await;
    assert!(newest as usize > filled / 2, "{newest}");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_keeps_all_tokens_and_is_named_as_the_reason() {
    use storage::conformance::{append, make, part, record};
    let engine = Memory::new();
    let secrets = open(&engine).await;
    let of = part(make(&*engine, "src", 1).await.as_ref(), 0);
    let commit = Commit {
        appends: vec![append(of, vec![record("a")])],
        ..Commit::default()
    };
    storage::Log::commit(&*engine, commit).await.unwrap();
    engine.damage(of, Some(crate::model::ids::Offset(0)));
    fill(&engine, &secrets).await;
    let before = engine.state_text();
    let wide = "w".repeat(TOKEN_BYTES_MAX);
    // Also between two searches.
    let mut refused = Vec::new();
    for number in 0..8 {
        let mut draft = secrets.draft("default", &wide[number..]);
        for part in 0..4 {
            let name = format!("other{part}");
            draft.add(Some(&name), &origin("http://a/")).await.unwrap();
        }
        refused.push(draft.into_changes().await.map(|_| ()));
    }
    assert_eq!(refused, vec![Err(PrepareError::RecordsUnreadable); 8]);
    assert_eq!(engine.state_text(), before);
    // What can be read again needs none of them.
    engine.damage(of, None);
    let (_, gone) = keep(&engine, &secrets, "other", &long(1)).await;
    assert_eq!(gone, Vec::<String>::new());
    for number in 2..12 {
        keep(&engine, &secrets, "other", &long(number)).await;
    }
    assert!(secrets.gone().get() > 0);
}

#[tokio::test]
async fn a_name_that_is_gone_goes_on_behind_its_last_version() {
    let engine = Memory::new();
    let secrets = open(&engine).await;
    let mut last = std::collections::HashMap::<String, u32>::new();
    // Names that nobody else names: all of them are the newest, so these have to go.
    for number in 0..900 {
        let name = format!("n{}", number % 400);
        let (version, _) = keep(&engine, &secrets, &name, &long(number)).await;
        let before = last.insert(name.clone(), version);
        assert!(
            before.is_none_or(|before| before < version),
            "{name}: {before:?}"
        );
        let own = revealed(&secrets, &name, Some(version), "http://a").await;
        assert_eq!(own.unwrap(), long(number));
    }
    assert!(secrets.gone().get() > 400);
    let state = engine.state_text();
    assert!(state.contains("secret/passed="));
    // Heads go with their last version.
    let indexes = state
        .lines()
        .filter(|line| line.split('=').next().unwrap().matches('/').count() == 2);
    assert!(indexes.count() < 400);
    // After a restart it is all there.
    let secrets = open(&engine).await;
    let own = revealed(&secrets, "n99", None, "http://a").await;
    assert_eq!(own.unwrap(), long(899));
}

//! Users on an engine in memory: creation, authentication, and the cost of a check.

use futures_util::future::join_all;

use super::{digest::Memory as WorkingMemory, *};
use crate::{
    runtime::cache::Cache,
    storage::{Log as _, State as _, memory::Memory},
};

const PASSWORD: &str = "correct horse battery";

fn administrator(name: &str, password: &str) -> Administrator {
    Administrator {
        name: UserName::new(name).unwrap(),
        password: Password::new(password).unwrap(),
    }
}

async fn open(engine: &Arc<Memory>, name: &str, password: &str) -> Users {
    let administrator = administrator(name, password);
    let opened = Users::open(engine.clone(), Some(&administrator)).await;
    opened.unwrap().expect("there is a user")
}

/// Stores a user of that role beside the administrator.
pub(crate) async fn add(engine: &dyn Engine, name: &str, role: Role, password: &str) {
    let digest = Digest::of(password, &mut WorkingMemory::default()).unwrap();
    let value = Stored { role, digest }.write();
    let name = UserName::new(name).unwrap();
    put(engine, &name, value, 0).await.unwrap();
}

fn known(name: &str, role: Role) -> Result<User, Refused> {
    let name = UserName::new(name).unwrap();
    Ok(User { name, role })
}

fn wrong(name: &str) -> Result<User, Refused> {
    Err(Refused::Wrong(Some(UserName::new(name).unwrap())))
}

#[tokio::test]
async fn without_users_there_is_none_to_ask() {
    let engine = Memory::new();
    assert!(Users::open(engine, None).await.unwrap().is_none());
}

#[tokio::test]
async fn the_administrator_is_known_by_name_and_password_and_nobody_else_is() {
    let users = open(&Memory::new(), "ada", PASSWORD).await;
    for _again in 0..2 {
        assert_eq!(
            users.verify("ada", PASSWORD).await,
            known("ada", Role::Administrator)
        );
        assert_eq!(users.verify("ada", "correct horse").await, wrong("ada"));
        assert_eq!(users.verify("ada", "").await, wrong("ada"));
        for nobody in ["Ada", "ada ", "", "ada:x", "\n", &"x".repeat(9000)] {
            let asked = users.verify(nobody, PASSWORD).await;
            assert_eq!(asked, Err(Refused::Wrong(None)), "{nobody:?}");
        }
    }
}

#[tokio::test]
async fn the_environment_wins_and_what_it_says_already_is_not_written_again() {
    let engine = Memory::new();
    open(&engine, "ada", PASSWORD).await;
    let entry = async || engine.get("user/ada").await.unwrap();
    let first = entry().await;
    assert!(!String::from_utf8_lossy(&first.value).contains("horse"));
    let users = open(&engine, "ada", PASSWORD).await;
    assert_eq!(entry().await, first);
    assert!(users.verify("ada", PASSWORD).await.is_ok());

    let other = open(&engine, "ada", "another password").await;
    assert_ne!(entry().await, first);
    // Also who remembers the old one does not take it any more.
    for users in [users, other] {
        assert_eq!(users.verify("ada", PASSWORD).await, wrong("ada"));
        assert!(users.verify("ada", "another password").await.is_ok());
    }
    // Without the variables the last ones stay.
    let users = Users::open(engine.clone(), None).await.unwrap().unwrap();
    assert!(users.verify("ada", "another password").await.is_ok());
}

#[tokio::test]
async fn a_stored_user_gets_the_role_and_the_others_keep_theirs() {
    let engine = Memory::new();
    add(&*engine, "ada", Role::User, PASSWORD).await;
    add(&*engine, "bob", Role::Operator, PASSWORD).await;
    let users = open(&engine, "ada", PASSWORD).await;
    assert_eq!(
        users.verify("ada", PASSWORD).await,
        known("ada", Role::Administrator)
    );
    assert_eq!(
        users.verify("bob", PASSWORD).await,
        known("bob", Role::Operator)
    );
}

#[tokio::test]
async fn an_old_digest_is_made_anew_and_the_password_stays() {
    let engine = Memory::new();
    let old = {
        use argon2::{
            Argon2, Params,
            password_hash::{PasswordHasher, SaltString},
        };
        let params = Params::new(64, 3, 4, Some(32)).unwrap();
        let hasher = Argon2::new(Default::default(), Default::default(), params);
        let salt = SaltString::encode_b64(&[7; 16]).unwrap();
        let digest = hasher.hash_password(PASSWORD.as_bytes(), &salt).unwrap();
        Digest::parse(&digest.to_string()).unwrap()
    };
    let role = Role::Administrator;
    let value = Stored { role, digest: old }.write();
    let name = UserName::new("ada").unwrap();
    put(&*engine, &name, value, 0).await.unwrap();
    let users = open(&engine, "ada", PASSWORD).await;
    let entry = engine.get("user/ada").await.unwrap();
    assert!(Stored::read(&entry.value).unwrap().digest.is_current());
    assert!(users.verify("ada", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn a_user_that_cannot_be_read_stops_the_start() {
    for key in ["user/ada", "user/", "user/a:b"] {
        let engine = Memory::new();
        let change = StateChange {
            key: key.into(),
            value: Some("{\"v\":2}".into()),
            expected: None,
        };
        let commit = Commit {
            state: vec![change],
            ..Commit::default()
        };
        engine.commit(commit).await.unwrap();
        for administrator in [None, Some(administrator("ada", PASSWORD))] {
            let opened = Users::open(engine.clone(), administrator.as_ref()).await;
            let why = opened.unwrap_err();
            assert!(matches!(why, OpenError::Unreadable(_)), "{key}: {why}");
        }
    }
}

/// Time stands still but for the waits.
#[tokio::test(start_paused = true)]
async fn guesses_are_bounded_and_hold_up_nobody_who_is_known() {
    let users = open(&Memory::new(), "ada", PASSWORD).await;
    users.verify("ada", PASSWORD).await.unwrap();
    // All turns are taken, so who comes now waits, and who comes after those is refused.
    let checks = users.checks.clone();
    let turns = checks.running.available_permits();
    let turns = checks.running.acquire_many(u32::try_from(turns).unwrap());
    let turns = turns.await.unwrap();
    let places = checks.waiting.available_permits();
    let guesses = (0..places + 8).map(|n| {
        let users = users.clone();
        async move { users.verify("nobody", &n.to_string()).await }
    });
    let guesses = async {
        let answers = join_all(guesses).await;
        let refused = answers
            .iter()
            .filter(|answer| **answer == Err(Refused::Busy));
        // Nobody got a turn: eight found no place, the others waited in vain.
        assert_eq!(refused.count(), places + 8);
    };
    let (is_known, ()) = tokio::join!(users.verify("ada", PASSWORD), guesses);
    assert!(is_known.is_ok());
    drop(turns);
    assert_eq!(checks.waiting.available_permits(), places);
    assert_eq!(users.verify("ada", "guess").await, wrong("ada"));
}

#[tokio::test]
async fn many_checks_take_no_more_memory_than_those_that_run_at_once() {
    let users = open(&Memory::new(), "ada", PASSWORD).await;
    let turns = users.checks.running.available_permits();
    let guesses = (0..8).map(|n| {
        let users = users.clone();
        async move { users.verify("nobody", &n.to_string()).await }
    });
    for answer in join_all(guesses).await {
        assert_eq!(answer, Err(Refused::Wrong(None)));
    }
    let kept = users.checks.memories().len();
    assert!((1..=turns).contains(&kept), "{kept} for {turns}");
}

#[tokio::test]
async fn only_what_was_verified_is_remembered() {
    let users = open(&Memory::new(), "ada", PASSWORD).await;
    drop(users.verify("ada", "guess").await);
    drop(users.verify("nobody", PASSWORD).await);
    let empty = format!(
        "{:?}",
        Cache::<[u8; 32], ()>::new(super::verify::KNOWN_LEN_MAX)
    );
    assert_eq!(format!("{:?}", users.checks.known()), empty);
    users.verify("ada", PASSWORD).await.unwrap();
    assert_ne!(format!("{:?}", users.checks.known()), empty);
}

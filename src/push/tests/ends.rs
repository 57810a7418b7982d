//! How subscriptions end, and changes that end none.

use super::*;

/// Push as a whole, with the data stream `s1`.
struct Whole {
    shown: Shown,
    push: Push,
    _tasks: Tasks,
}

impl Whole {
    async fn new(partitions: u16, clients_max: usize) -> Self {
        let shown = Shown::new(partitions).await;
        let tasks = Tasks::new();
        let settings = Settings {
            clients_max,
            ..Settings::from(&Config::default())
        };
        let clock = Clock::manual(Timestamp(1));
        let push = Push::open(shown.streams.clone(), clock, settings, &tasks);
        let push = push.await.unwrap();
        let config = br#"{"source":{"trail":"Shown"},"bufferSize":131072}"#;
        push.create("s1".parse().unwrap(), config).await.unwrap();
        Self {
            shown,
            push,
            _tasks: tasks,
        }
    }

    async fn subscribe(&self, begin: &str) -> Result<Subscription, SubscribeError> {
        let begin = Some(begin.to_owned());
        let asked = Asked {
            begin,
            ..Asked::default()
        };
        self.push.subscribe(&"s1".parse().unwrap(), asked).await
    }

    fn seats_taken(&self) -> usize {
        self.push.0.seats_taken.load(Ordering::Relaxed)
    }
}

/// The `xid`s of the records for a subscriber, without schemas and metadata.
async fn ready(subscription: &mut Subscription) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        // A large frame is made in several turns.
        let turns = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        let frame = tokio::select! {
            biased;
            frame = subscription.next() => frame,
            () = turns => return all,
        };
        let text = frame.unwrap().text();
        let records: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
        let xids = records.iter().filter_map(|record| record["xid"].as_str());
        all.extend(xids.map(str::to_owned));
    }
}

#[tokio::test]
async fn a_future_time_is_waited_for_and_earlier_records_are_not_sent() {
    for (micros, expected) in [
        // From the growth on, which has that time; a little before; a little later; the last commit; later than all.
        (2_000_000, vec!["ddl.2", "1.0", "0.2", "1.1"]),
        (1_999_999, vec!["ddl.2", "1.0", "0.2", "1.1"]),
        (2_000_001, vec!["1.0", "0.2", "1.1"]),
        (3_000_000, vec!["1.0", "0.2", "1.1"]),
        (3_000_001, vec!["0.2", "1.1"]),
        (4_000_000, vec!["0.2", "1.1"]),
        (4_000_001, vec![]),
    ] {
        let whole = Whole::new(1, 10).await;
        let now = whole.shown.commit(&[0], "").await;
        let begin = now.plus_micros(micros).to_string();
        let mut subscription = whole.subscribe(&begin).await.unwrap();
        // Where it will be is no place yet.
        assert_eq!(subscription.pos(), None);
        assert_eq!(ready(&mut subscription).await, [""; 0]);
        let mut sent = Vec::new();
        for step in 1..=4 {
            let time = match step {
                2 => {
                    whole.shown.grow(2).await;
                    now.plus_micros(2_000_000)
                }
                1 => whole.shown.commit(&[0], "").await,
                3 => whole.shown.commit(&[1], "").await,
                _ => whole.shown.commit(&[0, 1], "").await,
            };
            assert_eq!(time, now.plus_micros(step * 1_000_000));
            let came = ready(&mut subscription).await;
            assert!(came.is_empty() || time >= now.plus_micros(micros));
            sent.extend(came);
        }
        assert_eq!(sent, expected, "{micros}");
        assert_eq!(subscription.pos().is_some(), !expected.is_empty());
        // A later subscriber to the same time gets the same.
        let mut later = whole.subscribe(&begin).await.unwrap();
        assert_eq!(ready(&mut later).await, expected, "{micros}");
    }
}

/// Changes that end a data stream for its subscribers.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Change,
    Delete,
    DeleteLog,
}

#[tokio::test]
async fn every_subscriber_ends_as_its_data_stream_does_and_leaves_its_seat() {
    const LEN: usize = 6;
    for ends in [Ends::Change, Ends::Delete, Ends::DeleteLog] {
        let whole = Whole::new(1, LEN).await;
        let name = "s1".parse().unwrap();
        for _ in 0..4 {
            // A frame has one of them.
            let value = format!("\"{}\"", "x".repeat(100_000));
            whole.shown.commit_value(&[0], "", &value).await;
        }
        let begins = [
            "earliest",
            "earliest",
            "earliest",
            "earliest",
            "now",
            "2999-01-01",
        ];
        let mut all = Vec::new();
        for begin in begins {
            all.push(whole.subscribe(begin).await.unwrap());
        }
        let one_more = whole.subscribe("now").await;
        assert!(matches!(one_more, Err(SubscribeError::Full)));
        // Subscribers at each stage: before the first frame, within the schemas, in the middle, and waiting.
        all[1].next().await.unwrap();
        while all[2].last_pos().is_none() {
            all[2].next().await.unwrap();
        }
        let mut waiting = Vec::new();
        for subscription in &mut all[3..] {
            waiting.push(ready(subscription).await);
        }
        assert_eq!(
            waiting,
            [vec!["ddl.1", "0.0", "0.1", "0.2", "0.3"], vec![], vec![]]
        );
        let old = whole.push.get(&name).unwrap();
        assert_eq!((old.clients_len(), whole.seats_taken()), (LEN, LEN));
        let last: Vec<_> = all
            .iter()
            .map(|one| one.last_pos().map(str::to_owned))
            .collect();
        // They wait when it happens.
        let waiting = futures_util::future::join_all(all[3..].iter_mut().map(Subscription::next));
        let happens = async {
            tokio::task::yield_now().await;
            match ends {
                Ends::Change => drop(whole.push.change(&name, b"{}", None).await.unwrap()),
                Ends::Delete => whole.push.delete(&name, None).await.unwrap(),
                Ends::DeleteLog => {
                    let (id, open) = (whole.shown.stream.id, OpenRecords::Drop);
                    let deleted = whole.shown.engine.delete_stream(id, None, open);
                    deleted.await.unwrap();
                }
            }
        };
        let fits = |end: End| match ends {
            Ends::Change => matches!(end, End::Changed),
            Ends::Delete | Ends::DeleteLog => matches!(end, End::Deleted),
        };
        let ended = async { tokio::join!(waiting, happens).0 };
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        let ended = ended.unwrap_or_else(|_| panic!("nobody is told of {ends:?}"));
        for end in ended {
            assert!(end.is_err_and(fits), "{ends:?}");
        }
        for (subscription, last) in all.iter_mut().zip(&last) {
            // Where only the log has gone, frames that were made already may come.
            while let Ok(_frame) = subscription.next().await {
                assert!(matches!(ends, Ends::DeleteLog));
            }
            // And so it stays.
            assert!(subscription.next().await.is_err_and(fits), "{ends:?}");
            let is_still = subscription.last_pos() == last.as_deref();
            assert!(is_still || matches!(ends, Ends::DeleteLog));
        }
        all.truncate(1);
        assert_eq!((old.clients_len(), whole.seats_taken()), (1, 1));
        drop(all);
        assert_eq!((old.clients_len(), whole.seats_taken()), (0, 0));
        match ends {
            Ends::Change => {
                let mut anew = whole.subscribe("now").await.unwrap();
                assert_eq!(ready(&mut anew).await, [""; 0]);
            }
            Ends::Delete => {
                let gone = whole.subscribe("now").await;
                assert!(matches!(gone, Err(SubscribeError::Unknown)));
            }
            Ends::DeleteLog => {
                let gone = whole.subscribe("now").await;
                let gone = gone.is_err_and(|refused| {
                    matches!(refused, SubscribeError::Start(StartRefused::StreamGone))
                });
                assert!(gone);
            }
        }
        // A seat that was refused was none.
        assert_eq!(whole.seats_taken(), 0);
    }
}

#[tokio::test]
async fn a_failed_change_ends_no_subscription() {
    let whole = Whole::new(1, 10).await;
    let name = "s1".parse().unwrap();
    let mut subscription = whole.subscribe("now").await.unwrap();
    assert_eq!(ready(&mut subscription).await, [""; 0]);
    let invalid = whole.push.change(&name, br#"{"bufferSize":1}"#, None).await;
    assert!(invalid.is_err());
    assert!(whole.push.change(&name, b"{}", Some(0)).await.is_err());
    assert!(whole.push.delete(&name, Some(0)).await.is_err());
    for _ in 0..2 {
        whole.shown.engine.refuse(CommitError::Busy);
    }
    assert!(whole.push.change(&name, b"{}", None).await.is_err());
    assert!(whole.push.delete(&name, None).await.is_err());
    // An AsyncAPI document does not concern subscribers.
    whole.push.document(&name, "asyncapi: 3.0.0").await.unwrap();
    whole.shown.commit(&[0], "").await;
    assert_eq!(ready(&mut subscription).await, ["0.0"]);
    assert_eq!(whole.push.get(&name).unwrap().clients_len(), 1);
}

use std::{sync::atomic::Ordering, time::Duration};

use super::{workers::OPEN_KEPT, *};
use crate::{
    config::Config,
    dispatch::{Settings, outcome::Verdict},
};

fn queue() -> TargetQueue {
    let settings = Settings::new(&Config::default(), &[]).unwrap();
    let limits = Limits {
        queue_len_max: 1,
        queue_bytes_max: 1,
        idle_connections_max: 1,
        backoff_max: Duration::from_secs(1),
        retry_after_max: Duration::from_secs(1),
    };
    TargetQueue::new(
        Some(TargetId::of("http://a")),
        settings.other_targets.clone(),
        limits,
        Arc::new(Budget::new(1)),
    )
}

#[test]
fn the_last_worker_keeps_an_open_breaker_for_an_hour_or_until_the_queue_gives_way() {
    let queue = queue();
    {
        let mut state = queue.lock();
        state.workers = (0..2).map(|_| Worker::default()).collect();
        state.workers_len = 2;
        state.workers[1].call = Some(state.breaker.begin());
    }
    let down = Verdict::Unavailable {
        overloaded: false,
        asked: None,
    };
    queue.judge(1, down, true, |_| Duration::from_secs(1));
    assert!(!queue.give_way(), "somebody is at work");
    for slot in 0..2 {
        assert!(matches!(queue.next(slot, None).0, Next::Sleep { .. }));
    }
    let now = Instant::now();
    assert_eq!(queue.retire(0, now), Retirement::Over, "not the last");
    let soon = now + OPEN_KEPT;
    assert_eq!(queue.retire(1, soon), Retirement::Rests);
    assert!(!queue.is_deserted());
    let later = soon + Duration::from_secs(2);
    assert_eq!(queue.retire(1, later), Retirement::Over);
    assert!(queue.is_deserted());
    // A queue that gives way has no more workers.
    let queue = self::queue();
    {
        let mut state = queue.lock();
        state.workers.push(Worker::default());
        state.workers_len = 1;
    }
    assert!(matches!(queue.next(0, None).0, Next::Sleep { .. }));
    assert!(queue.give_way());
    assert!(matches!(queue.next(0, None).0, Next::End));
}

/// Otherwise no success would be reported to the breaker, and it would never close.
#[test]
fn a_success_while_the_breaker_opens_reaches_the_breaker() {
    let queue = queue();
    queue.lock().workers = (0..4).map(|_| Worker::default()).collect();
    let call = |slot: usize, verdict, at_once| {
        {
            let mut state = queue.lock();
            state.workers[slot].call = Some(state.breaker.begin());
        }
        queue.judge(slot, verdict, at_once, |_| Duration::ZERO);
        let mut state = queue.lock();
        if let Some(call) = state.workers[slot].call.take() {
            state.breaker.end(call);
        }
        let is_known = queue.answers_matter.load(Ordering::Relaxed);
        is_known || state.breaker.is_calm()
    };
    let down = Verdict::Unavailable {
        overloaded: false,
        asked: None,
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for slot in 1..4 {
            let (call, over) = (&call, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    call(slot, Verdict::Answers, false);
                }
            });
        }
        for at in 0..100_000 {
            let is_right = call(0, down, at % 100 == 0);
            over.fetch_or(!is_right, Ordering::Relaxed);
            assert!(is_right);
        }
        over.store(true, Ordering::Relaxed);
    });
}

use super::*;

const ANSWERS: Verdict = Verdict::Answers;
const DOWN: Verdict = Verdict::Unavailable {
    overloaded: false,
    asked: None,
};
const OVERLOADED: Verdict = Verdict::Unavailable {
    overloaded: true,
    asked: None,
};

/// A breaker, and a clock that is moved by hand.
struct Bench {
    breaker: Breaker,
    start: Instant,
    millis: u64,
}

impl Bench {
    fn new(slots_max: usize) -> Self {
        Self {
            breaker: Breaker::new(slots_max),
            start: Instant::now(),
            millis: 0,
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn now(&self) -> Instant {
        self.at(self.millis)
    }

    fn judge(&mut self, begun: Begun, verdict: Verdict) -> Option<Change> {
        let now = self.now();
        let pause = |openings: u32| Duration::from_millis(200 << (openings - 1));
        let change = self.breaker.judge(begun, verdict, false, now, pause);
        self.breaker.end(begun);
        change
    }

    /// A call from its beginning to its end.
    fn call(&mut self, verdict: Verdict) -> Option<Change> {
        assert_eq!(self.free(), 1, "a call may begin");
        let begun = self.breaker.begin();
        self.judge(begun, verdict)
    }

    /// Whether a call may begin.
    fn free(&self) -> usize {
        self.breaker.admits(1, || self.now())
    }

    #[track_caller]
    fn opens(&mut self, verdict: Verdict) -> Instant {
        match self.call(verdict) {
            Some(Change::Opened { until, .. }) => until,
            other => panic!("{other:?}"),
        }
    }
}

fn asked(seconds: u64) -> Verdict {
    Verdict::Unavailable {
        overloaded: true,
        asked: Some(Duration::from_secs(seconds)),
    }
}

/// Plays calls one after the other; `x` is unavailable, `.` answers, `-` ends without an answer. Returns the number of the
/// call that opens the breaker.
fn opened_by(calls: &str) -> Option<usize> {
    let mut bench = Bench::new(8);
    for (at, call) in calls.chars().enumerate() {
        let verdict = match call {
            'x' => DOWN,
            '.' => ANSWERS,
            _ => Verdict::Silent,
        };
        if bench.call(verdict).is_some() {
            return Some(at + 1);
        }
    }
    None
}

#[test]
fn half_of_the_last_20_calls_and_at_least_5_open_it() {
    let cases = [
        ("xxxxx", Some(5)),
        ("xxxx", None),
        (".....xxxxx", Some(10)),
        ("......xxxxx", None),
        ("......xxxxxx", Some(12)),
        ("-----xxxxx", Some(10)),
        ("------xxxxx", None),
        // The first calls are too old by then.
        ("......................xxxxxxxxxx", Some(32)),
        ("xxxx....................x.x.x.x.x.x.x.x.x.x", Some(43)),
        ("x..x..x..x..x..x..x..x..x..x..x..x..x..x..x..x..x..x", None),
        ("..x.x.x.x.x.x.x.x.x.x.x.x.x", Some(21)),
    ];
    for (calls, expected) in cases {
        assert_eq!(opened_by(calls), expected, "{calls}");
    }
    let tenth: String = (0..10_000)
        .map(|at| if at * 7919 % 10 == 0 { 'x' } else { '.' })
        .collect();
    assert_eq!(opened_by(&tenth), None);
}

#[test]
fn attempts_without_a_call_are_no_evidence() {
    let mut bench = Bench::new(8);
    for _ in 0..4 {
        bench.call(DOWN);
        bench.call(Verdict::Unknown);
        bench.call(Verdict::Unknown);
    }
    assert!(bench.call(DOWN).is_some(), "these are five of five");
}

#[test]
fn it_opens_lets_one_probe_in_and_closes_when_that_is_answered() {
    let mut bench = Bench::new(8);
    for _ in 0..4 {
        assert_eq!(bench.call(DOWN), None);
    }
    assert_eq!(bench.opens(DOWN), bench.at(200));
    bench.millis = 199;
    assert_eq!(bench.free(), 0);
    assert_eq!(bench.breaker.open_until(bench.now()), Some(bench.at(200)));
    bench.millis = 200;
    assert_eq!(bench.free(), 1);
    assert_eq!(
        bench.breaker.open_until(bench.now()),
        None,
        "a probe may begin"
    );
    let probe = bench.breaker.begin();
    assert_eq!(bench.free(), 0, "one call probes");
    assert_eq!(bench.breaker.opens_at(), None);
    assert_eq!(bench.breaker.open_until(bench.now()), Some(bench.at(200)));
    // It tells nothing, as one that no target was called for.
    assert_eq!(bench.judge(probe, Verdict::Unknown), None);
    assert_eq!(bench.free(), 1, "the next one probes");
    assert_eq!(bench.opens(DOWN), bench.at(600), "longer each time");
    bench.millis = 600;
    assert_eq!(bench.opens(OVERLOADED), bench.at(1_400));
    bench.millis = 1_400;
    let silent = bench.opens(Verdict::Silent);
    assert_eq!(silent, bench.at(3_000), "one that hangs is no better");
    bench.millis = 3_000;
    assert_eq!(bench.call(ANSWERS), Some(Change::Closed));
    for _ in 0..4 {
        assert_eq!(bench.call(DOWN), None, "what was before is forgotten");
    }
    // One of the evidence is the probe's answer.
    assert_eq!(
        bench.opens(DOWN),
        bench.at(3_200),
        "and it counts from one again"
    );
}

#[test]
fn after_the_probe_slots_grow_with_successes_up_to_the_greatest() {
    let mut bench = Bench::new(20);
    for _ in 0..5 {
        bench.call(DOWN);
    }
    bench.millis = 200;
    bench.call(ANSWERS);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let free = bench.breaker.admits(100, || bench.now());
        seen.push(free);
        let calls: Vec<_> = (0..free).map(|_| bench.breaker.begin()).collect();
        assert_eq!(bench.free(), 0);
        for call in calls {
            bench.judge(call, ANSWERS);
        }
    }
    assert_eq!(seen, [2, 4, 8, 16, 20]);
    assert!(bench.breaker.is_calm());
}

#[test]
fn calls_from_before_say_nothing_but_how_long_to_wait() {
    let mut bench = Bench::new(64);
    let old: Vec<_> = (0..40).map(|_| bench.breaker.begin()).collect();
    let mut old = old.into_iter();
    for call in old.by_ref().take(4) {
        assert_eq!(bench.judge(call, DOWN), None);
    }
    assert!(bench.judge(old.next().unwrap(), DOWN).is_some());
    for verdict in [DOWN, OVERLOADED, ANSWERS, Verdict::Silent, asked(0)] {
        assert_eq!(bench.judge(old.next().unwrap(), verdict), None);
        assert_eq!(bench.breaker.opens_at(), Some(bench.at(200)));
    }
    for (seconds, until) in [(3, 3_000), (2, 3_000), (5, 5_000)] {
        assert_eq!(bench.judge(old.next().unwrap(), asked(seconds)), None);
        assert_eq!(bench.breaker.opens_at(), Some(bench.at(until)));
    }
    bench.millis = 5_000;
    let probe = bench.breaker.begin();
    bench.judge(old.next().unwrap(), ANSWERS);
    assert!(bench.breaker.is_open(), "only the probe closes it");
    bench.judge(probe, ANSWERS);
    // Once more after it has closed.
    for call in old {
        assert_eq!(bench.judge(call, OVERLOADED), None);
    }
    assert_eq!(bench.breaker.admits(9, || bench.now()), 2);
}

#[test]
fn it_waits_for_the_longest_retry_after_of_its_evidence_and_never_less_than_its_own_pause() {
    let after = |verdicts: &[Verdict]| {
        let mut bench = Bench::new(8);
        for verdict in &verdicts[..verdicts.len() - 1] {
            assert_eq!(bench.call(*verdict), None);
        }
        bench.opens(verdicts[verdicts.len() - 1]) - bench.start
    };
    let own = Duration::from_millis(200);
    assert_eq!(after(&[asked(0); 5]), own);
    let seven = Duration::from_secs(7);
    assert_eq!(after(&[asked(7), DOWN, asked(3), DOWN, asked(0)]), seven);
    // Evidence that is too old asks for nothing.
    let mut old = vec![asked(7)];
    old.extend([ANSWERS; 20]);
    old.extend([DOWN; 10]);
    assert_eq!(after(&old), own);

    let mut bench = Bench::new(8);
    let begun = bench.breaker.begin();
    let now = bench.now();
    let change = bench.breaker.judge(begun, asked(9), true, now, |_| own);
    let until = bench.at(9_000);
    let again = false;
    assert_eq!(change, Some(Change::Opened { until, again }), "at once");
}

#[test]
fn waits_can_be_cut_each_to_its_own_bound_and_never_made_longer() {
    let mut bench = Bench::new(1);
    bench.breaker.cut(bench.at(1), bench.at(1));
    assert_eq!(bench.breaker.opens_at(), None, "a closed one stays closed");
    for _ in 0..4 {
        bench.call(DOWN);
    }
    bench.opens(asked(60));
    bench.breaker.cut(bench.at(50), bench.at(90_000));
    assert_eq!(bench.breaker.opens_at(), Some(bench.at(60_000)));
    bench.breaker.cut(bench.at(100), bench.at(20));
    assert_eq!(bench.breaker.opens_at(), Some(bench.at(50)));
}

#[test]
fn overload_halves_the_slots_once_a_second_and_only_by_calls_that_began_since() {
    let mut bench = Bench::new(64);
    let slots = |bench: &Bench| bench.breaker.admits(100, || bench.now());
    // Evidence against opening.
    for _ in 0..20 {
        bench.call(ANSWERS);
    }
    let slow = bench.breaker.begin();
    bench.call(DOWN);
    assert_eq!(
        slots(&bench),
        63,
        "one is under way; no answer is no overload"
    );
    bench.call(OVERLOADED);
    assert_eq!(slots(&bench), 31);
    bench.call(OVERLOADED);
    assert_eq!(slots(&bench), 31, "once a second");
    bench.millis = 1_000;
    bench.judge(slow, OVERLOADED);
    assert_eq!(slots(&bench), 32, "it began before they were halved");
    bench.call(OVERLOADED);
    assert_eq!(slots(&bench), 16);
}

#[test]
fn slots_grow_by_one_with_a_success_and_slowly_while_a_quarter_is_refused() {
    let mut bench = Bench::new(64);
    let slots = |bench: &Bench| bench.breaker.admits(100, || bench.now());
    for _ in 0..20 {
        bench.call(ANSWERS);
    }
    bench.call(OVERLOADED);
    assert_eq!(slots(&bench), 32);
    for _ in 0..10 {
        bench.call(ANSWERS);
    }
    assert_eq!(slots(&bench), 42);
    for _ in 0..4 {
        bench.call(DOWN);
    }
    // Five of the last 20: as many successes as there are slots for one more, until the first of the five is too old.
    for _ in 0..5 {
        bench.call(ANSWERS);
    }
    assert_eq!(slots(&bench), 42);
    for _ in 0..3 {
        bench.call(ANSWERS);
    }
    assert!(slots(&bench) > 42);
    for _ in 0..60 {
        bench.call(ANSWERS);
    }
    assert_eq!(slots(&bench), 64);
    assert!(bench.breaker.is_calm());
}

#[test]
fn slots_follow_their_bound_and_there_is_always_one() {
    let mut bench = Bench::new(0);
    let slots = |bench: &Bench| bench.breaker.admits(100, || bench.now());
    assert_eq!(slots(&bench), 1);
    bench.breaker.set_slots_max(8);
    assert_eq!(slots(&bench), 8, "none were missing before");
    bench.call(OVERLOADED);
    assert_eq!(slots(&bench), 4);
    bench.breaker.set_slots_max(16);
    assert_eq!(slots(&bench), 4, "they have to grow");
    bench.breaker.set_slots_max(2);
    assert_eq!(slots(&bench), 2);
}

#[test]
fn it_says_whether_calls_may_begin_and_since_when() {
    let mut bench = Bench::new(8);
    let stand = |bench: &Bench| bench.breaker.stand(bench.now());
    assert_eq!(stand(&bench), (Stand::Closed, None));
    bench.millis = 1_000;
    for _ in 0..4 {
        bench.call(DOWN);
    }
    assert_eq!(stand(&bench), (Stand::Closed, None));
    let until = bench.opens(DOWN);
    let opened = Some(bench.at(1_000));
    let open = |until, is_asked| Stand::Open { until, is_asked };
    assert_eq!(stand(&bench), (open(until, false), opened));
    // Its pause is over; a probe is under way.
    bench.millis = 1_200;
    assert_eq!(stand(&bench), (Stand::HalfOpen, opened));
    let probe = bench.breaker.begin();
    assert_eq!(stand(&bench), (Stand::HalfOpen, opened));
    // It asks for more than our own pause; it is open since the first time in a row.
    bench.judge(probe, asked(60));
    assert_eq!(stand(&bench), (open(bench.at(61_200), true), opened));
    bench.millis = 61_200;
    assert_eq!(bench.call(ANSWERS), Some(Change::Closed));
    assert_eq!(stand(&bench), (Stand::Closed, Some(bench.at(61_200))));
}

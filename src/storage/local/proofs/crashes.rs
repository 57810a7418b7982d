//! A crash between any two disk calls: every answered commit is there, whole, and nothing else.

use std::collections::BTreeSet;

use super::{
    faulty::{Crash, FaultyDisk, segment},
    model::Model,
    rig::{
        Draft, DraftAppend, DraftEnd, DraftState, Moment, Pick, Rig, Run, Step, goes_on, one_of,
        shut,
    },
};
use crate::{
    model::ids::Offset,
    storage::{Log, OpenRecords, conformance::content::Content, ledger::Balance},
};

pub(super) fn append(at: Pick, sizes: &[u16]) -> Step {
    Step::Commit(Draft {
        appends: vec![draft_append(at, sizes)],
        ..Draft::default()
    })
}

fn draft_append(at: Pick, sizes: &[u16]) -> DraftAppend {
    DraftAppend {
        at,
        sizes: sizes.to_vec(),
        kind: 0,
    }
}

fn end(at: Pick, which: u16, end: u8) -> DraftEnd {
    DraftEnd {
        at,
        which,
        end,
        wrong: false,
    }
}

fn state(key: u8, size: Option<u16>) -> DraftState {
    DraftState {
        key,
        size,
        expect: 1,
    }
}

/// A little of everything, over several segments of 64 KiB, with a reopen in between.
pub(super) fn history() -> Vec<Step> {
    let source = (1, 0);
    let errors = (0, 0);
    let mut steps = vec![
        Step::Create {
            name: 1,
            partitions: 1,
        },
        Step::Create {
            name: 0,
            partitions: 0,
        },
        append(source, &[100, 0, 9_000]),
        append((1, 1), &[3; 20]),
        Step::Commit(Draft {
            state: vec![state(0, Some(50)), state(1, Some(7_000))],
            ..Draft::default()
        }),
        // Fails, gets its error record, and keeps a note: one commit.
        Step::Commit(Draft {
            appends: vec![DraftAppend {
                kind: 1,
                ..draft_append(errors, &[2_000])
            }],
            ends: vec![end(source, 0, 2)],
            state: vec![state(0, Some(60))],
            dedup: None,
        }),
        Step::SettleSoon {
            at: (1, 1),
            count: 5,
        },
        append(source, &[20_000, 15_000]),
        Step::Commit(Draft {
            ends: vec![end(source, 1, 4), end((1, 1), 3, 4), end((1, 1), 9, 0)],
            ..Draft::default()
        }),
        append(source, &[30_000]),
        Step::Grow { stream: 1, by: 2 },
        append((1, 3), &[10, 20]),
        Step::Trim {
            at: (1, 1),
            percent: 40,
        },
        Step::Create {
            name: 2,
            partitions: 2,
        },
        append((2, 0), &[500; 3]),
        Step::Commit(Draft {
            appends: vec![draft_append((1, 1), &[40]), draft_append((1, 0), &[9, 9])],
            dedup: Some(1),
            ..Draft::default()
        }),
        Step::Reopen {
            forget_index: false,
        },
        Step::Commit(Draft {
            appends: vec![draft_append((1, 2), &[40])],
            state: vec![state(1, None)],
            dedup: Some(1),
            ..Draft::default()
        }),
        Step::Delete { stream: 2 },
        Step::Tick { millis: -5_000 },
        append(errors, &[1; 300]),
        Step::SettleSoon {
            at: errors,
            count: 7,
        },
    ];
    for size in [12_000, 25_000, 40_000, 9, 35_000, 30_000] {
        steps.push(append(source, &[size]));
        steps.push(Step::Commit(Draft {
            ends: vec![end(source, 0, 4)],
            ..Draft::default()
        }));
    }
    steps.push(Step::Trim {
        at: source,
        percent: 101,
    });
    steps.push(append(source, &[77]));
    steps
}

/// Files are freed, used again, and written again with a part of what they held.
pub(super) fn reclaiming() -> Vec<Step> {
    let (errors, source) = ((0, 0), (1, 0));
    let create = |name| Step::Create {
        name,
        partitions: 0,
    };
    let mut steps = vec![create(0), create(1), create(2)];
    steps.extend([30_000, 25_000, 40_000, 35_000].map(|size| append(source, &[size])));
    steps.push(Step::Trim {
        at: source,
        percent: 101,
    });
    steps.push(Step::Settle);
    for round in 0..3 {
        // One small record that stays in each file, and its end in some.
        for size in [30_000, 25_000] {
            steps.push(append(source, &[size]));
            steps.push(append((2, 0), &[size / 8]));
            steps.push(append(errors, &[50]));
        }
        steps.push(Step::Commit(Draft {
            appends: vec![draft_append(errors, &[9])],
            ends: vec![end(errors, 0, 4), end(source, 1, 0)],
            state: vec![state(0, Some(100))],
            dedup: Some(round),
        }));
        steps.push(Step::Trim {
            at: source,
            percent: 90,
        });
        steps.push(Step::Settle);
    }
    steps.push(Step::Delete { stream: 2 });
    steps.push(append(source, &[40_000]));
    steps.push(Step::Settle);
    for at in [source, errors] {
        steps.push(Step::Trim { at, percent: 101 });
        steps.push(append(source, &[35_000]));
        steps.push(Step::Settle);
    }
    steps.push(append(source, &[30_000, 20_000]));
    steps.push(append(errors, &[7]));
    steps
}

/// Streams are purged: with ends on their way, over files, twice, behind trims, while others stay as they are.
pub(super) fn purging() -> Vec<Step> {
    let (errors, source) = ((0, 0), (1, 0));
    let create = |name, partitions| Step::Create { name, partitions };
    let purge = |stream, open| Step::Purge { stream, open };
    let mut steps = vec![create(0, 1), create(1, 1), create(2, 0)];
    for round in 0..3 {
        steps.push(append(source, &[30_000, 9, 20_000]));
        steps.push(append((1, 1), &[3; 20]));
        // Fails, and gets its error record.
        steps.push(Step::Commit(Draft {
            appends: vec![DraftAppend {
                kind: 1,
                ..draft_append(errors, &[2_000])
            }],
            ends: vec![end(source, 0, 2), end((1, 1), 3, 4)],
            state: vec![state(round, Some(60))],
            dedup: Some(round),
        }));
        steps.push(append((2, 0), &[40, 50]));
        steps.push(purge(1, OpenRecords::Refuse));
        steps.push(Step::SettleSoon {
            at: (1, 1),
            count: 5,
        });
        steps.push(purge(1, OpenRecords::Drop));
        steps.push(purge(1, OpenRecords::Drop));
        if round == 1 {
            steps.push(Step::Grow { stream: 1, by: 1 });
            steps.push(Step::Reopen { forget_index: true });
        }
        steps.push(append(errors, &[25_000, 10]));
        steps.push(Step::Trim {
            at: errors,
            percent: 40,
        });
        steps.push(purge(0, OpenRecords::Drop));
        steps.push(append(source, &[7, 8]));
        steps.push(Step::Settle);
    }
    steps.push(append(errors, &[35_000]));
    steps
}

/// A settled run: what may be there at each call, and the disk before each call.
async fn recorded(steps: &[Step]) -> (Vec<Moment>, Vec<(String, FaultyDisk)>) {
    let rig = Rig::new();
    rig.disk.record();
    let mut run = Run::new(rig);
    run.moments.push(Moment {
        began: 0,
        answered: 0,
        model: Model::default(),
        soft: Vec::new(),
    });
    for step in steps {
        run.step(step).await;
    }
    let run = run.end().await;
    let disks = run.rig.disk.recorded();
    (run.moments, disks)
}

/// The moments that a crash before this call may lead to.
fn possible(moments: &[Moment], call: u64) -> &[Moment] {
    let answered = moments.iter().rposition(|moment| moment.answered <= call);
    let begun = moments.iter().rposition(|moment| moment.began <= call);
    &moments[answered.unwrap()..=begun.unwrap()]
}

#[track_caller]
fn check(possible: &[Moment], content: &Content, when: &str) {
    let models = possible.iter().map(|moment| moment.model.clone()).collect();
    let soft = possible.iter().flat_map(|moment| moment.soft.clone());
    one_of(models, content, &soft.collect::<Vec<_>>(), when);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_whatever_call_the_power_goes_off_all_that_was_answered_is_there() {
    crash_everywhere(&history()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_whatever_call_of_freeing_reusing_and_rewriting_the_power_goes_off_nothing_is_lost() {
    let calls = crash_everywhere(&reclaiming()).await;
    let mut made = BTreeSet::new();
    let (mut freed, mut kept, mut rewritten) = (0, 0, 0);
    for call in &calls {
        let (what, name) = call.split_once(' ').unwrap();
        match what {
            "None" if segment(name) => freed += 1,
            "Some(Create)" => drop(made.insert(name.replace(".new", ".ready"))),
            "Some(Rename)" if segment(name) => rewritten += usize::from(!made.insert(name.into())),
            "Some(Rename)" => kept += usize::from(!made.contains(name)),
            _ => {}
        }
    }
    let all = (freed > 0, kept > 0, rewritten > 0);
    assert_eq!(all, (true, true, true), "{calls:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_whatever_call_of_a_purge_the_power_goes_off_all_of_it_is_there_or_nothing() {
    crash_everywhere(&purging()).await;
}

async fn crash_everywhere(steps: &[Step]) -> Vec<String> {
    let (moments, disks) = recorded(steps).await;
    assert!(disks.len() > 100, "{} calls are no history", disks.len());
    let mut tried = BTreeSet::new();
    for (call, (next, disk)) in (0..).zip(&disks) {
        let possible = possible(&moments, call);
        for how in [
            Crash::LoseAll,
            Crash::Process,
            Crash::Random(call * 3),
            Crash::Random(call * 3 + 1),
            Crash::Random(call * 3 + 2),
        ] {
            let disk = disk.fork();
            disk.crash(how);
            // Most calls are syncs and writes of one place: many crashes leave the same bytes.
            if !tried.insert((disk.fingerprint(), possible[0].answered, possible.len())) {
                continue;
            }
            let when = format!("after {how:?} before call {call}: {next}");
            let rig = Rig::on(disk);
            let engine = rig
                .try_open()
                .unwrap_or_else(|error| panic!("{when}: {error}"));
            let content = Content::of(engine.as_ref()).await;
            check(possible, &content, &when);
            let balance = Balance::of(&engine.ledger(), None);
            assert!(balance.balanced, "{when}: {balance:?}");
            if how == Crash::Process {
                // What was shown after the death of a process must survive a crash of the machine.
                rig.disk.crash(Crash::LoseAll);
                shut(engine).await;
                let engine = rig.open();
                let again = Content::of(engine.as_ref()).await;
                content.assert_same(&again, &format!("{when}, then of the machine"));
            } else if tried.len() % 5 == 0 {
                goes_on(engine.as_ref(), &content).await;
                let before = Content::of(engine.as_ref()).await;
                shut(engine).await;
                let engine = rig.open();
                let after = Content::of(engine.as_ref()).await;
                before.assert_same(&after, &format!("{when}, and then some"));
            }
        }
    }
    eprintln!("{} calls, {} crashes", disks.len(), tried.len());
    assert!(tried.len() > 200, "only {} crashes", tried.len());
    disks.into_iter().map(|(call, _)| call).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_opening_loses_nothing_either() {
    let (moments, disks) = recorded(&history()).await;
    let mut crashes = 0;
    for (call, (next, disk)) in (0..).zip(&disks).skip(3).step_by(23) {
        let possible = possible(&moments, call);
        let disk = disk.fork();
        disk.crash(Crash::Random(call));
        for calls in 0.. {
            let disk = disk.fork();
            let rig = Rig::on(disk);
            rig.disk.power_off_after(calls);
            if let Ok(engine) = rig.try_open() {
                shut(engine).await;
            }
            let is_through = !rig.disk.is_off();
            for seed in 0..2 {
                let rig = Rig::on(rig.disk.fork());
                rig.disk.crash(match seed {
                    0 => Crash::LoseAll,
                    _ => Crash::Random(call + calls),
                });
                let when = format!("before {call} ({next}), again in call {calls} of opening");
                let engine = rig
                    .try_open()
                    .unwrap_or_else(|error| panic!("{when}: {error}"));
                check(possible, &Content::of(engine.as_ref()).await, &when);
                crashes += 1;
            }
            if is_through {
                break;
            }
        }
    }
    eprintln!("{crashes} crashes");
    assert!(crashes > 50, "only {crashes} crashes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_over_many_segments_is_read_back_with_and_without_its_index() {
    let mut run = Run::new(Rig::new());
    for step in history().iter().chain(&history()) {
        run.step(step).await;
    }
    let segments = run.rig.disk.names();
    let segments = segments.iter().filter(|name| segment(name));
    assert!(segments.count() > 4, "it should fill several");
    for forget_index in [false, true, false] {
        run.step(&Step::Reopen { forget_index }).await;
    }
    let errors = run.model.content.streams[0].stream.clone();
    let of = errors.all_partitions().next().unwrap();
    assert!(run.engine().status(of).unwrap().bounds.tail > Offset(300));
    run.end().await;
}

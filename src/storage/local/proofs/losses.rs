//! Accepted losses: undamaged records are read back, the report names the lost ones, and the log goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use super::{
    crashes::{history, purging, reclaiming},
    faulty::{Crash, Dice, FaultyDisk, segment},
    rig::{Rig, Run, shut},
};
use crate::{
    model::{
        ids::{Offset, PartitionId},
        record::StoredRecord,
    },
    storage::{
        Engine, Log, PartitionStatus, State,
        conformance::{append, record},
        ledger::Balance,
        local::{
            format::segment::{Files, SegmentHeader},
            repair::{
                mend::{AcceptError, LossReport, accept, look_ahead},
                verify::read,
            },
            tests::until,
        },
    },
};

/// What a partition shows, lost records or not.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    status: PartitionStatus,
    records: BTreeMap<u64, StoredRecord>,
    ended: BTreeSet<u64>,
}

type Seen = BTreeMap<PartitionId, Part>;

/// Reads everything; nothing that is retained is out of reach.
async fn seen(engine: &dyn Engine, when: &str) -> Seen {
    let mut seen = Seen::new();
    for of in engine
        .streams()
        .iter()
        .flat_map(|stream| stream.all_partitions())
    {
        let status = engine.status(of).unwrap();
        let (mut next, tail) = (status.bounds.earliest, status.bounds.tail);
        let mut records = BTreeMap::new();
        while next < tail {
            let page = engine.read(of, next, 20_000).await;
            let page = page.unwrap_or_else(|error| panic!("{when}: {of}/{next}: {error}"));
            assert!(page.next > next, "{when}: {of}/{next}");
            assert!(
                !page.records.is_empty() || page.next == tail,
                "{when}: {of}/{next}"
            );
            next = page.next;
            records.extend(
                page.records
                    .into_iter()
                    .map(|record| (record.offset.0, record)),
            );
        }
        // By time nothing is out of reach either, and what is found is not before what is asked for.
        for record in records.values() {
            let found = engine.offset_at(of, record.time).await;
            let found = found.unwrap_or_else(|error| panic!("{when}: {of}: {error}"));
            assert!(found <= record.offset, "{when}: {of}/{}", record.offset);
            let before = records.range(..found.0).next_back();
            assert!(
                before.is_none_or(|(_, before)| before.time < record.time),
                "{when}: {of}"
            );
        }
        let retained = status.bounds.earliest.0..tail.0;
        let settled = engine
            .settled_offsets(of, Offset(retained.start)..tail)
            .unwrap();
        let ended = retained
            .filter(|offset| settled.contains(Offset(*offset)))
            .collect();
        seen.insert(
            of,
            Part {
                status,
                records,
                ended,
            },
        );
    }
    let balance = Balance::of(&engine.ledger(), None);
    assert!(balance.balanced, "{when}: {balance:?}");
    seen
}

/// A closed engine's disk and what it holds.
async fn lived(steps: &[super::rig::Step]) -> (Rig, Seen) {
    let mut run = Run::new(Rig::new());
    for step in steps {
        run.step(step).await;
    }
    let seen = seen(run.engine(), "before").await;
    let run = run.end().await;
    (run.rig, seen)
}

fn segments(rig: &Rig) -> Vec<String> {
    rig.disk
        .names()
        .into_iter()
        .filter(|name| segment(name))
        .collect()
}

fn named(report: &LossReport) -> Vec<PathBuf> {
    report.files.iter().map(|file| file.path.clone()).collect()
}

impl Rig {
    fn would_lose(&self) -> Option<LossReport> {
        let disk = self.disk.mount(&self.dir());
        let files = Files::new(disk.clone(), self.dir().join("journal"));
        look_ahead(&disk, &files).unwrap()
    }

    fn accept(&self, files: &[PathBuf]) -> Result<LossReport, AcceptError> {
        accept(
            &self.disk.mount(&self.dir()),
            &self.dir(),
            files,
            self.clock.now(),
        )
    }
}

/// The last bytes of a journal, which are those of a frame.
fn last_frame(rig: &Rig) -> Vec<u8> {
    let content = rig.disk.content(segments(rig).last().unwrap());
    let used = content.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    content[used.saturating_sub(40)..used].to_vec()
}

/// Changes some bytes; returns what it did.
fn damage(rig: &Rig, dice: &mut Dice) -> String {
    let segments = segments(rig);
    // As often as all others together: only what is lost of the newest file takes more along than records.
    let name = match dice.below(2) {
        0 => segments.last().expect("a file"),
        _ => &segments[dice.below(segments.len())],
    };
    let written = rig.disk.content(name);
    let used = written.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    let at = dice.below(used);
    let len = (1 + dice.below(6_000)).min(used - at);
    match dice.below(8) {
        0 if segments.first() != Some(name) && segments.last() != Some(name) => {
            rig.disk.lose(name);
            format!("{name} is missing")
        }
        1 => {
            for copy in [0, 4096] {
                rig.disk.damage(name, copy + 20, b"rubbish");
            }
            format!("{name} has no header")
        }
        2 => {
            rig.disk.damage(name, 8192, b"rubbish");
            format!("{name} has no snapshot")
        }
        3 => {
            rig.disk.damage(name, at as u64, &vec![0; len]);
            format!("{len} zeros at {at} of {name}")
        }
        4 => {
            let rubbish: Vec<u8> = (0..len).map(|_| dice.next().to_le_bytes()[0]).collect();
            rig.disk.damage(name, at as u64, &rubbish);
            format!("{len} bytes of rubbish at {at} of {name}")
        }
        _ => {
            let bit = 1 << dice.below(8);
            rig.disk.damage(name, at as u64, &[written[at] ^ bit]);
            format!("bit {bit} of byte {at} of {name}")
        }
    }
}

/// What is there after a loss is what was there before, but for what was said to be lost.
fn is_as_before(
    before: &Seen,
    now: &Seen,
    report: &LossReport,
    unknown: bool,
    engine: &dyn Engine,
    when: &str,
) {
    let mut lost: BTreeMap<PartitionId, BTreeSet<u64>> = BTreeMap::new();
    let (mut open, mut ended) = (0, 0);
    for partition in &report.partitions {
        let stream = engine.stream(&partition.stream).unwrap();
        let of = stream
            .partition(crate::model::ids::Partition(partition.partition))
            .unwrap();
        let ranges = partition.ranges.iter();
        let offsets = ranges.flat_map(|(first, last)| first.0..=last.0);
        lost.entry(of).or_default().extend(offsets);
        open += partition.open;
        ended += partition.ended;
    }
    let lost_len: usize = lost.values().map(BTreeSet::len).sum();
    assert_eq!(open + ended, lost_len as u64, "{when}: {report:?}");
    let counted: u64 = now.values().map(|part| part.status.counts.lost).sum();
    assert_eq!(counted, open + report.trimmed, "{when}: {report:?}");
    let none = BTreeSet::new();
    for (of, now) in now {
        let lost = lost.get(of).unwrap_or(&none);
        let bounds = now.status.bounds;
        let retained = bounds.earliest.0..bounds.tail.0;
        let there = |offset: &u64| now.records.contains_key(offset) != lost.contains(offset);
        assert!(
            retained.clone().all(|offset| there(&offset)),
            "{when}: {of}"
        );
        assert!(
            lost.iter().all(|offset| now.ended.contains(offset)),
            "{when}: {of}"
        );
        let Some(before) = before.get(of) else {
            // It was deleted in what is lost.
            assert!(unknown, "{when}: {of}");
            continue;
        };
        for (offset, record) in &now.records {
            match before.records.get(offset) {
                Some(known) => assert_eq!(known, record, "{when}: {of}/{offset}"),
                None => assert!(unknown, "{when}: {of}/{offset}"),
            }
        }
        let tail = before.status.bounds.tail;
        assert!(bounds.tail <= tail, "{when}: {of}");
        if unknown {
            let known = |offset: &u64| {
                lost.contains(offset)
                    || before.ended.contains(offset)
                    || *offset < before.status.bounds.earliest.0
            };
            assert!(now.ended.iter().all(known), "{when}: {of}");
            continue;
        }
        assert_eq!(bounds, before.status.bounds, "{when}: {of}");
        let ends: BTreeSet<u64> = before.ended.union(lost).copied().collect();
        assert_eq!(now.ended, ends, "{when}: {of}");
        let mut counts = now.status.counts;
        counts.lost = 0;
        assert_eq!(counts, before.status.counts, "{when}: {of}");
    }
    if !unknown {
        assert!(before.keys().eq(now.keys()), "{when}");
    }
}

/// Reads the journal as `verify --data` does.
fn verify(rig: &Rig, when: &str) {
    let disk = rig.disk.mount(&rig.dir());
    let verified = read(&disk, rig.dir().join("journal"));
    let verified = verified.unwrap_or_else(|error| panic!("{when}: {error}"));
    assert_eq!(verified.faults, [""; 0], "{when}");
    assert!(Balance::of(&verified.ledger, None).balanced, "{when}");
}

/// The log goes on after a loss: more records, a restart without an index, trims, files freed and written again.
async fn goes_on(rig: &Rig, mut wanted: Seen, when: &str) {
    let engine = rig.open();
    for (of, part) in &mut wanted {
        let more = append(*of, vec![record(vec![7; 9_000]), record("one more")]);
        let committed = engine.commit(more.into()).await.unwrap();
        assert_eq!(
            committed.appends[0].first, part.status.bounds.tail,
            "{when}: {of}"
        );
    }
    let grown = seen(engine.as_ref(), when).await;
    for (of, part) in &wanted {
        let kept = grown[of].records.range(..part.status.bounds.tail.0);
        assert!(kept.eq(&part.records), "{when}: {of}");
    }
    shut(engine).await;
    rig.forget_index();
    let engine = rig.open();
    assert_eq!(
        seen(engine.as_ref(), when).await,
        grown,
        "{when}: without an index"
    );
    for (of, part) in &grown {
        let bounds = part.status.bounds;
        let below = bounds
            .earliest
            .plus((bounds.tail.0 - bounds.earliest.0) / 2);
        engine.trim(*of, below).await.unwrap();
    }
    until("files to be freed", || engine.is_tidy()).await;
    let trimmed = seen(engine.as_ref(), when).await;
    for (of, part) in &trimmed {
        let kept = grown[of].records.range(part.status.bounds.earliest.0..);
        assert!(kept.eq(&part.records), "{when}: {of} trimmed");
    }
    shut(engine).await;
    let engine = rig.open();
    assert_eq!(
        seen(engine.as_ref(), when).await,
        trimmed,
        "{when}: trimmed, again"
    );
    shut(engine).await;
    verify(rig, when);
    assert!(rig.would_lose().is_none(), "{when}");
}

async fn random_damage(steps: &[super::rig::Step], seeds: std::ops::Range<u64>) -> [usize; 3] {
    let (lived, before) = lived(steps).await;
    let mut met = [0; 3];
    for seed in seeds {
        let rig = Rig::on(lived.disk.fork());
        let mut dice = Dice(seed + 1);
        let done: Vec<_> = (0..=dice.below(2))
            .map(|_| damage(&rig, &mut dice))
            .collect();
        let when = format!("seed {seed}: {}", done.join(", "));
        // Where nothing good follows, damage is a write that a crash has cut.
        let is_cut = last_frame(&rig) != last_frame(&lived);
        let Some(expected) = rig.would_lose() else {
            continue;
        };
        let untouched = rig.disk.fingerprint();
        if expected.files.len() > 1 {
            let error = rig.accept(&named(&expected)[..1]).unwrap_err();
            assert!(
                matches!(error, AcceptError::AlsoDamaged(_)),
                "{when}: {error}"
            );
            assert_eq!(rig.disk.fingerprint(), untouched, "{when}: touched");
        }
        let report = rig.accept(&named(&expected));
        let report = report.unwrap_or_else(|error| panic!("{when}: {error}"));
        let text = |report: &LossReport| format!("{:?}{:?}", report.partitions, report.strangers);
        assert_eq!(text(&report), text(&expected), "{when}");
        verify(&rig, &when);
        let engine = rig.open();
        let now = seen(engine.as_ref(), &when).await;
        let unknown = report.unknown || is_cut;
        is_as_before(&before, &now, &report, unknown, engine.as_ref(), &when);
        shut(engine).await;
        let kept = report.files.iter().filter(|file| !file.missing);
        assert!(
            kept.into_iter().all(|file| file.kept_as.is_some()),
            "{when}"
        );
        goes_on(&rig, now, &when).await;
        met[0] += 1;
        met[1] += usize::from(report.unknown);
        met[2] += usize::from(!report.partitions.is_empty());
    }
    met
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_accepted_loss_all_else_is_there_and_the_log_goes_on() {
    let [accepted, unknown, lost] = random_damage(&history(), 0..60).await;
    assert!(
        accepted > 40 && unknown > 4 && lost > 6,
        "{accepted} {unknown} {lost}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_accepted_loss_of_files_that_were_written_again_all_else_is_there() {
    let [accepted, ..] = random_damage(&reclaiming(), 100..140).await;
    assert!(accepted > 20, "{accepted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_accepted_loss_of_a_purge_all_else_is_there() {
    let [accepted, unknown, _] = random_damage(&purging(), 200..260).await;
    assert!(accepted > 30 && unknown > 4, "{accepted} {unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_costs_the_records_of_one_block_at_most() {
    let (lived, before) = lived(&history()).await;
    let mut lost_some = 0;
    for name in segments(&lived) {
        let written = lived.disk.content(&name);
        let (header, _) = SegmentHeader::decode(&written).unwrap();
        let frames_at = usize::try_from(header.frames_at()).unwrap();
        let used = written.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        let mut dice = Dice(written.len() as u64 + header.number);
        for _ in 0..12 {
            let at = frames_at + dice.below(used - frames_at);
            let rig = Rig::on(lived.disk.fork());
            rig.disk.damage(&name, at as u64, &[written[at] ^ 4]);
            let when = format!("byte {at} of {name}");
            let Some(report) = rig.would_lose() else {
                continue;
            };
            rig.accept(&named(&report)).unwrap();
            let engine = rig.open();
            let now = seen(engine.as_ref(), &when).await;
            let unknown = report.unknown || last_frame(&rig) != last_frame(&lived);
            is_as_before(&before, &now, &report, unknown, engine.as_ref(), &when);
            if report.strangers.is_empty() {
                let places: usize = report.partitions.iter().map(|lost| lost.ranges.len()).sum();
                assert!(places <= 1, "{when}: {report:?}");
                lost_some += places;
            }
            shut(engine).await;
        }
    }
    assert!(lost_some > 10, "{lost_some}");
}

/// What does not depend on random numbers.
fn comparable(seen: &Seen) -> Vec<&Part> {
    seen.values().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_whatever_call_of_the_repair_the_power_goes_off_the_same_call_again_ends_it() {
    let (lived, _) = lived(&history()).await;
    let segments = segments(&lived);
    let (old, newest) = (&segments[1], segments.last().unwrap());
    let inside = |name: &String| {
        let content = lived.disk.content(name);
        let (header, _) = SegmentHeader::decode(&content).unwrap();
        header.frames_at() + 100
    };
    let middle = &segments[segments.len() / 2];
    type Damage<'a> = Box<dyn Fn(&FaultyDisk) + 'a>;
    let damages: [(&str, Damage<'_>); 4] = [
        (
            "old",
            Box::new(|disk| disk.damage(old, inside(old), b"xyz")),
        ),
        (
            "newest",
            Box::new(|disk| disk.damage(newest, inside(newest), b"xyz")),
        ),
        ("missing", Box::new(|disk| disk.lose(middle))),
        (
            "two",
            Box::new(|disk| {
                disk.damage(old, 20, b"rubbish");
                disk.damage(old, 4096 + 20, b"rubbish");
                disk.damage(newest, 8192, b"rubbish");
            }),
        ),
    ];
    for (what, damage) in damages {
        let rig = Rig::on(lived.disk.fork());
        damage(&rig.disk);
        let report = rig.would_lose().expect(what);
        rig.disk.record();
        rig.accept(&named(&report)).unwrap();
        let recorded = rig.disk.recorded();
        assert!(recorded.len() > 8, "{what}: {} calls", recorded.len());
        let engine = rig.open();
        let wanted = seen(engine.as_ref(), what).await;
        let state = engine.list("").await;
        shut(engine).await;
        let mut tried = BTreeSet::new();
        for (call, (next, disk)) in (0..).zip(&recorded) {
            for how in [
                Crash::LoseAll,
                Crash::Process,
                Crash::Random(call),
                Crash::Random(call + 99),
            ] {
                let disk = disk.fork();
                disk.crash(how);
                if !tried.insert(disk.fingerprint()) {
                    continue;
                }
                let when = format!("{what}: {how:?} before call {call}: {next}");
                // It may be that it starts already; then it is right already.
                let early = Rig::on(disk.fork());
                if let Ok(engine) = early.try_open() {
                    if early.would_lose().is_none() {
                        let now = seen(engine.as_ref(), &when).await;
                        assert_eq!(comparable(&now), comparable(&wanted), "{when}");
                    }
                    shut(engine).await;
                }
                let rig = Rig::on(disk);
                let journal = rig.dir().join("journal");
                let files = report.files.iter();
                let again = files.map(|file| journal.join(file.path.file_name().unwrap()));
                let accepted = rig.accept(&again.collect::<Vec<_>>());
                accepted.unwrap_or_else(|error| panic!("{when}: {error}"));
                let engine: Arc<_> = rig.open();
                let now = seen(engine.as_ref(), &when).await;
                assert_eq!(comparable(&now), comparable(&wanted), "{when}");
                assert_eq!(engine.list("").await, state, "{when}");
                shut(engine).await;
                verify(&rig, &when);
                let left = rig
                    .disk
                    .names()
                    .into_iter()
                    .filter(|name| name.contains("mended"));
                assert_eq!(left.count(), 0, "{when}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_damaged_or_not_there_is_refused() {
    let (rig, _) = lived(&history()).await;
    let files: Vec<_> = segments(&rig)
        .iter()
        .map(|name| rig.dir().join(name))
        .collect();
    let before = rig.disk.fingerprint();
    let error = rig.accept(&files[..1]).unwrap_err();
    assert!(matches!(error, AcceptError::NotDamaged(_)), "{error}");
    for name in ["0000009999.seg", "elsewhere/0000000001.seg", "LOCK"] {
        let error = rig.accept(&[name.into()]).unwrap_err();
        assert!(matches!(error, AcceptError::NoSuchFile { .. }), "{error}");
    }
    assert_eq!(rig.disk.fingerprint(), before, "touched");
}

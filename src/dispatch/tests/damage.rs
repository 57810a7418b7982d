//! A log that cannot be read in one place.

use std::{fs, path::Path};

use serde_json::json;

use super::{
    checkpoints::crashed,
    harness::{Harness, SOURCE, message},
    stub::{StubTarget, until},
};
use crate::storage::{Log, OpenRecords};

/// Changes a bit of the payloads in the oldest file, which are long runs of `x`.
fn spoil_oldest(journal: &Path) {
    let entries = fs::read_dir(journal).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let oldest = files.filter(|path| path.is_file()).min().unwrap();
    let mut bytes = fs::read(&oldest).unwrap();
    let run = [b'x'; 64];
    let at = bytes.windows(run.len()).position(|part| part == run);
    bytes[at.unwrap()] ^= 1;
    fs::write(oldest, bytes).unwrap();
}

async fn unreadable(gateway: &Harness, count: i64) {
    let partitions = &gateway.stats.unreadable_partitions;
    let what = format!("{count} unreadable partitions");
    until(&what, || partitions.get() == count).await;
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_is_counted_as_long_as_it_is_there() {
    let target = StubTarget::start().await;
    let gateway = Harness::start(|_| {}).await;
    // More than one file, as the newest one stays in memory.
    for n in 0..6 {
        let mut message = message(target.address, &format!("/{n}"));
        message["targetRestApiPayload"] = json!("x".repeat(300_000));
        gateway.sync("k", &message).await;
    }
    let dir = crashed(&gateway);
    spoil_oldest(&dir.path().join("journal"));
    let gateway = Harness::start_in(dir, 1, |_| {}).await;
    unreadable(&gateway, 1).await;
    let source = gateway.stream(SOURCE).id;
    let deleted = gateway
        .engine
        .delete_stream(source, None, OpenRecords::Drop);
    deleted.await.unwrap();
    unreadable(&gateway, 0).await;
}

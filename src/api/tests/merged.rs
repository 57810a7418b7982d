//! Records of all partitions: `/v1/streams/{stream}/partitions/*/records`.

use super::*;

const STREAM: &str = "Wide";

/// A gateway with a stream of this number of partitions.
async fn wide(partitions: u16) -> Edge {
    let edge = Edge::plain().await;
    let name = STREAM.parse().unwrap();
    let made = edge
        .engine
        .create_stream(name, partitions, StreamConfig::default());
    made.await.unwrap();
    edge
}

impl Edge {
    async fn put(&self, partition: u16, values: impl IntoIterator<Item = u64>) {
        let records = values.into_iter().map(|n| record("", &n.to_string()));
        self.append_to(STREAM, partition, records.collect()).await;
    }

    async fn page(&self, query: &str) -> Value {
        let path = format!("/v1/streams/{STREAM}/partitions/*/records?{query}");
        let answer = self.get(&path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn refused(&self, query: &str) -> String {
        let path = format!("/v1/streams/{STREAM}/partitions/*/records?{query}");
        let problem = self.get(&path).await.check_problem(400, "invalid_request");
        problem["detail"].as_str().unwrap().to_owned()
    }

    /// Reads pages until the last one.
    async fn pages(&self, first: &str, each: &str) -> (Vec<String>, usize) {
        let (mut places, mut pages) = (Vec::new(), 0);
        let mut query = format!("{first}{each}");
        loop {
            let page = self.page(&query).await;
            places.extend(shown(&page));
            pages += 1;
            match page["next"].as_str() {
                Some(next) => query = format!("from={next}{each}"),
                None => return (places, pages),
            }
        }
    }
}

/// `partition/offset` of each record of a page.
fn shown(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    let place =
        |item: &Value| format!("{}/{}", item["partition"].as_str().unwrap(), item["offset"]);
    items.map(place).collect()
}

#[tokio::test]
async fn records_of_all_partitions_come_by_time_whatever_the_pages() {
    let edge = wide(3).await;
    edge.put(2, [0]).await;
    edge.put(0, [1, 2]).await;
    edge.put(1, [3]).await;
    edge.put(0, [4]).await;
    edge.put(2, [5]).await;
    let all = ["2/0", "0/0", "0/1", "1/0", "0/2", "2/1"];
    let page = edge.page("").await;
    assert_eq!(shown(&page), all);
    assert_eq!(page["next"], Value::Null);
    assert_eq!(page["earliest"], json!({"0": 0, "1": 0, "2": 0}));
    assert_eq!(page["tail"], json!({"0": 3, "1": 1, "2": 2}));
    for limit in 1..=7 {
        let (places, pages) = edge.pages("", &format!("&limit={limit}")).await;
        assert_eq!(places, all, "{limit}");
        // A full page at the end of all partitions has no `next` either.
        assert_eq!(pages, 6_usize.div_ceil(limit), "{limit}");
    }
    let time = page["items"][3]["time"].as_str().unwrap();
    assert_eq!(
        edge.pages(&format!("at={time}"), "&limit=2").await.0,
        all[3..]
    );
    assert_eq!(shown(&edge.page("from=tail").await), [""; 0]);
    // Later records come after the position, also that of a page without `next`.
    edge.put(1, [6]).await;
    edge.put(0, [7]).await;
    let position = page["position"].as_str().unwrap();
    let page = edge.page(&format!("from={position}")).await;
    assert_eq!(shown(&page), ["1/1", "0/3"]);
    assert_eq!(page["next"], Value::Null);
    assert_eq!(page["trimmed"], 0);
}

#[tokio::test]
async fn the_same_time_and_a_clock_that_went_back_change_no_order_within_a_partition() {
    let edge = wide(3).await;
    for partition in 0..3 {
        edge.put(partition, 0..4).await;
    }
    for partition in 0..3 {
        for (offset, seconds) in [(0, 50), (1, 50), (2, 20), (3, 60)] {
            let of = edge.partition(STREAM, partition);
            let time = Timestamp(seconds * 1_000_000);
            edge.engine.stored_at(of, Offset(offset), time);
        }
    }
    // The third record of partition 0 is older than the second, and still comes after it.
    let all = [
        "0/0", "0/1", "0/2", "1/0", "1/1", "1/2", "2/0", "2/1", "2/2", "0/3", "1/3", "2/3",
    ];
    assert_eq!(shown(&edge.page("").await), all);
    for limit in 1..12 {
        let (places, _) = edge.pages("", &format!("&limit={limit}")).await;
        assert_eq!(places, all, "{limit}");
    }
}

#[tokio::test]
async fn partitions_that_were_added_between_two_pages_appear() {
    let edge = wide(1).await;
    edge.put(0, 0..3).await;
    let page = edge.page("limit=2").await;
    let next = page["next"].as_str().unwrap().to_owned();
    let path = format!("/v1/streams/{STREAM}");
    let grown = edge.send("PATCH", &path, &[], r#"{"partitions": 4}"#).await;
    assert_eq!(grown.status, 200, "{}", grown.text());
    edge.put(3, [3]).await;
    let page = edge.page(&format!("from={next}")).await;
    assert_eq!(shown(&page), ["0/2", "3/0"]);
    assert_eq!(page["tail"], json!({"0": 3, "1": 0, "2": 0, "3": 1}));
    assert_eq!(page["next"], Value::Null);
}

#[tokio::test]
async fn records_trimmed_between_two_pages_are_counted() {
    let edge = wide(2).await;
    for partition in [0, 1] {
        edge.put(partition, 0..5).await;
    }
    let page = edge.page("limit=2").await;
    assert_eq!(
        (shown(&page), &page["trimmed"]),
        (vec!["0/0".into(), "0/1".into()], &json!(0))
    );
    let of = edge.partition(STREAM, 0);
    edge.engine.trim(of, Offset(4)).await.unwrap();
    let next = page["next"].as_str().unwrap();
    let page = edge.page(&format!("from={next}&limit=2")).await;
    assert_eq!(
        (shown(&page), &page["trimmed"]),
        (vec!["0/4".into(), "1/0".into()], &json!(2))
    );
    assert_eq!(page["earliest"], json!({"0": 4, "1": 0}));
}

#[tokio::test]
async fn open_records_of_all_partitions_are_merged_too() {
    let edge = wide(3).await;
    for n in 0..4 {
        for partition in 0..3 {
            edge.put(partition, [n]).await;
        }
    }
    for (partition, offset) in [(0, 0), (0, 1), (1, 1), (1, 3), (2, 2)] {
        let settle = Settle {
            of: edge.partition(STREAM, partition),
            offset: Offset(offset),
            end: NewSettlement::Delivered,
            attempts: 1,
            status: Some(200),
            epoch: Epoch(1),
        };
        let commit = Commit {
            settles: vec![settle],
            ..Commit::default()
        };
        edge.engine.commit(commit).await.unwrap();
    }
    let open = ["1/0", "2/0", "2/1", "0/2", "1/2", "0/3", "2/3"];
    for limit in [1, 2, 3, 7, 100] {
        let (places, _) = edge.pages("", &format!("&open=true&limit={limit}")).await;
        assert_eq!(places, open, "{limit}");
    }
}

#[tokio::test]
async fn a_wrong_from_is_refused_with_the_right_forms() {
    let edge = wide(2).await;
    edge.put(0, 0..3).await;
    let next = edge.page("limit=1").await["next"]
        .as_str()
        .unwrap()
        .to_owned();
    let damaged = format!("from={}", &next[..next.len() - 1]);
    assert_eq!(
        edge.refused(&damaged).await,
        "from: this next is damaged; give it exactly as the page before has it"
    );
    assert_eq!(
        edge.refused("from=1").await,
        "from: an offset belongs to one partition; name the partition in place of *"
    );
    assert_eq!(
        edge.refused("from=later").await,
        "from: with partition * it is earliest, tail, a time such as 2026-12-01 or 10m, or the next of the page before"
    );
    assert!(edge.refused("from=r2x").await.contains("another release"));
    assert!(
        edge.refused(&format!("from={next}&at=2026-01-01T00:00:00Z"))
            .await
            .contains("not both")
    );
    let foreign = format!("/v1/streams/DataSyncStream/partitions/*/records?from={next}");
    let problem = edge
        .get(&foreign)
        .await
        .check_problem(400, "invalid_request");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("from: this next is of another stream"),
        "{detail}"
    );
    // For one partition, the refusal says where this `from` belongs.
    let one = format!("/v1/streams/{STREAM}/partitions/0/records?from={next}");
    let problem = edge.get(&one).await.check_problem(400, "invalid_request");
    assert_eq!(
        problem["detail"],
        "this from goes on with all partitions; give * as the partition"
    );
    let one = format!("/v1/streams/{STREAM}/partitions/*/records/0");
    edge.get(&one).await.check_problem(404, "partition_unknown");
    // A restored stream has another incarnation. A position past the tail is refused too.
    edge.engine
        .delete_stream(
            edge.stream(STREAM).id,
            None,
            crate::storage::OpenRecords::Drop,
        )
        .await
        .unwrap();
    edge.engine
        .create_stream(STREAM.parse().unwrap(), 2, StreamConfig::default())
        .await
        .unwrap();
    edge.put(0, 0..3).await;
    assert!(
        edge.refused(&format!("from={next}"))
            .await
            .contains("made again")
    );
}

#[tokio::test]
async fn a_page_over_many_partitions_shows_all_large_records() {
    let edge = wide(256).await;
    let large = format!("\"{}\"", "x".repeat(64 << 10));
    for partition in 0..256 {
        edge.append_to(STREAM, partition, vec![record("", &large), record("", "1")])
            .await;
    }
    let (places, pages) = edge.pages("limit=1000", "").await;
    let all = (0..256).flat_map(|partition| [0, 1].map(|offset| format!("{partition}/{offset}")));
    assert_eq!(places, all.collect::<Vec<_>>());
    assert!(pages > 1, "16 MiB are no one page");
    let tail = edge.page("from=tail").await;
    let position = tail["position"].as_str().unwrap();
    assert_eq!(
        shown(&edge.page(&format!("from={position}")).await),
        [""; 0]
    );
}

//! Body of `POST /stream/retry`: the five members of the OCI sample, and further ones. `errormapping` is optional.
//!
//! Numbers may be strings of digits, because the sample accepts both.

mod filter;
mod mapping;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use serde_json::value::RawValue;

use crate::{
    dispatch::TargetId,
    json::{
        faults::{Faults, FieldError},
        object::{self, Object, whole},
        scan,
    },
    retry::{Filter, GroupName, GroupNameInvalid},
};

const MEMBERS: [&str; 12] = [
    "streamOCIDToRetry",
    "noOfMessagesToProcess",
    "readAfterOffset",
    "readPartition",
    "errormapping",
    "readBeforeOffset",
    "group",
    filter::NAME,
    "ratePerSecond",
    "dryRun",
    "redeliver",
    "timeBudgetMs",
];
/// Largest `ratePerSecond`: about as many calls as one machine can make.
const RATE_MAX: i128 = 100_000;

/// A request for a retry, with streams by name.
#[derive(Debug, PartialEq)]
pub(in crate::api) struct Retry {
    pub(in crate::api) stream: String,
    pub(in crate::api) records_max: u64,
    /// Last offset to skip; -1 = from the earliest record. `None` = from the position of the group.
    pub(in crate::api) after: Option<i64>,
    /// End of the retry: the first offset that is not read.
    pub(in crate::api) before: Option<u64>,
    pub(in crate::api) group: Option<GroupName>,
    pub(in crate::api) partition: ReadPartition,
    /// `responsecode` and `stream` of each entry. `None` (absent or `null`) = the outcome table decides.
    pub(in crate::api) mapping: Option<Vec<(String, String)>>,
    pub(in crate::api) filter: Filter,
    /// Calls per second.
    pub(in crate::api) rate: Option<NonZeroU32>,
    pub(in crate::api) dry_run: bool,
    pub(in crate::api) redeliver: bool,
    pub(in crate::api) time_budget: Duration,
}

/// The partitions to read.
#[derive(Debug, PartialEq)]
pub(in crate::api) enum ReadPartition {
    One(u16),
    /// `"*"`
    All,
}

/// Bounds and targets of the configuration.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Bounds<'a> {
    /// Targets by name.
    pub(in crate::api) targets: &'a BTreeMap<String, TargetId>,
    pub(in crate::api) records_max: u64,
    /// The largest time budget, and the default.
    pub(in crate::api) time_budget: Duration,
}

impl Retry {
    /// Reads a body, or names every fault of it.
    pub(in crate::api) fn parse(body: &[u8], bounds: Bounds<'_>) -> Result<Self, Faults> {
        let (object, mut faults) = object::body(body, &MEMBERS)?;
        let stream = object.text("streamOCIDToRetry", &mut faults);
        let most = i128::from(bounds.records_max);
        let records_max = required(&object, "noOfMessagesToProcess", 1, most, &mut faults);
        let most = i128::from(i64::MAX);
        let group = object.get("group").map(|value| {
            let name = scan::string(value).and_then(|name| name.parse().ok());
            if name.is_none() {
                object.wrong("group", &GroupNameInvalid.to_string(), &mut faults);
            }
            name
        });
        let name = "readAfterOffset";
        let after = match (&group, object.get(name)) {
            (Some(_), None) => None,
            _ => required(&object, name, -1, most, &mut faults),
        };
        let name = "readBeforeOffset";
        let before = object
            .get(name)
            .and_then(|value| in_range(&object, name, value, 0, most, &mut faults))
            .map(i64::unsigned_abs);
        let partition = object.required("readPartition", &mut faults);
        let partition = partition.and_then(|value| read_partition(&object, value, &mut faults));
        let mapping = object.get("errormapping");
        let mapping = mapping.filter(|value| value.get() != "null");
        let mapping = mapping.map(|value| mapping::read(&object, value, &mut faults));
        let filter = object.get(filter::NAME);
        let filter = filter.map(|value| filter::read(&object, value, bounds.targets, &mut faults));
        let rate = object.get("ratePerSecond").and_then(|value| {
            let rate = in_range(&object, "ratePerSecond", value, 1, RATE_MAX, &mut faults)?;
            NonZeroU32::new(u32::try_from(rate).ok()?)
        });
        let dry_run = object.flag("dryRun", &mut faults);
        let redeliver = object.flag("redeliver", &mut faults);
        let time_budget = match object.get("timeBudgetMs") {
            None => Some(bounds.time_budget),
            Some(value) => {
                let most = i128::try_from(bounds.time_budget.as_millis()).unwrap_or(i128::MAX);
                let ms = in_range(&object, "timeBudgetMs", value, 1, most, &mut faults);
                ms.map(|ms| Duration::from_millis(ms.unsigned_abs()))
            }
        };
        match (stream, records_max, partition, time_budget) {
            (Some(stream), Some(records_max), Some(partition), Some(time_budget))
                if faults.is_empty() =>
            {
                Ok(Self {
                    stream: stream.into_owned(),
                    records_max: records_max.unsigned_abs(),
                    after,
                    before,
                    group: group.flatten(),
                    partition,
                    mapping: mapping.flatten(),
                    filter: filter.unwrap_or_default(),
                    rate,
                    dry_run,
                    redeliver,
                    time_budget,
                })
            }
            _ => Err(faults),
        }
    }
}

/// Returns whether all faults of a body are in its filter.
pub(in crate::api) fn is_about_filter(faults: &[FieldError]) -> bool {
    let of_filter = |fault: &FieldError| fault.pointer.split('/').nth(1) == Some(filter::NAME);
    faults.iter().all(of_filter)
}

fn required(
    object: &Object<'_>,
    name: &str,
    least: i128,
    most: i128,
    faults: &mut Faults,
) -> Option<i64> {
    let value = object.required(name, faults)?;
    in_range(object, name, value, least, most, faults)
}

fn in_range(
    object: &Object<'_>,
    name: &str,
    value: &RawValue,
    least: i128,
    most: i128,
    faults: &mut Faults,
) -> Option<i64> {
    let number = whole(value)
        .filter(|number| (least..=most).contains(number))
        .and_then(|number| i64::try_from(number).ok());
    if number.is_none() {
        let what = format!("this must be a whole number from {least} to {most}");
        object.wrong(name, &what, faults);
    }
    number
}

fn read_partition(
    object: &Object<'_>,
    value: &RawValue,
    faults: &mut Faults,
) -> Option<ReadPartition> {
    if scan::string(value).as_deref() == Some("*") {
        return Some(ReadPartition::All);
    }
    let number = whole(value).and_then(|number| u16::try_from(number).ok());
    if number.is_none() {
        let what = "this must be the number of a partition such as \"0\", or \"*\"";
        object.wrong("readPartition", what, faults);
    }
    number.map(ReadPartition::One)
}

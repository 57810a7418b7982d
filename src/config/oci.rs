//! `[oci_sample]`: values and manners of the OCI sample, put where the gateway has them.

use super::{Answer, Config, StreamSettings, check::Finding};
use crate::place::StreamName;

/// Statuses that the defaults of the outcome table name one by one; the sample knows none of them but 400, 500 and 503.
const STATUSES_OF_DEFAULTS: [&str; 17] = [
    "401", "403", "404", "405", "408", "409", "410", "413", "415", "418", "422", "425", "429",
    "501", "502", "504", "511",
];

/// Takes `[oci_sample]` apart into streams, roles, outcomes and `[sync]`. What was said explicitly (`said`) stays.
pub(super) fn apply(
    config: &mut Config,
    said: &dyn Fn(&str) -> bool,
    findings: &mut Vec<Finding>,
    warnings: &mut Vec<String>,
) {
    let Some(sample) = config.oci_sample.clone() else {
        return;
    };
    if sample.compat {
        be_compatible(config, said);
    }
    for (key, value) in [
        ("vault_ocid", &sample.vault_ocid),
        ("vault_key_ocid", &sample.vault_key_ocid),
        ("vault_compartment_ocid", &sample.vault_compartment_ocid),
        ("stream_compartment_ocid", &sample.stream_compartment_ocid),
    ] {
        if value.is_some() {
            warnings.push(format!(
                "oci_sample.{key} is ignored: streams and secrets are kept by this gateway itself, in data.dir"
            ));
        }
    }
    // The source comes first, then the error streams in the order in which merged roles take the first one's stream.
    let roles = &mut config.roles;
    let mut taken: Vec<(&str, String, StreamName)> = Vec::new();
    for (key, ocid, name) in [
        (
            "data_stream_ocid",
            sample.data_stream_ocid,
            &mut roles.source,
        ),
        (
            "serviceUnavailable_error_stream_ocid",
            sample.serviceUnavailable_error_stream_ocid,
            &mut roles.unavailable,
        ),
        (
            "internalserver_error_stream_ocid",
            sample.internalserver_error_stream_ocid,
            &mut roles.internal,
        ),
        (
            "unrecoverable_error_stream_ocid",
            sample.unrecoverable_error_stream_ocid,
            &mut roles.unrecoverable,
        ),
        (
            "default_error_stream_ocid",
            sample.default_error_stream_ocid,
            &mut roles.default,
        ),
    ] {
        let Some(ocid) = ocid else { continue };
        match taken.iter().find(|(_, other, _)| *other == ocid) {
            Some((other, ..)) if *other == "data_stream_ocid" => findings.push(Finding {
                keys: vec![format!("oci_sample.{key}")],
                message: format!(
                    "is the data stream's ({other}): its failures would be dispatched again without end"
                ),
            }),
            Some((_, _, shared)) => *name = shared.clone(),
            None => taken.push((key, ocid, name.clone())),
        }
    }
    for (key, ocid, name) in taken {
        set_ocid(config, key, ocid, &name, findings);
    }
}

fn set_ocid(
    config: &mut Config,
    key: &str,
    ocid: String,
    name: &StreamName,
    findings: &mut Vec<Finding>,
) {
    let at = config
        .streams
        .iter()
        .position(|stream| stream.name == *name)
        .unwrap_or_else(|| {
            config.streams.push(StreamSettings {
                name: name.clone(),
                partitions: 1,
                retention_hours: None,
                retention_bytes: None,
                ocid: None,
            });
            config.streams.len() - 1
        });
    match &config.streams[at].ocid {
        Some(other) if *other != ocid => findings.push(Finding {
            keys: vec![format!("oci_sample.{key}"), format!("streams[{at}].ocid")],
            message: format!(
                "differs from streams[{at}].ocid, which is of the same stream ({name}): say it once"
            ),
        }),
        _ => config.streams[at].ocid = Some(ocid),
    }
}

/// Text answers, lenient checks, and the sample's table: 400, 500 and 503 have a stream each, whatever raised an
/// exception there is unrecoverable, and every other answer goes to the default stream, also those that the sample
/// took for a success (1xx and 3xx).
fn be_compatible(config: &mut Config, said: &dyn Fn(&str) -> bool) {
    if !said("sync.answer") {
        config.sync.answer = Answer::Text;
    }
    if !said("sync.lenient") {
        config.sync.lenient = true;
    }
    let mut table = vec![
        ("400", "unrecoverable"),
        ("500", "internal"),
        ("503", "unavailable"),
    ];
    table.extend(["1xx", "3xx", "4xx", "5xx", "default"].map(|key| (key, "default")));
    table.extend(STATUSES_OF_DEFAULTS.map(|key| (key, "default")));
    let exceptions = [
        "invalid", "secret", "blocked", "internal", "network", "dns", "connect", "tls", "timeout",
        "reset",
    ];
    table.extend(exceptions.map(|key| (key, "unrecoverable")));
    for (key, role) in table {
        // `[outcomes]` wins; there a class also speaks for its statuses, and a group for its causes.
        let group = match key {
            "dns" | "connect" | "tls" | "timeout" | "reset" => Some("network".to_owned()),
            key if key.parse::<u16>().is_ok() => Some(format!("{}xx", &key[..1])),
            _ => None,
        };
        let spoken_for = group.is_some_and(|group| said(&format!("outcomes.{group}")));
        if !spoken_for {
            let entry = config.outcomes.entry(key.to_owned());
            entry.or_insert_with(|| role.to_owned());
        }
    }
}

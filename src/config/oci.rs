//! `[oci_sample]`: settings of the OCI sample, and its behaviour.

use serde::{Deserialize, Serialize};

use super::{Answer, Config, StreamSettings, check::Finding};
use crate::model::ids::StreamName;

/// `[oci_sample]`: the nine function keys of the sample, and its behaviour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(non_snake_case, reason = "the sample spells one key so")]
pub struct OciSample {
    /// Text answers, lenient checks and the sample's table of codes (1xx and 3xx are never success).
    pub compat: bool,
    /// Becomes the `ocid` of the source stream.
    pub data_stream_ocid: Option<String>,
    /// Becomes the `ocid` of the unrecoverable stream.
    pub unrecoverable_error_stream_ocid: Option<String>,
    /// Becomes the `ocid` of the unavailable stream.
    pub serviceUnavailable_error_stream_ocid: Option<String>,
    /// Becomes the `ocid` of the internal stream.
    pub internalserver_error_stream_ocid: Option<String>,
    /// Becomes the `ocid` of the default stream; equal to another one's, the two roles share a stream.
    pub default_error_stream_ocid: Option<String>,
    /// Ignored, with a warning.
    pub vault_ocid: Option<String>,
    /// Ignored, with a warning.
    pub vault_key_ocid: Option<String>,
    /// Ignored, with a warning.
    pub vault_compartment_ocid: Option<String>,
    /// Ignored, with a warning.
    pub stream_compartment_ocid: Option<String>,
}

/// Merges `[oci_sample]` into streams, roles and `[sync]`. Explicit settings (`said`) win.
pub(super) fn apply(
    config: &mut Config,
    said: &dyn Fn(&str) -> bool,
    findings: &mut Vec<Finding>,
    warnings: &mut Vec<String>,
) {
    let Some(sample) = config.oci_sample.clone() else {
        return;
    };
    // The outcome table of `compat` is applied by dispatch, in place of the built-in one.
    if sample.compat {
        if !said("sync.answer") {
            config.sync.answer = Answer::Text;
        }
        if !said("sync.lenient") {
            config.sync.lenient = true;
        }
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
    // The order matters: of merged roles the first one names the stream.
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
                ocid: None,
                retention_hours: None,
                retention_bytes: None,
            });
            config.streams.len() - 1
        });
    match &config.streams[at].ocid {
        Some(other) if *other != ocid => findings.push(Finding {
            keys: vec![format!("oci_sample.{key}"), format!("streams[{at}].ocid")],
            message: format!(
                "differs from streams[{at}].ocid, which is for the same stream ({name}): set it in one of them"
            ),
        }),
        _ => config.streams[at].ocid = Some(ocid),
    }
}

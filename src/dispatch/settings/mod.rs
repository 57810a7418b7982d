//! The settings of dispatch: read from the configuration, checked once, and turned into values that calls use.

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore};

use super::{
    backoff::Backoff, outcome::table::OutcomeTable, secret::SecretHeader, target_id::TargetId,
};
use crate::{
    config::{self, Config, Roles},
    model::{address::AddressRule, target::Origin},
};

/// Settings of dispatch and retry, from `[dispatch]`, `[[targets]]`, `[outcomes]`, `[roles]`, `push.masked_headers` and
/// `server.grace_ms`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) targets: HashMap<TargetId, Arc<TargetSettings>>,
    pub(crate) other_targets: Arc<TargetSettings>,
    pub(crate) targets_max: usize,
    /// Bounds of each queue.
    pub(crate) limits: Limits,
    pub(crate) queues_bytes_max: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) backoff: Backoff,
    /// Longest wait that a target may ask for by `Retry-After`.
    pub(crate) retry_after_max: Duration,
    /// How long after its first call a target may put a record off; `None` = not at all.
    pub(crate) deferred_max: Option<Duration>,
    pub(crate) outcomes: OutcomeTable,
    pub(crate) roles: Roles,
    /// Names of further headers that hold credentials.
    pub(crate) masked_headers: Vec<String>,
    pub(crate) outward: Outward,
    /// How long a stop of the gateway waits for attempts in flight.
    pub grace: Duration,
}

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Waiting jobs.
    pub(crate) queue_len_max: usize,
    /// Their bytes.
    pub(crate) queue_bytes_max: usize,
    /// Sleeping workers that keep their connection.
    pub(crate) idle_connections_max: usize,
    /// The longest backoff of a job and pause of a breaker.
    pub(crate) backoff_max: Duration,
    /// The longest wait that a target may ask for.
    pub(crate) retry_after_max: Duration,
}

/// How connections to targets are made.
#[derive(Clone, Debug)]
pub(crate) struct Outward {
    pub(crate) rule: AddressRule,
    pub(crate) tls: Arc<ClientConfig>,
    /// How long addresses of a host are kept; zero keeps none.
    pub(crate) addresses_kept: Duration,
}

/// The settings of one target.
#[derive(Clone, Debug)]
pub(crate) struct TargetSettings {
    /// Name in metrics and logs; without one the target itself is shown.
    pub(crate) name: Option<String>,
    /// Calls in flight.
    pub(crate) in_flight_max: usize,
    /// Time between the starts of two calls; `None` = no rate.
    pub(crate) interval: Option<Duration>,
    /// Attempts for one record.
    pub(crate) attempts_max: u32,
    /// Time until the connection is open.
    pub(crate) connect_timeout: Duration,
    /// Time from the open connection to the first byte of the response head.
    pub(crate) response_timeout: Duration,
    /// Time of the whole attempt.
    pub(crate) attempt_timeout: Duration,
    /// The payload is sent with DELETE and GET too.
    pub(crate) body_always: bool,
    /// The header for its secret.
    pub(crate) secret_header: SecretHeader,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct SettingInvalid {
    /// Its key, as in `targets.2.origin`.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Settings {
    /// Reads the settings of dispatch from the configuration; loads `dispatch.ca_file`.
    ///
    /// `listen` has the gateway's own addresses, which are never called. If all are on loopback, loopback targets are
    /// allowed by default.
    ///
    /// # Errors
    /// Every setting that cannot be used.
    pub fn new(config: &Config, listen: &[SocketAddr]) -> Result<Self, Vec<SettingInvalid>> {
        let dispatch = &config.dispatch;
        let mut invalid = Vec::new();
        let compat = config.oci_sample.as_ref().is_some_and(|oci| oci.compat);
        let outcomes = OutcomeTable::new(&config.outcomes, &config.roles, compat)
            .map_err(|wrong| {
                invalid.extend(wrong.into_iter().map(|entry| SettingInvalid {
                    key: format!("outcomes.{}", entry.key),
                    reason: entry.reason,
                }));
            })
            .ok();
        let mut note = |key: String, reason: String| invalid.push(SettingInvalid { key, reason });
        let mut targets = HashMap::new();
        for (at, target) in config.targets.iter().enumerate() {
            match Origin::bare(&target.origin) {
                Err(invalid) => note(format!("targets.{at}.origin"), invalid.to_string()),
                Ok(origin) => {
                    let mut settings = TargetSettings::new(dispatch, Some(target));
                    if let Some(name) = &target.secret_header {
                        match SecretHeader::new(name) {
                            Some(header) => settings.secret_header = header,
                            None => note(
                                format!("targets.{at}.secret_header"),
                                "no header name".into(),
                            ),
                        }
                    }
                    let settings = Arc::new(settings);
                    let id = TargetId::new(origin, target.path_prefix.as_deref());
                    if targets.insert(id.clone(), settings).is_some() {
                        let reason = format!("{id} has an entry already");
                        note(format!("targets.{at}.origin"), reason);
                    }
                }
            }
        }
        let tls = tls(dispatch.ca_file.as_deref())
            .map_err(|reason| note("dispatch.ca_file".into(), reason))
            .ok();
        let (Some(outcomes), Some(tls), true) = (outcomes, tls, invalid.is_empty()) else {
            return Err(invalid);
        };
        Ok(Self {
            targets,
            other_targets: Arc::new(TargetSettings::new(dispatch, None)),
            targets_max: dispatch.targets_max,
            limits: Limits {
                queue_len_max: dispatch.queue_len_max.max(1),
                queue_bytes_max: dispatch.queue_bytes_max,
                idle_connections_max: dispatch.idle_connections_max,
                backoff_max: Duration::from_millis(dispatch.backoff_ms_max),
                retry_after_max: Duration::from_millis(dispatch.retry_after_ms_max),
            },
            queues_bytes_max: dispatch.queues_bytes_max,
            idle_timeout: Duration::from_millis(dispatch.idle_timeout_ms),
            backoff: Backoff {
                first: Duration::from_millis(dispatch.backoff_ms),
                max: Duration::from_millis(dispatch.backoff_ms_max),
            },
            retry_after_max: Duration::from_millis(dispatch.retry_after_ms_max),
            // The OCI sample puts no record off.
            deferred_max: (dispatch.deferred_ms_max > 0 && !compat)
                .then(|| Duration::from_millis(dispatch.deferred_ms_max)),
            outcomes,
            roles: config.roles.clone(),
            masked_headers: config.masked_headers(),
            outward: Outward {
                rule: AddressRule::new(
                    dispatch.private_addresses,
                    dispatch.loopback_addresses,
                    listen,
                ),
                tls,
                addresses_kept: Duration::from_millis(dispatch.dns_ms),
            },
            grace: Duration::from_millis(config.server.grace_ms),
        })
    }

    /// Returns the settings of a target.
    pub(crate) fn target(&self, target: &TargetId) -> &Arc<TargetSettings> {
        self.targets.get(target).unwrap_or(&self.other_targets)
    }
}

impl TargetSettings {
    fn new(all: &config::Dispatch, own: Option<&config::TargetSettings>) -> Self {
        let millis = |own: Option<u64>, all| Duration::from_millis(own.unwrap_or(all));
        Self {
            name: own.map(|own| own.name.clone()),
            in_flight_max: own
                .and_then(|own| own.in_flight_max)
                .unwrap_or(all.in_flight_max),
            interval: own
                .and_then(|own| own.rate_per_second)
                .or(all.rate_per_second)
                .map(|rate| Duration::from_secs(1) / rate.max(1)),
            attempts_max: own
                .and_then(|own| own.attempts_max)
                .unwrap_or(all.attempts_max)
                .max(1),
            connect_timeout: millis(
                own.and_then(|own| own.connect_timeout_ms),
                all.connect_timeout_ms,
            ),
            response_timeout: millis(
                own.and_then(|own| own.response_timeout_ms),
                all.response_timeout_ms,
            ),
            attempt_timeout: millis(
                own.and_then(|own| own.attempt_timeout_ms),
                all.attempt_timeout_ms,
            ),
            body_always: own.is_some_and(|own| own.body_always),
            secret_header: SecretHeader::default(),
        }
    }
}

/// Returns the TLS configuration of all targets: public authorities and those of `ca_file`; HTTP/2 where the target
/// offers it.
fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.into(),
    };
    if let Some(file) = ca_file {
        crate::runtime::authorities::add(&mut roots, file)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

#[cfg(test)]
mod tests;

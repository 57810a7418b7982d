//! What the configuration says about calls, checked once and turned into values that calls use.

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore};

use super::{
    call::request::SecretHeader,
    outcome::table::OutcomeTable,
    queue::{backoff::Backoff, target_queue::Limits},
    target_id::TargetId,
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
    /// Of each queue.
    pub(crate) limits: Limits,
    pub(crate) queues_bytes_max: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) backoff: Backoff,
    /// Longest wait that a target may ask for by `Retry-After`.
    pub(crate) retry_after_max: Duration,
    /// How long after its first call a record may be put off by its target; `None` = not at all.
    pub(crate) deferred_max: Option<Duration>,
    pub(crate) outcomes: OutcomeTable,
    pub(crate) roles: Roles,
    /// Headers of messages that hold credentials, beside those that commonly do.
    pub(crate) masked_headers: Vec<String>,
    pub(crate) outward: Outward,
    /// How long a stop waits for the attempts in flight.
    pub grace: Duration,
}

/// How connections to targets are made.
#[derive(Clone, Debug)]
pub(crate) struct Outward {
    pub(crate) rule: AddressRule,
    pub(crate) tls: Arc<ClientConfig>,
    /// How old the addresses of a host may be; none are kept if this is nothing.
    pub(crate) addresses_kept: Duration,
}

/// What may differ from target to target.
#[derive(Clone, Debug)]
pub(crate) struct TargetSettings {
    /// For metrics and logs; without a name the origin stands for it.
    pub(crate) name: Option<String>,
    /// Calls at the same time.
    pub(crate) in_flight_max: usize,
    /// Between the beginnings of two calls; `None` = they may begin together.
    pub(crate) interval: Option<Duration>,
    /// Calls for one record.
    pub(crate) attempts_max: u32,
    /// Until the connection stands.
    pub(crate) connect_timeout: Duration,
    /// From there until the response begins.
    pub(crate) response_timeout: Duration,
    /// The whole call.
    pub(crate) attempt_timeout: Duration,
    /// Send the payload with DELETE and GET too.
    pub(crate) body_always: bool,
    /// The header in which it gets its secret.
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
    /// Reads everything about calls out of the configuration; loads `dispatch.ca_file`.
    ///
    /// `listen` is where the gateway listens: never called, and on loopback the reason why loopback is allowed if no
    /// setting says.
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
            // The sample puts nothing off.
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

    /// Returns what is set for a target.
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

/// One configuration for all targets: public authorities and those of `ca_file`; HTTP/2 where the target offers it.
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
mod tests {
    use super::*;

    fn target(origin: &str) -> config::TargetSettings {
        config::TargetSettings {
            name: "orders".into(),
            origin: origin.into(),
            path_prefix: None,
            in_flight_max: None,
            rate_per_second: Some(0),
            attempts_max: Some(0),
            connect_timeout_ms: None,
            response_timeout_ms: Some(7),
            attempt_timeout_ms: None,
            body_always: true,
            secret_header: None,
        }
    }

    #[test]
    fn a_targets_entry_wins_and_what_it_leaves_out_is_as_for_all() {
        let mut config = Config::default();
        config.targets.push(target("HTTPS://Orders.example:443/"));
        let settings = Settings::new(&config, &[]).unwrap();
        let orders = TargetId::of("https://orders.example/new");
        let orders = settings.target(&orders);
        assert_eq!(orders.response_timeout, Duration::from_millis(7));
        assert_eq!(orders.in_flight_max, config.dispatch.in_flight_max);
        assert_eq!(orders.attempts_max, 1, "a record is called at least once");
        assert_eq!(orders.interval, Some(Duration::from_secs(1)));
        assert_eq!(settings.other_targets.interval, None);
        config.targets[0].rate_per_second = None;
        config.dispatch.rate_per_second = Some(4);
        let settings = Settings::new(&config, &[]).unwrap();
        let quarter = Some(Duration::from_millis(250));
        assert!(settings.targets.values().all(|own| own.interval == quarter));
        assert_eq!(settings.other_targets.interval, quarter);
    }

    #[test]
    fn every_setting_that_cannot_be_used_is_named() {
        let mut config = Config::default();
        for origin in [
            "http://a/path",
            "a:80",
            "http://b",
            "http://b:80",
            "http://u@c",
        ] {
            config.targets.push(target(origin));
        }
        config.outcomes.insert("40x".into(), "default".into());
        config.dispatch.ca_file = Some("/nowhere/ca.pem".into());
        config.targets[2].secret_header = Some("no name".into());
        let invalid = Settings::new(&config, &[]).unwrap_err();
        let keys: Vec<_> = invalid.iter().map(|wrong| wrong.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "outcomes.40x",
                "targets.0.origin",
                "targets.1.origin",
                "targets.2.secret_header",
                "targets.3.origin",
                "targets.4.origin",
                "dispatch.ca_file",
            ]
        );
    }
}

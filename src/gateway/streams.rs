//! Makes the streams that the configuration asks for, and grows those that have become too small.

use std::collections::BTreeSet;

use crate::{
    config::{Config, ConfigErrors, Loaded, StreamSettings},
    log::Streams,
    model::ids::StreamName,
    storage::{MadeBy, StreamConfig, StreamError},
};

/// Why the streams are not as configured.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// Streams have more partitions than the configuration gives them. Nothing was made or changed.
    #[error("{}", lines(.0))]
    Shrink(Vec<Shrink>),
    /// The configuration names streams that are not there and whose names are reserved. Nothing was made or changed.
    #[error("{}", lines(.0))]
    Reserved(Vec<Reserved>),
    /// It could not be made or changed.
    #[error("stream {name} cannot be made or changed")]
    Stream {
        /// The stream.
        name: StreamName,
        /// Why.
        source: StreamError,
    },
}

impl EnsureError {
    /// Returns what is wrong with the settings; the error itself if that is not why.
    pub(super) fn of_settings(self, loaded: &Loaded) -> Result<ConfigErrors, Self> {
        let wrong = match self {
            Self::Shrink(shrunk) => {
                let wrong = shrunk.iter().map(|shrink| {
                    let key = format!("streams[{}].partitions", shrink.index);
                    loaded.error(&key, shrink.to_string())
                });
                wrong.collect()
            }
            Self::Reserved(reserved) => {
                let wrong = reserved.iter();
                let wrong = wrong.map(|wrong| loaded.error(&wrong.key, wrong.to_string()));
                wrong.collect()
            }
            Self::Stream { .. } => return Err(self),
        };
        Ok(ConfigErrors(wrong))
    }
}

fn lines<T: ToString>(wrong: &[T]) -> String {
    let lines: Vec<_> = wrong.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// A stream that is to be made has a name that the gateway keeps for itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is reserved for the gateway; take another name")]
pub struct Reserved {
    /// The name.
    pub name: StreamName,
    /// The key of the configuration.
    pub key: String,
}

/// A stream has more partitions than the configuration gives it, and partitions cannot go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "[[streams]] gives {name} {configured} partitions, but it has {present} already, and records keep their place: \
     give it {present} or more"
)]
pub struct Shrink {
    /// The stream.
    pub name: StreamName,
    /// Its place in `[[streams]]`.
    pub index: usize,
    /// What the configuration says.
    pub configured: u16,
    /// What is there.
    pub present: u16,
}

/// Looks whether the streams can be as configured; `partitions_of` tells how many partitions a stream has, if it is there.
///
/// # Errors
/// [`EnsureError::Shrink`] or [`EnsureError::Reserved`].
pub(super) fn check(
    config: &Config,
    partitions_of: impl Fn(&StreamName) -> Option<u16>,
) -> Result<(), EnsureError> {
    let shrunk = shrunk(config, &partitions_of);
    if !shrunk.is_empty() {
        return Err(EnsureError::Shrink(shrunk));
    }
    let reserved = reserved(config, &partitions_of);
    if !reserved.is_empty() {
        return Err(EnsureError::Reserved(reserved));
    }
    Ok(())
}

/// Returns every stream that would have to lose partitions.
fn shrunk(config: &Config, partitions_of: impl Fn(&StreamName) -> Option<u16>) -> Vec<Shrink> {
    let shrink = |(index, settings): (usize, &StreamSettings)| {
        let present = partitions_of(&settings.name)?;
        (settings.partitions < present).then(|| Shrink {
            name: settings.name.clone(),
            index,
            configured: settings.partitions,
            present,
        })
    };
    let all = config.streams.iter().enumerate();
    all.filter_map(shrink).collect()
}

/// Returns every stream that would have to be made under a reserved name. An older release may have made one: it stays.
fn reserved(config: &Config, partitions_of: impl Fn(&StreamName) -> Option<u16>) -> Vec<Reserved> {
    let roles = config.roles.all().into_iter();
    let roles = roles.map(|(role, name)| (format!("roles.{role}"), name));
    let own = config.streams.iter().enumerate();
    let own = own.map(|(index, settings)| (format!("streams[{index}].name"), &settings.name));
    let all = roles.chain(own).filter(|(_, name)| name.is_reserved());
    let wrong = all.filter(|(_, name)| partitions_of(name).is_none());
    wrong
        .map(|(key, name)| Reserved {
            name: name.clone(),
            key,
        })
        .collect()
}

/// Makes and changes streams until they are as `config` says: those of the roles, those of `[outcomes]`, and
/// `[[streams]]`. An error stream gets at least as many partitions as the source stream, since a failed record keeps
/// its partition's number; it gets them first.
///
/// No submission may be under way meanwhile: it may have chosen partitions among those there were.
pub(crate) async fn ensure(streams: &Streams, config: &Config) -> Result<(), EnsureError> {
    check(config, |name| {
        let stream = streams.by_name(name)?;
        Some(stream.partitions)
    })?;
    for stream in streams.engine().streams() {
        if stream.name.is_reserved() {
            tracing::warn!(
                stream = %stream.name,
                "an older release made this stream; a later one keeps its name for a stream of its own, so move to another"
            );
        }
    }
    let roles = &config.roles;
    let present = streams.by_name(&roles.source);
    let present = present.map_or(1, |present| present.partitions);
    let source_partitions = partitions(config, &roles.source).max(present);
    let mut names: BTreeSet<&StreamName> = roles.all().into_iter().map(|(_, name)| name).collect();
    // Outcomes may name only streams that are here.
    names.extend(config.streams.iter().map(|stream| &stream.name));
    names.remove(&roles.source);
    for name in names {
        let takes_failures = roles.all().into_iter().any(|(_, role)| role == name)
            || config.outcomes.values().any(|value| value == name.as_str());
        let partitions_min = if takes_failures { source_partitions } else { 1 };
        let partitions = partitions(config, name).max(partitions_min);
        ensure_one(streams, config, name, partitions).await?;
    }
    ensure_one(streams, config, &roles.source, source_partitions).await?;
    release(streams, config).await
}

/// Returns how many partitions the configuration gives a stream.
fn partitions(config: &Config, name: &StreamName) -> u16 {
    let settings = config.streams.iter().find(|stream| stream.name == *name);
    settings.map_or(1, |settings| settings.partitions)
}

async fn ensure_one(
    streams: &Streams,
    config: &Config,
    name: &StreamName,
    partitions: u16,
) -> Result<(), EnsureError> {
    let engine = streams.engine();
    let failed = |source| EnsureError::Stream {
        name: name.clone(),
        source,
    };
    let settings = config.streams.iter().find(|stream| stream.name == *name);
    let ocid = settings.and_then(|settings| settings.ocid.as_deref());
    for taken in [Some(name.as_str()), ocid].into_iter().flatten() {
        take_from_others(streams, name, taken).await?;
    }
    let Some(present) = streams.by_name(name) else {
        let wanted = settings.map_or_else(StreamConfig::default, of_settings);
        tracing::info!(stream = %name, partitions, "making stream");
        let made = engine.create_stream(name.clone(), partitions, wanted).await;
        return made.map(drop).map_err(failed);
    };
    let partitions = partitions.max(present.partitions);
    let wanted = settings.map_or_else(|| present.config.clone(), of_settings);
    if partitions == present.partitions && wanted == present.config {
        return Ok(());
    }
    tracing::info!(stream = %name, partitions, "changing stream");
    let changed = engine
        .change_stream(present.id, partitions, wanted, None)
        .await;
    changed.map(drop).map_err(failed)
}

/// What the configuration calls a stream is that stream's alone: another one that has it as its `ocid`, by the API or by
/// an earlier configuration, has none from now on.
async fn take_from_others(
    streams: &Streams,
    name: &StreamName,
    text: &str,
) -> Result<(), EnsureError> {
    for other in streams.engine().streams() {
        if other.name == *name || other.config.ocid.as_deref() != Some(text) {
            continue;
        }
        tracing::warn!(stream = %other.name, ocid = text, now = %name, "the configuration gives this ocid to another stream");
        let without = StreamConfig {
            ocid: None,
            ..other.config.clone()
        };
        let changed = streams
            .engine()
            .change_stream(other.id, other.partitions, without, None);
        changed.await.map_err(|source| EnsureError::Stream {
            name: other.name.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Streams that the configuration made and names no more belong to the API from now on.
async fn release(streams: &Streams, config: &Config) -> Result<(), EnsureError> {
    for stream in streams.engine().streams() {
        let named = config
            .streams
            .iter()
            .any(|settings| settings.name == stream.name);
        if stream.config.made_by == MadeBy::Config && !named {
            let role = config
                .roles
                .all()
                .into_iter()
                .any(|(_, name)| *name == stream.name);
            let released = StreamConfig {
                made_by: if role { MadeBy::Start } else { MadeBy::Api },
                ..stream.config.clone()
            };
            let changed =
                streams
                    .engine()
                    .change_stream(stream.id, stream.partitions, released, None);
            changed.await.map_err(|source| EnsureError::Stream {
                name: stream.name.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

fn of_settings(settings: &StreamSettings) -> StreamConfig {
    StreamConfig {
        made_by: MadeBy::Config,
        ocid: settings.ocid.clone(),
        retention_hours: settings.retention_hours,
        retention_bytes: settings.retention_bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        runtime::clock::Clock,
        storage::local::LogSettings,
        storage::{
            Stream,
            embedded::Embedded,
            local::{Options, RealDisk},
        },
    };

    struct Log {
        streams: Streams,
        _dir: tempfile::TempDir,
    }

    impl Log {
        fn open() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = Options {
                dir: dir.path().to_owned(),
                log: LogSettings {
                    segment_bytes: 1 << 20,
                    ..LogSettings::default()
                },
            };
            let engine = Embedded::open(options, Arc::new(RealDisk), Clock::system()).unwrap();
            Self {
                streams: Streams::new(engine),
                _dir: dir,
            }
        }

        /// Makes the streams of a configuration and returns name, partitions and maker of each.
        async fn ensure(&self, text: &str) -> Result<Vec<(String, u16, MadeBy)>, EnsureError> {
            let config: Config = toml::from_str(text).unwrap();
            ensure(&self.streams, &config).await?;
            let all = self.streams.engine().streams();
            let facts = |stream: &Arc<Stream>| {
                (
                    stream.name.to_string(),
                    stream.partitions,
                    stream.config.made_by,
                )
            };
            Ok(all.iter().map(facts).collect())
        }
    }

    fn five(partitions: u16) -> Vec<(String, u16, MadeBy)> {
        [
            "DataSyncStream",
            "DefaultErrorStream",
            "InternalserverErrorStream",
            "ServerUnavailableStream",
            "UnrecoverableErrorStream",
        ]
        .map(|name| (name.to_owned(), partitions, MadeBy::Start))
        .into()
    }

    #[tokio::test]
    async fn a_first_start_makes_five_streams_and_a_second_one_leaves_them_alone() {
        let log = Log::open();
        assert_eq!(log.ensure("").await.unwrap(), five(1));
        let id = log.streams.resolve("DataSyncStream").unwrap().id;
        assert_eq!(log.ensure("").await.unwrap(), five(1));
        assert_eq!(log.streams.resolve("DataSyncStream").unwrap().id, id);
    }

    #[tokio::test]
    async fn error_streams_have_as_many_partitions_as_the_source_and_never_fewer_than_before() {
        let log = Log::open();
        let four = "[[streams]]\nname = \"DataSyncStream\"\npartitions = 4\nocid = \"ocid1.d\"";
        let mut expected = five(4);
        expected[0].2 = MadeBy::Config;
        assert_eq!(log.ensure(four).await.unwrap(), expected);
        assert!(log.streams.resolve("ocid1.d").is_some());
        let fewer = log.ensure(&four.replace('4', "3")).await.unwrap_err();
        assert!(
            fewer
                .to_string()
                .contains("DataSyncStream 3 partitions, but it has 4"),
            "{fewer}"
        );
        // No longer configured, it keeps what it has and is the first start's again.
        assert_eq!(log.ensure("").await.unwrap(), five(4));
    }

    #[tokio::test]
    async fn an_ocid_of_the_config_is_one_streams_alone_whoever_had_it() {
        let log = Log::open();
        let stream =
            |name: &str, ocid: &str| format!("[[streams]]\nname = \"{name}\"\nocid = \"{ocid}\"\n");
        let config = |a: &str, b: &str| stream("Aa", a) + &stream("Bb", b);
        let api = StreamConfig {
            made_by: MadeBy::Api,
            ocid: Some("Bb".into()),
            ..StreamConfig::default()
        };
        let name = "Api".parse().unwrap();
        log.streams
            .engine()
            .create_stream(name, 1, api)
            .await
            .unwrap();
        let named = |text: &str| {
            log.streams
                .resolve(text)
                .map(|stream| stream.name.to_string())
        };
        for (a, b) in [("x", "y"), ("y", "x"), ("z", "y")] {
            log.ensure(&config(a, b)).await.unwrap();
            assert_eq!(named(a).as_deref(), Some("Aa"));
            assert_eq!(named(b).as_deref(), Some("Bb"));
            assert_eq!(named("Bb").as_deref(), Some("Bb"));
        }
        // Another stream under an ocid that one had which is configured no more.
        log.ensure(&stream("Cc", "z")).await.unwrap();
        assert_eq!(named("z").as_deref(), Some("Cc"));
    }

    #[tokio::test]
    async fn a_reserved_name_is_not_made_and_one_that_is_there_stays() {
        let log = Log::open();
        let own = "[[streams]]\nname = \"audit\"\n[roles]\ndefault = \"responses\"";
        let refused = log.ensure(own).await.unwrap_err().to_string();
        for told in [
            "roles.default: responses is reserved",
            "streams[0].name: audit is reserved",
        ] {
            assert!(refused.contains(told), "{refused}");
        }
        assert_eq!(log.streams.engine().streams().len(), 0);
        // As an older release has made them.
        for name in ["audit", "responses"] {
            let made = log.streams.engine().create_stream(
                name.parse().unwrap(),
                1,
                StreamConfig::default(),
            );
            made.await.unwrap();
        }
        let streams = log.ensure(own).await.unwrap();
        let audit = streams.iter().find(|(name, ..)| name == "audit");
        assert_eq!(audit, Some(&("audit".into(), 1, MadeBy::Config)));
        assert_eq!(log.ensure("").await.unwrap().len(), 7);
    }

    #[tokio::test]
    async fn streams_of_the_config_are_made_and_handed_to_the_api_when_it_names_them_no_more() {
        let log = Log::open();
        let own = "[[streams]]\nname = \"Auth\"\n[outcomes]\n401 = \"Auth\"";
        let mut expected = five(1);
        expected.insert(0, ("Auth".into(), 1, MadeBy::Config));
        assert_eq!(log.ensure(own).await.unwrap(), expected);
        expected[0].2 = MadeBy::Api;
        assert_eq!(log.ensure("").await.unwrap(), expected);
    }
}

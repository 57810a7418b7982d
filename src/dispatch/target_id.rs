//! The target of a record: an origin, or the part of it that an entry with `path_prefix` names. Pure.
//!
//! The path is that of the sent URL, without its query. A prefix matches whole segments, and case counts: `/orders`
//! matches `/orders`, `/orders/7` and `/orders?x=1`, and neither `/orders2` nor `/Orders`. The longest prefix wins; a
//! record that matches none is for the origin as a whole.
//!
//! Prefixes are read at the start, and a reload does not change them. With other prefixes, records of a lane would go
//! to another queue while older ones are still called from the first one, out of order.

use std::{collections::HashMap, fmt, sync::Arc};

use url::Url;

use crate::model::{
    layout::CallParts,
    record::{Record, header},
    target::{Origin, TargetUrl},
};

/// A target. Shown as its origin, followed by its prefix if it has one. Clones share it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TargetId {
    origin: Origin,
    prefix: Option<Arc<str>>,
}

impl TargetId {
    /// The part of an origin that a prefix names; without a prefix the rest of the origin.
    pub(crate) fn new(origin: Origin, prefix: Option<&str>) -> Self {
        let prefix = prefix.map(Into::into);
        Self { origin, prefix }
    }

    /// Reads a target in its shown form: an origin, and the prefix if it has one.
    ///
    /// # Errors
    /// A text that says what is wrong and what would be right.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        const RIGHT: &str = "give a target such as https://orders.example:443, or https://orders.example:443/orders for the URLs \
                             of it whose path begins so";
        let wrong = |why: &str| format!("{why}; {RIGHT}");
        let origin = Origin::of(text).map_err(|error| wrong(&error.to_string()))?;
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong(
                "there is more than an origin and the beginning of a path",
            ));
        }
        let prefix = Some(url.path()).filter(|path| *path != "/");
        if prefix.is_some_and(|prefix| prefix.ends_with('/')) {
            return Err(wrong(
                "the beginning of a path has whole segments, and no / behind it",
            ));
        }
        Ok(Self::new(origin, prefix))
    }

    /// Returns whether a record is for this target, or for a part of it that a longer prefix names.
    pub(crate) fn covers(&self, record: &Record) -> bool {
        let is_there = self::origin(record).is_some_and(|origin| origin == self.origin);
        let Some(prefix) = self.prefix.as_deref().filter(|_| is_there) else {
            return is_there;
        };
        let url = CallParts::of(record).ok();
        let url = url.and_then(|parts| TargetUrl::read(&parts.url, &record.value).ok());
        url.is_some_and(|url| matches(prefix, url.path.path()))
    }

    /// Returns the origin, which is called and to which secrets are bound.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.prefix.as_deref().unwrap_or_default();
        write!(f, "{}{prefix}", self.origin)
    }
}

impl fmt::Debug for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The prefixes of each origin with prefixes, the longest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefixes(HashMap<Origin, Vec<Arc<str>>>);

impl Prefixes {
    /// The prefixes of the given targets.
    pub(crate) fn of<'a>(targets: impl IntoIterator<Item = &'a TargetId>) -> Self {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        for target in targets {
            if let Some(prefix) = &target.prefix {
                let of = all.entry(target.origin.clone()).or_default();
                of.push(prefix.clone());
            }
        }
        for of in all.values_mut() {
            of.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        }
        Self(all)
    }

    /// Returns the target of a record; `None` if it names none that can be called.
    pub(crate) fn target(&self, record: &Record) -> Option<TargetId> {
        let origin = self::origin(record)?;
        // Reading the path parses the message, so it is done only for origins with prefixes.
        let prefix = self.0.get(&origin).and_then(|of| {
            let url = CallParts::of(record).ok()?.url;
            let url = TargetUrl::read(&url, &record.value).ok()?;
            of.iter().find(|prefix| matches(prefix, url.path.path()))
        });
        let prefix = prefix.cloned();
        Some(TargetId { origin, prefix })
    }

    /// Returns every target of an origin.
    pub(crate) fn targets(&self, origin: &Origin) -> impl Iterator<Item = TargetId> {
        let prefixes = self.0.get(origin).into_iter().flatten().cloned();
        let all = prefixes.map(Some).chain([None]);
        all.map(|prefix| TargetId {
            origin: origin.clone(),
            prefix,
        })
    }
}

/// Returns the origin of a record from the header that ingest wrote, else from the message.
pub(crate) fn origin(record: &Record) -> Option<Origin> {
    let noted = record.headers.get(header::TARGET);
    noted
        .and_then(|text| Origin::of(text).ok())
        .or_else(|| Origin::of(&CallParts::of(record).ok()?.url).ok())
}

fn matches(prefix: &str, path: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::record::Headers;

    impl TargetId {
        /// The whole origin of a URL.
        pub(crate) fn of(url: &str) -> Self {
            Self::new(Origin::of(url).unwrap(), None)
        }
    }

    #[test]
    fn a_target_is_read_as_it_is_shown() {
        for (text, shown) in [
            ("https://a", "https://a:443"),
            ("http://a:81/", "http://a:81"),
            ("http://a:80/orders", "http://a:80/orders"),
            ("HTTP://A/orders/eu", "http://a:80/orders/eu"),
        ] {
            let read = TargetId::read(text).unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(TargetId::read(shown), Ok(read));
        }
        for wrong in [
            "",
            "a",
            "ftp://a",
            "http://a/orders/",
            "http://a?x",
            "http://a/#x",
            "*",
        ] {
            let said = TargetId::read(wrong).unwrap_err();
            assert!(said.contains("give a target such as https://"), "{said}");
        }
    }

    #[test]
    fn a_target_covers_what_lies_below_it() {
        let covers = |target: &str, url: &str| {
            let message = json!({"targetRestApi": url, "targetRestApiOperation": "POST"});
            let record = Record {
                key: "k".into(),
                value: message.to_string().into(),
                headers: Headers::default(),
            };
            TargetId::read(target).unwrap().covers(&record)
        };
        for (target, url, expected) in [
            ("http://a", "http://a/x", true),
            ("http://a", "https://a/x", false),
            ("http://a/orders", "http://a/orders?x", true),
            ("http://a/orders", "http://a/orders/eu/7", true),
            ("http://a/orders", "http://a/orders2", false),
            ("http://a/orders", "http://a/", false),
            ("http://a/orders", "http://b/orders", false),
        ] {
            assert_eq!(covers(target, url), expected, "{target} {url}");
        }
    }

    fn target_of(prefixes: &Prefixes, url: &str) -> String {
        let message = json!({"targetRestApi": url, "targetRestApiOperation": "POST"});
        let record = Record {
            key: "k".into(),
            value: message.to_string().into(),
            headers: Headers::default(),
        };
        let target = prefixes.target(&record);
        target.map_or("-".into(), |target| target.to_string())
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        let a = Origin::of("http://a").unwrap();
        let named = |prefix| TargetId::new(a.clone(), prefix);
        let all = [
            Some("/orders"),
            Some("/orders/eu/new"),
            Some("/Orders"),
            None,
        ]
        .map(named);
        let prefixes = Prefixes::of(&all);
        for (url, expected) in [
            ("http://a/orders", "http://a:80/orders"),
            ("http://a/orders/", "http://a:80/orders"),
            ("http://a/orders/7?x=/y", "http://a:80/orders"),
            ("http://a/orders?x", "http://a:80/orders"),
            ("http://a/orders#x", "http://a:80/orders"),
            ("http://a/x/../orders/7", "http://a:80/orders"),
            ("http://a/orders/eu/newer", "http://a:80/orders"),
            ("http://a/orders/eu/new/1", "http://a:80/orders/eu/new"),
            ("http://a/Orders/1", "http://a:80/Orders"),
            ("http://a/ORDERS/1", "http://a:80"),
            ("http://a/orders2", "http://a:80"),
            ("http://a/orders%2F7", "http://a:80"),
            ("http://a", "http://a:80"),
            ("http://a/?/orders", "http://a:80"),
            ("http://b/orders", "http://b:80"),
            ("https://a/orders", "https://a:443"),
            ("ftp://a/orders", "-"),
        ] {
            assert_eq!(target_of(&prefixes, url), expected, "{url}");
        }
        let targets: Vec<_> = prefixes.targets(&a).map(|one| one.to_string()).collect();
        let expected = ["/orders/eu/new", "/Orders", "/orders", ""];
        assert_eq!(
            targets,
            expected.map(|prefix| format!("http://a:80{prefix}"))
        );
    }
}

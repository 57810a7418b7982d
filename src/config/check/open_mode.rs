//! Open mode: settings that let other machines in are refused while there is no user, because every caller would be
//! administrator.

use url::{Host, Url};

use crate::config::{ConfigErrors, Loaded};

/// The folder of the journal, which also has the users, in a data directory that was used before.
const JOURNAL: &str = "journal";

const WHY: &str = "but there is no user, and without users every caller is administrator: set SYNCGATE_ADMIN_USER and \
                   SYNCGATE_ADMIN_PASSWORD, or remove it";

impl Loaded {
    /// Returns whether the gateway may have a user: from the environment, or in a data directory that was used
    /// before.
    #[must_use]
    pub fn may_have_users(&self) -> bool {
        self.administrator.is_some() || self.config.data.dir.join(JOURNAL).exists()
    }

    /// Checks that a gateway without users serves this machine only.
    ///
    /// # Errors
    /// Every setting that lets other machines in.
    pub fn check_open_mode(&self) -> Result<(), ConfigErrors> {
        let server = &self.config.server;
        let mut wrong = Vec::new();
        let foreign = server.hosts.iter().find(|host| is_foreign(host));
        if let Some(host) = foreign {
            let message = format!("\"{host}\" is a name for other machines, {WHY}");
            wrong.push(self.error("server.hosts", message));
        }
        let url = server.public_url.as_deref();
        let host = url.and_then(|url| Some(Url::parse(url).ok()?.host_str()?.to_owned()));
        if let Some(host) = host.filter(|host| is_foreign(host)) {
            let message = format!("\"{host}\" is an address for other machines, {WHY}");
            wrong.push(self.error("server.public_url", message));
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(ConfigErrors(wrong)),
        }
    }
}

/// Returns whether a host names another machine: it is neither `localhost` nor a loopback address.
fn is_foreign(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Domain(name)) => name != "localhost" && !name.ends_with(".localhost"),
        Ok(Host::Ipv4(address)) => !address.is_loopback(),
        Ok(Host::Ipv6(address)) => !address.to_canonical().is_loopback(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Sources, load};

    /// `expected` are the keys that are named.
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        std::fs::write(&file, text).unwrap();
        let loaded = load(Sources {
            file: Some(file),
            ..Sources::default()
        });
        let wrong = loaded.unwrap().check_open_mode().err();
        let wrong = wrong.map_or(Vec::new(), |wrong| wrong.0);
        let keys: Vec<_> = wrong.iter().map(|wrong| wrong.key.as_str()).collect();
        assert_eq!(keys, expected, "{text}");
        for wrong in wrong {
            let said = wrong.to_string();
            assert!(said.contains("t.toml, line 2"), "{said}");
            assert!(said.contains("set SYNCGATE_ADMIN_USER and"), "{said}");
        }
    }

    #[test]
    fn a_name_for_others_needs_users_and_one_of_this_machine_does_not() {
        check("", &[]);
        let ours = r#"["localhost", "LOCALHOST", "gate.localhost", "127.9.9.9", "[::1]"]"#;
        check(&format!("[server]\nhosts = {ours}"), &[]);
        for url in [
            "http://localhost:9002",
            "http://127.0.0.1",
            "https://[::1]:1",
        ] {
            check(&format!("[server]\npublic_url = \"{url}\""), &[]);
        }
        for host in ["gate.example", "10.0.0.1", "[fd00::1]", "0.0.0.0"] {
            let hosts = format!("[server]\nhosts = [\"localhost\", \"{host}\"]");
            check(&hosts, &["server.hosts"]);
            let url = format!("[server]\npublic_url = \"https://{host}:8443\"");
            check(&url, &["server.public_url"]);
        }
    }
}

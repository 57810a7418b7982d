//! Command lines that a command suggests. They repeat the options that found the gateway or the data directory, and are
//! quoted for a shell, so that you can copy them.

use std::fmt;

/// The options that the next commands need to find the same gateway or the same data directory.
///
/// Each is shown with a blank in front: ` --url http://gate:9002`. Empty if a command needs none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options(String);

impl Options {
    /// Takes options with their values.
    pub(super) fn given<'a>(options: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let options = options.into_iter();
        let shown = options.map(|(name, value)| format!(" {name} {}", quoted(&value)));
        Self(shown.collect())
    }

    /// Returns a command line, with each word quoted for a shell: `syncgate tail orders --url …`.
    pub(super) fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> String {
        let words = words.into_iter();
        let words: String = words.map(|word| format!(" {}", quoted(word))).collect();
        format!("syncgate{words}{self}")
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Quotes a text for a shell, if it needs quotes.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_the_words_of_a_command() {
        let words = ["/a/b-c_d.e", "with blank", "it's", "a$b`c\\d\"e", "", "*"];
        let options = [("--url", "http://[::1]:9002/it's".to_owned())];
        let command = Options::given(options).command(words);
        let script = command.replacen("syncgate", "printf '%s|'", 1);
        let said = std::process::Command::new("sh")
            .args(["-c", &script])
            .output();
        let said = String::from_utf8(said.unwrap().stdout).unwrap();
        assert_eq!(
            said,
            format!("{}|--url|http://[::1]:9002/it's|", words.join("|"))
        );
    }

    #[test]
    fn a_command_without_options_is_its_words() {
        let command = Options::default().command(["tail", "orders"]);
        assert_eq!(command, "syncgate tail orders");
    }
}

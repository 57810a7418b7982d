//! JSON values to write: members keep their order and numbers their digits.

mod scalar;

pub use scalar::Scalar;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Scalar(Scalar),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Makes an object of its members.
    pub(super) fn object<const N: usize>(members: [(&str, Json); N]) -> Self {
        let members = members.into_iter();
        Self::Object(members.map(|(name, value)| (name.into(), value)).collect())
    }

    /// Makes an array of values that convert to JSON.
    pub(super) fn array<T: Into<Json>>(entries: impl IntoIterator<Item = T>) -> Self {
        Self::Array(entries.into_iter().map(Into::into).collect())
    }

    /// Returns the text, without blanks.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) {
        match self {
            Self::Scalar(scalar) => to.push_str(&scalar_text(scalar)),
            Self::Array(entries) => {
                to.push('[');
                for (n, entry) in entries.iter().enumerate() {
                    to.push_str(if n == 0 { "" } else { "," });
                    entry.write(to);
                }
                to.push(']');
            }
            Self::Object(members) => {
                to.push('{');
                for (n, (name, value)) in members.iter().enumerate() {
                    to.push_str(if n == 0 { "" } else { "," });
                    to.push_str(&quoted(name));
                    to.push(':');
                    value.write(to);
                }
                to.push('}');
            }
        }
    }
}

/// Returns the text of a scalar.
pub(super) fn scalar_text(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Null => "null".into(),
        Scalar::Bool(true) => "true".into(),
        Scalar::Bool(false) => "false".into(),
        Scalar::Number(digits) => digits.clone(),
        Scalar::String(text) => quoted(text),
    }
}

/// Returns a JSON string. U+2028 and U+2029 are escaped, because some clients run JSON as JavaScript.
pub(super) fn quoted(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    match quoted.contains(['\u{2028}', '\u{2029}']) {
        true => quoted
            .replace('\u{2028}', "\\u2028")
            .replace('\u{2029}', "\\u2029"),
        false => quoted,
    }
}

impl From<Scalar> for Json {
    fn from(scalar: Scalar) -> Self {
        Self::Scalar(scalar)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Scalar(Scalar::String(text.into()))
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Scalar(Scalar::Bool(value))
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Self::Scalar(Scalar::Number(number.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_numbers_their_digits() {
        let json = Json::object([
            ("b", Json::array(["x\"\n", "\u{2028}"])),
            ("a", Json::array([7_u64])),
            ("c", Scalar::Number("1.10E+400".into()).into()),
            (
                "d",
                Json::array([Json::from(Scalar::Null), true.into(), false.into()]),
            ),
            ("e\\", Json::object([])),
        ]);
        let expected =
            r#"{"b":["x\"\n","\u2028"],"a":[7],"c":1.10E+400,"d":[null,true,false],"e\\":{}}"#;
        assert_eq!(json.text(), expected);
    }
}

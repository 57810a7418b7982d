//! Names members of a configuration by the arguments of `create` that set them.

use super::{config::Shape, rule};
use crate::cli::{client::Error, next::quoted};

impl Shape {
    /// Replaces pointers in a refusal by the arguments that set the members. Members from the file keep their pointers.
    pub(super) fn named(&self, error: Error) -> Error {
        let Error::Refused(mut refusal) = error else {
            return error;
        };
        for (pointer, _) in &mut refusal.members {
            if let Some(argument) = self.argument(pointer) {
                *pointer = argument;
            }
        }
        Error::Refused(refusal)
    }

    /// Returns the argument that set a member; `None` for a member of the file.
    fn argument(&self, pointer: &str) -> Option<String> {
        let mut parts = pointer.strip_prefix('/')?.split('/');
        let (member, rest) = (parts.next()?, Vec::from_iter(parts));
        let numbered = |at: &str| at.parse::<usize>().ok();
        match (member, &*rest) {
            ("source", _) => self.stream.as_ref().map(|_| "--stream".into()),
            ("description", _) => self.description.as_ref().map(|_| "--description".into()),
            ("qualityOfService", _) => self.qos.as_ref().map(|_| "--qos".into()),
            ("rules", [at, ..]) => {
                let rule = self.rules.get(numbered(at)?)?;
                Some(format!("--rule {}", quoted(&rule::line(rule))))
            }
            ("encoding", ["json", inner @ ..]) if !self.encoding.is_empty() => Some(
                format!("--encoding {}", inner.join("."))
                    .trim_end()
                    .to_owned(),
            ),
            ("x-syncgate", ["objects", at, inner @ ..]) => {
                let (object, url) = self.objects.get(numbered(at)?)?;
                Some(match inner {
                    ["columns", column, ..] => format!("--column {object}.{column}"),
                    _ => format!("--object {}", quoted(&format!("{object}={url}"))),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        shape: Shape,
    }

    #[test]
    fn a_member_of_the_configuration_is_named_by_its_argument() {
        let arguments = [
            "create",
            "--stream",
            "S",
            "--rule",
            "exclude type=ddl",
            "--rule",
            "include tag:a=b c",
            "--object",
            "A.B=https://*/b",
            "--column",
            "A.B.n=number",
            "--encoding",
            "model=rows",
        ];
        let shape = Arguments::try_parse_from(arguments).unwrap().shape;
        for (pointer, expected) in [
            ("/source/trail", Some("--stream")),
            ("/rules/1/filter/tags/0", Some("--rule 'include tag:a=b c'")),
            ("/rules/2", None),
            ("/encoding/json/model", Some("--encoding model")),
            ("/encoding/json", Some("--encoding")),
            (
                "/x-syncgate/objects/0/url",
                Some("--object 'A.B=https://*/b'"),
            ),
            (
                "/x-syncgate/objects/0/columns/n/type",
                Some("--column A.B.n"),
            ),
            ("/description", None),
            ("/bufferSize", None),
            ("", None),
        ] {
            assert_eq!(shape.argument(pointer).as_deref(), expected, "{pointer}");
        }
    }
}

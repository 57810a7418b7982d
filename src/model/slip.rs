//! Unknown members of a message with nearly a known name. The gateway ignores them, so the answer warns the sender. Pure.

use crate::{json::nearest::slip_of, model::message::MEMBERS};

/// An unknown member with nearly a known name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slip {
    /// Its name, [`Slip::GIVEN_BYTES_MAX`] at most.
    pub given: Box<str>,
    /// Index of the known name in [`MEMBERS`].
    meant: u8,
}

impl Slip {
    /// Longest name that is kept. A longer one is no slip.
    pub const GIVEN_BYTES_MAX: usize = 128;

    /// Makes a slip of a name and an index; `None` if the index is out of range, or the name too long.
    pub(crate) fn new(given: &str, meant: u8) -> Option<Self> {
        let is_slip = usize::from(meant) < MEMBERS.len() && given.len() <= Self::GIVEN_BYTES_MAX;
        is_slip.then(|| Self {
            given: given.into(),
            meant,
        })
    }

    /// Returns the name that was probably meant.
    #[must_use]
    pub fn meant(&self) -> &'static str {
        MEMBERS[usize::from(self.meant)]
    }

    /// Returns the index of the known name.
    pub(crate) fn index(&self) -> u8 {
        self.meant
    }
}

/// Collects the slips of one message.
#[derive(Debug, Default)]
pub(crate) struct Slips {
    pub(crate) found: Vec<Slip>,
    looked_at: usize,
}

impl Slips {
    /// Slips of one message, at most.
    const FOUND_LEN_MAX: usize = 3;
    /// Unknown members of one message that are compared. A message can have thousands.
    const LOOKED_AT_MAX: usize = 32;

    /// Compares the name of an unknown member with the known ones.
    pub(crate) fn look_at(&mut self, name: &str) {
        // A slip may have two characters fewer than the shortest known name.
        const BYTES_MIN: usize = "targetRestApi".len() - 2;
        let is_long = (BYTES_MIN..=Slip::GIVEN_BYTES_MAX).contains(&name.len());
        let is_enough =
            self.found.len() == Self::FOUND_LEN_MAX || self.looked_at == Self::LOOKED_AT_MAX;
        if !is_long || is_enough {
            return;
        }
        self.looked_at += 1;
        let meant = slip_of(name, MEMBERS);
        let index = meant.and_then(|meant| MEMBERS.iter().position(|member| *member == meant));
        let index = index.and_then(|index| u8::try_from(index).ok());
        self.found
            .extend(index.and_then(|index| Slip::new(name, index)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Message;

    #[test]
    fn only_names_that_are_nearly_known_are_slips() {
        let slips = |more: &str| -> Vec<(String, &str)> {
            let value =
                format!(r#"{{"targetRestApi":"http://a","targetRestApiOperation":"POST"{more}}}"#);
            let message = Message::read(&value).unwrap();
            let slips = message.slips.iter();
            slips
                .map(|slip| (slip.given.to_string(), slip.meant()))
                .collect()
        };
        assert_eq!(slips(""), []);
        assert_eq!(slips(r#","id":1,"targetSystem":{},"":[]"#), []);
        assert_eq!(
            slips(r#","targetRestApiPayloda":1,"id":1,"vault_secret_name":null,"TargetRestApi":2"#),
            [
                ("targetRestApiPayloda".into(), MEMBERS[3]),
                ("vault_secret_name".into(), MEMBERS[0]),
                ("TargetRestApi".into(), MEMBERS[1]),
            ]
        );
        let escaped = slips(r#","targetRestApiPa\u0079loda":1"#);
        assert_eq!(escaped, [("targetRestApiPayloda".into(), MEMBERS[3])]);
        let all = r#","targetRestApiHeader":1"#.repeat(5);
        assert_eq!(slips(&all).len(), Slips::FOUND_LEN_MAX);
        let short = r#","x":1"#.repeat(1_000);
        assert_eq!(slips(&format!("{short}{all}")).len(), Slips::FOUND_LEN_MAX);
        let others = r#","ourOwnMember":1"#.repeat(Slips::LOOKED_AT_MAX);
        assert_eq!(slips(&format!("{others}{all}")), []);
    }
}

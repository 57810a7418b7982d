//! Members of a message that have nearly the name of one of ours. The gateway does not look at them, so the answer warns
//! the sender. Pure.

use crate::{json::nearest::slip_of, model::message::MEMBERS};

/// A member that has nearly the name of one of ours, and so is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slip {
    /// Its name, [`Slip::GIVEN_BYTES_MAX`] at most.
    pub given: Box<str>,
    /// Which of ours, as its place in [`MEMBERS`].
    meant: u8,
}

impl Slip {
    /// Longest name that is kept. A longer one is no slip.
    pub const GIVEN_BYTES_MAX: usize = 128;

    /// Makes one of a name and the place of ours; `None` if there is no such place, or the name is too long.
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

    /// Returns its place among ours.
    pub(crate) fn place(&self) -> u8 {
        self.meant
    }
}

/// Looks for slips among the members of one message.
#[derive(Debug, Default)]
pub(crate) struct Slips {
    pub(crate) found: Vec<Slip>,
    looked_at: usize,
}

impl Slips {
    /// Slips that are told of one message.
    const FOUND_LEN_MAX: usize = 3;
    /// Unknown members of one message that are compared with ours. It may have thousands of its own.
    const LOOKED_AT_MAX: usize = 32;

    /// Looks at the name of a member that is none of ours.
    pub(crate) fn look_at(&mut self, name: &str) {
        // Two characters fewer than the shortest of ours has.
        const BYTES_MIN: usize = "targetRestApi".len() - 2;
        let is_long = (BYTES_MIN..=Slip::GIVEN_BYTES_MAX).contains(&name.len());
        let is_enough =
            self.found.len() == Self::FOUND_LEN_MAX || self.looked_at == Self::LOOKED_AT_MAX;
        if !is_long || is_enough {
            return;
        }
        self.looked_at += 1;
        let meant = slip_of(name, MEMBERS);
        let place = meant.and_then(|meant| MEMBERS.iter().position(|member| *member == meant));
        let place = place.and_then(|place| u8::try_from(place).ok());
        self.found
            .extend(place.and_then(|place| Slip::new(name, place)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Message;

    #[test]
    fn members_that_are_nearly_ours_are_told_and_others_are_not() {
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

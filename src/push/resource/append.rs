//! The append table of a stream: every record is a row of it, whatever its content.

/// A column of the append table; in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`push-decisions.md` §3 says what each holds")]
pub enum AppendColumn {
    Partition,
    Offset,
    Key,
    Ts,
    Data,
    DataBase64,
    Headers,
}

impl AppendColumn {
    /// Every one, in order.
    pub const ALL: [Self; 7] = [
        Self::Partition,
        Self::Offset,
        Self::Key,
        Self::Ts,
        Self::Data,
        Self::DataBase64,
        Self::Headers,
    ];
    /// The key of a row.
    pub const KEYS: [Self; 2] = [Self::Partition, Self::Offset];

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Partition => "PARTITION",
            Self::Offset => "OFFSET",
            Self::Key => "KEY",
            Self::Ts => "TS",
            Self::Data => "DATA",
            Self::DataBase64 => "DATA_BASE64",
            Self::Headers => "HEADERS",
        }
    }
}

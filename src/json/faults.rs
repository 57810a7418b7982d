//! Faults of a JSON body, each with a JSON pointer. Every part that reads a body names its faults with these types.

/// One fault of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer into the body (RFC 6901); a body of lines counts as an array.
    pub pointer: String,
    /// The kind of fault, for programs.
    pub code: FieldCode,
    /// The rule that the member breaks, for people. It quotes no value.
    pub detail: String,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldCode {
    /// The member is missing.
    Required,
    /// The value has the wrong type, or is not JSON.
    WrongType,
    /// The value is longer, deeper or larger than its bound.
    TooLong,
    /// The body is not UTF-8.
    NotUtf8,
    /// The URL cannot be called.
    UrlInvalid,
    /// The URL is neither http nor https.
    SchemeNotAllowed,
    /// The configuration does not allow this operation.
    MethodNotAllowed,
    /// The header cannot be sent.
    HeaderInvalid,
    /// The header belongs to the connection (RFC 9110 §7.6.1).
    HeaderHopByHop,
    /// No secret can have this name.
    SecretNameInvalid,
    /// No member has this name.
    UnknownMember,
}

/// Faults of one body, in the order in which they were found.
pub(crate) type Faults = Vec<FieldError>;

/// Kind and text of a fault that has no pointer yet. The text quotes nothing of the value.
pub(crate) type Wrong = (FieldCode, String);

/// Objects and arrays inside each other, payload included. Most JSON readers, those of targets too, stop at 128.
pub const DEPTH_MAX: usize = 128;

/// Faults named for one body, at most.
const FAULTS_LEN_MAX: usize = 100;

/// Characters of an unknown name that a pointer shows. Readers need only recognise the name.
const NAME_LEN_MAX: usize = 64;

/// Adds a fault, unless the list is full.
pub(crate) fn fault(faults: &mut Faults, pointer: &str, code: FieldCode, detail: &str) {
    if !is_full(faults) {
        faults.push(FieldError {
            pointer: pointer.into(),
            code,
            detail: detail.into(),
        });
    }
}

/// Returns whether further faults are dropped. A body can have a million of them, so readers stop then.
pub(crate) fn is_full(faults: &Faults) -> bool {
    faults.len() >= FAULTS_LEN_MAX
}

/// Returns the pointer of the member `name` of the object at `at`; a long name is cut.
pub(crate) fn pointer_to(at: &str, name: &str) -> String {
    let name: String = name.chars().take(NAME_LEN_MAX).collect();
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Says that a member is there more than once.
pub(crate) const REPEATED: &str = "the member is there more than once";

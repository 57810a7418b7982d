//! Which records are sent: the first rule that fits decides (`push-decisions.md` §6).
//!
//! A configuration may have thousands of entries and a record a million bytes. So the cost of one record is bounded
//! by their sum, not by their product. One walk finds the parts of the record (`paths`), and each part is looked up
//! once among all values that rules compare it with (`wanted`). Equal patterns and tags are tried once. Searching
//! headers for tags can take long, so it is cut into steps: see [`Step::NotYet`].

mod paths;
mod wanted;

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::OnceLock,
};

use crate::push::resource::{
    Action, ColumnValue, Filter, Image, ObjectName, ObjectPattern, ObjectType, Operator, Relation,
    Rule, Tag,
};

use self::{
    paths::{Paths, Places},
    wanted::{Part, Value, Wanted},
};
use super::{
    Op,
    view::{Change, headers},
    write::Facts,
};

/// Bytes of headers that one step searches, which takes less than a millisecond.
const STEP_BYTES: usize = 1 << 20;

/// The rules of one data stream.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Judge>,
    /// Some rule includes, so a record that fits no rule is left out.
    includes: bool,
    /// Patterns of objects, each once.
    patterns: Vec<ObjectPattern>,
    /// By table: which patterns its name fits.
    fits: Vec<OnceLock<Box<[bool]>>>,
    paths: Paths,
    /// The compared parts of records: node of the part in `paths`, and the values that rules compare it with.
    parts: Vec<(usize, Wanted)>,
    /// Tags, each once.
    tags: Vec<Tag>,
}

/// One rule, with indices in place of names and values.
#[derive(Debug)]
struct Judge {
    includes: bool,
    relation: Relation,
    negate: bool,
    /// The kinds that have entries.
    kinds: Vec<Kind>,
}

/// The entries of one kind; one of them must fit.
#[derive(Debug)]
enum Kind {
    Names(Vec<usize>),
    /// One bit for each [`Op`].
    Types(u8),
    Values(Vec<Compared>),
    Tags(Vec<usize>),
}

/// The comparisons of one part.
#[derive(Debug)]
struct Compared {
    pattern: Option<usize>,
    image: Image,
    part: usize,
    /// The part equals one of these,
    equals: HashSet<Value>,
    /// or meets one of these.
    others: Vec<(Operator, Value)>,
}

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    LetThrough,
    LeftOut,
    /// The caller must yield and then ask again for the same record, with the same [`Looked`].
    NotYet,
}

/// Facts about the record that is judged; the memory is reused for the next record.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// The number of the record.
    record: u64,
    /// The last step ended before the record was judged.
    goes_on: bool,
    /// The record whose columns were walked over last.
    walked: u64,
    places: Places,
    /// By part and by tag: the record of the last look-up, and its result.
    parts: Vec<(u64, Part)>,
    tags: Vec<(u64, bool)>,
    /// Bytes that this step has searched.
    searched: usize,
    /// Entries and bytes that were looked at, over all records.
    work: usize,
}

impl Looked {
    /// Returns the work for all records: bytes walked over and searched, and entries looked at.
    #[cfg(test)]
    pub(super) fn work(&self) -> usize {
        self.work + self.places.walked()
    }
}

impl Rules {
    /// Prepares the rules for changes of `tables_len` tables.
    pub(super) fn new(rules: &[Rule], tables_len: usize) -> Self {
        let mut made = Maker::default();
        let filters = rules.iter().map(|rule| &rule.filter);
        for wanted in filters.flat_map(|filter| &filter.column_values) {
            made.take_in(wanted);
        }
        for (_, wanted) in &mut made.parts {
            wanted.sort();
        }
        let judge = |rule: &Rule| Judge {
            includes: rule.action == Action::Include,
            relation: rule.filter.relation,
            negate: rule.filter.negate,
            kinds: made.kinds(&rule.filter),
        };
        Self {
            includes: rules.iter().any(|rule| rule.action == Action::Include),
            rules: rules.iter().map(judge).collect(),
            patterns: made.patterns.list,
            fits: (0..tables_len).map(|_| OnceLock::new()).collect(),
            paths: made.paths,
            parts: made.parts,
            tags: made.tags.list,
        }
    }

    /// Returns whether a change is sent, or [`Step::NotYet`].
    pub(super) fn step(
        &self,
        change: &Change<'_>,
        object: &ObjectName,
        facts: &Facts<'_>,
        looked: &mut Looked,
    ) -> Step {
        if self.rules.is_empty() {
            return Step::LetThrough;
        }
        if !std::mem::take(&mut looked.goes_on) {
            looked.record += 1;
        }
        looked.searched = 0;
        looked
            .parts
            .resize(self.parts.len(), <(u64, Part)>::default());
        looked
            .tags
            .resize(self.tags.len(), <(u64, bool)>::default());
        let fits = || self.patterns.iter().map(|pattern| pattern.fits(object));
        let mut look = Look {
            rules: self,
            change,
            facts,
            patterns: self.fits[change.table].get_or_init(|| fits().collect()),
            looked,
        };
        for rule in &self.rules {
            match look.fits(rule) {
                Some(true) if rule.includes => return Step::LetThrough,
                Some(true) => return Step::LeftOut,
                Some(false) => {}
                None => {
                    look.looked.goes_on = true;
                    return Step::NotYet;
                }
            }
        }
        match self.includes {
            true => Step::LeftOut,
            false => Step::LetThrough,
        }
    }
}

/// A record that is being judged.
struct Look<'a> {
    rules: &'a Rules,
    change: &'a Change<'a>,
    facts: &'a Facts<'a>,
    patterns: &'a [bool],
    looked: &'a mut Looked,
}

impl Look<'_> {
    /// Returns whether a rule fits; `None` if the step ended before that is known.
    fn fits(&mut self, rule: &Judge) -> Option<bool> {
        // With AND, one kind that does not fit decides; with OR, one kind that fits.
        let is_and = rule.relation == Relation::And;
        let mut fits = is_and;
        for kind in &rule.kinds {
            let kind_fits = match kind {
                Kind::Names(patterns) => {
                    self.looked.work += patterns.len();
                    patterns.iter().any(|pattern| self.patterns[*pattern])
                }
                Kind::Types(types) => types & bit(self.change.op) != 0,
                Kind::Values(all) => all.iter().any(|compared| self.meets(compared)),
                Kind::Tags(tags) => self.has_one(tags)?,
            };
            if kind_fits != is_and {
                fits = kind_fits;
                break;
            }
        }
        Some(fits != rule.negate)
    }

    fn meets(&mut self, compared: &Compared) -> bool {
        let of_object = compared
            .pattern
            .is_none_or(|pattern| self.patterns[pattern]);
        if !of_object || self.change.image != Some(compared.image) {
            return false;
        }
        let part = self.part(compared.part);
        let is_one = part
            .value()
            .is_some_and(|value| compared.equals.contains(&value));
        self.looked.work += compared.others.len();
        let mut others = compared.others.iter();
        is_one || others.any(|(operator, value)| part.meets(*operator, *value))
    }

    /// Returns a part of the record; it is looked up once per record.
    fn part(&mut self, number: usize) -> Part {
        let Looked {
            record,
            walked,
            places,
            parts,
            work,
            ..
        } = &mut *self.looked;
        *work += 1;
        let (looked_up_for, part) = &mut parts[number];
        if *looked_up_for != *record {
            if *walked != *record {
                self.rules.paths.walk(&self.change.columns, places);
                *walked = *record;
            }
            let (node, wanted) = &self.rules.parts[number];
            let found = self.rules.paths.found(*node, &self.change.columns, places);
            *work += found.map_or(0, <[u8]>::len);
            *part = wanted.look_up(found);
            *looked_up_for = *record;
        }
        *part
    }

    /// Returns whether the record has one of the tags; `None` if this step has searched too many bytes.
    fn has_one(&mut self, tags: &[usize]) -> Option<bool> {
        for tag in tags {
            self.looked.work += 1;
            let record = self.looked.record;
            let (looked_up_for, fits) = self.looked.tags[*tag];
            if looked_up_for == record {
                if fits {
                    return Some(true);
                }
                continue;
            }
            if self.looked.searched >= STEP_BYTES {
                return None;
            }
            let tag_fits = self.search(&self.rules.tags[*tag]);
            self.looked.tags[*tag] = (record, tag_fits);
            if tag_fits {
                return Some(true);
            }
        }
        Some(false)
    }

    fn search(&mut self, tag: &Tag) -> bool {
        for (name, value) in headers(self.facts) {
            let bytes = match tag.name == name {
                true => value.len() + tag.value.as_ref().map_or(0, String::len),
                false => 0,
            };
            // Comparing a name costs something too.
            self.looked.searched += bytes + 16;
            self.looked.work += bytes + 1;
            if tag.fits(name, value) {
                return true;
            }
        }
        false
    }
}

fn bit(op: Op) -> u8 {
    1 << op as u8
}

fn bits(kind: ObjectType) -> u8 {
    let all = Op::ALL.into_iter();
    all.filter(|op| is_of(*op, kind))
        .map(bit)
        .fold(0, |all, op| all | op)
}

fn is_of(op: Op, kind: ObjectType) -> bool {
    match kind {
        ObjectType::Dml => op != Op::Ddl,
        ObjectType::Ddl => op == Op::Ddl,
        ObjectType::Insert => op == Op::Insert,
        ObjectType::Update => op == Op::Update,
        ObjectType::Upsert => op == Op::Upsert,
        ObjectType::Delete => op == Op::Delete,
        ObjectType::Truncate => op == Op::Truncate,
    }
}

/// Gives indices to the names and values of rules, equal ones the same index.
#[derive(Debug)]
struct Maker {
    patterns: Numbered<ObjectPattern>,
    tags: Numbered<Tag>,
    paths: Paths,
    parts: Vec<(usize, Wanted)>,
    /// Index of a part, by its node.
    of_nodes: HashMap<usize, usize>,
}

#[derive(Debug)]
struct Numbered<T> {
    list: Vec<T>,
    numbers: HashMap<T, usize>,
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    fn number(&mut self, of: &T) -> usize {
        if let Some(number) = self.numbers.get(of) {
            return *number;
        }
        let number = self.list.len();
        self.list.push(of.clone());
        self.numbers.insert(of.clone(), number);
        number
    }
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            numbers: HashMap::new(),
        }
    }
}

impl Default for Maker {
    fn default() -> Self {
        Self {
            patterns: Numbered::default(),
            tags: Numbered::default(),
            paths: Paths::new(),
            parts: Vec::new(),
            of_nodes: HashMap::new(),
        }
    }
}

impl Maker {
    /// Collects a value that a part is compared with.
    fn take_in(&mut self, wanted: &ColumnValue) {
        let part = self.part(wanted);
        self.parts[part].1.add(&wanted.value);
    }

    fn part(&mut self, wanted: &ColumnValue) -> usize {
        let node = self.paths.add(&wanted.column, &wanted.pointer);
        let next = self.parts.len();
        let number = *self.of_nodes.entry(node).or_insert(next);
        if number == next {
            self.parts.push((node, Wanted::default()));
        }
        number
    }

    fn kinds(&mut self, filter: &Filter) -> Vec<Kind> {
        let mut kinds = Vec::new();
        if !filter.object_names.is_empty() {
            let names = filter.object_names.iter();
            let names = names.map(|pattern| self.patterns.number(pattern));
            kinds.push(Kind::Names(names.collect()));
        }
        if !filter.object_types.is_empty() {
            let types = filter.object_types.iter();
            let types = types.fold(0, |all, kind| all | bits(*kind));
            kinds.push(Kind::Types(types));
        }
        if !filter.column_values.is_empty() {
            kinds.push(Kind::Values(self.compared(&filter.column_values)));
        }
        if !filter.tags.is_empty() {
            let tags = filter.tags.iter().map(|tag| self.tags.number(tag));
            kinds.push(Kind::Tags(tags.collect()));
        }
        kinds
    }

    /// Groups comparisons by part.
    fn compared(&mut self, values: &[ColumnValue]) -> Vec<Compared> {
        let mut all: Vec<Compared> = Vec::new();
        let mut places = HashMap::new();
        for wanted in values {
            let pattern = wanted.object.as_ref();
            let pattern = pattern.map(|pattern| self.patterns.number(pattern));
            let part = self.part(wanted);
            let next = all.len();
            let key = (pattern, wanted.image as u8, part);
            let place = *places.entry(key).or_insert(next);
            if place == next {
                all.push(Compared {
                    pattern,
                    image: wanted.image,
                    part,
                    equals: HashSet::new(),
                    others: Vec::new(),
                });
            }
            let value = self.parts[part].1.place(&wanted.value);
            match wanted.operator {
                Operator::Eq => {
                    all[place].equals.insert(value);
                }
                operator => all[place].others.push((operator, value)),
            }
        }
        all
    }
}

//! Finds all parts of a record that rules compare, in one walk over its columns.
//!
//! Columns and JSON pointers (RFC 6901) form a tree, and the walk enters only values that some rule needs. Of a
//! repeated member the last one counts. So each visit of a node has a number, and a part counts only if it was found
//! in the last visit of its parent.

use std::{collections::HashMap, ops::Range};

use crate::push::encode::{
    json::{decoded, value_end},
    view::Column,
};

/// The parts that rules compare, as a tree: the root is the first node, and columns are its children.
#[derive(Debug)]
pub(super) struct Paths {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    parent: usize,
    /// Members of an object, by name.
    members: HashMap<Vec<u8>, usize>,
    /// Elements of an array, by index.
    elements: Vec<(usize, usize)>,
}

/// Where the parts lie in the columns of one record; the memory is reused for the next record.
#[derive(Debug, Default)]
pub(super) struct Places {
    visits: u64,
    nodes: Vec<ValuePlace>,
    /// Bytes walked over, for all records.
    walked: usize,
}

#[derive(Clone, Debug, Default)]
struct ValuePlace {
    /// Number of the last visit, and of the parent's visit at that time.
    visit: u64,
    of_parent: u64,
    column: usize,
    value: Range<usize>,
}

impl Paths {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }

    /// Returns the node of a part of a column, a new one if there is none.
    pub(super) fn add(&mut self, column: &str, pointer: &[String]) -> usize {
        let mut at = 0;
        for step in std::iter::once(column).chain(pointer.iter().map(String::as_str)) {
            if let Some(known) = self.nodes[at].members.get(step.as_bytes()) {
                at = *known;
                continue;
            }
            let made = self.nodes.len();
            self.nodes.push(Node {
                parent: at,
                ..Node::default()
            });
            let node = &mut self.nodes[at];
            node.members.insert(step.as_bytes().to_vec(), made);
            if let Some(index) = index(step) {
                let behind = node.elements.partition_point(|(known, _)| *known < index);
                node.elements.insert(behind, (index, made));
            }
            at = made;
        }
        at
    }

    /// Walks over the columns of a record.
    pub(super) fn walk(&self, columns: &[Column<'_>], places: &mut Places) {
        places.nodes.resize(self.nodes.len(), ValuePlace::default());
        let visit = places.visit(0, 0, 0, 0..0);
        for (number, column) in columns.iter().enumerate() {
            if let Some(node) = self.nodes[0].members.get(column.name.as_str().as_bytes()) {
                let walk = Walk {
                    paths: self,
                    text: &column.value,
                    column: number,
                };
                // If two columns had one name the first would count; but views give each name once.
                if places.nodes[*node].of_parent != visit {
                    walk.node(*node, visit, 0, places);
                }
            }
        }
    }

    /// Returns a part of the record that was walked over; `None` if the record has no such part.
    pub(super) fn found<'a>(
        &self,
        node: usize,
        columns: &'a [Column<'_>],
        places: &Places,
    ) -> Option<&'a [u8]> {
        let mut at = node;
        while at != 0 {
            let parent = self.nodes[at].parent;
            if places.nodes[at].of_parent != places.nodes[parent].visit {
                return None;
            }
            at = parent;
        }
        let place = &places.nodes[node];
        columns.get(place.column)?.value.get(place.value.clone())
    }
}

impl Places {
    fn visit(&mut self, node: usize, of_parent: u64, column: usize, value: Range<usize>) -> u64 {
        self.visits += 1;
        self.nodes[node] = ValuePlace {
            visit: self.visits,
            of_parent,
            column,
            value,
        };
        self.visits
    }

    /// Returns the bytes walked over, for all records.
    #[cfg(test)]
    pub(super) fn walked(&self) -> usize {
        self.walked
    }
}

/// One column that is walked over.
struct Walk<'a> {
    paths: &'a Paths,
    text: &'a [u8],
    column: usize,
}

impl Walk<'_> {
    /// Visits the value of a node that begins at `start`; returns where it ends.
    ///
    /// The recursion is as deep as the text, whose depth is bounded.
    fn node(&self, node: usize, of_parent: u64, start: usize, places: &mut Places) -> usize {
        let visit = places.visit(node, of_parent, self.column, start..start);
        let Node {
            members, elements, ..
        } = &self.paths.nodes[node];
        let end = match self.text.get(start) {
            Some(b'{') if !members.is_empty() => self.members(members, visit, start, places),
            Some(b'[') if !elements.is_empty() => self.elements(elements, visit, start, places),
            _ => self.skip(start, places),
        };
        places.nodes[node].value = start..end;
        end
    }

    fn members(
        &self,
        wanted: &HashMap<Vec<u8>, usize>,
        visit: u64,
        start: usize,
        places: &mut Places,
    ) -> usize {
        let mut at = start + 1;
        while self.text.get(at) == Some(&b'"') {
            let name_end = self.skip(at, places);
            let name = decoded(&self.text[at..name_end]);
            let node = name.and_then(|name| wanted.get(&*name));
            at = match node {
                Some(node) => self.node(*node, visit, name_end + 1, places),
                None => self.skip(name_end + 1, places),
            };
            // A comma or the end follows the value.
            at += 1;
        }
        at.max(start + 2)
    }

    fn elements(
        &self,
        wanted: &[(usize, usize)],
        visit: u64,
        start: usize,
        places: &mut Places,
    ) -> usize {
        let (mut at, mut index) = (start + 1, 0);
        let mut wanted = wanted.iter().peekable();
        if self.text.get(at) == Some(&b']') {
            return at + 1;
        }
        loop {
            at = match wanted.next_if(|(known, _)| *known == index) {
                Some((_, node)) => self.node(*node, visit, at, places),
                None => self.skip(at, places),
            };
            index += 1;
            at += 1;
            // A comma or the end follows the value.
            if self.text.get(at - 1) != Some(&b',') {
                return at;
            }
        }
    }

    fn skip(&self, start: usize, places: &mut Places) -> usize {
        let end = value_end(self.text, start);
        places.walked += end - start;
        end
    }
}

/// Returns the array index that a step of a pointer names.
fn index(step: &str) -> Option<usize> {
    let legal = step == "0" || !step.starts_with('0');
    let digits = step.bytes().all(|byte| byte.is_ascii_digit());
    step.parse().ok().filter(|_| legal && digits)
}

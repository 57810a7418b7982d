//! The parts of a record that rules look at: all of them are found in one walk over its columns, however many there are.
//!
//! Columns and pointers (RFC 6901) are a tree. Nothing is descended into that no rule asks for. A member that is there
//! twice means what it says the last time, so what was found below the first one counts no more: each visit of a node has a
//! number, and what lies below it counts if it was found in the last visit.

use std::{collections::HashMap, ops::Range};

use crate::push::encode::{
    json::{decoded, value_end},
    view::Column,
};

/// What rules ask for. The root is the first node; below it are columns.
#[derive(Debug)]
pub(super) struct Paths {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    parent: usize,
    /// Of an object, by name.
    members: HashMap<Vec<u8>, usize>,
    /// Of an array, by index.
    elements: Vec<(usize, usize)>,
}

/// Where the parts lie in the columns of one record; its memory is used again for the next one.
#[derive(Debug, Default)]
pub(super) struct Places {
    visits: u64,
    nodes: Vec<ValuePlace>,
    /// Bytes that were walked over, of all records.
    walked: usize,
}

#[derive(Clone, Debug, Default)]
struct ValuePlace {
    /// Number of the last visit, and that of its parent at that time.
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

    /// Returns the node of a part of a column, which is made if it is not there.
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
                // Of columns with one name the first counts; views give each name once.
                if places.nodes[*node].of_parent != visit {
                    walk.node(*node, visit, 0, places);
                }
            }
        }
    }

    /// Returns the part of a record that was walked over; `None` if it has none there.
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

    /// Returns how many bytes were walked over, of all records.
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
    /// It goes no deeper than the text, whose depth is bounded.
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
            // Behind the value is a comma, or the end.
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
            // Behind the value is a comma, or the end.
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

/// Returns the index of an array's element that a step of a pointer means.
fn index(step: &str) -> Option<usize> {
    let legal = step == "0" || !step.starts_with('0');
    let digits = step.bytes().all(|byte| byte.is_ascii_digit());
    step.parse().ok().filter(|_| legal && digits)
}

//! Misfits: records whose URL names an object, but whose columns break the declaration. Subscribers get them as rows
//! of the append table. A rule for the object leaves them out there, so operators are warned.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::model::ids::{Offset, Partition};

use super::resource::{ColumnType, ObjectName};

/// The misfits of one data stream under one configuration, since the process started.
#[derive(Debug, Default)]
pub(super) struct Misfits(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    len: u64,
    /// The last misfit of each partition, because a record that is read again must not be counted again.
    furthest: BTreeMap<Partition, Offset>,
    /// Text about the last misfit that was read.
    last: String,
}

/// Why a column does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// Its value is not of this type.
    IsNo(ColumnType),
    /// It is a key, and null.
    NullKey,
}

impl Misfits {
    /// Counts a record, and keeps the column that does not fit.
    pub(super) fn note(
        &self,
        (partition, offset): (Partition, Offset),
        object: &ObjectName,
        column: &str,
        misfit: Misfit,
    ) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.furthest.get(&partition) >= Some(&offset) {
            return;
        }
        inner.furthest.insert(partition, offset);
        inner.len += 1;
        let what = match misfit {
            Misfit::IsNo(kind) => {
                let mut words = ColumnType::WORDS.iter();
                let word = words.find(|(of, _)| *of == kind);
                format!("is no {}", word.map_or("value", |(_, word)| word))
            }
            Misfit::NullKey => "is null, and a key".into(),
        };
        inner.last = format!("in {partition}.{offset} {object}.{column} {what}");
    }

    /// Returns the warning; `None` if there are no misfits.
    pub(super) fn text(&self, append: &ObjectName) -> Option<String> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (len, last) = (inner.len, &inner.last);
        let told = match len {
            0 => return None,
            1 => format!("1 record breaks a declared column and comes as a row of {append}"),
            len => format!("{len} records break a declared column and come as rows of {append}"),
        };
        Some(format!("{told}; the last one: {last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_counts_once() {
        let misfits = Misfits::default();
        let append = "SYNCGATE.S".parse().unwrap();
        assert_eq!(misfits.text(&append), None);
        let orders = "SHOP.ORDERS".parse().unwrap();
        let note = |partition, offset, misfit| {
            let place = (Partition(partition), Offset(offset));
            misfits.note(place, &orders, "qty", misfit);
        };
        note(0, 17, Misfit::IsNo(ColumnType::Number));
        note(0, 17, Misfit::IsNo(ColumnType::Number));
        let told = "1 record breaks a declared column and comes as a row of SYNCGATE.S; \
                    the last one: in 0.17 SHOP.ORDERS.qty is no number";
        assert_eq!(misfits.text(&append).as_deref(), Some(told));
        note(1, 3, Misfit::NullKey);
        note(0, 2, Misfit::NullKey);
        let told = "2 records break a declared column and come as rows of SYNCGATE.S; \
                    the last one: in 1.3 SHOP.ORDERS.qty is null, and a key";
        assert_eq!(misfits.text(&append).as_deref(), Some(told));
    }
}

//! Records whose URL names an object, and whose columns are not what the configuration declares. Subscribers get them as rows
//! of the stream's own table, which a rule for the object leaves out: so somebody must be told.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::model::ids::{Offset, Partition};

use super::resource::{ColumnType, ObjectName};

/// Those of one data stream under one configuration, since this process began.
#[derive(Debug, Default)]
pub(super) struct Misfits(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    len: u64,
    /// The last one of each partition: a record that subscribers read again is not counted again.
    furthest: BTreeMap<Partition, Offset>,
    /// The last one that was read, in words.
    last: String,
}

/// What is wrong with a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// Its value is of another type than this.
    IsNo(ColumnType),
    /// It is null, and a key.
    NullKey,
}

impl Misfits {
    /// Takes note of a record and the column that does not fit.
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

    /// Returns what is to be told of them; `None` if there are none.
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

//! A bounded map that drops values that were not used lately.

use std::{collections::HashMap, hash::Hash};

/// Two generations, each of at most half the bound. When the younger one is full, the older one is dropped; a value
/// that is read moves to the younger one. No order is kept, so a hit costs one look-up.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_len_max: usize,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// Makes a map of at most `len_max` values.
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_len_max: len_max.div_ceil(2),
        }
    }

    /// Returns the value, if it is still kept.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Removes a value.
    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Removes the values for which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }

    /// Adds or replaces a value.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation_len_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_values_stay_and_the_bound_holds() {
        let mut cache = Cache::new(8);
        cache.insert(0, "kept");
        for key in 1..1000 {
            cache.insert(key, "passes");
            assert_eq!(cache.get(&0), Some("kept"), "after {key}");
            assert!(cache.young.len() + cache.old.len() <= 8);
        }
        assert_eq!(cache.get(&1), None);
        cache.insert(0, "newer");
        assert_eq!(cache.get(&0), Some("newer"));
        cache.retain(|value| *value == "newer");
        assert_eq!((cache.get(&999), cache.get(&0)), (None, Some("newer")));
        cache.remove(&0);
        assert_eq!(cache.get(&0), None);
    }
}

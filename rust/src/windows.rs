//! The windows of one instrument in one timeframe, the newest in place: nearly every tick goes into that one, and
//! those of all timeframes then lie side by side in memory.

use std::cmp::Ordering;
use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::window::Window;

/// Windows in the order of their starts.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    newest: Option<Window>,
    /// None while there is no newest.
    older: VecDeque<Window>,
}

impl Windows {
    pub fn newest(&self) -> Option<&Window> {
        self.newest.as_ref()
    }

    pub fn newest_mut(&mut self) -> Option<&mut Window> {
        self.newest.as_mut()
    }

    pub fn len(&self) -> usize {
        self.older.len() + usize::from(self.newest.is_some())
    }

    pub fn get(&self, index: usize) -> Option<&Window> {
        if index == self.older.len() { self.newest.as_ref() } else { self.older.get(index) }
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut Window> {
        if index == self.older.len() { self.newest.as_mut() } else { self.older.get_mut(index) }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Window> {
        self.older.iter().chain(&self.newest)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Window> {
        self.older.iter_mut().chain(&mut self.newest)
    }

    /// How many come before the first that `is_before` does not hold for; it must hold for no later one.
    pub fn count_before(&self, is_before: impl Fn(&Window) -> bool) -> usize {
        match &self.newest {
            Some(newest) if is_before(newest) => self.len(),
            _ => self.older.partition_point(is_before),
        }
    }

    /// The one that `compare` finds equal; it must rise with the starts.
    pub fn find(&self, compare: impl Fn(&Window) -> Ordering) -> Option<&Window> {
        let newest = self.newest.as_ref()?;
        if compare(newest) == Ordering::Equal {
            return Some(newest);
        }
        self.older.binary_search_by(compare).ok().and_then(|index| self.older.get(index))
    }

    /// Put a window at its place in the order.
    pub fn insert(&mut self, index: usize, window: Window) {
        if index == self.len() {
            self.older.extend(self.newest.replace(window));
        } else {
            self.older.insert(index, window);
        }
    }

    pub fn oldest(&self) -> Option<&Window> {
        self.older.front().or(self.newest.as_ref())
    }

    pub fn drop_oldest(&mut self) {
        if self.older.pop_front().is_none() {
            self.newest = None;
        }
    }
}

impl Serialize for Windows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.older.iter().chain(&self.newest))
    }
}

impl<'de> Deserialize<'de> for Windows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut older = VecDeque::<Window>::deserialize(deserializer)?;
        let newest = older.pop_back();
        older.shrink_to_fit();
        Ok(Self { newest, older })
    }
}

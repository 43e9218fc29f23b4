//! What the ticks of a partition say of the time (`docs/decisions/0010`): E, and what may have been lost before it.

use serde::{Deserialize, Serialize};

use crate::witness::{Clock, Heard};

/// An instrument's name as a number, FNV-1a of `N:C:2885`: whether two ticks are of the same one, held or not.
pub fn name_of(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// E of §4.2: the greatest event time, as far as it has two witnesses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Elapsed {
    pub clock: Clock,
    /// Whose the claim is.
    claimant: Option<u64>,
    /// Whose the last accepted tick was, and how often that instrument's own clock has leapt since another one's.
    last: Option<u64>,
    leaps: u32,
    /// Whether more than one instrument was ever heard.
    is_shared: bool,
}

impl Elapsed {
    /// Take a tick of the instrument of this name; `is_leap`: whether its own clock leapt.
    pub fn hear(&mut self, name: u64, at_ms: i64, is_leap: bool) -> Heard {
        if self.last != Some(name) {
            self.is_shared |= self.last.is_some();
            (self.last, self.leaps) = (Some(name), 0);
        }
        self.leaps = self.leaps.saturating_add(u32::from(is_leap));
        let is_alone = !self.is_shared || self.leaps >= 2;
        let claimant = self.claimant;
        let heard = self.clock.hear(at_ms, || is_alone || claimant != Some(name));
        if matches!(heard, Heard::Claim | Heard::Leap) {
            self.claimant = Some(name);
        }
        heard
    }

    /// E from elsewhere; the claim is dropped.
    pub fn set(&mut self, event_ms: Option<i64>) {
        self.clock = Clock { value_ms: event_ms, claim_ms: None };
    }
}

/// Which windows may have lost ticks.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Lost {
    /// Windows that start before this.
    pub before_ms: Option<i64>,
    /// All of them, until E rises above what it was where records are missing; 0 for no E.
    until_above_ms: Option<i64>,
}

impl Lost {
    pub fn begin(&mut self, event_ms: Option<i64>) {
        self.until_above_ms = Some(event_ms.unwrap_or(0));
    }

    pub fn rise(&mut self, event_ms: Option<i64>) {
        if self.until_above_ms.is_some_and(|above_ms| event_ms > Some(above_ms)) {
            *self = Self { before_ms: self.before_ms.max(event_ms), until_above_ms: None };
        }
    }

    pub fn holds(&self, start_ms: i64) -> bool {
        self.until_above_ms.is_some() || self.before_ms.is_some_and(|before_ms| start_ms < before_ms)
    }
}

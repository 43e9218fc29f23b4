//! Whose time counts (`docs/decisions/0010`): a clock moves by more than an hour only with a second witness.

use serde::{Deserialize, Serialize};

/// A step of a clock beyond this is a leap.
pub const LEAP_MS: i64 = 3_600_000;

/// A clock that ticks move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// None before the first leap has its witness.
    pub value_ms: Option<i64>,
    /// The time of a leap that waits for its witness.
    pub claim_ms: Option<i64>,
}

/// What a clock made of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing: it is not behind the tick.
    Nothing,
    /// It moved, by an hour at most.
    Step,
    /// The tick is the claim now.
    Claim,
    /// It moved by a claim and its witness; the tick may be the next claim.
    Leap,
}

impl Clock {
    /// Whether a tick of this time would be a leap.
    pub fn is_leap(&self, at_ms: i64) -> bool {
        self.value_ms.is_none_or(|value_ms| at_ms > value_ms.saturating_add(LEAP_MS))
    }

    /// Take the time of a tick; `has_witness`: whether the claim was made by somebody whose word counts beside the tick's.
    pub fn hear(&mut self, at_ms: i64, has_witness: impl FnOnce() -> bool) -> Heard {
        if !self.is_leap(at_ms) {
            if self.value_ms >= Some(at_ms) {
                return Heard::Nothing;
            }
            *self = Self { value_ms: Some(at_ms), claim_ms: None };
            return Heard::Step;
        }
        let Some(claim_ms) = self.claim_ms.filter(|_| has_witness()) else {
            self.claim_ms = Some(at_ms);
            return Heard::Claim;
        };
        let (low_ms, high_ms) = (claim_ms.min(at_ms), claim_ms.max(at_ms));
        let is_one = high_ms <= low_ms.saturating_add(LEAP_MS);
        self.value_ms = Some(if is_one { high_ms } else { low_ms });
        self.claim_ms = Some(at_ms).filter(|at_ms| !is_one && *at_ms == high_ms);
        Heard::Leap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_MS: i64 = 365 * 24 * LEAP_MS;

    fn heard(times_ms: &[i64]) -> Clock {
        let mut clock = Clock::default();
        for at_ms in times_ms {
            clock.hear(*at_ms, || true);
        }
        clock
    }

    #[test]
    fn a_leap_waits_for_the_next_word() {
        let clock = |value_ms, claim_ms| Clock { value_ms, claim_ms };
        assert_eq!(heard(&[10]), clock(None, Some(10)));
        assert_eq!(heard(&[10, 20]), clock(Some(20), None));
        assert_eq!(heard(&[20, 10, 15]), clock(Some(20), None));
        // One lie, wherever it is told.
        assert_eq!(heard(&[YEAR_MS, 10, 20]), clock(Some(20), None));
        assert_eq!(heard(&[10, YEAR_MS, 20]), clock(Some(20), None));
        assert_eq!(heard(&[10, 20, YEAR_MS]), clock(Some(20), Some(YEAR_MS)));
        // A night, and one trade a day.
        assert_eq!(heard(&[10, 20, 20 * LEAP_MS, 20 * LEAP_MS + 1]), clock(Some(20 * LEAP_MS + 1), None));
        assert_eq!(heard(&[10, 20, 20 * LEAP_MS, 40 * LEAP_MS]), clock(Some(20 * LEAP_MS), Some(40 * LEAP_MS)));
        // A snapshot sent again says nothing, neither for a claim nor against it.
        assert_eq!(heard(&[10, 20, 20 * LEAP_MS, 20, 20 * LEAP_MS + 1]), clock(Some(20 * LEAP_MS + 1), None));
    }

    #[test]
    fn who_is_no_witness_takes_the_claim_over() {
        let mut clock = heard(&[10, 20]);
        assert_eq!(clock.hear(YEAR_MS, || false), Heard::Claim);
        assert_eq!(clock.hear(2 * YEAR_MS, || false), Heard::Claim);
        assert_eq!(clock, Clock { value_ms: Some(20), claim_ms: Some(2 * YEAR_MS) });
    }
}

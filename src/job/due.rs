//! When an occurrence starts: at its instant, or later by the trigger's jitter.

use chrono::TimeDelta;

use super::JobId;
use crate::clock::Timestamp;
use crate::trigger::Trigger;

/// An occurrence that is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The instant that the trigger gives: the identity of the occurrence.
    pub scheduled_at: Timestamp,
    /// When the run starts: the same instant, or later by the jitter.
    pub due_at: Timestamp,
}

impl Due {
    /// An occurrence with its jitter. The jitter depends on the job and the instant only, so that every node and every
    /// start computes the same one. It ends before the next occurrence and never passes the trigger's end.
    pub fn new(id: &JobId, trigger: &Trigger, scheduled_at: Timestamp) -> Self {
        let most = trigger.latest_start(scheduled_at).signed_duration_since(scheduled_at);
        let most = most.num_microseconds().unwrap_or(0);
        if most <= 0 {
            return Self { scheduled_at, due_at: scheduled_at };
        }
        let spread = u64::try_from(most).unwrap_or(0).saturating_add(1);
        let delay = stable_hash(id.as_str().as_bytes(), scheduled_at.timestamp_micros()) % spread;
        let delay = TimeDelta::microseconds(i64::try_from(delay).unwrap_or(0));
        Self {
            scheduled_at,
            due_at: scheduled_at.checked_add_signed(delay).unwrap_or(scheduled_at),
        }
    }
}

/// FNV-1a with a final mix: even enough to spread jobs, and the same on every machine.
pub fn stable_hash(bytes: &[u8], number: i64) -> u64 {
    let all = bytes.iter().copied().chain(number.to_le_bytes());
    let mixed = all.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

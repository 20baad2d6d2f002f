//! What a command has cost, as the kernel counts it.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{UsageWho, getrusage};
use wait4::ResourceUsage;

use crate::run::Cost;

/// The most memory that this process was seen to have had.
static OWN_PEAK: AtomicU64 = AtomicU64::new(0);

/// The cost of a process that has been waited for, and of those that it has waited for itself.
pub(super) fn cost(usage: &ResourceUsage) -> Cost {
    let cpu = usage.utime.saturating_add(usage.stime);
    Cost { cpu_micros: cpu.as_micros().try_into().ok(), peak_memory: peak_memory(usage.maxrss) }
}

/// A child begins in the memory of the daemon, and the kernel counts that as the child's own. So what is not more than
/// the daemon itself has had says nothing of the command.
fn peak_memory(peak: u64) -> Option<u64> {
    // What was seen before is a lower bound, which spares most calls.
    if peak <= OWN_PEAK.load(Ordering::Relaxed) {
        return None;
    }
    let kibibytes = getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss();
    let own = u64::try_from(kibibytes).ok()?.saturating_mul(1024);
    OWN_PEAK.store(own, Ordering::Relaxed);
    (peak > own).then_some(peak)
}

//! Wakes at an instant of the wall clock, or when that clock is set.
//!
//! A kernel timer on the real-time clock is about 50 µs late where the runtime's own timer is 1 ms late, and it reports when
//! the clock is set.

use std::os::fd::OwnedFd;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::clock::Timestamp;

#[derive(Debug)]
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an OwnedFd that is owned here cannot be closed behind its back"
    )]
    pub(super) fn new() -> std::io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Realtime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        Ok(Self { timer: AsyncFd::new(timer)? })
    }

    /// Returns at the instant, or at once if it has passed, or when the clock is set. Without an instant, it never returns.
    /// Cancel-safe.
    pub(super) async fn wait_until(&mut self, at: Option<Timestamp>) -> std::io::Result<()> {
        let Some(at) = at else { return std::future::pending().await };
        let nanoseconds = i64::from(at.timestamp_subsec_micros()) * 1000;
        // An instant of zero would disarm the timer. An instant in the past fires at once.
        let it_value = Timespec { tv_sec: at.timestamp().max(1), tv_nsec: nanoseconds };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(self.timer.get_ref(), flags, &spec) {
            Ok(_) => {}
            // The clock was set since the last wait. The kernel reports that here, although the timer is armed.
            Err(rustix::io::Errno::CANCELED) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            let read =
                ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
            match read {
                Ok(Ok(_)) => return Ok(()),
                // The clock was set: the caller has to read it again.
                Ok(Err(error))
                    if error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error()) =>
                {
                    return Ok(());
                }
                Ok(Err(error)) => return Err(error),
                Err(_not_ready) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use chrono::TimeDelta;
    use rustix::time::{ClockId, clock_gettime, clock_settime};

    /// One test, because a clock that is set wakes every alarm.
    #[tokio::test]
    #[expect(clippy::print_stderr, reason = "a test that is left out must say so")]
    async fn an_alarm_wakes_at_its_instant_and_when_the_clock_is_set() {
        let mut alarm = Alarm::new().unwrap();
        for distance in [TimeDelta::days(-40_000), TimeDelta::zero(), TimeDelta::milliseconds(20)] {
            let at = SystemClock.now() + distance;
            alarm.wait_until(Some(at)).await.unwrap();
            assert!(SystemClock.now() >= at);
        }
        let far = SystemClock.now() + TimeDelta::days(1000);
        let mut waiting = std::pin::pin!(alarm.wait_until(Some(far)));
        // The timer runs from the first look on.
        let early = tokio::time::timeout(std::time::Duration::from_millis(1), &mut waiting).await;
        assert!(early.is_err(), "it woke of itself");
        // Set to what it shows, so that nobody else on this machine notices more than a hint.
        if clock_settime(ClockId::Realtime, clock_gettime(ClockId::Realtime)).is_err() {
            eprintln!("LEFT OUT: only root may set the clock, so nobody has seen it being set");
            return;
        }
        waiting.await.unwrap();
    }
}

//! The service manager's watchdog, which restarts a daemon that has not sent a notification for `WatchdogSec=`.
//!
//! A thread watches the scheduler's loop, and sends notifications only while the loop makes progress. The loop cannot
//! send them itself: with SQLite it blocks inside the store while the disk hangs, and a restart would not help then. In a
//! frozen process this thread does not run either.

use std::io;
use std::time::Duration;

use super::service_manager;
use crate::scheduler::pulse::{Pulse, PulseReading};

/// The environment variables by which the service manager announces its watchdog.
const INTERVAL: &str = "WATCHDOG_USEC";
const PROCESS: &str = "WATCHDOG_PID";
/// How often the loop is checked within `WatchdogSec=`. With two checks, a single late one on a busy machine would cause a
/// restart.
const CHECKS: u32 = 4;

/// A watchdog that the service manager has set for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SystemdWatchdog {
    /// The service manager kills the process if it gets no notification for this time.
    limit: Duration,
}

impl SystemdWatchdog {
    /// The watchdog that the environment announces, if it is for this process. Invalid variables are logged, because the
    /// daemon would be restarted again and again without its notifications.
    fn from_environment() -> Option<Self> {
        let variable =
            |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let found = Self::parse(variable(INTERVAL), variable(PROCESS), std::process::id());
        found.unwrap_or_else(|why| {
            tracing::error!("the watchdog of the service manager cannot be notified: {why}");
            None
        })
    }

    fn parse(
        interval: Option<String>,
        process: Option<String>,
        own_id: u32,
    ) -> Result<Option<Self>, String> {
        let Some(interval) = interval else { return Ok(None) };
        let number = |name: &str, text: &str| {
            text.parse::<u64>().map_err(|_| format!("{name} is not a number: {text:?}"))
        };
        if let Some(process) = process
            && number(PROCESS, &process)? != u64::from(own_id)
        {
            return Ok(None);
        }
        match number(INTERVAL, &interval)? {
            0 => Err(format!("{INTERVAL} is 0")),
            micros => Ok(Some(Self { limit: Duration::from_micros(micros) })),
        }
    }

    /// Interval at which an idle loop must give a sign of life.
    fn interval(self) -> Duration {
        self.limit / CHECKS
    }

    /// Notifies the service manager while the loop with this pulse makes progress. Never returns.
    fn watch(self, pulse: &Pulse) {
        let mut observer = LoopObserver::default();
        loop {
            if observer.is_alive(pulse.read()) {
                service_manager::watchdog();
            }
            // This may return early, which only makes the next check early.
            std::thread::park_timeout(self.interval());
        }
    }
}

/// Makes the pulse of the scheduler's loop. If the service manager has a watchdog, starts the thread that notifies it.
pub(super) fn start() -> io::Result<Pulse> {
    let Some(watchdog) = SystemdWatchdog::from_environment() else { return Ok(Pulse::default()) };
    let pulse = Pulse::new(Some(watchdog.interval()));
    let watched = pulse.clone();
    std::thread::Builder::new()
        .name("punctual-watchdog".to_owned())
        .spawn(move || watchdog.watch(&watched))?;
    Ok(pulse)
}

/// Decides from its signs of life whether a loop makes progress.
#[derive(Debug, Default)]
struct LoopObserver {
    /// The number of signs at the last check.
    beats: Option<u64>,
}

impl LoopObserver {
    /// True if the loop has given a sign since the last check, or cannot give one because its thread is inside the store.
    fn is_alive(&mut self, sign: PulseReading) -> bool {
        let before = self.beats.replace(sign.beats);
        before != Some(sign.beats) || sign.is_in_store
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn read(interval: &str, process: Option<&str>) -> Result<Option<SystemdWatchdog>, String> {
        SystemdWatchdog::parse(Some(interval.to_owned()), process.map(str::to_owned), 17)
    }

    #[test]
    fn a_watchdog_is_notified_if_it_is_for_this_process() {
        let three = Some(SystemdWatchdog { limit: Duration::from_secs(3) });
        assert_eq!(SystemdWatchdog::parse(None, Some("17".to_owned()), 17), Ok(None));
        assert_eq!(read("3000000", None), Ok(three));
        assert_eq!(read("3000000", Some("17")), Ok(three));
        assert_eq!(read("3000000", Some("18")), Ok(None), "it is for the parent of this process");
        assert_eq!(read("0", None), Err("WATCHDOG_USEC is 0".to_owned()));
        assert_eq!(read("3s", None), Err("WATCHDOG_USEC is not a number: \"3s\"".to_owned()));
        assert_eq!(read("3", Some("")), Err("WATCHDOG_PID is not a number: \"\"".to_owned()));
    }

    #[test]
    fn a_loop_is_alive_while_it_gives_signs_or_is_inside_the_store() {
        let mut observer = LoopObserver::default();
        let signs =
            [(0, false), (0, false), (1, false), (1, true), (1, true), (1, false), (9, false)];
        let alive = signs
            .map(|(beats, is_in_store)| observer.is_alive(PulseReading { beats, is_in_store }));
        assert_eq!(alive, [true, false, true, true, true, false, true]);
    }

    /// A loop that is stuck, then inside the store, then waits for something, then is stuck again.
    async fn live(pulse: &Pulse, tell: &mpsc::Sender<()>, stuck: &mpsc::Receiver<()>) {
        let wait = async || {
            tell.send(()).unwrap();
            stuck.recv().unwrap();
        };
        pulse.while_waiting(wait()).await;
        pulse.store_call(wait()).await;
        pulse.while_waiting(tokio::time::sleep(INTERVAL * 20)).await;
        wait().await;
    }

    const INTERVAL: Duration = Duration::from_millis(2);

    #[test]
    fn a_stuck_loop_is_not_alive_and_one_inside_the_store_is() {
        let pulse = Pulse::new(Some(INTERVAL));
        let (go_on, stuck) = mpsc::channel();
        let (tell, reached) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let of_loop = pulse.clone();
        let core = std::thread::spawn(move || runtime.block_on(live(&of_loop, &tell, &stuck)));
        let checks = || {
            let mut observer = LoopObserver::default();
            observer.is_alive(pulse.read());
            [(); 10].map(|()| {
                std::thread::park_timeout(INTERVAL);
                observer.is_alive(pulse.read())
            })
        };
        reached.recv().unwrap();
        assert_eq!(checks(), [false; 10], "the thread is stuck");
        go_on.send(()).unwrap();
        reached.recv().unwrap();
        assert_eq!(checks(), [true; 10], "the thread is inside the store");
        let before = pulse.read().beats;
        go_on.send(()).unwrap();
        reached.recv().unwrap();
        assert!(pulse.read().beats > before, "it gave signs while it waited");
        go_on.send(()).unwrap();
        core.join().unwrap();
    }
}

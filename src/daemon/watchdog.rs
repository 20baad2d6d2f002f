//! The service manager's watchdog: it restarts a daemon from which it has not heard for `WatchdogSec=`.
//!
//! This daemon notifies it only while the scheduler's loop makes progress. A separate thread watches the loop and sends
//! the notifications. The loop cannot send them itself: with SQLite it blocks inside of the store while the disk hangs,
//! and a restart would not help then. In a frozen process this thread does not run either.

use std::io;
use std::time::Duration;

use super::notify;
use crate::scheduler::pulse::{Pulse, PulseReading};

/// The variables by which the service manager says that it has a watchdog.
const INTERVAL: &str = "WATCHDOG_USEC";
const PROCESS: &str = "WATCHDOG_PID";
/// How often the loop is checked within `WatchdogSec=`. With two checks, one that is late on a busy machine would be
/// enough for a restart.
const LOOKS: u32 = 4;

/// A watchdog that the service manager has set for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watchdog {
    /// The time after which the process is ended if it has said nothing.
    limit: Duration,
}

impl Watchdog {
    /// The watchdog that the environment names, if it is for this process. What cannot be understood is logged: without
    /// its signs of life the daemon would be restarted again and again.
    fn of_environment() -> Option<Self> {
        let variable =
            |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let found = Self::read(variable(INTERVAL), variable(PROCESS), std::process::id());
        found.unwrap_or_else(|why| {
            tracing::error!("the watchdog of the service manager cannot be served: {why}");
            None
        })
    }

    fn read(
        interval: Option<String>,
        process: Option<String>,
        me: u32,
    ) -> Result<Option<Self>, String> {
        let Some(interval) = interval else { return Ok(None) };
        let number = |name: &str, text: &str| {
            text.parse::<u64>().map_err(|_| format!("{name} is no number: {text:?}"))
        };
        if let Some(process) = process
            && number(PROCESS, &process)? != u64::from(me)
        {
            return Ok(None);
        }
        match number(INTERVAL, &interval)? {
            0 => Err(format!("{INTERVAL} is 0")),
            micros => Ok(Some(Self { limit: Duration::from_micros(micros) })),
        }
    }

    /// How often a loop that has nothing to do gives a sign of life.
    fn interval(self) -> Duration {
        self.limit / LOOKS
    }

    /// Tells the service manager, for as long as the process lives, that the loop with this pulse does.
    fn watch(self, pulse: &Pulse) {
        let mut observer = Observer::default();
        loop {
            if observer.lives(pulse.read()) {
                notify::alive();
            }
            // It may return early; the next look then comes early, too.
            std::thread::park_timeout(self.interval());
        }
    }
}

/// The pulse of the scheduler's loop. If the service manager has a watchdog, a thread starts that serves it.
pub(super) fn start() -> io::Result<Pulse> {
    let Some(watchdog) = Watchdog::of_environment() else { return Ok(Pulse::default()) };
    let pulse = Pulse::new(Some(watchdog.interval()));
    let watched = pulse.clone();
    std::thread::Builder::new()
        .name("punctual-watchdog".to_owned())
        .spawn(move || watchdog.watch(&watched))?;
    Ok(pulse)
}

/// Judges by its signs whether a loop lives.
#[derive(Debug, Default)]
struct Observer {
    /// The signs that were counted at the last look.
    beats: Option<u64>,
}

impl Observer {
    /// Whether the loop has given a sign since the last look, or cannot because its thread is inside of the store.
    fn lives(&mut self, sign: PulseReading) -> bool {
        let before = self.beats.replace(sign.beats);
        before != Some(sign.beats) || sign.is_in_store
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn read(interval: &str, process: Option<&str>) -> Result<Option<Watchdog>, String> {
        Watchdog::read(Some(interval.to_owned()), process.map(str::to_owned), 17)
    }

    #[test]
    fn a_watchdog_is_served_if_it_is_for_this_process() {
        let three = Some(Watchdog { limit: Duration::from_secs(3) });
        assert_eq!(Watchdog::read(None, Some("17".to_owned()), 17), Ok(None));
        assert_eq!(read("3000000", None), Ok(three));
        assert_eq!(read("3000000", Some("17")), Ok(three));
        assert_eq!(read("3000000", Some("18")), Ok(None), "it is for the parent of this process");
        assert_eq!(read("0", None), Err("WATCHDOG_USEC is 0".to_owned()));
        assert_eq!(read("3s", None), Err("WATCHDOG_USEC is no number: \"3s\"".to_owned()));
        assert_eq!(read("3", Some("")), Err("WATCHDOG_PID is no number: \"\"".to_owned()));
    }

    #[test]
    fn a_loop_lives_while_it_gives_signs_or_is_inside_of_the_store() {
        let mut observer = Observer::default();
        let signs =
            [(0, false), (0, false), (1, false), (1, true), (1, true), (1, false), (9, false)];
        let lives =
            signs.map(|(beats, is_in_store)| observer.lives(PulseReading { beats, is_in_store }));
        assert_eq!(lives, [true, false, true, true, true, false, true]);
    }

    /// What a loop does between two looks: nothing, twice, and then something that takes time.
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
    fn a_loop_whose_thread_is_stuck_gives_no_sign_and_one_inside_of_the_store_is_spared() {
        let pulse = Pulse::new(Some(INTERVAL));
        let (go_on, stuck) = mpsc::channel();
        let (tell, reached) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let of_loop = pulse.clone();
        let core = std::thread::spawn(move || runtime.block_on(live(&of_loop, &tell, &stuck)));
        let looks = || {
            let mut observer = Observer::default();
            observer.lives(pulse.read());
            [(); 10].map(|()| {
                std::thread::park_timeout(INTERVAL);
                observer.lives(pulse.read())
            })
        };
        reached.recv().unwrap();
        assert_eq!(looks(), [false; 10], "the thread is stuck");
        go_on.send(()).unwrap();
        reached.recv().unwrap();
        assert_eq!(looks(), [true; 10], "the thread is inside of the store");
        let before = pulse.read().beats;
        go_on.send(()).unwrap();
        reached.recv().unwrap();
        assert!(pulse.read().beats > before, "it gave signs while it waited");
        go_on.send(()).unwrap();
        core.join().unwrap();
    }
}

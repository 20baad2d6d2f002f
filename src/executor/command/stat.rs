//! What the kernel says of a process in `/proc/PID/stat`.

use std::fs;

use rustix::process::Pid;

/// How the kernel marks its own threads.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    state: char,
    /// The number of its session, which is that of the process that began it.
    pub(super) session: i32,
    flags: u64,
    /// When it was started, in clock ticks since the machine was. Together with its number it is unique.
    pub(super) started: u64,
}

impl Stat {
    /// Reads it; none if there is no such process.
    pub(super) fn read(pid: Pid) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name in brackets may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number).copied();
        Some(Self {
            state: field(0)?.chars().next()?,
            session: field(3)?.parse().ok()?,
            flags: field(6)?.parse().ok()?,
            started: field(19)?.parse().ok()?,
        })
    }

    /// Whether it has not ended.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Whether it belongs to the kernel.
    pub(super) fn is_kernel_thread(&self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let text = "4711 (a) b (c)) S 1 4700 4699 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.session, stat.started), (4699, 987_654));
        assert!(stat.is_alive() && !stat.is_kernel_thread());
        assert!(!Stat::parse(&text.replace(" S ", " Z ")).unwrap().is_alive());
        assert_eq!(Stat::parse("4711 (x) S 1"), None);
        let own = Stat::read(rustix::process::getpid()).unwrap();
        assert!(own.is_alive() && own.started > 0);
    }
}

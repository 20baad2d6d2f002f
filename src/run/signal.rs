//! The names of signals, by their numbers on this machine.

use nix::sys::signal::Signal;

/// The name of a signal; `None` for a real-time signal or a number that is not a signal.
fn signal_name(number: i32) -> Option<&'static str> {
    Signal::try_from(number).ok().map(Signal::as_str)
}

/// A signal as messages show it: its number, and its name if it has one.
pub fn describe_signal(number: i32) -> String {
    match signal_name(number) {
        Some(name) => format!("signal {number} ({name})"),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_shown_with_its_number_and_its_name() {
        assert_eq!(describe_signal(9), "signal 9 (SIGKILL)");
        assert_eq!(describe_signal(15), "signal 15 (SIGTERM)");
        assert_eq!(describe_signal(31), "signal 31 (SIGSYS)");
        assert_eq!(describe_signal(34), "signal 34");
        assert_eq!(signal_name(0), None);
    }

    #[test]
    fn every_standard_signal_has_a_name() {
        let unnamed: Vec<i32> = (1..=31).filter(|number| signal_name(*number).is_none()).collect();
        // Not every machine has signal 16, SIGSTKFLT.
        assert!(unnamed.is_empty() || unnamed == [16], "{unnamed:?}");
    }
}

//! The outcome of a run whose worker process has ended or stopped answering.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::line::Broken;
use crate::executor::report::failed;
use crate::run::{Outcome, describe_signal};

/// What a run comes to whose worker broke off and ended like this.
pub(super) fn outcome(broken: Broken, status: &std::io::Result<ExitStatus>) -> Outcome {
    if let Broken::Asked(ending) = broken {
        return ending.into();
    }
    let error = format!("the worker process {}", words(&broken, status));
    let Ok(status) = status else { return failed(error) };
    let (exit_code, signal) = (status.code(), status.signal());
    Outcome::Failed { error, exit_code, signal, permanent: false }
}

/// What a worker process did, or what ended it.
pub(super) fn words(broken: &Broken, status: &std::io::Result<ExitStatus>) -> String {
    match (broken, status) {
        (Broken::Ended | Broken::EndedUnread, Ok(status)) => status_words(*status),
        (Broken::Ended | Broken::EndedUnread, Err(error)) => {
            format!("could not be waited for: {error}")
        }
        (
            Broken::Silent(_) | Broken::Protocol(_) | Broken::Socket(_) | Broken::Asked(_),
            Ok(_) | Err(_),
        ) => {
            let words = broken.to_string();
            words.strip_prefix("it ").map_or(words.clone(), str::to_owned)
        }
    }
}

fn status_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by {}", describe_signal(signal)),
        (None, None) => format!("ended: {status}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(broken: Broken, status: i32) -> (String, Option<i32>, Option<i32>) {
        let outcome = outcome(broken, &Ok(ExitStatus::from_raw(status)));
        let Outcome::Failed { error, exit_code, signal, permanent: false } = outcome else {
            panic!("{outcome:?}")
        };
        (error, exit_code, signal)
    }

    #[test]
    fn a_run_is_told_what_ended_its_worker() {
        let text = |text: &str| text.to_owned();
        assert_eq!(
            told(Broken::Ended, 9),
            (text("the worker process was ended by signal 9 (SIGKILL)"), None, Some(9))
        );
        assert_eq!(
            told(Broken::EndedUnread, 3 << 8),
            (text("the worker process ended with exit code 3"), Some(3), None)
        );
        assert_eq!(
            told(Broken::Silent(Duration::from_secs(10)), 9),
            (text("the worker process did not answer for 10s"), None, Some(9))
        );
        assert_eq!(
            told(Broken::Protocol(text("nonsense")), 9).0,
            "the worker process broke the protocol: nonsense"
        );
    }
}

//! Signals: SIGTERM and SIGINT end the daemon, SIGHUP has it read the configuration again. All others that would end it
//! do nothing: see [`super::inherited`].

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::inherited::Inherited;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Listens to signals.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// A reload was asked for while nobody could carry it out.
    early_hangup: bool,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn new(inherited: &Inherited) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            early_hangup: inherited.take_hangup(),
        })
    }

    /// Awaits something, unless the daemon is asked to stop meanwhile: then there is none. A reload that is asked for
    /// meanwhile is the next thing that is asked.
    pub(super) async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut is_reload_asked = false;
        loop {
            tokio::select! {
                done = &mut work => {
                    self.early_hangup |= is_reload_asked;
                    return Some(done);
                }
                asked = self.next() => match asked {
                    Asked::Stop => return None,
                    Asked::Reload => is_reload_asked = true,
                },
            }
        }
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        if std::mem::take(&mut self.early_hangup) {
            return Asked::Reload;
        }
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

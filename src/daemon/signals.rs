//! SIGTERM and SIGINT stop the daemon, SIGHUP reloads the configuration. All other signals that would end the process do
//! nothing; see [`super::process_state`].

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::process_state::ProcessState;
use super::startup_error::StartupError;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalRequest {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Receives the signals of the daemon.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// A reload was requested while the daemon could not carry it out.
    pending_reload: bool,
}

impl Signals {
    pub(super) fn new(process: &ProcessState) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            pending_reload: process.take_hangup(),
        })
    }

    /// Awaits `work`, and gives it up when a signal asks to stop: the error is then [`StartupError::Stopped`]. If a reload
    /// is requested in the meantime, [`Self::next`] will return it.
    pub(super) async fn unless_stopped<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, StartupError> {
        let mut work = std::pin::pin!(work);
        let mut is_reload_requested = false;
        loop {
            tokio::select! {
                done = &mut work => {
                    self.pending_reload |= is_reload_requested;
                    return Ok(done);
                }
                request = self.next() => match request {
                    SignalRequest::Stop => return Err(StartupError::Stopped),
                    SignalRequest::Reload => is_reload_requested = true,
                },
            }
        }
    }

    /// Waits for the next request. Cancel-safe.
    pub(super) async fn next(&mut self) -> SignalRequest {
        if std::mem::take(&mut self.pending_reload) {
            return SignalRequest::Reload;
        }
        tokio::select! {
            _ = self.terminate.recv() => SignalRequest::Stop,
            _ = self.interrupt.recv() => SignalRequest::Stop,
            _ = self.hangup.recv() => SignalRequest::Reload,
        }
    }
}

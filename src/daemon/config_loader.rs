//! Loads the configuration of a daemon without letting anything else wait for a file that does not answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::config::{Config, ConfigError, default_file};

/// The configuration of the demo, which is part of the program.
const DEMO_TEXT: &str = include_str!("demo.toml");
/// Stands for the path of the demo's configuration in messages.
const DEMO_NAME: &str = "the demo's configuration";
/// Maximum time for reading and judging the configuration. A file on a network that is gone never answers.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub(super) enum ConfigSource {
    File(PathBuf),
    Demo,
}

impl ConfigSource {
    /// The given file; else the demo's configuration or the default file.
    pub(super) fn new(file: Option<PathBuf>, is_demo: bool) -> Self {
        match file {
            Some(file) => Self::File(file),
            None if is_demo => Self::Demo,
            None => Self::File(default_file()),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::File(file) => file,
            Self::Demo => Path::new(DEMO_NAME),
        }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        match self {
            Self::File(file) => Config::load(file),
            Self::Demo => Config::parse(self.path(), DEMO_TEXT),
        }
    }
}

/// Loads the configuration on a thread of its own.
#[derive(Debug)]
pub(super) struct ConfigLoader {
    source: ConfigSource,
    /// Held by the thread that loads, so that threads which hang do not pile up.
    permit: Arc<Semaphore>,
}

impl ConfigLoader {
    pub(super) fn new(source: ConfigSource) -> Self {
        Self { source, permit: Arc::new(Semaphore::new(1)) }
    }

    /// The absolute path of the file, or the name of the demo's configuration.
    pub(super) fn path(&self) -> String {
        let path = match &self.source {
            ConfigSource::File(file) => std::path::absolute(file).unwrap_or_else(|_| file.clone()),
            ConfigSource::Demo => DEMO_NAME.into(),
        };
        path.display().to_string()
    }

    /// Loads the configuration and passes it to `make`.
    pub(super) async fn load<T: Send + 'static>(
        &self,
        make: impl FnOnce(Config) -> Result<T, ConfigError> + Send + 'static,
    ) -> Result<T, ConfigError> {
        let failed = |why: String| ConfigError::of_file(self.source.path(), why);
        let Ok(permit) = Arc::clone(&self.permit).try_acquire_owned() else {
            return Err(failed("cannot be read: an earlier read has not ended yet".to_owned()));
        };
        let source = self.source.clone();
        let (sender, receiver) = oneshot::channel();
        let loading = move || {
            let result = source.load().and_then(make);
            drop(permit);
            // The caller may have given up.
            drop(sender.send(result));
        };
        let started = std::thread::Builder::new().name("punctual-config".to_owned()).spawn(loading);
        started.map_err(|error| failed(format!("cannot be read: no thread: {error}")))?;
        match tokio::time::timeout(READ_LIMIT, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(failed("cannot be read: the thread that read it failed".to_owned())),
            Err(_) => {
                let seconds = READ_LIMIT.as_secs();
                Err(failed(format!("cannot be read: it did not answer within {seconds} s")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_that_hangs_does_not_collect_others_behind_it() {
        let loader = ConfigLoader::new(ConfigSource::Demo);
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let hanging = loader.load(move |_| Ok(gate.recv()));
        tokio::pin!(hanging);
        let given_up = tokio::time::timeout(Duration::from_millis(10), &mut hanging).await;
        assert!(given_up.is_err());
        let refused = loader.load(Ok).await.unwrap_err().to_string();
        assert!(refused.contains("an earlier read has not ended yet"), "{refused}");
        release.send(()).unwrap();
        assert!(hanging.await.unwrap().is_ok());
        assert!(loader.load(Ok).await.is_ok(), "its permit is free again");
    }
}

//! Which lines are logged: the default, and on top of it what the environment asks for.

use std::ffi::OsStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::daemon::files::Demo;

/// Variable that sets levels, such as `debug` or `warn,punctual::store=debug`.
const LEVEL_VARIABLE: &str = "PUNCTUAL_LOG";

/// A database driver also logs the errors that it returns, so each loss of a connection would be logged twice.
const DRIVERS: &str = "sqlx=error,sqlx_core=error";

/// The filter of this process, or what is wrong with the variable.
pub(super) fn filter(demo: Demo) -> Result<EnvFilter, String> {
    let given = std::env::var_os(LEVEL_VARIABLE);
    let directives = directives(demo, given.as_deref())?;
    EnvFilter::try_new(directives).map_err(|error| refusal(&error.to_string(), given.as_deref()))
}

/// The directives that hold: those of the variable come last, so that they win, and what they do not name keeps its
/// default. A typing error must never turn errors off.
fn directives(demo: Demo, given: Option<&OsStr>) -> Result<String, String> {
    let text = given.map_or(Some(""), OsStr::to_str);
    let text = text.ok_or_else(|| refusal("it is not UTF-8", given))?;
    let mut general = "info";
    let mut of_modules = DRIVERS.to_owned();
    if demo == Demo::Yes {
        of_modules.push_str(",ledger=debug");
    }
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if level.parse::<LevelFilter>().is_err() {
            return Err(refusal(&format!("\"{level}\" is no level"), given));
        }
        if level == part {
            general = level;
        } else {
            of_modules = format!("{of_modules},{part}");
        }
    }
    Ok(format!("{general},{of_modules}"))
}

fn refusal(why: &str, given: Option<&OsStr>) -> String {
    let given = given.unwrap_or_default().to_string_lossy();
    format!(
        "{LEVEL_VARIABLE}={given:?} is not understood: {why}; \
         give error, warn, info, debug, trace or off, or MODULE=LEVEL, separated by commas"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &str) -> Result<String, String> {
        directives(Demo::No, Some(OsStr::new(given)))
    }

    #[test]
    fn what_the_variable_does_not_name_keeps_its_default() {
        let default = "info,sqlx=error,sqlx_core=error";
        assert_eq!(directives(Demo::No, None).unwrap(), default);
        assert_eq!(of("").unwrap(), default);
        let expected = "warn,sqlx=error,sqlx_core=error,punctual::store=debug";
        assert_eq!(of("warn, punctual::store=debug,").unwrap(), expected);
        let filter = EnvFilter::try_new(of("ledger=debug").unwrap()).unwrap();
        assert_eq!(filter.max_level_hint(), Some(LevelFilter::DEBUG));
        let quiet = EnvFilter::try_new(of("error").unwrap()).unwrap();
        assert_eq!(quiet.max_level_hint(), Some(LevelFilter::ERROR));
    }

    #[test]
    fn what_is_no_level_is_refused_by_name() {
        for (given, named) in [
            ("foo", "\"foo\" is no level"),
            ("info,debugg", "\"debugg\" is no level"),
            ("punctual::store", "\"punctual::store\" is no level"),
            ("punctual=loud", "\"loud\" is no level"),
        ] {
            let error = of(given).unwrap_err();
            assert!(
                error.contains(named) && error.contains(&format!("PUNCTUAL_LOG={given:?}")),
                "{error}"
            );
        }
    }
}

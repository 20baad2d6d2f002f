//! Which events are logged: the default, and on top of it what the environment or a request asks for.

use std::ffi::OsStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::daemon::files::Demo;

/// Variable that sets levels, such as `debug` or `warn,punctual::store=debug`.
const VARIABLE: &str = "PUNCTUAL_LOG";

/// A database driver also logs the errors that it returns, so each loss of a connection would be logged twice.
const DRIVERS: &str = "sqlx=error,sqlx_core=error";

/// What can be named beside modules of this program: the ends of runs, control requests, and the libraries that log.
const TARGETS: [&str; 8] = [
    "ledger",
    "audit",
    "hyper_util",
    "sqlx",
    "sqlx_core",
    "sqlx_mysql",
    "sqlx_postgres",
    "sqlx_sqlite",
];
/// This program, as its modules are named.
const PROGRAM: &str = "punctual";
/// Modules of this program.
const MODULES: [&str; 28] = [
    "cli",
    "client",
    "clock",
    "config",
    "control",
    "daemon",
    "duration",
    "executor",
    "explain",
    "file",
    "filter",
    "history",
    "instant",
    "invalid",
    "job",
    "json",
    "output",
    "preview",
    "printable",
    "run",
    "scheduler",
    "secret",
    "server",
    "store",
    "task",
    "toutiao",
    "trigger",
    "zone",
];

/// The directives of the variable, or what is wrong with it.
pub(super) fn of_environment(demo: Demo) -> Result<String, String> {
    let Some(given) = std::env::var_os(VARIABLE) else { return directives(demo, "") };
    of_variable(demo, &given)
}

fn of_variable(demo: Demo, given: &OsStr) -> Result<String, String> {
    let text = given.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
    text.and_then(|text| directives(demo, text))
        .map_err(|why| format!("{VARIABLE}={:?} is not understood: {why}", given.to_string_lossy()))
}

/// A filter of these directives.
pub(super) fn filter(directives: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(directives).map_err(|error| error.to_string())
}

/// The directives that hold: those given come last, so that they win, and what they do not name keeps its default. A
/// typing error is refused: it would turn off what it was meant to show.
pub(super) fn directives(demo: Demo, given: &str) -> Result<String, String> {
    let mut general = "info";
    let mut of_modules = DRIVERS.to_owned();
    if demo == Demo::Yes {
        of_modules.push_str(",ledger=debug");
    }
    for part in given.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let level = match part.split_once('=') {
            None => {
                general = part;
                part
            }
            Some((module, level)) => {
                check_module(module)?;
                of_modules = format!("{of_modules},{part}");
                level
            }
        };
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(format!(
                "\"{level}\" is no level; \
                 give error, warn, info, debug, trace or off, or MODULE=LEVEL, separated by commas"
            ));
        }
    }
    let directives = format!("{general},{of_modules}");
    filter(&directives).map(|_| directives)
}

/// Refuses a module that does not exist, or that logs nothing.
fn check_module(module: &str) -> Result<(), String> {
    let mut names = module.split("::");
    let is_known = match (names.next(), names.next()) {
        (Some(PROGRAM), None) => true,
        (Some(PROGRAM), Some(own)) => MODULES.contains(&own),
        (Some(target), _) => TARGETS.contains(&target),
        (None, _) => false,
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    if is_known && module.split("::").all(is_name) {
        return Ok(());
    }
    Err(format!(
        "there is no module \"{module}\"; there are {PROGRAM}, its modules such as {PROGRAM}::store, and {}",
        TARGETS.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &str) -> Result<String, String> {
        of_variable(Demo::No, OsStr::new(given))
    }

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let default = "info,sqlx=error,sqlx_core=error";
        assert_eq!(of("").unwrap(), default);
        assert_eq!(directives(Demo::Yes, "").unwrap(), format!("{default},ledger=debug"));
        let expected = "warn,sqlx=error,sqlx_core=error,punctual::store=debug";
        assert_eq!(of("warn, punctual::store=debug,").unwrap(), expected);
        let max = |given| filter(&of(given).unwrap()).unwrap().max_level_hint();
        assert_eq!(max("ledger=debug"), Some(LevelFilter::DEBUG));
        assert_eq!(max("error"), Some(LevelFilter::ERROR));
        assert_eq!(max("punctual=off,punctual::scheduler::serve=TRACE"), Some(LevelFilter::TRACE));
    }

    #[test]
    fn what_is_no_level_or_no_module_is_refused_by_name() {
        let misspelt = ["punctual", "stor=debug"].join("::");
        for (given, named) in [
            ("foo", "\"foo\" is no level"),
            ("info,debugg", "\"debugg\" is no level"),
            ("punctual::store", "\"punctual::store\" is no level"),
            ("punctual=loud", "\"loud\" is no level"),
            ("punctual=", "\"\" is no level"),
            ("punctaul=debug", "no module \"punctaul\""),
            (&misspelt, &format!("no module \"{}\"", misspelt.trim_end_matches("=debug"))),
            ("punctual::store::=debug", "no module \"punctual::store::\""),
            ("=debug", "no module \"\""),
            ("foo=debug", "no module \"foo\""),
            ("ledger[{job=backup}]=debug", "no module \"ledger[{job\""),
        ] {
            let error = of(given).unwrap_err();
            assert!(
                error.contains(named) && error.contains(&format!("PUNCTUAL_LOG={given:?}")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_known_modules_are_those_of_the_program() {
        let declared = include_str!("../../lib.rs").lines();
        let declared = declared.filter_map(|line| line.trim_end_matches(';').rsplit_once("mod "));
        let mut declared: Vec<&str> = declared.map(|(_, name)| name).collect();
        declared.sort_unstable();
        assert_eq!(declared, MODULES);
    }
}

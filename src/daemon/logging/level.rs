//! Which events are logged: the default, and on top of it what the environment or a request asks for.

use std::ffi::OsStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::daemon::files::Demo;

/// Variable that sets levels, such as `debug` or `warn,punctual::store=debug`.
const VARIABLE: &str = "PUNCTUAL_LOG";

/// A database driver also logs the errors that it returns, so each loss of a connection would be logged twice.
const DRIVERS: [&str; 2] = ["sqlx=error", "sqlx_core=error"];

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
const MODULES: [&str; 30] = [
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
    "program",
    "run",
    "scheduler",
    "secret",
    "server",
    "store",
    "task",
    "toutiao",
    "trigger",
    "user",
    "zone",
];

/// The directives of the variable, or what is wrong with it.
pub(super) fn of_environment(demo: Demo) -> Result<String, String> {
    of_variable(demo, &std::env::var_os(VARIABLE).unwrap_or_default())
}

/// A variable that is set to nothing is like one that is not set.
fn of_variable(demo: Demo, given: &OsStr) -> Result<String, String> {
    if given.is_empty() {
        return Ok(defaults(demo));
    }
    let text = given.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
    text.and_then(|text| directives(demo, text))
        .map_err(|why| format!("{VARIABLE}={:?} is not understood: {why}", given.to_string_lossy()))
}

/// A filter of these directives.
pub(super) fn filter(directives: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(directives).map_err(|error| error.to_string())
}

/// What holds where nothing is given.
const GENERAL: &str = "info";

/// What holds of single modules where nothing is given for them.
fn default_of_modules(demo: Demo) -> Vec<&'static str> {
    let mut directives = DRIVERS.to_vec();
    if demo == Demo::Yes {
        directives.push("ledger=debug");
    }
    directives
}

fn defaults(demo: Demo) -> String {
    [&[GENERAL], &*default_of_modules(demo)].concat().join(",")
}

/// The directives that hold: those given come last, so that they win, and what they do not name keeps its default. A
/// typing error is refused: it would turn off what it was meant to show. So is what is given twice, of which one would
/// be ignored.
pub(super) fn directives(demo: Demo, given: &str) -> Result<String, String> {
    let mut general = None;
    let mut of_modules: Vec<(&str, &str)> = Vec::new();
    for part in given.split(',').map(str::trim) {
        let Some((module, level)) = part.split_once('=') else {
            check_level(part)?;
            if let Some(other) = general.replace(part) {
                return Err(format!("\"{other}\" and \"{part}\" are both for all modules"));
            }
            continue;
        };
        check_module(module)?;
        check_level(level)?;
        if of_modules.iter().any(|(other, _)| *other == module) {
            return Err(format!("\"{module}\" is given twice"));
        }
        of_modules.push((module, part));
    }
    let is_given = |default: &str| {
        of_modules.iter().any(|(module, _)| default.split('=').next() == Some(*module))
    };
    let defaults = default_of_modules(demo).into_iter().filter(|default| !is_given(default));
    let parts = std::iter::once(general.unwrap_or(GENERAL)).chain(defaults);
    let parts: Vec<&str> = parts.chain(of_modules.iter().map(|(_, part)| *part)).collect();
    let directives = parts.join(",");
    filter(&directives).map(|_| directives)
}

/// Refuses what is no level. The parser of levels takes numbers, too, whose meaning nobody would guess.
fn check_level(level: &str) -> Result<(), String> {
    let is_word = !level.is_empty() && level.chars().all(|letter| letter.is_ascii_alphabetic());
    if is_word && level.parse::<LevelFilter>().is_ok() {
        return Ok(());
    }
    Err(format!(
        "\"{level}\" is no level; \
         give error, warn, info, debug, trace or off, or MODULE=LEVEL, separated by commas"
    ))
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
        assert_eq!(
            of_variable(Demo::Yes, OsStr::new("")).unwrap(),
            format!("{default},ledger=debug")
        );
        let expected = "warn,sqlx=error,sqlx_core=error,punctual::store=debug";
        assert_eq!(of(" warn, punctual::store=debug ").unwrap(), expected);
        let shown = of("ledger=debug,sqlx=warn").unwrap();
        assert_eq!(shown, "info,sqlx_core=error,ledger=debug,sqlx=warn");
        assert_eq!(
            of(&of(&shown).unwrap()).unwrap(),
            of(&shown).unwrap(),
            "what is shown is taken"
        );
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
            (",", "\"\" is no level"),
            ("info,", "\"\" is no level"),
            ("info,,ledger=debug", "\"\" is no level"),
            (" ", "\"\" is no level"),
            ("3", "\"3\" is no level"),
            ("ledger=4", "\"4\" is no level"),
            ("info debug", "\"info debug\" is no level"),
            ("info;debug", "\"info;debug\" is no level"),
            ("ledger= debug", "\" debug\" is no level"),
            ("ledger =debug", "no module \"ledger \""),
            ("info,debug", "\"info\" and \"debug\" are both for all modules"),
            ("ledger=info,audit=debug,ledger=warn", "\"ledger\" is given twice"),
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

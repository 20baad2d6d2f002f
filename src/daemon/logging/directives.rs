//! Which events are logged: the defaults, and the directives that the environment or a request adds to them.

use std::ffi::OsStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The environment variable that sets levels, such as `debug` or `warn,punctual::store=debug`.
const VARIABLE: &str = "PUNCTUAL_LOG";

/// Database drivers also log the errors that they return, so each lost connection would be logged twice.
const DRIVERS: [&str; 2] = ["sqlx=error", "sqlx_core=error"];

/// Targets other than modules of this program: the ends of runs, control requests, and the libraries that log.
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
/// The root of this program's modules.
const PROGRAM: &str = "punctual";
/// Declares the modules of this program.
const LIB: &str = include_str!("../../lib.rs");

/// The top-level modules of this program.
fn modules() -> impl Iterator<Item = &'static str> {
    LIB.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
}

/// The directives of the environment variable, or what is wrong with it.
pub(super) fn from_environment(is_demo: bool) -> Result<String, String> {
    from_variable(is_demo, &std::env::var_os(VARIABLE).unwrap_or_default())
}

/// An empty variable counts as unset.
fn from_variable(is_demo: bool, given: &OsStr) -> Result<String, String> {
    if given.is_empty() {
        return Ok(defaults(is_demo));
    }
    let text = given.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
    text.and_then(|text| directives(is_demo, text))
        .map_err(|why| format!("{VARIABLE}={:?} is not understood: {why}", given.to_string_lossy()))
}

/// Makes a filter from directives.
pub(super) fn filter(directives: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(directives).map_err(|error| error.to_string())
}

/// The default general level.
const GENERAL: &str = "info";

/// The default levels of single modules. A demo shows every run, and a daemon only those that failed.
fn module_defaults(is_demo: bool) -> Vec<&'static str> {
    let mut directives = DRIVERS.to_vec();
    if is_demo {
        directives.push("ledger=debug");
    }
    directives
}

fn defaults(is_demo: bool) -> String {
    [&[GENERAL], &*module_defaults(is_demo)].concat().join(",")
}

/// Completes the given directives with the defaults of what they do not name. The given ones come last, because the last
/// one wins. Misspelt names are refused, since they would hide what they should show; so are names that are given twice,
/// since one of the two would be ignored.
pub(super) fn directives(is_demo: bool, given: &str) -> Result<String, String> {
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
    let defaults = module_defaults(is_demo).into_iter().filter(|default| !is_given(default));
    let parts = std::iter::once(general.unwrap_or(GENERAL)).chain(defaults);
    let parts: Vec<&str> = parts.chain(of_modules.iter().map(|(_, part)| *part)).collect();
    let directives = parts.join(",");
    filter(&directives).map(|_| directives)
}

/// Refuses an invalid level. `LevelFilter` also parses numbers, whose meaning nobody would guess.
fn check_level(level: &str) -> Result<(), String> {
    let is_word = !level.is_empty() && level.chars().all(|letter| letter.is_ascii_alphabetic());
    if is_word && level.parse::<LevelFilter>().is_ok() {
        return Ok(());
    }
    Err(format!(
        "\"{level}\" is not a level; \
         give error, warn, info, debug, trace or off, or MODULE=LEVEL, separated by commas"
    ))
}

/// Refuses a module that does not exist, or that logs nothing.
fn check_module(module: &str) -> Result<(), String> {
    let mut names = module.split("::");
    let is_known = match (names.next(), names.next()) {
        (Some(PROGRAM), None) => true,
        (Some(PROGRAM), Some(own)) => modules().any(|module| module == own),
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
        from_variable(false, OsStr::new(given))
    }

    #[test]
    fn a_module_that_is_not_named_keeps_its_default() {
        let default = "info,sqlx=error,sqlx_core=error";
        assert_eq!(of("").unwrap(), default);
        assert_eq!(from_variable(true, OsStr::new("")).unwrap(), format!("{default},ledger=debug"));
        let expected = "warn,sqlx=error,sqlx_core=error,punctual::store=debug";
        assert_eq!(of(" warn, punctual::store=debug ").unwrap(), expected);
        let shown = of("ledger=debug,sqlx=warn").unwrap();
        assert_eq!(shown, "info,sqlx_core=error,ledger=debug,sqlx=warn");
        assert_eq!(
            of(&of(&shown).unwrap()).unwrap(),
            of(&shown).unwrap(),
            "the shown directives are accepted"
        );
        let max = |given| filter(&of(given).unwrap()).unwrap().max_level_hint();
        assert_eq!(max("ledger=debug"), Some(LevelFilter::DEBUG));
        assert_eq!(max("error"), Some(LevelFilter::ERROR));
        assert_eq!(max("punctual=off,punctual::scheduler::serve=TRACE"), Some(LevelFilter::TRACE));
    }

    #[test]
    fn an_unknown_level_or_module_is_refused_by_name() {
        let misspelt = ["punctual", "stor=debug"].join("::");
        for (given, named) in [
            ("foo", "\"foo\" is not a level"),
            ("info,debugg", "\"debugg\" is not a level"),
            ("punctual::store", "\"punctual::store\" is not a level"),
            ("punctual=loud", "\"loud\" is not a level"),
            ("punctual=", "\"\" is not a level"),
            (",", "\"\" is not a level"),
            ("info,", "\"\" is not a level"),
            ("info,,ledger=debug", "\"\" is not a level"),
            (" ", "\"\" is not a level"),
            ("3", "\"3\" is not a level"),
            ("ledger=4", "\"4\" is not a level"),
            ("info debug", "\"info debug\" is not a level"),
            ("info;debug", "\"info;debug\" is not a level"),
            ("ledger= debug", "\" debug\" is not a level"),
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
        let declared = LIB.lines().filter(|line| line.ends_with(';') && line.contains("mod "));
        assert_eq!(modules().count(), declared.count());
        assert!(modules().any(|module| module == "store"));
    }
}

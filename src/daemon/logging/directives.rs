//! Which events are logged: the defaults, the directives that the environment or a request adds to them, and what a request
//! may not hide.

use std::ffi::OsStr;
use std::fmt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::control::audit;

/// The environment variable that sets levels, such as `debug` or `warn,punctual::store=debug`.
const VARIABLE: &str = "PUNCTUAL_LOG";

/// Database drivers also log the errors that they return, so each lost connection would be logged twice.
const DRIVERS: [&str; 2] = ["sqlx", "sqlx_core"];

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
    let declarations = LIB.lines().map(|line| line.strip_prefix("pub ").unwrap_or(line));
    declarations.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
}

/// Directives as the environment or a request gives them: perhaps a general level, and levels of modules.
#[derive(Debug)]
pub(super) struct GivenDirectives {
    general: Option<LevelFilter>,
    modules: Vec<(String, LevelFilter)>,
}

impl GivenDirectives {
    /// Parses directives that are separated by commas. Misspelt names are refused, since they would hide what they should
    /// show; so are names that are given twice, since one of the two would be ignored.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut given = Self { general: None, modules: Vec::new() };
        for part in text.split(',').map(str::trim) {
            let Some((module, level)) = part.split_once('=') else {
                let level = parse_level(part)?;
                if let Some(other) = given.general.replace(level) {
                    return Err(format!("\"{other}\" and \"{level}\" are both for all modules"));
                }
                continue;
            };
            check_module(module)?;
            let level = parse_level(level)?;
            if given.names(module) {
                return Err(format!("\"{module}\" is given twice"));
            }
            given.modules.push((module.to_owned(), level));
        }
        Ok(given)
    }

    fn names(&self, module: &str) -> bool {
        self.modules.iter().any(|(name, _)| name == module)
    }
}

/// The directives of a filter: a general level, and levels of modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directives {
    general: LevelFilter,
    modules: Vec<(String, LevelFilter)>,
}

impl Directives {
    /// The directives of the environment variable, or what is wrong with it.
    pub(super) fn from_environment(is_demo: bool) -> Result<Self, String> {
        Self::from_variable(is_demo, &std::env::var_os(VARIABLE).unwrap_or_default())
    }

    /// An empty variable counts as unset.
    fn from_variable(is_demo: bool, variable: &OsStr) -> Result<Self, String> {
        if variable.is_empty() {
            return Ok(Self::defaults(is_demo));
        }
        let text = variable.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        let given = text.and_then(GivenDirectives::parse).map_err(|why| {
            format!("{VARIABLE}={:?} is not understood: {why}", variable.to_string_lossy())
        })?;
        Ok(Self::complete(&given, is_demo))
    }

    /// A demo shows every run, and a daemon only those that failed.
    fn defaults(is_demo: bool) -> Self {
        let drivers = DRIVERS.map(|name| (name, LevelFilter::ERROR));
        let ledger = is_demo.then_some(("ledger", LevelFilter::DEBUG));
        let modules = drivers.into_iter().chain(ledger);
        let modules = modules.map(|(name, level)| (name.to_owned(), level)).collect();
        Self { general: LevelFilter::INFO, modules }
    }

    /// Adds the defaults of everything that the given directives do not name.
    pub(super) fn complete(given: &GivenDirectives, is_demo: bool) -> Self {
        let Self { general, mut modules } = Self::defaults(is_demo);
        modules.retain(|(name, _)| !given.names(name));
        modules.extend_from_slice(&given.modules);
        Self { general: given.general.unwrap_or(general), modules }
    }

    pub(super) fn filter(&self) -> Result<EnvFilter, String> {
        EnvFilter::try_new(self.to_string()).map_err(|error| error.to_string())
    }

    /// Completes the directives of a request while the filter of the start is `self`, and limits what they hide.
    ///
    /// A request may not hide the audit lines, warnings and errors that the filter of the start shows. Otherwise everyone
    /// who may send control requests could turn off the record of these requests. A part of the request that would hide
    /// too much is refused by name; modules that the request does not name keep their minimum level.
    ///
    /// Only the names that occur in the two filters need to be checked, since every other module has the level of one of
    /// them in both.
    pub(super) fn change(&self, given: &GivenDirectives, is_demo: bool) -> Result<Self, String> {
        if let Some(level) = given.general
            && level < self.general.min(LevelFilter::WARN)
        {
            return Err(self.refusal(&level.to_string(), "warnings or errors"));
        }
        for (module, level) in &given.modules {
            if *level < self.minimum(module) {
                let is_audit = module == audit::TARGET;
                let hidden = if is_audit { "control requests" } else { "warnings or errors" };
                return Err(self.refusal(&format!("{module}={level}"), hidden));
            }
        }
        let Self { general, mut modules } = Self::complete(given, is_demo);
        let requested = Self { general, modules: modules.clone() };
        let names = self.modules.iter().map(|(name, _)| name.as_str());
        let names = names.filter(|name| *name != audit::TARGET).chain([audit::TARGET]);
        let minimums = names.map(|name| (name.to_owned(), self.minimum(name)));
        let mut kept: Vec<_> = minimums
            .filter(|(name, minimum)| !given.names(name) && requested.level(name) < *minimum)
            .collect();
        modules.retain(|(name, _)| kept.iter().all(|(other, _)| other != name));
        kept.append(&mut modules);
        Ok(Self { general, modules: kept })
    }

    /// The level of a module: that of the longest prefix of its name, as in `EnvFilter`.
    fn level(&self, module: &str) -> LevelFilter {
        let matching = self.modules.iter().filter(|(name, _)| module.starts_with(name));
        matching.max_by_key(|(name, _)| name.len()).map_or(self.general, |(_, level)| *level)
    }

    /// The minimum level that a change must leave to a module.
    fn minimum(&self, module: &str) -> LevelFilter {
        let level = self.level(module);
        if module == audit::TARGET { level } else { level.min(LevelFilter::WARN) }
    }

    fn refusal(&self, part: &str, hidden: &str) -> String {
        format!(
            "\"{part}\" would hide {hidden} that the daemon logs since its start ({self}); \
             only PUNCTUAL_LOG in its environment can do that"
        )
    }
}

impl fmt::Display for Directives {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.general)?;
        self.modules.iter().try_for_each(|(name, level)| write!(formatter, ",{name}={level}"))
    }
}

/// Parses a level. `LevelFilter` also parses numbers, whose meaning nobody would guess.
fn parse_level(text: &str) -> Result<LevelFilter, String> {
    let is_word = !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphabetic());
    text.parse().ok().filter(|_| is_word).ok_or_else(|| {
        format!(
            "\"{text}\" is not a level; \
             give error, warn, info, debug, trace or off, or MODULE=LEVEL, separated by commas"
        )
    })
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
        Directives::from_variable(false, OsStr::new(given)).map(|directives| directives.to_string())
    }

    #[test]
    fn a_module_that_is_not_named_keeps_its_default() {
        let default = "info,sqlx=error,sqlx_core=error";
        assert_eq!(of("").unwrap(), default);
        assert_eq!(Directives::defaults(true).to_string(), format!("{default},ledger=debug"));
        let expected = "warn,sqlx=error,sqlx_core=error,punctual::store=debug";
        assert_eq!(of(" warn, punctual::store=debug ").unwrap(), expected);
        let shown = of("ledger=debug,sqlx=warn").unwrap();
        assert_eq!(shown, "info,sqlx_core=error,ledger=debug,sqlx=warn");
        assert_eq!(
            of(&of(&shown).unwrap()).unwrap(),
            of(&shown).unwrap(),
            "the shown directives are accepted"
        );
        let max = |given| {
            let directives = Directives::from_variable(false, OsStr::new(given)).unwrap();
            directives.filter().unwrap().max_level_hint()
        };
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

    fn protected(start: &str, given: &str) -> Result<String, String> {
        let given = GivenDirectives::parse(given).unwrap();
        let start = Directives::complete(&GivenDirectives::parse(start).unwrap(), false);
        start.change(&given, false).map(|directives| directives.to_string())
    }

    #[test]
    fn a_part_that_hides_more_than_the_start_is_refused_by_name() {
        for (start, given, named) in [
            ("info", "off", "\"off\" would hide warnings or errors"),
            ("debug", "error", "\"error\" would hide warnings or errors"),
            ("error", "OFF", "\"off\" would hide warnings or errors"),
            ("info", "debug,audit=off", "\"audit=off\" would hide control requests"),
            ("info", "audit=warn", "\"audit=warn\" would hide control requests"),
            ("audit=debug", "audit=info", "\"audit=info\" would hide control requests"),
            ("info", "debug, ledger=error", "\"ledger=error\" would hide"),
            ("info", "punctual::store=off", "\"punctual::store=off\" would hide"),
            ("error,ledger=debug", "ledger=error", "\"ledger=error\" would hide"),
            ("info", "sqlx=off", "\"sqlx=off\" would hide"),
        ] {
            let error = protected(start, given).unwrap_err();
            assert!(error.contains(named) && error.contains("PUNCTUAL_LOG"), "{start}: {error}");
        }
    }

    #[test]
    fn a_module_that_is_not_named_keeps_its_minimum() {
        let drivers = "sqlx=error,sqlx_core=error";
        for (start, given, held) in [
            ("info", "warn", format!("warn,audit=info,{drivers}")),
            ("info", "debug", format!("debug,{drivers}")),
            ("info", "warn,ledger=debug", format!("warn,audit=info,{drivers},ledger=debug")),
            ("audit=debug", "info", format!("info,audit=debug,{drivers}")),
            ("error", "error", format!("error,{drivers}")),
            ("off", "error", format!("error,{drivers}")),
            ("audit=off", "warn", format!("warn,{drivers}")),
            (
                "error,punctual::store=debug",
                "error",
                format!("error,punctual::store=warn,{drivers}"),
            ),
            ("sqlx=debug", "debug", "debug,sqlx=warn,sqlx_core=error".to_owned()),
        ] {
            let shown = protected(start, given).unwrap_or_else(|error| panic!("{start}: {error}"));
            assert_eq!(shown, held, "{start}");
        }
    }
}

//! The part of the log that a request may not hide: the audit lines, warnings and errors that the filter of the start
//! shows. Otherwise everyone who may send control requests could turn off the record of these requests.

use tracing_subscriber::filter::LevelFilter;

use crate::control::audit;

/// Parsed directives: a general level, and levels of modules.
#[derive(Debug)]
struct Directives<'a> {
    general: LevelFilter,
    modules: Vec<(&'a str, LevelFilter)>,
}

impl<'a> Directives<'a> {
    /// Parses directives that are known to be valid.
    fn parse(text: &'a str) -> Self {
        let mut parsed = Self { general: LevelFilter::OFF, modules: Vec::new() };
        for part in text.split(',') {
            match part.split_once('=') {
                Some((module, level)) => parsed.modules.push((module, parse_level(level))),
                None => parsed.general = parse_level(part),
            }
        }
        parsed
    }

    /// The level of a module: that of the longest prefix of its name, as in `EnvFilter`.
    fn level(&self, module: &str) -> LevelFilter {
        let matching = self.modules.iter().filter(|(name, _)| module.starts_with(name));
        matching.max_by_key(|(name, _)| name.len()).map_or(self.general, |(_, level)| *level)
    }

    /// The minimum level that a change must leave to a module. `None` stands for all modules that are not named.
    fn minimum(&self, module: Option<&str>) -> LevelFilter {
        match module {
            Some(audit::TARGET) => self.level(audit::TARGET),
            Some(module) => self.level(module).min(LevelFilter::WARN),
            None => self.general.min(LevelFilter::WARN),
        }
    }
}

fn parse_level(level: &str) -> LevelFilter {
    level.parse().unwrap_or(LevelFilter::OFF)
}

/// Limits a change to what may be hidden. `given` is the text of the request, and `directives` are the complete directives
/// that follow from it. A part of the request that would hide too much is refused by name; modules that the request does
/// not name keep their minimum level.
///
/// Only the names that occur in the two filters need to be checked, since every other module has the level of one of them
/// in both.
pub(super) fn protect(start_text: &str, given: &str, directives: &str) -> Result<String, String> {
    let start = Directives::parse(start_text);
    for part in given.split(',').map(str::trim) {
        let (module, level) = match part.split_once('=') {
            Some((module, level)) => (Some(module), level),
            None => (None, part),
        };
        if parse_level(level) < start.minimum(module) {
            let hidden = match module {
                Some(audit::TARGET) => "control requests",
                _ => "warnings or errors",
            };
            return Err(format!(
                "\"{part}\" would hide {hidden} that the daemon logs since its start ({start_text}); \
                 only PUNCTUAL_LOG in its environment can do that"
            ));
        }
    }
    let requested = Directives::parse(directives);
    let is_named = |module: &str| given.split(',').filter_map(module_of).any(|name| name == module);
    let modules = start.modules.iter().map(|(module, _)| *module);
    let modules = modules.filter(|module| *module != audit::TARGET).chain([audit::TARGET]);
    let minimums = modules.map(|module| (module, start.minimum(Some(module))));
    let kept = minimums
        .filter(|(module, minimum)| !is_named(module) && requested.level(module) < *minimum);
    Ok(with_levels(directives, &kept.collect::<Vec<_>>()))
}

/// The module that a part of the directives is for; `None` for the general level.
fn module_of(part: &str) -> Option<&str> {
    part.trim().split_once('=').map(|(module, _)| module)
}

/// The directives with the levels of some modules replaced or added.
fn with_levels(directives: &str, kept: &[(&str, LevelFilter)]) -> String {
    let is_kept = |part: &str| kept.iter().any(|(module, _)| module_of(part) == Some(*module));
    let mut parts = directives.split(',');
    let general = parts.next().into_iter().map(str::to_owned);
    let own = parts.filter(|part| !is_kept(part)).map(str::to_owned);
    let levels = kept.iter().map(|(module, level)| format!("{module}={level}"));
    general.chain(levels).chain(own).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::logging::directives::directives;

    fn protected(start: &str, given: &str) -> Result<String, String> {
        let complete = |text| directives(false, text).unwrap();
        protect(&complete(start), given, &complete(given))
    }

    #[test]
    fn a_part_that_hides_more_than_the_start_is_refused_by_name() {
        for (start, given, named) in [
            ("info", "off", "\"off\" would hide warnings or errors"),
            ("debug", "error", "\"error\" would hide warnings or errors"),
            ("error", "OFF", "\"OFF\" would hide warnings or errors"),
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

//! What a request may not hide: the audit lines, warnings and errors that the filter of the start shows. Everyone who may
//! send control requests could otherwise switch off the record of them.

use tracing_subscriber::filter::LevelFilter;

use crate::control::audit;

/// Directives, read: a level for everything, and levels for modules.
#[derive(Debug)]
struct Directives<'a> {
    general: LevelFilter,
    of_modules: Vec<(&'a str, LevelFilter)>,
}

impl<'a> Directives<'a> {
    /// Reads directives whose levels are known to be understood.
    fn read(text: &'a str) -> Self {
        let mut read = Self { general: LevelFilter::OFF, of_modules: Vec::new() };
        for part in text.split(',') {
            match part.split_once('=') {
                Some((module, level)) => read.of_modules.push((module, of_word(level))),
                None => read.general = of_word(part),
            }
        }
        read
    }

    /// The level that holds for a module: that of the longest name with which its own begins, as in `EnvFilter`.
    fn level(&self, module: &str) -> LevelFilter {
        let of_it = self.of_modules.iter().filter(|(name, _)| module.starts_with(name));
        of_it.max_by_key(|(name, _)| name.len()).map_or(self.general, |(_, level)| *level)
    }

    /// The least that a change must leave of a module; none stands for all modules that are not named.
    fn floor(&self, module: Option<&str>) -> LevelFilter {
        match module {
            Some(audit::TARGET) => self.level(audit::TARGET),
            Some(module) => self.level(module).min(LevelFilter::WARN),
            None => self.general.min(LevelFilter::WARN),
        }
    }
}

fn of_word(level: &str) -> LevelFilter {
    level.parse().unwrap_or(LevelFilter::OFF)
}

/// The directives that a change makes hold. A part of what is given that would hide too much is refused by name; a module
/// that is not named keeps what it needs of the start.
///
/// It is enough to look at the names in both filters: every other module has the levels of one of them in both.
pub(super) fn held(start_text: &str, given: &str, directives: &str) -> Result<String, String> {
    let start = Directives::read(start_text);
    for part in given.split(',').map(str::trim) {
        let (module, level) = match part.split_once('=') {
            Some((module, level)) => (Some(module), level),
            None => (None, part),
        };
        if of_word(level) < start.floor(module) {
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
    let asked = Directives::read(directives);
    let is_named = |module: &str| given.split(',').filter_map(named).any(|name| name == module);
    let of_start = start.of_modules.iter().map(|(module, _)| *module);
    let of_start = of_start.filter(|module| *module != audit::TARGET);
    let kept = of_start
        .chain([audit::TARGET])
        .filter(|module| !is_named(module) && asked.level(module) < start.floor(Some(module)));
    let kept: Vec<_> = kept.map(|module| (module, start.floor(Some(module)))).collect();
    Ok(with_kept(directives, &kept))
}

/// The module that a part is for.
fn named(part: &str) -> Option<&str> {
    part.trim().split_once('=').map(|(module, _)| module)
}

/// The directives, with the levels of these modules in place of their own.
fn with_kept(directives: &str, kept: &[(&str, LevelFilter)]) -> String {
    let is_kept = |part: &str| kept.iter().any(|(module, _)| named(part) == Some(*module));
    let mut parts = directives.split(',');
    let general = parts.next().into_iter().map(str::to_owned);
    let own = parts.filter(|part| !is_kept(part)).map(str::to_owned);
    let levels = kept.iter().map(|(module, level)| format!("{module}={level}"));
    general.chain(levels).chain(own).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::files::Demo;
    use crate::daemon::logging::level::directives;

    fn held_since(start: &str, given: &str) -> Result<String, String> {
        let read = |text| directives(Demo::No, text).unwrap();
        held(&read(start), given, &read(given))
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
            let error = held_since(start, given).unwrap_err();
            assert!(error.contains(named) && error.contains("PUNCTUAL_LOG"), "{start}: {error}");
        }
    }

    #[test]
    fn what_is_not_named_keeps_what_it_needs_of_the_start() {
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
            let shown = held_since(start, given).unwrap_or_else(|error| panic!("{start}: {error}"));
            assert_eq!(shown, held, "{start}");
        }
    }
}

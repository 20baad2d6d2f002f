//! The arrows between modules, and the size and head of every file, held by a test.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules each module may import. What is not here may import nothing of ours.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // Words: each other, and nothing else.
    ("clock", &[]),
    ("invalid", &["printable"]),
    ("json", &["invalid"]),
    ("printable", &[]),
    ("program", &[]),
    ("user", &[]),
    ("file", &[]),
    ("secret", &["file"]),
    ("output", &["clock"]),
    ("zone", &["clock", "invalid"]),
    ("duration", &["clock", "invalid"]),
    ("instant", &["clock", "duration", "invalid", "zone"]),
    ("trigger", &["clock", "duration", "instant", "invalid", "zone"]),
    ("job", &["clock", "invalid", "json", "secret", "trigger"]),
    ("run", &["clock", "job"]),
    ("filter", &["clock"]),
    ("preview", &["clock", "instant", "invalid", "json", "trigger", "zone"]),
    // Seams: words.
    ("task", &["clock", "invalid", "output", "run"]),
    (
        "executor",
        &[
            "clock",
            "invalid",
            "job",
            "json",
            "output",
            "printable",
            "program",
            "run",
            "secret",
            "task",
            "user",
        ],
    ),
    ("store", &["clock", "filter", "invalid", "job", "output", "run", "trigger", "zone"]),
    // Core: words and seams.
    (
        "scheduler",
        &[
            "clock", "executor", "instant", "invalid", "job", "output", "run", "secret", "store",
            "task", "trigger", "zone",
        ],
    ),
    ("explain", &["clock", "job", "run"]),
    (
        "history",
        &[
            "clock",
            "executor",
            "explain",
            "filter",
            "job",
            "output",
            "run",
            "scheduler",
            "store",
            "task",
        ],
    ),
    // Doors: the core's handles, never its seams.
    (
        "control",
        &[
            "clock",
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
            "server",
            "user",
            "zone",
        ],
    ),
    ("client", &["user"]),
    ("server", &[]),
    (
        "cli",
        &[
            "client",
            "clock",
            "config",
            "duration",
            "filter",
            "instant",
            "invalid",
            "job",
            "json",
            "preview",
            "printable",
            "program",
            "trigger",
            "zone",
        ],
    ),
    ("toutiao", &["client", "clock", "invalid", "json", "server", "task"]),
    // Composition.
    ("config", &["executor", "file", "invalid", "job", "secret", "zone"]),
    (
        "daemon",
        &[
            "cli",
            "client",
            "clock",
            "config",
            "control",
            "executor",
            "filter",
            "history",
            "invalid",
            "job",
            "printable",
            "run",
            "scheduler",
            "secret",
            "server",
            "store",
            "task",
            "toutiao",
            "zone",
        ],
    ),
    ("main", &["cli", "daemon"]),
];

/// Crates that belong to one place.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("sqlx::", &["store/sql/", "toutiao/"]),
    ("redis::", &["toutiao/counters/", "toutiao/settings.rs"]),
    ("reqwest::", &["executor/"]),
    ("rustls::", &["executor/http/", "store/sql/error_text.rs"]),
    ("axum::", &["control/", "server", "toutiao/api/"]),
    ("clap::", &["cli/"]),
    ("clap_complete::", &["cli/"]),
    ("clap_mangen::", &["cli/"]),
    ("unicode_width::", &["cli/"]),
    ("anyhow::", &["daemon/"]),
    ("toml::", &["config/"]),
    ("jiff::", &["zone"]),
    ("tokio::process", &["executor/"]),
];

/// Lines of a source file.
const LINES_MAX: usize = 600;

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 40, "the sources were found");
    files.sort();
    files
}

/// The module that a file belongs to: `store` for `store/sql/row.rs`.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Modules that a text imports, by its `crate::` and `punctual::` paths.
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for prefix in ["crate::", "punctual::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            let list = rest.strip_prefix('{').map(|rest| rest.split('}').next().unwrap());
            for path in
                list.unwrap_or(rest).split(',').take(if list.is_some() { usize::MAX } else { 1 })
            {
                let name: String = path
                    .trim()
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let own = module(&file).to_owned();
        if own == "lib" {
            continue;
        }
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == own).map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("{file}: module {own} is not in the table"));
        for import in imports(&text) {
            if import != own && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{file}: {own} -> {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden imports:\n{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_every_form_of_import() {
    let text = "use crate::{job::Job, run};\nlet x = crate::store::sql::y();\n// crate::comment::z\nuse punctual::cli;";
    let expected = ["cli", "job", "run", "store"].map(str::to_owned);
    assert_eq!(imports(text), BTreeSet::from(expected));
}

/// Whether a line of code names the crate: as a word of its own, and not in a comment.
fn uses(line: &str, name: &str) -> bool {
    let line = line.trim_start();
    let begins =
        |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    !line.starts_with("//") && line.match_indices(name).any(|(at, _)| begins(at))
}

#[test]
fn a_crate_is_used_where_it_belongs() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (name, places) in ONLY_IN {
            if text.lines().any(|line| uses(line, name))
                && !places.iter().any(|place| file.starts_with(place))
            {
                wrong.push(format!("{file} uses {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_short_and_says_why_it_exists() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{file} has {lines} lines");
        assert!(text.starts_with("//!"), "{file} does not begin with its reason");
    }
}

//! The rules of the source tree that a compiler does not check: which module may import which,
//! which crate belongs where, unique names, the size and head of each file, and plain words.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on ends")]

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{Source, cycles, definitions, files, graph, imports};

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
    ("toml::", &["config/", "cli/edit/"]),
    ("jiff::", &["zone"]),
    ("tokio::process", &["executor/"]),
];

/// Lines of a source file. The subject decides the size; a file of more has two of them.
const LINES_MAX: usize = 600;

/// Type names that may be defined more than once: the idiom of a module's one error.
const SHARED_NAMES: &[&str] = &["Error"];

/// Words that a reader of today stumbles over, or that say less than the term of the field.
const BANNED_WORDS: &[&str] = &[
    "whoever",
    "whom",
    "whomsoever",
    "heed",
    "heeds",
    "heeded",
    "anew",
    "broken off",
    "breaks off",
    "so many",
    "is told of",
    "are told of",
    "to be had",
];

fn sources() -> Vec<Source> {
    let files = files("src", &[".rs"]);
    assert!(files.len() > 40, "the sources were found");
    files
}

fn document() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap()
}

/// The words in backticks of a text.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What each module may import, as the table of modules in the documentation says; `None` means
/// every module.
fn permitted(document: &str) -> BTreeMap<String, Option<BTreeSet<String>>> {
    let (_, section) = document.split_once("\n## Modules\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let read = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let imports = cells.last().unwrap();
        let imports = (!imports.contains("everything")).then(|| quoted(imports));
        (quoted(cells[0]).pop_first().unwrap(), imports)
    };
    rows.map(read).collect()
}

#[test]
fn modules_import_what_the_documentation_permits() {
    let permitted = permitted(&document());
    let mut wrong = BTreeSet::new();
    let mut modules = BTreeSet::new();
    for source in sources().iter().filter(|source| source.file != "lib.rs") {
        let own = source.module().swap_remove(0);
        modules.insert(own.clone());
        let Some(allowed) = permitted.get(&own) else {
            wrong.insert(format!("{}: the table does not have {own}", source.file));
            continue;
        };
        for import in imports(&source.code()) {
            let is_own_crate = ["crate", "punctual"].contains(&import.path[0].as_str());
            let Some(target) = import.path.get(1).filter(|_| is_own_crate) else { continue };
            let is_allowed = allowed.as_ref().is_none_or(|allowed| allowed.contains(target));
            if *target != own && !is_allowed {
                wrong.insert(format!("{} -> {target}", source.file));
            }
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "forbidden imports:\n{}", wrong.join("\n"));
    let gone: Vec<_> = permitted.keys().filter(|module| !modules.contains(*module)).collect();
    assert!(gone.is_empty(), "the table has modules that do not exist: {gone:?}");
}

#[test]
fn the_table_of_modules_has_no_cycle() {
    let permitted = permitted(&document());
    let path = |name: &String| vec![name.clone()];
    let arrows = permitted.iter().map(|(module, imports)| {
        let imports = imports.iter().flatten().map(path).collect();
        (path(module), imports)
    });
    let cycles = cycles(&arrows.collect());
    assert!(cycles.is_empty(), "{cycles:?}");
}

#[test]
fn no_files_import_each_other() {
    let cycles = cycles(&graph(&sources()));
    let shown: Vec<String> = cycles
        .iter()
        .map(|cycle| cycle.iter().map(|file| file.join("/")).collect::<Vec<_>>().join(", "))
        .collect();
    assert!(shown.is_empty(), "files that import each other:\n{}", shown.join("\n"));
}

#[test]
fn a_type_name_is_defined_once() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        let names = definitions(&source.code(), &["struct", "enum", "trait", "union"]);
        // A word of a text, such as "union all", is no name.
        for name in names.into_iter().filter(|name| name.starts_with(char::is_uppercase)) {
            places.entry(name).or_default().push(source.file.clone());
        }
    }
    places.retain(|name, files| files.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    assert!(places.is_empty(), "defined more than once: {places:#?}");
}

#[test]
fn the_text_is_in_words_of_today() {
    let folders = [("src", ".rs"), ("tests", ".rs"), ("benches", ".rs"), ("docs", ".md")];
    let mut wrong = Vec::new();
    for (folder, ending) in folders {
        for source in files(folder, &[ending]) {
            if folder == "tests" && source.file.starts_with("architecture/") {
                continue;
            }
            for (number, line) in source.text.lines().enumerate() {
                // The option of systemctl has an old name.
                let line = line.to_lowercase().replace("--kill-whom", "");
                for word in BANNED_WORDS.iter().filter(|word| has_words(&line, word)) {
                    wrong.push(format!("{folder}/{}:{}: {word}", source.file, number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a line has this word or phrase, not as a part of a longer word.
fn has_words(line: &str, phrase: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric();
    line.match_indices(phrase).any(|(at, _)| {
        !line[..at].ends_with(is_letter) && !line[at + phrase.len()..].starts_with(is_letter)
    })
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
    for Source { file, text } in sources() {
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
    for Source { file, text } in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{file} has {lines} lines");
        assert!(text.starts_with("//!"), "{file} does not begin with its reason");
    }
}

#[test]
fn tests_are_modules_without_exceptions_for_code_that_is_not_used() {
    let mut wrong = Vec::new();
    for source in files("tests", &[".rs"]) {
        for exception in ["#[path", "dead_code"] {
            if !source.file.starts_with("architecture/") && source.text.contains(exception) {
                wrong.push(format!("{}: {exception}", source.file));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the reading of sources is tested with.
mod reading {
    use super::*;

    fn source(file: &str, text: &str) -> Source {
        Source { file: file.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn every_form_of_import_is_seen() {
        let text = "use crate::{job::Job, run::{self, id::Id as RunId}};\npub(crate) use super::a::B;\nlet x = crate::store::sql::y();\nlet z = punctual::cli::run;";
        let shown: Vec<String> = imports(text)
            .iter()
            .map(|import| {
                let kind = if import.is_reexport { "re-exports " } else { "" };
                format!("{kind}{} as {}", import.path.join("::"), import.name)
            })
            .collect();
        let expected = [
            "crate::job::Job as Job",
            "crate::run::self as self",
            "crate::run::id::Id as RunId",
            "re-exports super::a::B as B",
            "crate::store::sql::y as y",
            "punctual::cli::run as run",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn comments_and_unit_tests_are_not_code() {
        let text = "// crate::a\nstruct One;\n#[cfg(test)]\nmod tests {\nstruct Two;\n}";
        let code = source("a.rs", text).code();
        assert_eq!(definitions(&code, &["struct", "enum"]), ["One"]);
    }

    #[test]
    fn files_that_import_each_other_through_a_re_export_are_a_cycle() {
        let sources = [
            source("a/mod.rs", "mod b;\nmod c;\npub use b::B;"),
            source("a/b.rs", "use super::c::C;\npub struct B;"),
            source("a/c.rs", "use super::B;\npub struct C;"),
            source("a/d.rs", "use super::B;"),
        ];
        let cycles = cycles(&graph(&sources));
        let paths = ["b", "c"].map(|name| vec!["a".to_owned(), name.to_owned()]);
        assert_eq!(cycles, BTreeSet::from([BTreeSet::from(paths)]));
    }

    #[test]
    fn a_re_export_alone_is_no_cycle() {
        let sources = [
            source("a/mod.rs", "mod b;\npub use b::B;\npub struct A;"),
            source("a/b.rs", "use super::A;\npub struct B;"),
        ];
        assert_eq!(cycles(&graph(&sources)), BTreeSet::new());
    }

    #[test]
    fn a_banned_word_is_a_word_of_its_own() {
        assert!(has_words("to whom it may", "whom"));
        assert!(!has_words("the anewton", "anew"));
    }
}

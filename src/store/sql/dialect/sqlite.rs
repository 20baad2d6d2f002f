//! `SQLite`, in a file.

use super::Dialect;

const MIGRATIONS: &[(&str, &str)] = &[
    ("init", include_str!("../../../../migrations/sqlite/0001_init.sql")),
    ("overlap", include_str!("../../../../migrations/sqlite/0002_overlap.sql")),
    ("settings", include_str!("../../../../migrations/sqlite/0003_settings.sql")),
    ("nodes", include_str!("../../../../migrations/sqlite/0004_nodes.sql")),
    ("execution", include_str!("../../../../migrations/sqlite/0005_execution.sql")),
    ("finished jobs", include_str!("../../../../migrations/sqlite/0006_finished_jobs.sql")),
    ("crashes", include_str!("../../../../migrations/sqlite/0007_crashes.sql")),
    ("sources", include_str!("../../../../migrations/sqlite/0008_sources.sql")),
    ("requester", include_str!("../../../../migrations/sqlite/0009_requester.sql")),
    ("failing", include_str!("../../../../migrations/sqlite/0010_failing.sql")),
    ("policy", include_str!("../../../../migrations/sqlite/0011_policy.sql")),
    ("pause", include_str!("../../../../migrations/sqlite/0012_pause.sql")),
    ("lists", include_str!("../../../../migrations/sqlite/0013_lists.sql")),
];

#[derive(Debug, Clone, Copy)]
pub(crate) struct Sqlite;

impl Dialect for Sqlite {
    fn migrations(&self) -> &'static [(&'static str, &'static str)] {
        MIGRATIONS
    }

    fn existing_tables(&self, names: &str) -> String {
        format!("select name from sqlite_schema where name in ({names}) order by name")
    }

    fn integer_type(&self) -> &'static str {
        "integer"
    }

    fn position_in(&self, column: &str) -> String {
        format!("instr({column}, ")
    }
}

//! A daemon whose database user may not change the schema, and `punctual migrate`, which changes it as another user.

use serde_json::json;

use super::refused::{is_refused, with_user};
use super::store;
use support::servers::Server;
use support::servers::mariadb::MariaDb;
use support::servers::postgres::Postgres;
use support::{Home, run_to_end, text};

/// The variable that gives `punctual migrate` the URL of the database.
const VARIABLE: &str = "PUNCTUAL_MIGRATE_URL";

/// A daemon with this store does its work, also after a restart.
async fn works(url: &str) {
    let home = Home::new(&store(url));
    for _ in 0..2 {
        let (daemon, client) = (home.start(), home.client());
        let job = json!({"id": "a", "trigger": {"type": "interval", "days": 1}, "replace_existing": true,
            "task": {"type": "command", "argv": ["echo", "done"]}});
        client.add(&job).await.unwrap();
        assert_eq!(text(&run_to_end(&client, "a").await, "state"), "succeeded");
        client.pause("a").await.unwrap();
        client.pause_all().await.unwrap();
        client.resume_all().await.unwrap();
        client.ready().await.unwrap();
        client.remove("a").await.unwrap();
        assert!(daemon.stop().success());
    }
}

/// Runs `punctual migrate` with the URL in its place in the environment.
fn migrate(url: &str, more: &[&str]) -> (i32, String) {
    let mut home = Home::new("");
    home.set(VARIABLE, url);
    let output = home.run(&[&["migrate"], more].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_postgres_user_who_may_not_change_the_schema_is_enough_for_the_daemon() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let url = server.database("jobs");
    for statement in [
        "create role owner login",
        "create role app login",
        "create schema punctual authorization owner",
        "alter role owner in database jobs set search_path = punctual",
        "alter role app in database jobs set search_path = punctual",
        "grant usage on schema punctual to app",
        "alter default privileges for role owner in schema punctual \
         grant select, insert, update, delete on tables to app",
    ] {
        server.sql("jobs", statement);
    }
    let owned =
        "select count(*) from pg_tables where schemaname = 'punctual' and tableowner = 'owner'";
    migrates(&url).await;
    assert_ne!(server.sql("jobs", owned).trim(), "0");
    server.sql("jobs", "revoke all on all tables in schema punctual from app");
    is_refused(&with_user(&url, "app"), "it needs select, insert, update and delete on all tables");
    server.sql("jobs", "grant select on all tables in schema punctual to app");
    is_refused(&with_user(&url, "app"), "permission denied for table");
    server.sql(
        "jobs",
        "grant select, insert, update, delete on all tables in schema punctual to app",
    );
    works(&with_user(&url, "app")).await;
}

#[tokio::test]
async fn a_mariadb_user_who_may_not_change_the_schema_is_enough_for_the_daemon() {
    let Some(server) = Server::<MariaDb>::start() else { return };
    let url = server.database("jobs");
    for statement in [
        "create user owner",
        "create user app",
        "grant all on jobs.* to owner",
        "grant select, insert, update, delete on jobs.* to app",
    ] {
        server.sql("jobs", statement);
    }
    migrates(&url).await;
    server.sql("jobs", "revoke insert, update, delete on jobs.* from app");
    is_refused(&with_user(&url, "app"), "command denied to user 'app'");
}

/// Goes from an empty database to one that `app` works with, and `owner` changes.
async fn migrates(url: &str) {
    let (owner, app) = (with_user(url, "owner"), with_user(url, "app"));
    is_refused(&app, "the tables of punctual are not there, and its user may not change it");
    is_refused(&app, "run `punctual migrate` as a user who may");
    let (code, said) = migrate(&app, &["--check"]);
    assert!(code == 1 && said.contains("the tables of punctual do not exist"), "{said}");
    let (code, said) = migrate(&app, &[]);
    assert!(code == 1 && said.contains("as a user who may"), "{said}");

    // All at once: one of them does it, and all succeed.
    let mut homes: Vec<Home> = (0..4).map(|_| Home::new(&store(&owner))).collect();
    for home in &mut homes {
        home.set(VARIABLE, "");
    }
    let spawn = |home: &Home| {
        let mut command = home.command(&["migrate", "--config", "jobs.toml"]);
        command.env_remove(VARIABLE).stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let started: Vec<_> = homes.iter().map(spawn).collect();
    let mut said: Vec<String> = Vec::new();
    for process in started {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        said.push(String::from_utf8(output.stdout).unwrap());
    }
    let created = said.iter().filter(|line| line.contains("created the tables")).count();
    let idle = said.iter().filter(|line| line.contains("nothing to do")).count();
    assert_eq!((created, idle), (1, 3), "{said:?}");
    assert_eq!(migrate(&app, &["--check"]).0, 0, "to look is allowed");
    works(&app).await;
}

/// The URL in a file, as a secret is handed over.
#[test]
fn a_file_is_migrated_and_its_daemon_is_not_disturbed() {
    let home = Home::new("");
    std::fs::write(home.path().join("url"), "sqlite://other.db\n").unwrap();
    let other = home.path().canonicalize().unwrap().join("other.db");
    for more in [&["--check"][..], &[]] {
        let (code, said) = home.fails(&[&["migrate", "--url-file", "url"], more].concat());
        let missing = format!("there is no file {}: a daemon creates", other.display());
        assert!(code == 1 && said.contains(&missing), "{said}");
        assert!(!other.exists(), "only a daemon makes its file");
    }
    std::fs::write(&other, "").unwrap();
    let check = home.run(&["migrate", "--check", "--url-file", "url"]);
    assert_eq!(check.status.code(), Some(1));
    assert_eq!(std::fs::read(&other).unwrap(), b"", "a look changes nothing");
    let done = home.json(&["migrate", "--url-file", "url"]);
    assert_eq!((&done["found_version"], &done["changed"]), (&json!(0), &json!(true)));
    assert_eq!(done["store"], format!("sqlite://{}", other.display()));
    let again = home.json(&["migrate", "--url-file", "url"]);
    assert_eq!(
        (&again["found_version"], &again["changed"]),
        (&done["needed_version"], &json!(false))
    );
    home.start().stop();
    let daemon = home.start();
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert_eq!(log.matches("created a new store path=").count(), 1, "{log}");
    assert_eq!(home.run(&["migrate", "--check"]).status.code(), Some(0));
    let (code, said) = home.fails(&["migrate"]);
    assert!(code == 1 && said.contains("in use by another daemon"), "{said}");
    let (code, said) = home.fails(&["migrate", "--url", "redis://me:secret@host"]);
    assert!(
        code == 2 && said.contains("url: must begin with") && !said.contains("secret"),
        "{said}"
    );
    drop(daemon);
}

/// A start refuses a database in which another program has a table with a name of ours.
fn is_occupied(url: &str) {
    let said = "it has tables of another program, with names that punctual needs (jobs)";
    is_refused(url, said);
    for arguments in [&["--check"][..], &[]] {
        let (code, complaint) = migrate(url, arguments);
        assert!(code == 1 && complaint.contains(said), "{complaint}");
    }
}

#[tokio::test]
async fn tables_of_another_program_are_refused_and_nothing_is_changed() {
    const TABLE: &str = "create table jobs (title text)";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.db");
    let sqlite = rusqlite::Connection::open(&file).unwrap();
    sqlite.execute_batch(TABLE).unwrap();
    is_occupied(&format!("sqlite://{}", file.display()));
    let tables = |sqlite: &rusqlite::Connection| -> i64 {
        sqlite.query_row("select count(*) from sqlite_schema", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(tables(&sqlite), 1);
    if let Some(server) = Server::<Postgres>::shared() {
        let url = server.database("occupied");
        server.sql("occupied", TABLE);
        is_occupied(&url);
        let tables = "select count(*) from pg_tables where schemaname = 'public'";
        assert_eq!(server.sql("occupied", tables).trim(), "1");
    }
    if let Some(server) = Server::<MariaDb>::shared() {
        let url = server.database("occupied");
        server.sql("occupied", TABLE);
        is_occupied(&url);
        let tables =
            "select count(*) from information_schema.tables where table_schema = database()";
        assert_eq!(server.sql("occupied", tables).trim(), "1");
    }
}

/// The first version of the tables, as a program of that time has left them.
const FIRST: &str = include_str!("../../../../migrations/postgres/0001_init.sql");

#[tokio::test]
async fn an_older_schema_is_brought_to_this_version_and_a_newer_one_is_refused() {
    use std::str::FromStr;

    use sqlx::migrate::{Migration, MigrationType, Migrator};
    use sqlx::{Connection, PgConnection, SqlStr};

    let Some(server) = Server::<Postgres>::shared() else { return };
    let url = server.database("older");
    server.sql("older", "create role reader login");
    let options = sqlx::postgres::PgConnectOptions::from_str(&url).unwrap();
    let mut old = PgConnection::connect_with(&options).await.unwrap();
    let first =
        Migration::new(1, "init".into(), MigrationType::Simple, SqlStr::from_static(FIRST), false);
    Migrator::with_migrations(vec![first]).run(&mut old).await.unwrap();
    old.close().await.unwrap();
    server.sql(
        "older",
        "grant select, insert, update, delete on all tables in schema public to reader",
    );

    let reader = with_user(&url, "reader");
    is_refused(&reader, "its schema has version 1 where this version of punctual needs");
    let (code, said) = migrate(&reader, &["--check"]);
    assert!(code == 1 && said.contains("has schema version 1"), "{said}");
    let (code, said) = migrate(&url, &[]);
    assert!(code == 0 && said.contains("migrated the schema from version 1 to"), "{said}");
    assert_eq!(migrate(&url, &["--check"]).0, 0);
    server
        .sql("older", "insert into _sqlx_migrations values (99, 'later', now(), true, '\\x00', 0)");
    for arguments in [&["--check"][..], &[]] {
        let (code, said) = migrate(&url, arguments);
        assert!(code == 1 && said.contains("a newer version of punctual (schema 99"), "{said}");
    }
    is_refused(&url, "a newer version of punctual (schema 99");
}

#[tokio::test]
async fn a_schema_of_its_own_keeps_the_tables_apart_in_a_shared_database() {
    let Some(server) = Server::<Postgres>::shared() else { return };
    let url = server.database("shared_with_others");
    server.sql("shared_with_others", "create table jobs (title text)");
    server.sql(
        "shared_with_others",
        "create table _sqlx_migrations (version bigint primary key, description text not null, installed_on timestamptz \
         not null default now(), success boolean not null, checksum bytea not null, execution_time bigint not null); \
         insert into _sqlx_migrations values (20260101, 'first', now(), true, '\\x00', 0)",
    );
    is_refused(&url, "belongs to another program");
    let own = format!("{url}?options=-csearch_path%3Dpunctual");
    is_refused(&own, "no schema has been selected to create in");
    server.sql("shared_with_others", "create schema punctual");
    works(&own).await;
    let tables = "select count(*) from pg_tables where schemaname = 'punctual' and tablename in ('jobs', 'runs')";
    assert_eq!(server.sql("shared_with_others", tables).trim(), "2");
    assert_eq!(server.sql("shared_with_others", "select count(*) from public.jobs").trim(), "0");
}

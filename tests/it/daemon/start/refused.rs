//! A permanent fault ends a start with one clear sentence; a temporary one is waited for.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::{store, waits};
use support::Home;
use support::servers::mariadb::MariaDb;
use support::servers::postgres::Postgres;
use support::servers::{Kind, Server};

/// What libraries and servers add for their developers.
const NOISE: [&str; 4] = ["at line", "docs.rs", "os error", "pool timed out"];

/// A start on a store at this URL is refused, with a sentence that says this.
pub(crate) fn is_refused(url: &str, expected: &str) {
    let home = Home::new(&store(url));
    let code = home.spawn(&[]).ended().code();
    let log = std::fs::read_to_string(home.log()).unwrap();
    assert_eq!(code, Some(2), "systemd does not try again: {log}");
    assert!(log.contains(expected), "{url}: {log}");
    assert!(NOISE.iter().all(|noise| !log.contains(noise)), "{log}");
}

fn is_accepted(url: &str) {
    let daemon = Home::new(&store(url)).start();
    assert!(daemon.stop().success());
}

/// An authority that no system trusts.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Starts the server again with a certificate of this authority, for this name and until this year.
fn certify<K: Kind>(
    server: &Server<K>,
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    last_year: i32,
) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    server.certify(&certificate.pem(), &key.serialize_pem());
    server.stop();
    server.start_again();
}

/// How the URL of a kind of server names its certificate's check.
struct Words {
    verify: &'static str,
    require: &'static str,
    authority: &'static str,
}

#[tokio::test]
async fn postgres_with_a_certificate_that_cannot_be_accepted_is_refused() {
    let words = Words {
        verify: "sslmode=verify-full",
        require: "sslmode=require",
        authority: "sslrootcert",
    };
    certificates::<Postgres>(&words);
}

#[tokio::test]
async fn mariadb_with_a_certificate_that_cannot_be_accepted_is_refused() {
    let words = Words {
        verify: "ssl-mode=VERIFY_IDENTITY",
        require: "ssl-mode=REQUIRED",
        authority: "ssl-ca",
    };
    certificates::<MariaDb>(&words);
}

fn certificates<K: Kind>(words: &Words) {
    let Some(server) = Server::<K>::start() else { return };
    let url = server.database("jobs");
    let Words { verify, require, authority: option } = words;
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let trusting = format!("{url}?{verify}&{option}={}", file.display());

    // MariaDB makes a certificate of its own if it is given none.
    if K::NAME == "PostgreSQL" {
        is_refused(&format!("{url}?{require}"), "server does not support TLS");
    }
    certify(&server, &authority, "127.0.0.1", 2100);
    is_accepted(&trusting);
    is_refused(&format!("{url}?{verify}"), "issuer that is not trusted here");
    is_refused(
        &format!("{url}?{verify}&{option}=/no/such/file"),
        "a file or socket that the URL names is not there",
    );
    certify(&server, &authority, "db.example", 2100);
    is_refused(&trusting, "the server's certificate is for another host");
    certify(&server, &authority, "127.0.0.1", 2022);
    is_refused(&trusting, "the server's certificate has expired");
}

/// The URL with another user and password.
pub(crate) fn with_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_, place) = rest.split_once('@').unwrap();
    format!("{scheme}://{user}@{place}")
}

#[tokio::test]
async fn postgres_that_does_not_let_this_user_in_is_refused() {
    let Some(server) = Server::<Postgres>::start() else { return };
    let url = server.database("jobs");
    server.sql("jobs", "create role secured login password 'right-one'");
    let rules = "host all secured 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(server.folder().join("data/pg_hba.conf"), rules).unwrap();
    // A reload would take effect a moment after it was asked for.
    server.stop();
    server.start_again();
    is_refused(
        &with_user(&url, "secured:wrong-one"),
        "password authentication failed for user \"secured\"",
    );
    is_refused(&with_user(&url, "nobody"), "role \"nobody\" does not exist");
    is_refused(&url.replace("jobs", "nowhere"), "database \"nowhere\" does not exist");
}

#[tokio::test]
async fn mariadb_that_does_not_let_this_user_in_is_refused() {
    let Some(server) = Server::<MariaDb>::start() else { return };
    let url = server.database("jobs");
    server.sql("jobs", "create user secured identified by 'right-one'");
    is_refused(&with_user(&url, "secured:wrong-one"), "Access denied for user 'secured'");
    is_refused(&with_user(&url, "nobody"), "Access denied for user 'nobody'");
    is_refused(&with_user(&url, "secured:right-one"), "to database 'jobs'");
    is_refused(&url.replace("jobs", "nowhere"), "Unknown database 'nowhere'");
}

#[tokio::test]
async fn postgres_without_a_free_connection_is_waited_for() {
    let Some(server) = Server::<Postgres>::shared() else { return };
    let url = server.database("crowded");
    server.sql("crowded", "alter database crowded connection limit 0");
    server.sql("postgres", "create role visitor login");
    server.sql("postgres", "grant all on database crowded to visitor");
    let home = Home::new(&store(&with_user(&url, "visitor")));
    let mut daemon = home.spawn(&[]);
    let status = waits(&mut daemon);
    assert!(status.ends_with("too many connections for database \"crowded\""), "{status}");
    assert!(daemon.stop().success());
}

#[tokio::test]
async fn mariadb_without_a_free_connection_is_waited_for() {
    let Some(server) = Server::<MariaDb>::start() else { return };
    let url = server.database("crowded");
    server.sql("crowded", "set global max_connections = 10");
    server.sql("crowded", "create user visitor");
    server.sql("crowded", "grant all on crowded.* to visitor");
    let visitor = with_user(&url, "visitor");
    let options: MySqlConnectOptions = visitor.parse().unwrap();
    // The connections of the clients before are not counted any more a moment after they were closed.
    let mut held = Vec::new();
    while held.len() < 10 {
        held.extend(options.connect().await.ok());
    }
    assert!(options.connect().await.is_err(), "there is one more than that");
    let home = Home::new(&store(&visitor));
    let mut daemon = home.spawn(&[]);
    let status = waits(&mut daemon);
    assert!(status.contains("Too many connections"), "{status}");
    for connection in held {
        connection.close().await.unwrap();
    }
    daemon.wait_for("READY=1");
    assert!(daemon.stop().success());
}

#[test]
fn a_file_that_no_waiting_makes_a_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("letter"), "no database at all\n".repeat(100)).unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    std::fs::write(path("linked"), "").unwrap();
    std::fs::hard_link(path("linked"), path("link")).unwrap();
    for (name, why) in [
        ("letter", "letter: file is not a database"),
        ("folder", "folder: Is a directory"),
        ("linked", "linked has more than one name (hard links)"),
        ("letter/below", "letter: "),
    ] {
        is_refused(&format!("sqlite://{}", path(name).display()), why);
    }
}

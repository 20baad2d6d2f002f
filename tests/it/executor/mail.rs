//! Mails of hooks: their text, when they are sent, and what happens to a mail that the server does not accept.

use std::sync::Arc;

use punctual::client::Client;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use support::definitions::{by_hand, with};
use support::smtp::{MailServer, Tls};
use support::{Home, ended, ledger, run_to_end, text};
use tokio_rustls::TlsAcceptor;

const TAKEN: &str = "250 taken as 42\r\n";

fn config(server: &MailServer) -> String {
    format!(
        "[mail]\nserver = \"127.0.0.1\"\nport = {}\nfrom = \"Punctual <p@example.org>\"\n",
        server.port
    )
}

async fn add(client: &Client, id: &str, task: Value, more: Value) {
    let job = with(by_hand(id, task), json!({"executor": "processpool"}));
    let job = with(job, more);
    client.add(&job).await.unwrap();
}

/// The only hook run of a job, once it has ended.
async fn hook_run(client: &Client, job: &str, cause: &str) -> Value {
    let runs = ledger(client, job).await;
    let run = runs.iter().find(|run| run["cause"] == cause).unwrap();
    ended(client, text(run, "id")).await
}

#[tokio::test]
async fn a_mail_of_a_failure_says_what_happened_and_ends_with_the_output() {
    let mut server = MailServer::start(Tls::None, |_| TAKEN).await;
    let home = Home::new(&config(&server));
    let _daemon = home.start();
    let client = home.client();
    let task = json!({"type": "command", "shell": "echo first; echo 'Größe: 0' >&2; exit 3"});
    let mail = json!({"type": "mail", "to": ["Ops <ops@example.org>", "root@localhost"]});
    add(&client, "backup", task, json!({"on_failure": mail})).await;
    let run = run_to_end(&client, "backup").await;
    let received = server.received().await;
    assert_eq!(received.commands[1], "MAIL FROM:<p@example.org>");
    assert_eq!(received.commands[2..4], ["RCPT TO:<ops@example.org>", "RCPT TO:<root@localhost>"]);
    assert_eq!(received.header("From"), "Punctual <p@example.org>");
    assert_eq!(received.header("Auto-Submitted"), "auto-generated");
    let subject = received.header("Subject");
    assert!(subject.ends_with("job backup failed: exit code 3"), "{subject}");
    assert!(received.header("Date").contains("20"), "{}", received.mail);
    let hook = hook_run(&client, "backup", "on_failure").await;
    assert!(received.header("Message-ID").contains(text(&hook, "id")));
    assert_eq!(
        (text(&hook, "state"), &hook["result"]["answer"]),
        ("succeeded", &json!("250 taken as 42"))
    );
    // The text is encoded, since it has letters beyond ASCII; what is ASCII can be read.
    let said = received.text();
    for part in ["Exit code:   3", text(&run, "id"), "first", "punctual logs"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("Gr=C3=B6=C3=9Fe: 0"), "{said}");
}

#[tokio::test]
async fn an_internationalised_domain_is_sent_to_and_a_local_part_needs_a_server_for_it() {
    let mut server = MailServer::start(Tls::None, |_| TAKEN).await;
    let home = Home::new(&config(&server));
    let _daemon = home.start();
    let client = home.client();
    let mail = json!({"type": "mail", "to": ["Anna <anna@bücher.example>"]});
    add(&client, "domain", mail.clone(), json!({})).await;
    assert_eq!(client.job("domain").await.unwrap()["task"], mail, "it is shown as it was given");
    assert_eq!(text(&run_to_end(&client, "domain").await, "state"), "succeeded");
    let received = server.received().await;
    assert_eq!(received.commands[2], "RCPT TO:<anna@xn--bcher-kva.example>");
    assert_eq!(received.header("To"), "Anna <anna@xn--bcher-kva.example>");
    // The server of this test does not offer SMTPUTF8: to try again would not help.
    let mail = json!({"type": "mail", "to": ["jürgen@example.org"]});
    add(&client, "local", mail, json!({"retry": {"max_attempts": 5}})).await;
    let run = run_to_end(&client, "local").await;
    let error = text(&run, "error");
    assert!(error.contains("SMTPUTF8") && error.contains("\"jürgen@example.org\""), "{error}");
    assert_eq!((text(&run, "state"), &run["attempt"]), ("failed", &json!(1)));
    assert!(server.is_quiet());
}

#[tokio::test]
async fn one_outage_is_one_mail_and_its_end_another_one_also_over_a_restart() {
    let mut server = MailServer::start(Tls::None, |_| TAKEN).await;
    let home = Home::new(&config(&server));
    let daemon = home.start();
    let client = home.client();
    let works = home.path().join("works");
    let task = json!({"type": "command", "argv": ["/usr/bin/test", "-e", works]});
    let mail = |subject: &str| json!({"type": "mail", "to": ["a@example.org"], "subject": subject});
    let hooks = json!({
        "on_failure": mail("down"), "on_failure_once": true, "on_recovery": mail("up"),
    });
    add(&client, "a", task, hooks).await;
    run_to_end(&client, "a").await;
    assert_eq!(server.received().await.header("Subject"), "down");
    run_to_end(&client, "a").await;
    daemon.stop();
    let _daemon = home.start();
    run_to_end(&client, "a").await;
    std::fs::write(&works, "").unwrap();
    run_to_end(&client, "a").await;
    assert_eq!(server.received().await.header("Subject"), "up", "three failures were one mail");
    run_to_end(&client, "a").await;
    std::fs::remove_file(&works).unwrap();
    run_to_end(&client, "a").await;
    assert_eq!(server.received().await.header("Subject"), "down", "a new outage");
    assert!(server.is_quiet());
}

#[tokio::test]
async fn a_mail_that_is_put_off_is_sent_again_later_and_one_that_is_refused_is_not() {
    let answer =
        |to: &str| if to.contains("later") { "451 try later\r\n" } else { "550 no such user\r\n" };
    let mut server = MailServer::start(Tls::None, answer).await;
    let home = Home::new(&config(&server));
    let _daemon = home.start();
    let client = home.client();
    let fails = json!({"type": "command", "argv": ["/bin/false"]});
    let mail = |to: &str| json!({"on_failure": {"type": "mail", "to": [to]}});
    add(&client, "refused", fails.clone(), mail("nobody@example.org")).await;
    run_to_end(&client, "refused").await;
    server.received().await;
    let run = hook_run(&client, "refused", "on_failure").await;
    let why = format!("127.0.0.1:{}: permanent error (550): no such user", server.port);
    assert_eq!((text(&run, "state"), text(&run, "error")), ("failed", why.as_str()));
    add(&client, "later", fails, mail("later@example.org")).await;
    run_to_end(&client, "later").await;
    server.received().await;
    let runs = ledger(&client, "later").await;
    let hook = runs.iter().find(|run| run["cause"] == "on_failure").unwrap();
    let waits = json!({"state": "pending", "attempt": 2});
    loop {
        let run = client.run_by_id(text(hook, "id")).await.unwrap();
        if run["attempt"] == waits["attempt"] {
            assert_eq!(run["state"], waits["state"], "{run}");
            break;
        }
    }
}

#[tokio::test]
async fn the_name_and_output_of_a_job_cannot_add_a_header() {
    let mut server = MailServer::start(Tls::None, |_| TAKEN).await;
    let home = Home::new(&config(&server));
    let _daemon = home.start();
    let client = home.client();
    let mail = json!({"type": "mail", "to": ["a@example.org"]});
    let task = json!({"type": "builtin", "name": "fail", "args": {"message": "x\r\nBcc: evil@example.org\r\n\r\n.\r\nQUIT"}});
    let more = json!({"on_failure": mail, "executor": "default"});
    add(&client, "Bcc: <evil@example.org>", task, more).await;
    run_to_end(&client, "Bcc: <evil@example.org>").await;
    let received = server.received().await;
    let head = received.mail.split_once("\n\n").unwrap().0;
    assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
    assert!(
        received.commands.iter().all(|command| !command.contains("evil")),
        "{:?}",
        received.commands
    );
}

/// A certificate for `localhost`, and what has to be trusted for it.
fn certificate() -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    (TlsAcceptor::from(Arc::new(tls)), authority.pem())
}

#[tokio::test]
async fn a_server_is_given_the_password_over_tls_only_if_the_machine_trusts_it() {
    let (acceptor, authority) = certificate();
    for (security, tls) in
        [("tls", Tls::Wrapper(acceptor.clone())), ("starttls", Tls::Start(acceptor))]
    {
        let mut server = MailServer::start(tls, |_| TAKEN).await;
        let home = Home::new("");
        let trusted = home.path().join("ca.pem");
        std::fs::write(&trusted, &authority).unwrap();
        home.write_config(&format!(
            "[mail]\nserver = \"localhost\"\nport = {}\nsecurity = \"{security}\"\nfrom = \"p@example.org\"\n\
             username = \"me\"\npassword = {{ env = \"TEST_MAIL_PASSWORD\" }}\n",
            server.port
        ));
        let trusting = trusted.display().to_string();
        for (file, state) in [("/dev/null", "failed"), (trusting.as_str(), "succeeded")] {
            let variables = [("TEST_MAIL_PASSWORD", "swordfish"), ("SSL_CERT_FILE", file)];
            let daemon = home.start_in(&variables);
            let client = home.client();
            let mail = json!({"type": "mail", "to": ["a@example.org"], "text": "swordfish"});
            add(&client, state, mail, json!({})).await;
            let run = run_to_end(&client, state).await;
            assert_eq!(text(&run, "state"), state, "{security}: {run}");
            daemon.stop();
        }
        let received = server.received().await;
        // "\0me\0swordfish" in base64.
        let login = "AUTH PLAIN AG1lAHN3b3JkZmlzaA==";
        assert!(received.commands.iter().any(|command| command == login), "{security}");
        assert!(!std::fs::read_to_string(home.log()).unwrap().contains("swordfish"));
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_without_the_configured_tls() {
    let mut server = MailServer::start(Tls::None, |_| TAKEN).await;
    let home = Home::new(&format!("{}security = \"starttls\"\n", config(&server)));
    let _daemon = home.start();
    let client = home.client();
    add(&client, "a", json!({"type": "mail", "to": ["a@example.org"]}), json!({})).await;
    let run = run_to_end(&client, "a").await;
    assert_eq!(text(&run, "state"), "failed", "{run}");
    assert!(text(&run, "error").contains("STARTTLS"), "{run}");
    assert!(server.is_quiet());
}

#[tokio::test]
async fn a_mail_is_sent_once_the_server_has_taken_it_also_if_that_says_no_good_bye() {
    let answer = |to: &str| if to == "QUIT" { "" } else { TAKEN };
    let mut server = MailServer::start(Tls::None, answer).await;
    let home = Home::new(&config(&server));
    let _daemon = home.start();
    let client = home.client();
    let more = json!({"timeout": 20});
    add(&client, "a", json!({"type": "mail", "to": ["a@example.org"]}), more).await;
    let run = run_to_end(&client, "a").await;
    assert_eq!(text(&run, "state"), "succeeded", "{run}");
    server.received().await;
    assert!(server.is_quiet());
}

#[tokio::test]
async fn a_reload_changes_the_server_of_the_mails_that_follow() {
    let before = MailServer::start(Tls::None, |_| TAKEN).await;
    let mut after = MailServer::start(Tls::None, |_| TAKEN).await;
    let home = Home::new(&config(&before));
    let _daemon = home.start();
    let client = home.client();
    add(&client, "a", json!({"type": "mail", "to": ["a@example.org"]}), json!({})).await;
    home.write_config(&config(&after));
    home.ok(&["reload"]);
    assert_eq!(text(&run_to_end(&client, "a").await, "state"), "succeeded");
    after.received().await;
}

#[test]
fn a_table_that_is_not_understood_is_refused_by_its_key() {
    let cases = [
        ("port = 0", "mail.port"),
        ("security = \"ssl\"", "mail.security"),
        ("from = \"nobody\"", "mail.from"),
        ("username = \"me\"", "mail.password"),
        ("server = \"\"", "mail.server"),
        ("server = \"ü..example\"", "mail.server"),
        (
            "server = \"mail.example.org\"\nsecurity = \"none\"\nusername = \"me\"\npassword = \"x\"",
            "mail.security",
        ),
        ("host = \"x\"", "mail"),
    ];
    for (line, key) in cases {
        let home = Home::new(&format!("[mail]\n{line}\n"));
        let (code, said) = home.fails(&["check"]);
        assert!(code == 2 && said.contains(key), "{line}: {code} {said}");
    }
}

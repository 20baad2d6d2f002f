//! Secrets are sent, and seen nowhere else.

use serde_json::json;
use tempfile::TempDir;

use super::ends::PLENTY;
use super::{bench, failure, result};
use support::web::{Asked, Step, Web, answer};
use support::{Home, run_to_end, text};

/// A folder of secrets.
struct Safe {
    folder: TempDir,
}

impl Safe {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Keeps a secret, and says where.
    fn keep(&self, name: &str, secret: &str) -> serde_json::Value {
        let path = self.folder.path().join(name);
        std::fs::write(&path, secret).unwrap();
        json!({"file": path})
    }
}

/// Repeats the whole request, in its head and in its body.
fn echo(asked: &Asked) -> Vec<Step> {
    let told = |name: &str| asked.header(name).unwrap_or_default().to_owned();
    let (key, credentials) = (told("x-key"), told("authorization"));
    let path = asked.line.split(' ').nth(1).unwrap();
    let bare = credentials.trim_start_matches("Bearer ");
    let body =
        format!("you sent {} and {key} with {credentials}, so {bare}, to {path}\n", asked.body);
    vec![Step::Send(format!(
        "HTTP/1.1 200 OK\r\nx-key: {key}\r\nlocation: http://example.org{path}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))]
}

#[tokio::test]
async fn a_secret_is_sent_and_masked_where_the_server_repeats_it() {
    let mut web = Web::start(echo).await;
    let safe = Safe::new();
    let call = json!({
        "url": safe.keep("url", &web.url("/hooks/T0PS3CRET?token=swordfish")),
        "headers": {"X-Key": safe.keep("key", "k3y-value"), "Authorization": safe.keep("auth", "Bearer abcdef")},
        "body": safe.keep("body", "the body's secret"),
    });
    let completion = bench().call(call).await;
    result(&completion);
    let asked = web.asked().await;
    assert_eq!(asked.line, "POST /hooks/T0PS3CRET?token=swordfish HTTP/1.1");
    let sent = (asked.header("x-key"), asked.header("authorization"), asked.body.as_str());
    assert_eq!(sent, (Some("k3y-value"), Some("Bearer abcdef"), "the body's secret"));
    let text = completion.output.text();
    assert!(text.contains("you sent *** and *** with ***, so ***, to ***"), "{text}");
    for secret in ["T0PS3CRET", "swordfish", "k3y-value", "abcdef", "body's secret"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test]
async fn a_secret_url_is_in_no_error() {
    let safe = Safe::new();
    let mut bench = bench();
    let closed = Web::start(|_| Vec::new()).await.url("");
    let (broken, slow) =
        (Web::start(|_| vec![Step::Reset]).await, Web::start(|_| vec![Step::Hang]).await);
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_owned();
    let half = Web::start(move |_| vec![Step::Send(half.clone()), Step::Reset]).await;
    let cases = [
        (format!("{closed}/T0PS3CRET"), "could not connect to the server: Connection refused"),
        (
            "http://T0PS3CRET.invalid/".to_owned(),
            "could not connect to the server: failed to lookup",
        ),
        (broken.url("/T0PS3CRET"), "the server gave no valid answer: "),
        (slow.url("/T0PS3CRET"), "the server did not answer within 5.0s"),
        (
            half.url("/T0PS3CRET"),
            "the server ended the connection before its answer was complete: Connection reset",
        ),
    ];
    for (url, error) in cases {
        let mut call = json!({"url": safe.keep("url", &url)});
        if error.ends_with("within 5.0s") {
            call["timeout"] = json!(PLENTY.as_secs());
        }
        let completion = bench.call(call).await;
        let (said, _) = failure(&completion);
        assert!(said.starts_with(error), "{said}");
        let (host, _) = url.trim_start_matches("http://").split_once('/').unwrap();
        assert!(!said.contains("T0PS3CRET") && !said.contains(host), "{said}");
    }
}

#[tokio::test]
async fn a_user_and_a_password_in_a_secret_url_are_sent_as_credentials() {
    let mut web = Web::start(|asked| {
        let credentials = asked.header("authorization").unwrap().to_owned();
        answer("200 OK", &format!("swordfish is {credentials}"))
    })
    .await;
    let safe = Safe::new();
    let url = web.url("/").replace("http://", "http://me:swordfish@");
    let completion = bench().call(json!({"url": safe.keep("url", &url)})).await;
    assert!(completion.output.text().ends_with("*** is Basic ***\n"));
    assert_eq!(web.asked().await.header("authorization"), Some("Basic bWU6c3dvcmRmaXNo"));
}

#[tokio::test]
async fn a_daemon_shows_where_a_secret_is_kept_and_never_the_secret() {
    let mut web = Web::start(echo).await;
    let mut home = Home::new("");
    home.set("HOOK_URL", &web.url("/hooks/T0PS3CRET"));
    home.set("CREDENTIALS_DIRECTORY", &home.path().display().to_string());
    std::fs::write(home.path().join("key"), "k3y-value\n").unwrap();
    let _daemon = home.start();
    let arguments = ["--http", "env:HOOK_URL", "--secret-header", "X-Key=credential:key"];
    home.ok(&[&["add", "hook", "--every", "1h"], &arguments[..]].concat());
    let run = run_to_end(&home.client(), "hook").await;
    assert_eq!(
        (text(&run, "state"), &run["result"]["status"]),
        ("succeeded", &json!(200)),
        "{run}"
    );
    assert_eq!(web.asked().await.header("x-key"), Some("k3y-value"));
    let log = std::fs::read_to_string(home.log()).unwrap();
    let shown =
        [home.ok(&["show", "hook", "--json"]), home.ok(&["list"]), home.ok(&["logs", "hook"]), log];
    for shown in shown {
        assert!(!shown.contains("T0PS3CRET") && !shown.contains("k3y-value"), "{shown}");
    }
}

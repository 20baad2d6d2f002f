//! What a response means for the run: its state, its result and its output.

use serde_json::json;

use super::{bench, failure, result};
use support::web::{Asked, Step, Web, answer};

fn bytes(text: &str) -> Vec<Step> {
    vec![Step::Send(text.to_owned())]
}

/// Answers with the status that the path asks for.
fn status(asked: &Asked) -> Vec<Step> {
    let status = asked.line.split('/').nth(1).unwrap().trim_end_matches(" HTTP");
    answer(status, "")
}

#[tokio::test]
async fn the_answer_is_the_output_of_the_run() {
    let head = "HTTP/1.1 200 All well\r\nX-One: 1\r\nContent-Type: text/plain\r\nx-one: 2\r\nX-Raw: \u{e9}\r\n";
    let web =
        Web::start(move |_| bytes(&format!("{head}content-length: 12\r\n\r\nhello\nwörld"))).await;
    let completion = bench().call(json!({"url": web.url("/")})).await;
    assert_eq!(result(&completion), &json!({"status": 200, "bytes": 12}));
    assert_eq!(
        completion.output.text(),
        "HTTP/1.1 200 OK\nx-one: 1\nx-one: 2\ncontent-type: text/plain\nx-raw: é\ncontent-length: 12\n\nhello\nwörld\n"
    );
    assert!(completion.started_at <= completion.finished_at);
}

#[tokio::test]
async fn a_body_may_come_in_any_form() {
    let forms = [
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            5,
        ),
        ("HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabcde", 5),
        ("HTTP/1.1 204 No Content\r\n\r\n", 0),
    ];
    for (form, expected) in forms {
        // The server that has sent no length closes; it does not break off.
        let web = Web::start(move |_| {
            let mut steps = bytes(form);
            steps.extend(form.contains("close").then_some(Step::Close));
            steps
        })
        .await;
        let completion = bench().call(json!({"url": web.url("/")})).await;
        assert_eq!(result(&completion)["bytes"], json!(expected), "{form}");
    }
}

#[tokio::test]
async fn the_status_code_decides_about_success_failure_and_retries() {
    let web = Web::start(status).await;
    let mut bench = bench();
    for fine in [200, 201, 204, 299] {
        let completion = bench.call(json!({"url": web.url(&format!("/{fine}"))})).await;
        assert_eq!(result(&completion)["status"], json!(fine));
    }
    let cases = [
        (json!({}), 503, "answered 503 Service Unavailable (expected 2xx)", false),
        (json!({}), 500, "answered 500 Internal Server Error (expected 2xx)", false),
        (json!({}), 404, "answered 404 Not Found (expected 2xx)", true),
        (json!({}), 401, "answered 401 Unauthorized (expected 2xx)", true),
        (json!({}), 408, "answered 408 Request Timeout (expected 2xx)", false),
        (json!({}), 425, "answered 425 Too Early (expected 2xx)", false),
        (json!({}), 429, "answered 429 Too Many Requests (expected 2xx)", false),
        (json!({}), 599, "answered 599 (expected 2xx)", false),
        (json!({}), 304, "answered 304 Not Modified (expected 2xx)", false),
        (json!({"expect": [200, 204]}), 201, "answered 201 Created (expected 200 or 204)", false),
        (json!({"no_retry": [503]}), 503, "answered 503 Service Unavailable (expected 2xx)", true),
        (json!({"no_retry": [503]}), 404, "answered 404 Not Found (expected 2xx)", false),
    ];
    for (mut call, status, error, is_permanent) in cases {
        call["url"] = json!(web.url(&format!("/{status}")));
        let completion = bench.call(call).await;
        assert_eq!(failure(&completion), (error, is_permanent));
        assert!(completion.output.text().starts_with(&format!("HTTP/1.1 {status}")));
    }
    let completion = bench.call(json!({"url": web.url("/404"), "expect": [404]})).await;
    assert_eq!(result(&completion)["status"], json!(404));
}

#[tokio::test]
async fn a_body_that_is_too_long_for_the_output_is_cut_and_said_to_be() {
    let body = "0123456789abcde\n".repeat(10_000);
    let mut web = Web::start(move |_| answer("200 OK", &body)).await;
    let mut bench = bench();
    for _ in 0..2 {
        let completion = bench.call(json!({"url": web.url("/")})).await;
        assert_eq!(result(&completion), &json!({"status": 200, "bytes": 160_000}));
        let text = completion.output.text();
        assert!(text.ends_with("abcde\n… of the 160000 bytes of the body 65536 are kept …\n"));
        assert!(text.starts_with("HTTP/1.1 200 OK\n") && text.len() < 66_000);
        assert_eq!(web.asked().await.connection, 1, "it was read to its end");
    }
}

#[tokio::test]
async fn a_body_without_end_is_given_up() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let flood = format!("{:x}\r\n{}\r\n", 10_000, "over\n".repeat(2000));
    let mut web =
        Web::start(move |_| vec![Step::Send(head.to_owned()), Step::Flood(flood.clone())]).await;
    let completion = bench().call(json!({"url": web.url("/")})).await;
    assert!(result(&completion)["bytes"].as_u64().unwrap() > 1024 * 1024);
    let text = completion.output.text();
    let last = text.lines().last().unwrap();
    assert_eq!(
        last,
        "… of the body 65536 bytes are kept; what follows 1048576 bytes was not read …"
    );
    web.left().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_cut_or_refused() {
    let header = |bytes: usize| format!("x: {}\r\n", "y".repeat(bytes));
    // Far more than a client buffers, however much of it arrives at once.
    let (some, many) = (header(5000).repeat(10), header(50_000).repeat(99));
    let web = Web::start(move |asked| {
        let headers = if asked.line.contains("some") { &some } else { &many };
        bytes(&format!("HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\nok"))
    })
    .await;
    let mut bench = bench();
    let completion = bench.call(json!({"url": web.url("/some")})).await;
    let text = completion.output.text();
    assert!(text.ends_with("\n… further headers are not kept …\n\nok\n"), "{text}");
    assert!(text.len() < 17_000);
    let completion = bench.call(json!({"url": web.url("/many")})).await;
    let expected = format!("{} gave no valid answer: message head is too large", web.address);
    assert_eq!(failure(&completion), (expected.as_str(), false));
}

#[tokio::test]
async fn a_malformed_response_is_a_temporary_failure() {
    let cases = [
        ("nonsense\r\n\r\n", "gave no valid answer: invalid HTTP version parsed"),
        ("", "gave no valid answer: connection closed before message completed"),
        ("HTTP/1.1 2", "gave no valid answer: connection closed before message completed"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
            "ended the connection before its answer was complete: end of file before message length reached",
        ),
    ];
    for (text, error) in cases {
        let web = Web::start(move |_| vec![Step::Send(text.to_owned()), Step::Close]).await;
        let completion = bench().call(json!({"url": web.url("/")})).await;
        assert_eq!(
            failure(&completion),
            (format!("{} {error}", web.address).as_str(), false),
            "{text}"
        );
    }
    let reset = "ended the connection before its answer was complete: Connection reset by peer (os error 104)";
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    let web = Web::start(move |_| vec![Step::Send(half.to_owned()), Step::Reset]).await;
    let completion = bench().call(json!({"url": web.url("/")})).await;
    assert_eq!(failure(&completion), (format!("{} {reset}", web.address).as_str(), false));
    assert!(
        completion.output.text().ends_with("\n\nhalf\n")
            || !completion.output.text().contains("half")
    );
    let half = half.replace("200 OK", "404 Not Found");
    let web = Web::start(move |_| vec![Step::Send(half.clone()), Step::Reset]).await;
    let completion = bench().call(json!({"url": web.url("/")})).await;
    let expected = ("answered 404 Not Found (expected 2xx)", true);
    assert_eq!(failure(&completion), expected, "the status says more");
}

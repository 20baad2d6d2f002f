//! Which servers are trusted.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

use super::{bench, failure};
use support::web::{Asked, Step, Web, answer};
use support::{Home, run_to_end, text};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server that this authority vouches for, under this name.
fn config(authority: &Authority, name: &str, last_year: i32) -> ServerConfig {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

fn fine(_: &Asked) -> Vec<Step> {
    answer("200 OK", "over TLS")
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_refused() {
    let mut web = Web::start_tls(config(&authority(), "127.0.0.1", 4000), fine).await;
    let url = format!("https://{}/", web.address);
    let completion = bench().call(json!({"url": url})).await;
    let expected =
        format!("could not connect to {}: invalid peer certificate: UnknownIssuer", web.address);
    assert_eq!(failure(&completion), (expected.as_str(), false));
    assert!(web.is_quiet());
}

#[tokio::test]
async fn a_server_is_trusted_if_ssl_cert_file_has_its_authority_and_name_and_date_are_right() {
    let authority = authority();
    let mut home = Home::new("");
    let file = home.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    home.set("SSL_CERT_FILE", &file.display().to_string());
    let _daemon = home.start();
    let client = home.client();
    let cases = [
        ("good", "127.0.0.1", 4000, None),
        ("expired", "127.0.0.1", 2021, Some("certificate expired")),
        ("elsewhere", "example.org", 4000, Some("certificate not valid for name \"127.0.0.1\"")),
    ];
    for (job, name, last_year, error) in cases {
        let mut web = Web::start_tls(config(&authority, name, last_year), fine).await;
        let url = format!("https://{}/", web.address);
        home.ok(&["add", job, "--every", "1h", "--http", &url]);
        let run = run_to_end(&client, job).await;
        match error {
            None => {
                assert_eq!(run["result"], json!({"status": 200, "bytes": 8}), "{run}");
                assert_eq!(web.asked().await.header("host"), Some(&*web.address.to_string()));
            }
            Some(error) => {
                let said = text(&run, "error");
                assert!(said.starts_with("could not connect to") && said.contains(error), "{said}");
                assert!(web.is_quiet(), "nothing was sent");
            }
        }
    }
}

#[tokio::test]
async fn certificates_that_could_not_be_read_are_read_again_by_the_next_call() {
    let authority = authority();
    let mut home = Home::new("");
    let file = home.path().join("ca.pem");
    home.set("SSL_CERT_FILE", &file.display().to_string());
    let _daemon = home.start();
    let client = home.client();
    let web = Web::start_tls(config(&authority, "127.0.0.1", 4000), fine).await;
    home.ok(&["add", "call", "--every", "1h", "--http", &format!("https://{}/", web.address)]);
    let run = run_to_end(&client, "call").await;
    assert!(text(&run, "error").contains("UnknownIssuer"), "{run}");
    std::fs::write(&file, authority.pem()).unwrap();
    assert_eq!(run_to_end(&client, "call").await["state"], "succeeded");
    // They are kept from then on, until a reload.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(run_to_end(&client, "call").await["state"], "succeeded");
}

//! Real tokens of every algorithm, real keys from a real HTTP server, and every way to cheat we know.
//! The keys in `fixtures/` were made for these tests and protect nothing.

use super::*;
use crate::runtime::config::Inputs;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::get;
use futures_util::FutureExt;
use jsonwebtoken::EncodingKey;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const SECRET: &str = "a secret of more than thirty-two bytes";
const ACCOUNT: &str = "0192f0c1-2345-7abc-8def-0123456789ab";
const RSA: &[u8] = include_bytes!("fixtures/rsa.pem");
const EC: &[u8] = include_bytes!("fixtures/ec.pem");
const ED_1: &[u8] = include_bytes!("fixtures/ed-1.pem");
const ED_2: &[u8] = include_bytes!("fixtures/ed-2.pem");
const PUBLIC: &str = include_str!("fixtures/public.json");

fn auth(settings: &[(&str, &str)]) -> AuthConfig {
    let flags = settings.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Inputs { flags, ..Inputs::default() }.resolve().unwrap().config.auth
}

fn verifier(settings: &[(&str, &str)]) -> Verifier {
    Verifier::new(&auth(settings), LogClock::from_system()).unwrap()
}

fn now_s() -> i64 {
    i64::try_from(LogClock::from_system().now().as_millis() / 1_000).unwrap()
}

fn claims() -> Value {
    json!({"sub": ACCOUNT, "exp": now_s() + 600})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn token(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let mut header = jsonwebtoken::Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    token(Algorithm::HS256, None, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

fn raw(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

fn ed(kid: &str, pem: &[u8]) -> String {
    token(Algorithm::EdDSA, Some(kid), &EncodingKey::from_ed_pem(pem).unwrap(), &claims())
}

fn ed_issued(kid: &str, pem: &[u8], seconds_ago: i64) -> String {
    let claims = with("iat", json!(now_s() - seconds_ago));
    token(Algorithm::EdDSA, Some(kid), &EncodingKey::from_ed_pem(pem).unwrap(), &claims)
}

fn public(kid: &str) -> Value {
    let keys: Vec<Value> = serde_json::from_str(PUBLIC).unwrap();
    keys.into_iter().find(|key| key["kid"] == kid).unwrap()
}

/// A server of a key set that can be changed, counted and switched off.
struct KeyServer {
    url: String,
    answer: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl KeyServer {
    async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new((StatusCode::OK, String::new())));
        let asked = Arc::new(AtomicUsize::new(0));
        let (told, counted) = (Arc::clone(&answer), Arc::clone(&asked));
        let handler = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = told.lock().clone();
            async move { answer }
        };
        let moved = |to: &'static str| get(move || async move { Redirect::temporary(to) });
        let router = Router::new()
            .route("/jwks", get(handler))
            .route("/moved", moved("/jwks"))
            .route("/round", moved("/round"));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let server = Self { url, answer, asked, task };
        server.tell(keys);
        server
    }

    fn tell(&self, keys: &[Value]) {
        *self.answer.lock() = (StatusCode::OK, json!({ "keys": keys }).to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets time pass for the keys and for nothing else: a paused clock would run requests into their time-outs.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn judge(verifier: &Verifier, token: &str) -> Result<Identity, TokenError> {
    verifier.verify(token).now_or_never().expect("a secret needs no fetching")
}

#[test]
fn a_signed_token_tells_account_device_and_end() {
    let auth =
        auth(&[("auth_hs256_secret", SECRET), ("auth_issuer", "https://i"), ("auth_audience", "reedi")]);
    let clock = LogClock::from_system();
    let verifier = Verifier::new(&auth, clock.clone()).unwrap();
    let signer = Signer::new(&auth, clock.clone()).unwrap();
    let account: AccountId = ACCOUNT.parse().unwrap();
    for device in [None, Some(DeviceId::new(127).unwrap())] {
        let (token, expires_at) = signer.sign(account, device).unwrap();
        assert_eq!(judge(&verifier, &token), Ok(Identity { account, device, expires_at }));
        let lifetime_ms = expires_at.as_millis() - clock.now().as_millis();
        assert!((167 * 3_600_000..=168 * 3_600_000).contains(&lifetime_ms), "{lifetime_ms}");
    }
}

#[test]
fn claims_are_held_to_what_is_configured() {
    let plain = verifier(&[("auth_hs256_secret", SECRET)]);
    let now = now_s();
    for (claims, outcome) in [
        (with("exp", json!(now - 25)), None),
        (with("exp", json!(now - 31)), Some(TokenError::Expired)),
        (with("exp", json!(now as f64 + 5.5)), None),
        (with("exp", json!(-1)), Some(TokenError::Expired)),
        (with("exp", json!(1e300)), None),
        (with("exp", json!("soon")), Some(TokenError::Claims)),
        (with("exp", Value::Null), Some(TokenError::Claims)),
        (json!({"sub": ACCOUNT}), Some(TokenError::Claims)),
        (json!({"exp": now + 600}), Some(TokenError::Claims)),
        (json!([]), Some(TokenError::Claims)),
        (with("nbf", json!(now + 25)), None),
        (with("nbf", json!(now + 40)), Some(TokenError::NotYetValid)),
        (with("nbf", json!("later")), Some(TokenError::Claims)),
        (with("sub", json!("alice")), Some(TokenError::Subject)),
        (with("sub", json!(7)), Some(TokenError::Claims)),
        (with("device_id", json!(1)), None),
        (with("device_id", Value::Null), None),
        (with("device_id", json!(0)), Some(TokenError::Device)),
        (with("device_id", json!(128)), Some(TokenError::Device)),
        (with("device_id", json!(-1)), Some(TokenError::Device)),
        (with("device_id", json!("1")), Some(TokenError::Claims)),
        (with("aud", json!("anybody")), None),
    ] {
        assert_eq!(judge(&plain, &hs256(&claims)).err(), outcome, "{claims}");
    }
    let strict =
        verifier(&[("auth_hs256_secret", SECRET), ("auth_issuer", "us"), ("auth_audience", "reedi")]);
    let whole = |iss: Value, aud: Value| json!({"sub": ACCOUNT, "exp": now + 600, "iss": iss, "aud": aud});
    for (claims, outcome) in [
        (whole(json!("us"), json!("reedi")), None),
        (whole(json!("us"), json!(["other", "reedi"])), None),
        (whole(json!("us"), json!(["other"])), Some(TokenError::Audience)),
        (whole(json!("us"), json!("reedi2")), Some(TokenError::Audience)),
        (whole(json!("us"), Value::Null), Some(TokenError::Audience)),
        (whole(json!("them"), json!("reedi")), Some(TokenError::Issuer)),
        (whole(Value::Null, json!("reedi")), Some(TokenError::Issuer)),
    ] {
        assert_eq!(judge(&strict, &hs256(&claims)).err(), outcome, "{claims}");
    }
    assert_eq!(TokenError::Expired.code(), ErrorCode::TokenExpired);
    assert_eq!(TokenError::KeysUnavailable.code(), ErrorCode::Unavailable);
    assert_eq!(TokenError::Signature.code(), ErrorCode::InvalidToken);
}

#[test]
fn forged_tokens_are_refused() {
    let verifier = verifier(&[("auth_hs256_secret", SECRET)]);
    let good = hs256(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let hs512 = token(Algorithm::HS512, None, &EncodingKey::from_secret(SECRET.as_bytes()), &claims());
    let other = token(Algorithm::HS256, None, &EncodingKey::from_secret(b"another secret"), &claims());
    let rs256 = token(Algorithm::RS256, Some("rsa"), &EncodingKey::from_rsa_pem(RSA).unwrap(), &claims());
    let none = |name: &str| raw(&json!({ "alg": name, "typ": "JWT" }), &claims(), "");
    let critical = raw(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &claims(), signature);
    let other_claims = URL_SAFE_NO_PAD.encode(with("sub", json!(ACCOUNT.replace('a', "b"))).to_string());
    let (head, _) = signed.split_once('.').unwrap();
    for (token, error) in [
        (none("none"), TokenError::Algorithm),
        (none("None"), TokenError::Algorithm),
        (none("HS256"), TokenError::Signature),
        (hs512, TokenError::Algorithm),
        (rs256, TokenError::Algorithm),
        (other, TokenError::Signature),
        (critical, TokenError::Critical),
        (format!("{head}.{other_claims}.{signature}"), TokenError::Signature),
        (format!("{signed}."), TokenError::Signature),
        (format!("{signed}.{signature}="), TokenError::Signature),
        (signed.to_owned(), TokenError::Malformed),
        (format!("{good}.{good}"), TokenError::Signature),
        (String::new(), TokenError::Malformed),
        ("..".into(), TokenError::Malformed),
        (format!("Bearer {good}"), TokenError::Malformed),
        ("x".repeat(TOKEN_BYTES + 1), TokenError::TooLong),
    ] {
        assert_eq!(judge(&verifier, &token), Err(error), "{token:.200}");
    }
    assert!(judge(&verifier, &good).is_ok());
}

proptest! {
    #[test]
    fn no_text_is_taken_for_a_token(text in "[ -~]{0,40}(\\.[ -~]{0,60}){0,4}", at in 0usize..400, to: char) {
        let verifier = verifier(&[("auth_hs256_secret", SECRET)]);
        prop_assert!(judge(&verifier, &text).is_err());
        let good = hs256(&claims());
        let bent: String = good.chars().enumerate().map(|(i, c)| if i == at { to } else { c }).collect();
        prop_assert_eq!(judge(&verifier, &bent).is_ok(), bent == good, "{}", bent);
    }
}

#[tokio::test]
async fn each_kind_of_public_key_verifies() {
    let keys: Vec<Value> = serde_json::from_str(PUBLIC).unwrap();
    let server = KeyServer::start(&keys).await;
    let verifier = verifier(&[("auth_jwks_url", &server.url)]);
    verifier.fetch_keys().await.unwrap();
    let rsa = EncodingKey::from_rsa_pem(RSA).unwrap();
    let ec = EncodingKey::from_ec_pem(EC).unwrap();
    let eddsa = EncodingKey::from_ed_pem(ED_2).unwrap();
    for (algorithm, kid, key) in
        [(Algorithm::RS256, "rsa", rsa), (Algorithm::ES256, "ec", ec), (Algorithm::EdDSA, "ed-2", eddsa)]
    {
        let identity = verifier.verify(&token(algorithm, Some(kid), &key, &claims())).await.unwrap();
        assert_eq!(identity.account.to_string(), ACCOUNT, "{kid}");
        let anonymous = verifier.verify(&token(algorithm, None, &key, &claims())).await;
        assert_eq!(anonymous, Ok(identity), "{kid}, not named");
        let expired = verifier.verify(&token(algorithm, Some(kid), &key, &with("exp", json!(7)))).await;
        assert_eq!(expired, Err(TokenError::Expired));
    }
    assert_eq!(verifier.verify(&ed("ed-1", ED_2)).await, Err(TokenError::Signature));
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn a_public_key_is_no_secret_and_a_hint_no_key() {
    let mut keys = vec![public("rsa"), public("ed-1")];
    keys.push(json!({"kty": "oct", "kid": "shared", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET)}));
    keys.push(json!({"kty": "RSA", "kid": "later", "alg": "RSA-OAEP-512", "n": "AQAB", "e": "AQAB"}));
    let mut for_encryption = public("ec");
    for_encryption["use"] = json!("enc");
    keys.push(for_encryption);
    let server = KeyServer::start(&keys).await;
    let alone = verifier(&[("auth_jwks_url", &server.url)]);
    let both = verifier(&[("auth_jwks_url", &server.url), ("auth_hs256_secret", SECRET)]);
    let modulus = public("rsa")["n"].as_str().unwrap().to_owned();
    for secret in [modulus.clone().into_bytes(), URL_SAFE_NO_PAD.decode(modulus).unwrap(), SECRET.into()] {
        let forged = token(Algorithm::HS256, Some("rsa"), &EncodingKey::from_secret(&secret), &claims());
        assert_eq!(alone.verify(&forged).await, Err(TokenError::Algorithm));
        let by_secret = secret == SECRET.as_bytes();
        assert_eq!(both.verify(&forged).await.is_ok(), by_secret);
    }
    let shared =
        token(Algorithm::HS256, Some("shared"), &EncodingKey::from_secret(SECRET.as_bytes()), &claims());
    assert_eq!(alone.verify(&shared).await, Err(TokenError::Algorithm));
    let ec = token(Algorithm::ES256, Some("ec"), &EncodingKey::from_ec_pem(EC).unwrap(), &claims());
    assert_eq!(alone.verify(&ec).await, Err(TokenError::UnknownKey), "its use is encryption");
    let mut header = jsonwebtoken::Header::new(Algorithm::EdDSA);
    header.jwk = Some(serde_json::from_value(public("ed-2")).unwrap());
    header.jku = Some(server.url.clone());
    let hinted = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_ed_pem(ED_2).unwrap()).unwrap();
    assert_eq!(alone.verify(&hinted).await, Err(TokenError::Signature));
    let wrong_kind =
        token(Algorithm::RS256, Some("ed-1"), &EncodingKey::from_rsa_pem(RSA).unwrap(), &claims());
    assert_eq!(alone.verify(&wrong_kind).await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn a_new_key_is_fetched_once_for_all_who_bring_it() {
    let server = KeyServer::start(&[public("ed-1")]).await;
    let verifier = verifier(&[("auth_jwks_url", &server.url)]);
    verifier.verify(&ed("ed-1", ED_1)).await.unwrap();
    server.tell(&[public("ed-2")]);
    let new = ed("ed-2", ED_2);
    let all = futures_util::future::join_all((0..50).map(|_| verifier.verify(&new))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(server.asked(), 2);
    assert_eq!(verifier.verify(&ed("ed-1", ED_1)).await, Err(TokenError::UnknownKey), "it was withdrawn");
}

#[tokio::test]
async fn unknown_keys_do_not_flood_the_server() {
    let server = KeyServer::start(&[public("ed-1")]).await;
    let verifier = verifier(&[("auth_jwks_url", &server.url)]);
    for i in 0..40 {
        assert_eq!(verifier.verify(&ed(&format!("made-up-{i}"), ED_1)).await, Err(TokenError::UnknownKey));
    }
    assert_eq!(server.asked(), 5, "the burst");
    verifier.verify(&ed("ed-1", ED_1)).await.unwrap();
}

/// A provider that gives its new key the old one's `kid`, or has none.
#[tokio::test]
async fn a_key_that_took_anothers_place_is_fetched_once_for_all_who_bring_it() {
    let named = |kid: &str, name: Option<&str>| {
        let mut key = public(kid);
        key["kid"] = json!(name);
        key
    };
    for name in [Some("same"), None] {
        let server = KeyServer::start(&[named("ed-1", name)]).await;
        let verifier = verifier(&[("auth_jwks_url", &server.url)]);
        let signed = |pem| token(Algorithm::EdDSA, name, &EncodingKey::from_ed_pem(pem).unwrap(), &claims());
        let (old, new) = (signed(ED_1), signed(ED_2));
        verifier.verify(&old).await.unwrap();
        for _ in 0..10 {
            assert_eq!(verifier.verify(&new).await, Err(TokenError::Signature));
        }
        assert_eq!(server.asked(), 1, "a forged signature costs no fetch a moment after one");
        server.tell(&[named("ed-2", name)]);
        pass(Duration::from_secs(6)).await;
        let all = futures_util::future::join_all((0..50).map(|_| verifier.verify(&new))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(server.asked(), 2);
        assert_eq!(verifier.verify(&old).await, Err(TokenError::Signature), "it was withdrawn");
    }
}

#[tokio::test]
async fn a_token_is_not_said_to_be_bad_where_nobody_could_look() {
    let server = KeyServer::start(&[public("ed-1")]).await;
    let verifier = verifier(&[("auth_jwks_url", &server.url)]);
    for i in 0..5 {
        assert_eq!(verifier.verify(&ed(&format!("made-up-{i}"), ED_1)).await, Err(TokenError::UnknownKey));
    }
    server.tell(&[public("ed-2")]);
    assert_eq!(verifier.verify(&ed_issued("ed-2", ED_2, 0)).await, Err(TokenError::KeysUnavailable));
    let stale = ed_issued("ed-0", ED_2, 3_600);
    assert_eq!(
        verifier.verify(&stale).await,
        Err(TokenError::UnknownKey),
        "the set is newer than this token"
    );
    pass(Duration::from_secs(11)).await;
    verifier.verify(&ed_issued("ed-2", ED_2, 0)).await.unwrap();
    assert_eq!(server.asked(), 6);
    // Nor that its signature is wrong.
    server.tell(&[public("ed-1")]);
    pass(Duration::from_secs(6)).await;
    assert_eq!(verifier.verify(&ed_issued("ed-2", ED_1, 0)).await, Err(TokenError::KeysUnavailable));
    assert_eq!(verifier.verify(&ed_issued("ed-2", ED_1, 3_600)).await, Err(TokenError::Signature));
    assert_eq!(server.asked(), 6);
}

#[tokio::test]
async fn a_withdrawn_key_verifies_nothing_on_an_edge_that_nobody_came_to() {
    let server = KeyServer::start(&[public("ed-1")]).await;
    let verifier = verifier(&[("auth_jwks_url", &server.url)]);
    let lasting = with("exp", json!(now_s() + 86_400));
    let ed = |kid: &str, pem| {
        token(Algorithm::EdDSA, Some(kid), &EncodingKey::from_ed_pem(pem).unwrap(), &lasting)
    };
    verifier.verify(&ed("ed-1", ED_1)).await.unwrap();
    pass(Duration::from_secs(1_201)).await;
    *server.answer.lock() = (StatusCode::SERVICE_UNAVAILABLE, String::new());
    verifier.verify(&ed("ed-1", ED_1)).await.expect("known keys go on while the URL is away");
    assert_eq!(server.asked(), 2);
    server.tell(&[public("ed-2")]);
    verifier.verify(&ed("ed-2", ED_2)).await.unwrap();
    pass(Duration::from_secs(1_201)).await;
    server.tell(&[public("ed-1")]);
    assert_eq!(verifier.verify(&ed("ed-2", ED_2)).await, Err(TokenError::UnknownKey));
    // Nor where the last fetch before that had failed.
    pass(Duration::from_secs(1_201)).await;
    *server.answer.lock() = (StatusCode::SERVICE_UNAVAILABLE, String::new());
    verifier.verify(&ed("ed-1", ED_1)).await.expect("known keys go on while the URL is away");
    pass(Duration::from_secs(1_201)).await;
    server.tell(&[public("ed-2")]);
    assert_eq!(verifier.verify(&ed("ed-1", ED_1)).await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_and_never_out_of_tls() {
    let server = KeyServer::start(&[public("ed-1")]).await;
    let moved = verifier(&[("auth_jwks_url", &server.url.replace("/jwks", "/moved"))]);
    moved.verify(&ed("ed-1", ED_1)).await.unwrap();
    let round = verifier(&[("auth_jwks_url", &server.url.replace("/jwks", "/round"))]);
    assert_eq!(round.fetch_keys().await, Err("the JWKS URL redirects too often".to_owned()));
    let url = |text: &str| text.parse().unwrap();
    let (secure, plain) = (url("https://a/jwks"), url("http://a/jwks"));
    let follows = |previous: &[&url::Url], next: &url::Url| {
        let previous: Vec<url::Url> = previous.iter().map(|&url| url.clone()).collect();
        jwks::may_follow(&previous, next).is_ok()
    };
    assert!(follows(&[&secure], &url("https://b/keys")) && follows(&[&plain], &plain));
    assert!(follows(&[&plain], &secure) && follows(&[&plain, &secure], &secure));
    assert!(!follows(&[&secure], &plain) && !follows(&[&plain, &secure], &plain));
}

#[tokio::test]
async fn known_keys_go_on_while_the_url_is_away() {
    let server = KeyServer::start(&[public("ed-1")]).await;
    let verifier = verifier(&[("auth_jwks_url", &server.url)]);
    verifier.verify(&ed("ed-1", ED_1)).await.unwrap();
    for (status, body) in [(503, "away"), (200, "<html>"), (200, "{\"keys\":[]}")] {
        *server.answer.lock() = (StatusCode::from_u16(status).unwrap(), body.into());
        assert_eq!(verifier.verify(&ed("ed-2", ED_2)).await, Err(TokenError::KeysUnavailable), "{body}");
        verifier.verify(&ed("ed-1", ED_1)).await.unwrap();
    }
    server.tell(&[public("ed-1"), public("ed-2")]);
    verifier.verify(&ed("ed-2", ED_2)).await.unwrap();
}

#[tokio::test]
async fn without_any_key_nothing_is_judged_and_nothing_is_told_of_the_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let verifier = verifier(&[("auth_jwks_url", &format!("http://me:s3cret@{free}/jwks"))]);
    let error = verifier.fetch_keys().await.unwrap_err();
    assert!(!error.contains("s3cret"), "{error}");
    assert_eq!(verifier.verify(&ed("ed-1", ED_1)).await, Err(TokenError::KeysUnavailable));
    assert_eq!(verifier.verify(&hs256(&claims())).await, Err(TokenError::Algorithm));
    let nothing = Verifier::new(&auth(&[]), LogClock::from_system());
    assert!(matches!(nothing, Err(VerifierError::NothingToVerifyWith)));
}

#[tokio::test]
async fn a_key_set_beyond_all_bounds_is_refused() {
    let server = KeyServer::start(&[public("ed-1")]).await;
    *server.answer.lock() = (StatusCode::OK, "x".repeat(300 * 1024));
    let verifier = verifier(&[("auth_jwks_url", &server.url)]);
    let error = verifier.fetch_keys().await.unwrap_err();
    assert!(error.contains("262144"), "{error}");
}

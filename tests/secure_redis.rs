//! Presence on a Redis with TLS and a password: `REEDI_TEST_REDIS_TLS_URL` (`rediss://:password@host:port`,
//! several separated by commas if it is a cluster) and `REEDI_TEST_REDIS_TLS_CA` (PEM).

use redis::IntoConnectionInfo;
use reedi::presence::conformance;
use reedi::presence::redis::RedisPresence;
use reedi::redis_access::{RedisAccess, RedisConfig, RedisConfigError};
use std::time::Duration;

fn config() -> RedisConfig {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} must be set"));
    let urls = variable("REEDI_TEST_REDIS_TLS_URL").split(',').map(str::to_owned).collect();
    RedisConfig {
        ca_file: Some(variable("REEDI_TEST_REDIS_TLS_CA").into()),
        command_timeout: Duration::from_secs(10),
        ..RedisConfig::new(urls)
    }
}

#[tokio::test]
async fn with_its_authority_it_is_used() {
    let access = RedisAccess::connect(&config()).await.expect("a usable configuration");
    assert!(!access.degraded());
    conformance::all(&RedisPresence::new(access)).await;
}

#[tokio::test]
async fn without_its_authority_it_is_not_trusted() {
    let config = RedisConfig { ca_file: None, ..config() };
    assert!(RedisAccess::connect(&config).await.expect("a usable configuration").degraded());
}

#[tokio::test]
async fn with_another_password_it_is_away() {
    let wrong = RedisConfig { password: Some("wrong".into()), ..config() };
    assert!(RedisAccess::connect(&wrong).await.expect("a usable configuration").degraded());
}

#[tokio::test]
async fn a_password_may_be_given_apart() {
    let mut config = config();
    for url in &mut config.urls {
        let info = url.as_str().into_connection_info().expect("a URL");
        config.password = info.redis_settings().password().map(str::to_owned);
        let mut without = url::Url::parse(url).expect("a URL");
        without.set_password(None).expect("a URL with a host");
        *url = without.into();
    }
    assert!(config.password.is_some(), "the URL must have a password");
    assert!(!RedisAccess::connect(&config).await.expect("a usable configuration").degraded());
}

#[tokio::test]
async fn an_authority_without_tls_is_a_mistake() {
    let urls = config().urls.iter().map(|url| url.replace("rediss://", "redis://")).collect();
    let refused = RedisAccess::connect(&RedisConfig { urls, ..config() }).await;
    assert!(matches!(refused, Err(RedisConfigError::Address(_))));
}

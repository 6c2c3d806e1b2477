//! How to reach the CQL cluster, and the driver session for it.

use crate::runtime::config::Replication;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::NewSessionError;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::DefaultRetryPolicy;
use scylla::policies::timestamp_generator::MonotonicTimestampGenerator;
use scylla::statement::{Consistency, SerialConsistency};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One request, retries included. Servers give up on a write after 2 s and on a read after 5 s by
/// default; a retry on the next node has to fit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A schema change: the server's nodes have to agree on it.
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is noticed after these two together.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Waiting for the cluster at start: doubling between these.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Where the cluster is, and as whom to speak to it.
#[derive(Clone)]
pub struct CqlConfig {
    /// `host:port` each; a few are enough, the others are learnt from them.
    pub contact_points: Vec<String>,
    /// Lower-case letters, digits and `_`, beginning with a letter.
    pub keyspace: String,
    pub user: Option<String>,
    pub password: Option<String>,
    /// PEM file with the certificate authorities of the servers. With it connections are TLS and a
    /// server's certificate must name its address; without it they are in the clear.
    pub tls_ca_file: Option<PathBuf>,
    /// Copies of each row, for a keyspace that `migrate` creates. LOCAL_QUORUM needs 3 to lose one.
    pub replication: Replication,
    /// The data center that requests stay in; needed when there are several.
    pub local_datacenter: Option<String>,
}

impl std::fmt::Debug for CqlConfig {
    /// Without the password, which belongs in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CqlConfig")
            .field("contact_points", &self.contact_points)
            .field("keyspace", &self.keyspace)
            .field("user", &self.user)
            .field("tls_ca_file", &self.tls_ca_file)
            .field("replication", &self.replication)
            .field("local_datacenter", &self.local_datacenter)
            .finish_non_exhaustive()
    }
}

/// Why a configuration can never work, however long one waits.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no contact point of the CQL cluster is configured")]
    NoContactPoint,
    #[error("'{0}' is no keyspace name: lower-case letters, digits and _, at most 48, a letter first")]
    Keyspace(String),
    #[error("'{0}' is no name of a data center")]
    Datacenter(String),
    #[error("a CQL user needs a password, and a password a user")]
    Credentials,
    #[error("the CA file {path}: {reason}")]
    Ca { path: String, reason: String },
}

/// The longest keyspace name that servers take.
const KEYSPACE_CHARS: usize = 48;

impl CqlConfig {
    /// # Errors
    /// What the configuration lacks; nothing is contacted.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.contact_points.iter().all(|point| point.trim().is_empty()) {
            return Err(ConfigError::NoContactPoint);
        }
        // Both stand in statements as they are, where nothing can be bound: so only plain names pass.
        let name_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let keyspace = &self.keyspace;
        let begins = keyspace.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || keyspace.len() > KEYSPACE_CHARS || !keyspace.chars().all(name_char) {
            return Err(ConfigError::Keyspace(keyspace.clone()));
        }
        if let Some(name) = &self.local_datacenter {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-. ".contains(c);
            if name.is_empty() || !name.chars().all(plain) {
                return Err(ConfigError::Datacenter(name.clone()));
            }
        }
        if self.user.is_some() != self.password.is_some() {
            return Err(ConfigError::Credentials);
        }
        Ok(())
    }

    fn tls(&self) -> Result<Option<Arc<ClientConfig>>, ConfigError> {
        let Some(path) = &self.tls_ca_file else { return Ok(None) };
        let bad = |reason: String| ConfigError::Ca { path: path.display().to_string(), reason };
        let pem = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
        let certificates: Vec<CertificateDer<'static>> = rustls_pemfile::certs(&mut pem.as_slice())
            .collect::<Result<_, _>>()
            .map_err(|e| bad(e.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|e| bad(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("no certificate in it".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(Arc::new(config)))
    }

    fn profile(&self) -> ExecutionProfile {
        let mut policy = DefaultPolicy::builder().token_aware(true).permit_dc_failover(false);
        if let Some(datacenter) = &self.local_datacenter {
            policy = policy.prefer_datacenter(datacenter.clone());
        }
        ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .request_timeout(Some(REQUEST_TIMEOUT))
            .retry_policy(Arc::new(DefaultRetryPolicy::new()))
            .load_balancing_policy(policy.build())
            .build()
    }

    fn builder(&self) -> Result<SessionBuilder, ConfigError> {
        self.check()?;
        let mut builder = SessionBuilder::new()
            .known_nodes(self.contact_points.iter().map(|point| point.trim()).filter(|p| !p.is_empty()))
            .tls_context(self.tls()?)
            .default_execution_profile_handle(self.profile().into_handle())
            // Only tables of kind clock are written at this time: positions are given by statement.
            .timestamp_generator(Arc::new(MonotonicTimestampGenerator::new()))
            .connection_timeout(CONNECT_TIMEOUT)
            .keepalive_interval(KEEPALIVE_INTERVAL)
            .keepalive_timeout(KEEPALIVE_TIMEOUT)
            .schema_agreement_timeout(SCHEMA_TIMEOUT)
            // Replication is all of the schema that routing needs.
            .fetch_schema_metadata(true)
            .keyspaces_to_fetch([self.keyspace.clone()]);
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            builder = builder.user(user, password);
        }
        Ok(builder)
    }

    /// One try.
    pub(super) async fn session(&self) -> Result<Result<Session, NewSessionError>, ConfigError> {
        Ok(self.builder()?.build().await)
    }

    /// Tries until the cluster is there, telling why it waits; drop the future to give up.
    ///
    /// # Errors
    /// The configuration can never work.
    pub(super) async fn await_session(&self, waits: impl Fn(&str)) -> Result<Session, ConfigError> {
        let mut wait = Backoff::new();
        loop {
            match self.session().await? {
                Ok(session) => return Ok(session),
                Err(error) => {
                    let why = format!("the CQL cluster does not answer: {error}");
                    waits(&why);
                    wait.after(&why).await;
                }
            }
        }
    }

    pub(super) fn schema_timeout() -> Duration {
        SCHEMA_TIMEOUT
    }
}

/// Waits longer and longer, and says why.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST_WAIT)
    }

    pub(super) async fn after(&mut self, why: &str) {
        tracing::warn!(wait_ms = self.0.as_millis() as u64, "{why}; trying again");
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> CqlConfig {
        CqlConfig {
            contact_points: vec!["127.0.0.1:9042".into()],
            keyspace: "reedi".into(),
            user: None,
            password: None,
            tls_ca_file: None,
            replication: Replication::Everywhere(3),
            local_datacenter: None,
        }
    }

    #[test]
    fn names_that_could_leave_their_statement_are_refused() {
        assert!(config().check().is_ok());
        for keyspace in ["", "1a", "Reedi", "a;drop", "a\"b", "a b", &"k".repeat(49)] {
            let bad = CqlConfig { keyspace: (*keyspace).to_owned(), ..config() };
            assert!(matches!(bad.check(), Err(ConfigError::Keyspace(_))), "{keyspace}");
        }
        let bad = CqlConfig { local_datacenter: Some("dc'1".into()), ..config() };
        assert!(matches!(bad.check(), Err(ConfigError::Datacenter(_))));
    }

    #[test]
    fn half_a_configuration_is_refused() {
        let bad = CqlConfig { user: Some("reedi".into()), ..config() };
        assert!(matches!(bad.check(), Err(ConfigError::Credentials)));
        let bad = CqlConfig { contact_points: vec![" ".into()], ..config() };
        assert!(matches!(bad.check(), Err(ConfigError::NoContactPoint)));
    }

    #[test]
    fn the_password_is_not_shown() {
        let config = CqlConfig { user: Some("reedi".into()), password: Some("secret".into()), ..config() };
        assert!(!format!("{config:?}").contains("secret"));
    }
}

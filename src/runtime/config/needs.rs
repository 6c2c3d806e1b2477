//! What a process needs besides the defaults, all that is missing told at once.

use super::value::AccountsOf;
use super::{Config, ConfigError, ConfigErrors, ContactPoints, HttpUrl, NatsUrls, RedisUrls, Replication};

/// The outside parts of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct ClusterParts<'a> {
    pub nats: &'a NatsUrls,
    pub cql: &'a ContactPoints,
    pub redis: &'a RedisUrls,
}

const IN_A_CLUSTER: &str = "a cluster needs it (`reedi dev` does without)";

impl Config {
    /// # Errors
    /// Any of the parts is not configured.
    pub fn cluster(&self) -> Result<ClusterParts<'_>, ConfigErrors> {
        match (&self.nats.urls, &self.cql.contact_points, &self.redis.urls) {
            (Some(nats), Some(cql), Some(redis)) => Ok(ClusterParts { nats, cql, redis }),
            (nats, cql, redis) => {
                let parts = [
                    ("nats_url", nats.is_some()),
                    ("cql_contact_points", cql.is_some()),
                    ("redis_url", redis.is_some()),
                ];
                let missing = parts.into_iter().filter(|(_, there)| !there);
                Err(ConfigErrors(missing.map(|(name, _)| ConfigError::missing(name, IN_A_CLUSTER)).collect()))
            }
        }
    }

    /// Checks that the store of a cluster is configured.
    ///
    /// # Errors
    /// It is not.
    pub fn check_store(&self) -> Result<(), ConfigErrors> {
        match &self.cql.contact_points {
            Some(_) => Ok(()),
            None => Err(ConfigError::missing("cql_contact_points", IN_A_CLUSTER).into()),
        }
    }

    /// Whose accounts these are; `single` is `reedi dev`.
    #[must_use]
    pub fn accounts_of(&self, single: bool) -> AccountsOf {
        self.auth.accounts.unwrap_or(if single { AccountsOf::Own } else { AccountsOf::Platform })
    }

    /// Where the platform tells of people.
    ///
    /// # Errors
    /// It is not configured.
    pub fn people_url(&self) -> Result<&HttpUrl, ConfigErrors> {
        let because = "accounts are the platform's (REEDI_ACCOUNTS=own would have its own)";
        self.auth.people_url.as_ref().ok_or_else(|| ConfigError::missing("people_url", because).into())
    }

    /// Checks what an edge of a cluster needs besides the parts; `reedi dev` makes these by itself.
    ///
    /// # Errors
    /// No keys to seal with, nothing to verify tokens with, or nowhere to ask for people.
    pub fn check_edge(&self) -> Result<(), ConfigErrors> {
        let mut errors = Vec::new();
        if self.seal.keys.is_none() {
            errors.push(ConfigError::missing("seal_keys", "an edge seals content with it"));
        }
        let no_secret = self.auth.hs256_secret.is_none();
        match self.accounts_of(false) {
            AccountsOf::Own if no_secret => {
                errors.push(ConfigError::missing(
                    "auth_hs256_secret",
                    "tokens of own accounts are signed with it",
                ));
            }
            AccountsOf::Platform if no_secret && self.auth.jwks_url.is_none() => {
                let because = "without it or auth_hs256_secret no token can be verified";
                errors.push(ConfigError::missing("auth_jwks_url", because));
            }
            AccountsOf::Own | AccountsOf::Platform => {}
        }
        if self.accounts_of(false) == AccountsOf::Platform {
            errors.extend(self.people_url().err().into_iter().flat_map(|e| e.0));
        }
        ConfigErrors::none_or(errors)
    }

    /// Checks what is wrong whoever asks: settings of which none works without another.
    ///
    /// # Errors
    /// Only one of a pair is set, or it is not said which of several datacenters is written and read, or one without copies.
    pub(super) fn check_pairs(&self) -> Result<(), ConfigErrors> {
        let mut errors = match (&self.cql.user, &self.cql.password) {
            (Some(_), None) => vec![ConfigError::missing("cql_password", "REEDI_CQL_USER is")],
            (None, Some(_)) => vec![ConfigError::missing("cql_user", "REEDI_CQL_PASSWORD is")],
            (Some(_), Some(_)) | (None, None) => Vec::new(),
        };
        errors.extend(self.wrong_datacenter());
        ConfigErrors::none_or(errors)
    }

    fn wrong_datacenter(&self) -> Option<ConfigError> {
        let Replication::In(copies) = &self.cql.replication else { return None };
        match &self.cql.local_datacenter {
            None if copies.len() > 1 => {
                let because =
                    "REEDI_CQL_REPLICATION names several: what is written in one is not yet in the others";
                Some(ConfigError::missing("cql_local_datacenter", because))
            }
            Some(local) if !copies.iter().any(|(name, _)| name == local.as_str()) => {
                let because = "REEDI_CQL_REPLICATION has no copies there";
                Some(ConfigError::contradicts("cql_local_datacenter", local.as_str(), because))
            }
            _ => None,
        }
    }

    /// What works and is unwise all the same, for the log at start.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.auth.hs256_secret.as_ref().is_some_and(super::SigningSecret::is_short) {
            warnings
                .push("REEDI_AUTH_HS256_SECRET is shorter than the 32 bytes of RFC 7518, section 3.2".into());
        }
        if self.nats.urls.is_some() && self.nats.replicas < 3 {
            warnings
                .push("REEDI_NATS_REPLICAS is below 3: acknowledged messages are lost with one disk".into());
        }
        warnings
    }
}

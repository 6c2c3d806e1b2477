//! Settings that say where something is.

use super::value::Value;
use std::fmt;
use url::Url;

/// A URL as it may be shown: without its password, or what stands alone where a name and a password would, and what
/// stands in a query, each of which may be a key.
fn without_secrets(url: &Url) -> String {
    let mut shown = url.clone();
    let hidden = match (shown.password().is_some(), shown.username().is_empty()) {
        (true, _) => shown.set_password(Some("hidden")),
        (false, false) => shown.set_username("hidden"),
        (false, true) => Ok(()),
    };
    if hidden.is_err() {
        return format!("{}:(hidden)", url.scheme());
    }
    if shown.query().is_some() {
        shown.set_query(Some("hidden"));
    }
    shown.into()
}

fn of_scheme(text: &str, schemes: &[&str]) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    (has_host && schemes.contains(&url.scheme())).then_some(url)
}

macro_rules! servers {
    ($(#[$doc:meta])* $name:ident, $schemes:expr, $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(Vec<Url>);

        impl $name {
            /// The servers' URLs, at least one; they may hold a password.
            #[must_use]
            pub fn urls(&self) -> &[Url] {
                &self.0
            }
        }

        impl Value for $name {
            // A wrong one may hold a password all the same.
            const SECRET: bool = true;

            fn accepted() -> String {
                format!("URLs of servers with commas between, such as {}", $example)
            }

            fn parse(text: &str) -> Option<Self> {
                let urls: Option<Vec<Url>> =
                    text.split(',').map(|url| of_scheme(url.trim(), $schemes)).collect();
                urls.map(Self)
            }

            fn show(&self) -> String {
                self.0.iter().map(without_secrets).collect::<Vec<_>>().join(",")
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.show())
            }
        }
    };
}

servers! {
    /// Where NATS is.
    NatsUrls, &["nats", "tls"], "nats://10.0.0.1:4222,nats://10.0.0.2:4222 (tls:// with TLS)"
}
servers! {
    /// Where Redis or Valkey is.
    RedisUrls, &["redis", "rediss"], "redis://10.0.0.1:6379,redis://10.0.0.2:6379 (rediss:// with TLS)"
}

/// An http or https URL.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// It may hold a password.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl Value for HttpUrl {
    const SECRET: bool = true;

    fn accepted() -> String {
        "an http or https URL".into()
    }

    fn parse(text: &str) -> Option<Self> {
        of_scheme(text, &["http", "https"]).map(Self)
    }

    fn show(&self) -> String {
        without_secrets(&self.0)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.show())
    }
}

/// The nodes of a CQL cluster that are asked first for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactPoints(Vec<(String, u16)>);

/// CQL's registered port.
const CQL_PORT: u16 = 9042;

impl ContactPoints {
    /// Host and port of each, at least one.
    #[must_use]
    pub fn hosts(&self) -> &[(String, u16)] {
        &self.0
    }

    /// `host:port` of each, with an IPv6 address in brackets.
    pub fn addresses(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(host, port)| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        })
    }
}

fn host_and_port(text: &str, default_port: u16) -> Option<(String, u16)> {
    // A URL's authority is exactly what is wanted, so let its parser judge it.
    let url = Url::parse(&format!("tcp://{text}")).ok()?;
    let alone = url.path().is_empty() && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    (alone && anonymous && !host.is_empty()).then(|| (host.to_owned(), url.port().unwrap_or(default_port)))
}

impl Value for ContactPoints {
    fn accepted() -> String {
        format!(
            "hosts with commas between, such as cassandra-0:{CQL_PORT},cassandra-1 (port {CQL_PORT} if none)"
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let hosts: Option<Vec<_>> =
            text.split(',').map(|host| host_and_port(host.trim(), CQL_PORT)).collect();
        hosts.map(Self)
    }

    fn show(&self) -> String {
        self.addresses().collect::<Vec<_>>().join(",")
    }
}

/// How a keyspace is replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replication {
    /// So many copies in each datacenter.
    Everywhere(u8),
    /// So many copies in each of these.
    In(Vec<(String, u8)>),
}

/// More copies than any cluster of one region needs.
const COPIES_MOST: u8 = 9;

impl Replication {
    /// The `replication` option of `CREATE KEYSPACE`.
    #[must_use]
    pub fn to_cql(&self) -> String {
        let copies = match self {
            Self::Everywhere(copies) => format!("'replication_factor': {copies}"),
            Self::In(datacenters) => {
                let each: Vec<_> =
                    datacenters.iter().map(|(name, copies)| format!("'{name}': {copies}")).collect();
                each.join(", ")
            }
        };
        format!("{{'class': 'NetworkTopologyStrategy', {copies}}}")
    }
}

fn copies(text: &str) -> Option<u8> {
    text.trim().parse().ok().filter(|copies| (1..=COPIES_MOST).contains(copies))
}

fn datacenter(text: &str) -> Option<(String, u8)> {
    let (name, number) = text.split_once(':')?;
    Some((Datacenter::parse(name)?.0, copies(number)?))
}

/// A datacenter's name, as the nodes tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datacenter(String);

impl Datacenter {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Datacenter {
    fn accepted() -> String {
        "a datacenter's name of letters, digits, `_` and `-`, such as east".into()
    }

    fn parse(text: &str) -> Option<Self> {
        let name = text.trim();
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let clean = !name.is_empty() && name.chars().all(allowed);
        clean.then(|| Self(name.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Value for Replication {
    fn accepted() -> String {
        format!(
            "a number of copies from 1 to {COPIES_MOST}, or one for each datacenter, such as east:3,west:3"
        )
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(copies) = copies(text) {
            return Some(Self::Everywhere(copies));
        }
        text.split(',').map(datacenter).collect::<Option<Vec<_>>>().map(Self::In)
    }

    fn show(&self) -> String {
        match self {
            Self::Everywhere(copies) => copies.to_string(),
            Self::In(datacenters) => {
                let each: Vec<_> =
                    datacenters.iter().map(|(name, copies)| format!("{name}:{copies}")).collect();
                each.join(",")
            }
        }
    }
}

/// Whose web pages may call this service from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    Any,
    /// Only these; none at all if empty.
    These(Vec<String>),
}

fn origin(text: &str) -> Option<String> {
    let url = of_scheme(text, &["http", "https"])?;
    let written = url.origin().ascii_serialization();
    // What a browser sends in `Origin` has neither a path nor a final slash.
    (written == text.trim_end_matches('/')).then_some(written)
}

impl Value for Origins {
    const OPTIONAL: bool = true;

    fn accepted() -> String {
        "origins with commas between, such as https://app.example.com, or `*` for any, or nothing".into()
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "" => Some(Self::These(Vec::new())),
            "*" => Some(Self::Any),
            _ => text.split(',').map(|one| origin(one.trim())).collect::<Option<Vec<_>>>().map(Self::These),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Any => "*".into(),
            Self::These(origins) => origins.join(","),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_used_and_not_shown() {
        let urls = RedisUrls::parse("rediss://ann:s3cret@10.0.0.1:6380, redis://b").unwrap();
        assert_eq!(urls.urls()[0].password(), Some("s3cret"));
        assert_eq!(urls.show(), "rediss://ann:hidden@10.0.0.1:6380,redis://b");
        assert!(!format!("{urls:?}").contains("s3cret"));
        let url = HttpUrl::parse("https://u:s3cret@people.example/api").unwrap();
        assert!(!format!("{url:?} {}", url.show()).contains("s3cret"));
        for keyed in ["https://s3cret@people.example/api", "https://people.example/api?key=s3cret"] {
            let url = HttpUrl::parse(keyed).unwrap();
            assert!(!format!("{url:?} {}", url.show()).contains("s3cret"), "{keyed}");
        }
        assert_eq!(
            HttpUrl::parse("https://people.example/api").unwrap().show(),
            "https://people.example/api"
        );
    }

    #[test]
    fn only_the_right_schemes_are_servers() {
        for bad in ["", "10.0.0.1:4222", "http://a:1", "nats://", "nats://a,", "redis://a"] {
            assert_eq!(NatsUrls::parse(bad), None, "{bad}");
        }
        assert!(NatsUrls::parse("tls://a:4222").is_some());
        assert_eq!(HttpUrl::parse("ftp://a"), None);
    }

    #[test]
    fn contact_points_have_a_port() {
        let points = ContactPoints::parse("127.0.0.1:19042, cassandra-1,[::1]:9043").unwrap();
        assert_eq!(points.show(), "127.0.0.1:19042,cassandra-1:9042,[::1]:9043");
        for bad in ["", "a,", "a:x", "a:70000", "u@a", "a/b", "http://a"] {
            assert_eq!(ContactPoints::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn replication_is_a_number_or_one_for_each_datacenter() {
        let one = Replication::parse("3").unwrap();
        assert_eq!(one.to_cql(), "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}");
        let two = Replication::parse("east:3, west:2").unwrap();
        assert_eq!(two.to_cql(), "{'class': 'NetworkTopologyStrategy', 'east': 3, 'west': 2}");
        assert_eq!(two.show(), "east:3,west:2");
        for bad in ["", "0", "10", "a", "a:0", "a':3", "3,4"] {
            assert_eq!(Replication::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn origins_are_as_a_browser_sends_them() {
        let origins = Origins::parse("https://a.example, http://localhost:3000/").unwrap();
        assert_eq!(origins.show(), "https://a.example,http://localhost:3000");
        assert_eq!(Origins::parse("*"), Some(Origins::Any));
        assert_eq!(Origins::parse(""), Some(Origins::These(Vec::new())));
        for bad in ["a.example", "https://a.example/path", "null", "https://a,"] {
            assert_eq!(Origins::parse(bad), None, "{bad}");
        }
    }
}

//! Where a server is.

use url::Url;

/// The base address of a server, from which every other address follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no server address: {why}; try http://127.0.0.1:8080")]
pub struct NotAnEndpoint {
    text: String,
    why: &'static str,
}

impl Endpoint {
    /// # Errors
    /// Not an `http:` or `https:` URL with a host, or one that carries a user name, query or fragment.
    pub fn parse(text: &str) -> Result<Self, NotAnEndpoint> {
        let refuse = |why| NotAnEndpoint { text: text.to_owned(), why };
        let url = Url::parse(text.trim_end_matches('/')).map_err(|_| refuse("not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("neither http nor https"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(refuse("it names no host"));
        }
        let plain = url.username().is_empty() && url.password().is_none();
        if !plain || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("user name, password, query and fragment have no place in it"));
        }
        Ok(Self(url))
    }

    #[must_use]
    pub const fn as_url(&self) -> &Url {
        &self.0
    }

    /// Whether the way to it is encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The address of a resource; each part is escaped, so that an emoji or a slash stays within it.
    #[must_use]
    pub fn resource(&self, parts: &[&str]) -> Url {
        let mut url = self.0.clone();
        // Cannot fail: an http URL always has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// The address of the socket.
    #[must_use]
    pub fn socket(&self) -> Url {
        let mut url = self.resource(&["api", "messages", "ws"]);
        let scheme = if self.is_secure() { "wss" } else { "ws" };
        // Cannot fail: http to ws and https to wss are allowed changes.
        let _ = url.set_scheme(scheme);
        url
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_the_base() {
        let plain = Endpoint::parse("http://127.0.0.1:8080/").unwrap();
        assert_eq!(plain.socket().as_str(), "ws://127.0.0.1:8080/api/messages/ws");
        let below = Endpoint::parse("https://example.org/chat").unwrap();
        assert_eq!(below.socket().as_str(), "wss://example.org/chat/api/messages/ws");
        let path = plain.resource(&["a b", "👍", "c/d"]);
        assert_eq!(path.path(), "/a%20b/%F0%9F%91%8D/c%2Fd");
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for bad in ["", "127.0.0.1:8080", "ftp://a", "http://", "http://u:p@a", "http://a?b", "http://a#b"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}

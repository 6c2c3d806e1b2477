//! The address that a client comes from, also behind proxies: what is counted of those who have not signed in.

use crate::runtime::config::Networks;
use axum::http::{Extensions, HeaderMap};
use std::net::IpAddr;

/// Where each proxy says whom it speaks for: the first on the left, and each proxy adds whom it heard on the right.
const FORWARDED: &str = "x-forwarded-for";

/// The address that a request comes from, as far as it can be believed; in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// Of a request that came from `peer`. Only of proxies is believed whom they speak for; whatever stands left of
    /// the first address that is no proxy's may be made up.
    #[must_use]
    pub fn of(peer: IpAddr, headers: &HeaderMap, proxies: &Networks) -> Self {
        let mut heard = peer;
        // Piece by piece: what a client wrote before them must not hide what proxies did.
        let values = headers.get_all(FORWARDED).iter();
        let pieces: Vec<&[u8]> =
            values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).collect();
        for piece in pieces.into_iter().rev() {
            if !proxies.contain(heard) {
                break;
            }
            // A proxy that says what is no address has said nothing: it is the last that is known.
            let Some(before) = std::str::from_utf8(piece).ok().and_then(|text| address(text.trim())) else {
                break;
            };
            heard = before;
        }
        Self(heard.to_canonical())
    }

    /// Of the other side of a connection, whomever it may speak for.
    #[must_use]
    pub fn of_peer(peer: IpAddr) -> Self {
        Self(peer.to_canonical())
    }

    /// One client, as a number: an IPv4 address, or the /64 of IPv6 that one network at home has.
    #[must_use]
    pub fn client(self) -> u128 {
        self.network(64)
    }

    /// One customer of a provider, as a number: an IPv4 address, or the /48 of IPv6 that one may have at most. Who has that
    /// many networks must not have as many shares of what is short.
    #[must_use]
    pub fn site(self) -> u128 {
        self.network(48)
    }

    fn network(self, prefix: u32) -> u128 {
        match self.0 {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => u128::from(v6) >> (128 - prefix) << (128 - prefix),
        }
    }
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let socket = || text.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip());
    text.parse().ok().or_else(socket)
}

impl ClientAddress {
    /// That of a request.
    #[must_use]
    pub fn in_extensions(extensions: &Extensions) -> Self {
        // Every request comes by the listener, which puts it there; else all would share one.
        extensions.get().copied().unwrap_or(Self(IpAddr::from([0, 0, 0, 0])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::config::Value as _;
    use axum::http::HeaderValue;

    fn of_bytes(peer: &str, forwarded: &[&[u8]], proxies: &str) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED, HeaderValue::from_bytes(value).unwrap());
        }
        let proxies = Networks::parse(proxies).unwrap();
        ClientAddress::of(peer.parse().unwrap(), &headers, &proxies).0.to_string()
    }

    fn of(peer: &str, forwarded: &[&str], proxies: &str) -> String {
        of_bytes(peer, &forwarded.iter().map(|text| text.as_bytes()).collect::<Vec<_>>(), proxies)
    }

    #[test]
    fn what_is_no_text_hides_nothing() {
        assert_eq!(of_bytes("10.0.0.1", &[b"\xff, 198.51.100.9"], "10.0.0.0/8"), "198.51.100.9");
    }

    #[test]
    fn only_proxies_are_believed() {
        let proxies = "10.0.0.0/8";
        assert_eq!(of("192.0.2.1", &["198.51.100.9"], proxies), "192.0.2.1", "a client says what it likes");
        assert_eq!(of("10.0.0.1", &["198.51.100.9"], proxies), "198.51.100.9");
        assert_eq!(of("10.0.0.1", &["203.0.113.5, 198.51.100.9"], proxies), "198.51.100.9", "made up");
        assert_eq!(of("10.0.0.1", &["198.51.100.9, 10.0.0.2"], proxies), "198.51.100.9", "two proxies");
        assert_eq!(of("10.0.0.1", &["198.51.100.9", "10.0.0.2"], proxies), "198.51.100.9", "in two headers");
        assert_eq!(of("10.0.0.1", &["10.0.0.3"], proxies), "10.0.0.3", "a client within");
        assert_eq!(of("10.0.0.1", &[], proxies), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.9"], ""), "10.0.0.1");
    }

    #[test]
    fn what_proxies_write_is_read() {
        for (text, address) in [
            ("198.51.100.9:4711", "198.51.100.9"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:198.51.100.9", "198.51.100.9"),
            ("unknown", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(of("::ffff:10.0.0.1", &[text], "10.0.0.1"), address, "{text}");
        }
    }

    #[test]
    fn a_household_is_one_client() {
        let client = |text: &str| ClientAddress(text.parse().unwrap()).client();
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        let site = |text: &str| ClientAddress(text.parse().unwrap()).site();
        assert_eq!(site("2001:db8::1"), site("2001:db8:0:1::1"));
        assert_ne!(site("2001:db8::1"), site("2001:db8:1::1"));
        assert_ne!(site("192.0.2.1"), site("192.0.2.2"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }
}

//! Networks, as settings name them.

use super::value::Value;
use ipnet::IpNet;
use std::net::IpAddr;

/// Networks of addresses; none at all if empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether `address` is in one of them. An IPv4 address is the same when it is written as IPv6.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    // Bits beyond the prefix are a slip: which of the two was meant?
    (network.trunc() == network).then_some(network)
}

impl Value for Networks {
    const OPTIONAL: bool = true;

    fn accepted() -> String {
        "networks or addresses with commas between, such as 192.0.2.0/28,2001:db8::7, or nothing".into()
    }

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        text.split(',').map(|one| network(one.trim())).collect::<Option<_>>().map(Self)
    }

    fn show(&self) -> String {
        self.0.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let networks = Networks::parse("10.0.0.0/8, fd00::/8,192.0.2.7").unwrap();
        assert_eq!(networks.show(), "10.0.0.0/8,fd00::/8,192.0.2.7/32");
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "192.0.2.7"] {
            assert!(networks.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "fe80::1", "::ffff:11.0.0.1"] {
            assert!(!networks.contain(outside.parse().unwrap()), "{outside}");
        }
        assert!(!Networks::parse("").unwrap().contain("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in ["10.0.0.0/33", "10.0.0.1/8", "a", "10.0.0.0/8,", "*", "10.0.0"] {
            assert_eq!(Networks::parse(bad), None, "{bad}");
        }
    }
}

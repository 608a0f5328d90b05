//! The address that a request comes from, behind proxies or not.

use axum::http::HeaderMap;
use ipnet::{IpNet, Ipv6Net};
use std::net::IpAddr;

/// The header in which proxies say for whom they send a request, one address after the other.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The length of the prefix that one customer of a provider has at least.
const IPV6_PREFIX: u8 = 64;

/// Returns the address that stands for all those that one machine can take: of IPv6 the first of
/// its /64, of IPv4 itself, however it is written.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Net::new(address, IPV6_PREFIX)
            .map_or(address, |net| net.network())
            .into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// The address of the client of a request, if it is known; the guard adds it to each.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) Option<IpAddr>);

/// Returns the address of the client. What the headers say is believed only as far as it comes from
/// a trusted proxy: the last address that is none of theirs counts, since clients can send the
/// header too. A Unix socket, `peer` of `None`, is reached by a proxy only.
pub(super) fn client_address(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    trusted_proxies: &[IpNet],
) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| {
        trusted_proxies
            .iter()
            .any(|net| net.contains(&address.to_canonical()))
    };
    if let Some(peer) = peer.filter(|peer| !is_trusted(peer)) {
        return Some(peer);
    }
    let mut client = peer;
    for value in headers.get_all(FORWARDED_FOR).iter().rev() {
        let Ok(value) = value.to_str() else {
            return client;
        };
        for hop in value.rsplit(',') {
            let Ok(hop) = hop.trim().parse() else {
                return client;
            };
            client = Some(hop);
            if !is_trusted(&hop) {
                return client;
            }
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_one_machine_are_one_network() {
        for (one, network) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ] {
            assert_eq!(network_of(address(one)), address(network), "{one}");
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        for (peer, lines, client) in [
            ("192.0.2.1", vec!["198.51.100.1"], "192.0.2.1"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", vec!["9.9.9.9, 198.51.100.1"], "198.51.100.1"),
            (
                "10.0.0.1",
                vec!["9.9.9.9", "198.51.100.1, 10.0.0.2"],
                "198.51.100.1",
            ),
            ("10.0.0.1", vec!["9.9.9.9, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", vec!["\u{e9}"], "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
                headers.append(FORWARDED_FOR, value);
            }
            let found = client_address(Some(address(peer)), &headers, &proxies);
            assert_eq!(found, Some(address(client)), "{peer} {lines:?}");
        }
        assert_eq!(client_address(None, &HeaderMap::new(), &proxies), None);
    }
}

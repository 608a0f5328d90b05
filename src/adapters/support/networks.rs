//! The networks in which hosts from outside may be.

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The networks that requests may go to; also the resolver of host names, which drops other
/// addresses.
#[derive(Debug, Clone)]
pub(super) struct Networks(Arc<[IpNet]>);

impl Networks {
    /// Creates the networks of a list.
    pub(super) fn new(allowed: &[IpNet]) -> Self {
        Self(allowed.into())
    }

    /// Returns whether an address may be requested.
    ///
    /// Clouds serve credentials at link-local addresses. Those are allowed only by a network that
    /// is link-local itself, so that `0.0.0.0/0` does not open them by accident.
    pub(super) fn allow(&self, address: IpAddr) -> bool {
        // An IPv4 address written as IPv6 would otherwise pass as another one.
        let address = address.to_canonical();
        let min_prefix: u8 = match address {
            IpAddr::V4(v4) if v4.is_link_local() => 16,
            IpAddr::V6(v6) if v6.is_unicast_link_local() => 10,
            _ => 0,
        };
        self.0
            .iter()
            .any(|network| network.contains(&address) && network.prefix_len() >= min_prefix)
    }

    /// Looks up the addresses of a host that are allowed.
    pub(super) async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((host, port)).await?;
        Ok(found.filter(|address| self.allow(address.ip())).collect())
    }
}

impl Resolve for Networks {
    // The check is part of the look-up, so that the checked addresses are those that are connected
    // to: a second look-up might return others (DNS rebinding).
    fn resolve(&self, name: Name) -> Resolving {
        let networks = self.clone();
        Box::pin(async move {
            let allowed = networks.look_up(name.as_str(), 0).await?;
            if allowed.is_empty() {
                return Err(format!("{} is not in the allowed networks", name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

//! Where an instance may connect to. Pure: addresses of names are told, not looked up.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use spore_sandbox::EgressRule;

/// Addresses of names that are remembered, at most.
const KNOWN_MAX: usize = 1024;

/// The rules, and which addresses the names in them have.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<EgressRule>,
    /// Addresses with the index of the rule whose name they belong to; the oldest come first.
    known: VecDeque<(IpAddr, usize)>,
}

/// The address that the 16 bytes mean; mapped IPv4 addresses are IPv4 addresses.
pub(crate) fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// The 16 bytes of an address.
pub(crate) fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Addresses that nothing is sent to, whatever the rules.
fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_multicast() || v4 == Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    }
}

/// Addresses that are this host's or its link's own.
fn is_close(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}

impl Policy {
    /// These rules, with no names known.
    pub(crate) fn new(rules: Vec<EgressRule>) -> Self {
        Self {
            rules,
            known: VecDeque::new(),
        }
    }

    /// Whether the rules let an instance connect to this place. `is_own` says that the address is one of this host's.
    pub(crate) fn allows(&self, address: IpAddr, port: u16, is_own: bool) -> bool {
        if is_never(address) || port == 0 {
            return false;
        }
        let is_guarded = is_own || is_close(address);
        self.rules.iter().enumerate().any(|(index, rule)| {
            let fits = match rule {
                // Guarded addresses must be named themselves: a network around them does not count.
                EgressRule::Network { network, .. } if is_guarded => {
                    let is_single = network.prefix_len() == network.max_prefix_len();
                    let is_inside = is_close(network.network()) && is_close(network.broadcast());
                    network.contains(&address) && (is_single || is_inside)
                }
                EgressRule::Network { network, .. } => network.contains(&address),
                EgressRule::Host { .. } => !is_guarded && self.known.contains(&(address, index)),
            };
            fits && rule.port().is_none_or(|allowed| allowed == port)
        })
    }

    /// Whether a rule names this host, in lower case and without a dot at its end.
    pub(crate) fn names(&self, host: &str) -> bool {
        self.hosts(|_| true).any(|name| name == host)
    }

    /// The names of rules that would allow this port.
    pub(crate) fn names_for(&self, port: u16) -> Vec<String> {
        self.hosts(|allowed| allowed.is_none_or(|allowed| allowed == port))
            .map(str::to_owned)
            .collect()
    }

    fn hosts(&self, is_wanted: impl Fn(Option<u16>) -> bool) -> impl Iterator<Item = &str> {
        self.rules.iter().filter_map(move |rule| match rule {
            EgressRule::Host { name, port } if is_wanted(*port) => Some(name.as_str()),
            _ => None,
        })
    }

    /// A name has these addresses.
    pub(crate) fn learn(&mut self, host: &str, addresses: &[IpAddr]) {
        for (index, rule) in self.rules.iter().enumerate() {
            let EgressRule::Host { name, .. } = rule else {
                continue;
            };
            if name != host {
                continue;
            }
            for address in addresses {
                let entry = (address.to_canonical(), index);
                self.known.retain(|known| *known != entry);
                self.known.push_back(entry);
            }
        }
        while self.known.len() > KNOWN_MAX {
            self.known.pop_front();
        }
    }

    /// Whether a rule lets an instance reach loopback addresses of this host.
    pub(crate) fn reaches_loopback(&self) -> bool {
        self.rules.iter().any(
            |rule| matches!(rule, EgressRule::Network { network, .. } if network.network().is_loopback()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Policy {
        Policy::new(EgressRule::parse_list(rules).unwrap())
    }

    fn allows(policy: &Policy, address: &str, port: u16) -> bool {
        policy.allows(address.parse().unwrap(), port, false)
    }

    #[test]
    fn nothing_is_allowed_without_rules() {
        let policy = policy("");
        for address in ["93.184.216.34", "127.0.0.1", "::1", "169.254.169.254"] {
            assert!(!allows(&policy, address, 80));
        }
        assert!(!policy.names("example.com") && !policy.reaches_loopback());
    }

    #[test]
    fn networks_and_ports_are_compared() {
        let policy = policy("10.0.0.0/8:443,192.0.2.7,[fd00::/8]:53");
        assert!(allows(&policy, "10.9.8.7", 443) && !allows(&policy, "10.9.8.7", 80));
        assert!(allows(&policy, "192.0.2.7", 1) && !allows(&policy, "192.0.2.8", 1));
        assert!(!allows(&policy, "192.0.2.7", 0));
        assert!(!allows(&policy, "11.0.0.1", 443));
    }

    #[test]
    fn close_addresses_and_the_hosts_own_must_be_named_themselves() {
        let all = policy("0.0.0.0/0,::/0");
        assert!(allows(&all, "8.8.8.8", 53) && allows(&all, "2001:db8::1", 53));
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "::1",
            "fe80::1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
        ] {
            assert!(!allows(&all, address, 80), "{address}");
        }
        assert!(!all.allows("10.0.0.5".parse().unwrap(), 80, true));
        let named = policy("127.0.0.0/8:80,169.254.169.254,10.0.0.5:80");
        assert!(allows(&named, "127.1.2.3", 80) && !allows(&named, "127.1.2.3", 81));
        assert!(allows(&named, "169.254.169.254", 80) && !allows(&named, "169.254.169.253", 80));
        assert!(named.allows("10.0.0.5".parse().unwrap(), 80, true));
        assert!(named.reaches_loopback() && !all.reaches_loopback());
    }

    #[test]
    fn a_name_allows_the_addresses_that_it_was_learnt_to_have() {
        let mut policy = policy("db.example.com:5432,example.com");
        let address: IpAddr = "192.0.2.9".parse().unwrap();
        assert!(policy.names("db.example.com") && !policy.names("other.example.com"));
        assert!(!allows(&policy, "192.0.2.9", 5432));
        policy.learn("other.example.com", &[address]);
        assert!(!allows(&policy, "192.0.2.9", 5432));
        policy.learn("db.example.com", &[address]);
        assert!(allows(&policy, "192.0.2.9", 5432) && !allows(&policy, "192.0.2.9", 80));
        // A name does not open what must be named itself.
        policy.learn("example.com", &["127.0.0.1".parse().unwrap()]);
        assert!(!allows(&policy, "127.0.0.1", 80));
        assert_eq!(policy.names_for(80), ["example.com"]);
    }

    #[test]
    fn what_is_learnt_is_bounded() {
        let mut policy = policy("example.com");
        for number in 0..3000_u32 {
            policy.learn("example.com", &[IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))]);
        }
        assert_eq!(policy.known.len(), KNOWN_MAX);
        assert!(!allows(&policy, "10.0.0.0", 80) && allows(&policy, "10.0.11.183", 80));
    }

    #[test]
    fn mapped_addresses_are_those_of_ipv4() {
        let v4: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(address(bytes(v4)), v4);
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(address(bytes(v6)), v6);
    }
}

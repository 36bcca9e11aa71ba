//! `struct sockaddr`: IPv4 and IPv6 addresses as bytes.
//!
//! Where the two families meet (a socket of IPv6 serves IPv4 too), a host is compared in its IPv6 form ([`Host`]).

use alloc::vec::Vec;

use linux_raw_sys::net::{AF_INET, AF_INET6, AF_UNSPEC};

use crate::errno::Errno;

/// Address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

/// An address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) family: Family,
    pub(crate) port: u16,
    /// The address itself; IPv4 uses the first four bytes.
    pub(crate) host: [u8; 16],
}

/// A host in its IPv6 form: IPv4 addresses are mapped (`::ffff:a.b.c.d`).
pub(crate) type Host = [u8; 16];

/// First bytes of a mapped IPv4 address.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/// The address of the guest's own interface: link-local, since no network gives it one.
pub(crate) const INTERFACE_V4: [u8; 4] = [169, 254, 1, 2];

/// Whether a host is an IPv4 address.
pub(crate) fn is_v4(host: Host) -> bool {
    host[..12] == MAPPED
}

/// The IPv6 form of an IPv4 address.
pub(crate) fn mapped(v4: [u8; 4]) -> Host {
    let mut host = [0; 16];
    host[..12].copy_from_slice(&MAPPED);
    host[12..].copy_from_slice(&v4);
    host
}

/// Whether a host stands for all addresses of its family.
pub(crate) fn is_unspecified(host: Host) -> bool {
    host == [0; 16] || host == mapped([0; 4])
}

/// Whether a host is a loopback address.
pub(crate) fn is_loopback(host: Host) -> bool {
    let mut v6 = [0; 16];
    v6[15] = 1;
    host == v6 || (is_v4(host) && host[12] == 127)
}

/// Whether a host is this machine.
pub(crate) fn is_local(host: Host) -> bool {
    is_loopback(host) || is_unspecified(host) || host == mapped(INTERFACE_V4)
}

/// Whether a host is a broadcast or multicast address.
pub(crate) fn is_group(host: Host) -> bool {
    host[0] == 0xff || (is_v4(host) && (host[12] >= 224))
}

/// The family that an address names, if it is one of those here.
pub(crate) fn is_unspecified_family(bytes: &[u8]) -> bool {
    matches!(bytes, [low, high, ..] if u32::from(u16::from_le_bytes([*low, *high])) == AF_UNSPEC)
}

/// Length of a `struct sockaddr_in`.
const V4_BYTES: usize = 16;
/// Length of a `struct sockaddr_in6`.
const V6_BYTES: usize = 28;
/// Shortest `struct sockaddr_in6` that Linux takes (without the scope).
const V6_BYTES_MIN: usize = 24;

impl Address {
    /// The unspecified address (all interfaces, no port).
    pub(crate) const fn unspecified(family: Family) -> Self {
        Self {
            family,
            port: 0,
            host: [0; 16],
        }
    }

    /// Loopback with this port, as the far end of an ingress stream.
    pub(crate) fn loopback(family: Family, port: u16) -> Self {
        let mut host = [0; 16];
        match family {
            Family::V4 => host[..4].copy_from_slice(&[127, 0, 0, 1]),
            Family::V6 => host[15] = 1,
        }
        Self { family, port, host }
    }

    /// A host as a socket of this family shows it.
    pub(crate) fn shown(family: Family, host: Host, port: u16) -> Self {
        let mut shown = [0; 16];
        match family {
            Family::V4 => shown[..4].copy_from_slice(&host[12..]),
            // The unspecified address of IPv4 is that of IPv6 to a socket of the latter.
            Family::V6 if host == mapped([0; 4]) => {}
            Family::V6 => shown = host,
        }
        Self {
            family,
            port,
            host: shown,
        }
    }

    /// The host in its IPv6 form.
    pub(crate) fn canonical(&self) -> Host {
        match self.family {
            Family::V4 => mapped([self.host[0], self.host[1], self.host[2], self.host[3]]),
            Family::V6 => self.host,
        }
    }

    /// Parses what a program gives to `bind` or `connect`, for a socket of this family.
    pub(crate) fn parse(bytes: &[u8], family: Family) -> Result<Self, Errno> {
        let [low, high, rest @ ..] = bytes else {
            return Err(Errno::EINVAL);
        };
        let given = u32::from(u16::from_le_bytes([*low, *high]));
        let (expected, shortest) = match family {
            Family::V4 => (AF_INET, V4_BYTES),
            Family::V6 => (AF_INET6, V6_BYTES_MIN),
        };
        if bytes.len() < shortest {
            return Err(Errno::EINVAL);
        }
        if given != expected && !(given == AF_UNSPEC && family == Family::V4) {
            return Err(Errno::EAFNOSUPPORT);
        }
        let mut host = [0; 16];
        match family {
            Family::V4 => host[..4].copy_from_slice(&rest[2..6]),
            Family::V6 => host.copy_from_slice(&rest[6..22]),
        }
        Ok(Self {
            family,
            port: u16::from_be_bytes([rest[0], rest[1]]),
            host,
        })
    }

    /// The `struct sockaddr_in` or `struct sockaddr_in6`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (family, length) = match self.family {
            Family::V4 => (AF_INET, V4_BYTES),
            Family::V6 => (AF_INET6, V6_BYTES),
        };
        let mut bytes = alloc::vec![0; length];
        bytes[..2].copy_from_slice(&(family as u16).to_le_bytes());
        bytes[2..4].copy_from_slice(&self.port.to_be_bytes());
        match self.family {
            Family::V4 => bytes[4..8].copy_from_slice(&self.host[..4]),
            Family::V6 => bytes[8..24].copy_from_slice(&self.host),
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for family in [Family::V4, Family::V6] {
            let address = Address::loopback(family, 8080);
            assert_eq!(Address::parse(&address.encode(), family), Ok(address));
        }
    }

    #[test]
    fn hosts_are_the_same_in_both_families() {
        let v4 = Address::loopback(Family::V4, 80);
        let host = v4.canonical();
        assert_eq!(Address::shown(Family::V4, host, 80), v4);
        assert_eq!(
            Address::shown(Family::V6, host, 80).host[10..],
            [0xff, 0xff, 127, 0, 0, 1]
        );
        assert!(is_loopback(host) && is_local(host) && is_v4(host) && !is_unspecified(host));
        assert!(is_unspecified(Address::unspecified(Family::V4).canonical()));
        assert!(is_loopback(Address::loopback(Family::V6, 80).canonical()));
        assert!(!is_local(mapped([10, 0, 0, 1])) && is_group(mapped([224, 0, 0, 1])));
    }

    #[test]
    fn short_and_foreign_addresses_are_refused() {
        let v4 = Address::loopback(Family::V4, 80).encode();
        for length in 0..v4.len() {
            assert_eq!(Address::parse(&v4[..length], Family::V4), Err(Errno::EINVAL));
        }
        let mut wide = v4.clone();
        wide.resize(28, 0);
        assert_eq!(Address::parse(&wide, Family::V6), Err(Errno::EAFNOSUPPORT));
    }
}

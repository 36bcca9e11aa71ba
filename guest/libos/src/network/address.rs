//! `struct sockaddr`: IPv4 and IPv6 addresses as bytes.

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

    /// Parses what a program gives to `bind`, for a socket of this family.
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

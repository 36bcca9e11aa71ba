//! Socket options that are kept and shown; what they tune is mostly not there.

use alloc::collections::BTreeMap;
use core::cell::{Cell, RefCell};

use linux_raw_sys::net;

use crate::errno::Errno;

/// How a value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// 0 or 1.
    Flag,
    /// Within bounds; others are refused with `EINVAL`.
    Number(i32, i32),
    /// Within bounds; others are moved there, after doubling.
    Buffer(i32),
}

/// Level, name, kind, value of a fresh socket.
type Known = (u32, u32, Kind, i32);

const TCP: u32 = net::IPPROTO_TCP as u32;
const IP: u32 = net::IPPROTO_IP as u32;
const IPV6: u32 = net::IPPROTO_IPV6 as u32;
const ANY: Kind = Kind::Number(i32::MIN, i32::MAX);
/// `net.core.wmem_max`, `net.core.rmem_max`.
const BUFFER_MAX: i32 = 212_992;

/// Every option with a plain number. Names of TCP, IP and IPv6 options are those of the kernel's headers.
const KNOWN: &[Known] = &[
    (net::SOL_SOCKET, net::SO_DEBUG, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_REUSEADDR, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_REUSEPORT, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_DONTROUTE, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_BROADCAST, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_KEEPALIVE, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_OOBINLINE, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_NO_CHECK, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_PASSCRED, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_TIMESTAMP_OLD, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_TIMESTAMPNS_OLD, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_RXQ_OVFL, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_ZEROCOPY, Kind::Flag, 0),
    (net::SOL_SOCKET, net::SO_PRIORITY, Kind::Number(0, 6), 0),
    (net::SOL_SOCKET, net::SO_MARK, ANY, 0),
    (net::SOL_SOCKET, net::SO_RCVLOWAT, Kind::Number(0, i32::MAX), 1),
    (net::SOL_SOCKET, net::SO_INCOMING_CPU, ANY, 0),
    (net::SOL_SOCKET, net::SO_BUSY_POLL, Kind::Number(0, i32::MAX), 0),
    (net::SOL_SOCKET, net::SO_SNDBUF, Kind::Buffer(4608), BUFFER_MAX),
    (net::SOL_SOCKET, net::SO_RCVBUF, Kind::Buffer(2304), BUFFER_MAX),
    (
        net::SOL_SOCKET,
        net::SO_SNDBUFFORCE,
        Kind::Buffer(4608),
        BUFFER_MAX,
    ),
    (
        net::SOL_SOCKET,
        net::SO_RCVBUFFORCE,
        Kind::Buffer(2304),
        BUFFER_MAX,
    ),
    (TCP, 1, Kind::Flag, 0),                      // TCP_NODELAY
    (TCP, 2, Kind::Number(0, 32_767), 65_483),    // TCP_MAXSEG
    (TCP, 3, Kind::Flag, 0),                      // TCP_CORK
    (TCP, 4, Kind::Number(1, 32_767), 7200),      // TCP_KEEPIDLE
    (TCP, 5, Kind::Number(1, 32_767), 75),        // TCP_KEEPINTVL
    (TCP, 6, Kind::Number(1, 127), 9),            // TCP_KEEPCNT
    (TCP, 7, Kind::Number(1, 127), 6),            // TCP_SYNCNT
    (TCP, 8, ANY, 60),                            // TCP_LINGER2
    (TCP, 9, Kind::Number(0, i32::MAX), 0),       // TCP_DEFER_ACCEPT
    (TCP, 10, Kind::Number(0, i32::MAX), 65_536), // TCP_WINDOW_CLAMP
    (TCP, 12, ANY, 1),                            // TCP_QUICKACK
    (TCP, 18, Kind::Number(0, i32::MAX), 0),      // TCP_USER_TIMEOUT
    (TCP, 23, Kind::Number(0, i32::MAX), 0),      // TCP_FASTOPEN
    (TCP, 25, ANY, -1),                           // TCP_NOTSENT_LOWAT
    (TCP, 30, Kind::Flag, 0),                     // TCP_FASTOPEN_CONNECT
    (IP, 1, Kind::Number(0, 255), 0),             // IP_TOS
    (IP, 2, Kind::Number(-1, 255), 64),           // IP_TTL
    (IP, 8, Kind::Flag, 0),                       // IP_PKTINFO
    (IP, 10, Kind::Number(0, 5), 1),              // IP_MTU_DISCOVER
    (IP, 11, Kind::Flag, 0),                      // IP_RECVERR
    (IP, 12, Kind::Flag, 0),                      // IP_RECVTTL
    (IP, 13, Kind::Flag, 0),                      // IP_RECVTOS
    (IP, 15, Kind::Flag, 0),                      // IP_FREEBIND
    (IP, 19, Kind::Flag, 0),                      // IP_TRANSPARENT
    (IP, 24, Kind::Flag, 0),                      // IP_BIND_ADDRESS_NO_PORT
    (IP, 33, Kind::Number(-1, 255), 1),           // IP_MULTICAST_TTL
    (IP, 34, Kind::Flag, 1),                      // IP_MULTICAST_LOOP
    (IPV6, 8, Kind::Flag, 0),                     // IPV6_RECVHOPLIMIT's old form
    (IPV6, 16, Kind::Number(-1, 255), 64),        // IPV6_UNICAST_HOPS
    (IPV6, 18, Kind::Number(-1, 255), 1),         // IPV6_MULTICAST_HOPS
    (IPV6, 19, Kind::Flag, 1),                    // IPV6_MULTICAST_LOOP
    (IPV6, 23, Kind::Number(0, 5), 1),            // IPV6_MTU_DISCOVER
    (IPV6, 25, Kind::Flag, 0),                    // IPV6_RECVERR
    (IPV6, 26, Kind::Flag, 0),                    // IPV6_V6ONLY
    (IPV6, 49, Kind::Flag, 0),                    // IPV6_RECVPKTINFO
    (IPV6, 51, Kind::Flag, 0),                    // IPV6_RECVHOPLIMIT
    (IPV6, 66, Kind::Flag, 0),                    // IPV6_RECVTCLASS
    (IPV6, 67, Kind::Number(-1, 255), 0),         // IPV6_TCLASS
];

/// `TCP_NODELAY` and its level.
#[cfg(test)]
const NO_DELAY: (u32, u32) = (TCP, 1);
/// `IPV6_V6ONLY` and its level.
pub(crate) const V6_ONLY: (u32, u32) = (IPV6, 26);

/// What a socket's options are set to.
#[derive(Default, Clone)]
pub(crate) struct Options {
    set: RefCell<BTreeMap<(u32, u32), i32>>,
    pub(crate) receive_timeout_ns: Cell<Option<u64>>,
    pub(crate) send_timeout_ns: Cell<Option<u64>>,
    /// Seconds of `SO_LINGER`, if it is on.
    pub(crate) linger: Cell<Option<i32>>,
    pub(crate) linger_seconds: Cell<i32>,
}

fn known(level: u32, name: u32) -> Option<Known> {
    let name = match (level, name) {
        (net::SOL_SOCKET, net::SO_SNDBUFFORCE) => net::SO_SNDBUF,
        (net::SOL_SOCKET, net::SO_RCVBUFFORCE) => net::SO_RCVBUF,
        (_, name) => name,
    };
    KNOWN
        .iter()
        .find(|known| (known.0, known.1) == (level, name))
        .copied()
}

impl Options {
    /// Sets a plain number.
    pub(crate) fn set(&self, level: u32, name: u32, value: i32) -> Result<(), Errno> {
        let (level, name, kind, _) = known(level, name).ok_or(Errno::ENOPROTOOPT)?;
        let kept = match kind {
            Kind::Flag => i32::from(value != 0),
            Kind::Number(low, high) if (low..=high).contains(&value) => value,
            Kind::Number(..) => return Err(Errno::EINVAL),
            Kind::Buffer(least) => value.clamp(0, BUFFER_MAX).saturating_mul(2).max(least),
        };
        self.set.borrow_mut().insert((level, name), kept);
        Ok(())
    }

    /// A plain number.
    pub(crate) fn get(&self, level: u32, name: u32) -> Result<i32, Errno> {
        let (level, name, _, default) = known(level, name).ok_or(Errno::ENOPROTOOPT)?;
        Ok(self.set.borrow().get(&(level, name)).copied().unwrap_or(default))
    }

    /// Sets what a fresh socket of a kind has instead of the usual value.
    pub(crate) fn preset(&self, level: u32, name: u32, value: i32) {
        self.set.borrow_mut().insert((level, name), value);
    }

    /// Whether a flag is set.
    pub(crate) fn is_set(&self, level: u32, name: u32) -> bool {
        self.get(level, name).is_ok_and(|value| value != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_shown_in_the_form_that_linux_shows() {
        let options = Options::default();
        let (level, name) = NO_DELAY;
        assert_eq!(options.get(level, name), Ok(0));
        options.set(level, name, 5).unwrap();
        assert_eq!(options.get(level, name), Ok(1));
        options.set(net::SOL_SOCKET, net::SO_RCVBUF, 8192).unwrap();
        assert_eq!(options.get(net::SOL_SOCKET, net::SO_RCVBUF), Ok(16_384));
        options.set(net::SOL_SOCKET, net::SO_SNDBUF, 0).unwrap();
        assert_eq!(options.get(net::SOL_SOCKET, net::SO_SNDBUF), Ok(4608));
        options.set(net::SOL_SOCKET, net::SO_SNDBUF, i32::MAX).unwrap();
        assert_eq!(options.get(net::SOL_SOCKET, net::SO_SNDBUF), Ok(2 * BUFFER_MAX));
    }

    #[test]
    fn unknown_options_and_values_out_of_bounds_are_refused() {
        let options = Options::default();
        assert_eq!(options.set(net::SOL_SOCKET, 9999, 1), Err(Errno::ENOPROTOOPT));
        assert_eq!(options.get(77, 1), Err(Errno::ENOPROTOOPT));
        assert_eq!(options.set(TCP, 6, 0), Err(Errno::EINVAL));
    }
}

//! Which ports are taken, by whom, and who gets what comes in: the rules of `bind`.
//!
//! A [`Claim`] is a socket's share of a port; dropping it gives the port back. Two claims of one port stand beside each
//! other if their addresses do not overlap, or if their sockets allow it (`SO_REUSEADDR` without a listener,
//! `SO_REUSEPORT`).

use alloc::collections::BTreeMap;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use super::address::{Host, is_unspecified, is_v4};

/// Ports that are given to sockets that ask for none (`net.ipv4.ip_local_port_range`).
const FREE_PORTS: core::ops::RangeInclusive<u16> = 32_768..=60_999;

/// What a socket asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) host: Host,
    /// An unspecified IPv6 address that leaves IPv4 alone.
    pub(crate) is_v6_only: bool,
    pub(crate) reuses_address: bool,
    pub(crate) reuses_port: bool,
}

struct Entry<T> {
    number: u64,
    wish: Wish,
    is_listening: bool,
    remote: Option<(Host, u16)>,
    target: Weak<T>,
}

/// All claims of one transport.
pub(crate) struct Ports<T> {
    entries: RefCell<BTreeMap<u16, Vec<Entry<T>>>>,
    next_port: Cell<u16>,
    next_number: Cell<u64>,
    turn: Cell<usize>,
    /// Two claims that reuse the address may both receive (UDP).
    shares_freely: bool,
}

/// A socket's share of a port.
pub(crate) struct Claim<T> {
    ports: Rc<Ports<T>>,
    port: u16,
    number: u64,
}

impl Wish {
    /// Whether datagrams and connections to `host` are meant.
    fn covers(&self, host: Host) -> bool {
        if self.host == host {
            return true;
        }
        if self.host == [0; 16] {
            return !(self.is_v6_only && is_v4(host));
        }
        is_unspecified(self.host) && is_v4(host)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.covers(other.host) || other.covers(self.host)
    }
}

impl<T> Ports<T> {
    /// No claims.
    pub(crate) fn new(shares_freely: bool) -> Rc<Self> {
        Rc::new(Self {
            entries: RefCell::default(),
            next_port: Cell::new(*FREE_PORTS.start()),
            next_number: Cell::new(0),
            turn: Cell::new(0),
            shares_freely,
        })
    }

    fn conflicts(&self, port: u16, wish: &Wish, ignored: Option<u64>) -> bool {
        let entries = self.entries.borrow();
        let Some(claims) = entries.get(&port) else {
            return false;
        };
        claims
            .iter()
            .filter(|entry| Some(entry.number) != ignored && entry.wish.overlaps(wish))
            .any(|entry| {
                let reuse_address = entry.wish.reuses_address
                    && wish.reuses_address
                    && (self.shares_freely || !entry.is_listening);
                let reuse_port = entry.wish.reuses_port && wish.reuses_port;
                !reuse_address && !reuse_port
            })
    }

    /// Claims a port, or any free one if it is 0; `None` if it is taken, or all are.
    pub(crate) fn claim(self: &Rc<Self>, port: u16, wish: Wish, target: Weak<T>) -> Option<Claim<T>> {
        let port = match port {
            0 => self.free_port()?,
            port if self.conflicts(port, &wish, None) => return None,
            port => port,
        };
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        self.entries.borrow_mut().entry(port).or_default().push(Entry {
            number,
            wish,
            is_listening: false,
            remote: None,
            target,
        });
        Some(Claim {
            ports: Rc::clone(self),
            port,
            number,
        })
    }

    fn free_port(&self) -> Option<u16> {
        let entries = self.entries.borrow();
        for _ in FREE_PORTS {
            let port = self.next_port.get();
            let next = port.checked_add(1).filter(|port| FREE_PORTS.contains(port));
            self.next_port.set(next.unwrap_or(*FREE_PORTS.start()));
            if !entries.contains_key(&port) {
                return Some(port);
            }
        }
        None
    }

    /// Who listens on this port for connections to `host`. Those that share a port take turns.
    pub(crate) fn listener(&self, host: Host, port: u16) -> Option<Rc<T>> {
        self.best(port, |entry| {
            let is_meant = entry.is_listening && entry.wish.covers(host);
            is_meant.then_some(u32::from(entry.wish.host == host) * 2 + u32::from(is_v4(entry.wish.host)))
        })
    }

    /// Who listens on this port, whatever the address; IPv4 first.
    pub(crate) fn any_listener(&self, port: u16) -> Option<Rc<T>> {
        self.best(port, |entry| {
            entry.is_listening.then_some(u32::from(is_v4(entry.wish.host)))
        })
    }

    /// Who gets a datagram to `host` and `port` from `source`.
    pub(crate) fn receiver(&self, host: Host, port: u16, source: (Host, u16)) -> Option<Rc<T>> {
        self.best(port, |entry| {
            let is_sender = match entry.remote {
                Some(remote) if remote != source => return None,
                remote => remote.is_some(),
            };
            entry
                .wish
                .covers(host)
                .then_some(u32::from(is_sender) * 2 + u32::from(entry.wish.host == host))
        })
    }

    fn best(&self, port: u16, score: impl Fn(&Entry<T>) -> Option<u32>) -> Option<Rc<T>> {
        let entries = self.entries.borrow();
        let claims = entries.get(&port)?;
        let best = claims.iter().filter_map(&score).max()?;
        let equal = |entry: &&Entry<T>| score(entry) == Some(best);
        let count = claims.iter().filter(equal).count();
        let turn = if count > 1 {
            self.turn.replace(self.turn.get().wrapping_add(1))
        } else {
            0
        };
        claims.iter().filter(equal).nth(turn % count)?.target.upgrade()
    }
}

impl<T> Claim<T> {
    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn change<R>(&self, change: impl FnOnce(&mut Entry<T>) -> R) -> Option<R> {
        let mut entries = self.ports.entries.borrow_mut();
        let claims = entries.get_mut(&self.port)?;
        claims
            .iter_mut()
            .find(|entry| entry.number == self.number)
            .map(change)
    }

    /// Starts to listen; `false` if another one listens already.
    pub(crate) fn listen(&self, wish: Wish, target: Weak<T>) -> bool {
        let is_taken = {
            let entries = self.ports.entries.borrow();
            let claims = entries.get(&self.port).map_or(&[][..], Vec::as_slice);
            claims.iter().any(|entry| {
                entry.number != self.number
                    && entry.is_listening
                    && entry.wish.overlaps(&wish)
                    && !(entry.wish.reuses_port && wish.reuses_port)
            })
        };
        if !is_taken {
            self.change(|entry| {
                entry.is_listening = true;
                entry.target = target;
                entry.wish = wish;
            });
        }
        !is_taken
    }

    /// Stops to listen.
    pub(crate) fn stop_listening(&self) {
        self.change(|entry| entry.is_listening = false);
    }

    /// Sets from whom alone datagrams are taken, and the address that they come to.
    pub(crate) fn connect(&self, remote: Option<(Host, u16)>, host: Option<Host>) {
        self.change(|entry| {
            entry.remote = remote;
            if let Some(host) = host {
                entry.wish.host = host;
            }
        });
    }
}

impl<T> Drop for Claim<T> {
    fn drop(&mut self) {
        let mut entries = self.ports.entries.borrow_mut();
        if let Some(claims) = entries.get_mut(&self.port) {
            claims.retain(|entry| entry.number != self.number);
            if claims.is_empty() {
                entries.remove(&self.port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::mapped;
    use super::*;

    const ANY_V4: [u8; 4] = [0; 4];
    const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

    fn v4(host: [u8; 4]) -> Wish {
        Wish {
            host: mapped(host),
            is_v6_only: false,
            reuses_address: false,
            reuses_port: false,
        }
    }

    fn any_v6(is_v6_only: bool) -> Wish {
        Wish {
            host: [0; 16],
            is_v6_only,
            ..v4(ANY_V4)
        }
    }

    fn claim(ports: &Rc<Ports<u8>>, port: u16, wish: Wish) -> Option<Claim<u8>> {
        ports.claim(port, wish, Weak::new())
    }

    #[test]
    fn overlapping_addresses_conflict() {
        let ports = Ports::new(false);
        let first = claim(&ports, 80, v4(LOOPBACK)).unwrap();
        assert!(claim(&ports, 80, v4(LOOPBACK)).is_none());
        assert!(claim(&ports, 80, v4(ANY_V4)).is_none());
        assert!(claim(&ports, 80, any_v6(false)).is_none());
        assert!(claim(&ports, 80, any_v6(true)).is_some());
        assert!(claim(&ports, 80, v4([127, 0, 0, 2])).is_some());
        assert!(claim(&ports, 81, v4(LOOPBACK)).is_some());
        drop(first);
        assert!(claim(&ports, 80, v4(LOOPBACK)).is_some());
    }

    #[test]
    fn reused_addresses_stand_beside_each_other_until_one_listens() {
        let ports = Ports::new(false);
        let wish = Wish {
            reuses_address: true,
            ..v4(LOOPBACK)
        };
        let first = claim(&ports, 80, wish).unwrap();
        let second = claim(&ports, 80, wish).unwrap();
        assert!(claim(&ports, 80, v4(LOOPBACK)).is_none());
        let target = Rc::new(1);
        assert!(first.listen(wish, Rc::downgrade(&target)));
        assert!(claim(&ports, 80, wish).is_none());
        assert!(!second.listen(wish, Weak::new()));
        first.stop_listening();
        assert!(second.listen(wish, Weak::new()));
    }

    #[test]
    fn listeners_that_share_a_port_take_turns() {
        let ports = Ports::new(false);
        let wish = Wish {
            reuses_port: true,
            ..v4(ANY_V4)
        };
        let targets = [Rc::new(1), Rc::new(2)];
        let _claims = targets.clone().map(|target| {
            let claim = claim(&ports, 80, wish).unwrap();
            assert!(claim.listen(wish, Rc::downgrade(&target)));
            claim
        });
        let found: Vec<u8> = (0..4)
            .map(|_| *ports.listener(mapped(LOOPBACK), 80).unwrap())
            .collect();
        assert_eq!(found, [1, 2, 1, 2]);
        assert!(ports.listener([0; 16], 80).is_none());
    }

    #[test]
    fn the_most_exact_claim_gets_what_comes_in() {
        let ports = Ports::new(false);
        let targets = [Rc::new(1), Rc::new(2), Rc::new(3)];
        let wishes = [any_v6(true), v4(ANY_V4), v4([127, 0, 0, 2])];
        let mut claims = Vec::new();
        for (target, wish) in targets.iter().zip(wishes) {
            let reusing = Wish {
                reuses_port: true,
                ..wish
            };
            claims.push(claim(&ports, 80, reusing).unwrap());
            assert!(claims.last().unwrap().listen(reusing, Rc::downgrade(target)));
        }
        assert_eq!(*ports.listener(mapped(LOOPBACK), 80).unwrap(), 2);
        assert_eq!(*ports.listener(mapped([127, 0, 0, 2]), 80).unwrap(), 3);
        assert_eq!(*ports.listener([1; 16], 80).unwrap(), 1);
        assert_eq!(*ports.any_listener(80).unwrap() & 2, 2);
        assert!(ports.listener([1; 16], 81).is_none());
    }

    #[test]
    fn connected_receivers_take_from_their_peer_only() {
        let ports = Ports::new(true);
        let target = Rc::new(7);
        let claim = ports.claim(53, v4(ANY_V4), Rc::downgrade(&target)).unwrap();
        let (peer, other) = ((mapped(LOOPBACK), 9), (mapped(LOOPBACK), 8));
        assert!(ports.receiver(mapped(LOOPBACK), 53, other).is_some());
        claim.connect(Some(peer), None);
        assert!(ports.receiver(mapped(LOOPBACK), 53, other).is_none());
        assert_eq!(*ports.receiver(mapped(LOOPBACK), 53, peer).unwrap(), 7);
    }

    #[test]
    fn free_ports_run_out_and_come_back() {
        let ports = Ports::new(false);
        let mut claims: Vec<_> = core::iter::from_fn(|| claim(&ports, 0, v4(LOOPBACK))).collect();
        assert_eq!(claims.len(), FREE_PORTS.count());
        let port = claims.pop().unwrap().port();
        assert_eq!(claim(&ports, 0, v4(LOOPBACK)).unwrap().port(), port);
    }
}

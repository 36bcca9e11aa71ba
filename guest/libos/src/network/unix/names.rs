//! Addresses of Unix sockets, and who has which.

use alloc::collections::BTreeMap;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::net::AF_UNIX;

use super::super::socket::Form;
use super::Shared;
use crate::errno::Errno;

/// Length of a whole `struct sockaddr_un`.
const ADDRESS_BYTES: usize = 110;

/// What a program calls a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// None: `bind` is to make one up.
    Unnamed,
    /// A name of its own kind of its own, which may hold zeroes.
    Abstract(Vec<u8>),
    /// A path in the file system.
    Path(Vec<u8>),
}

impl Name {
    /// Parses a `struct sockaddr_un`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Errno> {
        let [low, high, rest @ ..] = bytes else {
            return Err(Errno::EINVAL);
        };
        if u32::from(u16::from_le_bytes([*low, *high])) != AF_UNIX || bytes.len() > ADDRESS_BYTES {
            return Err(Errno::EINVAL);
        }
        Ok(match rest {
            [] => Self::Unnamed,
            [0, name @ ..] => Self::Abstract(name.to_vec()),
            path => {
                let length = path.iter().position(|&byte| byte == 0);
                Self::Path(path[..length.unwrap_or(path.len())].to_vec())
            }
        })
    }

    /// The `struct sockaddr_un`, as long as the name makes it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = (AF_UNIX as u16).to_le_bytes().to_vec();
        match self {
            Self::Unnamed => {}
            Self::Abstract(name) => {
                bytes.push(0);
                bytes.extend_from_slice(name);
            }
            Self::Path(path) => {
                bytes.extend_from_slice(path);
                bytes.push(0);
            }
        }
        bytes
    }
}

/// Number of the type, and the name.
type Key = (u32, Vec<u8>);

/// Who has which abstract name; each type of socket has names of its own.
#[derive(Default)]
pub(crate) struct Names {
    names: RefCell<BTreeMap<Key, Weak<Shared>>>,
    next: Cell<u32>,
}

/// A socket's hold on an abstract name; dropping it gives the name back.
pub(crate) struct Hold {
    names: Rc<Names>,
    name: Key,
}

impl Names {
    /// Gives a name to a socket.
    pub(crate) fn claim(self: &Rc<Self>, name: &[u8], socket: &Rc<Shared>) -> Result<Hold, Errno> {
        let mut names = self.names.borrow_mut();
        let name = (socket.form.number(), name.to_vec());
        if names.contains_key(&name) {
            return Err(Errno::EADDRINUSE);
        }
        names.insert(name.clone(), Rc::downgrade(socket));
        Ok(Hold {
            names: Rc::clone(self),
            name,
        })
    }

    /// A name that nobody has: five hexadecimal digits, as Linux makes them up.
    pub(crate) fn made_up(&self, form: Form) -> Option<Vec<u8>> {
        for _ in 0..=0xf_ffff {
            let number = self.next.get();
            self.next.set((number + 1) & 0xf_ffff);
            let digit = |shift: u32| b"0123456789abcdef"[(number >> shift & 0xf) as usize];
            let name = [16, 12, 8, 4, 0].map(digit).to_vec();
            let key = (form.number(), name);
            if !self.names.borrow().contains_key(&key) {
                return Some(key.1);
            }
        }
        None
    }

    /// Who has a name, of the sockets of a type.
    pub(crate) fn find(&self, form: Form, name: &[u8]) -> Option<Rc<Shared>> {
        let key = (form.number(), name.to_vec());
        self.names.borrow().get(&key)?.upgrade()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.names.names.borrow_mut().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_round_trip() {
        let names = [
            Name::Unnamed,
            Name::Abstract(b"a\0b".to_vec()),
            Name::Path(b"/run/socket".to_vec()),
        ];
        for name in names {
            assert_eq!(Name::parse(&name.encode()), Ok(name));
        }
    }

    #[test]
    fn long_and_foreign_addresses_are_refused() {
        assert_eq!(Name::parse(&[]), Err(Errno::EINVAL));
        assert_eq!(Name::parse(&[2, 0, 1, 1]), Err(Errno::EINVAL));
        let mut long = Name::Path(alloc::vec![b'x'; 108]).encode();
        long.push(0);
        assert_eq!(Name::parse(&long), Err(Errno::EINVAL));
        assert_eq!(
            Name::parse(&long[..ADDRESS_BYTES]),
            Ok(Name::Path(alloc::vec![b'x'; 108]))
        );
    }
}

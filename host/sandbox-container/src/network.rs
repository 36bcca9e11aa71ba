//! The network of a container: a namespace of its own with a loopback device, nothing else. The daemon reaches the
//! function's port by sockets that are made in that namespace (decision 0016).

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// State `LISTEN` in `/proc/net/tcp` (net/tcp_states.h).
const LISTENING: &str = "0A";

/// Sets the loopback device of this thread's namespace up, by a message of rtnetlink(7).
pub(crate) fn set_loopback_up() -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const LOOPBACK_INDEX: i32 = 1;
    const UP: u32 = 1;
    const ERROR: u16 = 2;
    let mut message = Vec::new();
    // struct nlmsghdr: length, type, flags, sequence, port.
    message.extend(32_u32.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    // struct ifinfomsg: family, padding, type, index, flags, which of them change.
    message.extend([0, 0, 0, 0]);
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&socket, &message, rustix::net::SendFlags::empty())?;
    let mut answer = [0; 64];
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], rustix::net::RecvFlags::empty())?;
    let (Some(kind), Some(error)) = (answer.get(4..6), answer[..length.min(64)].get(16..20)) else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let error = i32::from_ne_bytes(error.try_into().unwrap_or_default());
    match (u16::from_ne_bytes(kind.try_into().unwrap_or_default()), error) {
        (ERROR, 0) => Ok(()),
        (ERROR, error) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The address at which somebody listens on this port in the namespace of a process, if anybody does.
pub(crate) fn listening_address(process: u32, port: u16) -> Option<SocketAddr> {
    let read = |name| fs::read_to_string(format!("/proc/{process}/net/{name}")).unwrap_or_default();
    listener(&read("tcp"), port)
        .or_else(|| listener(&read("tcp6"), port))
        .map(|address| SocketAddr::new(address, port))
}

/// The same in the lines of `/proc/net/tcp` or `/proc/net/tcp6` (proc_pid_net(5)).
fn listener(table: &str, port: u16) -> Option<IpAddr> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, listened) = fields.next()?.split_once(':')?;
        if u16::from_str_radix(listened, 16).ok()? != port || fields.nth(1)? != LISTENING {
            return None;
        }
        let words: Option<Vec<_>> = (0..address.len() / 8)
            .map(|index| u32::from_str_radix(address.get(index * 8..index * 8 + 8)?, 16).ok())
            .collect();
        // Numbers in the machine's order of addresses in the network's.
        match words?.as_slice() {
            [0] => Some(Ipv4Addr::LOCALHOST.into()),
            [word] => Some(Ipv4Addr::from(word.to_ne_bytes()).into()),
            [0, 0, 0, 0] => Some(Ipv6Addr::LOCALHOST.into()),
            words => {
                let bytes: Vec<_> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                let address = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
                Some(address.to_ipv4_mapped().map_or(address.into(), IpAddr::from))
            }
        }
    })
}

struct Order {
    namespace: Arc<File>,
    family: AddressFamily,
    answer: oneshot::Sender<io::Result<OwnedFd>>,
}

/// A thread that makes sockets in whatever namespace is asked for. It ends with the handle.
#[derive(Debug)]
pub(crate) struct Sockets(Sender<Order>);

impl Sockets {
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, queue) = mpsc::channel::<Order>();
        std::thread::Builder::new()
            .name("container-sockets".into())
            .spawn(move || {
                for order in queue {
                    // Nobody waits any more if the connection was given up.
                    let _ = order.answer.send(make(&order.namespace, order.family));
                }
            })?;
        Ok(Self(orders))
    }

    /// Connects to an address of a namespace.
    pub(crate) async fn connect(
        &self,
        namespace: &Arc<File>,
        address: SocketAddr,
    ) -> io::Result<tokio::net::TcpStream> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let (answer, made) = oneshot::channel();
        let gone = || io::Error::other("the thread that makes sockets is gone");
        let order = Order {
            namespace: Arc::clone(namespace),
            family,
            answer,
        };
        self.0.send(order).map_err(|_| gone())?;
        let socket = made.await.map_err(|_| gone())??;
        let stream = tokio::net::TcpSocket::from_std_stream(TcpStream::from(socket))
            .connect(address)
            .await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A socket belongs to the namespace in which it was made, wherever it is used.
fn make(namespace: &File, family: AddressFamily) -> io::Result<OwnedFd> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_read_from_the_kernels_table() {
        let head = "  sl  local_address rem_address   st\n";
        let any = format!("{head}   0: 00000000:1F90 00000000:0000 0A 0:0\n");
        assert_eq!(listener(&any, 8080), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(listener(&any, 8081), None);
        let one = format!("{head}   0: 0200007F:1F90 00000000:0000 0A 0:0\n");
        assert_eq!(listener(&one, 8080), Some(Ipv4Addr::new(127, 0, 0, 2).into()));
        let connected = format!("{head}   0: 0100007F:1F90 0100007F:DE88 01 0:0\n");
        assert_eq!(listener(&connected, 8080), None);
        let zeros = "0".repeat(32);
        let six = format!("{head}   0: {zeros}:1F90 {zeros}:0000 0A 0:0\n");
        assert_eq!(listener(&six, 8080), Some(Ipv6Addr::LOCALHOST.into()));
        for damaged in ["", head, "x\ny", "x\n 0: 0:0 0 0A", "x\n 0: zz:1F90 0 0A"] {
            assert_eq!(listener(damaged, 8080), None);
        }
    }
}

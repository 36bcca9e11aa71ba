//! The TCP/IP stack, on whichever card there is.

use alloc::vec::Vec;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};

use crate::card::Card;
use crate::command_line::Settings;
use crate::machine;

/// Connections that may be there at a time, and the room of each, in bytes for each direction.
const CONNECTIONS: usize = 8;
const ROOM_BYTES: usize = 65_535;

/// Card, stack, and the connections to a port.
pub struct Network {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// The connections.
    pub connections: Vec<SocketHandle>,
    port: u16,
}

fn now() -> Instant {
    Instant::from_micros(machine::now_us() as i64)
}

impl Network {
    /// Takes the address that the command line names, and listens on the port of the variable `PORT`.
    pub fn start(settings: &Settings) -> Self {
        let mut card = Card::find();
        let mac = card.address();
        let mut configuration = Config::new(EthernetAddress(mac).into());
        configuration.random_seed = machine::random();
        let mut interface = Interface::new(configuration, &mut card, now());
        let (address, gateway) = settings
            .address
            .split_once(':')
            .expect("netdev.ip=ADDRESS/PREFIX:GATEWAY");
        let address: Ipv4Cidr = address.parse().expect("an address with a prefix");
        let gateway = gateway.split(':').next().unwrap_or_default();
        let gateway: Ipv4Address = gateway.parse().expect("a gateway's address");
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::Ipv4(address)).expect("there is room"));
        interface
            .routes_mut()
            .add_default_ipv4_route(gateway)
            .expect("there is room");
        let port = settings
            .variable("PORT")
            .and_then(|port| port.parse().ok())
            .unwrap_or(8080);
        let mut sockets = SocketSet::new(Vec::new());
        let room = || tcp::SocketBuffer::new(alloc::vec![0; ROOM_BYTES]);
        let connections = (0..CONNECTIONS)
            .map(|_| sockets.add(tcp::Socket::new(room(), room())))
            .collect();
        Self {
            card,
            interface,
            sockets,
            connections,
            port,
        }
    }

    /// The socket of a connection.
    pub fn socket(&mut self, connection: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(connection)
    }

    /// Lets all happen that is due, and waits for more if nothing was.
    pub fn turn(&mut self, may_wait: bool) {
        for connection in &self.connections {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(*connection);
            if !socket.is_open() {
                socket.listen(self.port).expect("the port is one");
            }
        }
        self.card.acknowledge();
        let result = self.interface.poll(now(), &mut self.card, &mut self.sockets);
        let has_more = self.card.has_frame();
        if may_wait && !has_more && matches!(result, smoltcp::iface::PollResult::None) {
            machine::wait();
        }
    }
}

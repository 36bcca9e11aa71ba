//! A web server: one request after the other, on whichever connection it comes.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use crate::answers;
use crate::command_line::Settings;
use crate::network::Network;

/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
const PIECE_BYTES: usize = 16 << 10;

/// The other side has gone.
pub struct Gone;

/// A request, and the connection that it came on.
pub struct Exchange<'a> {
    network: &'a mut Network,
    connection: SocketHandle,
    /// Its path, without the query.
    pub path: String,
    query: String,
    /// Bytes of its body that were not read yet.
    body_bytes: usize,
}

/// Serves for ever.
pub fn serve(network: &mut Network, settings: &Settings) -> ! {
    let mut state = answers::State::new(settings);
    let mut heads: Vec<_> = network.connections.iter().map(|_| Vec::new()).collect();
    loop {
        network.turn(true);
        for (index, head) in heads.iter_mut().enumerate() {
            let connection = network.connections[index];
            let socket = network.socket(connection);
            if !socket.can_recv() {
                if socket.state() == tcp::State::CloseWait {
                    socket.close();
                }
                if !socket.is_open() {
                    head.clear();
                }
                continue;
            }
            let mut is_whole = false;
            while !is_whole && socket.can_recv() && head.len() < HEAD_BYTES_MAX {
                is_whole = take(socket, head);
            }
            if !is_whole {
                if head.len() >= HEAD_BYTES_MAX {
                    socket.abort();
                }
                continue;
            }
            let head = core::mem::take(head);
            let answered = match parse(&head) {
                Some((path, query, body_bytes)) => {
                    let network = &mut *network;
                    state.answer(Exchange {
                        network,
                        connection,
                        path,
                        query,
                        body_bytes,
                    })
                }
                None => Err(Gone),
            };
            if answered.is_err() {
                network.socket(connection).abort();
            }
        }
    }
}

/// Takes what is there of a head, in one piece: at the end of the socket's room, the rest is at its beginning. Whether it is whole.
fn take(socket: &mut tcp::Socket<'_>, taken: &mut Vec<u8>) -> bool {
    let before = taken.len();
    let is_whole = socket.recv(|bytes| {
        taken.extend_from_slice(bytes);
        match head(taken) {
            Some(length) => {
                taken.truncate(length);
                (length - before, true)
            }
            None => (bytes.len(), false),
        }
    });
    is_whole.unwrap_or(false)
}

/// Length of the head, if all of it is there.
fn head(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Path, query and length of the body.
fn parse(head: &[u8]) -> Option<(String, String, usize)> {
    let mut lines = core::str::from_utf8(head).ok()?.split("\r\n");
    let target = lines.next()?.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut body_bytes = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse().ok()?;
        }
        // The tests send bodies of a known length.
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
    }
    Some((path.to_owned(), query.to_owned(), body_bytes))
}

impl Exchange<'_> {
    /// A number of the query.
    pub fn number(&self, name: &str) -> Option<usize> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(is, _)| *is == name)?.1.parse().ok()
    }

    /// Length of the body.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Answers with a text.
    pub fn text(mut self, text: &str) -> Result<(), Gone> {
        self.finish_body()?;
        self.head(Some(text.len()))?;
        self.write(text.as_bytes())
    }

    /// Answers that it is too early.
    pub fn refuse(mut self) -> Result<(), Gone> {
        self.finish_body()?;
        self.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    }

    /// The head of an answer; without a length, pieces follow.
    pub fn head(&mut self, length: Option<usize>) -> Result<(), Gone> {
        let mut head = String::from("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n");
        match length {
            Some(length) => {
                head.push_str("Content-Length: ");
                head.push_str(&length.to_string());
            }
            None => head.push_str("Transfer-Encoding: chunked"),
        }
        head.push_str("\r\n\r\n");
        self.write(head.as_bytes())
    }

    /// Writes all of it.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let socket = self.network.socket(self.connection);
            if !socket.may_send() {
                return Err(Gone);
            }
            let count = socket.send_slice(bytes).map_err(|_| Gone)?;
            bytes = &bytes[count..];
            self.network.turn(count == 0);
        }
        Ok(())
    }

    /// A piece of the body; empty at its end.
    pub fn read(&mut self) -> Result<Vec<u8>, Gone> {
        let mut bytes = Vec::new();
        while self.body_bytes > 0 {
            let wanted = self.body_bytes.min(PIECE_BYTES);
            let socket = self.network.socket(self.connection);
            let taken = socket.recv(|found| {
                let count = found.len().min(wanted);
                (count, found[..count].to_vec())
            });
            bytes = taken.map_err(|_| Gone)?;
            self.network.turn(bytes.is_empty());
            if !bytes.is_empty() {
                self.body_bytes -= bytes.len();
                break;
            }
        }
        Ok(bytes)
    }

    fn finish_body(&mut self) -> Result<(), Gone> {
        while !self.read()?.is_empty() {}
        Ok(())
    }

    /// Lets time pass, as long as the other side is there.
    pub fn wait(&mut self) -> Result<(), Gone> {
        self.network.turn(true);
        let socket = self.network.socket(self.connection);
        if socket.may_send() && socket.state() == tcp::State::Established {
            Ok(())
        } else {
            Err(Gone)
        }
    }

    /// Sends what was written, without waiting for more.
    pub fn flush(&mut self) {
        while self.network.socket(self.connection).send_queue() > 0
            && self.network.socket(self.connection).may_send()
        {
            self.network.turn(true);
        }
    }
}

//! Streams: connections to the program's port, as frames.
//!
//! ```text
//!   OPEN ──> thread: connect ──> bytes of the connection ──DATA, while there is credit──> daemon
//!   DATA ──> queue (never longer than the window) ──> thread: writes to the connection ──CREDIT──> daemon
//! ```

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use spore_abi::microvm::{CONTENT_BYTES_MAX, Header, Kind, WINDOW_BYTES};

use crate::channel::Channel;
use crate::program::{Program, thread};

/// All streams.
pub(crate) struct Streams {
    shared: Arc<Shared>,
    open: HashMap<u16, Stream>,
}

struct Shared {
    channel: Arc<Channel>,
    program: Arc<Program>,
    port: u16,
}

/// What of the daemon is for the threads of a stream.
struct Stream {
    queue: Sender<Order>,
    credit: Arc<Credit>,
}

enum Order {
    Write(Vec<u8>),
    Close,
    Reset,
}

/// How many bytes may be sent to the daemon.
struct Credit {
    /// None once nothing may be sent any more.
    bytes: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Credit {
    fn new() -> Self {
        Self {
            bytes: Mutex::new(Some(WINDOW_BYTES)),
            changed: Condvar::new(),
        }
    }

    fn grow(&self, by: usize) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *bytes = bytes.map(|bytes| bytes.saturating_add(by));
        self.changed.notify_one();
    }

    /// Nothing may be sent any more: whoever waits is told so.
    fn end(&self) {
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.changed.notify_one();
    }

    /// Waits until there is some; how much, at most `wanted`. None if there will never be any.
    fn wait(&self, wanted: usize) -> Option<usize> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.changed.wait_while(bytes, |bytes| *bytes == Some(0));
        bytes
            .unwrap_or_else(PoisonError::into_inner)
            .map(|bytes| bytes.min(wanted))
    }

    fn take(&self, count: usize) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *bytes = bytes.map(|bytes| bytes.saturating_sub(count));
    }
}

impl Streams {
    pub(crate) fn new(channel: Arc<Channel>, program: Arc<Program>, port: u16) -> Self {
        let shared = Shared {
            channel,
            program,
            port,
        };
        Self {
            shared: Arc::new(shared),
            open: HashMap::new(),
        }
    }

    /// Takes a frame of the daemon. Returns at once.
    pub(crate) fn take(&mut self, header: Header, content: Vec<u8>) {
        if header.kind == Kind::Open {
            self.open(header.stream);
            return;
        }
        let Some(stream) = self.open.get(&header.stream) else {
            return;
        };
        // Where the threads have ended already, nobody cares.
        match header.kind {
            Kind::Data => drop(stream.queue.send(Order::Write(content))),
            Kind::Close => drop(stream.queue.send(Order::Close)),
            Kind::Reset => {
                let _ = stream.queue.send(Order::Reset);
                stream.credit.end();
                self.open.remove(&header.stream);
            }
            Kind::Credit => {
                let bytes = content.try_into().map_or(0, u32::from_le_bytes);
                stream.credit.grow(bytes as usize);
            }
            _ => {}
        }
    }

    fn open(&mut self, number: u16) {
        let (queue, orders) = channel();
        let credit = Arc::new(Credit::new());
        let stream = Stream {
            queue,
            credit: Arc::clone(&credit),
        };
        // The daemon uses a number again when both sides have said that it is over.
        self.open.insert(number, stream);
        let shared = Arc::clone(&self.shared);
        if thread(move || shared.carry(number, &orders, &credit)).is_err() {
            // Nobody is there to answer when the daemon has heard it.
            self.open.remove(&number);
            let _ = self.shared.channel.send(Kind::Reset, number, &[]);
            let _ = self.shared.channel.send(Kind::Over, number, &[]);
        }
    }
}

impl Shared {
    fn connect(&self) -> io::Result<TcpStream> {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, self.port));
        let connection = TcpStream::connect(v4).or_else(|_| TcpStream::connect(v6))?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }

    /// Connects, and writes what the daemon sends.
    fn carry(self: Arc<Self>, number: u16, orders: &Receiver<Order>, credit: &Arc<Credit>) {
        let begun = self.connect().and_then(|connection| {
            let reading = connection.try_clone()?;
            let (shared, credit) = (Arc::clone(&self), Arc::clone(credit));
            let reader = thread(move || shared.read(number, reading, &credit))?;
            Ok((connection, reader))
        });
        let mut begun = match begun {
            Ok(begun) => Some(begun),
            Err(_) => {
                self.end(number, Kind::Reset);
                None
            }
        };
        for order in orders {
            match order {
                Order::Write(bytes) => {
                    if let Some((connection, _)) = &mut begun {
                        // What cannot be written is over: reading says so.
                        let _ = connection.write_all(&bytes);
                    }
                    let count = (bytes.len() as u32).to_le_bytes();
                    let _ = self.channel.send(Kind::Credit, number, &count);
                }
                Order::Close => {
                    if let Some((connection, _)) = &begun {
                        let _ = connection.shutdown(Shutdown::Write);
                    }
                }
                Order::Reset => {
                    if let Some((connection, reader)) = begun.take() {
                        let _ = connection.shutdown(Shutdown::Both);
                        // It sends nothing any more.
                        let _ = reader.join();
                    }
                    let _ = self.channel.send(Kind::Over, number, &[]);
                    return;
                }
            }
        }
    }

    /// Reads what the program writes, up to the end.
    fn read(&self, number: u16, mut connection: TcpStream, credit: &Credit) {
        let mut bytes = vec![0; CONTENT_BYTES_MAX];
        loop {
            // The daemon has ended the stream, and hears of nothing but that it is over.
            let Some(room) = credit.wait(bytes.len()) else {
                return;
            };
            match connection.read(&mut bytes[..room]) {
                Ok(0) => return self.end(number, Kind::Close),
                Ok(count) => {
                    credit.take(count);
                    if self.channel.send(Kind::Data, number, &bytes[..count]).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.end(number, Kind::Reset),
            }
        }
    }

    /// Tells that no more will come, unless it is the program's end that closes everything: the daemon is told of that.
    fn end(&self, number: u16, kind: Kind) {
        if !self.program.is_ending() {
            let _ = self.channel.send(kind, number, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_stream_gives_no_credit() {
        let credit = Arc::new(Credit::new());
        assert_eq!(credit.wait(100), Some(100));
        credit.take(WINDOW_BYTES - 10);
        assert_eq!(credit.wait(100), Some(10));
        credit.take(10);
        let waiting = {
            let credit = Arc::clone(&credit);
            std::thread::spawn(move || credit.wait(100))
        };
        credit.end();
        assert_eq!(waiting.join().unwrap(), None);
        credit.grow(100);
        assert_eq!(credit.wait(100), None);
    }
}

//! What requests get: the same as from the tests' Linux programs `httpd` and `faults`, as far as a unikernel can.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::command_line::Settings;
use crate::http::{Exchange, Gone};
use crate::{machine, println};

const PIECE_BYTES: usize = 8 << 10;

/// What is the same for all requests.
pub struct State<'a> {
    settings: &'a Settings,
    identity: String,
    count: u64,
}

impl<'a> State<'a> {
    /// Of a machine that has just started.
    pub fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            identity: format!("{:016x}{:016x}\n", machine::random(), machine::random()),
            count: 0,
        }
    }

    fn is_faults(&self) -> bool {
        self.settings
            .arguments
            .first()
            .is_some_and(|argument| argument == "faults")
    }

    /// Answers a request.
    pub fn answer(&mut self, mut exchange: Exchange<'_>) -> Result<(), Gone> {
        self.count += 1;
        match exchange.path.as_str() {
            "/" if self.is_faults() => exchange.text("ok\n"),
            "/" => exchange.text("hello from a unikernel of somebody else's\n"),
            "/identity" => exchange.text(&self.identity),
            "/count" => exchange.text(&format!("{}\n", self.count)),
            // Not yet, until it was asked twice.
            "/ready" if self.count < 3 => exchange.refuse(),
            "/environment" => exchange.text(&(self.settings.variables.join("\n") + "\n")),
            "/arguments" => exchange.text(&(self.settings.arguments.join("\n") + "\n")),
            "/echo" => echo(exchange),
            "/bytes" | "/chunked" => bytes(exchange),
            "/die" => die(exchange),
            "/log" => {
                for line in 0..exchange.number("lines").unwrap_or(1) {
                    println!("stdout line {line}");
                }
                exchange.text("written\n")
            }
            "/sleep" => {
                let end = machine::now_us() + exchange.number("ms").unwrap_or(0) as u64 * 1000;
                while machine::now_us() < end {
                    exchange.wait()?;
                }
                exchange.text("slept\n")
            }
            "/exit" => machine::exit(exchange.number("code").unwrap_or(0) as u8),
            // The first 4 GiB are mapped, so that an address is taken that cannot be.
            "/null" => {
                // SAFETY: it is not: no such address can be, and the machine resets, as is asked for.
                unsafe { (0x8000_0000_0000_usize as *mut u8).write_volatile(1) };
                exchange.text("written\n")
            }
            "/spin" => loop {
                core::hint::spin_loop();
            },
            "/flood" => loop {
                println!("{:0100}", 0);
            },
            "/memory" => {
                let mut taken = Vec::new();
                loop {
                    taken.push(alloc::vec![1_u8; 1 << 20]);
                    exchange.wait()?;
                }
            }
            _ => exchange.text("no such thing\n"),
        }
    }
}

fn echo(mut exchange: Exchange<'_>) -> Result<(), Gone> {
    let length = exchange.body_bytes();
    exchange.head(Some(length))?;
    loop {
        let piece = exchange.read()?;
        if piece.is_empty() {
            return Ok(());
        }
        exchange.write(&piece)?;
    }
}

fn bytes(mut exchange: Exchange<'_>) -> Result<(), Gone> {
    let is_chunked = exchange.path == "/chunked";
    let mut left = exchange.number("count").unwrap_or(0);
    exchange.head((!is_chunked).then_some(left))?;
    let piece = [b'x'; PIECE_BYTES];
    while left > 0 {
        let count = left.min(PIECE_BYTES);
        if is_chunked {
            exchange.write(format!("{count:x}\r\n").as_bytes())?;
        }
        exchange.write(&piece[..count])?;
        if is_chunked {
            exchange.write(b"\r\n")?;
        }
        left -= count;
    }
    if is_chunked {
        exchange.write(b"0\r\n\r\n")?;
    }
    Ok(())
}

/// Promises more than it sends.
fn die(mut exchange: Exchange<'_>) -> Result<(), Gone> {
    let count = exchange.number("after").unwrap_or(0);
    exchange.head(Some(count * 2))?;
    exchange.write(&alloc::vec![b'x'; count])?;
    exchange.flush();
    machine::exit(0)
}

//! The network card: one of virtio, on the machine's PCI bus.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::vec::Vec;
use core::alloc::Layout;
use core::cell::RefCell;
use core::ptr::NonNull;

use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use virtio_drivers::device::net::VirtIONet;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::{DeviceType, pci::virtio_device_type};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::machine::{read_port, write_port};

const QUEUE_LENGTH: usize = 32;
const BUFFER_BYTES: usize = 2048;
const FRAME_BYTES: usize = 1514;
const CONFIGURATION_ADDRESS_PORT: u16 = 0xcf8;
const CONFIGURATION_DATA_PORT: u16 = 0xcfc;

struct Memory;

fn pages(count: usize) -> Layout {
    Layout::from_size_align(count * PAGE_SIZE, PAGE_SIZE).expect("few pages")
}

// SAFETY: memory is mapped to itself; what is handed out is zeroed, aligned to pages, and nobody else's.
unsafe impl Hal for Memory {
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the length is not zero: the driver asks for at least a page.
        let memory = unsafe { alloc_zeroed(pages(count)) };
        let memory = NonNull::new(memory).expect("there is memory for the driver");
        (memory.as_ptr() as PhysAddr, memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, count: usize) -> i32 {
        // SAFETY: the driver gives back what it got from `dma_alloc`.
        unsafe { dealloc(memory.as_ptr(), pages(count)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).expect("devices are not at 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The configuration of cards, by the two ports of old.
struct Configuration;

fn select(card: DeviceFunction, offset: u8) {
    let place = u32::from(card.bus) << 16 | u32::from(card.device) << 11 | u32::from(card.function) << 8;
    write_port(
        CONFIGURATION_ADDRESS_PORT,
        1 << 31 | place | u32::from(offset & 0xfc),
    );
}

impl ConfigurationAccess for Configuration {
    fn read_word(&self, card: DeviceFunction, offset: u8) -> u32 {
        select(card, offset);
        read_port(CONFIGURATION_DATA_PORT)
    }

    fn write_word(&mut self, card: DeviceFunction, offset: u8, value: u32) {
        select(card, offset);
        write_port(CONFIGURATION_DATA_PORT, value);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

type Driver = VirtIONet<Memory, PciTransport, QUEUE_LENGTH>;

/// The card.
pub struct Card(RefCell<Driver>);

impl Card {
    /// Looks for it on the bus.
    pub fn find() -> Self {
        let mut root = PciRoot::new(Configuration);
        let found = root.enumerate_bus(0).find_map(|(place, information)| {
            let kind = virtio_device_type(&information)?;
            (kind == DeviceType::Network).then_some(place)
        });
        let place = found.expect("the machine has a network card of virtio");
        root.set_command(
            place,
            Command::IO_SPACE | Command::MEMORY_SPACE | Command::BUS_MASTER,
        );
        let transport = PciTransport::new::<Memory, _>(&mut root, place).expect("the card is a modern one");
        let driver = Driver::new(transport, BUFFER_BYTES).expect("the card works");
        Self(RefCell::new(driver))
    }

    /// Its address.
    pub fn address(&self) -> [u8; 6] {
        self.0.borrow().mac_address()
    }

    /// Tells it that its interrupt was seen.
    pub fn acknowledge(&self) {
        self.0.borrow_mut().ack_interrupt();
    }

    /// Whether a frame has come.
    pub fn has_frame(&self) -> bool {
        self.0.borrow().can_recv()
    }
}

/// A frame that has come.
pub struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

/// Room for one.
pub struct Place<'a>(&'a RefCell<Driver>);

impl phy::TxToken for Place<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut driver = self.0.borrow_mut();
        let mut buffer = driver.new_tx_buffer(length);
        let written = write(buffer.packet_mut());
        // A frame that is lost is sent again.
        let _ = driver.send(buffer);
        written
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Place<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Place<'_>)> {
        let mut driver = self.0.borrow_mut();
        if !driver.can_recv() {
            return None;
        }
        let buffer = driver.receive().ok()?;
        let bytes = buffer.packet().to_vec();
        driver.recycle_rx_buffer(buffer).ok()?;
        drop(driver);
        Some((Received(bytes), Place(&self.0)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Place<'_>> {
        let can_send = self.0.borrow().can_send();
        can_send.then_some(Place(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities
    }
}

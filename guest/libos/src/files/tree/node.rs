//! Nodes: what a file is, whatever its names are.

use alloc::boxed::Box;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use linux_raw_sys::general::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG};
use spore_abi::layout::PAGE_BYTES;
use spore_machine::shared;
use spore_machine::user::Place;

use super::directory::Directory;
use super::volume::{Share, Volume};
use crate::errno::Errno;
use crate::files::contents::Contents;
use crate::files::erofs;
use crate::files::generated::Generated;
use crate::files::metadata::device_number;
use crate::files::pipe::Fifo;
use crate::files::{Kind, Mapping, Metadata};
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::network::unix::Shared as Socket;
use crate::time::realtime_ns;

/// Which file system a node seems to be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Root = 21,
    Devices = 22,
    SharedMemory = 23,
    Processes = 24,
    System = 25,
    Secrets = 26,
}

/// A file.
pub(crate) struct Node {
    pub(crate) number: u64,
    pub(crate) device: Device,
    pub(crate) body: Body,
    pub(crate) volume: Rc<Volume>,
    mode: Cell<u32>,
    uid: Cell<u32>,
    gid: Cell<u32>,
    links: Cell<u32>,
    accessed_ns: Cell<u64>,
    modified_ns: Cell<u64>,
    changed_ns: Cell<u64>,
    /// It differs from what the image has.
    is_changed: Cell<bool>,
    _share: Option<Share>,
}

/// What there is in a node beside its attributes.
pub(crate) enum Body {
    Regular(RefCell<Bytes>),
    Directory(Box<Directory>),
    Link(Text),
    Fifo(Fifo),
    /// A device with its number.
    Device(u64),
    /// A socket, while somebody has it open.
    Socket(RefCell<Weak<Socket>>),
    /// A file or directory of `/proc` or `/sys`.
    Generated(Generated),
}

/// Contents of a regular file.
pub(crate) enum Bytes {
    Image(erofs::Inode),
    Module { offset: u64, bytes: u64 },
    Memory(Contents),
}

/// Where a symbolic link leads.
pub(crate) enum Text {
    Image(erofs::Inode),
    Memory(Box<[u8]>),
}

impl Node {
    /// A node in memory.
    pub(crate) fn new(volume: &Rc<Volume>, device: Device, mode: u32, body: Body, share: Share) -> Rc<Self> {
        let now_ns = now_ns();
        let (uid, gid) = volume.owner.get();
        Rc::new(Self {
            number: volume.next_number(),
            device,
            body,
            volume: Rc::clone(volume),
            mode: Cell::new(mode),
            uid: Cell::new(uid),
            gid: Cell::new(gid),
            links: Cell::new(if mode & S_IFMT == S_IFDIR { 2 } else { 1 }),
            accessed_ns: Cell::new(now_ns),
            modified_ns: Cell::new(now_ns),
            changed_ns: Cell::new(now_ns),
            is_changed: Cell::new(true),
            _share: Some(share),
        })
    }

    /// A node of the image.
    pub(crate) fn of_image(volume: &Rc<Volume>, inode: erofs::Inode) -> Result<Rc<Self>, Errno> {
        let body = match Kind::of_mode(inode.mode).ok_or(Errno::EUCLEAN)? {
            Kind::Regular => Body::Regular(RefCell::new(Bytes::Image(inode))),
            Kind::Directory => Body::Directory(Box::new(Directory::new(Some(inode)))),
            Kind::SymbolicLink => Body::Link(Text::Image(inode)),
            Kind::CharacterDevice | Kind::BlockDevice => Body::Device(inode.rdev),
            Kind::Pipe => Body::Fifo(Fifo::default()),
            _ => Body::Socket(RefCell::default()),
        };
        Ok(Rc::new(Self {
            number: inode.number,
            device: Device::Root,
            body,
            volume: Rc::clone(volume),
            mode: Cell::new(inode.mode),
            uid: Cell::new(inode.uid),
            gid: Cell::new(inode.gid),
            links: Cell::new(inode.links.max(1)),
            accessed_ns: Cell::new(inode.modified_ns),
            modified_ns: Cell::new(inode.modified_ns),
            changed_ns: Cell::new(inode.modified_ns),
            is_changed: Cell::new(false),
            _share: None,
        }))
    }

    /// A node whose contents are made when it is opened.
    pub(crate) fn of_generated(volume: &Rc<Volume>, device: Device, generated: Generated) -> Rc<Self> {
        let now_ns = now_ns();
        let mode = generated.mode();
        Rc::new(Self {
            number: generated.number(),
            device,
            body: Body::Generated(generated),
            volume: Rc::clone(volume),
            mode: Cell::new(mode),
            uid: Cell::new(0),
            gid: Cell::new(0),
            links: Cell::new(if mode & S_IFMT == S_IFDIR { 2 } else { 1 }),
            accessed_ns: Cell::new(now_ns),
            modified_ns: Cell::new(now_ns),
            changed_ns: Cell::new(now_ns),
            is_changed: Cell::new(true),
            _share: None,
        })
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> Kind {
        Kind::of_mode(self.mode.get()).unwrap_or(Kind::Anonymous)
    }

    /// Type and permission bits.
    pub(crate) fn mode(&self) -> u32 {
        self.mode.get()
    }

    /// Group of the file.
    pub(crate) fn gid(&self) -> u32 {
        self.gid.get()
    }

    /// Number of names.
    pub(crate) fn links(&self) -> u32 {
        self.links.get()
    }

    /// Whether it differs from what the image has.
    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed.get()
    }

    /// The directory that it is.
    pub(crate) fn directory(&self) -> Option<&Directory> {
        match &self.body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Whether it is a directory of any kind.
    pub(crate) fn is_directory(&self) -> bool {
        self.mode.get() & S_IFMT == S_IFDIR
    }

    /// Whether nothing about it can be changed, as on a file system that is mounted read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.device == Device::Secrets
    }

    /// Whether it is a symbolic link of any kind.
    pub(crate) fn is_link(&self) -> bool {
        self.mode.get() & S_IFMT == S_IFLNK
    }

    /// Sets permission bits.
    pub(crate) fn set_permissions(&self, bits: u32) {
        self.mode.set(self.mode.get() & S_IFMT | bits & 0o7777);
        self.note_change();
    }

    /// Sets owner and group; `None` leaves one as it is. Executables lose their set-id bits.
    pub(crate) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) {
        self.uid.set(uid.unwrap_or(self.uid.get()));
        self.gid.set(gid.unwrap_or(self.gid.get()));
        let mode = self.mode.get();
        if mode & S_IFMT == S_IFREG && mode & 0o111 != 0 {
            self.mode.set(mode & !0o6000);
        }
        self.note_change();
    }

    /// Sets times; `None` leaves one as it is.
    pub(crate) fn set_times(&self, accessed_ns: Option<u64>, modified_ns: Option<u64>) {
        self.accessed_ns
            .set(accessed_ns.unwrap_or(self.accessed_ns.get()));
        self.modified_ns
            .set(modified_ns.unwrap_or(self.modified_ns.get()));
        self.note_change();
    }

    /// Sets the number of names.
    pub(crate) fn set_links(&self, links: u32) {
        self.links.set(links);
        self.note_change();
    }

    /// Attributes have changed.
    fn note_change(&self) {
        self.changed_ns.set(now_ns());
        self.is_changed.set(true);
    }

    /// Contents have changed.
    pub(crate) fn note_modification(&self) {
        let now_ns = now_ns();
        self.modified_ns.set(now_ns);
        self.changed_ns.set(now_ns);
        self.is_changed.set(true);
    }

    /// What `stat` shows.
    pub(crate) fn metadata(&self) -> Metadata {
        let (size, blocks) = match &self.body {
            Body::Regular(bytes) => match &*bytes.borrow() {
                Bytes::Image(inode) => (inode.size, inode.size.div_ceil(512)),
                Bytes::Module { bytes, .. } => (*bytes, bytes.div_ceil(512)),
                Bytes::Memory(contents) => (contents.size(), contents.blocks()),
            },
            Body::Directory(_) => (4096, 8),
            Body::Link(Text::Image(inode)) => (inode.size, 0),
            Body::Link(Text::Memory(text)) => (text.len() as u64, 0),
            _ => (0, 0),
        };
        Metadata {
            mode: self.mode.get(),
            uid: self.uid.get(),
            gid: self.gid.get(),
            links: self.links.get(),
            inode: self.number,
            device: device_number(0, self.device as u32),
            rdev: if let Body::Device(rdev) = self.body {
                rdev
            } else {
                0
            },
            size,
            blocks,
            accessed_ns: self.accessed_ns.get(),
            modified_ns: self.modified_ns.get(),
            changed_ns: self.changed_ns.get(),
        }
    }

    /// Where a symbolic link leads, as a text.
    pub(crate) fn link_text(&self) -> Result<Vec<u8>, Errno> {
        match &self.body {
            Body::Link(Text::Memory(text)) => Ok(text.to_vec()),
            Body::Link(Text::Image(inode)) => {
                if inode.size == 0 || inode.size >= PAGE_BYTES {
                    return Err(Errno::EUCLEAN);
                }
                let mut text = alloc::vec![0; inode.size as usize];
                self.volume.image()?.read(inode, 0, &mut text)?;
                Ok(text)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn bytes(&self) -> Result<&RefCell<Bytes>, Errno> {
        match &self.body {
            Body::Regular(bytes) => Ok(bytes),
            Body::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The length of a regular file.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(match &*self.bytes().ok()?.borrow() {
            Bytes::Image(inode) => inode.size,
            Bytes::Module { bytes, .. } => *bytes,
            Bytes::Memory(contents) => contents.size(),
        })
    }

    /// Copies contents from `position` on into the program's buffers; returns how much.
    pub(crate) fn read_at(
        &self,
        kernel: &mut Kernel,
        position: u64,
        buffers: &mut Buffers,
    ) -> Result<u64, Errno> {
        let bytes = self.bytes()?.borrow();
        let space = &mut kernel.process.space;
        let size = match &*bytes {
            Bytes::Memory(contents) => return contents.read_at(space, position, buffers),
            Bytes::Module { bytes, .. } => *bytes,
            Bytes::Image(inode) => inode.size,
        };
        let wanted = size.saturating_sub(position).min(buffers.remaining());
        let mut total = 0;
        while total < wanted {
            let extent = self.extent(&bytes, position + total)?;
            let length = extent.bytes.min(wanted - total);
            let copied = match extent.offset {
                Some(offset) => buffers.put_from(space, Place::Module(offset), length),
                None => buffers.put(space, &[0; 512][..length.min(512) as usize]),
            };
            match copied {
                Ok(0) => break,
                Ok(done) => total += done,
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    /// Where contents of a file that is not in memory are.
    fn extent(&self, bytes: &Bytes, position: u64) -> Result<erofs::Extent, Errno> {
        match bytes {
            Bytes::Image(inode) => {
                let extent = self.volume.image()?.map(inode, position)?;
                if extent.bytes == 0 {
                    Err(Errno::EUCLEAN)
                } else {
                    Ok(extent)
                }
            }
            Bytes::Module { offset, bytes } => Ok(erofs::Extent {
                offset: Some(offset.saturating_add(position)),
                bytes: bytes.saturating_sub(position),
            }),
            Bytes::Memory(_) => Err(Errno::EIO),
        }
    }

    /// Copies contents into memory of the library OS; returns how much there was.
    pub(crate) fn peek(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        match &*self.bytes()?.borrow() {
            Bytes::Memory(contents) => Ok(contents.peek(offset, buffer)),
            Bytes::Image(inode) => self.volume.image()?.read(inode, offset, buffer),
            Bytes::Module { offset: start, bytes } => {
                let length = bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
                let at = start.saturating_add(offset);
                if length > 0 && !shared::read_module(at, &mut buffer[..length]) {
                    return Err(Errno::EIO);
                }
                Ok(length)
            }
        }
    }

    /// Runs `work` on the contents in memory, copying them there first if they are not.
    pub(crate) fn with_contents<R>(
        &self,
        work: impl FnOnce(&Contents) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let bytes = self.bytes()?;
        let size = match &*bytes.borrow() {
            Bytes::Memory(contents) => return work(contents),
            Bytes::Image(inode) => inode.size,
            Bytes::Module { bytes, .. } => *bytes,
        };
        let contents = Contents::new(&self.volume.frames);
        if size > contents.pages().free_bytes().saturating_mul(16) {
            return Err(Errno::ENOSPC);
        }
        let mut page = [0; PAGE_BYTES as usize];
        let mut done = 0;
        while done < size {
            let length = self.peek(done, &mut page)?;
            if length == 0 {
                return Err(Errno::EIO);
            }
            let is_hole = page[..length].iter().all(|&byte| byte == 0);
            if !is_hole {
                contents.poke(done, &page[..length])?;
            }
            done += length as u64;
        }
        contents.set_size(size);
        bytes.replace(Bytes::Memory(contents));
        match &*bytes.borrow() {
            Bytes::Memory(contents) => work(contents),
            _ => Err(Errno::EIO),
        }
    }

    /// Runs `work` on the contents if they are in memory.
    pub(crate) fn contents_in_memory<R>(&self, work: impl FnOnce(&Contents) -> R) -> Option<R> {
        match &*self.bytes().ok()?.borrow() {
            Bytes::Memory(contents) => Some(work(contents)),
            _ => None,
        }
    }

    /// Makes a regular file empty without copying what it had.
    pub(crate) fn make_empty(&self, kernel: &mut Kernel) -> Result<(), Errno> {
        let bytes = self.bytes()?;
        if let Bytes::Memory(contents) = &*bytes.borrow() {
            contents.truncate(kernel, 0)?;
            self.note_modification();
            return Ok(());
        }
        bytes.replace(Bytes::Memory(Contents::new(&self.volume.frames)));
        self.note_modification();
        Ok(())
    }

    /// What a private mapping leads to. Contents that are scattered in the image are copied to memory.
    pub(crate) fn mapping(&self) -> Result<Mapping, Errno> {
        let in_one_piece = match &*self.bytes().map_err(|_| Errno::ENODEV)?.borrow() {
            Bytes::Memory(_) => None,
            Bytes::Module { offset, bytes } => Some((*offset, *bytes)),
            Bytes::Image(inode) => self
                .volume
                .image()?
                .contiguous(inode, PAGE_BYTES)?
                .map(|offset| (offset, inode.size)),
        };
        match in_one_piece {
            Some((offset, bytes)) => Ok(Mapping::Module { offset, bytes }),
            None => self.with_contents(|contents| Ok(Mapping::Pages(Rc::clone(contents.pages())))),
        }
    }
}

/// The time of a change.
fn now_ns() -> u64 {
    // Where there is no machine, there is no clock.
    if cfg!(test) { 0 } else { realtime_ns() }
}

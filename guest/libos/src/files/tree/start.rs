//! What is in the tree when the program starts.
//!
//! Below is the image, or nothing but the single program. Over it lie `/dev`, `/proc` and `/sys`, `/tmp`, and what
//! containers are given in `/etc`.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use linux_raw_sys::general::{S_IFCHR, S_IFDIR, S_IFREG, S_ISVTX};
use spore_abi::layout::{FREE_GPA, START_BLOCK_BYTES};
use spore_abi::pages::{BootPage, MORE_GROUPS_MAX, boot_flags};
use spore_machine::{reserved, shared};

use super::directory::Directory;
use super::node::{Body, Bytes, Device, Node};
use super::volume::RootModule;
use super::walk::{Follow, Found, Last, Target, walk};
use super::{Entry, Tree, Volume, change};
use crate::errno::Errno;
use crate::files::contents::Contents;
use crate::files::erofs::Image;
use crate::files::metadata::device_number;
use crate::files::{generated, generation};
use crate::kernel::Kernel;
use crate::memory::frames::SharedFrames;
use crate::network::names::network_files;
use crate::process::Identity;
use crate::task::ReadyQueue;

/// Least that nodes may take of the library OS's memory, in bytes.
const NODES_BYTES_MIN: u64 = 1 << 20;

/// A line of `/proc/mounts`.
pub(crate) struct Mount {
    pub(crate) source: &'static str,
    pub(crate) place: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) options: &'static str,
    pub(crate) device: Device,
}

/// What seems to be mounted.
pub(crate) const MOUNTS: &[Mount] = &[
    Mount {
        source: "overlay",
        place: "/",
        kind: "overlay",
        options: "rw,noatime",
        device: Device::Root,
    },
    Mount {
        source: "proc",
        place: "/proc",
        kind: "proc",
        options: "rw,nosuid,nodev,noexec,relatime",
        device: Device::Processes,
    },
    Mount {
        source: "tmpfs",
        place: "/dev",
        kind: "tmpfs",
        options: "rw,nosuid,noatime,mode=755",
        device: Device::Devices,
    },
    Mount {
        source: "shm",
        place: "/dev/shm",
        kind: "tmpfs",
        options: "rw,nosuid,nodev,noatime",
        device: Device::SharedMemory,
    },
    Mount {
        source: "sysfs",
        place: "/sys",
        kind: "sysfs",
        options: "ro,nosuid,nodev,noexec,relatime",
        device: Device::System,
    },
    Mount {
        source: "cgroup",
        place: "/sys/fs/cgroup",
        kind: "cgroup2",
        options: "ro,nosuid,nodev,noexec,relatime",
        device: Device::System,
    },
];

/// Character devices of `/dev`: name and number.
const DEVICES: [(&[u8], u32, u32); 6] = [
    (b"null", 1, 3),
    (b"zero", 1, 5),
    (b"full", 1, 7),
    (b"random", 1, 8),
    (b"urandom", 1, 9),
    (b"tty", 5, 0),
];

/// Symbolic links of `/dev`.
const DEVICE_LINKS: [(&[u8], &[u8]); 4] = [
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
];

/// The tree of a machine that looks as the boot page says, without what lies over the image.
pub(crate) fn tree(boot: &BootPage, frames: &SharedFrames, ready: &Rc<ReadyQueue>) -> Result<Tree, Errno> {
    let is_image = boot.flags & boot_flags::ROOT_IS_EROFS != 0;
    let image = if is_image {
        Some(Image::open(RootModule)?)
    } else {
        None
    };
    let root_number = image.as_ref().map(Image::root);
    // Nodes may take a third of the library OS's memory.
    let heap_bytes = reserved::end_gpa().saturating_sub(FREE_GPA);
    let bytes_max = (heap_bytes / 3).max(NODES_BYTES_MIN);
    let volume = Volume::new(
        image,
        frames,
        ready,
        usize::try_from(bytes_max).unwrap_or(usize::MAX),
    );
    let root = match root_number {
        Some(number) => volume.image_node(number)?,
        None => volume.new_node(Device::Root, S_IFDIR | 0o755, directory(), 0)?,
    };
    Ok(Tree {
        root: Entry::new(b"", None, root),
        volume,
    })
}

fn directory() -> Body {
    Body::Directory(Box::new(Directory::new(None)))
}

fn start_block(boot: &BootPage) -> Vec<u8> {
    let mut block = alloc::vec![0; u64::from(boot.start_block_bytes).min(START_BLOCK_BYTES) as usize];
    shared::start_block(&mut block);
    block
}

/// The program's name and the working directory, as the start block has them.
fn start_names(boot: &BootPage) -> (Vec<u8>, Vec<u8>) {
    let block = start_block(boot);
    let mut strings = block.split(|&byte| byte == 0);
    let before = boot.argument_count.saturating_add(boot.environment_count) as usize;
    let working = strings.clone().nth(before).unwrap_or_default().to_vec();
    let program = match boot.argument_count {
        0 => Vec::new(),
        _ => strings.next().unwrap_or_default().to_vec(),
    };
    (program, working)
}

/// Where the function's secrets are, as OpenFaaS has them.
const SECRETS: &[u8] = b"/var/openfaas/secrets";

/// Names and values of the secrets at the end of the start block, as far as they are whole.
fn secrets(block: &[u8], secrets_bytes: u32) -> Vec<(&[u8], &[u8])> {
    fn next<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let (name_bytes, after) = rest.split_first_chunk()?;
        let (value_bytes, after) = after.split_first_chunk()?;
        let (name, after) = after.split_at_checked(u32::from_le_bytes(*name_bytes) as usize)?;
        let (value, after) = after.split_at_checked(u32::from_le_bytes(*value_bytes) as usize)?;
        *rest = after;
        Some((name, value))
    }
    let start = block.len().saturating_sub(secrets_bytes as usize);
    let mut rest = &block[start..];
    core::iter::from_fn(|| next(&mut rest)).collect()
}

/// The further groups of the program, before the secrets.
fn more_groups(block: &[u8], secrets_bytes: u32, count: u32) -> Vec<u32> {
    let end = block.len().saturating_sub(secrets_bytes as usize);
    let count = (count as usize).min(MORE_GROUPS_MAX);
    let (groups, _) = block[end.saturating_sub(count * 4)..end].as_chunks();
    groups.iter().map(|group| u32::from_le_bytes(*group)).collect()
}

/// The program is from now on whom the image names.
fn become_user(kernel: &mut Kernel, boot: &BootPage) {
    let groups = more_groups(&start_block(boot), boot.secrets_bytes, boot.more_groups_count);
    kernel.process.identity = Identity::new(boot.user, boot.group, groups);
    kernel.announce_user();
    if boot.flags & boot_flags::ROOT_IS_EROFS == 0 {
        // Else the image says whose it is.
        kernel.tree.root.node.set_owner(Some(boot.user), Some(boot.group));
    }
}

/// Puts the function's secrets where programs look for them, as files that nobody can change.
fn place_secrets(kernel: &mut Kernel, boot: &BootPage) -> Result<(), Errno> {
    if boot.secrets_bytes == 0 {
        return Ok(());
    }
    let (folder, name) = SECRETS.split_at(SECRETS.len() - b"/secrets".len());
    make_directories(kernel, folder, 0o755)?;
    let root = Rc::clone(&kernel.tree.root);
    let parent = walk(kernel, &root, folder, Follow::All)?.entry()?;
    let volume = Rc::clone(&kernel.tree.volume);
    let node = volume.new_node(Device::Secrets, S_IFDIR | 0o755, directory(), 0)?;
    let secrets_folder = mount(&parent, &name[1..], node)?;
    let block = start_block(boot);
    for (name, value) in secrets(&block, boot.secrets_bytes) {
        let contents = Contents::new(&volume.frames);
        contents.poke(0, value)?;
        let body = Body::Regular(RefCell::new(Bytes::Memory(contents)));
        let node = volume.new_node(Device::Secrets, S_IFREG | 0o444, body, name.len())?;
        mount(&secrets_folder, name, node)?;
    }
    Ok(())
}

/// Puts over the image what a container finds beside it. The working directory and the single program, by the path
/// that names it, are made if they are not there.
pub(crate) fn furnish(kernel: &mut Kernel, boot: &BootPage) -> Result<(), Errno> {
    let (program, working) = start_names(boot);
    let root = Rc::clone(&kernel.tree.root);
    let volume = Rc::clone(&kernel.tree.volume);
    let devices = mount(
        &root,
        b"dev",
        volume.new_node(Device::Devices, S_IFDIR | 0o755, directory(), 0)?,
    )?;
    for (name, major, minor) in DEVICES {
        change::make_in(&devices, name, S_IFCHR | 0o666, device_number(major, minor))?;
    }
    let (major, minor) = generation::NUMBER;
    let watched = change::make_in(
        &devices,
        b"sysgenid",
        S_IFCHR | 0o666,
        device_number(major, minor),
    )?;
    kernel.clones.generation.set_entry(watched);
    for (name, text) in DEVICE_LINKS {
        change::make_link_in(&devices, name, text)?;
    }
    let memory = volume.new_node(Device::SharedMemory, S_IFDIR | S_ISVTX | 0o777, directory(), 0)?;
    mount(&devices, b"shm", memory)?;
    let processes = Node::of_generated(&volume, Device::Processes, generated::processes());
    mount(&root, b"proc", processes)?;
    let system = Node::of_generated(&volume, Device::System, generated::system());
    mount(&root, b"sys", system)?;

    make_directories(kernel, b"/tmp", S_ISVTX | 0o777)?;
    make_directories(kernel, b"/etc", 0o755)?;
    for (path, contents, replaces) in container_files() {
        provide(kernel, path, &contents, replaces)?;
    }
    place_secrets(kernel, boot)?;
    become_user(kernel, boot);
    if !working.is_empty() {
        make_directories(kernel, &working, 0o755)?;
        let found = walk(kernel, &root, &working, Follow::All)?;
        kernel.process.directory = found.entry()?;
    }
    if boot.flags & boot_flags::ROOT_IS_EROFS == 0 {
        place_program(kernel, boot, &program)?;
    }
    Ok(())
}

/// Puts a node into a directory, over what has the name.
fn mount(parent: &Rc<Entry>, name: &[u8], node: Rc<Node>) -> Result<Rc<Entry>, Errno> {
    let entry = Entry::new(name, Some(parent), node);
    parent.node.directory().ok_or(Errno::ENOTDIR)?.insert(&entry);
    Ok(entry)
}

/// Makes a directory and those that it is in, as far as they are missing.
fn make_directories(kernel: &mut Kernel, path: &[u8], permissions: u32) -> Result<(), Errno> {
    let root = Rc::clone(&kernel.tree.root);
    let ends = path
        .iter()
        .enumerate()
        .filter(|&(index, &byte)| byte == b'/' && index > 0);
    let ends: Vec<usize> = ends.map(|(index, _)| index).chain([path.len()]).collect();
    for end in ends {
        let found = walk(kernel, &root, &path[..end], Follow::All)?;
        match &found.target {
            Some(_) => {}
            None => {
                let bits = if end == path.len() { permissions } else { 0o755 };
                change::make(&found, S_IFDIR | bits, 0)?;
            }
        }
    }
    Ok(())
}

/// Makes a file with these contents, if it is missing or is to be replaced.
fn provide(kernel: &mut Kernel, path: &[u8], contents: &[u8], replaces: bool) -> Result<(), Errno> {
    let root = Rc::clone(&kernel.tree.root);
    // A root whose /etc cannot be used does without.
    let Ok(found) = walk(kernel, &root, path, Follow::NotLast) else {
        return Ok(());
    };
    if found.target.is_some() {
        if !replaces {
            return Ok(());
        }
        if change::unlink(&found).is_err() {
            return Ok(());
        }
    }
    let Last::Name(name) = &found.last else {
        return Ok(());
    };
    let entry = change::make_in(&found.parent, name, S_IFREG | 0o644, 0)?;
    entry.node.with_contents(|bytes| bytes.poke(0, contents))
}

/// Path, contents, and whether they take the place of a file that is there.
type Provided = (&'static [u8], Vec<u8>, bool);

/// Files of containers: those that say what the network is take the place of the image's.
fn container_files() -> Vec<Provided> {
    let replaced: [&[u8]; 2] = [b"/etc/hosts", b"/etc/resolv.conf"];
    let network = network_files().into_iter();
    let mut files: Vec<Provided> = network
        .map(|(path, contents)| (path, contents.to_vec(), replaced.contains(&path)))
        .collect();
    files.push((b"/etc/hostname", b"spore\n".to_vec(), true));
    files.push((
        b"/etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n".to_vec(),
        false,
    ));
    files.push((
        b"/etc/group",
        b"root:x:0:\nnobody:x:65534:\nnogroup:x:65534:\n".to_vec(),
        false,
    ));
    files
}

/// Puts the single program where its path says.
fn place_program(kernel: &mut Kernel, boot: &BootPage, program: &[u8]) -> Result<(), Errno> {
    let base = Rc::clone(&kernel.process.directory);
    let path = match program {
        b"" => b"/program",
        path => path,
    };
    if let Some(length) = path
        .iter()
        .rposition(|&byte| byte == b'/')
        .filter(|&length| length > 0)
    {
        let mut folder = path[..length].to_vec();
        if folder[0] != b'/' {
            folder = [base.path().as_slice(), b"/", &folder].concat();
        }
        make_directories(kernel, &folder, 0o755)?;
    }
    let found = walk(kernel, &base, path, Follow::NotLast)?;
    let Found {
        last: Last::Name(name),
        target,
        parent,
        ..
    } = &found
    else {
        return Err(Errno::EISDIR);
    };
    if let Some(Target::Entry(_)) = target {
        return Err(Errno::EEXIST);
    }
    let body = Body::Regular(RefCell::new(Bytes::Module {
        offset: 0,
        bytes: boot.root_bytes,
    }));
    let node = parent
        .node
        .volume
        .new_node(Device::Root, S_IFREG | 0o755, body, name.len())?;
    kernel.process.program = Some(mount(parent, name, node)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &[u8], value: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
        [&length(name)[..], &length(value), name, value].concat()
    }

    #[test]
    fn groups_are_found_before_the_secrets() {
        let secret = record(b"key", b"value");
        let groups: Vec<u8> = [7_u32, 1000]
            .iter()
            .flat_map(|group| group.to_le_bytes())
            .collect();
        let block = [b"program\0/\0", groups.as_slice(), secret.as_slice()].concat();
        let secrets_bytes = secret.len() as u32;
        assert!(more_groups(&block, secrets_bytes, 0).is_empty());
        assert_eq!(more_groups(&block, secrets_bytes, 2), [7, 1000]);
        assert!(more_groups(&block, u32::MAX, u32::MAX).is_empty());
    }

    #[test]
    fn secrets_are_found_behind_the_strings() {
        let records = [record(b"key", b"a\0b"), record(b"empty", b"")].concat();
        let bytes = records.len() as u32;
        let block = [b"program\0/\0", records.as_slice()].concat();
        let expected: [(&[u8], &[u8]); 2] = [(b"key", b"a\0b"), (b"empty", b"")];
        assert_eq!(secrets(&block, bytes), expected);
        assert_eq!(secrets(&block[..block.len() - 1], bytes - 1), expected[..1]);
        assert!(secrets(&[0xff; 40], 40).is_empty() && secrets(&[], 8).is_empty());
    }
}

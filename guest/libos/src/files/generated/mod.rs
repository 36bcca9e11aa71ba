//! `/proc` and `/sys`: files whose contents are made when they are opened.
//!
//! A family of files is a table of paths, each with a function that makes the contents; directories are the common
//! starts of these paths. What depends on processes, tasks and descriptors comes on top.
//!
//! * [`machine`]: `/proc` without processes; [`process`], [`status`]: `/proc/PID`; [`system`]: `/sys`.

mod machine;
mod process;
mod status;
mod system;

use alloc::rc::Rc;
use alloc::vec::Vec;

use linux_raw_sys::general::{S_IFDIR, S_IFLNK, S_IFREG};

pub(crate) use process::Start;

use super::tree::volume::Share;
use super::tree::walk::{Link, Target};
use super::{File, Kind, Metadata, Positions, Readiness};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::Buffers;
use crate::process::{Process, ProcessId};
use crate::task::TaskId;
use crate::text::text;

/// What a generated file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Subject {
    process: ProcessId,
    task: TaskId,
    descriptor: u64,
}

/// A file of a table.
struct Item {
    /// Its path within the family.
    path: &'static str,
    permissions: u32,
    make: fn(&mut Kernel, Subject) -> Vec<u8>,
}

/// A table of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// `/proc`.
    Machine,
    /// `/proc/PID`.
    Process,
    /// `/proc/PID/task/TID`.
    Task,
    /// `/sys`.
    System,
}

/// Where a generated link leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// To the process that asks.
    OwnProcess,
    /// To the task that asks.
    OwnTask,
    /// To what a text says.
    Fixed(&'static str, &'static str),
    Executable,
    WorkingDirectory,
    Root,
    Descriptor,
}

#[derive(Clone, Copy)]
enum Shape {
    /// The files of a table whose paths begin so.
    Directory(Family, &'static str),
    File(&'static Item),
    Link(Place),
    Tasks,
    Descriptors,
    DescriptorInfos,
    DescriptorInfo,
}

/// A file or directory of `/proc` or `/sys`.
#[derive(Clone, Copy)]
pub(crate) struct Generated {
    shape: Shape,
    subject: Subject,
}

/// `/proc`.
pub(crate) fn processes() -> Generated {
    Generated {
        shape: Shape::Directory(Family::Machine, ""),
        subject: Subject::default(),
    }
}

/// `/sys`.
pub(crate) fn system() -> Generated {
    Generated {
        shape: Shape::Directory(Family::System, ""),
        subject: Subject::default(),
    }
}

impl Family {
    fn items(self) -> &'static [Item] {
        match self {
            Self::Machine => machine::ITEMS,
            Self::Process => process::ITEMS,
            Self::Task => process::TASK_ITEMS,
            Self::System => system::ITEMS,
        }
    }

    /// What there is in the family's own directory beside the table.
    fn extras(self) -> &'static [(&'static str, Shape)] {
        const MACHINE: &[(&str, Shape)] = &[
            ("self", Shape::Link(Place::OwnProcess)),
            ("thread-self", Shape::Link(Place::OwnTask)),
            ("mounts", Shape::Link(Place::Fixed("mounts", "self/mounts"))),
            ("net", Shape::Link(Place::Fixed("net", "self/net"))),
        ];
        const PROCESS: &[(&str, Shape)] = &[
            ("exe", Shape::Link(Place::Executable)),
            ("cwd", Shape::Link(Place::WorkingDirectory)),
            ("root", Shape::Link(Place::Root)),
            ("fd", Shape::Descriptors),
            ("fdinfo", Shape::DescriptorInfos),
            ("task", Shape::Tasks),
        ];
        match self {
            Self::Machine => MACHINE,
            Self::Process => PROCESS,
            // All but the list of tasks.
            Self::Task => PROCESS.split_at(5).0,
            Self::System => &[],
        }
    }
}

impl Generated {
    /// Type and permission bits.
    pub(crate) fn mode(&self) -> u32 {
        match self.shape {
            Shape::Directory(..) | Shape::Tasks => S_IFDIR | 0o555,
            Shape::Descriptors | Shape::DescriptorInfos => S_IFDIR | 0o500,
            Shape::File(item) => S_IFREG | item.permissions,
            Shape::DescriptorInfo => S_IFREG | 0o400,
            Shape::Link(Place::Descriptor) => S_IFLNK | 0o700,
            Shape::Link(_) => S_IFLNK | 0o777,
        }
    }

    /// Its inode number: the same whenever it is asked for.
    pub(crate) fn number(&self) -> u64 {
        let (kind, path) = match self.shape {
            Shape::Directory(family, path) => (family as u64, path),
            Shape::File(item) => (16, item.path),
            Shape::Link(Place::Fixed(name, _)) => (17, name),
            Shape::Link(Place::OwnProcess) => (18, ""),
            Shape::Link(Place::OwnTask) => (19, ""),
            Shape::Link(Place::Executable) => (20, ""),
            Shape::Link(Place::WorkingDirectory) => (21, ""),
            Shape::Link(Place::Root) => (22, ""),
            Shape::Link(Place::Descriptor) => (23, ""),
            Shape::Tasks => (24, ""),
            Shape::Descriptors => (25, ""),
            Shape::DescriptorInfos => (26, ""),
            Shape::DescriptorInfo => (27, ""),
        };
        // FNV-1a.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let subject = self.subject;
        let numbers = [
            kind,
            u64::from(subject.process),
            u64::from(subject.task),
            subject.descriptor,
        ];
        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
        for byte in numbers.chain(path.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        1 << 40 | hash >> 24
    }

    fn of(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    fn about(subject: Subject, family: Family) -> Self {
        Self {
            shape: Shape::Directory(family, ""),
            subject,
        }
    }
}

/// The part of a path of a table that names the child of the directory `prefix`, and whether that child is the file.
fn part_below(path: &'static str, prefix: &str) -> Option<(&'static str, bool)> {
    let below = match prefix {
        "" => path,
        _ => path.strip_prefix(prefix)?.strip_prefix('/')?,
    };
    match below.find('/') {
        Some(length) => Some((&below[..length], false)),
        None => Some((below, true)),
    }
}

/// The path of a table up to and with the child `name` of the directory `prefix`.
fn extended(path: &'static str, prefix: &str, name: &str) -> &'static str {
    let slash = usize::from(!prefix.is_empty());
    path.get(..prefix.len() + slash + name.len()).unwrap_or(path)
}

fn number<T: core::str::FromStr>(name: &[u8]) -> Option<T> {
    let text = core::str::from_utf8(name).ok()?;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

/// The child of a directory with this name.
pub(crate) fn child(kernel: &mut Kernel, parent: Generated, name: &[u8]) -> Option<Generated> {
    match parent.shape {
        Shape::Directory(family, prefix) => {
            let text = core::str::from_utf8(name).ok()?;
            for item in family.items() {
                match part_below(item.path, prefix) {
                    Some((part, true)) if part == text => return Some(parent.of(Shape::File(item))),
                    Some((part, false)) if part == text => {
                        let path = extended(item.path, prefix, part);
                        return Some(parent.of(Shape::Directory(family, path)));
                    }
                    _ => {}
                }
            }
            if !prefix.is_empty() {
                return None;
            }
            let extra = family.extras().iter().find(|(extra, _)| *extra == text);
            if let Some((_, shape)) = extra {
                return Some(parent.of(*shape));
            }
            let id = number::<u32>(name).filter(|_| family == Family::Machine)?;
            let process = kernel.task_process(id)?;
            let subject = Subject {
                process,
                task: id,
                descriptor: 0,
            };
            Some(Generated::about(subject, Family::Process))
        }
        Shape::Tasks => {
            let task = number::<u32>(name)?;
            if kernel.task_process(task)? != parent.subject.process {
                return None;
            }
            let subject = Subject {
                task,
                ..parent.subject
            };
            Some(Generated::about(subject, Family::Task))
        }
        Shape::Descriptors | Shape::DescriptorInfos => {
            let descriptor = number::<u64>(name)?;
            kernel
                .process_mut(parent.subject.process)?
                .files
                .get(descriptor)
                .ok()?;
            let shape = match parent.shape {
                Shape::Descriptors => Shape::Link(Place::Descriptor),
                _ => Shape::DescriptorInfo,
            };
            Some(Generated {
                shape,
                subject: Subject {
                    descriptor,
                    ..parent.subject
                },
            })
        }
        _ => None,
    }
}

/// All children of a directory, with their names.
pub(crate) fn list(kernel: &mut Kernel, parent: Generated) -> Vec<(Vec<u8>, Generated)> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    match parent.shape {
        Shape::Directory(family, prefix) => {
            for item in family.items() {
                if let Some((part, _)) = part_below(item.path, prefix)
                    && !names.iter().any(|name| name == part.as_bytes())
                {
                    names.push(part.as_bytes().to_vec());
                }
            }
            if prefix.is_empty() {
                names.extend(family.extras().iter().map(|(name, _)| name.as_bytes().to_vec()));
                if family == Family::Machine {
                    let ids = kernel.process_ids();
                    names.extend(ids.into_iter().map(|id| text!("{id}").into_bytes()));
                }
            }
        }
        Shape::Tasks => {
            let process = parent.subject.process;
            let tasks = kernel.tasks.iter().filter(|(_, task)| task.process == process);
            names.extend(tasks.map(|(id, _)| text!("{id}").into_bytes()));
        }
        Shape::Descriptors | Shape::DescriptorInfos => {
            if let Some(process) = kernel.process_mut(parent.subject.process) {
                let numbers = process.files.iter().map(|(number, _)| number);
                names.extend(numbers.map(|number| text!("{number}").into_bytes()));
            }
        }
        _ => {}
    }
    names
        .into_iter()
        .filter_map(|name| child(kernel, parent, &name).map(|child| (name, child)))
        .collect()
}

/// Where a link leads.
pub(crate) fn link(kernel: &mut Kernel, generated: Generated) -> Result<Link, Errno> {
    let Shape::Link(place) = generated.shape else {
        return Err(Errno::EINVAL);
    };
    let subject = generated.subject;
    let text = |text: alloc::string::String| Ok(Link::Text(text.into_bytes()));
    match place {
        Place::OwnProcess => return text(text!("{}", kernel.process.id)),
        Place::OwnTask => return text(text!("{}/task/{}", kernel.process.id, kernel.current)),
        Place::Fixed(_, target) => return text(target.into()),
        Place::Root => return Ok(Link::Target(Target::Entry(Rc::clone(&kernel.tree.root)))),
        _ => {}
    }
    let process = kernel.process_mut(subject.process).ok_or(Errno::ENOENT)?;
    let target = match place {
        Place::Executable => {
            let program = process.program.clone().ok_or(Errno::ENOENT)?;
            match Rc::clone(&program).entry() {
                Some(entry) => Target::Entry(entry),
                None => return Err(Errno::ENOENT),
            }
        }
        Place::WorkingDirectory => Target::Entry(Rc::clone(&process.directory)),
        _ => {
            let open = process.files.get(subject.descriptor).map_err(|_| Errno::ENOENT)?;
            match &open.location {
                Some(entry) => Target::Entry(Rc::clone(entry)),
                None => Target::Open(open),
            }
        }
    };
    Ok(Link::Target(target))
}

/// A generated file, opened: what it said then.
struct Text {
    bytes: Vec<u8>,
    permissions: u32,
    _share: Share,
}

/// Opens a file.
pub(crate) fn open(kernel: &mut Kernel, generated: Generated) -> Result<Rc<dyn File>, Errno> {
    let (bytes, permissions) = match generated.shape {
        Shape::File(item) => ((item.make)(kernel, generated.subject), item.permissions),
        Shape::DescriptorInfo => (process::descriptor_info(kernel, generated.subject)?, 0o400),
        _ => return Err(Errno::EINVAL),
    };
    let share = kernel.tree.volume.share(bytes.capacity());
    Ok(Rc::new(Text {
        bytes,
        permissions,
        _share: share.map_err(|_| Errno::ENFILE)?,
    }))
}

impl File for Text {
    fn kind(&self) -> Kind {
        Kind::Regular
    }

    fn positions(&self) -> Positions {
        Positions::Kept
    }

    fn read_at(&self, kernel: &mut Kernel, position: u64, buffers: &mut Buffers) -> Result<u64, Errno> {
        let start = usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        buffers.put(&mut kernel.process.space, &self.bytes[start..])
    }

    /// What is written to files that take anything changes nothing here.
    fn write_at(&self, _kernel: &mut Kernel, _position: u64, buffers: &mut Buffers) -> Result<u64, Errno> {
        if self.permissions & 0o200 == 0 {
            return Err(Errno::EINVAL);
        }
        let length = buffers.remaining();
        buffers.skip(length);
        Ok(length)
    }

    fn truncate(&self, _kernel: &mut Kernel, _bytes: u64) -> Result<(), Errno> {
        Ok(())
    }

    fn metadata(&self) -> Metadata {
        Metadata::of_kind(Kind::Regular)
    }

    fn readiness(&self) -> Readiness {
        Readiness::READ | Readiness::WRITE
    }
}

/// A process by its number, as a generated file needs it.
fn process_of(kernel: &mut Kernel, subject: Subject) -> Option<&mut Process> {
    kernel.process_mut(subject.process)
}

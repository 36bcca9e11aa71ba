//! What layers make of a base: the tree, of which only what is looked at is in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};

use super::Reason;
use crate::erofs::{BLOCK_BYTES, FILE_TYPE, FOLDER_TYPE, Image, Inode, LINK_TYPE, NAME_BYTES_MAX};
use crate::image::LATEST_S;

/// Most changes, and bytes of files in them.
const CHANGES_MAX: u64 = 50_000;
const BYTES_MAX: u64 = 256 << 20;
/// Longest path, and most folders in one another: less than what a folder on the host may have.
const PATH_BYTES_MAX: usize = 2048;
const DEPTH_MAX: usize = 128;
/// Longest target of a symbolic link: it lies behind its inode, in one block.
const TARGET_BYTES_MAX: usize = 4000;

const OPAQUE: &[u8] = b".wh..wh..opq";
const WHITEOUT: &[u8] = b".wh.";
/// File types as folders have them.
pub(super) const FOLDER_ENTRY: u8 = 2;
pub(super) const FILE_ENTRY: u8 = 1;
pub(super) const LINK_ENTRY: u8 = 7;

/// What a layer says of one path.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The path, as it is written.
    pub path: &'a [u8],
    /// What is there.
    pub kind: ChangeKind<'a>,
    /// Permission bits.
    pub mode: u32,
    /// Time of modification, in seconds since 1970.
    pub modified_s: i64,
    /// The part of it below a second.
    pub modified_ns: u32,
}

/// What a change puts at its path. Whiteouts are files with their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind<'a> {
    /// A regular file of so many bytes.
    File(u64),
    /// A folder, which joins one that is there.
    Folder,
    /// A symbolic link to this path.
    SymbolicLink(&'a [u8]),
    /// Another name of what is at this path.
    HardLink(&'a [u8]),
    /// Something that is left out.
    Other,
}

impl Change<'_> {
    fn attributes(&self, mode: u32) -> Attributes {
        Attributes::new(mode as u16, self.modified_s, self.modified_ns)
    }
}

/// The mode of a folder, which its owner may enter.
fn folder_mode(mode: u32) -> u32 {
    u32::from(FOLDER_TYPE) | mode & 0o1777 | 0o700
}

/// Mode and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u16,
    pub(super) modified_s: u64,
    pub(super) modified_ns: u32,
}

impl Attributes {
    fn new(mode: u16, modified_s: i64, modified_ns: u32) -> Self {
        let is_late = modified_s >= LATEST_S;
        Self {
            mode,
            modified_s: modified_s.min(LATEST_S) as u64,
            modified_ns: if is_late { 0 } else { modified_ns },
        }
    }

    fn of(inode: &Inode) -> Self {
        Self {
            mode: inode.mode,
            modified_s: inode.modified_s,
            modified_ns: inode.modified_ns,
        }
    }
}

#[derive(Debug)]
pub(super) struct Folder {
    pub(super) attributes: Attributes,
    pub(super) children: BTreeMap<Vec<u8>, Node>,
    /// Names that the layer with this number has written.
    written: (u32, HashSet<Vec<u8>>),
}

#[derive(Debug)]
pub(super) enum Node {
    /// What the base has there, unchanged.
    Base {
        inode: u64,
        file_type: u8,
    },
    Folder(Box<Folder>),
    /// A file or symbolic link of a layer, by its number.
    Other(usize),
}

/// A file or symbolic link of a layer.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) attributes: Attributes,
    /// How many names it has; 0 if it was removed again.
    pub(super) links: u32,
    pub(super) contents: Contents,
}

#[derive(Debug)]
pub(super) enum Contents {
    /// So many bytes in blocks from this one on.
    Blocks {
        first: u64,
        bytes: u64,
    },
    Link(Vec<u8>),
}

/// A head that is being made.
#[derive(Debug)]
pub struct Head<'a> {
    pub(super) base: Image<&'a File>,
    pub(super) file: BufWriter<&'a File>,
    /// The next block of the whole.
    pub(super) next_block: u64,
    pub(super) root: Folder,
    pub(super) others: Vec<Other>,
    layer: u32,
    changes_left: u64,
    bytes_left: u64,
    /// Times of folders that are or were there, by their paths: one that is made again without a time of its own has it.
    times: HashMap<Vec<u8>, Attributes>,
    /// Entries that were left out.
    pub skipped: u64,
}

impl<'a> Head<'a> {
    /// Begins a head of `base` in `file`, which is empty.
    ///
    /// # Errors
    ///
    /// If the base is of another kind than is known here.
    pub fn new(base: &'a File, file: &'a File) -> Result<Self, Reason> {
        let base_bytes = base.metadata()?.len();
        let base = Image::open(base)?;
        if base.block_count * BLOCK_BYTES != base_bytes {
            return Err(Reason::Base(crate::erofs::ReadError::Unknown {
                what: "its length",
            }));
        }
        let root = load(&base, base.root)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.seek(SeekFrom::Start(BLOCK_BYTES))?;
        Ok(Self {
            next_block: base.block_count,
            times: HashMap::from([(Vec::new(), root.attributes)]),
            base,
            file,
            root,
            others: Vec::new(),
            layer: 0,
            changes_left: CHANGES_MAX,
            bytes_left: BYTES_MAX,
            skipped: 0,
        })
    }

    /// What follows is another layer, above those before: its whiteouts hide what these have written.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// Makes a folder and those above it, unless they are there.
    ///
    /// # Errors
    ///
    /// If the whole image has to be made.
    pub fn make_folder(&mut self, path: &[u8]) -> Result<(), Reason> {
        let components = normalise(path)?;
        self.folder(&components).map(drop)
    }

    /// Takes the next change, which has this content if it is a file.
    ///
    /// # Errors
    ///
    /// If the whole image has to be made.
    pub fn add(&mut self, change: &Change<'_>, content: &mut dyn Read) -> Result<(), Reason> {
        self.charge()?;
        let components = normalise(change.path)?;
        let Some((name, above)) = components.split_last() else {
            if change.kind == ChangeKind::Folder {
                self.root.attributes = change.attributes(folder_mode(change.mode));
            }
            return Ok(());
        };
        let layer = self.layer;
        let name = *name;
        if name == OPAQUE {
            let (folder, mut removal) = self.folder(above)?;
            let names: Vec<_> = folder.children.keys().cloned().collect();
            return names
                .iter()
                .try_for_each(|name| removal.hide(folder, name, Some(layer)));
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return unusual("it hides nothing");
            }
            let (folder, mut removal) = self.folder(above)?;
            return removal.hide(folder, hidden, Some(layer));
        }
        let (folder, mut removal) = self.folder(above)?;
        let is_folder = folder.children.get(name).is_some_and(Node::is_folder);
        if change.kind != ChangeKind::Folder || !is_folder {
            removal.hide(folder, name, None)?;
        }
        if !self.put(change, &components, content)? {
            self.skipped += 1;
            return Ok(());
        }
        let (folder, _) = self.folder(above)?;
        if folder.written.0 != layer {
            folder.written = (layer, HashSet::new());
        }
        folder.written.1.insert(name.to_vec());
        Ok(())
    }

    /// Puts what a change says in a place where nothing else is; whether there is something for it.
    fn put(
        &mut self,
        change: &Change<'_>,
        components: &[&[u8]],
        content: &mut dyn Read,
    ) -> Result<bool, Reason> {
        let Some((name, above)) = components.split_last() else {
            return Ok(false);
        };
        let path = components.join(&b'/');
        match change.kind {
            ChangeKind::File(bytes) => {
                self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Reason::TooLarge)?;
                let mode = u32::from(FILE_TYPE) | change.mode & 0o777 | 0o400;
                let contents = Contents::Blocks {
                    first: self.write_content(bytes, content)?,
                    bytes,
                };
                self.put_other(above, name, change.attributes(mode), contents)?;
            }
            ChangeKind::Folder => {
                let attributes = change.attributes(folder_mode(change.mode));
                self.times.insert(path, attributes);
                self.folder(components)?.0.attributes = attributes;
            }
            ChangeKind::SymbolicLink(target) => {
                if target.is_empty() || target.len() > TARGET_BYTES_MAX {
                    return unusual("the length of a link's target");
                }
                if self.times.contains_key(&path) {
                    return unusual("a link in place of a folder");
                }
                let mode = u32::from(LINK_TYPE) | 0o777;
                self.put_other(
                    above,
                    name,
                    change.attributes(mode),
                    Contents::Link(target.to_vec()),
                )?;
            }
            ChangeKind::HardLink(target) => {
                let target = self.other_at(&normalise(target)?)?;
                if let Contents::Link(_) = self.others[target].contents
                    && self.times.contains_key(&path)
                {
                    return unusual("a link in place of a folder");
                }
                self.others[target].links += 1;
                let (folder, _) = self.folder(above)?;
                folder.children.insert(name.to_vec(), Node::Other(target));
            }
            ChangeKind::Other => return Ok(false),
        }
        Ok(true)
    }

    fn charge(&mut self) -> Result<(), Reason> {
        self.changes_left = self.changes_left.checked_sub(1).ok_or(Reason::TooLarge)?;
        Ok(())
    }

    fn put_other(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        attributes: Attributes,
        contents: Contents,
    ) -> Result<(), Reason> {
        let number = self.others.len();
        self.others.push(Other {
            attributes,
            links: 1,
            contents,
        });
        let (folder, _) = self.folder(above)?;
        folder.children.insert(name.to_vec(), Node::Other(number));
        Ok(())
    }

    /// Writes a file's content into blocks of its own; the first of them.
    fn write_content(&mut self, bytes: u64, content: &mut dyn Read) -> Result<u64, Reason> {
        let first = self.next_block;
        let copied = std::io::copy(&mut content.take(bytes), &mut self.file)?;
        if copied != bytes {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        let padding = bytes.next_multiple_of(BLOCK_BYTES) - bytes;
        self.file.write_all(&vec![0; padding as usize])?;
        self.next_block += bytes.div_ceil(BLOCK_BYTES);
        Ok(first)
    }

    /// The folder at these components, made where it is missing; and what can remove things in it.
    fn folder(&mut self, components: &[&[u8]]) -> Result<(&mut Folder, Removal<'_>), Reason> {
        let mut removal = Removal {
            base: &self.base,
            others: &mut self.others,
            times: &mut self.times,
            path: Vec::new(),
        };
        let mut folder = &mut self.root;
        for name in components {
            if !removal.path.is_empty() {
                removal.path.push(b'/');
            }
            removal.path.extend_from_slice(name);
            let node = match folder.children.get_mut(*name) {
                Some(Node::Base { inode, .. }) => {
                    let loaded = load(removal.base, *inode)?;
                    removal
                        .times
                        .entry(removal.path.clone())
                        .or_insert(loaded.attributes);
                    Node::Folder(Box::new(loaded))
                }
                Some(Node::Folder(_)) => {
                    folder = descend(folder, name)?;
                    continue;
                }
                Some(Node::Other(_)) => return unusual("something that is no folder is on its way"),
                None => {
                    // As much as a change that names it.
                    self.changes_left = self.changes_left.checked_sub(1).ok_or(Reason::TooLarge)?;
                    let untimed = Attributes::new(FOLDER_TYPE | 0o755, 0, 0);
                    let noted = removal.times.entry(removal.path.clone()).or_insert(untimed);
                    Node::Folder(Box::new(Folder {
                        attributes: Attributes {
                            mode: untimed.mode,
                            ..*noted
                        },
                        children: BTreeMap::new(),
                        written: Default::default(),
                    }))
                }
            };
            folder.children.insert(name.to_vec(), node);
            folder = descend(folder, name)?;
        }
        Ok((folder, removal))
    }

    /// The file or link of a layer at these components.
    fn other_at(&self, components: &[&[u8]]) -> Result<usize, Reason> {
        let mut folder = &self.root;
        let Some((last, above)) = components.split_last() else {
            return unusual("a hard link to a folder");
        };
        for name in above {
            match folder.children.get(*name) {
                Some(Node::Folder(inner)) => folder = inner,
                _ => return unusual("a hard link to something of the base"),
            }
        }
        match folder.children.get(*last) {
            Some(Node::Other(number)) => Ok(*number),
            _ => unusual("a hard link to something of the base"),
        }
    }
}

impl Node {
    fn is_folder(&self) -> bool {
        match self {
            Self::Base { file_type, .. } => *file_type == FOLDER_ENTRY,
            Self::Folder(_) => true,
            Self::Other(_) => false,
        }
    }
}

fn descend<'t>(folder: &'t mut Folder, name: &[u8]) -> Result<&'t mut Folder, Reason> {
    match folder.children.get_mut(name) {
        Some(Node::Folder(inner)) => Ok(inner),
        _ => unusual("something that is no folder is on its way"),
    }
}

/// A folder of the base. A symbolic link is none: where it leads is for the whole image to find out.
fn load(base: &Image<&File>, number: u64) -> Result<Folder, Reason> {
    let inode = base.inode(number)?;
    if !inode.is_folder() {
        return unusual("something that is no folder is on its way");
    }
    let entries = base.entries(&inode)?.into_iter();
    let children = entries.map(|entry| {
        let (inode, file_type) = (entry.inode, entry.file_type);
        (entry.name, Node::Base { inode, file_type })
    });
    Ok(Folder {
        attributes: Attributes::of(&inode),
        children: children.collect(),
        written: Default::default(),
    })
}

/// Removes things of a folder, whose path it knows.
struct Removal<'t> {
    base: &'t Image<&'t File>,
    others: &'t mut Vec<Other>,
    times: &'t mut HashMap<Vec<u8>, Attributes>,
    path: Vec<u8>,
}

impl Removal<'_> {
    /// Removes what has this name, with everything in it, but for what the layer `spared` has written. Nothing there is no
    /// error.
    fn hide(&mut self, folder: &mut Folder, name: &[u8], spared: Option<u32>) -> Result<(), Reason> {
        let is_spared = spared == Some(folder.written.0) && folder.written.1.contains(name);
        match folder.children.get_mut(name) {
            None => return Ok(()),
            Some(Node::Folder(inner)) => {
                let above = self.path.len();
                if above > 0 {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(name);
                let names: Vec<_> = inner.children.keys().cloned().collect();
                for name in names {
                    self.hide(inner, &name, spared)?;
                }
                self.path.truncate(above);
                if is_spared || !inner.children.is_empty() {
                    return Ok(());
                }
            }
            Some(_) if is_spared => return Ok(()),
            Some(Node::Other(number)) => self.others[*number].links -= 1,
            Some(Node::Base { inode, .. }) => {
                let inode = *inode;
                let path = match self.path.as_slice() {
                    b"" => name.to_vec(),
                    above => [above, b"/", name].concat(),
                };
                self.leave(inode, path)?;
            }
        }
        folder.children.remove(name);
        Ok(())
    }

    /// Looks at everything of the base that goes with an inode: it must have no other name.
    fn leave(&mut self, number: u64, path: Vec<u8>) -> Result<(), Reason> {
        let mut open = vec![(number, path)];
        let mut count = 0;
        while let Some((number, path)) = open.pop() {
            count += 1;
            if count > self.base.block_count * BLOCK_BYTES {
                return Err(Reason::TooLarge);
            }
            let inode = self.base.inode(number)?;
            if !inode.is_folder() {
                if inode.links > 1 {
                    return Err(Reason::Linked);
                }
                continue;
            }
            for entry in self.base.entries(&inode)? {
                if path.len() > 2 * PATH_BYTES_MAX {
                    return unusual("the depth of a folder");
                }
                open.push((entry.inode, [&path, &b"/"[..], &entry.name].concat()));
            }
            self.times.entry(path).or_insert(Attributes::of(&inode));
        }
        Ok(())
    }
}

fn unusual<T>(what: &'static str) -> Result<T, Reason> {
    Err(Reason::Path { what })
}

/// The components of a path without empty and `.` ones.
fn normalise(path: &[u8]) -> Result<Vec<&[u8]>, Reason> {
    let components = path.split(|&byte| byte == b'/');
    let components: Vec<_> = components
        .filter(|component| !matches!(*component, b"" | b"."))
        .collect();
    let is_name = |name: &&[u8]| *name != b".." && name.len() <= NAME_BYTES_MAX && !name.contains(&0);
    if path.len() > PATH_BYTES_MAX || components.len() > DEPTH_MAX || !components.iter().all(is_name) {
        return unusual("its components");
    }
    Ok(components)
}

//! What the fuzz targets call: the readers of what image publishers send.

use std::io::{self, Cursor, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use spore_rootfs::head::{Head, Parts};

use crate::FunctionRecord;
use crate::archive::{self, Bounds};
use crate::elf::check_program;
use crate::layered::change;
use crate::manifests::{AnyManifest, choose_platform, platforms};
use crate::unikernels::{self, Unikernel};
use crate::unpack::Unpacker;

/// What a layer may hold here.
const BOUNDS: Bounds = Bounds {
    entries: 500,
    bytes: 1 << 20,
};

/// A file that an image names as its program. Returns whether it may be one.
pub fn program_file(file: &[u8]) -> bool {
    check_program(Cursor::new(file)).is_ok()
}

/// A layer, read to its end without unpacking it. Returns the number of its entries if it is whole.
pub fn layer(bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    let mut total = 0;
    let result = archive::read(Cursor::new(bytes), BOUNDS, |entry, content| -> io::Result<()> {
        assert!(entry.path.len() <= archive::PATH_BYTES_MAX && entry.link.len() <= archive::PATH_BYTES_MAX);
        count += 1;
        total += io::copy(&mut content.take(BOUNDS.bytes + 1), &mut io::sink())?;
        let stream_bytes_max = BOUNDS.bytes + BOUNDS.entries * 4096;
        assert!(
            total <= stream_bytes_max,
            "a layer unpacks to no more than its bounds"
        );
        Ok(())
    });
    result.is_ok().then_some(count)
}

/// Layers, unpacked one over the other into an empty folder; then the file `program` is opened in it.
pub fn unpack(layers: &[&[u8]], root: &Path) -> bool {
    let Ok(mut unpacker) = Unpacker::new(root) else {
        return false;
    };
    let mut numbered = layers.iter().enumerate();
    let is_whole = numbered.all(|(number, layer)| unpacker.add(number, Cursor::new(*layer)).is_ok());
    unpacker.finish();
    if let Ok(file) = unpacker.open_file("program") {
        let _ = unpacker.holds_only(&file);
    }
    is_whole
}

/// A head of a base, which may be damaged, made of layers. Returns how many paths there are in what the two make.
pub fn head(base: &[u8], layers: &[&[u8]]) -> Option<usize> {
    let (base_file, head_file) = (tempfile::tempfile().ok()?, tempfile::tempfile().ok()?);
    base_file.write_all_at(base, 0).ok()?;
    let mut head = Head::new(&base_file, &head_file).ok()?;
    for layer in layers {
        head.begin_layer();
        archive::read(Cursor::new(*layer), BOUNDS, |entry, content| {
            head.add(&change(&entry), content)
        })
        .ok()?;
    }
    head.make_folder(b"/made/folder").ok()?;
    let bytes = head.finish().ok()?;
    let head_bytes = head_file.metadata().ok()?.len();
    assert_eq!(
        bytes,
        base.len() as u64 + head_bytes - 4096,
        "the superblock tells the length"
    );
    let image = Parts::open(&base_file, &head_file).expect("what was written can be read");
    let made = image.find(b"made/folder").expect("what was written can be read");
    assert!(
        made.is_some_and(|made| made.is_folder()),
        "what was made is there"
    );
    let mut open = vec![image.root().ok()?];
    let mut count = 0;
    while let Some(folder) = open.pop() {
        count += 1;
        if count > 1000 {
            return None;
        }
        for entry in image.entries(&folder).ok()? {
            let inode = image.inode(entry.inode).ok()?;
            if inode.is_folder() {
                open.push(inode);
            } else {
                count += 1;
                io::copy(&mut image.reader(inode).take(BOUNDS.bytes), &mut io::sink()).ok()?;
            }
        }
    }
    Some(count)
}

/// A function's record as it is stored.
pub fn record(bytes: &[u8]) -> bool {
    let Ok(record) = serde_json::from_slice::<FunctionRecord>(bytes) else {
        return false;
    };
    let again = serde_json::to_vec(&record).expect("a record can be written");
    let read: FunctionRecord = serde_json::from_slice(&again).expect("a record that was written can be read");
    assert_eq!(serde_json::to_vec(&read).expect("and written again"), again);
    true
}

/// A manifest, whatever it is of. Returns how many parts it names if it is one.
pub fn manifest(bytes: &[u8]) -> Option<usize> {
    let manifest = AnyManifest::parse(bytes).ok()?;
    if let AnyManifest::Index(index) = &manifest {
        let chosen = choose_platform(index);
        assert!(chosen.is_none_or(|chosen| index.manifests().contains(chosen)));
        assert!(platforms(index).len() < 100_000 + bytes.len(), "few are named");
    }
    Some(manifest.referenced().len())
}

/// What an image says of itself: its manifest and configuration, and a file in it. Returns whether it is a unikernel.
pub fn annotations(manifest: &[u8], configuration: &[u8], file: &[u8]) -> bool {
    let check = |unikernel: &Unikernel| {
        let lines = unikernel.settings.iter().flat_map(|(name, value)| [name, value]);
        assert!(unikernel.settings.len() <= 64, "settings are bounded");
        for text in lines {
            assert!(
                text.len() <= 4096 && !text.contains(char::is_control),
                "settings are lines"
            );
        }
    };
    let parsed = serde_json::from_slice(manifest)
        .ok()
        .zip(serde_json::from_slice(configuration).ok());
    let own = parsed.and_then(|(manifest, configuration)| unikernels::recognise(&manifest, &configuration));
    let of_file = unikernels::recognise_file(file);
    own.iter().chain(&of_file).for_each(check);
    own.is_some() || of_file.is_some()
}

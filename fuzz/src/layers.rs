//! Layers of images, as the store unpacks them: raw, or archives made of the input whose checksums are right.

use std::fs;
use std::path::Path;

use arbitrary::{Result, Unstructured};
use tar::{EntryType, Header};

/// Between two layers of a raw input.
pub(crate) const BETWEEN: &[u8] = b"\xfflayer\xff";
/// Entries of a layer that is made.
const ENTRIES_MAX: usize = 24;
/// What paths and links are made of.
const NAMES: [&str; 15] = [
    "a",
    "b",
    "c",
    "program",
    "..",
    ".",
    "",
    ".wh.a",
    ".wh.b",
    ".wh.",
    ".wh..",
    ".wh...",
    ".wh..wh..opq",
    "canary",
    "proc",
];

pub(crate) fn run(bytes: &[u8]) {
    let layers = match bytes.split_first() {
        Some((0, raw)) => split(raw),
        Some((_, script)) => made(&mut Unstructured::new(script)),
        None => return,
    };
    for layer in &layers {
        spore_store::fuzzing::layer(layer);
    }
    // What lies beside the folder is what a layer that leads out of it would find first.
    let Ok(folder) = tempfile::tempdir() else { return };
    let (root, canary) = (folder.path().join("root"), folder.path().join("canary"));
    if fs::create_dir(&root).is_err() || fs::write(&canary, "canary").is_err() {
        return;
    }
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    spore_store::fuzzing::unpack(&layers, &root);
    assert_eq!(
        names(folder.path()),
        ["canary", "root"],
        "a layer leads out of its folder"
    );
    assert_eq!(
        fs::read(&canary).unwrap_or_default(),
        b"canary",
        "a layer leads out of its folder"
    );
    assert!(
        fs::remove_dir_all(folder.path()).is_ok(),
        "what was unpacked can be removed"
    );
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn split(mut raw: &[u8]) -> Vec<Vec<u8>> {
    let mut layers = Vec::new();
    while let Some(at) = raw.windows(BETWEEN.len()).position(|part| part == BETWEEN) {
        layers.push(raw[..at].to_vec());
        raw = &raw[at + BETWEEN.len()..];
    }
    layers.push(raw.to_vec());
    layers
}

/// Up to three layers.
fn made(script: &mut Unstructured<'_>) -> Vec<Vec<u8>> {
    let mut layers = Vec::new();
    while layers.len() < 3 && !script.is_empty() {
        let mut builder = tar::Builder::new(Vec::new());
        for _ in 0..ENTRIES_MAX {
            if script.is_empty() || entry(&mut builder, script).unwrap_or(true) {
                break;
            }
        }
        layers.extend(builder.into_inner());
    }
    layers
}

/// Adds an entry; whether it is the layer's last.
fn entry(builder: &mut tar::Builder<Vec<u8>>, script: &mut Unstructured<'_>) -> Result<bool> {
    let kinds = *b"0012557xLKg346S";
    let kind = EntryType::new(*script.choose(&kinds)?);
    let (path, link) = (path(script)?, path(script)?);
    let content = match kind {
        EntryType::XHeader => record(script, &path)?,
        EntryType::GNULongName | EntryType::GNULongLink => path.clone(),
        EntryType::Regular => {
            let length = usize::from(script.arbitrary::<u8>()?);
            script.bytes(length.min(script.len()))?.to_vec()
        }
        _ => Vec::new(),
    };
    let mut header = Header::new_gnu();
    if let Some(gnu) = header.as_gnu_mut() {
        let length = path.len().min(gnu.name.len());
        gnu.name[..length].copy_from_slice(&path[..length]);
        let length = link.len().min(gnu.linkname.len());
        gnu.linkname[..length].copy_from_slice(&link[..length]);
    }
    header.set_entry_type(kind);
    header.set_mode(script.arbitrary::<u16>()?.into());
    header.set_mtime(script.arbitrary()?);
    header.set_size(content.len() as u64);
    header.set_cksum();
    // Cannot fail: it goes to memory.
    let _ = builder.append(&header, content.as_slice());
    script.ratio(1, 12)
}

fn path(script: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut path = if script.ratio(1, 6)? {
        b"/".to_vec()
    } else {
        Vec::new()
    };
    for index in 0..script.int_in_range(1..=4)? {
        if index > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(script.choose(&NAMES)?.as_bytes());
    }
    if script.ratio(1, 40)? {
        // Too long; too long for one entry only as a link; deep.
        let (part, count) = *script.choose(&[("x", 5000), ("x", 300), ("x/", 50)])?;
        path.extend_from_slice(part.repeat(count).as_bytes());
    }
    Ok(path)
}

/// A PAX record about the next entry.
fn record(script: &mut Unstructured<'_>, path: &[u8]) -> Result<Vec<u8>> {
    let key = *script.choose(&["path", "linkpath", "mtime", "size", "GNU.sparse.major", "comment"])?;
    let value = match key {
        "path" | "linkpath" => path.to_vec(),
        "size" => script.int_in_range(0..=300)?.to_string().into_bytes(),
        _ => script.arbitrary::<i64>()?.to_string().into_bytes(),
    };
    let rest = key.len() + value.len() + 3;
    let digits = (rest + rest.to_string().len()).to_string().len();
    let mut record = format!("{} {key}=", rest + digits).into_bytes();
    record.extend_from_slice(&value);
    record.push(b'\n');
    Ok(record)
}

/// A layer of these entries: path, kind, and content or link.
pub(crate) fn archive(entries: &[(&str, u8, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = Header::new_gnu();
        let is_link = matches!(kind, b'1' | b'2');
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.name[..path.len()].copy_from_slice(path.as_bytes());
            if is_link {
                gnu.linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
        }
        let data = if is_link { "" } else { *content };
        header.set_entry_type(EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_mtime(7);
        header.set_size(data.len() as u64);
        header.set_cksum();
        let _ = builder.append(&header, data.as_bytes());
    }
    builder.into_inner().unwrap_or_default()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let below = archive(&[
        ("a", b'5', ""),
        ("a/b", b'0', "text"),
        ("program", b'2', "a/b"),
        ("c", b'2', "/../.."),
        ("c/canary", b'0', "changed"),
        ("b", b'1', "a/b"),
    ]);
    let above = archive(&[
        ("a/.wh.b", b'0', ""),
        (".wh.c", b'0', ""),
        ("program", b'0', "code"),
    ]);
    let raw = [&[0], below.as_slice(), BETWEEN, &above].concat();
    let scripts = (0..12_u8).map(|seed| {
        let byte = |index: u32| (index.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed.wrapping_mul(37);
        std::iter::once(1).chain((0..600).map(byte)).collect()
    });
    std::iter::once(raw).chain(scripts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_layers() {
        let raw = split(&seeds()[0][1..]);
        let counts: Vec<_> = raw
            .iter()
            .map(|layer| spore_store::fuzzing::layer(layer))
            .collect();
        assert_eq!(counts, [Some(6), Some(3)]);
        let whole = seeds()[1..]
            .iter()
            .flat_map(|script| made(&mut Unstructured::new(&script[1..])))
            .filter(|layer| spore_store::fuzzing::layer(layer).is_some())
            .count();
        assert!(whole > 3, "{whole}");
    }
}

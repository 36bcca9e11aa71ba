//! What a base and a head make, compared with the image of the same layers as a whole.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use spore_rootfs::Blocks;
use tar::EntryType::{Continuous, Directory, Fifo, Link, Regular, Symlink};

use super::*;
use crate::archive::tests::header;
use crate::unpack::Unpacker;

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

const NAMES: [&str; 8] = ["a", "b", "c", "-", "a", "b", ".wh.a", ".wh..wh..opq"];

/// An archive of some entries that have to do with each other.
fn layer(numbers: &mut Numbers, hides: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for _ in 0..numbers.below(10) {
        let depth = 1 + numbers.below(3);
        let names = if hides { &NAMES[..] } else { &NAMES[..4] };
        let path: Vec<&str> = (0..depth)
            .map(|level| {
                if level + 1 == depth {
                    numbers.of(names)
                } else {
                    numbers.of(&NAMES[..3])
                }
            })
            .collect();
        let path = path.join("/");
        // What is refused often enough without many links.
        let kinds = [
            Directory, Directory, Directory, Regular, Regular, Continuous, Symlink, Link, Fifo,
        ];
        let few = if numbers.below(4) > 0 { 5 } else { kinds.len() };
        let kind = kinds[numbers.below(few)];
        let link = match kind {
            Symlink => numbers.of(&["a", "/b/c", "../..", "nowhere"]),
            Link => numbers.of(&["a", "a/b", "b", "c/a/b"]),
            _ => "",
        };
        let bytes = match kind {
            Regular | Continuous => [0, 5, 4096, 9000][numbers.below(4)],
            _ => 0,
        };
        let content = vec![b'a' + numbers.below(26) as u8; bytes];
        let mut header = header(&path, kind, link, bytes as u64);
        header.set_mode([0o644, 0o4755, 0o1700, 0][numbers.below(4)]);
        header.set_mtime([7, 1_700_000_000, 5_000_000_000][numbers.below(3)]);
        header.set_cksum();
        builder.append(&header, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Number of the user that everything belongs to, and of its group.
const OWNER: (u32, u32) = (70_000, 5);

/// What is at each path: mode, time, names and content.
type Seen = BTreeMap<Vec<u8>, (u16, u64, u32, u32, Vec<u8>)>;

fn seen<B: Blocks>(image: &Image<B>) -> Seen {
    let mut all = Seen::new();
    let mut open = vec![(Vec::new(), image.root().unwrap())];
    while let Some((path, inode)) = open.pop() {
        assert_eq!(
            (inode.user, inode.group),
            OWNER,
            "{}",
            String::from_utf8_lossy(&path)
        );
        let mut content = Vec::new();
        if inode.is_file() {
            image.reader(inode).read_to_end(&mut content).unwrap();
        } else if inode.is_link() {
            content = image.link_target(&inode).unwrap();
        } else {
            let entries = image.entries(&inode).unwrap();
            assert!(entries.is_sorted_by(|one, other| one.name < other.name));
            for entry in entries {
                let path = [path.as_slice(), b"/", &entry.name].concat();
                open.push((path, image.inode(entry.inode).unwrap()));
            }
        }
        let time = (inode.modified_s, inode.modified_ns);
        all.insert(path, (inode.mode, time.0, time.1, inode.links, content));
    }
    all
}

/// A layer, to be shown.
fn listed(layer: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    archive::read(Cursor::new(layer), BOUNDS, |entry, _| -> io::Result<()> {
        let [path, link] = [&entry.path, &entry.link].map(|text| String::from_utf8_lossy(text).into_owned());
        let (kind, mode, time) = (entry.kind, entry.mode, entry.modified_s);
        lines.push(format!("{path} {kind:?} {mode:o} {time} {} {link}", entry.bytes));
        Ok(())
    })
    .unwrap();
    lines
}

/// The image that layers make as a whole; none if they are refused.
fn whole(layers: &[Vec<u8>], folder: Option<&str>) -> Option<NamedTempFile> {
    let unpacked = tempfile::tempdir().unwrap();
    let root = unpacked.path().join("root");
    fs::create_dir(&root).unwrap();
    let mut unpacker = Unpacker::new(&root).unwrap();
    for (number, layer) in layers.iter().enumerate() {
        unpacker.add(number, Cursor::new(layer.as_slice())).ok()?;
    }
    if let Some(folder) = folder {
        unpacker.make_folder(folder).ok()?;
    }
    unpacker.finish();
    let file = NamedTempFile::new().unwrap();
    make_image(
        &root,
        file.path(),
        Owners::User {
            id: OWNER.0,
            group: OWNER.1,
        },
    )
    .unwrap();
    Some(file)
}

fn head(base: &File, file: &File, layers: &[Vec<u8>], folder: &str) -> Result<(), Reason> {
    let mut head = Head::new(base, file)?;
    for layer in layers {
        head.begin_layer();
        archive::read(Cursor::new(layer.as_slice()), BOUNDS, |entry, content| {
            head.add(&change(&entry), content)
        })?;
    }
    head.make_folder(folder.as_bytes())?;
    head.finish().map(drop)
}

#[test]
fn base_and_head_are_what_the_whole_is() {
    let mut numbers = Numbers(1);
    let (mut same, mut left) = (0, 0);
    for _ in 0..400 {
        let lower = [layer(&mut numbers, false), layer(&mut numbers, true)];
        let upper: Vec<_> = (0..1 + numbers.below(2))
            .map(|_| layer(&mut numbers, true))
            .collect();
        let folder = numbers.of(&["/", "/a/b/new", "c"]);
        let Some(base) = whole(&lower, None) else { continue };
        let file = tempfile::tempfile().unwrap();
        let made = head(base.as_file(), &file, &upper, folder);
        let all: Vec<_> = lower.iter().chain(&upper).cloned().collect();
        match (made, whole(&all, Some(folder))) {
            (Ok(()), Some(whole)) => {
                let layered = Parts::open(base.as_file(), &file).unwrap();
                let expected = seen(&Image::open(whole.as_file()).unwrap());
                let found = seen(&layered);
                let paths = found.keys().chain(expected.keys());
                for path in paths {
                    let short =
                        |seen: &Seen| seen.get(path).map(|(mode, .., content)| (*mode, content.len()));
                    let (short, name) = ((short(&found), short(&expected)), String::from_utf8_lossy(path));
                    // A folder that no layer of the head says a time of: of what the base has had there before, and has no
                    // more, nothing is known.
                    let is_untimed = |(mode, time, ..): &&(u16, u64, u32, u32, Vec<u8>)| {
                        mode & 0o040_000 != 0 && *time == 0
                    };
                    let mut wanted = expected.get(path).cloned();
                    if let (Some(wanted), Some(_)) = (&mut wanted, found.get(path).filter(is_untimed)) {
                        (wanted.1, wanted.2) = (0, 0);
                    }
                    let is_same = found.get(path) == wanted.as_ref();
                    assert!(
                        is_same,
                        "{name}: {short:?}\n{:#?}",
                        all.iter().map(|layer| listed(layer)).collect::<Vec<_>>()
                    );
                }
                same += 1;
            }
            (Ok(()), None) => panic!("what is refused as a whole has a head"),
            (Err(_), _) => left += 1,
        }
    }
    assert!(same >= 60, "{same} were compared, {left} were left to the whole");
}

#[test]
fn an_image_is_split_as_low_as_the_rest_is_small() {
    let manifest_of = |sizes: &[u64]| -> ImageManifest {
        let layer = |(number, size): (usize, &u64)| {
            let digest = Digest::of(&[number as u8]).to_string();
            serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})
        };
        let layers: Vec<_> = sizes.iter().enumerate().map(layer).collect();
        let config = serde_json::json!({
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"").to_string(), "size": 1,
        });
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
        serde_json::from_value(manifest).unwrap()
    };
    let split_of = |sizes: &[u64]| split(&manifest_of(sizes), None);
    let count = |sizes: &[u64]| split_of(sizes).map(|split| split.count);
    let mib = |count: u64| count << 20;
    assert_eq!(count(&[mib(40), 5000, 800]), Some(1));
    assert_eq!(count(&[mib(40), 5000, mib(60), 800]), Some(3));
    assert_eq!(count(&[mib(40), mib(10), mib(5), 800]), Some(1));
    assert_eq!(count(&[mib(40), mib(10), mib(7), 800]), Some(2));
    assert_eq!(count(&[mib(40)]), None);
    assert_eq!(count(&[mib(40), mib(60)]), None);
    assert_eq!(count(&[5000, 800]), None, "nothing worth to be shared");
    assert_eq!(count(&[i64::MAX as u64, i64::MAX as u64, i64::MAX as u64]), None);
    assert_eq!(count(&[]), None);
    assert_eq!(
        split_of(&[mib(40), 1]),
        split_of(&[mib(40), 2]),
        "the base is the same"
    );
    assert_ne!(split_of(&[mib(40), 1]), split_of(&[mib(40), mib(40), 2]));
    let of_user = |user| split(&manifest_of(&[mib(40), 1]), Some(user)).unwrap();
    assert_ne!(of_user("app").layers, split_of(&[mib(40), 1]).unwrap().layers);
    assert_ne!(of_user("app").layers, of_user("web").layers);
    assert_eq!(of_user("app"), of_user("app"));
}

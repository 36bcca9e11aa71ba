//! A writer of archives of the kind that Linux unpacks as its first file system: cpio, "newc" (cpio(5)).

/// An archive in the making.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// Permissions and kind of a folder.
const FOLDER: u32 = 0o040_755;
/// Kind of an ordinary file.
const FILE: u32 = 0o100_000;
/// What the last entry is called.
const TRAILER: &str = "TRAILER!!!";
/// Every part begins at a multiple of this.
const ALIGNMENT: usize = 4;

impl Archive {
    /// Adds a folder; those above it come first.
    pub(crate) fn add_folder(&mut self, path: &str) {
        self.add(path, FOLDER, &[]);
    }

    /// Adds a file with these permissions.
    pub(crate) fn add_file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.add(path, FILE | permissions, content);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.add(TRAILER, 0, &[]);
        self.bytes
    }

    /// A header of a magic number and thirteen numbers of eight digits, the path with a zero, the content.
    fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = 1;
        let length = content.len() as u32;
        let path_length = path.len() as u32 + 1;
        // Number, mode, owner, group, links, time, length, two device numbers twice, length of the path, sum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            length,
            0,
            0,
            0,
            0,
            path_length,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_unpacks_what_was_packed() {
        let mut archive = Archive::default();
        archive.add_folder("a");
        archive.add_file("a/odd", 0o644, b"12345");
        archive.add_file("run", 0o755, b"");
        archive.add_file("whole", 0o600, &[7; 4096]);
        let bytes = archive.finish();
        assert!(bytes.len().is_multiple_of(ALIGNMENT));
        let folder = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["--extract", "--quiet", "--make-directories"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("cpio is installed by scripts/test");
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(cpio.wait().unwrap().success());
        let path = |name: &str| folder.path().join(name);
        assert_eq!(std::fs::read(path("a/odd")).unwrap(), b"12345");
        assert_eq!(std::fs::read(path("whole")).unwrap(), [7; 4096]);
        let mode = |name| path(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("run"), mode("a/odd"), mode("a")), (0o755, 0o644, 0o755));
    }
}

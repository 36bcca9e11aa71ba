//! The kernel of the guests: where it is found, and the drivers that come with it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use object::{Object as _, ObjectSection as _};

/// How the file of a kernel begins.
const FILE_PREFIX: &str = "vmlinuz-";
/// How that of a kernel for virtual machines ends; any other one would do, with more in it than is needed.
const CLOUD_SUFFIXES: [&str; 2] = ["-cloud-amd64", "-virtual"];
/// Longest module, in bytes, once it is decompressed.
const MODULE_BYTES_MAX: u64 = 64 << 20;
/// How a compressed module may end.
const ENDINGS: [&str; 3] = [".ko", ".ko.zst", ".ko.xz"];
/// How deep the folder of modules may be.
const DEPTH_MAX: u32 = 12;

/// A kernel, and where its modules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) path: PathBuf,
    /// Its release, as its file's name says.
    pub(crate) release: String,
    /// None if it has all that is needed built in, or so it is hoped.
    modules: Option<PathBuf>,
}

/// A driver, ready to be loaded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Why there is no kernel for the guests.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    #[error(
        "no kernel for the guests is found: run scripts/microvm-kernel, or install linux-image-cloud-amd64, or name one with \
         --microvm-kernel"
    )]
    None,
    #[error("{0} is no file that can be read: name a kernel with --microvm-kernel")]
    Unreadable(PathBuf, #[source] io::Error),
    #[error("the kernel's driver {name} cannot be read")]
    Module {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("the kernel {release} has no driver {name}: take another one with --microvm-kernel")]
    NoDriver { release: String, name: String },
}

impl Kernel {
    /// The kernel that is named, or the newest one of those for virtual machines.
    pub(crate) fn find(named: Option<&Path>, folders: &[PathBuf]) -> Result<Self, KernelError> {
        if let Some(path) = named {
            let unreadable = |error| KernelError::Unreadable(path.to_owned(), error);
            File::open(path).map_err(unreadable)?;
            return Ok(Self::at(path.canonicalize().map_err(unreadable)?));
        }
        let newest = folders.iter().find_map(|folder| newest(folder));
        newest.map(Self::at).ok_or(KernelError::None)
    }

    /// What a kernel's file says of itself, and what lies around it.
    fn at(path: PathBuf) -> Self {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let release = name.strip_prefix(FILE_PREFIX).unwrap_or_default().to_owned();
        let beside = path
            .parent()
            .and_then(Path::parent)
            .map(|root| root.join("lib/modules"));
        let folders = beside.into_iter().chain([PathBuf::from("/lib/modules")]);
        let modules = folders
            .map(|folder| folder.join(&release))
            .find(|folder| !release.is_empty() && folder.is_dir());
        Self {
            path,
            release,
            modules,
        }
    }

    /// Those of the drivers that are no part of the kernel's file, each after those that it needs.
    pub(crate) fn drivers(&self, names: &[&str]) -> Result<Vec<Module>, KernelError> {
        let Some(folder) = &self.modules else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        find_modules(folder, DEPTH_MAX, &mut files);
        let built_in = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
        let mut drivers = Vec::new();
        for name in names {
            self.add(name, &files, &built_in, &mut drivers)?;
        }
        Ok(drivers)
    }

    fn add(
        &self,
        name: &str,
        files: &[PathBuf],
        built_in: &str,
        drivers: &mut Vec<Module>,
    ) -> Result<(), KernelError> {
        let is_this = |path: &Path| module_name(path).is_some_and(|found| found == name);
        if drivers.iter().any(|driver| driver.name == name)
            || built_in.lines().any(|line| is_this(Path::new(line)))
        {
            return Ok(());
        }
        let Some(path) = files.iter().find(|path| is_this(path)) else {
            return Err(KernelError::NoDriver {
                release: self.release.clone(),
                name: name.to_owned(),
            });
        };
        let bytes = read_module(path).map_err(|source| KernelError::Module {
            name: name.to_owned(),
            source,
        })?;
        for needed in dependencies(&bytes) {
            self.add(&needed, files, built_in, drivers)?;
        }
        let mut bytes = bytes;
        bytes.truncate(unsigned_bytes(&bytes));
        drivers.push(Module {
            name: name.to_owned(),
            bytes,
        });
        Ok(())
    }
}

/// The newest kernel in a folder of those for virtual machines.
fn newest(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let kernels = names.filter(|name| {
        name.starts_with(FILE_PREFIX) && CLOUD_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
    });
    let name = kernels.max_by_key(|name| version(name))?;
    Some(folder.join(name))
}

/// The numbers in a name, in order: what makes one release newer than another.
fn version(name: &str) -> Vec<u64> {
    let numbers = name.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

fn find_modules(folder: &Path, depth: u32, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => find_modules(&entry.path(), depth - 1, files),
            Ok(kind) if kind.is_file() && module_name(&entry.path()).is_some() => files.push(entry.path()),
            _ => {}
        }
    }
}

/// The name of the module in a file; the kernel takes `-` and `_` for the same.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending))?;
    Some(name.replace('-', "_"))
}

fn read_module(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    match path.extension().and_then(OsStr::to_str) {
        Some("zst") => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(file).map_err(io::Error::other)?;
            decoder.take(MODULE_BYTES_MAX).read_to_end(&mut bytes)?;
        }
        Some("xz") => {
            let output = std::process::Command::new("xz").arg("-dc").arg(path).output();
            let output =
                output.map_err(|error| io::Error::new(error.kind(), format!("install xz-utils: {error}")))?;
            if !output.status.success() {
                return Err(io::Error::other(format!("xz ended with {}", output.status)));
            }
            bytes = output.stdout;
        }
        _ => drop(file.take(MODULE_BYTES_MAX).read_to_end(&mut bytes)?),
    }
    Ok(bytes)
}

/// Length of a module without its signature (Linux: Documentation/admin-guide/module-signing.rst). The guest's kernel does not ask
/// for one as long as it is not locked down, but checks what is there, which takes a while where it is emulated.
fn unsigned_bytes(module: &[u8]) -> usize {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    /// Five numbers of a byte, three zeroes, and the signature's length.
    const INFORMATION_BYTES: usize = 12;
    let length = || {
        let rest = module.strip_suffix(MAGIC)?;
        let (_, length) = rest.split_last_chunk()?;
        let signature = u32::from_be_bytes(*length) as usize;
        rest.len().checked_sub(INFORMATION_BYTES)?.checked_sub(signature)
    };
    length().unwrap_or(module.len())
}

/// The modules that a module needs, as it says itself.
fn dependencies(module: &[u8]) -> Vec<String> {
    let Ok(file) = object::File::parse(module) else {
        return Vec::new();
    };
    let section = file
        .section_by_name(".modinfo")
        .and_then(|section| section.data().ok());
    let entries = section.unwrap_or_default().split(|&byte| byte == 0);
    let lists = entries.filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("depends="));
    let names = lists.flat_map(|list| list.split(','));
    names
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVERS: &[&str] = crate::monitor::Monitor::Qemu.drivers();

    #[test]
    fn the_newest_kernel_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Kernel::find(None, &[folder.path().to_owned()]),
            Err(KernelError::None)
        ));
        for name in [
            "vmlinuz-6.1.0-9-cloud-amd64",
            "vmlinuz-6.1.0-57-cloud-amd64",
            "vmlinuz-6.9.0-amd64",
        ] {
            File::create(folder.path().join(name)).unwrap();
        }
        let kernel = Kernel::find(None, &[PathBuf::from("/none"), folder.path().to_owned()]).unwrap();
        assert_eq!(kernel.release, "6.1.0-57-cloud-amd64");
        let named = folder.path().join("vmlinuz-6.9.0-amd64");
        assert_eq!(Kernel::find(Some(&named), &[]).unwrap().release, "6.9.0-amd64");
        let missing = folder.path().join("none");
        assert!(Kernel::find(Some(&missing), &[]).is_err());
    }

    #[test]
    fn a_signature_is_left_out() {
        let signed = [
            &b"module"[..],
            b"signed",
            &[0; 8],
            &6_u32.to_be_bytes(),
            b"~Module signature appended~\n",
        ]
        .concat();
        assert_eq!(unsigned_bytes(&signed), 6);
        assert_eq!(unsigned_bytes(b"module"), 6);
        let longer = [
            &[0; 8][..],
            &60_u32.to_be_bytes(),
            b"~Module signature appended~\n",
        ]
        .concat();
        assert_eq!(unsigned_bytes(&longer), longer.len());
    }

    #[test]
    fn a_kernel_without_a_driver_says_which() {
        let root = tempfile::tempdir().unwrap();
        let modules = root.path().join("lib/modules/1.2.3-cloud-amd64/kernel");
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir(root.path().join("boot")).unwrap();
        File::create(root.path().join("boot/vmlinuz-1.2.3-cloud-amd64")).unwrap();
        let kernel = Kernel::find(None, &[root.path().join("boot")]).unwrap();
        let error = kernel.drivers(DRIVERS).unwrap_err();
        assert!(error.to_string().contains("has no driver virtio_mmio"), "{error}");
        for name in ["virtio-mmio.ko", "virtio_blk.ko", "erofs.ko", "overlay.ko"] {
            fs::write(modules.join(name), name).unwrap();
        }
        fs::write(
            modules.join("../modules.builtin"),
            "kernel/drivers/char/virtio_console.ko\n",
        )
        .unwrap();
        let names: Vec<_> = kernel
            .drivers(DRIVERS)
            .unwrap()
            .into_iter()
            .map(|driver| driver.name)
            .collect();
        assert_eq!(names, ["virtio_mmio", "virtio_blk", "erofs", "overlay"]);
    }
}

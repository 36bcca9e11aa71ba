//! The shared libraries that programs are linked against, as `ldd` tells them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::RuntimeError;
use crate::layer::Tree;

/// Where the dynamic loader looks without being told; libraries from elsewhere go to the last of them.
const SEARCHED: [&str; 4] = ["/lib/", "/lib64/", "/usr/lib64/", "/usr/lib/"];
const ELSEWHERE: &str = "/usr/lib";

/// Adds the libraries of `programs` to a tree and returns where they come from. What is missing is an error for the first
/// program; a module of a standard library may do without what its windows would need, and is then not usable.
pub(super) fn add_libraries(tree: &mut Tree, programs: &[PathBuf]) -> Result<Vec<PathBuf>, RuntimeError> {
    let Some(first) = programs.first() else {
        return Ok(Vec::new());
    };
    let output = Command::new("ldd")
        .args(programs)
        .env_remove("LD_LIBRARY_PATH")
        .env("LC_ALL", "C")
        .output()
        .map_err(|source| RuntimeError::Tool { tool: "ldd", source })?;
    let found = parse(first, &String::from_utf8_lossy(&output.stdout));
    if let Some((program, library)) = found.missing.iter().find(|(program, _)| program == first) {
        return Err(RuntimeError::NoLibrary {
            program: program.display().to_string(),
            library: library.clone(),
        });
    }
    for library in &found.paths {
        tree.add_file(place(library), library)
            .map_err(RuntimeError::file(library))?;
    }
    Ok(found.paths.into_iter().collect())
}

/// Adds libraries by name as far as this machine has them, from beside the C library: what wheels and add-ons expect
/// everywhere. Returns where they come from.
pub(super) fn add_if_present(tree: &mut Tree, known: &[PathBuf], names: &[&str]) -> Vec<PathBuf> {
    let is_c_library = |path: &&PathBuf| path.file_name().is_some_and(|name| name == "libc.so.6");
    let Some(folder) = known.iter().find(is_c_library).and_then(|path| path.parent()) else {
        return Vec::new();
    };
    let paths = names.iter().map(|name| folder.join(name));
    paths
        .filter(|path| tree.add_file(place(path), path).is_ok())
        .collect()
}

/// Where a library goes in the tree.
fn place(library: &Path) -> PathBuf {
    let is_found = SEARCHED.iter().any(|folder| library.starts_with(folder));
    if is_found {
        return library.to_owned();
    }
    Path::new(ELSEWHERE).join(library.file_name().unwrap_or_default())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    paths: BTreeSet<PathBuf>,
    /// Programs, and names of libraries that are not on this machine.
    missing: Vec<(PathBuf, String)>,
}

/// Reads what `ldd` prints; it names the program before its libraries only if there are several.
fn parse(first: &Path, text: &str) -> Found {
    let mut found = Found::default();
    let mut program = first.to_owned();
    for line in text.lines() {
        let is_indented = line.starts_with(char::is_whitespace);
        if let Some(name) = line.strip_suffix(':').filter(|_| !is_indented) {
            program = PathBuf::from(name);
        } else if let Some(library) = line.trim().strip_suffix(" => not found") {
            found.missing.push((program.clone(), library.to_owned()));
        } else if let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) {
            found.paths.insert(PathBuf::from(path));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read_for_one_program_and_for_several() {
        let one = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        let found = parse(Path::new("/bin/a"), one);
        assert_eq!(
            found.paths,
            BTreeSet::from(["/lib/libc.so.6".into(), "/lib64/ld.so".into()])
        );
        assert_eq!(found.missing, []);
        let several =
            format!("/bin/a:\n{one}/bin/b:\n\tlibX.so.6 => not found\n/bin/c:\n\tnot a dynamic executable\n");
        let found = parse(Path::new("/bin/a"), &several);
        assert_eq!(found.missing, [("/bin/b".into(), "libX.so.6".to_owned())]);
        assert_eq!(found.paths.len(), 2);
    }

    #[test]
    fn libraries_lie_where_the_loader_looks() {
        for (from, to) in [
            (
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib/x86_64-linux-gnu/libc.so.6",
            ),
            ("/opt/python/lib/libpython3.so", "/usr/lib/libpython3.so"),
        ] {
            assert_eq!(place(Path::new(from)), Path::new(to));
        }
    }
}

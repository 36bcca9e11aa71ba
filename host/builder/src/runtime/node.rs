//! The runtime of Node.js: one program, its libraries, and what Debian's keeps beside it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::libraries::{add_if_present, add_libraries};
use super::{Contents, RuntimeError, ask, base_tree};

pub(super) const SDK_FILES: &[(&str, &str)] = &[
    ("server.js", include_str!("../../../../sdk/node/server.js")),
    ("spore.js", include_str!("../../../../sdk/node/spore.js")),
];
pub(super) const ENTRYPOINT: [&str; 2] = ["/usr/bin/node", "/spore/server.js"];
pub(super) const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/root"),
    ("NODE_ENV", "production"),
    // What server.js answers once by itself, so that clones have compiled what that takes.
    ("SPORE_BEFORE_SNAPSHOT", "/.spore/practice"),
];

/// Oldest release that is taken: what the SDK is written for.
const MAJOR_MIN: u32 = 18;
/// Where Debian's Node.js has modules that others have inside, and which of them.
const SHARED_MODULES: &str = "/usr/share/nodejs";
const SHARED_MODULE_NAMES: [&str; 4] = ["acorn", "acorn-walk", "cjs-module-lexer", "undici"];
/// What add-ons may be linked against.
const ADD_ON_LIBRARIES: [&str; 4] = ["libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libstdc++.so.6"];

const QUESTION: &str = "JSON.stringify({ version: process.versions.node, executable: process.execPath, \
                        isShared: require('node:fs').existsSync('/usr/share/nodejs/undici') })";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    version: String,
    executable: PathBuf,
    is_shared: bool,
}

/// What is in the runtime, and the program itself, whatever script stood for it.
pub(super) fn contents(interpreter: &Path) -> Result<(Contents, PathBuf), RuntimeError> {
    let refused = |reason: String| RuntimeError::Interpreter {
        interpreter: interpreter.to_owned(),
        reason,
    };
    let text = ask(interpreter, &["-p", QUESTION])?;
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|error| refused(format!("it answers what is no JSON: {error}")))?;
    let major = answer
        .version
        .split('.')
        .next()
        .and_then(|text| text.parse().ok());
    if major.is_none_or(|major: u32| major < MAJOR_MIN) {
        return Err(refused(format!(
            "it is Node.js {}: give version {MAJOR_MIN} or newer",
            answer.version
        )));
    }
    let mut tree = base_tree();
    tree.add_file("/usr/bin/node", &answer.executable)
        .map_err(RuntimeError::file(&answer.executable))?;
    let mut origins = vec![answer.executable.clone()];
    if answer.is_shared {
        for name in SHARED_MODULE_NAMES {
            let folder = Path::new(SHARED_MODULES).join(name);
            let is_taken = |path: &Path| path.file_name().is_some_and(|name| name != "node_modules");
            if folder.is_dir() {
                tree.add_folder_content(&folder, &folder, &is_taken)
                    .map_err(|(path, source)| RuntimeError::File { path, source })?;
                origins.push(folder.join("package.json"));
            }
        }
    }
    let libraries = add_libraries(&mut tree, std::slice::from_ref(&answer.executable))?;
    origins.extend(add_if_present(&mut tree, &libraries, &ADD_ON_LIBRARIES));
    origins.extend(libraries);
    let contents = Contents {
        version: answer.version,
        tree,
        origins,
        staging: None,
    };
    Ok((contents, answer.executable))
}

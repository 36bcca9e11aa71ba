//! What building in compiled languages has in common: a tool that makes a static program, and what it has to say.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Where programs and what they are made of are written to, below the function's folder.
pub(crate) const BUILD_FOLDER: &str = "build";

/// A program that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltProgram {
    /// The program file.
    pub path: PathBuf,
    /// What the tool had to say nevertheless, as it printed it; empty if nothing.
    pub warnings: String,
}

/// A tool that builds programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// The command.
    pub command: &'static str,
    /// How to get it.
    pub advice: &'static str,
}

/// Why a function could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The folder holds no source.
    #[error("{} holds no {expected}: write one, or begin with spore new", folder.display())]
    NoSources {
        /// The function's folder.
        folder: PathBuf,
        /// What is missing.
        expected: &'static str,
    },
    /// A file of the function does not say what it must.
    #[error("{} {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// The tool is not installed.
    #[error("{} was not found: {}", tool.command, tool.advice)]
    ToolMissing {
        /// Which.
        tool: Tool,
    },
    /// The tool could not be started.
    #[error("{} could not be started", tool.command)]
    Start {
        /// Which.
        tool: Tool,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The tool found errors.
    #[error("{} failed in {} ({status})", tool.command, folder.display())]
    Failed {
        /// Which.
        tool: Tool,
        /// The function's folder.
        folder: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        diagnostics: String,
    },
    /// The tool made no program.
    #[error("{} made no program in {}: {advice}", tool.command, folder.display())]
    NoProgram {
        /// Which.
        tool: Tool,
        /// The function's folder.
        folder: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// A file or folder could not be read or written.
    #[error("{} could not be read or written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl BuildError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// What a tool that succeeded printed.
pub(crate) struct Printed {
    pub(crate) output: Vec<u8>,
    pub(crate) diagnostics: String,
}

/// Runs a tool in the function's folder, so that its diagnostics name files as their author knows them.
pub(crate) fn run(tool: Tool, folder: &Path, command: &mut Command) -> Result<Printed, BuildError> {
    let output = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BuildError::ToolMissing { tool },
            _ => BuildError::Start { tool, source },
        })?;
    let diagnostics = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(BuildError::Failed {
            tool,
            folder: folder.to_owned(),
            status: output.status,
            diagnostics,
        });
    }
    Ok(Printed {
        output: output.stdout,
        diagnostics,
    })
}

/// Writes files of an SDK into a folder. Those that are so already stay: tools build again what is newer.
pub(crate) fn write_files(folder: &Path, files: &[(&str, &str)]) -> Result<(), BuildError> {
    for (name, content) in files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(BuildError::file(parent))?;
        if std::fs::read(&path).is_ok_and(|present| present == content.as_bytes()) {
            continue;
        }
        std::fs::write(&path, content).map_err(BuildError::file(&path))?;
    }
    Ok(())
}

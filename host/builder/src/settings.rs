//! The settings of a function as its author writes them: `spore.toml` in the function's folder.
//!
//! Values that the daemon judges (memory, timeout) are passed on as written, so that there is one place that knows
//! what is allowed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use crate::language::Language;
use crate::name::{FunctionName, NameError};

/// Name of the settings file in a function's folder.
pub const SETTINGS_FILE: &str = "spore.toml";

/// What `spore.toml` holds. Every value may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    name: Option<FunctionName>,
    lang: Option<Language>,
    program: Option<PathBuf>,
    fprocess: Option<String>,
    memory: Option<String>,
    cpu: Option<String>,
    timeout: Option<String>,
    port: Option<u16>,
    #[serde(default)]
    scale: Scale,
    #[serde(default)]
    allow_egress: Vec<String>,
    syscall_rewriting: Option<bool>,
    snapshot: Option<bool>,
    isolation: Option<String>,
    sandbox: Option<String>,
    isolation_per_request: Option<bool>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// How many instances a function may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Instances kept even when idle.
    pub min: Option<u32>,
    /// Most instances at a time.
    pub max: Option<u32>,
    /// Instances that wait for requests that have not come yet, beyond those that are busy.
    pub ahead: Option<u32>,
}

/// The settings of one function, with what follows from its folder filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSettings {
    /// The name, from the file or else from the folder.
    pub name: FunctionName,
    /// The language, from the file or else from the sources in the folder; none of a function that is not built here.
    pub language: Option<Language>,
    /// The program of a function that is none of a language's, relative to the folder.
    pub program: Option<PathBuf>,
    /// Command that is run for each invocation, in place of a server; it is split at spaces.
    pub fprocess: Option<String>,
    /// Memory limit as a Kubernetes quantity, for example `64Mi`.
    pub memory: Option<String>,
    /// Most processor time of an instance, for example `500m` or `1.5` processors.
    pub cpu: Option<String>,
    /// Memory that an instance is to be sure of.
    pub requested_memory: Option<String>,
    /// Processor time that an instance is to be sure of.
    pub requested_cpu: Option<String>,
    /// Longest time of an invocation, for example `30s`.
    pub timeout: Option<String>,
    /// TCP port on which the program listens; the SDKs read it from `PORT`.
    pub port: Option<u16>,
    /// How many instances the function may have.
    pub scale: Scale,
    /// Where the function may connect to: `HOST[:PORT]`, addresses and networks.
    pub allow_egress: Vec<String>,
    /// Whether call sites may be rewritten so that system calls do not trap.
    pub syscall_rewriting: Option<bool>,
    /// Whether instances are copies of one that was booted once.
    pub snapshot: Option<bool>,
    /// What is to be around the instances, `vm` or `process`; none leaves it to the daemon.
    pub isolation: Option<String>,
    /// The kind of sandbox of the instances, for example `runc`; none is a unikernel.
    pub sandbox: Option<String>,
    /// Whether each instance serves one invocation only.
    pub isolation_per_request: Option<bool>,
    /// Names of secrets that its instances may read.
    pub secrets: Vec<String>,
    /// What the build is told, where the language's tool takes it.
    pub build_arguments: BTreeMap<String, String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Labels, passed to the daemon as written.
    pub labels: BTreeMap<String, String>,
    /// Annotations, passed to the daemon as written.
    pub annotations: BTreeMap<String, String>,
}

/// Why the settings of a function could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The folder is not there.
    #[error("there is no folder {}: make one with spore new, or deploy a program with --binary FILE", folder.display())]
    NoFolder {
        /// The folder as given.
        folder: PathBuf,
    },
    /// The file is there but cannot be read.
    #[error("{} could not be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML, or has a key or value that means nothing.
    #[error("{} is not valid", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// The file gives no name and the folder's own name cannot be one.
    #[error("{} has no name that a function can have: add name = \"…\" to its {SETTINGS_FILE}", folder.display())]
    NoName {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with the folder's name.
        #[source]
        source: NameError,
    },
    /// The file gives no language and no source tells it.
    #[error(
        "{} holds no source of a language that spore can build ({}): begin with spore new, or deploy a program with --binary FILE",
        folder.display(),
        Language::choice()
    )]
    NoLanguage {
        /// The folder.
        folder: PathBuf,
    },
}

impl FunctionSettings {
    /// Nothing but a name.
    #[must_use]
    pub fn new(name: FunctionName) -> Self {
        Self::from_file(name, None, SettingsFile::default())
    }

    fn from_file(name: FunctionName, language: Option<Language>, file: SettingsFile) -> Self {
        Self {
            name,
            language,
            program: file.program,
            memory: file.memory,
            cpu: file.cpu,
            requested_memory: None,
            requested_cpu: None,
            timeout: file.timeout,
            port: file.port,
            scale: file.scale,
            allow_egress: file.allow_egress,
            syscall_rewriting: file.syscall_rewriting,
            snapshot: file.snapshot,
            fprocess: file.fprocess,
            isolation: file.isolation,
            sandbox: file.sandbox,
            isolation_per_request: file.isolation_per_request,
            secrets: file.secrets,
            build_arguments: BTreeMap::new(),
            environment: file.env,
            labels: file.labels,
            annotations: file.annotations,
        }
    }
}

/// Reads the settings of the function in `folder`.
pub fn load(folder: &Path) -> Result<FunctionSettings, SettingsError> {
    let mut file = read_folder(folder)?;
    let name = match file.name.take() {
        Some(name) => name,
        None => name_of_folder(folder)?,
    };
    let language = match file.lang {
        Some(language) => language,
        None => language_of_folder(folder)?,
    };
    Ok(FunctionSettings::from_file(name, Some(language), file))
}

/// Reads the settings of the function in `folder`, whose name and language stand elsewhere.
pub fn load_as(
    folder: &Path,
    name: FunctionName,
    language: Language,
) -> Result<FunctionSettings, SettingsError> {
    let file = read_folder(folder)?;
    Ok(FunctionSettings::from_file(name, Some(language), file))
}

fn read_folder(folder: &Path) -> Result<SettingsFile, SettingsError> {
    if !folder.is_dir() {
        return Err(SettingsError::NoFolder {
            folder: folder.into(),
        });
    }
    read_file(&folder.join(SETTINGS_FILE))
}

fn read_file(path: &Path) -> Result<SettingsFile, SettingsError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            return Err(SettingsError::Read {
                path: path.into(),
                source,
            });
        }
    };
    toml::from_str(&text).map_err(|source| SettingsError::Invalid {
        path: path.into(),
        source,
    })
}

fn name_of_folder(folder: &Path) -> Result<FunctionName, SettingsError> {
    // `spore deploy .` has no name of its own.
    let absolute = folder.canonicalize().map_err(|source| SettingsError::Read {
        path: folder.into(),
        source,
    })?;
    let name = absolute.file_name().unwrap_or_default().to_string_lossy();
    name.parse().map_err(|source| SettingsError::NoName {
        folder: folder.into(),
        source,
    })
}

fn language_of_folder(folder: &Path) -> Result<Language, SettingsError> {
    Language::of_folder(folder).ok_or_else(|| SettingsError::NoLanguage {
        folder: folder.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(settings: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(SETTINGS_FILE), settings).unwrap();
        folder
    }

    #[test]
    fn all_settings_are_read() {
        let folder = folder_with(
            "name = \"a-b\"\nlang = \"c\"\nmemory = \"64Mi\"\ntimeout = \"3s\"\nport = 9000\n\
             allow_egress = [\"db:5432\"]\nsyscall_rewriting = false\nsnapshot = true\nisolation = \"process\"\nsandbox = \"crun\"\n\
             isolation_per_request = true\nsecrets = [\"key\"]\n\
             [scale]\nmin = 1\nmax = 2\nahead = 1\n[env]\nA = \"b=c\"\n[labels]\nl = \"1\"\n[annotations]\nn = \"2\"\n",
        );
        let settings = load(folder.path()).unwrap();
        assert_eq!(settings.name.as_str(), "a-b");
        assert_eq!(settings.memory.as_deref(), Some("64Mi"));
        assert_eq!(settings.timeout.as_deref(), Some("3s"));
        assert_eq!(settings.port, Some(9000));
        assert_eq!(settings.allow_egress, ["db:5432"]);
        assert_eq!(settings.syscall_rewriting, Some(false));
        assert_eq!(settings.snapshot, Some(true));
        assert_eq!(settings.isolation.as_deref(), Some("process"));
        assert_eq!(settings.sandbox.as_deref(), Some("crun"));
        assert_eq!(settings.isolation_per_request, Some(true));
        assert_eq!(
            settings.scale,
            Scale {
                min: Some(1),
                max: Some(2),
                ahead: Some(1),
            }
        );
        assert_eq!(settings.secrets, ["key"]);
        assert_eq!(settings.environment["A"], "b=c");
        assert_eq!((&*settings.labels["l"], &*settings.annotations["n"]), ("1", "2"));
    }

    #[test]
    fn name_and_language_follow_from_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("resize");
        std::fs::create_dir(&folder).unwrap();
        assert!(matches!(load(&folder), Err(SettingsError::NoLanguage { .. })));
        std::fs::write(folder.join("handler.c"), "").unwrap();
        let settings = load(&folder).unwrap();
        assert_eq!(
            (settings.name.as_str(), settings.language),
            ("resize", Some(Language::C))
        );
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = load(folder_with("lang = \"c\"\nmemry = \"1Mi\"\n").path()).unwrap_err();
        let SettingsError::Invalid { source, .. } = unknown else {
            panic!("{unknown}")
        };
        assert!(source.to_string().contains("memry"), "{source}");
        let name = load(folder_with("name = \"Bad Name\"\nlang = \"c\"\n").path()).unwrap_err();
        let SettingsError::Invalid { source, .. } = name else {
            panic!("{name}")
        };
        assert!(source.to_string().contains("lower-case"), "{source}");
        assert!(matches!(
            load(Path::new("/nonexistent/x")),
            Err(SettingsError::NoFolder { .. })
        ));
    }
}

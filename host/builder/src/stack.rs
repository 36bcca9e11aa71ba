//! `stack.yaml` of OpenFaaS: several functions in one file.
//!
//! ```text
//!   text ──${NAME:-default}──> text ──YAML──> functions ──what their folders' spore.toml adds──> settings
//! ```
//!
//! What stands in the stack goes before `spore.toml`. Keys that mean nothing here are named in a warning; keys that nobody
//! knows are an error, with the line.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use regex_lite::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::language::Language;
use crate::name::FunctionName;
use crate::settings::{self, FunctionSettings, SettingsError};

/// The name of the file if none is given; `stack.yml` is taken as well.
pub const STACK_FILE: &str = "stack.yaml";
/// Longest file, before and after variables are put in, in bytes.
const BYTES_MAX: u64 = 1 << 20;
const EXPANDED_BYTES_MAX: usize = 4 << 20;
/// Most functions of a file.
const FUNCTIONS_MAX: usize = 1_000;
/// What `provider.name` may be.
const PROVIDERS: [&str; 2] = ["openfaas", "faas"];

/// A stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Address of the gateway, if the file names one.
    pub gateway: Option<String>,
    /// The functions, by name.
    pub functions: Vec<StackFunction>,
    /// What has no effect, one line each.
    pub warnings: Vec<String>,
}

/// One function of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackFunction {
    /// Its settings.
    pub settings: FunctionSettings,
    /// Where it comes from.
    pub source: StackSource,
}

/// Where a function of a stack comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StackSource {
    /// A folder that it is built from.
    Folder(PathBuf),
    /// An image that is there.
    Image(String),
}

/// Why a stack could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// The file cannot be read.
    #[error("{} could not be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A `${` is never closed, or names no variable.
    #[error("{}, line {line}: {problem}", path.display())]
    Variable {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// The file is no YAML, or has a key or value that means nothing.
    #[error("{} is not valid: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
    /// One of its functions cannot be understood.
    #[error("{}: function {function}: {problem}", path.display())]
    Function {
        /// The file.
        path: PathBuf,
        /// The function's name.
        function: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The settings in a function's folder cannot be read.
    #[error("the settings of function {function} cannot be read")]
    Settings {
        /// The function's name.
        function: String,
        /// Why not.
        #[source]
        source: Box<SettingsError>,
    },
    /// No function is chosen.
    #[error("no function of {} has a name that matches {pattern}", path.display())]
    NoneChosen {
        /// The file.
        path: PathBuf,
        /// The pattern.
        pattern: String,
    },
    /// A pattern is none.
    #[error("{pattern} is no pattern: {problem}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why not.
        problem: String,
    },
}

/// Which functions of a stack are meant.
#[derive(Debug, Clone)]
pub struct Choice {
    pattern: String,
    regex: Option<Regex>,
}

impl Choice {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self {
            pattern: String::new(),
            regex: None,
        }
    }

    /// Those whose name matches `pattern`, in which a `*` stands for anything.
    ///
    /// # Errors
    ///
    /// If it is too long to be a pattern.
    pub fn wildcard(pattern: &str) -> Result<Self, StackError> {
        let parts: Vec<String> = pattern.split('*').map(regex_lite::escape).collect();
        Self::matching(pattern, &format!("^{}$", parts.join(".*")))
    }

    /// Those whose name matches a regular expression.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn regex(pattern: &str) -> Result<Self, StackError> {
        Self::matching(pattern, pattern)
    }

    fn matching(pattern: &str, regex: &str) -> Result<Self, StackError> {
        let regex = Regex::new(regex).map_err(|error| StackError::Pattern {
            pattern: pattern.to_owned(),
            problem: error.to_string(),
        })?;
        Ok(Self {
            pattern: pattern.to_owned(),
            regex: Some(regex),
        })
    }

    fn includes(&self, name: &str) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    provider: Option<Provider>,
    #[serde(rename = "configuration")]
    _configuration: Option<IgnoredAny>,
    #[serde(default)]
    functions: BTreeMap<String, Function>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    name: Option<String>,
    gateway: Option<String>,
    #[serde(rename = "network")]
    _network: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    lang: Option<String>,
    handler: Option<PathBuf>,
    image: Option<String>,
    #[serde(default)]
    skip_build: bool,
    #[serde(default)]
    environment: BTreeMap<String, Scalar>,
    #[serde(default)]
    environment_file: Vec<PathBuf>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, Scalar>,
    #[serde(default)]
    annotations: BTreeMap<String, Scalar>,
    #[serde(default)]
    limits: Amounts,
    #[serde(default)]
    requests: Amounts,
    #[serde(default)]
    build_args: BTreeMap<String, Scalar>,
    namespace: Option<IgnoredAny>,
    fprocess: Option<String>,
    constraints: Option<IgnoredAny>,
    readonly_root_filesystem: Option<IgnoredAny>,
    build_options: Option<IgnoredAny>,
    platforms: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Amounts {
    memory: Scalar,
    cpu: Scalar,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvironmentFile {
    #[serde(default)]
    environment: BTreeMap<String, Scalar>,
}

/// Text as it is written, whatever YAML would make of it; none if nothing is.
type Scalar = Option<String>;

fn texts(values: BTreeMap<String, Scalar>) -> impl Iterator<Item = (String, String)> {
    values
        .into_iter()
        .map(|(name, value)| (name, value.unwrap_or_default()))
}

/// Reads the functions that `choice` includes of the stack in `path`. `variable` tells what an environment variable is set
/// to.
///
/// # Errors
///
/// If the file cannot be read or is no stack, or if no function is chosen.
pub fn load(
    path: &Path,
    choice: &Choice,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Stack, StackError> {
    let mut warnings = Vec::new();
    let file: File = parse(path, variable, &mut warnings)?;
    let invalid = |problem: String| StackError::Invalid {
        path: path.to_owned(),
        problem,
    };
    let provider = file
        .provider
        .as_ref()
        .and_then(|provider| provider.name.as_deref());
    if let Some(name) = provider.filter(|name| !PROVIDERS.contains(name)) {
        return Err(invalid(format!("provider.name is {name}: write name: openfaas")));
    }
    if file.functions.len() > FUNCTIONS_MAX {
        return Err(invalid(format!(
            "it has {} functions: at most {FUNCTIONS_MAX} can be in one file",
            file.functions.len()
        )));
    }
    let mut functions = Vec::new();
    for (name, function) in file.functions {
        if choice.includes(&name) {
            functions.push(read_function(path, &name, function, variable, &mut warnings)?);
        }
    }
    if functions.is_empty() {
        return Err(if choice.regex.is_some() {
            StackError::NoneChosen {
                path: path.to_owned(),
                pattern: choice.pattern.clone(),
            }
        } else {
            invalid("it has no functions: add one with spore new NAME --append".to_owned())
        });
    }
    Ok(Stack {
        gateway: file.provider.and_then(|provider| provider.gateway),
        functions,
        warnings,
    })
}

fn parse<T: serde::de::DeserializeOwned>(
    path: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<T, StackError> {
    let read = |source| StackError::Read {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(read)?.len() > BYTES_MAX {
        return Err(read(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {BYTES_MAX} bytes"),
        )));
    }
    let text = fs::read_to_string(path).map_err(read)?;
    let expanded = expand(&text, variable).map_err(|(line, problem)| StackError::Variable {
        path: path.to_owned(),
        line,
        problem,
    })?;
    for name in expanded.unset {
        warnings.push(format!(
            "{}: {name} is not set, and counts as empty: write ${{{name}:-default}} to give it a value",
            path.display()
        ));
    }
    serde_saphyr::from_str(&expanded.text).map_err(|error| StackError::Invalid {
        path: path.to_owned(),
        problem: error.to_string(),
    })
}

fn read_function(
    path: &Path,
    name: &str,
    function: Function,
    variable: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<StackFunction, StackError> {
    let wrong = |problem: String| StackError::Function {
        path: path.to_owned(),
        function: name.to_owned(),
        problem,
    };
    let valid_name: FunctionName = name
        .parse()
        .map_err(|error: crate::name::NameError| wrong(error.to_string()))?;
    let ignored = [
        ("namespace", function.namespace.is_some()),
        ("constraints", function.constraints.is_some()),
        (
            "readonly_root_filesystem",
            function.readonly_root_filesystem.is_some(),
        ),
        ("build_options", function.build_options.is_some()),
        ("platforms", function.platforms.is_some()),
    ];
    for (key, _) in ignored.into_iter().filter(|(_, is_there)| *is_there) {
        warnings.push(format!(
            "{}: function {name}: {key} has no effect",
            path.display()
        ));
    }
    let base = path.parent().unwrap_or(Path::new(""));
    let (source, mut settings) = match (function.handler, function.image) {
        (Some(handler), image) if !function.skip_build => {
            let folder = base.join(handler);
            let language = match function.lang.as_deref() {
                Some(lang) => lang
                    .parse::<Language>()
                    .map_err(|error| wrong(error.to_string()))?,
                None => {
                    return Err(wrong(format!(
                        "it has no lang: write one of {}",
                        Language::choice()
                    )));
                }
            };
            let _ = image;
            let settings =
                settings::load_as(&folder, valid_name, language).map_err(|source| StackError::Settings {
                    function: name.to_owned(),
                    source: Box::new(source),
                })?;
            (StackSource::Folder(folder), settings)
        }
        (_, Some(image)) => (StackSource::Image(image), FunctionSettings::new(valid_name)),
        (_, None) => {
            return Err(wrong(
                "it has neither a handler nor an image: add handler: ./FOLDER or image: REFERENCE".to_owned(),
            ));
        }
    };
    for file in function.environment_file {
        let file: EnvironmentFile = parse(&base.join(file), variable, warnings)?;
        settings.environment.extend(texts(file.environment));
    }
    settings.environment.extend(texts(function.environment));
    settings.labels.extend(texts(function.labels));
    settings.annotations.extend(texts(function.annotations));
    settings.build_arguments.extend(texts(function.build_args));
    settings.secrets.extend(function.secrets);
    settings.fprocess = function.fprocess.or(settings.fprocess);
    settings.memory = function.limits.memory.or(settings.memory);
    settings.cpu = function.limits.cpu.or(settings.cpu);
    settings.requested_memory = function.requests.memory.or(settings.requested_memory);
    settings.requested_cpu = function.requests.cpu.or(settings.requested_cpu);
    Ok(StackFunction { settings, source })
}

#[derive(Debug, PartialEq, Eq)]
struct Expanded {
    text: String,
    /// Variables without a value and a default.
    unset: Vec<String>,
}

/// Puts variables in: `${NAME}`, and `${NAME:-default}` for those that are not set or empty. `$${` stands for `${`.
fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, (usize, String)> {
    let mut expanded = Expanded {
        text: String::with_capacity(text.len()),
        unset: Vec::new(),
    };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let line = text[..text.len() - rest.len() + at].matches('\n').count() + 1;
        let before = &rest[..at];
        rest = &rest[at + 2..];
        if let Some(literal) = before.strip_suffix('$') {
            expanded.text.push_str(literal);
            expanded.text.push_str("${");
            continue;
        }
        expanded.text.push_str(before);
        let end = rest.find(['}', '\n']).filter(|&end| rest.as_bytes()[end] == b'}');
        let end = end.ok_or_else(|| {
            (
                line,
                "a ${ is not closed: write ${NAME} or ${NAME:-default}".to_owned(),
            )
        })?;
        let inside = &rest[..end];
        rest = &rest[end + 1..];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let is_name = !name.is_empty()
            && !name.starts_with(|character: char| character.is_ascii_digit())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            return Err((
                line,
                format!("${{{inside}}} names no variable: write ${{NAME}} or ${{NAME:-default}}"),
            ));
        }
        match (variable(name).filter(|value| !value.is_empty()), default) {
            (Some(value), _) => expanded.text.push_str(&value),
            (None, Some(default)) => expanded.text.push_str(default),
            (None, None) if !expanded.unset.iter().any(|unset| unset == name) => {
                expanded.unset.push(name.to_owned());
            }
            (None, None) => {}
        }
        if expanded.text.len() > EXPANDED_BYTES_MAX {
            return Err((
                line,
                format!("its variables make it longer than {EXPANDED_BYTES_MAX} bytes"),
            ));
        }
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

/// Adds a function to the stack in `path`, which is made if it is not there. What is in the file stays as it is written.
///
/// # Errors
///
/// If the file cannot be read or written, is no stack, does not end with its functions, or has one of that name.
pub fn append(
    path: &Path,
    name: &FunctionName,
    language: Language,
    handler: &Path,
) -> Result<(), StackError> {
    let failed = |source| StackError::Read {
        path: path.to_owned(),
        source,
    };
    let entry = format!(
        "  {name}:\n    lang: {language}\n    handler: ./{}\n    image: {name}:latest\n",
        handler.display()
    );
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n".to_owned()
        }
        Err(error) => return Err(failed(error)),
    };
    let mut text = old;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&entry);
    let invalid = |problem: String| StackError::Invalid {
        path: path.to_owned(),
        problem,
    };
    // Whether the entry has become a function is judged by reading the whole again, as it would be read.
    let expanded = expand(&text, &|_| None).map_err(|(line, problem)| StackError::Variable {
        path: path.to_owned(),
        line,
        problem,
    })?;
    let file: File = serde_saphyr::from_str(&expanded.text).map_err(|error| {
        invalid(format!(
            "{error}\n{name} cannot be added at its end: functions must come last, indented by two spaces, and have \
             other names"
        ))
    })?;
    if !file.functions.contains_key(name.as_str()) {
        return Err(invalid(
            "its functions must come last for one to be added at its end".to_owned(),
        ));
    }
    fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load_text(text: &str) -> Result<Stack, StackError> {
        load_chosen(text, &Choice::all())
    }

    fn load_chosen(text: &str, choice: &Choice) -> Result<Stack, StackError> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("greet")).unwrap();
        fs::write(
            folder.path().join("greet/spore.toml"),
            "snapshot = true\nmemory = \"1Gi\"\n",
        )
        .unwrap();
        fs::write(
            folder.path().join("more.yaml"),
            "environment:\n  FROM_FILE: yes\n  LEVEL: file\n",
        )
        .unwrap();
        let path = folder.path().join(STACK_FILE);
        fs::write(&path, text).unwrap();
        let variable = |name: &str| (name == "SET").then(|| "value".to_owned());
        load(&path, choice, &variable)
    }

    const WHOLE: &str = "
version: 1.0
provider:
  name: openfaas
  gateway: http://127.0.0.1:9999
functions:
  greet:
    lang: python3-http
    handler: ./greet
    image: ${REGISTRY:-example.com}/greet:latest
    environment:
      LEVEL: ${SET}
      COUNT: 3
      ON: true
      NOTHING:
    environment_file: [more.yaml]
    secrets: [api-key]
    labels: {com.openfaas.scale.max: 5}
    annotations: {topic: news}
    limits: {memory: 64Mi, cpu: 100m}
    requests: {memory: 32Mi}
    fprocess: python index.py
    constraints: [here]
  ready:
    image: other:1
    skip_build: true
";

    #[test]
    fn a_stack_becomes_settings() {
        let stack = load_text(WHOLE).unwrap();
        assert_eq!(stack.gateway.as_deref(), Some("http://127.0.0.1:9999"));
        let [greet, ready] = stack.functions.as_slice() else {
            panic!("{stack:?}")
        };
        let settings = &greet.settings;
        assert_eq!(
            (settings.name.as_str(), settings.language),
            ("greet", Some(Language::Python))
        );
        assert!(matches!(&greet.source, StackSource::Folder(folder) if folder.ends_with("greet")));
        let variables =
            ["LEVEL", "COUNT", "ON", "FROM_FILE", "NOTHING"].map(|name| settings.environment[name].as_str());
        assert_eq!(variables, ["value", "3", "true", "yes", ""]);
        assert_eq!(settings.secrets, ["api-key"]);
        assert_eq!(settings.fprocess.as_deref(), Some("python index.py"));
        assert_eq!(settings.labels["com.openfaas.scale.max"], "5");
        assert_eq!(settings.annotations["topic"], "news");
        assert_eq!(
            (settings.memory.as_deref(), settings.cpu.as_deref()),
            (Some("64Mi"), Some("100m"))
        );
        assert_eq!(settings.requested_memory.as_deref(), Some("32Mi"));
        assert_eq!(settings.snapshot, Some(true), "what only spore.toml says holds");
        assert_eq!(ready.source, StackSource::Image("other:1".to_owned()));
        assert!(
            stack.warnings.iter().any(|line| line.contains("constraints")),
            "{stack:?}"
        );
    }

    #[test]
    fn functions_are_chosen_by_name() {
        let names = |choice: Choice| -> Vec<String> {
            let stack = load_chosen(WHOLE, &choice).unwrap();
            stack
                .functions
                .iter()
                .map(|function| function.settings.name.to_string())
                .collect()
        };
        assert_eq!(names(Choice::wildcard("g*t").unwrap()), ["greet"]);
        assert_eq!(names(Choice::wildcard("*re*").unwrap()), ["greet", "ready"]);
        assert_eq!(names(Choice::regex("^(ready|x)$").unwrap()), ["ready"]);
        let none = load_chosen(WHOLE, &Choice::wildcard("gree").unwrap()).unwrap_err();
        assert!(matches!(none, StackError::NoneChosen { .. }), "{none}");
        assert!(
            Choice::regex("(")
                .unwrap_err()
                .to_string()
                .contains("is no pattern")
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, expected) in [
            ("functions:\n  a:\n    image: x\n    langg: c\n", "langg"),
            ("functions:\n  a:\n    image: x\n    langg: c\n", "line 4"),
            ("functions: [\n", "line"),
            (
                "provider: {name: other}\nfunctions: {a: {image: x}}\n",
                "name: openfaas",
            ),
            ("functions:\n  Bad_Name: {image: x}\n", "lower-case"),
            ("functions:\n  a: {lang: cobol, handler: ./greet}\n", "cobol"),
            ("functions:\n  a: {handler: ./greet}\n", "no lang"),
            ("functions:\n  a: {lang: c}\n", "neither"),
            ("functions:\n  a:\n    image: ${UNCLOSED\n", "line 3"),
            ("functions:\n  a:\n    image: ${1X}\n", "names no variable"),
            ("functions: {}\n", "no functions"),
            ("functions:\n  a: {image: x}\n  a: {image: y}\n", "a"),
        ] {
            let error = load_text(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let unset = load_text("functions:\n  a: {image: \"x${UNSET}\"}\n").unwrap();
        assert!(unset.warnings[0].contains("UNSET"), "{unset:?}");
        // A thousand million copies of one word.
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..10 {
            let alias = vec![format!("*a{}", level - 1); 9].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
        }
        assert!(load_text(&bomb).is_err());
    }

    #[test]
    fn variables_have_defaults_and_can_be_written_as_they_are() {
        let variable = |name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let text = |source: &str| expand(source, &variable).unwrap().text;
        assert_eq!(
            text("a ${SET} ${EMPTY:-b} ${NONE:-c:-d} $${SET} $SET $"),
            "a value b c:-d ${SET} $SET $"
        );
        assert_eq!(expand("${A}${A}${B}", &variable).unwrap().unset, ["A", "B"]);
        assert_eq!(expand("\n\n${A\n}", &variable).unwrap_err().0, 3);
    }

    #[test]
    fn functions_are_added_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(STACK_FILE);
        for name in ["one", "two"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            append(&path, &name.parse().unwrap(), Language::Python, Path::new(name)).unwrap();
        }
        let stack = load(&path, &Choice::all(), &|_| None).unwrap();
        assert_eq!(stack.functions.len(), 2);
        let before = fs::read_to_string(&path).unwrap();
        assert!(append(&path, &"two".parse().unwrap(), Language::C, Path::new("two")).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        fs::write(&path, "functions: {}\nprovider:\n  name: openfaas\n").unwrap();
        assert!(append(&path, &"three".parse().unwrap(), Language::C, Path::new("three")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail_otherwise(text in "[${}:\\-A-C\\n a]{0,40}") {
            let _ = expand(&text, &|name| (name == "A").then(|| "${B}".to_owned()));
        }
    }
}

//! The languages that functions are written in.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::runtime::RuntimeLanguage;

/// Languages that `spore build` knows, and forms of functions that need no language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Language {
    /// C, compiled with musl-gcc.
    C,
    /// Python, on its runtime.
    Python,
    /// JavaScript, on the runtime of Node.js.
    Node,
    /// Go, linked statically.
    Go,
    /// Rust, linked statically.
    Rust,
    /// Any static program.
    Binary,
    /// A `Dockerfile`, built by buildah.
    Dockerfile,
}

/// A name that stands for no language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LanguageError {
    /// Nothing that is known.
    #[error(
        "\"{name}\" is no language that spore can build: choose {}",
        Language::choice()
    )]
    Unknown {
        /// The name as given.
        name: String,
    },
    /// A template of OpenFaaS whose handler has another shape.
    #[error(
        "functions of the template {name} take {theirs}: change the handler to {ours}, and use lang: {language} in its place"
    )]
    OtherShape {
        /// Name of the template.
        name: String,
        /// Its handler.
        theirs: &'static str,
        /// What a handler looks like here.
        ours: &'static str,
        /// The language to name.
        language: Language,
    },
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::C,
        Self::Python,
        Self::Node,
        Self::Go,
        Self::Rust,
        Self::Binary,
        Self::Dockerfile,
    ];

    /// The name as it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Python => "python",
            Self::Node => "node",
            Self::Go => "go",
            Self::Rust => "rust",
            Self::Binary => "binary",
            Self::Dockerfile => "dockerfile",
        }
    }

    /// The runtime that functions need, if any.
    #[must_use]
    pub fn runtime(self) -> Option<RuntimeLanguage> {
        match self {
            Self::Python => Some(RuntimeLanguage::Python),
            Self::Node => Some(RuntimeLanguage::Node),
            Self::C | Self::Go | Self::Rust | Self::Binary | Self::Dockerfile => None,
        }
    }

    /// The language of the function in a folder, by the file that its handler is in.
    #[must_use]
    pub fn of_folder(folder: &Path) -> Option<Self> {
        let has = |names: &[&str]| names.iter().any(|name| folder.join(name).is_file());
        if has(&["handler.py"]) {
            Some(Self::Python)
        } else if has(&["handler.js", "handler.mjs", "handler.cjs"]) {
            Some(Self::Node)
        } else if has(&["go.mod"]) {
            Some(Self::Go)
        } else if has(&["Cargo.toml"]) {
            Some(Self::Rust)
        } else if has(&["Dockerfile", "Containerfile"]) {
            Some(Self::Dockerfile)
        } else {
            let sources = crate::c::sources(folder).ok()?;
            (!sources.is_empty()).then_some(Self::C)
        }
    }

    /// The names of all, for messages.
    #[must_use]
    pub fn choice() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Language {
    type Err = LanguageError;

    /// Takes our names, and those of OpenFaaS's templates whose handlers have the shape that they have here.
    fn from_str(name: &str) -> Result<Self, LanguageError> {
        if let Some(language) = Self::ALL.into_iter().find(|language| language.name() == name) {
            return Ok(language);
        }
        if let Some(version) = name.strip_prefix("node") {
            let version = version.strip_suffix("-debian").unwrap_or(version);
            if !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()) {
                return Ok(Self::Node);
            }
        }
        match name {
            "python3-http" | "python3-http-debian" => Ok(Self::Python),
            "golang-middleware" => Ok(Self::Go),
            "golang-http" => Err(LanguageError::OtherShape {
                name: name.to_owned(),
                theirs: "handler.Request",
                ours: "Handle(http.ResponseWriter, *http.Request)",
                language: Self::Go,
            }),
            "python" | "python3" | "python3-debian" | "python3-flask" | "python3-flask-debian" => {
                Err(LanguageError::OtherShape {
                    name: name.to_owned(),
                    theirs: "handle(req)",
                    ours: "handle(event, context)",
                    language: Self::Python,
                })
            }
            _ => Err(LanguageError::Unknown {
                name: name.to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for Language {
    type Error = LanguageError;

    fn try_from(name: String) -> Result<Self, LanguageError> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_and_of_templates_are_known() {
        for language in Language::ALL {
            assert_eq!(language.name().parse(), Ok(language));
        }
        for (name, language) in [
            ("node20", Language::Node),
            ("node22-debian", Language::Node),
            ("python3-http", Language::Python),
            ("python3-http-debian", Language::Python),
            ("golang-middleware", Language::Go),
        ] {
            assert_eq!(name.parse(), Ok(language), "{name}");
        }
        for unknown in ["", "nodejs", "node-", "cobol", "Python"] {
            let error = unknown.parse::<Language>().unwrap_err();
            assert!(matches!(error, LanguageError::Unknown { .. }), "{unknown}");
            assert!(error.to_string().contains("python, node"), "{error}");
        }
        let error = "python3-flask".parse::<Language>().unwrap_err().to_string();
        assert!(
            error.contains("handle(req)") && error.contains("handle(event, context)"),
            "{error}"
        );
    }
}

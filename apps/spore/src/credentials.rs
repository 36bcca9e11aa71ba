//! Names and passwords for gateways, in a file that only the user can read.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

/// Credentials by the gateway's address.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    by_gateway: BTreeMap<String, Value>,
}

impl Credentials {
    /// Reads the file; nothing if there is none.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).context(format!("{} could not be read", path.display())),
        };
        let by_gateway = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged: remove it and log in again", path.display()))?;
        Ok(Self { by_gateway })
    }

    /// Name and password for a gateway.
    pub(crate) fn of(&self, gateway: &str) -> Option<(&str, &str)> {
        let entry = self.by_gateway.get(gateway)?;
        Some((entry["username"].as_str()?, entry["password"].as_str()?))
    }

    /// Keeps name and password for a gateway.
    pub(crate) fn insert(&mut self, gateway: String, username: &str, password: &str) {
        let entry = json!({ "username": username, "password": password });
        self.by_gateway.insert(gateway, entry);
    }

    /// Forgets those of a gateway; says whether there were any.
    pub(crate) fn remove(&mut self, gateway: &str) -> bool {
        self.by_gateway.remove(gateway).is_some()
    }

    /// Writes the file, whole or not at all, with mode 0600.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let written = || format!("{} could not be written", path.display());
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).with_context(written)?;
        // Made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder).with_context(written)?;
        let text = serde_json::to_vec_pretty(&self.by_gateway)?;
        file.write_all(&text).with_context(written)?;
        file.as_file().sync_all().with_context(written)?;
        file.persist(path).with_context(written)?;
        Ok(())
    }
}

/// Where the file is: `spore/credentials.json` in `$XDG_CONFIG_HOME` or `~/.config`. None without either.
pub(crate) fn file() -> Option<PathBuf> {
    let folder = crate::commands::absolute_variable("XDG_CONFIG_HOME");
    let folder = folder.or_else(|| Some(crate::commands::absolute_variable("HOME")?.join(".config")));
    Some(folder?.join("spore/credentials.json"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn credentials_are_kept_for_their_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spore/credentials.json");
        let mut credentials = Credentials::load(&path).unwrap();
        credentials.insert("http://a".into(), "admin", "one");
        credentials.insert("http://b".into(), "admin", "two");
        credentials.save(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut credentials = Credentials::load(&path).unwrap();
        assert_eq!(credentials.of("http://a"), Some(("admin", "one")));
        assert!(credentials.remove("http://a") && !credentials.remove("http://a"));
        credentials.save(&path).unwrap();
        let credentials = Credentials::load(&path).unwrap();
        assert_eq!(credentials.of("http://a"), None);
        assert_eq!(credentials.of("http://b"), Some(("admin", "two")));
        std::fs::write(&path, "{").unwrap();
        assert!(Credentials::load(&path).is_err());
    }
}

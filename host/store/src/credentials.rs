//! The credentials that a daemon makes for itself, as two files that only its user can read.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::files::persist;

/// Name of the file with the user's name, as OpenFaaS has it.
pub const USER_FILE: &str = "basic-auth-user";
/// Name of the file with the password.
pub const PASSWORD_FILE: &str = "basic-auth-password";

/// The folder of generated credentials within a data directory.
#[derive(Debug, Clone)]
pub struct CredentialFolder {
    path: PathBuf,
}

impl CredentialFolder {
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            path: data.join("credentials"),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes both files unless there is a password already; says whether it has.
    pub fn generate(&self, user: &str, password: &str) -> io::Result<bool> {
        if self.path.join(PASSWORD_FILE).try_exists()? {
            return Ok(false);
        }
        std::fs::create_dir_all(&self.path)?;
        // The password last: it stands for both.
        for (name, text) in [(USER_FILE, user), (PASSWORD_FILE, password)] {
            // Made with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(text.as_bytes())?;
            persist(file, &self.path.join(name))?;
        }
        Ok(true)
    }
}

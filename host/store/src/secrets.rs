//! Secrets in the embedded database, which only the daemon's user can read.

use std::sync::Arc;

use redb::{TableDefinition, TableError};

use crate::RecordError;
use crate::database::Database;

/// Key: namespace and name; value: the secret.
const SECRETS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("secrets");

/// The secrets. A change has reached the disk when its call returns.
#[derive(Debug, Clone)]
pub struct Secrets {
    database: Arc<Database>,
}

impl Secrets {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Writes or replaces a secret.
    pub fn put(&self, namespace: &str, name: &str, value: &[u8]) -> Result<(), RecordError> {
        self.database.write(|transaction| {
            transaction
                .open_table(SECRETS)?
                .insert((namespace, name), value)?;
            Ok(())
        })
    }

    /// The value of a secret, if there is one of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, RecordError> {
        self.database
            .read(|transaction| match transaction.open_table(SECRETS) {
                Ok(table) => Ok(table
                    .get((namespace, name))?
                    .map(|value| value.value().to_owned())),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            })
    }

    /// Removes a secret; says whether it was there.
    pub fn remove(&self, namespace: &str, name: &str) -> Result<bool, RecordError> {
        self.database.write(|transaction| {
            Ok(transaction
                .open_table(SECRETS)?
                .remove((namespace, name))?
                .is_some())
        })
    }

    /// Names of the secrets of a namespace, in order.
    pub fn names(&self, namespace: &str) -> Result<Vec<String>, RecordError> {
        self.database.read(|transaction| {
            let table = match transaction.open_table(SECRETS) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut names = Vec::new();
            for row in table.range((namespace, "")..)? {
                let (key, _) = row?;
                let (of, name) = key.value();
                if of != namespace {
                    break;
                }
                names.push(name.to_owned());
            }
            Ok(names)
        })
    }
}

//! Function records in the embedded database.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use redb::{ReadableTable, TableDefinition, TableError};

use crate::database::Database;
use crate::{DATABASE_ADVICE, FunctionRecord};

/// Key: `NAME.NAMESPACE`; value: [`FunctionRecord`] as JSON.
const FUNCTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("functions");

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database file could not be read or written.
    #[error("the database {} could not be read or written", path.display())]
    Io {
        /// The database file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database file does not hold what was written.
    #[error("the database {} is damaged: {DATABASE_ADVICE}", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
    },
    /// The database failed otherwise.
    #[error("the database {} failed", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A record is not what this version writes.
    #[error("the record of {kind} {key} is damaged: deploy or make it again, or remove it")]
    Unreadable {
        /// What it is the record of: `function` or `namespace`.
        kind: &'static str,
        /// `NAME.NAMESPACE` of the function, or the namespace's name.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The function records. A change has reached the disk when its call returns.
#[derive(Debug, Clone)]
pub struct Records {
    database: Arc<Database>,
}

impl Records {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Writes or replaces the record of `key`.
    pub fn put(&self, key: &str, record: &FunctionRecord) -> Result<(), RecordError> {
        let value = serde_json::to_vec(record).map_err(|source| RecordError::Unreadable {
            kind: "function",
            key: key.to_owned(),
            source,
        })?;
        self.database.write(|transaction| {
            transaction.open_table(FUNCTIONS)?.insert(key, value.as_slice())?;
            Ok(())
        })
    }

    /// Whether there is a record of `key`, readable or not.
    pub fn contains(&self, key: &str) -> Result<bool, RecordError> {
        self.database
            .read(|transaction| match transaction.open_table(FUNCTIONS) {
                Ok(table) => Ok(table.get(key)?.is_some()),
                Err(TableError::TableDoesNotExist(_)) => Ok(false),
                Err(error) => Err(error.into()),
            })
    }

    /// Removes the record of `key`; says whether there was one.
    pub fn remove(&self, key: &str) -> Result<bool, RecordError> {
        self.database
            .write(|transaction| Ok(transaction.open_table(FUNCTIONS)?.remove(key)?.is_some()))
    }

    /// All records with their keys, ordered by key; of one that cannot be read, why.
    #[allow(clippy::type_complexity)]
    pub fn all(&self) -> Result<Vec<(String, Result<FunctionRecord, RecordError>)>, RecordError> {
        let rows = self.database.read(|transaction| {
            let table = match transaction.open_table(FUNCTIONS) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                rows.push((key.value().to_owned(), value.value().to_owned()));
            }
            Ok(rows)
        })?;
        let parse = |(key, value): (String, Vec<u8>)| {
            let record = serde_json::from_slice(&value).map_err(|source| RecordError::Unreadable {
                kind: "function",
                key: key.clone(),
                source,
            });
            (key, record)
        };
        Ok(rows.into_iter().map(parse).collect())
    }
}

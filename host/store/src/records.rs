//! Function records in the embedded database.

use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::FunctionRecord;

/// Key: `NAME.NAMESPACE`; value: [`FunctionRecord`] as JSON.
const FUNCTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("functions");

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database failed.
    #[error("the database failed")]
    Database(#[source] Box<redb::Error>),
    /// A record is not what this version writes.
    #[error("the record of function {key} cannot be read")]
    Unreadable {
        /// `NAME.NAMESPACE` of the function.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl<E: Into<redb::Error>> From<E> for RecordError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// The function records. A change has reached the disk when its call returns.
#[derive(Debug, Clone)]
pub struct Records {
    database: Arc<Database>,
}

impl Records {
    pub(crate) fn new(database: Arc<Database>) -> Result<Self, Box<redb::Error>> {
        let create = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(FUNCTIONS)?;
            transaction.commit()?;
            Ok(())
        };
        create().map_err(Box::new)?;
        Ok(Self { database })
    }

    /// Writes or replaces the record of `key`.
    pub fn put(&self, key: &str, record: &FunctionRecord) -> Result<(), RecordError> {
        let value = serde_json::to_vec(record).map_err(|source| RecordError::Unreadable {
            key: key.to_owned(),
            source,
        })?;
        let transaction = self.database.begin_write()?;
        transaction.open_table(FUNCTIONS)?.insert(key, value.as_slice())?;
        transaction.commit()?;
        Ok(())
    }

    /// Removes the record of `key`; says whether there was one.
    pub fn remove(&self, key: &str) -> Result<bool, RecordError> {
        let transaction = self.database.begin_write()?;
        let existed = transaction.open_table(FUNCTIONS)?.remove(key)?.is_some();
        transaction.commit()?;
        Ok(existed)
    }

    /// All records, ordered by key; of one that cannot be read, why.
    pub fn all(&self) -> Result<Vec<Result<FunctionRecord, RecordError>>, RecordError> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(FUNCTIONS)?;
        let mut records = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            let record = serde_json::from_slice(value.value());
            records.push(record.map_err(|source| RecordError::Unreadable {
                key: key.value().to_owned(),
                source,
            }));
        }
        Ok(records)
    }
}

//! Namespaces in the embedded database. The default one is always there and is not among them until it is described.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{ReadableTable, TableDefinition, TableError};
use serde::{Deserialize, Serialize};

use crate::RecordError;
use crate::database::Database;

/// Key: the name; value: [`NamespaceRecord`] as JSON.
const NAMESPACES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("namespaces");

/// What is kept of a namespace besides its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The namespaces. A change has reached the disk when its call returns.
#[derive(Debug, Clone)]
pub struct Namespaces {
    database: Arc<Database>,
}

impl Namespaces {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Writes or replaces the record of `name`.
    pub fn put(&self, name: &str, record: &NamespaceRecord) -> Result<(), RecordError> {
        let value = serde_json::to_vec(record).map_err(|source| unreadable(name, source))?;
        self.database.write(|transaction| {
            transaction
                .open_table(NAMESPACES)?
                .insert(name, value.as_slice())?;
            Ok(())
        })
    }

    /// Removes `name`; says whether it was there.
    pub fn remove(&self, name: &str) -> Result<bool, RecordError> {
        self.database
            .write(|transaction| Ok(transaction.open_table(NAMESPACES)?.remove(name)?.is_some()))
    }

    /// All of them, by name.
    pub fn all(&self) -> Result<BTreeMap<String, NamespaceRecord>, RecordError> {
        let rows = self.database.read(|transaction| {
            let table = match transaction.open_table(NAMESPACES) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (name, value) = row?;
                rows.push((name.value().to_owned(), value.value().to_owned()));
            }
            Ok(rows)
        })?;
        let parse = |(name, value): (String, Vec<u8>)| {
            let record = serde_json::from_slice(&value).map_err(|source| unreadable(&name, source))?;
            Ok((name, record))
        };
        rows.into_iter().map(parse).collect()
    }
}

fn unreadable(name: &str, source: serde_json::Error) -> RecordError {
    RecordError::Unreadable {
        kind: "namespace",
        key: name.to_owned(),
        source,
    }
}

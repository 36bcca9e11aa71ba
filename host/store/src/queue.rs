//! Invocations that nobody waits for, in a database of their own: they come and go all the time.

use bytes::Bytes;
use redb::{TableDefinition, TableError};

use crate::RecordError;
use crate::database::Database;

/// Key: number of the invocation; value: all of it but its body.
const HEADS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("heads");
/// Bodies of those that have one.
const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");

/// A change of one invocation.
#[derive(Debug)]
pub enum QueueChange {
    /// It is new, or its head is another one.
    Put {
        /// Its number.
        id: u64,
        /// Its head.
        head: Vec<u8>,
        /// Its body; none leaves the one that is there.
        body: Option<Bytes>,
    },
    /// It is gone.
    Remove {
        /// Its number.
        id: u64,
    },
}

/// The invocations that are waiting, running or dead. What is in the heads is their owner's business.
#[derive(Debug)]
pub struct QueueStore {
    database: Database,
}

impl QueueStore {
    pub(crate) fn new(database: Database) -> Self {
        Self { database }
    }

    /// Makes all the changes, or none. They have reached the disk when this returns.
    pub fn apply(&self, changes: &[QueueChange]) -> Result<(), RecordError> {
        self.database.write(|transaction| {
            let (mut heads, mut bodies) = (transaction.open_table(HEADS)?, transaction.open_table(BODIES)?);
            for change in changes {
                match change {
                    QueueChange::Put { id, head, body } => {
                        heads.insert(id, head.as_slice())?;
                        if let Some(body) = body.as_ref().filter(|body| !body.is_empty()) {
                            bodies.insert(id, body.as_ref())?;
                        }
                    }
                    QueueChange::Remove { id } => {
                        heads.remove(id)?;
                        bodies.remove(id)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Head and body of an invocation.
    pub fn get(&self, id: u64) -> Result<Option<(Vec<u8>, Bytes)>, RecordError> {
        self.database.read(|transaction| {
            let heads = match transaction.open_table(HEADS) {
                Ok(heads) => heads,
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let Some(head) = heads.get(id)?.map(|head| head.value().to_vec()) else {
                return Ok(None);
            };
            let body = transaction.open_table(BODIES)?.get(id)?;
            let body = body.map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body.value()));
            Ok(Some((head, body)))
        })
    }

    /// Heads of at most `count` invocations from a number on, in the order of their numbers.
    pub fn heads(&self, from: u64, count: usize) -> Result<Vec<(u64, Vec<u8>)>, RecordError> {
        self.database.read(|transaction| {
            let heads = match transaction.open_table(HEADS) {
                Ok(heads) => heads,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut found = Vec::new();
            for row in heads.range(from..)?.take(count) {
                let (id, head) = row?;
                found.push((id.value(), head.value().to_vec()));
            }
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Store;

    fn open(directory: &Path) -> Store {
        Store::open(directory).expect("the store can be opened")
    }

    fn put(id: u64, head: &str, body: Option<&'static [u8]>) -> QueueChange {
        QueueChange::Put {
            id,
            head: head.as_bytes().to_vec(),
            body: body.map(Bytes::from_static),
        }
    }

    #[test]
    fn heads_change_while_bodies_stay_and_both_survive() {
        let directory = tempfile::tempdir().expect("a folder");
        let store = open(directory.path());
        assert_eq!(store.queue.get(1).expect("nothing failed"), None);
        assert!(store.queue.heads(0, 10).expect("nothing failed").is_empty());
        let changes = [
            put(1, "a", Some(b"body")),
            put(2, "b", None),
            put(3, "c", Some(b"")),
        ];
        store.queue.apply(&changes).expect("written");
        store
            .queue
            .apply(&[put(1, "again", None), QueueChange::Remove { id: 3 }])
            .expect("written");
        drop(store);
        let store = open(directory.path());
        let first = store.queue.get(1).expect("nothing failed");
        assert_eq!(first, Some((b"again".to_vec(), Bytes::from_static(b"body"))));
        assert_eq!(
            store.queue.get(2).expect("nothing failed"),
            Some((b"b".to_vec(), Bytes::new()))
        );
        assert_eq!(store.queue.get(3).expect("nothing failed"), None);
        let heads = |from, count| store.queue.heads(from, count).expect("nothing failed");
        assert_eq!(heads(0, 10), [(1, b"again".to_vec()), (2, b"b".to_vec())]);
        assert_eq!((heads(2, 10).len(), heads(0, 1).len()), (1, 1));
    }
}

//! Records, images and logs on a real file system.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use spore_sandbox::{LogLine, LogSink, LogSource};
use spore_store::{
    Digest, FinishError, FunctionDeployment, FunctionRecord, LogQuery, LogRecord, LogStore, ManifestError,
    OpenError, RecordError, Selector, Store,
};

fn record(name: &str) -> FunctionRecord {
    let deployment = FunctionDeployment {
        service: name.to_owned(),
        image: format!("{name}:latest"),
        namespace: "openfaas-fn".to_owned(),
        ..FunctionDeployment::default()
    };
    FunctionRecord {
        deployment,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        image_digest: Digest::of(name.as_bytes()),
    }
}

/// All records of a store in which none is damaged.
fn readable(store: &Store) -> Vec<FunctionRecord> {
    let records = store.records.all().expect("reads").into_iter();
    records
        .map(|(_, record)| record.expect("an intact record"))
        .collect()
}

#[test]
fn record_that_cannot_be_read_hides_no_other() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    for name in ["a", "b", "c"] {
        store.records.put(name, &record(name)).expect("writes");
    }
    drop(store);
    let database = redb::Database::open(directory.path().join("spore.redb")).expect("opens");
    let functions: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("functions");
    let transaction = database.begin_write().expect("begins");
    let mut table = transaction.open_table(functions).expect("opens");
    table.insert("b", b"{\"half".as_slice()).expect("writes");
    drop(table);
    transaction.commit().expect("commits");
    drop(database);
    let store = Store::open(directory.path()).expect("opens");
    let records = store.records.all().expect("reads");
    assert_eq!(records.len(), 3);
    assert!(matches!(&records[1].1, Err(RecordError::Unreadable { key, .. }) if key == "b"));
    assert!(records[0].1.is_ok() && records[2].1.is_ok());
    assert!(store.records.remove("b").expect("writes"), "it can be removed");
    assert_eq!(readable(&store), [record("a"), record("c")]);
}

#[test]
fn damaged_directories_are_refused_by_name() {
    let open = |damage: &dyn Fn(&Path)| {
        let directory = tempfile::tempdir().expect("a temporary folder");
        drop(Store::open(directory.path()).expect("opens"));
        damage(directory.path());
        Store::open(directory.path()).map(drop).expect_err("damaged")
    };
    for (name, garbage) in [("text", b"hello".to_vec()), ("zeroes", vec![0; 1 << 16])] {
        let error = open(&|path| fs::write(path.join("spore.redb"), &garbage).expect("writes"));
        assert!(matches!(error, OpenError::Database { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains("spore.redb: put a copy"), "{error}");
    }
    // The first page, which finds the others, is whole; they are not.
    let error = open(&|path| {
        let path = path.join("spore.redb");
        let mut bytes = fs::read(&path).expect("reads");
        bytes[4096..].fill(0x5a);
        fs::write(&path, bytes).expect("writes");
    });
    assert!(
        matches!(error, OpenError::Database { .. } | OpenError::Damaged { .. }),
        "{error:?}"
    );
    for folder in ["logs", "uploads", "derived"] {
        let error = open(&|path| {
            fs::remove_dir(path.join(folder)).expect("it is empty");
            fs::write(path.join(folder), "x").expect("writes");
        });
        assert!(matches!(error, OpenError::NotAFolder { .. }), "{error:?}");
        assert!(error.to_string().contains(folder), "{error}");
    }
}

#[test]
fn records_survive_and_the_directory_is_locked() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    store.records.put("b.openfaas-fn", &record("b")).expect("writes");
    store.records.put("a.openfaas-fn", &record("a")).expect("writes");
    let second = Store::open(directory.path()).map(drop);
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    drop(store);
    let store = Store::open(directory.path()).expect("opens again");
    assert_eq!(readable(&store), [record("a"), record("b")]);
    assert!(store.records.remove("a.openfaas-fn").expect("writes"));
    assert!(!store.records.remove("a.openfaas-fn").expect("writes"));
    assert_eq!(readable(&store), [record("b")]);
}

#[test]
fn database_that_is_removed_is_missed_and_taken_back() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    store.records.put("a", &record("a")).expect("writes");
    let (file, copy) = (directory.path().join("spore.redb"), directory.path().join("copy"));
    fs::copy(&file, &copy).expect("copies");
    fs::remove_file(&file).expect("removes");
    for _ in 0..2 {
        let error = store
            .records
            .put("b", &record("b"))
            .expect_err("nothing may be lost");
        assert!(error.to_string().contains("spore.redb"), "{error}");
        assert!(!file.exists(), "an empty one would hide what was lost");
    }
    let second = Store::open(directory.path()).map(drop);
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    fs::rename(&copy, &file).expect("renames");
    store.records.put("b", &record("b")).expect("writes");
    drop(store);
    let store = Store::open(directory.path()).expect("opens");
    assert_eq!(readable(&store), [record("a"), record("b")]);
}

/// What is on disk at any moment is what a killed daemon leaves: a copy of it must open and hold every change.
#[test]
fn copy_taken_while_the_store_is_open_holds_every_change() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    for number in 0..20 {
        store
            .records
            .put(&format!("f{number:02}"), &record(&format!("f{number:02}")))
            .expect("writes");
        let copy = tempfile::tempdir().expect("a temporary folder");
        fs::copy(
            directory.path().join("spore.redb"),
            copy.path().join("spore.redb"),
        )
        .expect("copies");
        let copied = Store::open(copy.path()).expect("the copy opens");
        assert_eq!(readable(&copied).len(), number + 1);
    }
}

#[test]
fn blob_is_stored_only_under_its_own_digest() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    let mut upload = store.images.begin_upload().expect("begins");
    upload.append(b"hello ").expect("writes");
    upload.append(b"world").expect("writes");
    assert_eq!(upload.written_bytes(), 11);
    store
        .images
        .finish_upload(upload, Digest::of(b"hello world"))
        .expect("stores");
    let (_, length) = store
        .images
        .open_blob(Digest::of(b"hello world"))
        .expect("reads")
        .expect("is there");
    assert_eq!(length, 11);
    let upload = store.images.begin_upload().expect("begins");
    let wrong = store.images.finish_upload(upload, Digest::of(b"other"));
    assert!(matches!(wrong, Err(FinishError::DigestMismatch { .. })));
    assert!(
        store
            .images
            .open_blob(Digest::of(b"other"))
            .expect("reads")
            .is_none()
    );
    let left = fs::read_dir(directory.path().join("uploads"))
        .expect("reads")
        .count();
    assert_eq!(left, 0, "nothing is left of a refused upload");
}

#[test]
fn manifest_needs_its_blobs_and_a_tag_can_move() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    let tag = Selector::Tag("latest".to_owned());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = |config: &[u8]| {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"x/y","digest":"{}","size":1}},"layers":[]}}"#,
            Digest::of(config)
        )
    };
    let put = |text: &str| {
        store
            .images
            .put_manifest("hello", &tag, media_type, text.as_bytes())
    };
    assert!(matches!(
        put(&manifest(b"1")),
        Err(ManifestError::UnknownBlob { .. })
    ));
    assert!(matches!(put("{}"), Err(ManifestError::Invalid(_))));
    assert_eq!(store.images.resolve("hello", &tag).expect("reads"), None);
    for config in [b"1", b"2"] {
        let mut upload = store.images.begin_upload().expect("begins");
        upload.append(config).expect("writes");
        store
            .images
            .finish_upload(upload, Digest::of(config))
            .expect("stores");
        let digest = put(&manifest(config)).expect("stores");
        assert_eq!(store.images.resolve("hello", &tag).expect("reads"), Some(digest));
        let found = store
            .images
            .manifest("hello", &Selector::Digest(digest))
            .expect("reads")
            .expect("is there");
        assert_eq!(
            (found.bytes, found.media_type.as_str()),
            (manifest(config).into_bytes(), media_type)
        );
    }
    assert_eq!(store.images.tags("hello").expect("reads"), ["latest"]);
    assert_eq!(store.images.tags("hell").expect("reads"), [] as [&str; 0]);
}

fn line(text: impl Into<String>) -> LogLine {
    let text = text.into();
    LogLine {
        instance: "hello-1".to_owned(),
        time: SystemTime::now(),
        source: LogSource::Stderr,
        text,
    }
}

async fn all(logs: &LogStore, key: &str) -> Vec<LogRecord> {
    logs.flush();
    let mut reader = logs.function(key).read(LogQuery::default());
    let records = reader
        .next()
        .await
        .expect("reads")
        .expect("the first reading always comes");
    assert_eq!(reader.next().await.expect("reads"), None);
    records
}

fn total_bytes(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).expect("reads");
    files
        .map(|file| file.expect("reads").metadata().expect("reads").len())
        .sum()
}

#[tokio::test]
async fn log_keeps_order_survives_a_restart_and_tells_of_a_torn_line() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    for number in 0..100 {
        store.logs.function("hello").write(line(number.to_string()));
    }
    let records = all(&store.logs, "hello").await;
    assert!(
        records
            .iter()
            .map(|record| record.text.parse::<usize>().expect("a number"))
            .eq(0..100)
    );
    assert_eq!(records[0].source, LogSource::Stderr);
    drop(store);
    let file = directory.path().join("logs/hello/current.jsonl");
    let mut content = fs::read(&file).expect("reads");
    content.extend(br#"{"instance":"hello-1","ti"#);
    fs::write(&file, content).expect("writes");
    let store = Store::open(directory.path()).expect("opens");
    store.logs.function("hello").write(line("after"));
    let records = all(&store.logs, "hello").await;
    assert_eq!(records.len(), 102);
    assert!(
        records[100].text.starts_with("1 damaged lines of "),
        "{}",
        records[100].text
    );
    assert_eq!(records[101].text, "after");
}

#[tokio::test]
async fn log_is_bounded_and_a_flood_is_counted() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    let log = store.logs.function("flood");
    let long = "x".repeat(16 << 10);
    let mut written = 0;
    for _ in 0..4 {
        for _ in 0..1000 {
            log.write(line(long.clone()));
            written += 1;
        }
        store.logs.flush();
    }
    // At most 1 MiB waits at a time, so most of each burst may be dropped; now beyond two files without any drop.
    for _ in 0..1500 {
        log.write(line(long.clone()));
        written += 1;
        store.logs.flush();
    }
    let records = all(&store.logs, "flood").await;
    assert!(records.len() < written);
    assert!(total_bytes(&directory.path().join("logs/flood")) < 18 << 20);
    let other = store.logs.function("quiet");
    other.write(line("heard"));
    assert_eq!(all(&store.logs, "quiet").await[0].text, "heard");
}

#[tokio::test]
async fn dropped_lines_leave_a_line_that_counts_them() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    let log = store.logs.function("flood");
    let long = "x".repeat(512 << 10);
    // Two fit into the queue at most; the writer takes them out now and then.
    for _ in 0..2000 {
        log.write(line(long.clone()));
    }
    let records = all(&store.logs, "flood").await;
    let counted: usize = records
        .iter()
        .filter(|record| record.source == LogSource::Platform)
        .map(|record| {
            record
                .text
                .split(' ')
                .next()
                .expect("a word")
                .parse::<usize>()
                .expect("a number")
        })
        .sum();
    assert!(
        counted > 0,
        "2000 lines of 512 KiB cannot all be stored as they come"
    );
    assert!(counted < 2000);
}

#[tokio::test]
async fn follower_sees_every_line_across_rotations() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(directory.path()).expect("opens");
    let log = store.logs.function("hello");
    log.write(line("before"));
    store.logs.flush();
    let mut reader = log.read(LogQuery {
        follow: true,
        tail: Some(1),
        ..LogQuery::default()
    });
    assert_eq!(reader.next().await.expect("reads").expect("comes").len(), 1);
    let mut seen = 0;
    for number in 0..3000 {
        log.write(line(format!("{number:08}{}", "x".repeat(8 << 10))));
        if number % 50 == 49 {
            store.logs.flush();
            while seen <= number {
                for record in reader.next().await.expect("reads").expect("comes") {
                    assert_eq!(record.text[..8].parse::<usize>().expect("a number"), seen);
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, 3000);
    store.logs.remove("hello").expect("removes");
    let end = tokio::time::timeout(Duration::from_secs(10), async {
        while reader.next().await.expect("reads").is_some() {}
    });
    end.await.expect("a removed log ends");
    assert!(!directory.path().join("logs/hello").exists());
}

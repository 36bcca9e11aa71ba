//! Pulls from a registry of the tests' own, which misbehaves as it is told to.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use http::HeaderValue;
use serde_json::{Value, json};
use spore_registry::{ClientCredential, Platforms, Progress, Registries, RegistryError, RegistryOptions};
use spore_store::{Digest, ImageReference, Store};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the registry has, and how it behaves.
#[derive(Default)]
struct State {
    /// Answers by path: status line, headers, body.
    answers: HashMap<String, (&'static str, String, Vec<u8>)>,
    /// Bytes after which a connection ends that sends a blob; each is used once.
    cuts: Vec<usize>,
    /// Whether ranges are heeded.
    has_ranges: bool,
    /// Header that a request must have; others are sent to the token service.
    wanted_authorization: Option<String>,
    /// Requests, with their ranges.
    requests: Vec<String>,
    /// As whom tokens were asked for.
    asked_as: Vec<Option<String>>,
}

#[derive(Clone)]
struct Registry {
    address: std::net::SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Registry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State {
            has_ranges: true,
            ..State::default()
        }));
        let registry = Self { address, state };
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = serving.clone();
                tokio::spawn(async move { registry.serve(stream).await });
            }
        });
        registry
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().expect("nobody panics"))
    }

    /// One request for each connection.
    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? <= 2 {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let header = |name: &str| {
            let mut lines = head.iter().filter_map(|line| line.split_once(": "));
            lines
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.to_owned())
        };
        let length = header("content-length")
            .and_then(|length| length.parse().ok())
            .unwrap_or(0);
        stream.read_exact(&mut vec![0; length]).await.ok()?;
        let path = head.first()?.split(' ').nth(1)?.to_owned();
        let range = header("range");
        let (answer, cut) = self.with(|state| {
            state
                .requests
                .push(format!("{path} {}", range.as_deref().unwrap_or_default()));
            if path.starts_with("/token") {
                state.asked_as.push(header("authorization"));
            }
            let is_known =
                state.wanted_authorization.is_none() || header("authorization") == state.wanted_authorization;
            if !is_known && !path.starts_with("/token") {
                let realm = format!("http://{}/token", self.address);
                let challenge = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\"\r\n");
                return (Some(("401 Unauthorized", challenge, Vec::new())), None);
            }
            let key = path.split('?').next().unwrap_or_default();
            let answer = state.answers.get(key).cloned();
            let is_blob = path.contains("/blobs/");
            let cut = if is_blob && !state.cuts.is_empty() {
                Some(state.cuts.remove(0))
            } else {
                None
            };
            (answer, cut)
        });
        let has_ranges = self.with(|state| state.has_ranges);
        let (mut status, mut headers, mut body) =
            answer.unwrap_or(("404 Not Found", String::new(), Vec::new()));
        if let Some(begin) = range.filter(|_| has_ranges).and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .trim_end_matches('-')
                .parse::<usize>()
                .ok()
        }) {
            status = "206 Partial Content";
            headers.push_str(&format!(
                "Content-Range: bytes {begin}-{}/{}\r\n",
                body.len() - 1,
                body.len()
            ));
            body.drain(..begin);
        }
        let length = body.len();
        body.truncate(cut.unwrap_or(length));
        let head =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&body).await.ok()?;
        stream.flush().await.ok()
    }

    fn answer(&self, path: &str, body: &[u8]) {
        self.with(|state| {
            state
                .answers
                .insert(path.to_owned(), ("200 OK", String::new(), body.to_vec()))
        });
    }

    fn blob(&self, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.answer(&format!("/v2/team/app/blobs/{digest}"), bytes);
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.to_string(), "size": bytes.len()})
    }

    fn manifest(&self, reference: &str, manifest: &Value) -> Digest {
        let bytes = manifest.to_string();
        self.answer(&format!("/v2/team/app/manifests/{reference}"), bytes.as_bytes());
        Digest::of(bytes.as_bytes())
    }

    /// An image with one layer under the tag `1`.
    fn image(&self, layer: &[u8]) -> (Digest, Value) {
        let manifest = json!({"schemaVersion": 2, "config": self.blob(b"{}"), "layers": [self.blob(layer)]});
        (self.manifest("1", &manifest), manifest)
    }
}

struct Place {
    _folder: tempfile::TempDir,
    store: Arc<Store>,
    registries: Registries,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(Store::open(folder.path()).expect("opens"));
        Self {
            _folder: folder,
            store,
            registries: Registries::new(RegistryOptions::default()),
        }
    }

    async fn pull(&self, registry: &Registry) -> Result<Digest, RegistryError> {
        let reference: ImageReference = format!("{}/team/app:1", registry.address)
            .parse()
            .expect("a name");
        let name = self.registries.remote_name(&reference);
        let progress = Arc::new(Progress::default());
        let result = self.registries.pull(&self.store.images, &name, &progress).await;
        if result.is_ok() {
            let (done, total) = progress.now();
            assert_eq!(done, total, "all that was expected has come");
        }
        result
    }

    fn is_whole(&self) -> bool {
        let report = self.store.check_images().expect("checks");
        report.problems.is_empty()
    }
}

fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect()
}

#[tokio::test]
async fn downloads_go_on_where_they_broke_off() {
    let (registry, place) = (Registry::start().await, Place::new());
    let layer = noise(300_000);
    let (digest, _) = registry.image(&layer);
    // The configuration comes at the same time: both are cut.
    registry.with(|state| state.cuts = vec![1, 1, 100_000, 50_000, 30_000]);
    assert_eq!(place.pull(&registry).await.expect("it is pulled"), digest);
    let ranges = registry.with(|state| {
        state
            .requests
            .iter()
            .filter(|request| request.contains("bytes="))
            .count()
    });
    assert!(ranges >= 3, "{:?}", registry.with(|state| state.requests.clone()));
    assert!(place.is_whole());
    // Again: nothing but the manifest is asked for.
    registry.with(|state| state.requests.clear());
    place.pull(&registry).await.expect("it is stored");
    assert_eq!(registry.with(|state| state.requests.len()), 1);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_all_of_it_again() {
    let (registry, place) = (Registry::start().await, Place::new());
    registry.image(&noise(200_000));
    registry.with(|state| (state.has_ranges, state.cuts) = (false, vec![1, 150_000]));
    place.pull(&registry).await.expect("it is pulled");
    assert!(place.is_whole());
}

#[tokio::test]
async fn the_next_pull_goes_on_with_what_one_has_left() {
    let (registry, place) = (Registry::start().await, Place::new());
    let layer = noise(400_000);
    registry.image(&layer);
    // Each try brings something, and after that five bring nothing.
    registry.with(|state| state.cuts = [vec![100_000; 2], vec![0; 12]].concat());
    let error = place.pull(&registry).await.expect_err("it breaks off");
    assert!(error.retry_helps(), "{error}");
    registry.with(|state| (state.cuts.clear(), state.requests.clear()));
    place.pull(&registry).await.expect("it is pulled");
    let requests = registry.with(|state| state.requests.clone());
    assert!(
        requests.iter().any(|request| request.contains("bytes=100000-")),
        "{requests:?}"
    );
    assert!(place.is_whole());
}

#[tokio::test]
async fn what_an_earlier_try_has_left_may_be_wrong() {
    let (registry, place) = (Registry::start().await, Place::new());
    let layer = noise(100_000);
    registry.image(&layer);
    let mut download = place
        .store
        .images
        .begin_download(Digest::of(&layer))
        .expect("begins");
    download.append(&[7; 50_000]).expect("writes");
    drop(download);
    place.pull(&registry).await.expect("it is pulled");
    assert!(place.is_whole());
}

#[tokio::test]
async fn pulls_at_the_same_time_share_their_downloads() {
    let (registry, place) = (Registry::start().await, Place::new());
    registry.image(&noise(500_000));
    let (a, b, c) = tokio::join!(
        place.pull(&registry),
        place.pull(&registry),
        place.pull(&registry)
    );
    for result in [a, b, c] {
        result.expect("it is pulled");
    }
    let blobs = registry.with(|state| {
        state
            .requests
            .iter()
            .filter(|request| request.contains("/blobs/"))
            .count()
    });
    assert_eq!(blobs, 2, "each blob comes once");
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_this_machine() {
    let (registry, place) = (Registry::start().await, Place::new());
    let (own, manifest) = registry.image(&noise(1000));
    registry.manifest(&own.to_string(), &manifest);
    let entry = |digest: Digest, os: &str, architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.to_string(), "size": 1,
            "platform": {"os": os, "architecture": architecture},
        })
    };
    let absent = Digest::of(b"absent");
    let index = json!({"schemaVersion": 2, "manifests": [
        entry(absent, "unknown", "unknown"), entry(absent, "linux", "arm64"), entry(own, "linux", "amd64"),
    ]});
    let digest = registry.manifest("1", &index);
    assert_eq!(place.pull(&registry).await.expect("it is pulled"), digest);
    assert_eq!(
        place.store.images.platform_manifest(digest).expect("reads"),
        Some(own)
    );
    assert!(place.is_whole());
    let other = json!({"schemaVersion": 2, "manifests": [entry(absent, "linux", "arm64"), entry(absent, "windows", "amd64")]});
    registry.manifest("1", &other);
    let error = place.pull(&registry).await.expect_err("it is for others");
    assert_eq!(
        error.to_string(),
        "the image is for linux/arm64, windows/amd64, not for linux/amd64"
    );
}

/// Name, what sets the registry up, and what the pull says.
type Case<'a> = (&'a str, Box<dyn Fn() + 'a>, String);

#[tokio::test]
async fn what_a_registry_gets_wrong_is_said() {
    let registry = Registry::start().await;
    let at = format!("http://{}", registry.address);
    let layer = noise(5000);
    let digest = Digest::of(&layer);
    let manifest_path = "/v2/team/app/manifests/1";
    let blob_path = format!("/v2/team/app/blobs/{digest}");
    let set = |path: &str, status, headers: &str, body: &[u8]| {
        registry.with(|state| {
            state
                .answers
                .insert(path.to_owned(), (status, headers.to_owned(), body.to_vec()))
        });
    };
    let manifest = |change: &dyn Fn(&mut Value)| {
        let (_, mut manifest) = registry.image(&layer);
        change(&mut manifest);
        registry.manifest("1", &manifest);
    };
    let absent = Digest::of(b"absent");
    let cases: Vec<Case<'_>> = vec![
        (
            "not there",
            Box::new(|| {
                set(
                    manifest_path,
                    "404 Not Found",
                    "",
                    b"{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}",
                )
            }),
            format!("the image `1` of {at}/team/app does not exist there: manifest unknown"),
        ),
        (
            "forbidden",
            Box::new(|| set(manifest_path, "403 Forbidden", "", b"")),
            format!(
                "the registry {at} does not give access to team/app without credentials: log in (`docker login`), you or the user who runs the daemon, or name the folder of a config.json with DOCKER_CONFIG"
            ),
        ),
        (
            "failed",
            Box::new(|| set(manifest_path, "500 Internal Server Error", "", b"<html>")),
            format!("the registry {at} answered 500 Internal Server Error"),
        ),
        (
            "garbage",
            Box::new(|| set(manifest_path, "200 OK", "", b"hello")),
            format!(
                "the manifest {} is neither an OCI image manifest nor an OCI image index, nor one of Docker's second version: expected value at line 1 column 1",
                Digest::of(b"hello")
            ),
        ),
        (
            "another digest than promised",
            Box::new(move || {
                set(
                    manifest_path,
                    "200 OK",
                    &format!("Docker-Content-Digest: {absent}\r\n"),
                    b"hello",
                )
            }),
            format!(
                "the manifest has the digest {}, not {absent}",
                Digest::of(b"hello")
            ),
        ),
        (
            "endless manifest",
            Box::new(|| set(manifest_path, "200 OK", "", &vec![b' '; (4 << 20) + 1])),
            "the manifest is longer than 4194304 bytes".to_owned(),
        ),
        (
            "leads to plain HTTP elsewhere",
            Box::new(|| {
                set(
                    manifest_path,
                    "307 Temporary Redirect",
                    "Location: http://192.0.2.1/x\r\n",
                    b"",
                )
            }),
            format!(
                "the registry {at} leads to http://192.0.2.1/x: only HTTPS is followed, and plain HTTP on this machine"
            ),
        ),
        (
            "leads in a circle",
            Box::new(|| {
                set(
                    manifest_path,
                    "307 Temporary Redirect",
                    "Location: /v2/team/app/manifests/1\r\n",
                    b"",
                )
            }),
            format!("the registry {at} does not keep to the protocol: it leads from one address to the next"),
        ),
        (
            "leads nowhere",
            Box::new(|| set(manifest_path, "307 Temporary Redirect", "", b"")),
            format!("the registry {at} does not keep to the protocol: it leads to no address"),
        ),
        (
            "blob is missing",
            Box::new(|| {
                manifest(&|_| {});
                set(&blob_path, "404 Not Found", "", b"");
            }),
            format!("the blob {digest} of {at}/team/app does not exist there"),
        ),
        (
            "blob is another",
            Box::new(|| {
                manifest(&|_| {});
                set(&blob_path, "200 OK", "", &[7; 5000]);
            }),
            format!("a blob has the digest {}, not {digest}", Digest::of(&[7; 5000])),
        ),
        (
            "blob is longer",
            Box::new(|| manifest(&|manifest| manifest["layers"][0]["size"] = 10.into())),
            format!("the blob {digest} is longer than 10 bytes"),
        ),
        (
            "blob is shorter",
            Box::new(|| manifest(&|manifest| manifest["layers"][0]["size"] = 6000.into())),
            format!(
                "the registry {at} does not keep to the protocol: a blob is shorter than its manifest says"
            ),
        ),
        (
            "blob of terabytes",
            Box::new(|| manifest(&|manifest| manifest["layers"][0]["size"] = (1_u64 << 42).into())),
            format!("the blob {digest} is longer than 2147483648 bytes"),
        ),
        (
            "many layers",
            Box::new(|| {
                manifest(&|manifest| manifest["layers"] = vec![manifest["layers"][0].clone(); 501].into())
            }),
            "the image has 501 layers, and at most 500 are taken".to_owned(),
        ),
        (
            "digest of another kind",
            Box::new(|| {
                manifest(&|manifest| {
                    manifest["layers"][0]["digest"] = format!("sha512:{}", "0".repeat(128)).into()
                })
            }),
            format!(
                "the manifest names `sha512:{}`: only sha256 digests are taken",
                "0".repeat(128)
            ),
        ),
    ];
    for (name, set_up, expected) in cases {
        registry.with(|state| state.answers.clear());
        set_up();
        let place = Place::new();
        let error = place.pull(&registry).await.expect_err(name);
        assert_eq!(chain(&error), expected, "{name}");
        assert!(place.is_whole(), "{name}");
        assert!(
            place.store.named_images().expect("reads").is_empty(),
            "{name}: no name is left"
        );
    }
    drop(registry);
    let gone = Place::new()
        .registries
        .remote_name(&"127.0.0.1:1/a".parse().expect("a name"));
    let place = Place::new();
    let error = place
        .registries
        .pull(&place.store.images, &gone, &Arc::default())
        .await
        .expect_err("nobody is there");
    assert!(
        matches!(error, RegistryError::Unreachable { .. }) && error.retry_helps(),
        "{error}"
    );
}

#[tokio::test]
async fn tokens_are_got_and_used() {
    let (registry, place) = (Registry::start().await, Place::new());
    registry.image(&noise(1000));
    registry.with(|state| state.wanted_authorization = Some("Bearer secret".to_owned()));
    registry.answer("/token", b"{\"token\":\"secret\"}");
    place.pull(&registry).await.expect("it is pulled");
    let asked = registry.with(|state| {
        state
            .requests
            .iter()
            .find(|request| request.starts_with("/token"))
            .cloned()
    });
    assert_eq!(
        asked.expect("asked"),
        "/token?service=s&scope=repository%3Ateam%2Fapp%3Apull "
    );
    // One that is not accepted is not tried for ever.
    registry.answer("/token", b"{\"token\":\"another\"}");
    let error = Place::new().pull(&registry).await.expect_err("it is not known");
    assert!(
        matches!(
            error,
            RegistryError::Denied {
                has_credentials: false,
                ..
            }
        ),
        "{error}"
    );
    registry.answer("/token", &vec![b' '; 1 << 20]);
    let error = Place::new().pull(&registry).await.expect_err("it is too long");
    assert_eq!(error.to_string(), "a token is longer than 65536 bytes");
}

#[tokio::test]
async fn a_pull_that_is_given_up_leaves_what_has_come() {
    let (registry, place) = (Registry::start().await, Place::new());
    let layer = noise(3 << 20);
    registry.image(&layer);
    // It begins, breaks off, and is dropped while it waits for the next try.
    registry.with(|state| state.cuts = vec![1, 2 << 20, 0, 0, 0, 0]);
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(300), place.pull(&registry)).await;
    if given_up.is_err() {
        assert!(place.store.named_images().expect("reads").is_empty());
    }
    registry.with(|state| state.cuts.clear());
    place.pull(&registry).await.expect("it is pulled");
    assert!(place.is_whole());
}

/// Ada's credential for a registry, as a client sends it.
fn credential_for(registry: &str) -> ClientCredential {
    let sent = json!({"username": "ada", "password": "secret", "serveraddress": registry}).to_string();
    let header = HeaderValue::from_str(&URL_SAFE.encode(sent)).expect("base64");
    ClientCredential::from_header(&header).expect("it is one")
}

#[tokio::test]
async fn a_clients_credential_is_for_its_registry_alone() {
    let registry = Registry::start().await;
    registry.image(&noise(1000));
    registry.with(|state| state.wanted_authorization = Some("Bearer secret".to_owned()));
    registry.answer("/token", b"{\"token\":\"secret\"}");
    // "ada:secret"
    let ada = Some("Basic YWRhOnNlY3JldA==".to_owned());
    let own = registry.address.to_string();
    for (server, expected) in [(own.as_str(), &ada), ("quay.io", &None), ("127.0.0.1:1", &None)] {
        let mut place = Place::new();
        place.registries = place.registries.on_behalf_of(credential_for(server));
        place.pull(&registry).await.expect("anybody may");
        let asked_as = registry.with(|state| std::mem::take(&mut state.asked_as));
        assert!(!asked_as.is_empty(), "{server}");
        assert!(
            asked_as.iter().all(|asked| asked == expected),
            "{server}: {asked_as:?}"
        );
    }
    // A mirror stands in for docker.io, and is another registry.
    let mirror = format!("docker.io={own}").parse().expect("a mirror");
    let registries = Registries::new(RegistryOptions {
        mirrors: vec![mirror],
        ..RegistryOptions::default()
    });
    let place = Place::new();
    let registries = registries.on_behalf_of(credential_for("https://index.docker.io/v1/"));
    let name = registries.remote_name(&"team/app:1".parse().expect("a name"));
    let pulled = registries.pull(&place.store.images, &name, &Arc::default()).await;
    pulled.expect("anybody may");
    let asked_as = registry.with(|state| std::mem::take(&mut state.asked_as));
    assert!(
        !asked_as.is_empty() && asked_as.iter().all(Option::is_none),
        "{asked_as:?}"
    );
}

#[tokio::test]
async fn of_an_index_all_images_come_or_none_has_a_name() {
    let (registry, place) = (Registry::start().await, Place::new());
    let image = |layer: &[u8]| {
        let manifest =
            json!({"schemaVersion": 2, "config": registry.blob(b"{}"), "layers": [registry.blob(layer)]});
        let digest = Digest::of(manifest.to_string().as_bytes());
        registry.manifest(&digest.to_string(), &manifest);
        (digest, manifest.to_string().len())
    };
    let entry = |(digest, size): (Digest, usize), architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest.to_string(),
            "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let (here, there) = (image(&noise(2000)), image(&noise(3000)));
    let absent = (Digest::of(b"nowhere"), 7);
    let name = place.registries.remote_name(
        &format!("{}/team/app:1", registry.address)
            .parse()
            .expect("a name"),
    );
    let images = &place.store.images;
    let pull = |platforms| {
        let progress = Arc::default();
        let (registries, name) = (&place.registries, &name);
        async move {
            registries
                .pull_platforms(images, name, platforms, &progress)
                .await
        }
    };
    let index = |entries: Vec<Value>| {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        registry.manifest("1", &index)
    };
    index(vec![entry(here, "amd64"), entry(absent, "arm64")]);
    let error = pull(Platforms::All).await.expect_err("one is nowhere");
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
    assert!(place.store.named_images().expect("reads").is_empty());
    // For this machine alone, it does not matter.
    let digest = index(vec![entry(here, "amd64"), entry(absent, "arm64")]);
    assert_eq!(pull(Platforms::Here).await.expect("it is there"), digest);
    let digest = index(vec![entry(here, "amd64"), entry(there, "arm64")]);
    assert_eq!(pull(Platforms::All).await.expect("both are there"), digest);
    for image in [here, there] {
        assert!(images.parsed_manifest(image.0).expect("reads").is_some());
    }
    let nested = index(vec![entry(here, "amd64")]);
    index(vec![entry((nested, 1), "amd64")]);
    registry.manifest(
        &nested.to_string(),
        &json!({"schemaVersion": 2, "manifests": [entry(here, "amd64")]}),
    );
    let error = pull(Platforms::All).await.expect_err("it leads nowhere");
    assert!(error.to_string().contains("another index"), "{error}");
    let many: Vec<Value> = (0..201).map(|_| entry(here, "amd64")).collect();
    index(many);
    let error = pull(Platforms::All).await.expect_err("it is too long");
    assert!(error.to_string().contains("more than 200"), "{error}");
    assert!(place.is_whole());
}

//! Images from a registry into the store.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use hyper::body::Incoming;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use spore_store::{
    AnyManifest, Digest, Download, FinishError, ImageStore, MAX_BLOB_BYTES, MAX_MANIFEST_BYTES, Selector,
    choose_platform, digest_of, platforms,
};
use tokio::task::JoinSet;

use crate::error::RegistryError;
use crate::names::RemoteName;
use crate::session::Session;
use crate::transport::{self, full};
use crate::{Progress, Registries};

/// Media types of manifests that are understood.
const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// What a registry tells the digest of a manifest by.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// Most layers of an image.
pub(crate) const LAYERS_MAX: usize = 500;
/// Most bytes of all blobs of an image.
pub(crate) const IMAGE_BYTES_MAX: u64 = 8 << 30;
/// Most images of an index that are transferred with it.
pub(crate) const INDEX_IMAGES_MAX: usize = 200;
/// Blobs of an image that are downloaded at a time.
const BLOBS_AT_A_TIME: usize = 3;
/// How often a download goes on after it broke off, without any byte in between.
const TRIES: u32 = 5;
/// Pause before the second try, doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Bytes that are collected before they are written and hashed in one go.
const WRITE_BYTES: usize = 1 << 20;

/// What of an index is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Platforms {
    /// The image for this machine.
    #[default]
    Here,
    /// Every image.
    All,
}

/// A manifest as a registry has sent it.
struct Received {
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
}

impl Registries {
    /// Pulls an image into the store; the digest of what the name means there, which may be that of an index. What is
    /// stored already is not transferred. Dropping the future breaks the pull off; the next one goes on from there.
    ///
    /// # Errors
    ///
    /// If it is not there, not allowed, not for this machine, out of bounds, or the network or the disk fails.
    pub async fn pull(
        &self,
        images: &ImageStore,
        name: &RemoteName,
        progress: &Arc<Progress>,
    ) -> Result<Digest, RegistryError> {
        self.pull_platforms(images, name, Platforms::Here, progress).await
    }

    /// The same, and of an index more than the image for this machine.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn pull_platforms(
        &self,
        images: &ImageStore,
        name: &RemoteName,
        wanted: Platforms,
        progress: &Arc<Progress>,
    ) -> Result<Digest, RegistryError> {
        let session = Session::open(self, name, "pull").await?;
        let top = manifest(&session, &name.selector).await?;
        if wanted == Platforms::All
            && let AnyManifest::Index(several) = parse(&top)?
        {
            return self
                .all_of_index(images, &session, name, (top, &several), progress)
                .await;
        }
        let mut index = None;
        let mut image = top;
        let mut parsed = parse(&image)?;
        if let AnyManifest::Index(several) = &parsed {
            let here = chosen(several)?;
            let next = manifest(&session, &Selector::Digest(here)).await?;
            let inner = parse(&next)?;
            index = Some(std::mem::replace(&mut image, next));
            parsed = inner;
        }
        let AnyManifest::Image(parts) = parsed else {
            return Err(session.protocol("its index leads to another index"));
        };
        self.blobs(images, &session, &parts, progress).await?;
        let (images, name) = (images.clone(), name.clone());
        let stored = move || -> Result<Digest, RegistryError> {
            let repository = name.stored_repository();
            let own = match index {
                None => name.selector.clone(),
                Some(_) => Selector::Digest(image.digest),
            };
            let digest = images.put_manifest(&repository, &own, &image.media_type, &image.bytes)?;
            Ok(match index {
                None => digest,
                Some(index) => {
                    images.put_pulled_index(&repository, &name.selector, &index.media_type, &index.bytes)?
                }
            })
        };
        tokio::task::spawn_blocking(stored).await?
    }

    /// Pulls every image of an index, and the index at last.
    async fn all_of_index(
        &self,
        images: &ImageStore,
        session: &Arc<Session>,
        name: &RemoteName,
        (index, several): (Received, &ImageIndex),
        progress: &Arc<Progress>,
    ) -> Result<Digest, RegistryError> {
        if several.manifests().len() > INDEX_IMAGES_MAX {
            return Err(session.protocol("its index names more than 200 images"));
        }
        for descriptor in several.manifests() {
            let digest = digest_of(descriptor).ok_or_else(|| other_digest(descriptor))?;
            let image = manifest(session, &Selector::Digest(digest)).await?;
            let AnyManifest::Image(parts) = parse(&image)? else {
                return Err(session.protocol("its index leads to another index"));
            };
            self.blobs(images, session, &parts, progress).await?;
            put(images, name, Selector::Digest(digest), image).await?;
        }
        put(images, name, name.selector.clone(), index).await
    }

    /// Downloads the configuration and the layers.
    async fn blobs(
        &self,
        images: &ImageStore,
        session: &Arc<Session>,
        manifest: &ImageManifest,
        progress: &Arc<Progress>,
    ) -> Result<(), RegistryError> {
        let mut wanted = checked(manifest)?;
        progress.expect(wanted.iter().map(|(_, bytes)| bytes).sum());
        // One that is named twice comes once.
        let named = wanted.len();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.len() < named {
            let once: u64 = wanted.iter().map(|(_, bytes)| bytes).sum();
            let all = progress.now().1;
            progress.add(all.saturating_sub(once));
        }
        let mut running = JoinSet::new();
        for (digest, bytes) in wanted {
            if running.len() >= BLOBS_AT_A_TIME
                && let Some(ended) = running.join_next().await
            {
                ended??;
            }
            let one = Blob {
                registries: self.clone(),
                images: images.clone(),
                session: session.clone(),
                digest,
                bytes,
                progress: progress.clone(),
            };
            running.spawn(async move { one.fetch().await });
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Stores a manifest everything of which is stored.
async fn put(
    images: &ImageStore,
    name: &RemoteName,
    selector: Selector,
    manifest: Received,
) -> Result<Digest, RegistryError> {
    let (images, repository) = (images.clone(), name.stored_repository());
    let stored = move || images.put_manifest(&repository, &selector, &manifest.media_type, &manifest.bytes);
    Ok(tokio::task::spawn_blocking(stored).await??)
}

fn parse(manifest: &Received) -> Result<AnyManifest, RegistryError> {
    AnyManifest::parse(&manifest.bytes).map_err(|source| RegistryError::BadManifest {
        digest: manifest.digest,
        source,
    })
}

fn chosen(index: &ImageIndex) -> Result<Digest, RegistryError> {
    let here = choose_platform(index).ok_or_else(|| RegistryError::OtherPlatform {
        platforms: platforms(index),
    })?;
    digest_of(here).ok_or_else(|| other_digest(here))
}

fn other_digest(descriptor: &Descriptor) -> RegistryError {
    RegistryError::OtherDigest {
        digest: descriptor.digest().to_string().chars().take(150).collect(),
    }
}

/// Digests and lengths of what a manifest names, if they are within bounds.
pub(crate) fn checked(manifest: &ImageManifest) -> Result<Vec<(Digest, u64)>, RegistryError> {
    let count = manifest.layers().len();
    if count > LAYERS_MAX {
        return Err(RegistryError::TooManyLayers {
            count,
            limit: LAYERS_MAX,
        });
    }
    let mut total_bytes: u64 = 0;
    let mut blobs = Vec::new();
    for descriptor in std::iter::once(manifest.config()).chain(manifest.layers()) {
        let digest = digest_of(descriptor).ok_or_else(|| other_digest(descriptor))?;
        let too_long = |what: String, limit_bytes| Err(RegistryError::TooLong { what, limit_bytes });
        if descriptor.size() > MAX_BLOB_BYTES {
            return too_long(format!("the blob {digest}"), MAX_BLOB_BYTES);
        }
        total_bytes += descriptor.size();
        if total_bytes > IMAGE_BYTES_MAX {
            return too_long("the image".to_owned(), IMAGE_BYTES_MAX);
        }
        blobs.push((digest, descriptor.size()));
    }
    Ok(blobs)
}

/// Gets a manifest and compares it with its digest.
async fn manifest(session: &Session, selector: &Selector) -> Result<Received, RegistryError> {
    let address = session.address(&format!("manifests/{selector}"))?;
    let accept = [(
        ACCEPT,
        HeaderValue::try_from(MANIFEST_TYPES.join(", ")).map_err(http::Error::from)?,
    )];
    let empty = || full(Vec::new());
    let response = session.send(Method::GET, &address, &accept, &empty).await?;
    if response.status() != StatusCode::OK {
        return Err(session
            .failure(response, &format!("the image `{selector}`"))
            .await);
    }
    let headers = response.headers().clone();
    let bytes = transport::read(
        &session.endpoint,
        response.into_body(),
        MAX_MANIFEST_BYTES,
        "the manifest",
    )
    .await?;
    let digest = Digest::of(&bytes);
    let promised = match selector {
        Selector::Digest(digest) => Some(*digest),
        Selector::Tag(_) => text(&headers, CONTENT_DIGEST).and_then(|text| text.parse().ok()),
    };
    match promised {
        Some(expected) if expected != digest => Err(RegistryError::DigestMismatch {
            what: "the manifest".to_owned(),
            found: digest,
            expected,
        }),
        _ => Ok(Received {
            digest,
            media_type: media_type(&headers, &bytes),
            bytes,
        }),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The media type that a manifest says itself, or that it was sent as.
fn media_type(headers: &HeaderMap, bytes: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let own = serde_json::from_slice::<Typed>(bytes)
        .ok()
        .and_then(|typed| typed.media_type);
    let sent = text(headers, CONTENT_TYPE.as_str()).and_then(|text| text.split(';').next());
    let known = |media_type: &&str| MANIFEST_TYPES.contains(media_type);
    let found = own.as_deref().filter(known).or(sent.filter(known));
    found.unwrap_or(MANIFEST_TYPES[1]).to_owned()
}

/// One blob that is wanted.
struct Blob {
    registries: Registries,
    images: ImageStore,
    session: Arc<Session>,
    digest: Digest,
    bytes: u64,
    progress: Arc<Progress>,
}

impl Blob {
    /// Downloads it unless it is there, or somebody else does.
    async fn fetch(self) -> Result<(), RegistryError> {
        let turn = {
            let mut downloads = self
                .registries
                .downloads
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            // Turns that nobody takes are forgotten.
            downloads.retain(|_, turn| Arc::strong_count(turn) > 1);
            downloads.entry(self.digest).or_default().clone()
        };
        let _turn = turn.lock().await;
        let (images, digest) = (self.images.clone(), self.digest);
        let stored = tokio::task::spawn_blocking(move || images.intact_blob(digest)).await??;
        if stored.is_some() {
            self.progress.add(self.bytes);
            return Ok(());
        }
        let (images, limit) = (self.images.clone(), self.bytes);
        let begin = move || -> std::io::Result<Download> {
            let mut download = images.begin_download(digest)?;
            if download.written_bytes() > limit {
                download.restart()?;
            }
            Ok(download)
        };
        let mut download = tokio::task::spawn_blocking(begin).await??;
        self.progress.add(download.written_bytes());
        let mut is_fresh = download.written_bytes() == 0;
        loop {
            download = self.receive_all(download).await?;
            let images = self.images.clone();
            let finish = move || images.finish_download(download, digest);
            match tokio::task::spawn_blocking(finish).await? {
                Ok(()) => return Ok(()),
                // What an earlier try has left may be at fault.
                Err(FinishError::DigestMismatch { .. }) if !is_fresh => is_fresh = true,
                Err(FinishError::DigestMismatch { found, expected }) => {
                    let what = "a blob".to_owned();
                    return Err(RegistryError::DigestMismatch {
                        what,
                        found,
                        expected,
                    });
                }
                Err(error) => return Err(error.into()),
            }
            self.progress.take_back(self.bytes);
            let images = self.images.clone();
            download = tokio::task::spawn_blocking(move || images.begin_download(digest)).await??;
        }
    }

    /// Receives what is missing, in as many tries as it takes, as long as they bring something.
    async fn receive_all(&self, mut download: Download) -> Result<Download, RegistryError> {
        let mut tries = 0;
        while download.written_bytes() < self.bytes {
            let before = download.written_bytes();
            let (back, outcome) = self.receive(download).await?;
            download = back;
            let Err(error) = outcome else { continue };
            tries = if download.written_bytes() > before {
                1
            } else {
                tries + 1
            };
            if tries >= TRIES || !error.retry_helps() {
                return Err(error);
            }
            tracing::debug!(digest = %self.digest, at = download.written_bytes(), %error, "a download broke off");
            tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(tries - 1)).await;
        }
        Ok(download)
    }

    /// One request for what is missing. The download comes back, however far it has come; the outer error is the disk's.
    async fn receive(
        &self,
        mut download: Download,
    ) -> Result<(Download, Result<(), RegistryError>), RegistryError> {
        let offset = download.written_bytes();
        let response = match self.request(offset).await {
            Ok(response) => response,
            Err(error) => return Ok((download, Err(error))),
        };
        if offset > 0 && response.status() == StatusCode::OK {
            // It sends all of it, whatever was asked for.
            self.progress.take_back(offset);
            let restart = move || download.restart().map(|()| download);
            download = tokio::task::spawn_blocking(restart).await??;
        }
        let mut body = response.into_body();
        let mut collected = Vec::new();
        loop {
            let piece = transport::piece(&self.session.endpoint, &mut body).await;
            if let Ok(Some(data)) = &piece {
                collected.extend_from_slice(data);
            }
            if download.written_bytes() + collected.len() as u64 > self.bytes {
                let error = RegistryError::TooLong {
                    what: format!("the blob {}", self.digest),
                    limit_bytes: self.bytes,
                };
                return Ok((download, Err(error)));
            }
            let is_end = !matches!(piece, Ok(Some(_)));
            if !collected.is_empty() && (is_end || collected.len() >= WRITE_BYTES) {
                let bytes = std::mem::take(&mut collected);
                self.progress.add(bytes.len() as u64);
                let append = move || download.append(&bytes).map(|()| download);
                download = tokio::task::spawn_blocking(append).await??;
            }
            match piece {
                Ok(Some(_)) => {}
                Ok(None) if download.written_bytes() < self.bytes => {
                    let error = self.session.protocol("a blob is shorter than its manifest says");
                    return Ok((download, Err(error)));
                }
                Ok(None) => return Ok((download, Ok(()))),
                Err(error) => return Ok((download, Err(error))),
            }
        }
    }

    async fn request(&self, offset: u64) -> Result<Response<Incoming>, RegistryError> {
        let address = self.session.address(&format!("blobs/{}", self.digest))?;
        let range = HeaderValue::try_from(format!("bytes={offset}-")).map_err(http::Error::from)?;
        let headers: Vec<_> = (offset > 0).then_some((RANGE, range)).into_iter().collect();
        let empty = || full(Vec::new());
        let response = self.session.send(Method::GET, &address, &headers, &empty).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::PARTIAL_CONTENT if begins_at(response.headers(), offset) => Ok(response),
            StatusCode::PARTIAL_CONTENT => {
                Err(self.session.protocol("it sends another part than was asked for"))
            }
            _ => Err(self
                .session
                .failure(response, &format!("the blob {}", self.digest))
                .await),
        }
    }
}

/// Whether the answer is the part of a blob that begins there.
pub(crate) fn begins_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = text(headers, CONTENT_RANGE.as_str()).and_then(|text| text.strip_prefix("bytes "));
    let begin = range.and_then(|range| range.split('-').next());
    begin.and_then(|begin| begin.trim().parse::<u64>().ok()) == Some(offset)
}

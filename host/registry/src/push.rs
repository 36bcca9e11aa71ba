//! Images from the store to a registry.
//!
//! ```text
//!  each blob:  HEAD ──200──> done
//!                └───404──> POST uploads/ ──202 Location──> PUT Location?digest= ──201──> done
//!  then:       PUT manifests/TAG
//! ```
//!
//! Of an index all of whose images are stored, each goes so, under its digest, and the index last. Otherwise only the image for this
//! platform goes, and the caller is told which are not stored.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use spore_store::{AnyManifest, Digest, ImageStore, Manifest, Selector, digest_of, platform_of};
use tokio::sync::mpsc;

use crate::error::RegistryError;
use crate::names::RemoteName;
use crate::pull::{INDEX_IMAGES_MAX, checked};
use crate::session::Session;
use crate::transport::{Body, full, resolve};
use crate::{Progress, Registries};

/// Pieces in which a blob is sent, in bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Platforms that are named of those that were not pushed, at most.
const PLATFORMS_SHOWN_MAX: usize = 20;

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// What the name means there now.
    pub digest: Digest,
    /// Platforms of the index whose images are not stored: only the one for this machine was pushed. None if all of the image was.
    pub left_out: Option<String>,
}

/// An image with all of its parts.
struct StoredImage {
    manifest: Manifest,
    blobs: Vec<(Digest, u64)>,
}

/// What is to be pushed.
struct Plan {
    images: Vec<StoredImage>,
    /// The one that goes under the name; none if that is the only image's own.
    index: Option<Manifest>,
    left_out: Option<String>,
}

impl Registries {
    /// Pushes a stored image to another registry: of an index all images, if all are stored, otherwise the one for this
    /// platform.
    ///
    /// # Errors
    ///
    /// If a part of it is missing, or the registry cannot be reached or does not take it.
    pub async fn push(
        &self,
        images: &ImageStore,
        digest: Digest,
        name: &RemoteName,
        progress: &Arc<Progress>,
    ) -> Result<Pushed, RegistryError> {
        let read = {
            let images = images.clone();
            move || plan(&images, digest)
        };
        let plan = tokio::task::spawn_blocking(read).await??;
        let session = Session::open(self, name, "pull,push").await?;
        let mut blobs: Vec<_> = plan.images.iter().flat_map(|image| image.blobs.clone()).collect();
        blobs.sort_unstable();
        blobs.dedup();
        progress.expect(blobs.iter().map(|(_, bytes)| bytes).sum());
        for (digest, bytes) in blobs {
            if !is_there(&session, digest).await? {
                upload(&session, images, digest, bytes).await?;
            }
            progress.add(bytes);
        }
        let (last, others) = match (&plan.index, plan.images.as_slice()) {
            (Some(index), all) => (index, all),
            (None, [others @ .., last]) => (&last.manifest, others),
            (None, []) => return Err(missing(digest)),
        };
        for image in others {
            let own = Selector::Digest(image.manifest.digest);
            put(&session, &image.manifest, &own).await?;
        }
        put(&session, last, &name.selector).await?;
        Ok(Pushed {
            digest: last.digest,
            left_out: plan.left_out,
        })
    }
}

fn missing(digest: Digest) -> RegistryError {
    RegistryError::Missing {
        digest: digest.to_string(),
    }
}

/// Sends a manifest. Under a digest it goes by its own, for that is not another's.
async fn put(session: &Session, manifest: &Manifest, selector: &Selector) -> Result<(), RegistryError> {
    let reference = match selector {
        Selector::Tag(tag) => tag.clone(),
        Selector::Digest(_) => manifest.digest.to_string(),
    };
    let address = session.address(&format!("manifests/{reference}"))?;
    let kind = HeaderValue::try_from(&manifest.media_type).map_err(http::Error::from)?;
    let body = || full(manifest.bytes.clone());
    let response = session
        .send(Method::PUT, &address, &[(CONTENT_TYPE, kind)], &body)
        .await?;
    if response.status().is_success() {
        return Ok(());
    }
    Err(session.failure(response, "the repository").await)
}

/// Looks what of an image there is to be pushed.
fn plan(images: &ImageStore, digest: Digest) -> Result<Plan, RegistryError> {
    let top = images.parsed_manifest(digest)?.ok_or_else(|| missing(digest))?;
    let AnyManifest::Index(index) = top else {
        let image = stored_image(images, digest)?.ok_or_else(|| missing(digest))?;
        return Ok(Plan {
            images: vec![image],
            index: None,
            left_out: None,
        });
    };
    let (mut whole, mut absent) = (Vec::new(), Vec::new());
    for (number, descriptor) in index.manifests().iter().enumerate() {
        let is_within = number < INDEX_IMAGES_MAX;
        let image = match digest_of(descriptor).filter(|_| is_within) {
            Some(own) => stored_image(images, own)?.filter(|image| is_complete(images, image)),
            None => None,
        };
        match image {
            Some(image) => whole.push(image),
            None => absent.push(platform_of(descriptor)),
        }
    }
    if absent.is_empty() && !whole.is_empty() {
        let index = images.manifest("", &Selector::Digest(digest))?;
        return Ok(Plan {
            images: whole,
            index: Some(index.ok_or_else(|| missing(digest))?),
            left_out: None,
        });
    }
    let own = images.platform_manifest(digest)?.ok_or_else(|| missing(digest))?;
    let image = stored_image(images, own)?.ok_or_else(|| missing(own))?;
    absent.truncate(PLATFORMS_SHOWN_MAX);
    Ok(Plan {
        images: vec![image],
        index: None,
        left_out: Some(absent.join(", ")),
    })
}

/// The image with this manifest; none if that is not stored, or that of an index.
fn stored_image(images: &ImageStore, digest: Digest) -> Result<Option<StoredImage>, RegistryError> {
    // Digests are the same in every repository.
    let Some(manifest) = images.manifest("", &Selector::Digest(digest))? else {
        return Ok(None);
    };
    let Ok(AnyManifest::Image(parsed)) = AnyManifest::parse(&manifest.bytes) else {
        return Ok(None);
    };
    let mut blobs = checked(&parsed)?;
    blobs.sort_unstable();
    blobs.dedup();
    Ok(Some(StoredImage { manifest, blobs }))
}

/// Whether all parts of an image are stored. What is damaged is found when it is sent.
fn is_complete(images: &ImageStore, image: &StoredImage) -> bool {
    image
        .blobs
        .iter()
        .all(|(digest, _)| images.blob_file(*digest).is_file())
}

async fn is_there(session: &Session, digest: Digest) -> Result<bool, RegistryError> {
    let address = session.address(&format!("blobs/{digest}"))?;
    let empty = || full(Vec::new());
    let response = session.send(Method::HEAD, &address, &[], &empty).await?;
    match response.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(session.failure(response, "the repository").await),
    }
}

async fn upload(
    session: &Session,
    images: &ImageStore,
    digest: Digest,
    bytes: u64,
) -> Result<(), RegistryError> {
    let path = {
        let images = images.clone();
        // Damage is found here, and not by whoever pulls it.
        let checked = move || {
            Ok::<_, io::Error>(
                images
                    .intact_blob(digest)?
                    .map(|length| (images.blob_file(digest), length)),
            )
        };
        tokio::task::spawn_blocking(checked).await??
    };
    let path = match path {
        Some((path, length)) if length == bytes => path,
        _ => {
            return Err(RegistryError::Missing {
                digest: digest.to_string(),
            });
        }
    };
    let begin = session.address("blobs/uploads/")?;
    let empty = || full(Vec::new());
    let headers = [(CONTENT_LENGTH, HeaderValue::from(0))];
    let response = session.send(Method::POST, &begin, &headers, &empty).await?;
    if response.status() != StatusCode::ACCEPTED {
        return Err(session.failure(response, "the repository").await);
    }
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    let target = location.and_then(|location| upload_address(&begin, location, digest));
    let target = target.ok_or_else(|| session.protocol("it does not say where to upload to"))?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CONTENT_LENGTH, HeaderValue::from(bytes)),
    ];
    let body = || from_file(path.clone(), bytes);
    let response = session.send(Method::PUT, &target, &headers, &body).await?;
    if !response.status().is_success() {
        return Err(session.failure(response, "the repository").await);
    }
    Ok(())
}

fn upload_address(base: &Uri, location: &str, digest: Digest) -> Option<Uri> {
    let target = resolve(base, location)?;
    let separator = if target.query().is_some() { '&' } else { '?' };
    format!("{target}{separator}digest=sha256%3A{}", digest.to_hex())
        .parse()
        .ok()
}

/// A body that is read from a file as it is sent.
fn from_file(path: PathBuf, length: u64) -> Body {
    let (sender, pieces) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read_pieces(&path, length, &sender) {
            // The request may have been given up.
            let _ = sender.blocking_send(Err(error));
        }
    });
    FileBody { pieces, rest: length }.boxed_unsync()
}

fn read_pieces(path: &PathBuf, length: u64, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut file = File::open(path)?.take(length);
    while file.limit() > 0 {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if sender.blocking_send(Ok(piece.into())).is_err() {
            break;
        }
    }
    Ok(())
}

struct FileBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: u64,
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest == 0 {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| {
            let piece = piece.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
            Some(piece.map(|piece| {
                self.rest = self.rest.saturating_sub(piece.len() as u64);
                Frame::data(piece)
            }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}

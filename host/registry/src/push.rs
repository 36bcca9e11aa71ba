//! Images from the store to a registry.
//!
//! ```text
//!  each blob:  HEAD ──200──> done
//!                └───404──> POST uploads/ ──202 Location──> PUT Location?digest= ──201──> done
//!  then:       PUT manifests/TAG
//! ```

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
use spore_store::{AnyManifest, Digest, ImageStore, Manifest, Selector};
use tokio::sync::mpsc;

use crate::error::RegistryError;
use crate::names::RemoteName;
use crate::pull::checked;
use crate::session::Session;
use crate::transport::{Body, full, resolve};
use crate::{Progress, Registries};

/// Pieces in which a blob is sent, in bytes.
const PIECE_BYTES: usize = 256 << 10;

impl Registries {
    /// Pushes a stored image to another registry. Of an index, the image for this platform is pushed, since the others
    /// need not be stored.
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
    ) -> Result<Digest, RegistryError> {
        let read = {
            let images = images.clone();
            move || image_manifest(&images, digest)
        };
        let (manifest, blobs) = tokio::task::spawn_blocking(read).await??;
        let session = Session::open(self, name, "pull,push").await?;
        progress.expect(blobs.iter().map(|(_, bytes)| bytes).sum());
        for (digest, bytes) in blobs {
            if !is_there(&session, digest).await? {
                upload(&session, images, digest, bytes).await?;
            }
            progress.add(bytes);
        }
        let reference = match &name.selector {
            Selector::Tag(tag) => tag.clone(),
            Selector::Digest(_) => manifest.digest.to_string(),
        };
        let address = session.address(&format!("manifests/{reference}"))?;
        let kind = HeaderValue::try_from(&manifest.media_type).map_err(http::Error::from)?;
        let body = || full(manifest.bytes.clone());
        let response = session
            .send(Method::PUT, &address, &[(CONTENT_TYPE, kind)], &body)
            .await?;
        if !response.status().is_success() {
            return Err(session.failure(response, "the repository").await);
        }
        Ok(manifest.digest)
    }
}

/// The manifest of the image, and what it names.
fn image_manifest(
    images: &ImageStore,
    digest: Digest,
) -> Result<(Manifest, Vec<(Digest, u64)>), RegistryError> {
    let missing = || RegistryError::Missing {
        digest: digest.to_string(),
    };
    let own = images.platform_manifest(digest)?.ok_or_else(missing)?;
    // Digests are the same in every repository.
    let manifest = images.manifest("", &Selector::Digest(own))?.ok_or_else(missing)?;
    let Ok(AnyManifest::Image(parsed)) = AnyManifest::parse(&manifest.bytes) else {
        return Err(missing());
    };
    let mut blobs = checked(&parsed)?;
    blobs.sort_unstable();
    blobs.dedup();
    Ok((manifest, blobs))
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

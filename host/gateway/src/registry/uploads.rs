//! Blobs on their way in.

use http::header::{CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use spore_store::{Digest, MAX_BLOB_BYTES, Store, Upload};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

use super::error::RegistryError;
use super::{blocking, created, digest_parameter, header};
use crate::client_body::ClientBody;
use crate::reply::{self, Answer};
use crate::routes::parameter;

/// Most uploads that are open at a time.
const MAX_UPLOADS: usize = 64;
/// How long an upload stays open without any request.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);
/// Bytes that are collected before they are written and hashed in one go.
const WRITE_BYTES: usize = 1 << 20;

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// The open uploads. While a request writes to one, it is not in here; if that request fails, it is gone.
#[derive(Default)]
pub(crate) struct Uploads {
    open: Mutex<HashMap<Uuid, (Upload, Instant)>>,
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, (Upload, Instant)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, id: Uuid) -> Result<Upload, RegistryError> {
        self.lock()
            .remove(&id)
            .map(|(upload, _)| upload)
            .ok_or(RegistryError::UploadUnknown)
    }

    fn keep(&self, id: Uuid, upload: Upload) -> Result<(), RegistryError> {
        let mut open = self.lock();
        open.retain(|_, (_, used)| used.elapsed() < UPLOAD_TIMEOUT);
        if open.len() >= MAX_UPLOADS {
            return Err(RegistryError::TooManyUploads { limit: MAX_UPLOADS });
        }
        open.insert(id, (upload, Instant::now()));
        Ok(())
    }

    /// Begins an upload; with a digest in the query, the body is the whole blob.
    pub(super) async fn begin(
        &self,
        store: &Arc<Store>,
        repository: String,
        request: Request<ClientBody>,
    ) -> Result<Answer, RegistryError> {
        if let Some(answer) = mounted(store, &repository, &request).await? {
            return Ok(answer);
        }
        let beginning = store.clone();
        let upload = blocking(move || Ok(beginning.images.begin_upload()?)).await?;
        if let Some(digest) = digest_parameter(request.uri())? {
            let upload = receive(upload, request.into_body()).await?;
            return finish(store, upload, &repository, digest).await;
        }
        let id = Uuid::new_v4();
        self.keep(id, upload)?;
        Ok(progress(StatusCode::ACCEPTED, &repository, id, 0))
    }

    /// Adds a piece.
    pub(super) async fn patch(
        &self,
        repository: String,
        id: Uuid,
        request: Request<ClientBody>,
    ) -> Result<Answer, RegistryError> {
        let upload = self.take(id)?;
        if let Err(error) = check_range(request.headers(), upload.written_bytes()) {
            self.keep(id, upload)?;
            return Err(error);
        }
        let upload = receive(upload, request.into_body()).await?;
        let written_bytes = upload.written_bytes();
        self.keep(id, upload)?;
        Ok(progress(StatusCode::ACCEPTED, &repository, id, written_bytes))
    }

    /// Adds the last piece, perhaps an empty one, and stores the blob.
    pub(super) async fn put(
        &self,
        store: &Arc<Store>,
        repository: String,
        id: Uuid,
        request: Request<ClientBody>,
    ) -> Result<Answer, RegistryError> {
        let digest = digest_parameter(request.uri())?.ok_or(RegistryError::DigestMissing)?;
        let upload = self.take(id)?;
        if let Err(error) = check_range(request.headers(), upload.written_bytes()) {
            self.keep(id, upload)?;
            return Err(error);
        }
        let upload = receive(upload, request.into_body()).await?;
        finish(store, upload, &repository, digest).await
    }

    /// How far the upload has come.
    pub(super) fn status(&self, repository: &str, id: Uuid) -> Result<Answer, RegistryError> {
        let open = self.lock();
        let (upload, _) = open.get(&id).ok_or(RegistryError::UploadUnknown)?;
        Ok(progress(
            StatusCode::NO_CONTENT,
            repository,
            id,
            upload.written_bytes(),
        ))
    }

    /// Gives the upload up.
    pub(super) fn cancel(&self, id: Uuid) -> Result<Answer, RegistryError> {
        drop(self.take(id)?);
        Ok(reply::empty(StatusCode::NO_CONTENT))
    }
}

/// Where the client asks to take a blob from another repository: all share their blobs, so it may be here already.
async fn mounted(
    store: &Arc<Store>,
    repository: &str,
    request: &Request<ClientBody>,
) -> Result<Option<Answer>, RegistryError> {
    let Some(digest) = parameter(request.uri(), "mount") else {
        return Ok(None);
    };
    let digest: Digest = digest.parse()?;
    let store = store.clone();
    let here = blocking(move || Ok(store.images.intact_blob(digest)?.is_some())).await?;
    Ok(here.then(|| created(&format!("/v2/{repository}/blobs/{digest}"), digest)))
}

/// A piece that names its place must begin where the upload has come to.
fn check_range(headers: &HeaderMap, offset_bytes: u64) -> Result<(), RegistryError> {
    let Some(range) = headers.get(CONTENT_RANGE) else {
        return Ok(());
    };
    let range = range.to_str().unwrap_or_default();
    let range = range.strip_prefix("bytes ").unwrap_or(range);
    let begin = range
        .split('-')
        .next()
        .and_then(|begin| begin.trim().parse::<u64>().ok());
    if begin == Some(offset_bytes) {
        Ok(())
    } else {
        Err(RegistryError::OutOfOrder { offset_bytes })
    }
}

/// Adds the body to the upload.
async fn receive(mut upload: Upload, mut body: ClientBody) -> Result<Upload, RegistryError> {
    let mut collected = Vec::new();
    loop {
        let frame = body.frame().await.transpose()?;
        let end = frame.is_none();
        if let Some(data) = frame.as_ref().and_then(|frame| frame.data_ref()) {
            collected.extend_from_slice(data);
        }
        if upload.written_bytes() + collected.len() as u64 > MAX_BLOB_BYTES {
            return Err(RegistryError::TooLong {
                limit_bytes: MAX_BLOB_BYTES,
            });
        }
        if collected.len() >= WRITE_BYTES || (end && !collected.is_empty()) {
            let piece = std::mem::take(&mut collected);
            upload = blocking(move || {
                upload.append(&piece)?;
                Ok(upload)
            })
            .await?;
        }
        if end {
            return Ok(upload);
        }
    }
}

async fn finish(
    store: &Arc<Store>,
    upload: Upload,
    repository: &str,
    digest: Digest,
) -> Result<Answer, RegistryError> {
    let store = store.clone();
    blocking(move || Ok(store.images.finish_upload(upload, digest)?)).await?;
    Ok(created(&format!("/v2/{repository}/blobs/{digest}"), digest))
}

fn progress(status: StatusCode, repository: &str, id: Uuid, written_bytes: u64) -> Answer {
    let mut response = reply::empty(status);
    let headers = response.headers_mut();
    headers.insert(LOCATION, header(format!("/v2/{repository}/blobs/uploads/{id}")));
    headers.insert(RANGE, header(format!("0-{}", written_bytes.saturating_sub(1))));
    headers.insert(UPLOAD_ID, header(id.to_string()));
    response
}

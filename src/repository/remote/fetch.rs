//! Brings one object to its place on the desk, and makes sure that it is what was listed.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore};
use ring::digest::{Context, SHA256};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::desk::Place;
use super::digest::Digest;
use super::error::{RemoteError, at};
use super::object::Object;
use crate::repository::Fetched;

/// Pieces of an object that wait to be written.
const PIECES: usize = 16;

/// Fetches `object`, which lies at `location`, and gives the digest of what came.
pub(super) async fn fetch(
    store: &dyn ObjectStore,
    location: &Path,
    object: &Object,
    place: Arc<Place>,
    fetched: &Fetched,
) -> Result<Digest, RemoteError> {
    let failed = |source| RemoteError::Store {
        url: location.to_string(),
        source,
    };
    let changed = |reason: String| RemoteError::Content {
        url: location.to_string(),
        reason,
    };
    let options = GetOptions {
        if_match: object.e_tag.clone().filter(|tag| !tag.starts_with("W/")),
        ..GetOptions::default()
    };
    let got = store.get_opts(location, options).await.map_err(failed)?;
    if let Some(reason) = difference(object, &got.meta) {
        return Err(changed(reason));
    }
    let (sender, pieces) = mpsc::channel(PIECES);
    let path = place.path.clone();
    let size = object.size;
    let writer = spawn_blocking(move || {
        let written = write(&path, size, pieces);
        // The file is there until it has been written.
        drop(place);
        written.map_err(at(&path))
    });
    let mut stream = got.into_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(failed)?;
        fetched.came(piece.len() as u64);
        // A writer that has failed says why.
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    let (written, digest) = match writer.await {
        Ok(written) => written?,
        Err(panic) => return Err(changed(format!("writing it panicked: {panic}"))),
    };
    if written != size {
        return Err(changed(format!(
            "{size} bytes were listed and {written} came"
        )));
    }
    Ok(digest)
}

fn difference(listed: &Object, got: &ObjectMeta) -> Option<String> {
    if got.size != listed.size {
        return Some(format!(
            "{} bytes were listed and there are {} now",
            listed.size, got.size
        ));
    }
    let (listed, got) = (bare(listed.e_tag.as_ref()?), bare(got.e_tag.as_ref()?));
    (listed != got).then(|| format!("ETag {listed} was listed and it is {got} now"))
}

// Some stores write an ETag with its quotes in one answer and without in another.
fn bare(tag: &str) -> &str {
    tag.trim_start_matches("W/").trim_matches('"')
}

// No more than was listed is written: no room was made for it.
fn write(
    path: &PathBuf,
    size: u64,
    mut pieces: mpsc::Receiver<Bytes>,
) -> io::Result<(u64, Digest)> {
    let mut file = File::options().write(true).open(path)?;
    let mut digest = Context::new(&SHA256);
    let mut written = 0;
    while let Some(piece) = pieces.blocking_recv() {
        written += piece.len() as u64;
        if written > size {
            break;
        }
        file.write_all(&piece)?;
        digest.update(&piece);
    }
    file.sync_all()?;
    Ok((written, digest.finish().into()))
}

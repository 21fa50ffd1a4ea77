use std::os::unix::fs::symlink;
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::clock::MonotonicClock;

const A: &[u8] = b"aaaa";
const B: &[u8] = b"bbbbbbbb";

async fn guard(cache: &Cache) -> Guard {
    cache.enter(&MonotonicClock::start()).await.unwrap()
}

/// A cache that is set up, though a program that another test starts may hold its lock for a moment.
async fn opened(root: &TempDir, limit: u64) -> Cache {
    let cache = Cache::open(root.path(), limit).unwrap();
    cache.set_up(&guard(&cache).await).unwrap();
    cache
}

/// A file as it is when it has been fetched.
async fn made(cache: &Cache, path: &str, content: &[u8]) -> Result<Made, RemoteError> {
    let guard = guard(cache).await;
    let mut places = cache.reserve(&guard, &[content.len() as u64])?;
    let place = places.pop().unwrap();
    fs::write(&place.path, content).unwrap();
    Ok(Made {
        path: path.to_owned(),
        digest: of_file(&place.path).unwrap(),
        place: Arc::new(place),
    })
}

async fn put(cache: &Cache, model: &str, content: &[u8]) -> Result<View, RemoteError> {
    let file = made(cache, "1/model.onnx", content).await?;
    cache.put(&guard(cache).await, model, vec![file], &[1, 2])
}

fn content(view: &View) -> Vec<u8> {
    fs::read(view.folder.join("1/model.onnx")).unwrap()
}

fn objects(root: &Path) -> usize {
    entries(&root.join("objects")).unwrap().len()
}

#[tokio::test]
async fn a_view_is_the_models_folder() {
    let root = tempfile::tempdir().unwrap();
    let cache = opened(&root, 100).await;
    let view = put(&cache, "m", A).await.unwrap();
    assert!(view.folder.ends_with("m"));
    assert_eq!(content(&view), A);
    assert!(view.folder.join("2").is_dir());
    // Nothing is left where it was made ready.
    assert_eq!(cache.used().unwrap(), A.len() as u64);
    let desks = entries(&root.path().join("desks")).unwrap();
    let desk = desks.iter().find(|path| path.is_dir()).unwrap();
    assert_eq!(entries(desk).unwrap(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_same_content_is_there_once_for_two_servers_and_models() {
    let root = tempfile::tempdir().unwrap();
    let one = opened(&root, 100).await;
    let other = opened(&root, 100).await;
    let views = [
        put(&one, "m", A).await.unwrap(),
        put(&other, "m", A).await.unwrap(),
        put(&other, "n", A).await.unwrap(),
    ];
    assert_eq!(views[0].folder, views[1].folder);
    assert_ne!(views[0].folder, views[2].folder);
    assert_eq!(objects(root.path()), 1);
    assert_eq!(one.used().unwrap(), A.len() as u64);
}

#[tokio::test]
async fn what_is_used_stays_and_the_longest_unused_goes() {
    let root = tempfile::tempdir().unwrap();
    let cache = opened(&root, 12).await;
    let other = opened(&root, 12).await;
    let served = put(&other, "served", A).await.unwrap();
    drop(put(&cache, "old", B).await.unwrap());
    // 4 used, 8 unused, 8 needed.
    let newer = put(&cache, "newer", b"cccccccc").await.unwrap();
    assert_eq!(content(&served), A);
    assert_eq!(content(&newer), b"cccccccc");
    assert_eq!(cache.used().unwrap(), 12);
    assert_eq!(objects(root.path()), 2);
    let error = put(&cache, "more", b"d").await.unwrap_err();
    let told = error.to_string();
    let expected = "1 bytes are needed beside 12 in use, and cache_bytes is 12";
    assert!(told.contains(expected), "{told}");
    drop(newer);
    put(&cache, "more", b"d").await.unwrap();
    assert_eq!(content(&served), A);
}

#[tokio::test]
async fn what_is_being_fetched_counts_at_its_full_length() {
    let root = tempfile::tempdir().unwrap();
    let cache = opened(&root, 10).await;
    let other = opened(&root, 10).await;
    let places = other.reserve(&guard(&other).await, &[8]).unwrap();
    let refused = cache.reserve(&guard(&cache).await, &[4]).unwrap_err();
    assert!(matches!(
        refused,
        RemoteError::NoRoom {
            needed: 4,
            used: 8,
            limit: 10,
            ..
        }
    ));
    drop(places);
    cache.reserve(&guard(&cache).await, &[4]).unwrap();
}

#[tokio::test]
async fn what_a_server_that_is_gone_was_fetching_is_cleared() {
    let root = tempfile::tempdir().unwrap();
    let cache = opened(&root, 10).await;
    let dead = root.path().join("desks/dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("0"), B).unwrap();
    fs::write(dead.with_extension("lock"), "").unwrap();
    assert_eq!(cache.used().unwrap(), 8);
    let later = opened(&root, 10).await;
    assert_eq!(later.used().unwrap(), 0);
    // The first one's is its own still.
    made(&cache, "f", A).await.unwrap();
}

#[tokio::test]
async fn a_content_that_is_not_what_it_is_called_is_thrown_away() {
    let root = tempfile::tempdir().unwrap();
    let cache = opened(&root, 100).await;
    let view = put(&cache, "m", A).await.unwrap();
    let digest = of_file(&view.folder.join("1/model.onnx")).unwrap();
    assert!(cache.find(&digest).unwrap().is_some());
    let object = cache.object(&digest);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&object, B).unwrap();
    // Another process looks before it uses.
    let later = opened(&root, 100).await;
    assert!(later.find(&digest).unwrap().is_none());
    assert!(!object.exists());
    let mended = put(&later, "m", A).await.unwrap();
    assert_eq!(mended.folder, view.folder);
    assert_eq!(content(&mended), A);
}

#[tokio::test]
async fn a_view_that_was_not_finished_is_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let cache = opened(&root, 100).await;
    let view = put(&cache, "m", A).await.unwrap();
    fs::remove_file(view.folder.join("1/model.onnx")).unwrap();
    let again = put(&cache, "m", A).await.unwrap();
    assert_eq!(again.folder, view.folder);
    assert_eq!(content(&again), A);
}

#[tokio::test]
async fn a_lock_that_another_server_holds_keeps_nobody_from_opening() {
    let root = tempfile::tempdir().unwrap();
    drop(Cache::open(root.path(), 100).unwrap());
    let lock = open_lock(&root.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let path = root.path().to_owned();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(Cache::open(&path, 100)));
    let cache = told.recv_timeout(PATIENCE).unwrap().unwrap();
    // Nothing can be put down yet.
    let found = cache.find(&of_text("a"));
    assert!(!cache.is_set_up() && matches!(found, Err(RemoteError::Held { .. })));
    drop(lock);
    cache.set_up(&guard(&cache).await).unwrap();
    assert_eq!(content(&put(&cache, "m", A).await.unwrap()), A);
}

#[tokio::test]
async fn a_desk_that_goes_meanwhile_is_no_trouble() {
    let root = tempfile::tempdir().unwrap();
    drop(Cache::open(root.path(), 100).unwrap());
    // It is listed, and is not there when it is opened.
    symlink("gone", root.path().join("desks/1-2.lock")).unwrap();
    opened(&root, 100).await;
}

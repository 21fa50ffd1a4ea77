use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tempfile::TempDir;

use super::*;
use crate::clock::Sleep;

const INTERVAL: Duration = Duration::from_secs(2);
const REST: Duration = Duration::from_secs(5);

/// Time that passes when somebody waits for it.
#[derive(Debug, Default)]
struct Passing(AtomicU64);

impl Clock for Passing {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, moment: Moment) -> Sleep {
        self.0.fetch_max(moment.as_nanos(), Ordering::Relaxed);
        Box::pin(tokio::task::yield_now())
    }
}

/// A store in memory that can be away, and counts what is fetched from it.
#[derive(Debug, Default)]
struct Store {
    objects: InMemory,
    away: AtomicBool,
    fetched: AtomicUsize,
}

impl Store {
    async fn write(&self, path: &str, content: &str) {
        let payload = PutPayload::from(content.to_owned());
        self.objects.put(&Path::from(path), payload).await.unwrap();
    }

    async fn remove(&self, path: &str) {
        self.objects.delete(&Path::from(path)).await.unwrap();
    }

    fn answers(&self) -> Result<()> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(object_store::Error::Generic {
                store: "test",
                source: "away".into(),
            }),
            false => Ok(()),
        }
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a store of the test's own")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, to: &Path, payload: PutPayload, o: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(to, payload, o).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.answers()?;
        self.fetched.fetch_add(1, Ordering::Relaxed);
        self.objects.get_opts(from, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.objects.list(prefix);
        match self.answers() {
            Ok(()) => listed,
            // Half of a listing, and then no more.
            Err(error) => listed
                .take(1)
                .chain(stream::once(async { Err(error) }))
                .boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// A store, a cache, and the servers that use them.
struct World {
    store: Arc<Store>,
    cache: TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            store: Arc::default(),
            cache: tempfile::tempdir().unwrap(),
        }
    }

    fn server(&self) -> Mirror {
        self.server_with(1_000, 100)
    }

    fn server_with(&self, cache_bytes: u64, max_objects: usize) -> Mirror {
        let settings = RemoteSettings {
            cache_dir: self.cache.path().to_owned(),
            cache_bytes,
            rest: REST,
            max_objects,
        };
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        let clock = Arc::new(Passing::default());
        let url = "test://at".to_owned();
        Mirror::of(url, store, Path::from("at"), settings, clock).unwrap()
    }

    fn fetched(&self) -> usize {
        self.store.fetched.load(Ordering::Relaxed)
    }

    fn is_away(&self, away: bool) {
        self.store.away.store(away, Ordering::Relaxed);
    }
}

/// Looks twice, far enough apart.
async fn settle(mirror: &Mirror) {
    mirror.look().await.unwrap();
    mirror.sleep(REST).await;
    mirror.look().await.unwrap();
}

async fn folder(mirror: &Mirror, model: &str) -> ModelFolder {
    mirror.bring(model, &Fetched::default()).await.unwrap();
    mirror.read(model).unwrap().unwrap()
}

fn content(folder: &ModelFolder, path: &str) -> String {
    fs::read_to_string(folder.path.join(path)).unwrap()
}

#[tokio::test]
async fn what_rests_is_taken_with_the_versions_that_are_served() {
    let world = World::new();
    world.store.write("at/m/model.toml", "weight = 3").await;
    for version in 1..=3 {
        let path = format!("at/m/{version}/model.onnx");
        world
            .store
            .write(&path, &format!("version {version}"))
            .await;
    }
    world.store.write("at/m/3/deep/weights", "w").await;
    world.store.write("elsewhere/n/1/model.onnx", "n").await;
    let mirror = world.server();
    mirror.first_look(INTERVAL).await;
    assert_eq!(mirror.names(), ["m"]);
    let folder = folder(&mirror, "m").await;
    assert_eq!(folder.policy.queue.weight, 3);
    assert_eq!(folder.versions(), [1, 2, 3]);
    assert_eq!(content(&folder, "3/model.onnx"), "version 3");
    assert_eq!(content(&folder, "3/deep/weights"), "w");
    // The latest version alone is served, and fetched.
    assert!(!folder.path.join("2/model.onnx").exists());
    assert_eq!(world.fetched(), 3);
}

#[tokio::test]
async fn a_version_is_not_taken_before_it_rests() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "one").await;
    let mirror = world.server();
    mirror.look().await.unwrap();
    assert_eq!(mirror.names(), Vec::<String>::new());
    settle(&mirror).await;
    let before = mirror.fingerprint("m");
    assert_eq!(folder(&mirror, "m").await.versions(), [1]);
    for part in 0..5 {
        world
            .store
            .write(&format!("at/m/2/{part}.onnx"), "part")
            .await;
        mirror.look().await.unwrap();
        mirror.sleep(REST / 2).await;
        assert_eq!(mirror.fingerprint("m"), before);
        assert_eq!(folder(&mirror, "m").await.versions(), [1]);
    }
    settle(&mirror).await;
    assert_ne!(mirror.fingerprint("m"), before);
    let folder = folder(&mirror, "m").await;
    assert_eq!(folder.versions(), [1, 2]);
    assert_eq!(content(&folder, "2/4.onnx"), "part");
}

#[tokio::test]
async fn a_version_whose_model_is_still_missing_is_none() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "one").await;
    world.store.write("at/m/2/weights", "half of two").await;
    world.store.write("at/n/1/weights", "half of one").await;
    let mirror = world.server();
    settle(&mirror).await;
    assert_eq!(folder(&mirror, "m").await.versions(), [1]);
    let told = mirror
        .bring("n", &Fetched::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("no version of \"n\" has its model.onnx"),
        "{told}"
    );
    world.store.write("at/m/2/model.onnx", "two").await;
    settle(&mirror).await;
    assert_eq!(folder(&mirror, "m").await.versions(), [1, 2]);
}

#[tokio::test]
async fn what_was_taken_stays_as_it_is_for_whoever_holds_it() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "old").await;
    let mirror = world.server_with(3, 100);
    settle(&mirror).await;
    let old = folder(&mirror, "m").await;
    world.store.write("at/m/1/model.onnx", "new").await;
    settle(&mirror).await;
    // The cache has no room for both while the old one is held.
    let told = mirror
        .bring("m", &Fetched::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(told.contains("cache_bytes is 3"), "{told}");
    assert_eq!(content(&old, "1/model.onnx"), "old");
    let mirror = world.server_with(6, 100);
    settle(&mirror).await;
    let new = folder(&mirror, "m").await;
    assert_eq!(content(&old, "1/model.onnx"), "old");
    assert_eq!(content(&new, "1/model.onnx"), "new");
}

#[tokio::test]
async fn what_is_released_makes_room() {
    let world = World::new();
    for model in ["m", "n"] {
        let path = format!("at/{model}/1/model.onnx");
        world.store.write(&path, model).await;
    }
    let mirror = world.server_with(1, 100);
    settle(&mirror).await;
    mirror.bring("m", &Fetched::default()).await.unwrap();
    mirror.bring("n", &Fetched::default()).await.unwrap_err();
    mirror.release("m");
    assert_eq!(content(&folder(&mirror, "n").await, "1/model.onnx"), "n");
    mirror.release("n");
    assert_eq!(content(&folder(&mirror, "m").await, "1/model.onnx"), "m");
}

#[tokio::test]
async fn a_version_that_stays_keeps_its_fingerprint() {
    let world = World::new();
    world
        .store
        .write("at/m/model.toml", "versions = \"all\"")
        .await;
    world.store.write("at/m/1/model.onnx", "one").await;
    let mirror = world.server();
    settle(&mirror).await;
    let before = folder(&mirror, "m").await;
    world.store.write("at/m/2/model.onnx", "two").await;
    settle(&mirror).await;
    let after = folder(&mirror, "m").await;
    assert_ne!(before.path, after.path);
    assert_eq!(before.fingerprint(1), after.fingerprint(1));
    assert_ne!(before.fingerprint(1), after.fingerprint(2));
    assert_eq!(world.fetched(), 3);
}

#[tokio::test]
async fn a_listing_that_fails_or_breaks_off_changes_nothing() {
    let world = World::new();
    for model in ["a", "b"] {
        let path = format!("at/{model}/1/model.onnx");
        world.store.write(&path, model).await;
    }
    let mirror = world.server();
    settle(&mirror).await;
    world.is_away(true);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        mirror.look().await.unwrap_err();
        mirror.sleep(REST).await;
        pauses.push(mirror.pause(INTERVAL));
    }
    assert_eq!(mirror.names(), ["a", "b"]);
    assert!(
        pauses[0] >= INTERVAL && pauses[7] >= 10 * INTERVAL,
        "{pauses:?}"
    );
    world.is_away(false);
    settle(&mirror).await;
    assert_eq!(mirror.names(), ["a", "b"]);
    assert!(mirror.pause(INTERVAL) < 2 * INTERVAL);
}

#[tokio::test]
async fn more_objects_than_allowed_change_nothing() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "m").await;
    let mirror = world.server_with(1_000, 2);
    settle(&mirror).await;
    for name in ["n", "o"] {
        let path = format!("at/{name}/1/model.onnx");
        world.store.write(&path, name).await;
    }
    let told = mirror.look().await.unwrap_err().to_string();
    assert!(
        told.contains("more than 2 objects; max_repository_objects"),
        "{told}"
    );
    assert_eq!(mirror.names(), ["m"]);
}

#[tokio::test]
async fn what_goes_from_the_store_goes_when_it_is_sure() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "m").await;
    let mirror = world.server();
    settle(&mirror).await;
    folder(&mirror, "m").await;
    world.store.remove("at/m/1/model.onnx").await;
    mirror.look().await.unwrap();
    assert_eq!(mirror.names(), ["m"]);
    mirror.sleep(REST).await;
    mirror.look().await.unwrap();
    assert_eq!(mirror.names(), Vec::<String>::new());
    assert!(mirror.read("m").is_none());
}

#[tokio::test]
async fn a_restart_fetches_nothing_again() {
    let world = World::new();
    world.store.write("at/m/model.toml", "weight = 3").await;
    world.store.write("at/m/1/model.onnx", "m").await;
    for _ in 0..2 {
        let mirror = world.server();
        settle(&mirror).await;
        folder(&mirror, "m").await;
        assert_eq!(world.fetched(), 2);
    }
}

#[tokio::test]
async fn a_restart_serves_from_the_cache_while_the_store_is_away() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "m").await;
    let mirror = world.server();
    settle(&mirror).await;
    folder(&mirror, "m").await;
    drop(mirror);
    world.is_away(true);
    let mirror = world.server();
    mirror.first_look(INTERVAL).await;
    assert_eq!(mirror.names(), ["m"]);
    assert_eq!(content(&folder(&mirror, "m").await, "1/model.onnx"), "m");
    // One model is remembered by itself where clients decide.
    let mirror = world.server();
    mirror.look_at("m").await.unwrap();
    assert_eq!(content(&folder(&mirror, "m").await, "1/model.onnx"), "m");
    mirror.look_at("n").await.unwrap_err();
    // When the store is back, what it says holds.
    world.is_away(false);
    world.store.write("at/m/1/model.onnx", "new").await;
    settle(&mirror).await;
    assert_eq!(content(&folder(&mirror, "m").await, "1/model.onnx"), "new");
}

#[tokio::test]
async fn a_content_that_was_corrupted_in_the_cache_is_fetched_again() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "sound").await;
    let mirror = world.server();
    settle(&mirror).await;
    let file = folder(&mirror, "m").await.path.join("1/model.onnx");
    drop(mirror);
    let mut permissions = fs::metadata(&file).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(&file, permissions).unwrap();
    fs::write(&file, "wrong").unwrap();
    let mirror = world.server();
    settle(&mirror).await;
    assert_eq!(
        content(&folder(&mirror, "m").await, "1/model.onnx"),
        "sound"
    );
    assert_eq!(world.fetched(), 2);
}

#[tokio::test]
async fn what_is_doubted_is_fetched_anew_after_a_restart_too() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "one").await;
    world.store.write("at/m/2/model.onnx", "two").await;
    world.store.write("at/m/model.toml", "").await;
    let mirror = world.server();
    settle(&mirror).await;
    let taken = folder(&mirror, "m").await;
    assert_eq!(world.fetched(), 2);
    let lease = taken.lease.as_ref();
    mirror.doubt("m", Some(2), lease);
    let anew = folder(&mirror, "m").await;
    assert_eq!(world.fetched(), 3);
    // It is no longer doubted, nor is what is there for what was there before.
    mirror.doubt("m", Some(2), lease);
    folder(&mirror, "m").await;
    assert_eq!(world.fetched(), 3);
    mirror.doubt("m", Some(2), anew.lease.as_ref());
    mirror.doubt("m", None, None);
    drop((mirror, taken, anew));
    let mirror = world.server();
    settle(&mirror).await;
    folder(&mirror, "m").await;
    assert_eq!(world.fetched(), 5);
}

#[tokio::test]
async fn what_is_doubted_is_taken_as_it_was_where_it_cannot_be_fetched() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "one").await;
    let mirror = world.server();
    settle(&mirror).await;
    let taken = folder(&mirror, "m").await;
    mirror.doubt("m", Some(1), taken.lease.as_ref());
    world.is_away(true);
    assert_eq!(content(&folder(&mirror, "m").await, "1/model.onnx"), "one");
    drop((mirror, taken));
    let mirror = world.server();
    mirror.first_look(REST).await;
    assert_eq!(content(&folder(&mirror, "m").await, "1/model.onnx"), "one");
    assert_eq!(world.fetched(), 1);
    world.is_away(false);
    drop(mirror);
    let mirror = world.server();
    settle(&mirror).await;
    folder(&mirror, "m").await;
    assert_eq!(world.fetched(), 2);
}

#[tokio::test]
async fn what_changes_between_the_look_and_the_fetch_is_not_taken() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "old").await;
    let mirror = world.server();
    settle(&mirror).await;
    world.store.write("at/m/1/model.onnx", "new").await;
    mirror.bring("m", &Fetched::default()).await.unwrap_err();
    assert!(mirror.read("m").is_none());
    // It is not tried at every look.
    assert!(!mirror.is_due("m"));
    mirror.sleep(REST).await;
    assert!(mirror.is_due("m"));
    settle(&mirror).await;
    assert_eq!(content(&folder(&mirror, "m").await, "1/model.onnx"), "new");
}

#[tokio::test]
async fn a_wrong_configuration_is_taken_to_be_explained() {
    let world = World::new();
    world.store.write("at/m/model.toml", "weight = 0").await;
    world.store.write("at/m/1/model.onnx", "m").await;
    let mirror = world.server();
    settle(&mirror).await;
    mirror.bring("m", &Fetched::default()).await.unwrap();
    let told = mirror.read("m").unwrap().unwrap_err().to_string();
    assert!(told.contains("m/model.toml:1: weight"), "{told}");
}

#[tokio::test]
async fn an_object_that_is_file_and_folder_at_once_is_refused() {
    let world = World::new();
    world.store.write("at/m/1/a", "file").await;
    world.store.write("at/m/1/a/model.onnx", "below it").await;
    let mirror = world.server();
    settle(&mirror).await;
    mirror.bring("m", &Fetched::default()).await.unwrap_err();
    assert!(mirror.read("m").is_none());
}

#[tokio::test]
async fn a_client_that_asks_for_a_new_model_waits_for_it_to_rest() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "m").await;
    let mirror = world.server();
    mirror.look_at("m").await.unwrap();
    assert_eq!(content(&folder(&mirror, "m").await, "1/model.onnx"), "m");
    mirror.look_at("n").await.unwrap();
    assert!(mirror.read("n").is_none());
}

#[tokio::test]
async fn a_cache_that_another_server_holds_is_waited_for() {
    let world = World::new();
    world.store.write("at/m/1/model.onnx", "one").await;
    drop(world.server());
    let lock = fs::File::open(world.cache.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let mirror = Arc::new(world.server());
    let error = mirror.set_up().await.unwrap_err();
    assert!(matches!(error, RemoteError::Held { .. }), "{error}");
    let looks = Arc::clone(&mirror);
    let looking = tokio::spawn(async move { looks.first_look(INTERVAL).await });
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    assert!(!looking.is_finished());
    drop(lock);
    looking.await.unwrap();
    assert_eq!(content(&folder(&mirror, "m").await, "1/model.onnx"), "one");
}

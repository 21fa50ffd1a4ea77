use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

struct Shared {
    folder: TempDir,
    memory: SharedMemory,
}

/// Files of eight bytes, of which those that begin with `in-` may be registered.
fn shared() -> Shared {
    let folder = tempfile::tempdir().unwrap();
    for name in ["in-a", "in-b", "out"] {
        std::fs::write(folder.path().join(name), [1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    }
    let policy = SharedMemoryPolicy {
        prefix: Some(folder.path().join("in-")),
        cuda: false,
        max_regions: 2,
        max_bytes: 12,
    };
    let memory = SharedMemory::open(policy, Arc::new(Inventory::detect())).unwrap();
    Shared { folder, memory }
}

fn part(offset: u64, bytes: u64) -> RegionPart {
    RegionPart {
        region: "r".to_owned(),
        offset,
        bytes,
    }
}

fn told<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    result.unwrap_err().message
}

#[test]
fn what_is_written_is_read() {
    let Shared { folder, memory } = shared();
    memory.register_system("r", "/in-a", 2, 5).unwrap();
    let span = memory.span(&part(1, 3)).unwrap();
    assert_eq!(span.read().unwrap()[..], [4, 5, 6]);
    span.write(&[9, 9]).unwrap();
    let file = std::fs::read(folder.path().join("in-a")).unwrap();
    assert_eq!(file, [1, 2, 3, 9, 9, 6, 7, 8]);
    assert!(told(span.write(&[0; 4])).contains("it has 4 bytes where"));
}

#[test]
fn nothing_outside_a_region_is_reached() {
    let Shared {
        folder: _folder,
        memory,
    } = shared();
    memory.register_system("r", "in-a", 2, 5).unwrap();
    for (offset, bytes) in [(0, 6), (5, 1), (6, 0), (u64::MAX, 2), (2, u64::MAX)] {
        let told = told(memory.span(&part(offset, bytes)));
        assert!(told.contains("are not inside"), "{told}");
    }
    assert!(memory.span(&part(5, 0)).is_ok());
    for (offset, bytes) in [(0, 9), (8, 1), (u64::MAX, 2), (1, u64::MAX)] {
        let told = told(memory.register_system("s", "in-b", offset, bytes));
        assert!(told.contains("are not inside it; it has 8"), "{told}");
    }
    assert!(told(memory.register_system("s", "in-b", 8, 0)).contains("byte_size is 0"));
}

#[test]
fn keys_stay_where_they_may_be() {
    let Shared { folder, memory } = shared();
    symlink(folder.path().join("out"), folder.path().join("in-link")).unwrap();
    std::fs::create_dir(folder.path().join("in-folder")).unwrap();
    let escape = format!("/in-/../../..{}", folder.path().join("out").display());
    for (key, why) in [
        ("out", "not allowed"),
        ("", "not allowed"),
        ("/", "not allowed"),
        ("..", "not allowed"),
        ("//in-a", "not allowed"),
        ("in-x/../out", "not allowed"),
        (&escape, "not allowed"),
        ("in-link", "links are not followed"),
        ("in-folder", "directory"),
        ("in-\0a", "key"),
        ("in-nowhere", "No such file"),
    ] {
        let told = told(memory.register_system("r", key, 0, 1));
        assert!(told.contains(why), "{key:?}: {told}");
    }
    assert!(memory.regions(RegionKind::System, "").unwrap().is_empty());
}

#[test]
fn regions_are_bounded_and_forgotten() {
    let Shared {
        folder: _folder,
        memory,
    } = shared();
    memory.register_system("r", "in-a", 0, 8).unwrap();
    assert!(told(memory.register_system("r", "in-a", 0, 1)).contains("registered already"));
    let much = memory.register_system("s", "in-b", 0, 5).unwrap_err();
    assert_eq!(much.code, Code::ResourceExhausted);
    assert!(
        much.message
            .contains("of 12 (max_shared_memory_bytes) 8 are taken")
    );
    memory.register_system("s", "in-b", 0, 4).unwrap();
    memory.unregister(RegionKind::Cuda, "");
    let more = memory.register_system("t", "in-b", 0, 1).unwrap_err();
    assert!(more.message.contains("2 regions are registered"), "{more}");
    let held = memory.span(&part(0, 2)).unwrap();
    memory.unregister(RegionKind::System, "r");
    memory.unregister(RegionKind::System, "nobody");
    assert_eq!(memory.regions(RegionKind::System, "").unwrap().len(), 1);
    assert_eq!(
        told(memory.span(&part(0, 2))),
        "there is no shared memory region \"r\"; register it first"
    );
    assert_eq!(held.read().unwrap()[..], [1, 2]);
    assert!(memory.regions(RegionKind::System, "r").is_err());
    memory.register_system("r", "in-a", 0, 8).unwrap();
    memory.unregister(RegionKind::System, "");
    assert!(memory.regions(RegionKind::System, "").unwrap().is_empty());
}

#[test]
fn a_file_that_shrinks_or_goes_is_no_signal() {
    let Shared { folder, memory } = shared();
    memory.register_system("r", "in-a", 0, 8).unwrap();
    let span = memory.span(&part(0, 8)).unwrap();
    let path = folder.path().join("in-a");
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(3)
        .unwrap();
    assert!(
        told(span.read()).contains("has become shorter since it was registered; it has 3 bytes")
    );
    assert!(told(span.write(&[0; 8])).contains("has become shorter"));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 3);
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(8)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(span.read().unwrap()[..], [1, 2, 3, 0, 0, 0, 0, 0]);
    span.write(&[7; 8]).unwrap();
    assert_eq!(span.read().unwrap()[..], [7; 8]);
}

#[test]
fn what_is_not_offered_says_how_it_would_be() {
    let policy = SharedMemoryPolicy {
        prefix: None,
        cuda: false,
        max_regions: 1,
        max_bytes: 1,
    };
    let memory = SharedMemory::open(policy, Arc::new(Inventory::detect())).unwrap();
    let system = memory.register_system("r", "in-a", 0, 1).unwrap_err();
    assert_eq!(system.code, Code::FailedPrecondition);
    assert!(system.message.contains("--shared-memory-prefix"));
    let cuda = memory.register_cuda("r", &[0; 64], 0, 1).unwrap_err();
    assert_eq!(cuda.code, Code::FailedPrecondition);
    assert!(cuda.message.contains("CUDA"));
}
